from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from core.twap import DURATION_MAX_S, SLICES_MAX, Schedule, collar, slippage_bps

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


@given(st.integers(1, 10**19), st.integers(0, 9_999))
def test_a_collar_is_never_better_than_the_price(price: int, bps: int) -> None:
    assert collar(price, buys=True, bps=bps) >= price
    assert 1 <= collar(price, buys=False, bps=bps) <= price
    assert collar(price, buys=True, bps=0) == price == collar(price, buys=False, bps=0)


def test_slippage_is_positive_when_it_cost() -> None:
    assert slippage_bps(price=101, benchmark=100, buys=True) == 100
    assert slippage_bps(price=101, benchmark=100, buys=False) == -100
