"""Ages of many messages, counted in cells: a bench of hours needs no more memory than one of seconds."""

from msgspec import Struct

FINE_S = 10e-6  # a cell's width, and so the error of a quantile
FINE_CELLS = 20_000  # up to 200 ms
COARSE_S = 10e-3
COARSE_CELLS = 12_000  # up to two minutes; what is older counts there too
FEWEST = 100  # below it there is no 99th percentile


class Latency(Struct):
    """In milliseconds."""

    count: int
    p50: float
    p99: float
    max: float


class Ages:
    """A histogram: cells of 10 µs, then of 10 ms. Quantiles are the upper edges of their cells."""

    def __init__(self) -> None:
        self._fine = [0] * FINE_CELLS
        self._coarse = [0] * COARSE_CELLS
        self._max_s = 0.0

    def add(self, age_s: float) -> None:
        cell = int(age_s / FINE_S)
        if cell < FINE_CELLS:
            self._fine[max(cell, 0)] += 1
        else:
            self._coarse[min(int(age_s / COARSE_S), COARSE_CELLS - 1)] += 1
        if age_s > self._max_s:
            self._max_s = age_s

    def merge(self, other: "Ages") -> None:
        """Add what another histogram counted."""
        self._fine = [mine + its for mine, its in zip(self._fine, other._fine, strict=True)]
        self._coarse = [mine + its for mine, its in zip(self._coarse, other._coarse, strict=True)]
        self._max_s = max(self._max_s, other._max_s)

    @property
    def count(self) -> int:
        return sum(self._fine) + sum(self._coarse)

    def quantile_s(self, share: float) -> float:
        """Return the age that this share of all does not exceed."""
        wanted = share * self.count
        seen = 0
        for cells, width_s in ((self._fine, FINE_S), (self._coarse, COARSE_S)):
            for cell, number in enumerate(cells):
                seen += number
                if number and seen >= wanted:
                    return min((cell + 1) * width_s, self._max_s)
        return self._max_s

    def latency(self) -> Latency | None:
        """Return the summary; None where too few were counted."""
        count = self.count
        if count < FEWEST:
            return None
        return Latency(count, self.quantile_s(0.5) * 1000, self.quantile_s(0.99) * 1000, self._max_s * 1000)
