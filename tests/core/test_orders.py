"""What orders cost: any way of filling costs what one fill would, and never more than was held."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import Side
from core.money import UNITS
from core.orders import BPS, amount, crosses, fee_of, hold
from tests.core.orders import an_order

PRICE_MAX = 10**16
SIDES = st.sampled_from(Side)
RATES = st.sampled_from((0, 1, 77, 333, 1_000, 2_500, 99_999, 100_000))  # hundredths of a basis point


@dataclass
class Filling:
    """A limit order and the fills that complete it, at prices no worse than its limit."""

    side: Side
    limit: int
    fills: list[tuple[int, int]]  # price, quantity

    @property
    def quantity(self) -> int:
        return sum(quantity for _, quantity in self.fills)


@st.composite
def fillings(draw: st.DrawFn) -> Filling:
    side = draw(SIDES)
    limit = draw(st.sampled_from((1, 3, UNITS, 33_333_333, 49_999_99999999)) | st.integers(1, PRICE_MAX))
    quantities = draw(st.lists(st.sampled_from((1, 2, 3, 33_333_333)) | st.integers(1, 10**14), min_size=1, max_size=8))
    best, worst = (1, limit) if side is Side.BUY else (limit, 4 * limit)
    prices = st.just(limit) | st.integers(max(best, limit - 3), min(worst, limit + 3)) | st.integers(best, worst)
    return Filling(side, limit, [(draw(prices), quantity) for quantity in quantities])


@given(SIDES, st.integers(0, 10**40))
def test_money_is_rounded_against_the_client_by_less_than_a_unit(side: Side, notional: int) -> None:
    exact = Fraction(notional, UNITS)
    assert amount(side, notional) == (ceil(exact) if side is Side.BUY else floor(exact))


@given(fillings())
def test_no_fill_costs_more_than_it_releases(filling: Filling) -> None:
    side, leaves, notional = filling.side, filling.quantity, 0
    held = hold(side, price=filling.limit, leaves=leaves)
    for price, quantity in filling.fills:
        after = notional + price * quantity
        cost = amount(side, after) - amount(side, notional) if side is Side.BUY else quantity
        leaves -= quantity
        left = hold(side, price=filling.limit, leaves=leaves, filled_notional=after)
        assert 0 <= cost <= held - left
        held, notional = left, after
    assert held == 0


@given(fillings())
def test_many_fills_cost_what_one_would(filling: Filling) -> None:
    notional = sum(price * quantity for price, quantity in filling.fills)
    moved = before = 0
    for price, quantity in filling.fills:
        after = before + price * quantity
        moved += amount(filling.side, after) - amount(filling.side, before)
        before = after
    assert moved == amount(filling.side, notional)
    at_the_limit = sum(filling.limit * quantity for _, quantity in filling.fills)
    assert hold(Side.BUY, price=filling.limit, leaves=filling.quantity) == amount(Side.BUY, at_the_limit)


@given(fillings())
def test_rounding_each_fill_by_itself_would_break_the_hold(filling: Filling) -> None:
    """Why costs are cumulative: the sum of single roundings is never less, and may exceed the hold."""
    notional = sum(price * quantity for price, quantity in filling.fills)
    singly = sum(amount(Side.BUY, price * quantity) for price, quantity in filling.fills)
    assert amount(Side.BUY, notional) <= singly <= amount(Side.BUY, notional) + len(filling.fills) - 1


def test_a_hold_is_of_the_asset_that_is_paid_with() -> None:
    assert hold(Side.SELL, price=5 * UNITS, leaves=7) == 7
    assert hold(Side.BUY, price=5 * UNITS, leaves=7) == 35
    assert hold(Side.BUY, price=1, leaves=1) == 1, "a hundred-millionth of a unit is held as a whole one"


@given(RATES, st.lists(st.integers(0, 10**14), min_size=1, max_size=8))
def test_fees_of_many_fills_are_the_fee_of_one_and_never_more_than_is_received(rate: int, received: list[int]) -> None:
    so_far = taken = 0
    for part in received:
        fee = fee_of(so_far + part, rate) - fee_of(so_far, rate)
        assert 0 <= fee <= part
        so_far += part
        taken += fee
    assert taken == fee_of(so_far, rate) == ceil(Fraction(so_far * rate, BPS * 100))


@pytest.mark.parametrize(
    ("side", "best", "executes"),
    [
        (Side.BUY, 99, True),
        (Side.BUY, 100, True),
        (Side.BUY, 101, False),
        (Side.SELL, 101, True),
        (Side.SELL, 100, True),
        (Side.SELL, 99, False),
    ],
)
def test_an_order_executes_at_its_limit_or_better(side: Side, best: int, executes: bool) -> None:
    assert crosses(side, price=100, best=best) is executes


@given(fillings())
def test_the_average_price_is_the_mean_rounded_half_even(filling: Filling) -> None:
    notional = sum(price * quantity for price, quantity in filling.fills)
    order = an_order(filling.side, filling.limit, filling.quantity)
    assert order.average_price is None
    order.filled_quantity, order.filled_notional = filling.quantity, notional
    assert order.average_price == round(Fraction(notional, filling.quantity))
    prices = [price for price, _ in filling.fills]
    assert min(prices) <= round(Fraction(notional, filling.quantity)) <= max(prices)
