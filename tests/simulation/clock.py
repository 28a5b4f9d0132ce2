"""The time of a history: it passes only when it is told to."""

from datetime import UTC, datetime, timedelta

from marketdata.feed import NS

START_NS = 1_767_225_600 * NS  # 2026-01-01
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """The time that really passes, and our wall clock, which somebody may set; the venues' clocks are right."""

    def __init__(self) -> None:
        self.passed_ns = 10_000 * NS  # the monotonic clock: nobody knows since when
        self.wall_ns = START_NS

    def pass_(self, ns: int) -> None:
        self.passed_ns += ns
        self.wall_ns += ns

    def set_wall(self, by_ns: int) -> None:
        self.wall_ns += by_ns

    def venue_ns(self) -> int:
        return START_NS - 10_000 * NS + self.passed_ns

    def now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.wall_ns // 1_000)

    def passed_s(self) -> float:
        return self.passed_ns / NS
