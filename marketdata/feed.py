"""One connection to one venue as a state machine, without its socket.

`FeedSession` knows which topic means which instrument, keeps what belongs to this connection
alone (subscriptions, checked books, update ids) and says what to send. What outlives a
connection (liveness, duplicates, gaps) is in `market.py`. Touches and trades are read at once;
a book that the venue sends whole is kept as it came and read only if somebody wants it.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, structs

from core.book import Book, BookError
from core.events import BookDelta, BookImage, Channel, Quote, Trade
from marketdata.venue import (
    Accepted,
    Alive,
    Data,
    EngineStatus,
    Ignored,
    Listed,
    Listing,
    Message,
    PlannedClose,
    Reader,
    Rejected,
    Request,
    Topic,
    Unreadable,
    UsualReader,
    Venue,
)
from marketdata.wire import DECODING

NS = 1_000_000_000
EMPTY_IMAGE = BookImage((), ())
DEPTH_SHOWN = 20  # levels of a book that leave the feed
RESYNC_WAIT_NS = 5 * NS  # between two resubscriptions of a topic; doubles while they follow each other
RESYNC_WAIT_MAX_NS = 300 * NS
RESYNC_FORGET_NS = 600 * NS  # a topic that was healthy for so long starts over
BEHIND_NS = 5 * NS  # ids that stay behind the highest one for so long: that one was wrong, or the venue counts anew
SILENT_SYMBOL_NS = 30 * NS  # a symbol without a frame for so long, while others move, is not carried
REQUEST_TOPICS_MAX = 500  # pending requests whose answers we still wait for
HEAD_BYTES_MAX = 120  # of a frame, in which the longest topic fits
HEADS_MAX = 10_000  # heads of frames that are known by heart


class _Resync(Struct):
    """A topic's resubscription: when last asked, how long until it may be asked again, and whether still open."""

    asked_ns: int
    wait_ns: int
    pending: bool


class _Route(Struct, frozen=True):
    """Where the data of a topic goes, found once."""

    topic: Topic
    instrument: str
    parse: Reader
    kept: bool  # each message is a whole book, which the next one replaces
    usual: UsualReader | None


class _LastImage(Struct, frozen=True):
    """The last venue-made image of an instrument that was read, and when it came."""

    image: BookImage
    received_ns: int


class KeptImage:
    """A book that the venue sent whole, as it came."""

    __slots__ = ("_image", "_payload", "_received_ns", "_route", "_session")

    def __init__(self, session: "FeedSession", route: _Route, payload: str | bytes, received_ns: int) -> None:
        self._session = session
        self._route = route
        self._payload = payload
        self._received_ns = received_ns
        self._image: BookImage | None = None

    def read(self) -> BookImage:
        """Return the book, decoded and checked the first time; empty when it is not to be trusted."""
        if self._image is None:
            self._image = self._session.read_image(self._route, self._payload, self._received_ns)
            self._payload = b""
        return self._image


class MarketEvent(Struct, frozen=True, gc=False):
    """News of one instrument from one venue."""

    instrument: str
    body: Quote | Trade | BookImage | KeptImage


class QuoteLost(Struct, frozen=True):
    """The venue's quote of an instrument is not to be trusted until the next good one."""

    instrument: str
    reason: str


class Disabled(Struct, frozen=True):
    """The venue does not carry the instrument (or carries it again, with an empty reason)."""

    instrument: str
    reason: str


FeedEvent = MarketEvent | QuoteLost | Disabled | PlannedClose | EngineStatus


class FeedSession:
    """Frames in, events out; `outgoing` is what to send, in order, at the venue's pace."""

    def __init__(
        self, venue: Venue, instruments: Sequence[str], *, counters: defaultdict[str, int] | None = None
    ) -> None:
        self.venue = venue
        self.outgoing: deque[str] = deque()
        self.counters: defaultdict[str, int] = defaultdict(int) if counters is None else counters
        self.disabled: dict[str, str] = {}
        self._instruments = {venue.symbol(instrument): instrument for instrument in instruments}
        self._precisions: dict[str, tuple[int, int]] = {}
        self._books: dict[str, Book] = {}
        self._corrects = venue.depth_sizes_touch
        self._quotes: dict[str, Quote] = {}  # the last good ones, where depth may correct them
        self._images: dict[str, _LastImage] = {}
        self._routes: dict[Topic, _Route] = {}
        self._head_end = venue.heads[1] if venue.heads else b""
        self._heads: dict[bytes, _Route] = {}  # the first bytes of a frame → what it is about
        self._seen: set[str] = set()  # symbols that sent data
        self._resyncs: dict[Topic, _Resync] = {}
        self._offline: set[str] = set()  # instruments that the venue lists but does not trade now
        self._requests: dict[int, tuple[Topic, ...]] = {}
        self._next_id = 1
        self._opened_ns = 0
        self._subscribed = False

    @property
    def ready(self) -> bool:
        """True when every symbol that the venue carries has sent data."""
        return self._subscribed and self._seen >= self._instruments.keys() - self._disabled_symbols()

    def opened(self, now_ns: int) -> None:
        """Ask for the instrument list, or for everything at once where there is none."""
        self._opened_ns = now_ns
        if self.venue.listing is None:
            self._subscribe(self._topics(self._instruments))
        else:
            self._send([self.venue.listing(self._take_ids(1))])

    def receive(self, frame: str | bytes, now_ns: int) -> list[FeedEvent]:
        """Read one frame. A part that cannot be read is counted and left out, never raised."""
        if isinstance(frame, str):
            try:
                frame = frame.encode()
            except UnicodeEncodeError:
                self.counters["unreadable"] += 1
                return []
        head = frame.partition(self._head_end)[0] if self._head_end else b""
        route = self._heads.get(head)
        if route is not None and route.usual is not None and not self._resyncs and not self._offline:
            try:
                return [MarketEvent(route.instrument, route.usual(frame))]
            except DECODING:
                pass  # what it is instead is found below
        events: list[FeedEvent] = []
        if route is not None:
            self._take_data(route, frame, now_ns, events)
        else:
            self._take_messages(frame, head, now_ns, events)
        return events

    def read_image(self, route: _Route, payload: str | bytes, received_ns: int) -> BookImage:
        """Decode and check a kept book. What is wrong with it is counted here, and another is asked for.

        An image older than the last one read stands back behind that one, for a while.
        """
        last = self._images.get(route.instrument)
        try:
            for body in route.parse(payload):
                assert isinstance(body, BookImage)
                if last is None or received_ns - last.received_ns > BEHIND_NS or not _is_older(body, last.image):
                    last = _LastImage(self._checked(route, body, received_ns), received_ns)
                    self._images[route.instrument] = last
        except Unreadable:
            self.counters["unreadable"] += 1
            self._resync(route.topic, received_ns)
            return EMPTY_IMAGE
        return EMPTY_IMAGE if last is None else last.image

    def _checked(self, route: _Route, image: BookImage, received_ns: int) -> BookImage:
        if image.bids and image.asks and image.bids[0][0] >= image.asks[0][0] and not self.venue.crossing_is_legal:
            self.counters["crossed"] += 1
            self._resync(route.topic, received_ns)
            return structs.replace(image, bids=(), asks=())
        self._synced(route.topic)
        return image

    def probe(self) -> str | None:
        """Return the frame that asks whether the venue is there; None means a WebSocket ping."""
        return self.venue.probe(self._take_ids(1)) if self.venue.probe else None

    def advance(self, now_ns: int) -> list[FeedEvent]:
        """Notice symbols that were acknowledged but never sent anything."""
        if not (self.venue.silent_symbols and self._subscribed and self._seen):
            return []
        if now_ns - self._opened_ns < SILENT_SYMBOL_NS:
            return []
        silent = self._instruments.keys() - self._seen - self._disabled_symbols()
        return [self._disable(symbol, "subscribed, but the venue sends nothing for it") for symbol in sorted(silent)]

    # -- what a frame says

    def _take_messages(self, frame: bytes, head: bytes, now_ns: int, events: list[FeedEvent]) -> None:
        try:
            for message in self.venue.read(frame):
                self._take(message, head, now_ns, events)
        except Unreadable:
            self.counters["unreadable"] += 1

    def _take(self, message: Message, head: bytes, now_ns: int, events: list[FeedEvent]) -> None:
        if isinstance(message, Data):
            route = self._routes.get(message.topic) or self._found(message.topic, events)
            if route is None:
                self.counters["ignored:foreign symbol"] += 1
                return
            if self.venue.heads and head.startswith(self.venue.heads[0]) and len(head) < HEAD_BYTES_MAX:
                self._remember(head, route)
            self._take_data(route, message.payload, now_ns, events)
        elif isinstance(message, Ignored):
            self.counters[f"ignored:{message.what}"] += 1
        elif isinstance(message, Rejected):
            self._take_rejection(message, events)
        elif isinstance(message, Listing):
            self._take_listing(message, events)
        elif isinstance(message, PlannedClose | EngineStatus):
            events.append(message)
        else:
            assert isinstance(message, Accepted | Alive)

    def _remember(self, head: bytes, route: _Route) -> None:
        if len(self._heads) < HEADS_MAX:
            self._heads[head] = route

    def _found(self, topic: Topic, events: list[FeedEvent]) -> _Route | None:
        """Return the way of a topic that sends data for the first time, None when nobody asked for it."""
        symbol = topic.symbol
        instrument = self._instruments.get(symbol)
        if instrument is None:
            return None
        if symbol not in self._seen:
            self._seen.add(symbol)
            if instrument in self.disabled and instrument not in self._offline:
                del self.disabled[instrument]
                events.append(Disabled(instrument, ""))
        kept = topic.channel is Channel.DEPTH and self.venue.book_depth is None
        make_usual = None if self._corrects else self.venue.usual.get(topic.channel)
        usual = None if make_usual is None else make_usual()
        route = self._routes[topic] = _Route(topic, instrument, self.venue.parse[topic.channel], kept, usual)
        return route

    def _take_data(self, route: _Route, payload: str | bytes, now_ns: int, events: list[FeedEvent]) -> None:
        if route.kept:
            events.append(MarketEvent(route.instrument, KeptImage(self, route, payload, now_ns)))
            return
        try:
            instrument = route.instrument
            for body in route.parse(payload):
                if isinstance(body, Quote):
                    self._take_quote(route, body, now_ns, events)
                elif isinstance(body, Trade):
                    events.append(MarketEvent(instrument, body))
                else:
                    assert isinstance(body, BookDelta)
                    self._take_delta(route.topic, instrument, body, now_ns, events)
        except Unreadable as error:
            self.counters["unreadable"] += 1
            if route.topic.channel is Channel.TOUCH:
                self._quotes.pop(route.instrument, None)
                events.append(QuoteLost(route.instrument, f"unreadable quote: {error}"))
            elif route.topic.channel is Channel.DEPTH:
                events.append(MarketEvent(route.instrument, EMPTY_IMAGE))
            self._resync(route.topic, now_ns)

    def _take_quote(self, route: _Route, quote: Quote, now_ns: int, events: list[FeedEvent]) -> None:
        instrument = route.instrument
        if quote.crossed and not self.venue.crossing_is_legal:
            self.counters["crossed"] += 1
            self._quotes.pop(instrument, None)
            events.append(QuoteLost(instrument, "the venue's own quote is crossed"))
            self._resync(route.topic, now_ns)
            return
        if self._resyncs:
            self._synced(route.topic)
        if instrument in self._offline:
            return
        if self._corrects:
            self._quotes[instrument] = quote
        events.append(MarketEvent(instrument, quote))

    def _take_delta(
        self, topic: Topic, instrument: str, delta: BookDelta, now_ns: int, events: list[FeedEvent]
    ) -> None:
        if delta.snapshot:
            self._synced(topic)
        elif self._resyncing(topic):
            self._resync(topic, now_ns)  # asks again only when the last request is old
            return
        book = self._book(topic.symbol)
        try:
            book.apply(delta)
        except BookError as error:
            self.counters[type(error).__name__] += 1
            events.append(MarketEvent(instrument, EMPTY_IMAGE))
            self._resync(topic, now_ns)
            return
        image = book.top(DEPTH_SHOWN)
        events.append(MarketEvent(instrument, image))
        if self._corrects:
            self._correct_sizes(instrument, image, events)

    def _correct_sizes(self, instrument: str, image: BookImage, events: list[FeedEvent]) -> None:
        """Take the sizes of an unchanged touch from the book: the touch channel may tell of prices only."""
        quote = self._quotes.get(instrument)
        if quote is None or not image.bids or not image.asks:
            return
        (bid, bid_size), (ask, ask_size) = image.bids[0], image.asks[0]
        if (bid, ask) == (quote.bid, quote.ask) and (bid_size, ask_size) != (quote.bid_size, quote.ask_size):
            better = structs.replace(quote, bid_size=bid_size, ask_size=ask_size, venue_ns=image.venue_ns)
            self._quotes[instrument] = better
            events.append(MarketEvent(instrument, better))

    def _book(self, symbol: str) -> Book:
        book = self._books.get(symbol)
        if book is None:
            assert self.venue.book_depth is not None
            price_decimals, size_decimals = self._precisions.get(symbol, (0, 0))
            book = self._books[symbol] = Book(self.venue.book_depth, price_decimals, size_decimals)
        return book

    # -- subscriptions

    def _take_listing(self, listing: Listing, events: list[FeedEvent]) -> None:
        for pair in listing.pairs:
            if pair.symbol in self._instruments:
                self._take_listed(pair, events)
        if listing.complete and not self._subscribed:
            known = {pair.symbol for pair in listing.pairs}
            absent = sorted(self._instruments.keys() - known)
            events.extend(self._disable(symbol, "not in the venue's instrument list") for symbol in absent)
            self._subscribe(self._topics(symbol for symbol in self._instruments if symbol in known))

    def _take_listed(self, pair: Listed, events: list[FeedEvent]) -> None:
        precision = (pair.price_decimals, pair.size_decimals)
        if self._precisions.get(pair.symbol, precision) != precision:
            self._books.pop(pair.symbol, None)  # the next delta finds no snapshot and asks for one
        self._precisions[pair.symbol] = precision
        instrument = self._instruments[pair.symbol]
        if not pair.online:
            self._offline.add(instrument)
            self._quotes.pop(instrument, None)
            events.append(self._disable(pair.symbol, "the venue does not trade it now"))
            events.append(QuoteLost(instrument, "the venue does not trade it now"))
        elif instrument in self._offline:
            self._offline.discard(instrument)
            del self.disabled[instrument]
            events.append(Disabled(instrument, ""))

    def _take_rejection(self, rejection: Rejected, events: list[FeedEvent]) -> None:
        self.counters["rejected"] += 1
        symbols = {rejection.symbol} if rejection.symbol else set()
        if rejection.topic is not None:
            symbols.add(rejection.topic.symbol)
        elif not symbols and rejection.request_id is not None:
            topics = self._requests.get(rejection.request_id, ())
            symbols = {topic.symbol for topic in topics}
            if len(symbols) > 1:
                symbols = set()  # one bad symbol among many: silence will tell which
        # What has sent data is carried: then only this request was refused, for example as one too many.
        doubtful = (symbols & self._instruments.keys()) - self._seen - self._disabled_symbols()
        events.extend(self._disable(symbol, rejection.reason) for symbol in sorted(doubtful))

    def _disable(self, symbol: str, reason: str) -> Disabled:
        instrument = self._instruments[symbol]
        self.disabled[instrument] = reason
        return Disabled(instrument, reason)

    def _disabled_symbols(self) -> set[str]:
        return {symbol for symbol, instrument in self._instruments.items() if instrument in self.disabled}

    def _topics(self, symbols: Iterable[str]) -> list[Topic]:
        ordered = list(symbols)
        return [Topic(channel, symbol) for channel in Channel for symbol in ordered]

    def _subscribe(self, topics: Sequence[Topic]) -> None:
        self._subscribed = True
        self._request(self.venue.subscribe, topics)

    def _resync(self, topic: Topic, now_ns: int) -> None:
        """Subscribe a topic again, once: an answer to the first request may still be on its way."""
        resync = self._resyncs.get(topic)
        if resync is None or now_ns - resync.asked_ns >= RESYNC_FORGET_NS:
            self._resyncs[topic] = _Resync(now_ns, RESYNC_WAIT_NS, pending=True)
        elif now_ns - resync.asked_ns < resync.wait_ns:
            resync.pending = True
            return
        else:
            self._resyncs[topic] = _Resync(now_ns, min(2 * resync.wait_ns, RESYNC_WAIT_MAX_NS), pending=True)
        self.counters["resyncs"] += 1
        self._request(self.venue.unsubscribe, [topic])
        self._request(self.venue.subscribe, [topic])

    def _resyncing(self, topic: Topic) -> bool:
        resync = self._resyncs.get(topic)
        return resync is not None and resync.pending

    def _synced(self, topic: Topic) -> None:
        resync = self._resyncs.get(topic)
        if resync is not None:
            resync.pending = False

    def _request(self, make: Callable[[Sequence[Topic], int], list[Request]], topics: Sequence[Topic]) -> None:
        if topics:
            requests = make(topics, self._next_id)
            self._take_ids(len(requests))
            self._send(requests)

    def _send(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self.outgoing.append(request.frame)
            if request.request_id is not None:
                self._requests[request.request_id] = request.topics
                if len(self._requests) > REQUEST_TOPICS_MAX:
                    del self._requests[next(iter(self._requests))]

    def _take_ids(self, count: int) -> int:
        first = self._next_id
        self._next_id += count
        return first


def _is_older(image: BookImage, last: BookImage) -> bool:
    """Tell by the venue's update id, unless its clock says that the ids were reset."""
    if image.sequence is None or last.sequence is None or image.sequence >= last.sequence:
        return False
    return image.venue_ns is None or last.venue_ns is None or image.venue_ns <= last.venue_ns
