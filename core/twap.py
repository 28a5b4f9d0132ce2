"""A parent order's schedule: equal slices in whole lots, each due at its own time.

Slice k (from 0) is due at start + k × duration / slices, the first at once. Quantities are cut
from the cumulative target, so that they sum to the parent exactly and differ by one lot at most.
"""

from datetime import datetime, timedelta

from msgspec import Struct

BPS = 10_000
DURATION_MAX_S = 7 * 86_400
SLICES_MAX = 10_000


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

    @property
    def ends_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.duration_s)


def collar(price: int, *, buys: bool, bps: int) -> int:
    """Return a price worsened by so many basis points, at least one unit: the limit of a parent order without one."""
    if buys:
        return -(-price * (BPS + bps) // BPS)
    return max(1, price * (BPS - bps) // BPS)


def slippage_bps(*, price: int, benchmark: int, buys: bool) -> float:
    """Return by how much an average price is worse than a benchmark, in basis points; negative is better."""
    worse = price - benchmark if buys else benchmark - price
    return worse / benchmark * BPS
