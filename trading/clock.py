"""The time of schedules, and where the wall clock stands beside it."""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

VISIBLE = timedelta(seconds=6)  # after which every row can be read that was stamped and committed
JUMP = timedelta(milliseconds=10)  # less is how clocks run
STRETCHES_KEPT = 100
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps
_EVER = datetime.min.replace(tzinfo=UTC)


class _Stretch(NamedTuple):
    """A while, in our time, in which the wall clock may have stood so far off: our time less its own."""

    since: datetime
    until: datetime
    off: timedelta


class ScheduleClock:
    """The wall clock as it was at the start, and what has passed since: its jumps move no slice.

    Rows are stamped by the wall clock, and may be read after it jumped. So it is remembered how far
    it stood off, and when; it is looked at whenever somebody asks.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        passed_s: Callable[[], float] = lambda: time.clock_gettime(_CLOCK),
    ) -> None:
        self._wall, self._passed_s = wall, passed_s
        self._started_at, self._started_s = wall(), passed_s()
        self._stretches = deque([_Stretch(_EVER, self._started_at, timedelta(0))], maxlen=STRETCHES_KEPT)

    def __call__(self) -> datetime:
        return self._started_at + timedelta(seconds=self._passed_s() - self._started_s)

    def at(self, stamped: datetime) -> datetime:
        """Return where a moment lies that the wall clock stamped: the latest that is past. Nothing is of the future."""
        self._look()
        moments = ((stamped + off, since, until) for since, until, off in self._stretches)
        return max((at for at, since, until in moments if since <= at <= until), default=self())

    def earliest(self, since: datetime) -> datetime:
        """Return a time before all that the wall clock showed since a moment of ours."""
        self._look()
        return since - max(one.off for one in self._stretches if one.until >= since)

    def _look(self) -> None:
        now = self()
        off, last = now - self._wall(), self._stretches[-1]
        self._stretches[-1] = last._replace(until=now)  # it may have jumped just now
        if abs(off - last.off) < JUMP:
            self._stretches[-1] = _Stretch(last.since, now, off)
        else:
            self._stretches.append(_Stretch(last.until, now, off))
            self._stretches[0] = self._stretches[0]._replace(since=_EVER)  # of what is forgotten, it is the nearest
