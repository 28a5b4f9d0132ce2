"""A parent order's schedule: equal slices in whole lots, each due at its own time.

Slice k (from 0) is due at start + k × duration / slices, the first at once. Quantities are cut
from the cumulative target, so that they sum to the parent exactly and differ by one lot at most.
What a slice could not do is spread evenly over those that follow: never a burst to catch up.
"""

from datetime import datetime, timedelta
from fractions import Fraction

from msgspec import Struct

from core.money import INPUT_LIMIT, UNITS

BPS = 10_000
DURATION_MAX_S = 7 * 86_400
SLICES_MAX = 10_000
PRICE_MAX = int(INPUT_LIMIT) * UNITS - 1  # of any order's limit
LATE = timedelta(seconds=1)  # slices later than that are passed over, but for the last one that is due


class Twap(Struct):
    """What a parent order has beside its order: the schedule, how far it is, and its benchmarks.

    Benchmarks are middles of bid and ask in units; the market's is its mean over the time that
    somebody watched.
    """

    venue: str  # whose depth it takes, or "all"
    duration_s: int
    slices: int
    next_slice: int = 0  # those before it are past
    missed: int = 0  # of the past ones: nobody was there to run them
    arrival_price: int | None = None
    market_sum: int = 0  # price × µs
    market_us: int = 0

    @property
    def market_price(self) -> int | None:
        """The market's time-weighted average price so far; the arrival price before any time has passed."""
        return self.market_sum // self.market_us if self.market_us else self.arrival_price


class Schedule(Struct, frozen=True):
    """`quantity` in units; `duration_s` and `slices` at least 1."""

    started_at: datetime
    duration_s: int
    slices: int
    quantity: int

    def due_at(self, number: int) -> datetime:
        """Return when a slice (from 0) is due."""
        return self.started_at + timedelta(microseconds=number * self.duration_s * 1_000_000 // self.slices)

    def due(self, now: datetime) -> int:
        """Return how many slices are due by now."""
        passed_us = (now - self.started_at) // timedelta(microseconds=1)
        if passed_us < 0:
            return 0
        # The last k with k × duration / slices ≤ passed, rounded as `due_at` rounds.
        number = min(self.slices, (passed_us + 1) * self.slices // (self.duration_s * 1_000_000) + 1)
        while number > 0 and self.due_at(number - 1) > now:
            number -= 1
        return number

    def target(self, number: int) -> int:
        """Return how much should be done once the first `number` slices are."""
        return self.quantity * number // self.slices

    def slice_quantity(self, number: int) -> int:
        """Return the share of one slice (from 0) alone."""
        return self.target(number + 1) - self.target(number)

    def window(self, now: datetime) -> tuple[int, int]:
        """Return which slices are to be run now, as (first, end): those due, without those that are too late.

        The last one that is due is always run, however late, until the end is past by `LATE`.
        """
        end = self.due(now)
        if now > self.ends_at + LATE:
            return end, end
        return min(self.due(now - LATE), max(end - 1, 0)), end

    def share(self, first: int, end: int, *, filled: int) -> int:
        """Return what the slices first … end − 1 should do: their own, and their part of what is behind."""
        if first >= end:
            return 0
        behind = self.target(first) - filled
        return self.target(end) - self.target(first) + behind * (end - first) // (self.slices - first)

    @property
    def ends_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.duration_s)


def collar(price: int, *, buys: bool, bps: int) -> int:
    """Return a price worsened by so many basis points: the limit of a parent order without one.

    At least one unit, and no more than a client may give.
    """
    if buys:
        return min(PRICE_MAX, -(-price * (BPS + bps) // BPS))
    return max(1, price * (BPS - bps) // BPS)


def slippage(*, price: int, benchmark: int, buys: bool) -> Fraction:
    """Return by which share an average price is worse than a benchmark; below 0 is better."""
    return Fraction(price - benchmark if buys else benchmark - price, benchmark)
