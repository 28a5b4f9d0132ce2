"""Tells recorded frames to the venues' adapters again, and answers what a venue had told at a moment.

The road is that of the feeds: a `FeedSession` a connection, a `VenueMarket` a venue; only the sockets are missing.
"""

import math
from base64 import b64decode
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from msgspec import Struct

from core.events import BookImage, Quote, Side, Trade
from core.money import from_units
from marketdata.arrivals import ENCODED, Asked, Event, Lost, Opened, TookOver, read_event
from marketdata.feed import FeedEvent, FeedSession, KeptImage
from marketdata.market import State, VenueMarket
from marketdata.venues import VENUES

Units = Callable[[Decimal, Decimal], tuple[int, int] | None]  # a price and a size → as orders see them


class Frame(Struct, frozen=True):
    """A frame as it came."""

    venue: str
    text: bytes
    at_ns: int
    wall_ns: int


class Told(Struct):
    """What a venue said of an instrument, and how long it was its last word."""

    frame: Frame
    quote: Quote | None  # none: a book
    image: BookImage | KeptImage | None
    until_ns: int | None = None

    def level(self, side: Side, units: Units, price: int, size: int) -> bool:
        """Tell whether it shows this to an order of this side."""
        if self.quote is not None:
            quote = self.quote
            best = (quote.ask, quote.ask_size) if side is Side.BUY else (quote.bid, quote.bid_size)
            return best[0] is not None and best[1] is not None and units(best[0], best[1]) == (price, size)
        assert isinstance(self.image, BookImage)
        return any(
            units(*level) == (price, size) for level in (self.image.asks if side is Side.BUY else self.image.bids)
        )


class _Quotes(deque[Told]):
    """Quotes, oldest first, found by their prices too: a flood is thousands of them a second."""

    def __init__(self) -> None:
        super().__init__()
        self._by_price: defaultdict[Decimal, deque[Told]] = defaultdict(deque)

    def append(self, word: Told) -> None:
        super().append(word)
        for price in _prices(word):
            self._by_price[price].append(word)

    def popleft(self) -> Told:
        word = super().popleft()
        for price in _prices(word):
            self._by_price[price].popleft()
            if not self._by_price[price]:
                del self._by_price[price]
        return word

    def at(self, price: int) -> Sequence[Told]:
        """Return those with this price, in units, on one of their sides."""
        return self._by_price.get(from_units(price), ())


def _prices(word: Told) -> set[Decimal]:
    assert word.quote is not None
    return {price for price in (word.quote.bid, word.quote.ask) if price is not None}


class _Connection(Struct):
    venue: str
    session: FeedSession
    held: list[tuple[list[FeedEvent], Frame]] | None


class Retelling:
    """The venues as one process of feeds heard them, up to the line that was told last.

    What was superseded more than `kept_ns` ago is forgotten.
    """

    def __init__(self, instruments: Sequence[str], *, stale_after_s: float, kept_ns: int) -> None:
        self.frames = 0
        self.connections = 0
        self.listeners: list[Callable[[str, str, Told], None]] = []  # venue, instrument and each new quote
        self._instruments = instruments
        self._stale_after_s = stale_after_s
        self._kept_ns = kept_ns
        self._markets: dict[str, VenueMarket] = {}
        self._connections: dict[int, _Connection] = {}
        self._quotes: defaultdict[tuple[str, str], _Quotes] = defaultdict(_Quotes)
        self._books: defaultdict[tuple[str, str], deque[Told]] = defaultdict(deque)
        self._frame = Frame("", b"", 0, 0)

    def tell(self, line: bytes) -> None:
        """Take one recorded line."""
        if line.startswith(b"{"):
            self._happened(read_event(line))
            return
        kind, number, now, wall, text = line.split(b" ", 4)
        connection = self._connections[int(number)]
        frame = Frame(connection.venue, b64decode(text) if kind == ENCODED else text, int(now), int(wall))
        self.frames += 1
        events = connection.session.receive(frame.text, frame.at_ns)
        connection.session.outgoing.clear()
        if connection.held is not None:
            connection.held.append((events, frame))
        else:
            self._take(events, frame)

    def ended(self) -> None:
        """Nothing follows: what was said last is not known to hold any longer."""
        for venue in self._markets:
            self._end(venue)

    def told(
        self, venue: str, instrument: str, side: Side, units: Units, level: tuple[int, int], *, at_ns: int, depth: bool
    ) -> Told | None:
        """Return the last word of a venue before a moment that shows this price and size; `depth`: or its book.

        Of a quote that was superseded and a book that shows its price further down, the one that held for longer.
        """
        words: list[Sequence[Told]] = [self._quotes[venue, instrument].at(level[0])]
        if depth:
            words.append(self._books[venue, instrument])
            for book in words[1]:  # oldest first: a session takes an older one for the newer that it read
                if isinstance(book.image, KeptImage):
                    book.image = book.image.read()
        last = [
            next(
                (word for word in reversed(kind) if word.frame.at_ns <= at_ns and word.level(side, units, *level)), None
            )
            for kind in words
        ]
        return max((word for word in last if word is not None), key=_held_until, default=None)

    # -- the sink of the markets

    def quote(self, venue: str, instrument: str, quote: Quote | None, wall_ns: int) -> None:
        words = self._quotes[venue, instrument]
        self._superseded(words)
        if quote is not None:
            words.append(Told(self._frame, quote, None))
            for listener in self.listeners:
                listener(venue, instrument, words[-1])

    def book(self, venue: str, instrument: str, image: BookImage | KeptImage, wall_ns: int) -> None:
        words = self._books[venue, instrument]
        self._superseded(words)
        words.append(Told(self._frame, None, image))

    def trade(self, venue: str, instrument: str, trade: Trade, time_ns: int) -> None: ...

    def gap(self, venue: str, instrument: str, from_id: int, to_id: int) -> None: ...

    def state(self, venue: str, state: State, reason: str) -> None:
        if state is not State.LIVE:
            self._end(venue)

    # -- connections

    def _happened(self, event: Event) -> None:
        self._frame = Frame(event.venue if isinstance(event, Opened | Lost) else "", b"", event.at_ns, event.wall_ns)
        if isinstance(event, Opened):
            self._open(event)
        elif isinstance(event, Asked):
            self._connections[event.connection].session.probe()
        elif isinstance(event, TookOver):
            self._take_over(event.connection)
        else:
            self._market(event.venue).lost(event.reason)

    def _open(self, event: Opened) -> None:
        self.connections += 1
        market = self._market(event.venue)
        session = FeedSession(VENUES[event.venue], self._instruments, counters=market.counters)
        if not event.held:
            market.connecting()
            market.connected(event.at_ns)
            self._forget(event.venue)
        session.opened(event.at_ns)
        session.outgoing.clear()
        self._connections[event.connection] = _Connection(event.venue, session, [] if event.held else None)

    def _take_over(self, number: int) -> None:
        connection = self._connections[number]
        self._forget(connection.venue, besides=number)
        self._market(connection.venue).replaced()
        held, connection.held = connection.held or [], None
        for events, frame in held:
            self._take(events, frame)

    def _take(self, events: list[FeedEvent], frame: Frame) -> None:
        self._frame = frame
        self._market(frame.venue).take(events, frame.at_ns, frame.wall_ns)

    def _market(self, venue: str) -> VenueMarket:
        market = self._markets.get(venue)
        if market is None:
            market = self._markets[venue] = VenueMarket(
                venue, self._instruments, stale_after_s=self._stale_after_s, sink=self
            )
        return market

    def _forget(self, venue: str, besides: int = 0) -> None:
        """Leave out connections that have ended."""
        for number, connection in tuple(self._connections.items()):
            if connection.venue == venue and number != besides:
                del self._connections[number]

    # -- words

    def _superseded(self, words: deque[Told]) -> None:
        now_ns = self._frame.at_ns
        if words and words[-1].until_ns is None:
            words[-1].until_ns = now_ns
        while words and words[0].until_ns is not None and words[0].until_ns < now_ns - self._kept_ns:
            words.popleft()

    def _end(self, venue: str) -> None:
        for words in self._of(venue):
            self._superseded(words)

    def _of(self, venue: str) -> Iterator[deque[Told]]:
        for kind in (self._quotes, self._books):
            yield from (words for (name, _), words in kind.items() if name == venue)


def _held_until(word: Told) -> float:
    return math.inf if word.until_ns is None else word.until_ns
