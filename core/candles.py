"""Trades → candles of 1 s, 10 s, 1 min and 5 min.

A second is closed `GRACE_NS` after its end by the router's clock; longer candles are folded
from closed seconds, so that all intervals agree. Within a second trades count in the order
they were received.
"""

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal

from msgspec import Struct

INTERVALS = {"1s": 1, "10s": 10, "1m": 60, "5m": 300}  # seconds
GRACE_NS = 250_000_000  # how long after its end a second still takes trades
VENUE_CLOCK_TOLERANCE_NS = 2_000_000_000  # a venue's time further from ours than this is not believed
JUMP_MAX_S = 120  # a clock that moves further at once was set: the seconds between never were

_NS = 1_000_000_000
_LONGER = tuple(seconds for seconds in INTERVALS.values() if seconds > 1)
_LONGEST = max(INTERVALS.values())
_EXACT = Context(prec=100)  # sums of sizes lose no digit


class Candle(Struct, frozen=True, array_like=True):
    """`interval` and `open_time` in seconds; `volume` in the base asset.

    `partial`: the router did not observe the whole of the interval (it started, stopped or
    lost a venue in it), or, while the candle runs, of what has passed of it.
    """

    interval: int
    open_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    closed: bool
    partial: bool = False


def trade_time_ns(venue_ns: int, received_ns: int) -> int:
    """Return the time at which a trade counts: the venue's, unless its clock is not to be believed."""
    return venue_ns if -VENUE_CLOCK_TOLERANCE_NS <= venue_ns - received_ns <= VENUE_CLOCK_TOLERANCE_NS else received_ns


class Second(Struct, frozen=True, array_like=True):
    """What traded in one second; seconds of several venues can be merged into one over all of them."""

    open_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    first_ns: int  # when the trade that opened it was received
    last_ns: int  # likewise the one that closed it


def merged(seconds: Sequence[Second]) -> Second:
    """Return what traded in the same second at several venues: their trades in the order they were received."""
    first = min(seconds, key=lambda second: second.first_ns)
    last = max(seconds, key=lambda second: second.last_ns)
    volume = Decimal(0)
    for second in seconds:
        volume = _EXACT.add(volume, second.volume)
    return Second(
        first.open_time,
        first.open,
        max(second.high for second in seconds),
        min(second.low for second in seconds),
        last.close,
        volume,
        sum(second.trades for second in seconds),
        first.first_ns,
        last.last_ns,
    )


def first_open_second(now_ns: int) -> int:
    """Return the first second that is not closed at `now_ns`."""
    return (now_ns - GRACE_NS) // _NS


class _Bar:
    """A candle in the making."""

    __slots__ = ("close", "first_ns", "high", "last_ns", "low", "open", "open_time", "seen", "trades", "volume")

    def __init__(self, open_time: int, price: Decimal, received_ns: int = 0) -> None:
        self.open_time = open_time
        self.open = self.high = self.low = self.close = price
        self.volume = Decimal(0)
        self.trades = 0
        self.seen = 0  # closed seconds in it that were observed from start to end
        self.first_ns = self.last_ns = received_ns

    @classmethod
    def of(cls, second: Second) -> "_Bar":
        bar = cls(second.open_time, second.open)
        bar.high, bar.low, bar.close = second.high, second.low, second.close
        bar.volume, bar.trades = second.volume, second.trades
        return bar

    def second(self) -> Second:
        return Second(
            self.open_time, self.open, self.high, self.low, self.close,
            self.volume, self.trades, self.first_ns, self.last_ns,
        )  # fmt: skip

    def trade(self, price: Decimal, size: Decimal) -> None:
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.volume = _EXACT.add(self.volume, size)
        self.trades += 1

    def fold(self, later: "_Bar | Candle") -> None:
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.volume = _EXACT.add(self.volume, later.volume)
        self.trades += later.trades

    def candle(self, interval: int, *, closed: bool, partial: bool) -> Candle:
        return Candle(
            interval,
            self.open_time,
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.trades,
            closed,
            partial,
        )


class CandleSeries:
    """All candles of one instrument at one venue, or over all venues.

    There is no candle before the first trade; from then on there is one for every second,
    flat where nothing traded.
    """

    __slots__ = ("_bars", "_close", "_next", "_observing", "_seconds", "_unseen", "_waiting", "_whole_from")

    def __init__(self) -> None:
        self._close: Decimal | None = None  # of the last closed second
        self._next: int | None = None  # the first second that is not closed
        self._seconds: dict[int, _Bar] = {}  # open seconds with trades
        self._bars: dict[int, _Bar] = {}  # interval → the bar that closed seconds fold into
        self._waiting: dict[int, int] = {}  # interval → observed seconds of its window before the first trade
        self._observing = True
        self._unseen = False  # the open second was not observed from its start
        self._whole_from = 0  # nor were those before this one

    def observe(self, observing: bool, now_ns: int = 0) -> None:
        """Say whether trades can arrive from now on; seconds in which they could not are marked partial.

        With the time, the second in which it began is one of them: it may not be the next to close.
        """
        if observing and not self._observing:
            self._whole_from = now_ns // _NS + 1
        self._observing = observing
        if not observing:
            self._unseen = True

    def add(self, price: Decimal, size: Decimal, time_ns: int, received_ns: int = 0) -> bool:
        """Take one trade; False when its second is closed already."""
        second = time_ns // _NS
        if self._next is not None and second < self._next:
            return False
        bar = self._seconds.get(second)
        if bar is None:
            bar = self._seconds[second] = _Bar(second, price, received_ns)
        bar.trade(price, size)
        bar.last_ns = received_ns
        return True

    def put(self, second: Second) -> bool:
        """Take all trades of one second at once, in place of what is known of it; False when it is closed already."""
        if self._next is not None and second.open_time < self._next:
            return False
        self._seconds[second.open_time] = _Bar.of(second)
        return True

    def open_seconds(self) -> list[Second]:
        """Return the seconds with trades that are not closed."""
        return [bar.second() for bar in self._seconds.values()]

    def advance(self, now_ns: int) -> list[Candle]:
        """Close every second whose grace is over; return the candles that ended, oldest first."""
        due = first_open_second(now_ns)
        closed: list[Candle] = []
        if self._next is None:
            self._next = min((*self._seconds, due))
            self._unseen = True  # nobody knows what came before
            self._whole_from = max(self._whole_from, now_ns // _NS + 1)
        if due > self._next + JUMP_MAX_S:
            for second in sorted(second for second in self._seconds if second < due):
                self._next = second
                self._close_second(closed)
            self._waiting.clear()
            self._next, self._unseen, self._whole_from = due, True, now_ns // _NS + 1
        elif due < self._next - JUMP_MAX_S:
            self._seconds.clear()
            self._bars.clear()
            self._waiting.clear()
            self._next, self._unseen, self._whole_from = due, True, now_ns // _NS + 1
        while self._next < due:
            self._close_second(closed)
        return closed

    def current(self, now_ns: int) -> list[Candle]:
        """Return the running candle of every interval; none before the first trade."""
        now_s = now_ns // _NS
        running: list[Candle] = []
        for interval in INTERVALS.values():
            start = now_s // interval * interval
            bar = self._running(interval, start, now_s)
            if bar is not None:
                passed = max(0, (self._next or start) - start)  # closed seconds of the window
                unseen = self._unseen or start < self._whole_from <= now_s + 1
                running.append(bar.candle(interval, closed=False, partial=unseen or bar.seen < passed))
        return running

    def restore(self, seconds: Iterable[Candle], now_ns: int) -> list[Candle]:
        """Go on after a restart from stored closed seconds, oldest first.

        Give at least those of the longest interval around the last one. Returns the longer
        candles that the router did not live to close, as far as it saw them.
        """
        stored = list(seconds)
        if not stored:
            return []
        closed: list[Candle] = []
        first = stored[-1].open_time // _LONGEST * _LONGEST
        for candle in stored:
            self._close = candle.close
            if candle.open_time >= first:
                self._fold(candle, closed)
        closed.clear()  # what ended while the router lived was closed then
        now_s = now_ns // _NS
        for interval in _LONGER:
            self._end_window(interval, now_s // interval * interval, closed)
        self._next = max(stored[-1].open_time + 1, now_s)
        self._unseen = True
        return closed

    def _close_second(self, closed: list[Candle]) -> None:
        second = self._next
        assert second is not None
        self._next = second + 1
        bar = self._seconds.pop(second, None)
        partial, self._unseen = self._unseen or second < self._whole_from, not self._observing
        if bar is None:
            if self._close is None:
                self._wait(second, seen=not partial)
                return
            bar = _Bar(second, self._close)
        self._close = bar.close
        candle = bar.candle(1, closed=True, partial=partial)
        closed.append(candle)
        self._fold(candle, closed)

    def _wait(self, second: int, *, seen: bool) -> None:
        """Remember, before the first trade, how much of each window was observed."""
        for interval in _LONGER:
            before = 0 if second % interval == 0 else self._waiting.get(interval, 0)
            self._waiting[interval] = before + seen

    def _fold(self, second: Candle, closed: list[Candle]) -> None:
        for interval in _LONGER:
            start = second.open_time // interval * interval
            self._end_window(interval, start, closed)
            bar = self._bars.get(interval)
            if bar is None:
                bar = self._bars[interval] = _Bar(start, second.open)
                if second.open_time != start:
                    bar.seen = self._waiting.get(interval, 0)
                self._waiting[interval] = 0
            bar.fold(second)
            bar.seen += not second.partial
            if second.open_time + 1 == start + interval:
                self._end_window(interval, start + interval, closed)

    def _end_window(self, interval: int, start: int, closed: list[Candle]) -> None:
        """Close the interval's bar if it belongs to a window before the one that starts at `start`."""
        bar = self._bars.get(interval)
        if bar is not None and bar.open_time < start:
            del self._bars[interval]
            closed.append(bar.candle(interval, closed=True, partial=bar.seen < interval))

    def _running(self, interval: int, start: int, now_s: int) -> _Bar | None:
        """Return a bar of the window from its closed seconds and the open ones up to now."""
        close = self._close
        bar: _Bar | None = None
        folded = self._bars.get(interval)
        if folded is not None and folded.open_time == start:
            bar = _Bar(start, folded.open)
            bar.fold(folded)
            bar.seen = folded.seen
        for second in sorted(second for second in self._seconds if second <= now_s):
            open_second = self._seconds[second]
            if second >= start:
                if bar is None:
                    bar = _Bar(start, open_second.open if close is None or second == start else close)
                bar.fold(open_second)
            close = open_second.close
        if bar is None and close is not None:
            bar = _Bar(start, close)
        return bar
