"""An exponentially weighted moving average by half-life, over unevenly spaced values."""

from decimal import Decimal

_NS = 1_000_000_000


class Ewma:
    """value ← value + (1 − 2^(−Δt / half_life)) (price − value), from the first price.

    A statistic, so a float. Trades at the same time, or before the last one, count with
    Δt = 0 and leave the value as it is.
    """

    __slots__ = ("_half_life_ns", "_time_ns", "value")

    def __init__(self, half_life: float) -> None:
        """`half_life` in seconds, finite and positive."""
        self.value: float | None = None
        self._half_life_ns = half_life * _NS
        self._time_ns = 0

    def update(self, price: Decimal, time_ns: int) -> float:
        """Take one trade and return the average after it."""
        if self.value is None:
            self.value = float(price)
            self._time_ns = time_ns
        elif time_ns > self._time_ns:
            kept: float = 0.5 ** ((time_ns - self._time_ns) / self._half_life_ns) if self._half_life_ns else 0.0
            self.value += (1 - kept) * (float(price) - self.value)
            self._time_ns = time_ns
        return self.value
