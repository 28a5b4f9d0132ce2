"""The time of schedules beside a wall clock that jumps."""

from datetime import datetime, timedelta

import pytest

from tests.trading.floor import Clock
from trading.clock import STRETCHES_KEPT, VISIBLE

HOUR_S = 3_600.0


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_what_was_stamped_before_a_jump_lies_where_it_was_however_late_it_is_read(jump_s: float) -> None:
    clock = Clock()
    ours = clock.schedule()
    clock.pass_(100)
    before, at = clock.wall(), ours()
    assert ours.at(before) == at
    clock.pass_(1)
    clock.jump(jump_s)
    clock.pass_(1)
    after, later = clock.wall(), ours()
    clock.pass_(40)
    assert (ours.at(before), ours.at(after)) == (at, later)
    assert ours() == at + timedelta(seconds=42)


def test_an_hour_that_the_wall_clock_shows_twice_is_the_later_one() -> None:
    clock = Clock()
    ours = clock.schedule()
    clock.pass_(2 * HOUR_S)
    ours.at(clock.wall())  # a look, just before it
    clock.jump(-HOUR_S)
    clock.pass_(0.5 * HOUR_S)
    at = ours()
    assert ours.at(clock.wall()) == at
    assert ours.at(clock.wall() - timedelta(seconds=HOUR_S)) == at - timedelta(seconds=2 * HOUR_S)  # shown once


def test_what_was_stamped_before_more_jumps_than_are_remembered_is_still_past() -> None:
    clock = Clock()
    ours = clock.schedule()
    stamped, at = clock.wall(), ours()
    for _ in range(2 * STRETCHES_KEPT):
        clock.pass_(10)
        clock.jump(1)
        ours.at(stamped)
    forgotten = timedelta(seconds=STRETCHES_KEPT + 1)  # jumps that nobody can take back any more
    assert at - forgotten <= ours.at(stamped) <= at


def test_nothing_lies_in_the_future() -> None:
    clock = Clock()
    ours = clock.schedule()
    assert ours.at(clock.wall() + timedelta(seconds=1)) == ours()


@pytest.mark.parametrize(("jump_s", "first_s"), [(0.0, 0.0), (HOUR_S, 0.0), (-HOUR_S, 1 - HOUR_S)])
def test_the_earliest_time_shown_since_a_moment_is_before_all_that_was_stamped_since(
    jump_s: float, first_s: float
) -> None:
    clock = Clock()
    ours = clock.schedule()
    clock.pass_(50)
    ours.at(clock.wall())
    since, shown = ours(), clock.wall()
    clock.pass_(1)
    clock.jump(jump_s)
    clock.pass_(15)
    found: datetime = ours.earliest(since)
    assert shown + timedelta(seconds=min(0, jump_s)) <= found <= shown + timedelta(seconds=first_s)
    clock.pass_(60)
    assert ours.earliest(ours() - VISIBLE) == clock.wall() - VISIBLE  # the jump is long ago
