from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.account import (
    BALANCE_MAX,
    Account,
    AmountTooLarge,
    Balance,
    Changes,
    Fees,
    InsufficientFunds,
    Market,
    NoMarket,
    NothingToChange,
    NotOpen,
)
from core.errors import Refused
from core.events import Side
from core.money import UNITS
from core.orders import Liquidity, Order, OrderType, Status, hold
from core.twap import Twap
from tests.core.orders import NOBODY, NOW, account, market, terms

BUY, SELL = Side.BUY, Side.SELL
LIMIT, MARKET, IOC = OrderType.LIMIT, OrderType.MARKET, OrderType.IOC


def units(coins: str) -> int:
    value = Fraction(coins) * UNITS
    assert value.denominator == 1
    return int(value)


def state(of: Account) -> dict[str, tuple[int, int]]:
    return {asset: (row.total, row.held) for asset, row in of.balances.items() if row.total or row.held}


def resting(of: Account, side: Side, price: int, quantity: int, token: str = "t") -> Order:
    return of.place(terms(side, price, quantity, token=token), NOBODY, now=NOW)


def refuses(of: Account, error: type[Refused], command: Callable[[], object]) -> None:
    """The command is refused and leaves no trace."""
    balances, changes = deepcopy(state(of)), deepcopy(of.changes)
    with pytest.raises(error):
        command()
    assert state(of) == balances
    assert of.changes == changes


# -- placing


def test_a_buy_holds_its_notional_rounded_up_and_a_sell_its_quantity() -> None:
    alice = account(USDT=units("100"), BTC=units("2"))
    resting(alice, BUY, 33_333_333, 3)
    resting(alice, SELL, 1, units("1.5"))
    assert state(alice) == {"USDT": (units("100"), 1), "BTC": (units("2"), units("1.5"))}
    assert not alice.changes.entries
    assert not alice.changes.reports, "that an order rests is no execution"


@pytest.mark.parametrize("kind", [LIMIT, MARKET, IOC])
def test_an_order_that_executes_gets_the_touch_and_its_surplus_back(kind: OrderType) -> None:
    alice = account(USDT=units("110"))
    price = None if kind is MARKET else units("110")
    order = alice.place(terms(BUY, price, units("1"), kind=kind), market((units("100"), units("5"), "okx")), now=NOW)
    assert (order.status, order.venue, order.held) == (Status.FILLED, "okx", 0)
    assert state(alice) == {"USDT": (units("10"), 0), "BTC": (units("1"), 0)}
    ((_, fill),) = alice.changes.fills
    assert (fill.price, fill.liquidity, fill.number) == (units("100"), Liquidity.TAKER, 1)


def test_limit_and_market_orders_execute_whole_whatever_size_is_shown() -> None:
    alice = account(USDT=units("1000"))
    touch = market((units("100"), 1, "okx"))
    for kind in (LIMIT, MARKET):
        assert alice.place(terms(BUY, units("100"), units("2"), kind=kind), touch, now=NOW).status is Status.FILLED


def test_an_ioc_takes_the_displayed_sizes_and_releases_its_rest() -> None:
    alice = account(USDT=units("1000"))
    touch = market((units("100"), units("0.5"), "okx"), (units("100"), units("0.25"), "kraken"))
    order = alice.place(terms(BUY, units("200"), units("1"), kind=IOC), touch, now=NOW)
    assert (order.status, order.reason, order.venue) == (Status.PARTIALLY_FILLED, "ioc_rest", "multiple")
    assert state(alice) == {"USDT": (units("925"), 0), "BTC": (units("0.75"), 0)}
    assert [fill.venue for _, fill in alice.changes.fills] == ["okx", "kraken"]
    assert [fill is None for _, fill in alice.changes.reports] == [False, False, True]


def test_an_ioc_that_nothing_crosses_is_cancelled() -> None:
    alice = account(USDT=units("1000"))
    order = alice.place(terms(BUY, units("99"), units("1"), kind=IOC), market((units("100"), 1, "okx")), now=NOW)
    assert order.status is Status.CANCELLED
    assert state(alice) == {"USDT": (units("1000"), 0)}


def test_an_order_for_all_that_there_is_is_taken_and_one_unit_more_is_not() -> None:
    alice = account(USDT=units("100"))
    refuses(alice, InsufficientFunds, lambda: resting(alice, BUY, units("100"), units("1") + 1))
    resting(alice, BUY, units("100"), units("1"))
    refuses(alice, InsufficientFunds, lambda: resting(alice, BUY, 1, 1))
    refuses(alice, InsufficientFunds, lambda: resting(alice, SELL, 1, 1))


def test_without_a_live_venue_only_a_limit_order_is_taken() -> None:
    alice = account(USDT=units("100"))
    for kind in (MARKET, IOC):
        wanted = terms(BUY, None if kind is MARKET else 1, 1, kind=kind)
        refuses(alice, NoMarket, lambda wanted=wanted: alice.place(wanted, NOBODY, now=NOW))
    assert resting(alice, BUY, 1, 1).is_open


def test_what_exceeds_every_balance_is_refused() -> None:
    alice = account(USDT=BALANCE_MAX, BTC=BALANCE_MAX)
    refuses(alice, AmountTooLarge, lambda: alice.deposit("USDT", 1))
    refuses(alice, AmountTooLarge, lambda: resting(alice, SELL, 1, BALANCE_MAX + 1))
    refuses(alice, AmountTooLarge, lambda: resting(alice, BUY, units("2"), BALANCE_MAX // 2 + 1))
    touch = market((units("1"), BALANCE_MAX, "okx"))
    for side in Side:
        refuses(alice, AmountTooLarge, lambda side=side: alice.place(terms(side, units("1"), 1), touch, now=NOW))


def test_a_resting_order_whose_proceeds_no_balance_can_take_is_cancelled() -> None:
    alice = account(BTC=units("1"), USDT=BALANCE_MAX)
    order = resting(alice, SELL, units("1"), units("1"))
    assert alice.fill_resting(order, market((units("1"), 1, "okx")), now=NOW)
    assert (order.status, order.reason) == (Status.CANCELLED, "amount_too_large")
    assert state(alice) == {"BTC": (units("1"), 0), "USDT": (BALANCE_MAX, 0)}
    assert alice.changes.reports == [(order, None)]


# -- amending and cancelling


def test_amending_holds_what_the_new_terms_may_cost() -> None:
    alice = account(USDT=units("100"))
    order = resting(alice, BUY, units("50"), units("1"))
    alice.amend(order, price=units("20"), quantity=units("5"), market=NOBODY, now=NOW)
    assert state(alice) == {"USDT": (units("100"), units("100"))}
    for price, quantity, error in (
        (units("20") + 1, None, InsufficientFunds),
        (None, units("5") + 1, InsufficientFunds),
        (None, units("5"), NothingToChange),
        (None, None, NothingToChange),
        (BALANCE_MAX, units("5"), AmountTooLarge),
    ):
        refuses(alice, error, partial(alice.amend, order, price=price, quantity=quantity, market=NOBODY, now=NOW))
    assert (order.price, order.quantity, order.version) == (units("20"), units("5"), 2)
    alice.amend(order, price=units("1"), quantity=None, market=NOBODY, now=NOW)
    assert state(alice) == {"USDT": (units("100"), units("5"))}


def test_an_amended_order_that_crosses_executes_at_once_at_the_touch() -> None:
    alice = account(USDT=units("100"))
    order = resting(alice, BUY, units("50"), units("1"))
    touch = market((units("60"), 1, "kraken"))
    alice.amend(order, price=units("70"), quantity=None, market=touch, now=NOW)
    assert order.status is Status.FILLED
    assert state(alice) == {"USDT": (units("40"), 0), "BTC": (units("1"), 0)}
    assert [(fill.liquidity, fill.rule) for _, fill in alice.changes.fills] == [
        (Liquidity.TAKER, "amended_and_crossed")
    ]


def test_an_order_ends_once() -> None:
    alice = account(USDT=units("100"))
    order = resting(alice, BUY, units("50"), units("1"))
    alice.cancel(order, now=NOW)
    assert (order.status, state(alice)) == (Status.CANCELLED, {"USDT": (units("100"), 0)})
    refuses(alice, NotOpen, lambda: alice.cancel(order, now=NOW))
    refuses(alice, NotOpen, lambda: alice.amend(order, price=1, quantity=None, market=NOBODY, now=NOW))
    assert not alice.fill_resting(order, market((1, 1, "okx")), now=NOW)
    assert state(alice) == {"USDT": (units("100"), 0)}


def test_a_resting_order_is_left_alone_until_a_touch_reaches_it() -> None:
    alice = account(USDT=units("100"))
    order = resting(alice, BUY, units("50"), units("1"))
    for nothing in (NOBODY, market((units("50") + 1, 1, "okx"))):
        assert not alice.fill_resting(order, nothing, now=NOW)
    assert alice.fill_resting(order, market((units("50"), 1, "okx")), now=NOW)
    assert [fill.liquidity for _, fill in alice.changes.fills] == [Liquidity.MAKER]


# -- in parts

PARTS = st.lists(st.integers(1, 10**9), min_size=1, max_size=6)
RATES = st.sampled_from((0, 1, 333, 2_500, 100_000))


@given(st.sampled_from(Side), st.integers(1, 10**10), PARTS, st.data(), RATES, RATES)
def test_an_order_filled_in_parts_never_costs_more_than_it_held_whatever_the_fees_become(
    side: Side, price: int, parts: list[int], data: st.DataObject, first_rate: int, later_rate: int
) -> None:
    """All-in, with the fee rate changed after the first part: nothing may go below zero."""
    quantity = sum(parts)
    needed = hold(side, price=price, leaves=quantity)
    paid_with, received = ("USDT", "BTC") if side is BUY else ("BTC", "USDT")
    alice = account(fees=Fees(), **{paid_with: needed})
    order = resting(alice, side, price, quantity)
    for number, part in enumerate(parts):
        best = price if data.draw(st.booleans()) else (max(1, price - 7) if side is BUY else price + 7)
        alice = _with_fees(alice, first_rate if number == 0 else later_rate)
        before = alice.balance(received).total
        _fill_a_part(alice, order, market((best, part, "okx")), part)
        assert before <= alice.balance(received).total, "a fee took more than its fill brought"
        for row in alice.balances.values():
            assert 0 <= row.held <= row.total
    assert order.status is Status.FILLED
    assert alice.balance(paid_with).held == 0
    assert order.fee == sum(fill.fee for _, fill in alice.changes.fills)


def _with_fees(of: Account, rate: int) -> Account:
    """The same account in a process with other fees."""
    other = account(fees=Fees(rate, rate))
    other.balances, other.changes = of.balances, of.changes
    return other


def _fill_a_part(of: Account, order: Order, shown: Market, quantity: int) -> None:
    assert order.price is not None
    of._fill(order, shown.offers[0], quantity, order.price, Liquidity.MAKER, shown, NOW, rule="part")


# -- parent orders


def parent(of: Account, side: Side, limit: int, quantity: int, slices: int, duration_s: int = 10) -> Order:
    wanted = terms(side, limit, quantity, kind=OrderType.TWAP)
    return of.place_twap(wanted, Twap("all", duration_s, slices), limit=limit, now=NOW)


def test_a_parent_holds_like_a_resting_order_and_is_named_by_its_id_when_it_has_no_name() -> None:
    alice = account(USDT=units("100"))
    wanted = terms(BUY, None, units("1"), kind=OrderType.TWAP, token="")
    order = alice.place_twap(wanted, Twap("all", 10, 4), limit=units("60"), now=NOW)
    assert state(alice) == {"USDT": (units("100"), units("60"))}
    assert order.terms.token_id == order.order_id
    assert alice.changes.reports == []
    for limit, quantity, error in ((units("41"), units("1"), InsufficientFunds), (1, BALANCE_MAX + 1, AmountTooLarge)):
        refuses(alice, error, partial(parent, alice, BUY, limit, quantity, 1))


def test_slices_take_levels_best_first_up_to_the_limit_and_the_rest_ends_with_the_last() -> None:
    alice = account(USDT=units("100"))
    order = parent(alice, BUY, units("12"), units("4"), 2)
    book = market(
        (units("10"), units("0.5"), "okx"), (units("12"), units("0.25"), "kraken"), (units("13"), 10**10, "okx")
    )
    assert alice.run_slices(order, 0, 1, book, now=NOW)
    assert [(fill.price, fill.quantity, fill.venue, fill.slice) for _, fill in alice.changes.fills] == [
        (units("10"), units("0.5"), "okx", 0), (units("12"), units("0.25"), "kraken", 0),
    ]  # fmt: skip
    assert alice.run_slices(order, 1, 2, market((units("12") + 1, 10**10, "okx")), now=NOW)
    assert (order.status, order.reason, order.held) == (Status.PARTIALLY_FILLED, "twap_rest", 0)
    assert state(alice) == {"USDT": (units("92"), 0), "BTC": (units("0.75"), 0)}
    assert [fill is None for _, fill in alice.changes.reports] == [False, False, True]


def test_a_slice_that_gets_nothing_is_told_and_one_that_wants_nothing_is_not() -> None:
    alice = account(USDT=units("100"))
    order = parent(alice, BUY, 1, 1, 3)  # two of its slices are of nothing
    for number in range(3):
        assert alice.run_slices(order, number, number + 1, NOBODY, now=NOW)
    assert alice.changes.reports == [(order, None)], "its end"
    other = parent(alice, BUY, 1, 3, 3)
    assert alice.run_slices(other, 0, 1, NOBODY, now=NOW)
    assert alice.changes.reports == [(order, None), (other, None)]


def test_slices_that_do_not_exist_are_not_counted() -> None:
    alice = account(USDT=units("100"))
    order = parent(alice, BUY, units("1"), units("3"), 3)
    assert alice.run_slices(order, 7, 9, market((units("1"), units("9"), "okx")), now=NOW)
    assert order.twap is not None
    assert (order.twap.next_slice, order.twap.missed, order.reason) == (3, 3, "twap_rest")


def test_proceeds_that_no_balance_can_take_end_a_parent_to_the_unit() -> None:
    """Two sells of 0.9 and 0.8 units' worth bring 1 together, and each by itself nothing."""
    alice = account(BTC=2, USDT=BALANCE_MAX)
    order = parent(alice, SELL, units("0.8"), 2, 2)
    assert alice.run_slices(order, 0, 1, market((units("0.9"), 1, "okx")), now=NOW)
    assert (order.filled_quantity, alice.balance("USDT").total) == (1, BALANCE_MAX)
    assert alice.run_slices(order, 1, 2, market((units("0.8"), 1, "okx")), now=NOW)
    assert (order.status, order.reason) == (Status.PARTIALLY_FILLED, "amount_too_large")
    assert state(alice) == {"BTC": (1, 0), "USDT": (BALANCE_MAX, 0)}


LEVELS = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 40), st.sampled_from(("okx", "kraken"))), max_size=5)
OFTEN = st.sampled_from((0, 333, 100_000))


@given(
    side=st.sampled_from(Side), limit=st.integers(4, 3 * UNITS), quantity=st.integers(1, 60),
    slices=st.integers(1, 12), rate=OFTEN, data=st.data(),
)  # fmt: skip
def test_slices_never_cost_more_than_is_held_nor_pass_the_limit_nor_run_twice(
    side: Side, limit: int, quantity: int, slices: int, rate: int, data: st.DataObject
) -> None:
    paid_with = "USDT" if side is BUY else "BTC"
    alice = account(fees=Fees(rate, rate), **{paid_with: hold(side, price=limit, leaves=quantity)})
    order = parent(alice, side, limit, quantity, slices)
    twap = order.twap
    assert twap is not None
    runs = 0
    while order.is_open:
        runs += 1
        assert runs <= slices, "it has to end with its last slice"
        end = data.draw(st.integers(twap.next_slice + 1, slices), label="end")
        first = data.draw(st.integers(0, end), label="first")
        offers = sorted({(limit + step, venue): size for step, size, venue in data.draw(LEVELS, label="shown")}.items())
        levels = [(price, size, venue) for (price, venue), size in (offers if side is BUY else reversed(offers))]
        before, target = order.filled_quantity, quantity * end // slices
        assert alice.run_slices(order, first, end, market(*levels), now=NOW)
        made = [fill for _, fill in alice.changes.fills if fill.slice == end - 1]
        took = {(fill.price, fill.venue): fill.quantity for fill in made}
        assert len(took) == len(made), "a level is taken once"
        for price, size, venue in levels:
            assert took.pop((price, venue), 0) <= size
        assert not took, "nobody showed that"
        assert all(fill.price <= limit if side is BUY else fill.price >= limit for fill in made)
        assert order.filled_quantity == before + sum(fill.quantity for fill in made) <= target
        assert all(0 <= row.held <= row.total for row in alice.balances.values())
        left = hold(side, price=limit, leaves=order.leaves, filled_notional=order.filled_notional)
        assert alice.balance(paid_with).held == order.held == (left if order.is_open else 0)
        assert (twap.next_slice, order.is_open) == (end, end < slices and order.leaves > 0)
        balances, changes = deepcopy(state(alice)), deepcopy(alice.changes)
        for again in {0, end - 1, end}:
            assert not alice.run_slices(order, again, end, market(*levels), now=NOW), "a slice ran twice"
        assert (state(alice), alice.changes) == (balances, changes)
    assert order.status is (
        Status.FILLED if not order.leaves else Status.PARTIALLY_FILLED if order.filled_quantity else Status.CANCELLED
    )
    numbers = [fill.slice for _, fill in alice.changes.fills if fill.slice is not None]
    assert numbers == sorted(numbers)
    assert twap.missed <= twap.next_slice <= slices


@given(
    side=st.sampled_from(Side), quantity=st.integers(1, 10**12), slices=st.integers(1, 50), price=st.integers(1, 10**9)
)
def test_with_enough_to_take_each_slice_does_its_own_share_and_the_order_is_filled(
    side: Side, quantity: int, slices: int, price: int
) -> None:
    alice = account(**{"USDT" if side is BUY else "BTC": hold(side, price=price, leaves=quantity)})
    order = parent(alice, side, price, quantity, slices)
    shares = [order.schedule.slice_quantity(number) for number in range(slices)]
    for number in range(slices):
        alice.run_slices(order, number, number + 1, market((price, 10**13, "okx")), now=NOW)
    made = {fill.slice: fill.quantity for _, fill in alice.changes.fills}
    assert [made.get(number, 0) for number in range(slices)] == shares
    assert order.status is Status.FILLED


def test_nothing_is_written_by_looking() -> None:
    alice = account(USDT=1)
    assert alice.balance("ETH") == Balance()
    assert alice.changes == Changes()
