from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.events import Side
from core.matching import EMPTY_LEVELS_MAX, Resting, RestingOrder
from core.orders import crosses

PRICES = st.integers(1, 12)
SIDES = st.sampled_from(Side)


def order(number: int, side: Side = Side.BUY, price: int = 10) -> RestingOrder:
    return RestingOrder(f"o-{number}", 7, side, price)


class RestingAgainstAList(RuleBasedStateMachine):
    """The index beside a plain list that is scanned: they always take out the same orders, in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.resting = Resting()
        self.orders: list[RestingOrder] = []
        self.made = 0

    @rule(side=SIDES, price=PRICES)
    def add(self, side: Side, price: int) -> None:
        self.made += 1
        made = order(self.made, side, price)
        assert self.resting.add(made)
        self.orders.append(made)

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), price=PRICES)
    def amend(self, data: st.DataObject, price: int) -> None:
        before = data.draw(st.sampled_from(self.orders))
        after = before._replace(price=price)
        assert self.resting.add(after) is (price != before.price)
        if price != before.price:
            self.orders.remove(before)
            self.orders.append(after)

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.orders))
        self.resting.remove(gone.order_id)
        self.resting.remove(gone.order_id)
        self.orders.remove(gone)

    @rule(side=SIDES, best=PRICES, most=st.integers(0, 4))
    def cross(self, side: Side, best: int, most: int) -> None:
        executing = [one for one in self.orders if one.side is side and crosses(side, price=one.price, best=best)]
        executing.sort(key=lambda one: -one.price if side is Side.BUY else one.price)  # stable: then by arrival
        assert self.resting.crossed(side, best=best, most=most) == executing[:most]
        for one in executing[:most]:
            self.orders.remove(one)

    @invariant()
    def it_holds_the_same_orders(self) -> None:
        assert len(self.resting) == len(self.orders)
        assert sorted(self.resting) == sorted(one.order_id for one in self.orders)
        assert all(one.order_id in self.resting for one in self.orders)
        assert all(self.resting.price_of(one.order_id) == one.price for one in self.orders)
        assert self.resting.price_of("nobody's") is None

    @invariant()
    def a_touch_within_the_limits_crosses_nothing(self) -> None:
        for side, limit in ((Side.BUY, self.resting.bids.limit), (Side.SELL, self.resting.asks.limit)):
            prices = [one.price for one in self.orders if one.side is side]
            if limit is None:
                assert not prices
            else:
                assert not any(price > limit if side is Side.BUY else price < limit for price in prices)


TestRestingAgainstAList = RestingAgainstAList.TestCase


@given(prices=st.lists(st.integers(1, 10**19), unique=True, max_size=400))
def test_prices_that_came_and_went_are_forgotten(prices: list[int]) -> None:
    resting = Resting()
    for number, price in enumerate(prices):
        resting.add(order(number, price=price))
    for number in range(len(prices)):
        resting.remove(f"o-{number}")
    assert len(resting) == 0
    assert len(resting.bids._heap) <= 2 * EMPTY_LEVELS_MAX + 2
    assert not resting.crossed(Side.BUY, best=1, most=10)


def test_one_order_amended_for_ever_keeps_the_index_small() -> None:
    resting = Resting()
    for price in range(1, 50_000):
        resting.add(order(1, price=price))
    assert len(resting.bids._heap) <= 2 * EMPTY_LEVELS_MAX + 2
    assert resting.crossed(Side.BUY, best=49_999, most=10) == [order(1, price=49_999)]


def test_a_touch_that_crosses_nothing_looks_at_one_price() -> None:
    class Counted(int):
        compared = 0

        def __le__(self, other: int) -> bool:
            Counted.compared += 1
            return int(self) <= int(other)

    resting = Resting()
    for number in range(10_000):
        resting.add(order(number, price=number + 1))
    resting.bids._heap = [Counted(price) for price in resting.bids._heap]
    assert resting.crossed(Side.BUY, best=10_001, most=100) == []
    assert Counted.compared == 1
