"""A venue and our connection to it, without sockets: frames lie on a wire until they are read, if they arrive at all.

The venue is the simulated one, the reader is the venue's adapter with its session and market. What
`marketdata/connection.py` does in tasks happens here when the history says so.
"""

from collections import Counter, deque
from collections.abc import Sequence
from functools import cached_property
from random import Random

from marketdata.feed import NS, FeedSession
from marketdata.market import State, VenueMarket
from marketdata.simulated.clients import ClientSocket
from marketdata.simulated.dialect import DEPTH, TOUCH, TRADES, Topic
from marketdata.simulated.maker import Maker
from marketdata.simulated.venue import SimulatedVenue
from marketdata.venue import Venue
from tests.simulation.clock import Clock

STALE_AFTER_S = 5.0
CHECK_LATE_NS = NS  # between two looks at liveness, at most
BACKOFFS_NS = (NS // 4, NS // 2, NS, 4 * NS, 15 * NS)
STATUS = '{"channel":"status"'
FRAME_NS = 1_000  # between two frames that are read
LEVELS_PROVED = {"binance": 20, "okx": 5, "kraken": 10}  # Kraken's checksum is of ten a side
Levels = tuple[list[tuple[int, int]], list[tuple[int, int]]]  # bids, asks: whole ticks and units, best first
Sent = tuple[str | bytes, str, Levels | None]  # a frame; if it tells of a book, its instrument and that book


class Truth:
    """What a venue really said, whatever becomes of it on the way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.touches: dict[str, set[tuple[int, int, int, int]]] = {}  # instrument → all that were at the touch
        self.sides: set[tuple[str, str, int, int]] = set()  # instrument, side, price, size
        self.books: dict[tuple[str, int], Levels] = {}  # instrument and version
        self.trades: dict[tuple[str, int], tuple[int, int, int, str]] = {}  # instrument, last id → first, price, size
        self._last_ids: dict[str, int] = {}

    def touch(self, maker: Maker) -> None:
        bid, bid_size, ask, ask_size = maker.touch
        self.sides.add((maker.instrument, "bid", bid, bid_size))
        self.sides.add((maker.instrument, "ask", ask, ask_size))

    def book(self, maker: Maker) -> Levels:
        self.touch(maker)
        count = LEVELS_PROVED[self.name]
        levels = self.books[maker.instrument, maker.version] = (maker.bids.levels(count), maker.asks.levels(count))
        return levels

    def prints(self, venue: SimulatedVenue) -> None:
        for sent in reversed(venue.trades):
            if sent.last_id <= self._last_ids.get(sent.instrument, 0):
                break
            if self.name == "okx":
                self.trades[sent.instrument, sent.last_id] = (
                    sent.first_id, sent.print.price, sent.print.size, sent.side,
                )  # fmt: skip
                continue
            for number, size in enumerate(sent.sizes):
                first = sent.first_id + number
                self.trades[sent.instrument, first] = (first, sent.print.price, size, sent.side)
        for sent in reversed(venue.trades):
            if sent.last_id <= self._last_ids.get(sent.instrument, 0):
                break
            self._last_ids[sent.instrument] = max(sent.last_id, self._last_ids.get(sent.instrument, 0))


class Line(ClientSocket):
    """The venue's end of the connection: it writes onto a wire that the history reads."""

    def __init__(self, venue: SimulatedVenue, truth: Truth, clock: Clock, number: int) -> None:
        self.number = number
        self.topics: set[Topic] = set()
        self.waiting: deque[str] = deque()
        self.wire: deque[Sent] = deque()
        self.closed = False
        self._venue = venue
        self._truth = truth
        self._clock = clock
        self._sent_ns = clock.passed_ns

    def send(self, kind: str, frame: str | bytes) -> None:
        self._sent_ns = self._clock.passed_ns
        instrument, levels = "", None
        if kind == TRADES:
            self._truth.prints(self._venue)
        elif kind in (TOUCH, DEPTH, "snapshot"):
            for maker in self._venue.makers.values():
                if self._is_about(frame, maker):
                    self._truth.touch(maker)
                    if kind == DEPTH or '"books5"' in str(frame[:60]) or '"book"' in str(frame[:30]):
                        instrument, levels = maker.instrument, self._truth.book(maker)
        self.wire.append((frame, instrument, levels))

    def _is_about(self, frame: str | bytes, maker: Maker) -> bool:
        symbol = maker.instrument
        if self._venue.name == "binance":
            symbol = symbol.replace("-", "").lower()
        elif self._venue.name == "kraken":
            symbol = symbol.replace("-", "/")
        return symbol in str(frame[:80])

    def close(self, code: int, reason: str) -> None:
        self._venue.forget(self)
        self.closed = True

    def ping(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def idle_s(self) -> float:
        return (self._clock.passed_ns - self._sent_ns) / NS

    def idle_ping_s(self) -> float:
        return 0.0

    def unanswered_ping_s(self) -> float:
        return 0.0


class Link:
    """Our end: connect, read, probe, give up, come back. `faults` counts what went wrong on the wire."""

    def __init__(
        self, venue: Venue, side: SimulatedVenue, market: VenueMarket, clock: Clock, dice: Random, faults: Counter[str]
    ) -> None:
        self.venue = venue
        self.side = side
        self.market = market
        self.truth = Truth(venue.name)
        self.noise = 0.0  # of the wire: the share of frames that something happens to
        self.disturbed = False  # something was sent that is wrong, or was changed on the way
        self.half_open = False  # nothing arrives, in either direction, and nobody says so
        self.refused = False  # new connections are
        self.halted = False  # the venue's engine, as far as we were told
        self.line: Line | None = None
        self.session: FeedSession | None = None
        self.reading: tuple[str, Levels] | None = None  # of the frame that is being read: its instrument and book
        self._clock = clock
        self._dice = dice
        self._faults = faults
        self._numbers = 0
        self._failures = 0
        self._retry_ns = 0
        self._probed_ns = 0
        self._alive_ns = 0  # when we last saw that the venue is there

    @cached_property
    def garbage(self) -> Sequence[str | bytes]:
        return self.side.dialect.garbage()

    def tend(self) -> None:
        """Do what time asks for."""
        now_ns = self._clock.passed_ns
        if self.line is None:
            if now_ns >= self._retry_ns:
                self._connect(now_ns)
            return
        if self.line.closed and not self.line.wire:
            self.lost("the venue closed the connection")
            return
        reason = self.market.check(now_ns)
        if reason is not None:
            self.lost(reason)
            return
        assert self.session is not None
        self.market.take(self.session.advance(now_ns), now_ns=now_ns, wall_ns=self._clock.wall_ns, frame=False)
        if self.market.should_probe(now_ns) and now_ns - self._probed_ns >= self.market.probe_after_ns:
            self._probe(now_ns)
        self._send()

    def read(self) -> None:
        """Read what lies on the wire, as it arrives."""
        line = self.line
        while line is not None and line is self.line and line.wire and not self.half_open:
            fault = self._dice.random() if self.noise else 1.0
            if fault >= self.noise:
                self._take(line.wire.popleft())
                continue
            kind = ("lost", "repeated", "swapped", "cut", "garbage", "late")[int(fault / self.noise * 6)]
            self._faults[f"frame {kind}"] += 1
            self.disturbed = True
            if kind == "late":
                return
            sent = line.wire.popleft()
            if kind == "repeated":
                self._take(sent)
                self._take(sent)
            elif kind == "swapped":
                for _ in range(min(len(line.wire), self._dice.randint(1, 5))):
                    self._take(line.wire.popleft())
                self._take(sent)
            elif kind == "cut":
                self._take((sent[0][: self._dice.randrange(len(sent[0]) or 1)], "", None))
            elif kind == "garbage":
                self._take((self._dice.choice(self.garbage), "", None))
                self._take(sent)

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        if self.line is not None:
            self.side.forget(self.line)
            self.line = self.session = None
            self.market.lost(reason)
            self._back_off()

    def prove(self) -> None:
        """Who is live was heard of lately, and its engine runs."""
        if self.market.state is State.LIVE:
            assert not self.halted, f"{self.venue.name} is live, its engine is halted"
            silent_ns = self._clock.passed_ns - self._alive_ns
            assert self.line is not None, f"{self.venue.name} is live without a connection"
            assert silent_ns < STALE_AFTER_S * NS + CHECK_LATE_NS, f"{self.venue.name} is live, silent for {silent_ns}"

    def _connect(self, now_ns: int) -> None:
        self.market.connecting()
        if self.refused:
            self._faults["connection refused"] += 1
            self.market.lost("refused")
            self._back_off()
            return
        self._numbers += 1
        self._failures = 0
        self.half_open = False
        self._alive_ns = now_ns
        self.market.connected(now_ns)
        self.session = FeedSession(self.venue, self.market.instruments, counters=self.market.counters)
        self.line = Line(self.side, self.truth, self._clock, self._numbers)
        self.side.open(self.line)
        self.session.opened(now_ns)
        self._send()

    def _back_off(self) -> None:
        self._retry_ns = self._clock.passed_ns + BACKOFFS_NS[min(self._failures, len(BACKOFFS_NS) - 1)]
        self._failures += 1

    def _probe(self, now_ns: int) -> None:
        assert self.session is not None
        self._probed_ns = now_ns
        frame = self.session.probe()
        if frame is not None:
            self.session.outgoing.appendleft(frame)
        elif not self.half_open:
            self._alive_ns = now_ns
            self.market.answered(now_ns)

    def _take(self, sent: Sent) -> None:
        if self.session is None:
            return
        self._clock.pass_(FRAME_NS)
        now_ns, wall_ns = self._clock.passed_ns, self._clock.wall_ns
        if self.market.was_suspended(now_ns):
            self.lost("this process was suspended")
            return
        frame, instrument, levels = sent
        if isinstance(frame, str) and frame.startswith(STATUS) and frame.endswith("}"):
            self.halted = '"system":"online"' not in frame
        self._alive_ns = now_ns
        self.reading = (instrument, levels) if levels is not None else None
        self.market.take(
            self.session.receive(frame if isinstance(frame, bytes) else frame.encode(), now_ns),
            now_ns=now_ns,
            wall_ns=wall_ns,
        )
        self.reading = None
        self._send()

    def _send(self) -> None:
        while self.session is not None and self.session.outgoing and self.line is not None:
            frame = self.session.outgoing.popleft()
            if not self.half_open and not self.line.closed:
                self.side.receive(self.line, frame)
