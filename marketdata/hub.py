"""One per web process: receives the feeds' batches, encodes each event once, hands it to sockets.

The hub holds every touch always, and an instrument's trades, candles and books only while
somebody here wants them. It runs in one event loop and is called from there; nothing in it
waits for a client.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import NamedTuple, Protocol

import structlog
from channels.layers import BaseChannelLayer

from core.candles import Candle
from core.events import Level
from core.ewma import Ewma
from core.instruments import Instrument
from core.touch import Touch, TouchBoard
from marketdata import frames
from marketdata.batches import (
    ALL,
    HEARTBEAT_LOST_S,
    INTEREST_REPEAT_S,
    INTEREST_S,
    REQUEST_GROUP,
    TOUCH_GROUP,
    BookUpdate,
    CandleUpdate,
    Gap,
    InstrumentBatch,
    QuoteSlot,
    TouchBatch,
    TradePrint,
    VenueStatus,
    instrument_group,
    interest_message,
    read_message,
)

log = structlog.get_logger(__name__)

LIVE = "live"
STALE = "stale"
NO_FEEDS = "no word from the feeds"
LATE_S = 2.0  # a batch that waited longer is not of now: what it tells would soon be older than a lost beat allows
WATCH_INTERVAL_S = 0.5
LOOKS_KEPT = 60  # half a minute
STEADY_S = 0.5  # by so little differ the least delays of a while in which nothing falls behind
CLOCKS_DRIFT = 1e-4  # by which two machines' clocks may differ in pace
FIRST_NEWS_S = 1.5  # how long a reader waits for an instrument that nobody wanted until now
BOOKS_DEPTH = 10  # levels of a side on /ws/orderbook
RETRY_S = 0.5
REJOIN_S = 5.0  # without a batch
_NOTHING = QuoteSlot("", "", None, None, None, None, None, 0)
QUICK_STREAMS = frozenset({"best_touch"})  # served from the touches that every process holds


class Encoded:
    """An event in the form that every socket sends: the text, and its WebSocket frame once somebody made it."""

    __slots__ = ("framed", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.framed: bytes | None = None


class TopicKey(NamedTuple):
    """One distinct stream of data. `argument`: interval or depth or half-life; `start`: for EWMA its first trade."""

    stream: str
    instrument: str
    venue: str
    argument: float | None = None
    singular: bool = False  # frames with the older, singular type
    start: int = 0


class Subscriber(Protocol):
    """A socket's outbox."""

    def push(self, frame: Encoded, latest: TopicKey | None) -> None:
        """Send a frame. `latest` names the value that it replaces; None queues it."""

    def forget(self, latest: TopicKey) -> None:
        """Drop a value that waits to be sent."""


class _Topic:
    __slots__ = ("ewma", "key", "kind", "name", "subscribers", "symbol", "time_ns")

    def __init__(self, key: TopicKey, symbol: str) -> None:
        self.key = key
        self.symbol = symbol
        self.subscribers: set[Subscriber] = set()
        interval = int(key.argument) if key.stream == "klines" and key.argument is not None else None
        self.kind = frames.SINGULAR[key.stream] if key.singular else key.stream
        self.name = frames.topic(key.stream, symbol, key.venue, interval)
        self.ewma = Ewma(key.argument) if key.stream == "ewma" and key.argument is not None else None
        self.time_ns = 0

    def send(self, data: str, now_ns: int, *, conflate: bool) -> None:
        frame = Encoded(frames.data_frame(self.kind, self.name, now_ns, data))
        if conflate:
            for subscriber in self.subscribers:
                subscriber.push(frame, self.key)
            return
        for subscriber in self.subscribers:
            subscriber.forget(self.key)  # a running candle must not follow the closed one
            subscriber.push(frame, None)


class _Interest:
    """An instrument that somebody here wants: why it is kept, and what is known of it."""

    def __init__(self) -> None:
        self.until_s = 0.0  # leases of readers without a subscription
        self.asked_s = 0.0
        self.joined = False
        self.told = asyncio.Event()
        self.heard: set[str] = set()  # publishers that told what they know
        self.candles: dict[tuple[str, int], Candle] = {}
        self.books: dict[str, BookUpdate] = {}
        self.trade_ids: dict[str, int] = {}
        self.sequences: dict[str, int] = {}


class _Delay:
    """How much longer than its fastest ones a publisher's batches were under way.

    The clocks of two machines have nothing in common but their pace, so that only a difference tells.
    One that stays the same for long is a clock that stood still, and what it says is believed again;
    one that grows is a layer, or a process, that falls behind. "Long" is counted in looks of this
    process between which something came: neither the time in which it stood still counts, nor
    that in which nobody could tell it anything.
    """

    def __init__(self) -> None:
        self._moments: deque[float] = deque(maxlen=LOOKS_KEPT)  # the least of each
        self._least = self._now = inf  # of all of them, and of the present one

    def take(self, under_way_s: float) -> float:
        """Return the delay of a batch, seconds; `under_way_s` is right but for a constant."""
        self._now = min(self._now, under_way_s)
        return under_way_s - min(self._least, self._now)

    def look(self) -> None:
        """Begin another moment."""
        if self._now == inf:
            return
        self._moments.append(self._now)
        least, self._now = min(self._moments), inf
        steady = len(self._moments) == LOOKS_KEPT and max(self._moments) - least < STEADY_S
        if steady and least > self._least + LATE_S:
            self._least = least
        else:
            self._least = min(self._least + WATCH_INTERVAL_S * CLOCKS_DRIFT, least)


class Hub:
    """The market as this process sees it, and who of its clients wants which part."""

    def __init__(self, layer: BaseChannelLayer, instruments: Sequence[Instrument], venues: Sequence[str]) -> None:
        self.instruments = {instrument.name: instrument for instrument in instruments}
        self.venues = tuple(venues)
        self.source: str | None = None  # known with the first heartbeat
        self.statuses: dict[str, VenueStatus] = {}
        self.counters: Counter[str] = Counter()
        self.touch_listeners: list[Callable[[str], None]] = []  # called with each instrument whose touch changed
        self.listening = asyncio.Event()  # set while the layer delivers to this process
        self._layer = layer
        self._boards = {name: TouchBoard(self.venues) for name in self.instruments}
        self._topics: dict[TopicKey, _Topic] = {}
        self._by_instrument: dict[str, set[TopicKey]] = {name: set() for name in self.instruments}
        self._interests: dict[str, _Interest] = {}
        self._interest_changed = asyncio.Event()
        self._heard_s: dict[str, float] = {}  # venue, or "all" for the consolidator → when its feeds last beat
        self._beat_s = time.monotonic()  # when the last of them was heard
        self._publishers: dict[str, str] = {}  # likewise → who they are
        self._delays: dict[str, _Delay] = {}
        self._behind: set[str] = set()  # publishers whose batches are old when they come
        self._sequences: dict[str, int] = {}
        self._times_aside: Counter[tuple[str, str]] = Counter()  # of instrument and venue, as far as it was logged
        self._disputed: set[str] = set()  # likewise
        self._trades_seen = 0
        self._batch_s = time.monotonic()  # when the last touches came
        self._books_subscribers: dict[str, set[Subscriber]] = {}
        self._channel = ""
        self._tasks: list[asyncio.Task[None]] = []

    # -- life

    async def start(self) -> None:
        """Begin to listen. Calling it again does nothing."""
        if not self._tasks:
            loops = (self._receive_loop, self._interest_loop, self._watch_loop)
            self._tasks = [asyncio.create_task(loop(), name=f"hub{loop.__name__}") for loop in loops]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def knows(self, instrument: str) -> bool:
        """True when the instrument's trades, candles and books come in."""
        interest = self._interests.get(instrument)
        return interest is not None and interest.told.is_set()

    # -- what is known now

    def touch(self, instrument: str, venue: str = ALL) -> Touch:
        board = self._boards[instrument]
        return board.touch if venue == ALL else board.venue_touch(venue)

    def board(self, instrument: str) -> TouchBoard:
        return self._boards[instrument]

    def is_live(self, venue: str) -> bool:
        status = self.statuses.get(venue)
        return status is not None and status.state == LIVE

    def is_current(self) -> bool:
        """True while what the feeds tell is heard here within 3 s. After this process stood still, it is not at first.

        Callable from any thread: it does not wait for the event loop to find out.
        """
        return time.monotonic() - self._beat_s <= HEARTBEAT_LOST_S

    def takes_part(self, instrument: str, venue: str) -> bool:
        """True when orders may execute at what the venue shows: it is live, and not set aside."""
        return self.is_current() and self.is_live(venue) and venue not in self._boards[instrument].aside

    def set_aside(self, venue: str) -> list[str]:
        """Return the instruments whose price at the venue strays too far from the others' to be believed."""
        return [instrument for instrument, board in self._boards.items() if venue in board.aside]

    async def candle(self, instrument: str, venue: str, interval: int) -> Candle | None:
        """Return the running candle; None before the first trade or without feeds."""
        interest = await self._known(instrument)
        return interest.candles.get((venue, interval))

    async def books(self, instrument: str) -> dict[str, BookUpdate]:
        """Return the books of the live venues, asking the feeds for them when nobody did so far."""
        return self._live_books(await self._known(instrument))

    def keep(self, instrument: str) -> None:
        """Let trades, candles and books of an instrument come in for the next `INTEREST_S`."""
        self._want(instrument, lease=True)

    def shown_books(self, instrument: str) -> dict[str, BookUpdate]:
        """Return the books of the live venues as far as they are known here now. Callable from any thread."""
        interest = self._interests.get(instrument)
        return {} if interest is None else self._live_books(interest)

    def of_all(self, instrument: str, books: dict[str, BookUpdate]) -> dict[str, BookUpdate]:
        """Leave out the books of venues that are set aside: what they offer is not in the touch either."""
        return {venue: book for venue, book in books.items() if self.takes_part(instrument, venue)}

    async def _known(self, instrument: str) -> _Interest:
        interest = self._want(instrument, lease=True)
        if not interest.told.is_set():
            try:
                async with asyncio.timeout(FIRST_NEWS_S):
                    await interest.told.wait()
            except TimeoutError:
                log.warning("the feeds did not answer in time", instrument=instrument)
        return interest

    def _live_books(self, interest: _Interest) -> dict[str, BookUpdate]:
        books = ((venue, interest.books.get(venue)) for venue in self.venues if self.is_live(venue))
        return {venue: book for venue, book in books if book is not None}

    # -- subscriptions

    def topic_key(
        self, stream: str, instrument: str, venue: str, argument: float | None = None, *, singular: bool = False
    ) -> TopicKey:
        """Name the topic that a subscription made now belongs to."""
        start = self._trades_seen if stream == "ewma" else 0
        return TopicKey(stream, instrument, venue, argument, singular, start)

    async def awaken(self, stream: str, instrument: str) -> None:
        """Return when this process receives what the stream is made of, so that a subscriber misses nothing."""
        if stream not in QUICK_STREAMS:
            await self._known(instrument)

    def join(self, subscriber: Subscriber, key: TopicKey) -> list[Encoded]:
        """Add a subscriber and return the topic's present value, if it has one."""
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = _Topic(key, self.instruments[key.instrument].symbol)
            self._by_instrument[key.instrument].add(key)
        topic.subscribers.add(subscriber)
        if key.stream not in QUICK_STREAMS:
            self._want(key.instrument)
        data = self._present(topic)
        return [Encoded(frames.data_frame(topic.kind, topic.name, time.time_ns(), data))] if data else []

    def leave(self, subscriber: Subscriber, key: TopicKey) -> None:
        topic = self._topics.get(key)
        if topic is not None:
            topic.subscribers.discard(subscriber)
            if not topic.subscribers:
                del self._topics[key]
                self._by_instrument[key.instrument].discard(key)

    def join_books(self, subscriber: Subscriber, venue: str) -> None:
        """Send the books of all instruments once a second."""
        self._books_subscribers.setdefault(venue, set()).add(subscriber)
        for instrument in self.instruments:
            self._want(instrument)

    def leave_books(self, subscriber: Subscriber, venue: str) -> None:
        subscribers = self._books_subscribers.get(venue, set())
        subscribers.discard(subscriber)
        if not subscribers:
            self._books_subscribers.pop(venue, None)

    def _present(self, topic: _Topic) -> str | None:
        key, now_ns = topic.key, time.time_ns()
        if key.stream == "best_touch":
            return frames.touch_data(topic.symbol, key.venue, self.touch(key.instrument, key.venue), now_ns)
        interest = self._interests.get(key.instrument)
        if interest is None:
            return None
        if key.stream == "klines" and key.argument is not None:
            candle = interest.candles.get((key.venue, int(key.argument)))
            return frames.candle_data(topic.symbol, key.venue, candle) if candle else None
        if key.stream == "orderbook":
            return self._book_data(topic, interest, now_ns)
        return _ewma_data(topic)

    def _book_data(self, topic: _Topic, interest: _Interest, now_ns: int) -> str | None:
        key, depth = topic.key, int(topic.key.argument or BOOKS_DEPTH)
        books = self._live_books(interest)
        if key.venue == ALL:
            books = self.of_all(key.instrument, books)
            return book_of_all(topic.symbol, books, depth, now_ns) if books else None
        book = books.get(key.venue)
        return book_of_venue(topic.symbol, book, depth) if book else None

    # -- interest in instruments

    def _want(self, instrument: str, *, lease: bool = False) -> _Interest:
        interest = self._interests.get(instrument)
        if interest is None:
            interest = self._interests[instrument] = _Interest()
            self._interest_changed.set()
        if lease:
            interest.until_s = time.monotonic() + INTEREST_S
        return interest

    def _is_wanted(self, instrument: str, interest: _Interest, now_s: float) -> bool:
        return (
            interest.until_s > now_s
            or bool(self._books_subscribers)
            or any(key.stream not in QUICK_STREAMS for key in self._by_instrument[instrument])
        )

    async def _interest_loop(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_INTERVAL_S):  # wait_for would lose a cancellation that meets the event
                    await self._interest_changed.wait()
            self._interest_changed.clear()
            try:
                if self.listening.is_set():
                    await self._rejoin_when_silent()
                    await self._tend_interests()
            except Exception:
                log.exception("asking the feeds for instruments failed")
                await asyncio.sleep(RETRY_S)

    async def _rejoin_when_silent(self) -> None:
        """Join the groups again when nothing comes any more: a layer may have forgotten us, and would not say so."""
        now_s = time.monotonic()
        if now_s - self._batch_s < REJOIN_S:
            return
        self._batch_s = now_s
        await self._layer.group_add(TOUCH_GROUP, self._channel)
        for interest in self._interests.values():
            interest.joined = False
        self._ask_again()

    async def _tend_interests(self) -> None:
        for instrument, interest in tuple(self._interests.items()):
            now_s = time.monotonic()
            if not self._is_wanted(instrument, interest, now_s):
                del self._interests[instrument]
                await self._layer.group_discard(instrument_group(instrument), self._channel)
                continue
            if not interest.joined:
                await self._layer.group_add(instrument_group(instrument), self._channel)
                interest.joined = True
            if now_s - interest.asked_s >= INTEREST_REPEAT_S:
                interest.asked_s = now_s
                await self._layer.group_send(REQUEST_GROUP, interest_message(instrument))

    def _ask_again(self) -> None:
        """Tell feeds that know nothing of us yet what we want."""
        for interest in self._interests.values():
            interest.asked_s = 0.0
        self._interest_changed.set()

    # -- batches

    async def _receive_loop(self) -> None:
        while True:
            try:
                channel = await self._layer.new_channel()
                await self._layer.group_add(TOUCH_GROUP, channel)
                for interest in self._interests.values():
                    interest.joined = False
                self._channel = channel
                self.listening.set()
                self._ask_again()
                while True:
                    await self._receive(channel)
            except Exception:
                self.listening.clear()
                log.exception("listening to market data failed")
                await asyncio.sleep(RETRY_S)

    async def _receive(self, channel: str) -> None:
        """Take one message. One that cannot be had is left out: a new channel would fill the old one for ever."""
        try:
            message = await self._layer.receive(channel)
        except Exception:
            self.counters["bad_batches"] += 1
            log.exception("receiving market data failed")
            await asyncio.sleep(RETRY_S)
            return
        self._take(message)

    def _take(self, message: dict[str, object]) -> None:
        try:
            batch = read_message(message)
            if isinstance(batch, TouchBatch):
                self._take_touches(batch)
            elif batch is not None:
                self._take_instrument(batch)
        except Exception:
            self.counters["bad_batches"] += 1
            log.exception("a batch of market data could not be taken")

    def _take_touches(self, batch: TouchBatch) -> None:
        self._batch_s = time.monotonic()
        self.source = batch.source
        if batch.publisher not in self._sequences:
            self._ask_again()
        self._count_loss(self._sequences, batch.publisher, batch.sequence)
        delay_s = self._delay_s(batch)
        if not self._is_of_now(batch, delay_s):
            return
        changed: set[str] = set()
        told = [status.venue for status in batch.statuses]
        beat_s = self._batch_s - delay_s
        for venue in told or ([ALL] if batch.heartbeat else []):
            self._heard_s[venue] = self._beat_s = beat_s
            self._publishers[venue] = batch.publisher
        for status in batch.statuses:
            changed |= self._take_status(status)
        moved: set[tuple[str, str]] = set()
        if batch.heartbeat:
            self._drop_untold(batch, changed, moved)
        for slot in batch.quotes:
            board = self._boards.get(slot.instrument)
            if board is None or not self.is_live(slot.venue):
                continue
            before = board.venue_touch(slot.venue)
            if board.quote(slot.venue, slot, slot.received_ns):
                changed.add(slot.instrument)
            if board.venue_touch(slot.venue) is not before:
                moved.add((slot.instrument, slot.venue))
        self._tell_touches(changed, moved)

    def _delay_s(self, batch: TouchBatch) -> float:
        """Return for how long a batch waited for us: after this process stood still, the old ones come first."""
        if batch.sent_s is None:
            return 0.0
        delay = self._delays.get(batch.publisher)
        if delay is None:
            beating = set(self._publishers.values())
            self._delays = {publisher: known for publisher, known in self._delays.items() if publisher in beating}
            self._behind &= beating
            delay = self._delays[batch.publisher] = _Delay()
        return delay.take(self._batch_s - batch.sent_s)

    def _is_of_now(self, batch: TouchBatch, delay_s: float) -> bool:
        """Return False for what waited long, and from then on until a heartbeat tells the whole market again."""
        if delay_s > LATE_S:
            self._behind.add(batch.publisher)
        elif batch.heartbeat:
            self._behind.discard(batch.publisher)
        return batch.publisher not in self._behind

    def _drop_untold(self, batch: TouchBatch, changed: set[str], moved: set[tuple[str, str]]) -> None:
        """Empty the slots of a heartbeat's venues that are not in it: the batch that emptied them was lost."""
        told = {(slot.venue, slot.instrument) for slot in batch.quotes}
        for status in batch.statuses:
            for instrument, board in self._boards.items():
                shown = board.venue_touch(status.venue)
                if (status.venue, instrument) in told or (shown.bid is None and shown.ask is None):
                    continue
                if board.quote(status.venue, _NOTHING, 0):
                    changed.add(instrument)
                moved.add((instrument, status.venue))

    def _tell_touches(self, changed: Iterable[str], moved: Iterable[tuple[str, str]]) -> None:
        now_ns = time.time_ns()
        for instrument in changed:
            self._tell_touch(instrument, ALL, now_ns)
            for listener in self.touch_listeners:
                listener(instrument)
        for instrument, venue in moved:
            self._tell_touch(instrument, venue, now_ns)

    def _tell_touch(self, instrument: str, venue: str, now_ns: int) -> None:
        for singular in (False, True):
            topic = self._topics.get(TopicKey("best_touch", instrument, venue, None, singular))
            if topic is not None:
                data = frames.touch_data(topic.symbol, venue, self.touch(instrument, venue), now_ns)
                topic.send(data, now_ns, conflate=True)

    def _take_status(self, status: VenueStatus) -> set[str]:
        """Note a venue's state; return the instruments whose touch it changed."""
        before = self.statuses.get(status.venue)
        self.statuses[status.venue] = status
        if before is not None and before.state == status.state:
            return set()
        live = status.state == LIVE
        changed = {name for name, board in self._boards.items() if board.set_live(status.venue, live)}
        was_live = before is not None and before.state == LIVE
        if not live:
            for interest in self._interests.values():
                interest.books.pop(status.venue, None)
        if live != was_live:
            self._tell_venue(status)
        if was_live:
            self._tell_touches((), ((name, status.venue) for name in self._boards))
        return changed

    def _tell_venue(self, status: VenueStatus) -> None:
        subscribers: set[Subscriber] = set()
        for key, topic in self._topics.items():
            if key.venue in (ALL, status.venue):
                subscribers |= topic.subscribers
        frame = Encoded(frames.venue_frame(status.venue, status.state, status.reason))
        for subscriber in subscribers:
            subscriber.push(frame, None)

    def _take_instrument(self, batch: InstrumentBatch) -> None:
        interest = self._interests.get(batch.instrument)
        if interest is None:
            return
        if self._count_loss(interest.sequences, batch.publisher, batch.sequence):
            interest.asked_s = 0.0  # soon: books are told when they change, and orders execute behind the touch too
        told = {(gap.venue, gap.to_id) for gap in batch.gaps}
        for gap in batch.gaps:
            self._tell_gap(batch.instrument, gap)
            interest.trade_ids[gap.venue] = max(gap.to_id, interest.trade_ids.get(gap.venue, 0))
        for trade in batch.trades:
            self._take_trade(batch.instrument, interest, trade, told)
        for update in batch.candles:
            self._take_candle(batch.instrument, interest, update)
        for book in batch.books:
            interest.books[book.venue] = book
        if batch.books:
            self._tell_books(batch.instrument, interest, {book.venue for book in batch.books})
        if not interest.told.is_set():
            interest.heard.add(batch.publisher)
            if interest.heard >= self._beating():
                interest.told.set()

    def _beating(self) -> set[str]:
        """Return the publishers that live."""
        since_s = time.monotonic() - HEARTBEAT_LOST_S
        return {publisher for venue, publisher in self._publishers.items() if self._heard_s[venue] > since_s}

    def _take_trade(self, instrument: str, interest: _Interest, trade: TradePrint, told: set[tuple[str, int]]) -> None:
        """Take a trade; ids missing before it are a gap, unless the feeds told of it (venue and last id) already."""
        last_id = interest.trade_ids.get(trade.venue)
        if last_id is not None and trade.first_id > last_id + 1 and (trade.venue, trade.first_id - 1) not in told:
            self.counters["trades_lost_by_layer"] += trade.first_id - last_id - 1
            self._tell_gap(instrument, Gap(trade.venue, last_id + 1, trade.first_id - 1))
        interest.trade_ids[trade.venue] = trade.last_id
        self._trades_seen += 1
        keys = self._by_instrument[instrument]
        if not keys:
            return
        now_ns = time.time_ns()
        data: str | None = None
        for key in keys:
            if key.venue not in (ALL, trade.venue):
                continue
            topic = self._topics[key]
            if key.stream == "trades":
                data = data or frames.trade_data(topic.symbol, trade)
                topic.send(data, now_ns, conflate=False)
            elif topic.ewma is not None:
                topic.ewma.update(trade.price, trade.time_ns)
                topic.time_ns = max(topic.time_ns, trade.time_ns)
                self._tell_ewma(topic, now_ns)

    def _tell_ewma(self, topic: _Topic, now_ns: int) -> None:
        data = _ewma_data(topic)
        if data is not None:
            topic.send(data, now_ns, conflate=True)

    def _take_candle(self, instrument: str, interest: _Interest, update: CandleUpdate) -> None:
        candle = update.candle
        if not candle.closed:
            interest.candles[update.venue, candle.interval] = candle
        for singular in (False, True):
            topic = self._topics.get(TopicKey("klines", instrument, update.venue, candle.interval, singular))
            if topic is not None:
                data = frames.candle_data(topic.symbol, update.venue, candle)
                topic.send(data, time.time_ns(), conflate=not candle.closed)

    def _tell_books(self, instrument: str, interest: _Interest, venues: set[str]) -> None:
        now_ns = time.time_ns()
        for key in self._by_instrument[instrument]:
            if key.stream == "orderbook" and (key.venue == ALL or key.venue in venues):
                topic = self._topics[key]
                data = self._book_data(topic, interest, now_ns)
                if data is not None:
                    topic.send(data, now_ns, conflate=True)

    def _tell_gap(self, instrument: str, gap: Gap) -> None:
        frame = Encoded(frames.gap_frame(self.instruments[instrument].symbol, gap))
        subscribers: set[Subscriber] = set()
        for key in self._by_instrument[instrument]:
            if key.stream != "best_touch" and key.venue in (ALL, gap.venue):
                subscribers |= self._topics[key].subscribers
        for subscriber in subscribers:
            subscriber.push(frame, None)

    def _count_loss(self, sequences: dict[str, int], publisher: str, sequence: int) -> int:
        """Take the number of a publisher's batch; return how many were lost before it."""
        last = sequences.get(publisher)
        lost = max(sequence - last - 1, 0) if last is not None else 0
        if lost:
            self.counters["batches_lost"] += lost
        if last is None and len(sequences) > len(self.venues):
            sequences.clear()  # publishers that are no more
        sequences[publisher] = sequence
        return lost

    # -- time

    async def _watch_loop(self) -> None:
        """Give up venues whose feeds went silent; once a second repeat averages and send book images."""
        ticks = 0
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            ticks += 1
            try:
                for delay in self._delays.values():
                    delay.look()
                self._watch_heartbeats(time.monotonic())
                self._watch_prices()
                if ticks % 2 == 0:
                    self._each_second()
            except Exception:
                log.exception("the hub's clock failed")

    def _watch_heartbeats(self, now_s: float) -> None:
        for venue, heard_s in self._heard_s.items():
            status = self.statuses.get(venue)
            if status is not None and status.state == LIVE and now_s - heard_s > HEARTBEAT_LOST_S:
                self.counters["heartbeats_lost"] += 1
                changed = self._take_status(_without_feeds(status))
                self._tell_touches(changed, ())

    def _watch_prices(self) -> None:
        """Say which venues were set aside since the last look, and where nobody can tell which one should be."""
        for instrument, board in self._boards.items():
            for venue, times in board.times_aside.items():
                if times > self._times_aside[instrument, venue]:
                    self._times_aside[instrument, venue] = times
                    told = board.venue_touch(venue)
                    bid, ask = (side and str(side.price) for side in (told.bid, told.ask))
                    log.warning("a price strays: set aside", venue=venue, instrument=instrument, bid=bid, ask=ask)
            if board.is_disputed and instrument not in self._disputed:
                log.warning("venues contradict each other, and none can be set aside", instrument=instrument)
        self._disputed = {instrument for instrument, board in self._boards.items() if board.is_disputed}

    def _each_second(self) -> None:
        now_ns = time.time_ns()
        for topic in self._topics.values():
            if topic.ewma is not None:
                self._tell_ewma(topic, now_ns)
        for venue, subscribers in self._books_subscribers.items():
            frame = Encoded(frames.books_frame(self._all_books(venue)))
            for subscriber in subscribers:
                subscriber.push(frame, TopicKey("orderbooks", "", venue))

    def _all_books(self, venue: str) -> dict[str, dict[str, tuple[Sequence[Level], Sequence[Level]]]]:
        books: dict[str, dict[str, tuple[Sequence[Level], Sequence[Level]]]] = {}
        for name in self.venues if venue == ALL else (venue,):
            books[name] = {}
            for instrument, interest in self._interests.items():
                book = interest.books.get(name) if self.is_live(name) else None
                if book is not None:
                    symbol = self.instruments[instrument].symbol
                    books[name][symbol] = (book.bids[:BOOKS_DEPTH], book.asks[:BOOKS_DEPTH])
        return books


def book_of_venue(symbol: str, book: BookUpdate, depth: int) -> str:
    """Write one venue's book: levels of price and size."""
    bids, asks = frames.levels(book.bids[:depth]), frames.levels(book.asks[:depth])
    return frames.book_data(symbol, book.venue, bids, asks, book.received_ns, depth)


def book_of_all(symbol: str, books: dict[str, BookUpdate], depth: int, now_ns: int) -> str:
    """Write the consolidated book: each level with its venue."""
    bids = frames.merge_levels({name: book.bids for name, book in books.items()}, depth=depth, best_is_highest=True)
    asks = frames.merge_levels({name: book.asks for name, book in books.items()}, depth=depth, best_is_highest=False)
    return frames.book_data(symbol, ALL, frames.venue_levels(bids), frames.venue_levels(asks), now_ns, depth)


def _ewma_data(topic: _Topic) -> str | None:
    """Write a topic's average; None for other topics, and before the first trade."""
    if topic.ewma is None or topic.ewma.value is None or topic.key.argument is None:
        return None
    return frames.ewma_data(topic.symbol, topic.key.venue, topic.key.argument, topic.ewma.value, topic.time_ns)


def _without_feeds(status: VenueStatus) -> VenueStatus:
    return VenueStatus(
        status.venue, STALE, NO_FEEDS, status.instruments, status.disabled,
        status.last_frame_age_s, status.last_data_age_s, 0.0, status.counters,
    )  # fmt: skip
