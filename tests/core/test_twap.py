from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from core.twap import DURATION_MAX_S, LATE, PRICE_MAX, SLICES_MAX, Schedule, collar, slippage

START = datetime(2026, 1, 1, tzinfo=UTC)
SCHEDULES = st.builds(
    Schedule,
    started_at=st.just(START),
    duration_s=st.integers(1, DURATION_MAX_S),
    slices=st.integers(1, SLICES_MAX),
    quantity=st.integers(1, 10**19),
)


@given(SCHEDULES)
def test_slices_add_up_to_the_parent_and_differ_by_one_lot_at_most(schedule: Schedule) -> None:
    shares = [schedule.slice_quantity(number) for number in range(schedule.slices)]
    assert sum(shares) == schedule.quantity
    assert max(shares) - min(shares) <= 1
    assert min(shares) >= 0


@given(SCHEDULES, st.data())
def test_a_slice_is_due_from_its_moment_on_and_not_before(schedule: Schedule, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, schedule.slices - 1))
    moment = schedule.due_at(number)
    assert schedule.due(moment) >= number + 1
    assert schedule.due(moment - timedelta(microseconds=1)) <= number
    assert schedule.due_at(0) == START
    assert moment < schedule.ends_at


@given(SCHEDULES, st.integers(-10, DURATION_MAX_S * 2))
def test_what_is_due_never_shrinks_and_is_all_by_the_end(schedule: Schedule, seconds: int) -> None:
    now = START + timedelta(seconds=seconds)
    assert 0 <= schedule.due(now) <= schedule.due(now + timedelta(seconds=1)) <= schedule.slices
    assert schedule.due(schedule.ends_at) == schedule.slices
    assert schedule.due(START - timedelta(microseconds=1)) == 0
    assert schedule.due(START) >= 1


# -- what a slice could not do

SHORT = st.builds(
    Schedule,
    started_at=st.just(START),
    duration_s=st.integers(1, 120),
    slices=st.integers(1, 40),
    quantity=st.one_of(st.integers(1, 60), st.integers(1, 10**19)),
)


@given(SHORT, st.data())
def test_whatever_is_missed_or_not_to_be_had_nothing_runs_ahead_and_nothing_bursts(
    schedule: Schedule, data: st.DataObject
) -> None:
    """Outages pass slices over, and of what a run wants the market has all, a part, or nothing."""
    done = filled = 0
    while done < schedule.slices:
        end = data.draw(st.integers(done + 1, schedule.slices), label="end")
        first = data.draw(st.integers(done, end), label="first")
        share = schedule.share(first, end, filled=filled)
        target = [Fraction(schedule.quantity * number, schedule.slices) for number in range(schedule.slices + 1)]
        if first == end:
            assert share == 0, "nobody was there to run them"
        else:
            even = (target[first] - filled) * Fraction(end - first, schedule.slices - first)
            assert abs(share - (target[end] - target[first] + even)) < 3, "what is behind is spread evenly"
        assert 0 <= share <= schedule.quantity - filled
        assert filled + share <= target[end], "ahead of the schedule"
        filled += data.draw(st.one_of(st.just(share), st.integers(0, share), st.just(0)), label="had")
        done = end
    assert filled <= schedule.quantity


@given(SHORT, st.data())
def test_what_is_behind_is_made_up_for_in_equal_parts_and_exactly_by_the_end(
    schedule: Schedule, data: st.DataObject
) -> None:
    behind_at = data.draw(st.integers(0, schedule.slices - 1))
    filled = before = data.draw(st.integers(0, schedule.target(behind_at)))
    shares = []
    for number in range(behind_at, schedule.slices):
        shares.append(schedule.share(number, number + 1, filled=filled))
        filled += shares[-1]
    assert filled == schedule.quantity, "all is done when all can be had"
    assert max(shares) - min(shares) <= 2, "one lot of its own slice, one of what is made up for"
    assert schedule.share(behind_at, schedule.slices, filled=before) == schedule.quantity - before


@given(SHORT, st.integers(-5_000_000, 300_000_000), st.integers(0, 10_000_000))
def test_the_window_is_what_is_due_and_not_late_and_always_the_last_one_until_the_end(
    schedule: Schedule, passed_us: int, more_us: int
) -> None:
    now = START + timedelta(microseconds=passed_us)
    first, end = schedule.window(now)
    due = [number for number in range(schedule.slices) if schedule.due_at(number) <= now]
    assert end == len(due)
    late = [number for number in due if schedule.due_at(number) <= now - LATE]
    if now > schedule.ends_at + LATE:
        assert first == end
    else:
        assert first == min(len(late), max(end - 1, 0))
    later = schedule.window(now + timedelta(microseconds=more_us))
    assert (first, end) <= later
    assert later[1] >= end


def test_slices_that_are_asked_for_beyond_the_end_are_not_there() -> None:
    schedule = Schedule(START, 10, 4, 100)
    assert schedule.share(4, 4, filled=40) == 0
    assert schedule.share(5, 3, filled=0) == 0


@given(st.integers(1, PRICE_MAX), st.integers(0, 9_999))
def test_a_collar_is_never_better_than_the_price_nor_more_than_a_price_may_be(price: int, bps: int) -> None:
    assert price <= collar(price, buys=True, bps=bps) <= PRICE_MAX
    assert 1 <= collar(price, buys=False, bps=bps) <= price
    assert collar(price, buys=True, bps=0) == price == collar(price, buys=False, bps=0)


def test_slippage_is_positive_when_it_cost() -> None:
    assert slippage(price=101, benchmark=100, buys=True) == Fraction(1, 100)
    assert slippage(price=101, benchmark=100, buys=False) == Fraction(-1, 100)
