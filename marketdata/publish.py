"""The feeds' side of the channel layer: what the venues say, batched into group messages.

`Publisher` is the sink of every `VenueMarket` of this process. Quotes are conflated to the
newest per slot, books to ten a second; trades, gaps and closed candles are never. A book that
came whole is decoded when it is sent, so only for instruments in demand. A flush goes out
`FLUSH_S` after the first news (within one process `FLUSH_HERE_S`), a heartbeat with everything once a second.

Feeds of all venues make the candles over all of them too. Feeds of some tell what those traded to the consolidator,
which is a publisher without venues.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence

import structlog
from channels.layers import BaseChannelLayer
from msgspec import Struct

from core.candles import Candle, CandleSeries, first_open_second
from core.events import BookImage, Quote, Trade
from marketdata.batches import (
    ALL,
    HEARTBEAT_S,
    INTEREST_S,
    REQUEST_GROUP,
    SECONDS_GROUP,
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
    instrument_message,
    read_seconds,
    seconds_message,
    touch_message,
)
from marketdata.consolidation import Consolidation, Seconds
from marketdata.feed import NS, KeptImage
from marketdata.layer import InProcessLayer
from marketdata.market import State, VenueMarket

log = structlog.get_logger(__name__)

FLUSH_S = 0.002  # from the first news of a batch to its sending: each batch costs Redis and every web process
FLUSH_HERE_S = 0.0005  # likewise where the layer is this process's own, and a batch costs little
BOOK_INTERVAL_S = 0.1
CANDLE_TICKS_PER_S = 4  # one falls on the grace's end
TRADES_PENDING_MAX = 50_000  # an instrument's trades while the layer is away; beyond it the oldest are a gap
REJOIN_S = 15.0  # without a request: those who want something repeat it sooner
RETRY_S = 0.5  # after the layer refused a message

ClosedCandles = Callable[[str, str, Sequence[Candle]], None]  # venue or "all", instrument, candles


class _Book(Struct, frozen=True):
    """A venue's newest book of an instrument, decoded or not."""

    image: BookImage | KeptImage
    received_ns: int

    def update(self, venue: str) -> BookUpdate:
        image = self.image.read() if isinstance(self.image, KeptImage) else self.image
        return BookUpdate(venue, image.bids, image.asks, self.received_ns)


class _Pending:
    """What one instrument has to say in the next flush."""

    __slots__ = ("asked", "books", "books_sent_s", "candles", "gaps", "sequence", "trades", "wanted_until_s")

    def __init__(self) -> None:
        self.asked = False  # somebody waits for an answer, even an empty one
        self.trades: deque[TradePrint] = deque(maxlen=TRADES_PENDING_MAX)
        self.candles: list[CandleUpdate] = []
        self.books: dict[str, _Book] = {}
        self.gaps: list[Gap] = []
        self.sequence = 0
        self.books_sent_s = 0.0
        self.wanted_until_s = 0.0


class Publisher:
    """Collects the news of this process's venues and sends it through the layer.

    `venues` are fed here, `consolidated` are those whose candles over all are made here: the same
    ones, or none of them (feeds of some venues), or of venues fed elsewhere (the consolidator).
    `record` is called before anything is sent that a frame said.
    """

    def __init__(
        self,
        layer: BaseChannelLayer,
        *,
        source: str,
        instruments: Sequence[str],
        venues: Sequence[str],
        consolidated: Sequence[str],
        closed: ClosedCandles,
        record: Callable[[], None] | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.markets: dict[str, VenueMarket] = {}
        self.series = {(venue, instrument): CandleSeries() for instrument in instruments for venue in venues}
        self.late_trades = 0
        self.batches_sent = 0
        self._layer = layer
        self._flush_s = FLUSH_HERE_S if isinstance(layer, InProcessLayer) else FLUSH_S
        self._source = source
        self._closed = closed
        self._record = record or (lambda: None)
        self._slots: dict[tuple[str, str], QuoteSlot] = {}
        self._changed: set[tuple[str, str]] = set()
        self._states_changed = False
        self._pending = {instrument: _Pending() for instrument in instruments}
        self._dirty: set[str] = set()
        self._books: dict[tuple[str, str], _Book] = {}
        self._sequence = 0
        self._news = asyncio.Event()
        self._rates: dict[str, tuple[float, int, float]] = {}  # venue → when counted, frames then, frames/s
        for series in self.series.values():
            series.observe(False)
        self._seconds = Seconds(self.id, venues, time.time_ns())
        self._due: int | None = None  # the first second that is not closed
        self._consolidation = Consolidation(instruments, consolidated) if consolidated else None
        self._hears_seconds = bool(consolidated) and set(consolidated) != set(venues)

    def all_series(self) -> dict[tuple[str, str], CandleSeries]:
        """Return every series made here, by venue, or "all", and instrument."""
        over_all = self._consolidation.series if self._consolidation is not None else {}
        return self.series | {(ALL, instrument): series for instrument, series in over_all.items()}

    # -- the sink

    def quote(self, venue: str, instrument: str, quote: Quote | None, wall_ns: int) -> None:
        key = (venue, instrument)
        if quote is None:
            self._slots[key] = QuoteSlot(venue, instrument, None, None, None, None, None, wall_ns)
        else:
            self._slots[key] = QuoteSlot(
                venue, instrument, quote.bid, quote.bid_size, quote.ask, quote.ask_size, quote.sequence, wall_ns
            )
        self._changed.add(key)
        self._news.set()

    def book(self, venue: str, instrument: str, image: BookImage | KeptImage, wall_ns: int) -> None:
        book = self._books[venue, instrument] = _Book(image, wall_ns)
        pending = self._pending[instrument]
        if pending.wanted_until_s:
            pending.books[venue] = book
            self._dirty.add(instrument)
            self._news.set()

    def trade(self, venue: str, instrument: str, trade: Trade, time_ns: int) -> None:
        if not self.series[venue, instrument].add(trade.price, trade.size, time_ns, time.time_ns()):
            self.late_trades += 1
        pending = self._pending[instrument]
        if pending.wanted_until_s:
            pending.trades.append(
                TradePrint(
                    venue,
                    trade.trade_id,
                    trade.first_id,
                    trade.last_id,
                    trade.price,
                    trade.size,
                    trade.side,
                    time_ns,
                    trade.venue_ns,
                )
            )
            self._dirty.add(instrument)
            self._news.set()

    def gap(self, venue: str, instrument: str, from_id: int, to_id: int) -> None:
        log.warning("trades missing", venue=venue, instrument=instrument, from_id=from_id, to_id=to_id)
        pending = self._pending[instrument]
        if pending.wanted_until_s:
            pending.gaps.append(Gap(venue, from_id, to_id))
            self._dirty.add(instrument)
            self._news.set()

    def state(self, venue: str, state: State, reason: str) -> None:
        if state is not State.LIVE:
            for key in [key for key in self._slots if key[0] == venue]:
                del self._slots[key]
                self._changed.discard(key)
            for key in [key for key in self._books if key[0] == venue]:
                del self._books[key]
                self._pending[key[1]].books.pop(venue, None)
        self._observe(venue, state)
        log.info("venue state", venue=venue, state=state.value, reason=reason)
        self._states_changed = True
        self._news.set()

    def _observe(self, venue: str, state: State) -> None:
        """Candles of a time in which trades could not arrive are partial, the venue's and those over all."""
        self._seconds.observe(venue, state in (State.LIVE, State.DISABLED))
        wall_ns = time.time_ns()
        for (name, _), series in self.series.items():
            if name == venue:
                series.observe(state is State.LIVE, wall_ns)

    # -- the loops

    async def run(self) -> None:
        """Flush, beat and answer requests until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._flush_loop())
            group.create_task(self._clock_loop())
            group.create_task(self._request_loop())

    async def _flush_loop(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(self._flush_s)  # the batch: what comes meanwhile goes along
            self._news.clear()
            try:
                await self._flush()
            except Exception:
                # Touches are sent again; trades of the lost batch are a hole in its numbers that receivers tell.
                log.exception("the channel layer refused market data")
                self._states_changed = True
                self._changed.update(self._slots)
                await asyncio.sleep(RETRY_S)
                self._news.set()

    async def _flush(self) -> None:
        self._look()
        if self._changed or self._states_changed:
            quotes = [self._slots[key] for key in self._changed]
            statuses = self._statuses() if self._states_changed else []
            self._changed.clear()
            self._states_changed = False
            await self._send_touch(quotes, statuses, heartbeat=False)
        now_s = time.monotonic()
        later: set[str] = set()
        for instrument in tuple(self._dirty):
            self._dirty.discard(instrument)
            await self._flush_instrument(instrument, now_s, later)
        if later:
            self._dirty |= later
            asyncio.get_running_loop().call_later(BOOK_INTERVAL_S / 4, self._news.set)

    async def _flush_instrument(self, instrument: str, now_s: float, later: set[str]) -> None:
        pending = self._pending[instrument]
        books: list[BookUpdate] = []
        if pending.books:
            if now_s - pending.books_sent_s >= BOOK_INTERVAL_S:
                books = [book.update(venue) for venue, book in pending.books.items()]
                pending.books.clear()
                pending.books_sent_s = now_s
            else:
                later.add(instrument)
        if not (books or pending.trades or pending.candles or pending.gaps or pending.asked):
            return
        pending.asked = False
        pending.sequence += 1
        batch = InstrumentBatch(
            self.id, instrument, pending.sequence, list(pending.trades), pending.candles, books, pending.gaps
        )
        pending.trades.clear()
        pending.candles, pending.gaps = [], []
        self._record()
        await self._layer.group_send(instrument_group(instrument), instrument_message(batch))
        self.batches_sent += 1

    async def _send_touch(self, quotes: list[QuoteSlot], statuses: list[VenueStatus], *, heartbeat: bool) -> None:
        self._sequence += 1
        sent_s = time.monotonic()
        batch = TouchBatch(self.id, self._sequence, heartbeat, self._source, quotes, statuses, sent_s)
        self._record()
        await self._layer.group_send(TOUCH_GROUP, touch_message(batch))
        self.batches_sent += 1

    async def _clock_loop(self) -> None:
        """Beat and close candles on an absolute schedule, a quarter of a second apart."""
        beat_s = 0.0
        while True:
            now = time.time()
            await asyncio.sleep((int(now * CANDLE_TICKS_PER_S) + 1) / CANDLE_TICKS_PER_S - now + 0.001)
            try:
                await self._tick_candles(time.time_ns())
                if time.monotonic() - beat_s >= HEARTBEAT_S - 0.1:
                    beat_s = time.monotonic()
                    await self._beat()
            except Exception:
                log.exception("heartbeat failed")
                await asyncio.sleep(RETRY_S)

    async def _beat(self) -> None:
        now_s = time.monotonic()
        for pending in self._pending.values():
            if pending.wanted_until_s and pending.wanted_until_s < now_s:
                pending.wanted_until_s = 0.0
                pending.trades.clear()
                pending.books.clear()
                pending.candles = []
        self._look()
        await self._send_touch(list(self._slots.values()), self._statuses(), heartbeat=True)

    def _look(self) -> None:
        """Have the venues' old quotes taken back before anything is told, if this process stood still."""
        now_ns = time.monotonic_ns()
        for market in self.markets.values():
            market.look(now_ns)

    async def _tick_candles(self, wall_ns: int) -> None:
        """Close what is due; when a second closed, tell the running candles of the instruments in demand too."""
        seconds = self._seconds.batch(self.series, wall_ns)  # before what closes is forgotten
        due = first_open_second(wall_ns)
        second_closed, self._due = due != self._due, due
        for (venue, instrument), series in self.series.items():
            closed = series.advance(wall_ns)
            self._tell_candles(venue, instrument, closed, series.current(wall_ns) if second_closed else [])
        if self._consolidation is None:
            await self._layer.group_send(SECONDS_GROUP, seconds_message(seconds))
            return
        if not self._hears_seconds:
            self._consolidation.take(seconds)
        self._consolidate(wall_ns)

    def _consolidate(self, wall_ns: int) -> None:
        assert self._consolidation is not None
        for instrument, closed, running in self._consolidation.advance(wall_ns):
            self._tell_candles(ALL, instrument, closed, running)

    def _tell_candles(self, venue: str, instrument: str, closed: Sequence[Candle], running: Sequence[Candle]) -> None:
        if closed:
            self._closed(venue, instrument, closed)
        pending = self._pending[instrument]
        if pending.wanted_until_s and (closed or running):
            pending.candles.extend(CandleUpdate(venue, candle) for candle in (*closed, *running))
            self._dirty.add(instrument)
            self._news.set()

    async def _request_loop(self) -> None:
        """Answer what web processes ask for with the present state, and keep publishing it for a while."""
        while True:
            try:
                channel = await self._layer.new_channel()
                await self._join(channel)
                await self._take_requests(channel)
            except Exception:
                log.exception("listening for requests failed")
                await asyncio.sleep(RETRY_S)

    async def _join(self, channel: str) -> None:
        await self._layer.group_add(REQUEST_GROUP, channel)
        if self._hears_seconds:
            await self._layer.group_add(SECONDS_GROUP, channel)

    async def _take_requests(self, channel: str) -> None:
        # A layer may delete a channel whose receive was cancelled, so that it goes on over the timeouts.
        receiving = asyncio.ensure_future(self._layer.receive(channel))
        try:
            while True:
                await asyncio.wait([receiving], timeout=REJOIN_S)
                if not receiving.done():
                    await self._join(channel)  # one that forgot us would not say so
                    continue
                message = receiving.result()
                receiving = asyncio.ensure_future(self._layer.receive(channel))
                if message["type"] == "market.interest":
                    self._want(message["instrument"])
                elif message["type"] == "market.seconds" and self._consolidation is not None:
                    self._consolidation.take(read_seconds(message))
                    self._consolidate(time.time_ns())
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    def _want(self, instrument: str) -> None:
        pending = self._pending.get(instrument)
        if pending is None:
            return
        pending.wanted_until_s = time.monotonic() + INTEREST_S
        pending.asked = True
        wall_ns = time.time_ns()
        for (venue, name), series in self.all_series().items():
            if name == instrument:
                pending.candles.extend(CandleUpdate(venue, candle) for candle in series.current(wall_ns))
        for (venue, name), book in self._books.items():
            if name == instrument:
                pending.books[venue] = book
        pending.books_sent_s = 0.0
        self._dirty.add(instrument)
        self._news.set()

    # -- statuses

    def _statuses(self) -> list[VenueStatus]:
        return [self._status(market) for market in self.markets.values()]

    def _status(self, market: VenueMarket) -> VenueStatus:
        now_ns = time.monotonic_ns()
        return VenueStatus(
            venue=market.venue,
            state=market.state.value,
            reason=market.reason,
            instruments=market.carried,
            disabled=dict(market.disabled),
            last_frame_age_s=_age(now_ns, market.last_frame_ns),
            last_data_age_s=_age(now_ns, market.last_data_ns),
            frames_per_s=self._rate(market),
            counters=dict(market.counters),
        )

    def _rate(self, market: VenueMarket) -> float:
        now_s, frames = time.monotonic(), market.frames
        since_s, before, rate = self._rates.get(market.venue, (now_s, frames, 0.0))
        if now_s - since_s >= HEARTBEAT_S / 2:
            rate = (frames - before) / (now_s - since_s)
            self._rates[market.venue] = (now_s, frames, rate)
        elif market.venue not in self._rates:
            self._rates[market.venue] = (now_s, frames, 0.0)
        return round(rate, 1)


def _age(now_ns: int, then_ns: int | None) -> float | None:
    return None if then_ns is None else round((now_ns - then_ns) / NS, 3)
