"""Resting orders of one instrument, indexed by price: a touch that crosses nothing costs nothing."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from core.events import Side

EMPTY_LEVELS_MAX = 64  # of a side, beyond as many as it has with orders


class RestingOrder(NamedTuple):
    order_id: str
    account_id: int
    side: Side
    price: int


class Resting:
    """Open limit orders by price, then by arrival.

    `crossed` takes those that a touch crosses out of the index: who takes them settles them, and
    puts back (`add`) those that were not settled after all.
    """

    __slots__ = ("_orders", "asks", "bids")

    def __init__(self) -> None:
        self._orders: dict[str, RestingOrder] = {}
        self.bids = Levels(-1)
        self.asks = Levels(1)

    def __len__(self) -> int:
        return len(self._orders)

    def __contains__(self, order_id: str) -> bool:
        return order_id in self._orders

    def __iter__(self) -> Iterator[str]:
        return iter(self._orders)

    def price_of(self, order_id: str) -> int | None:
        """Return the price at which an order is indexed, if it is."""
        order = self._orders.get(order_id)
        return None if order is None else order.price

    def add(self, order: RestingOrder) -> bool:
        """Index an order, or index it anew at another price; return whether that changed anything."""
        before = self._orders.get(order.order_id)
        if before == order:
            return False
        if before is not None:
            self.remove(order.order_id)
        self._orders[order.order_id] = order
        self._levels(order.side).add(order)
        return True

    def remove(self, order_id: str) -> None:
        order = self._orders.pop(order_id, None)
        if order is not None:
            self._levels(order.side).remove(order)

    def crossed(self, side: Side, *, best: int, most: int) -> list[RestingOrder]:
        """Take out, best price first, up to `most` orders of a side that execute against this opposite price."""
        taken = self._levels(side).crossed(best, most)
        return [self._orders.pop(order_id) for order_id in taken]

    def _levels(self, side: Side) -> "Levels":
        return self.bids if side is Side.BUY else self.asks


class Levels:
    """One side: the orders of each price as they arrived, and the prices, best first.

    A price that lost its last order stays until it is met or swept, so that a removal costs as
    much as an addition.
    """

    __slots__ = ("_empty", "_heap", "_levels", "_sign", "limit")

    def __init__(self, sign: int) -> None:
        self._sign = sign  # of a price in the heap: the best is the smallest
        self._heap: list[int] = []
        self._levels: dict[int, dict[str, None]] = {}
        self._empty = 0
        # What a touch must reach to execute anything; None when nothing can. Orders that left may still count.
        self.limit: int | None = None

    def add(self, order: RestingOrder) -> None:
        price = self._sign * order.price
        level = self._levels.get(price)
        if level is None:
            level = self._levels[price] = {}
            heappush(self._heap, price)
            self._look()
        elif not level:
            self._empty -= 1
        level[order.order_id] = None

    def remove(self, order: RestingOrder) -> None:
        level = self._levels[self._sign * order.price]
        del level[order.order_id]
        if not level:
            self._empty += 1
            if self._empty > len(self._levels) // 2 + EMPTY_LEVELS_MAX:
                self._levels = {price: level for price, level in self._levels.items() if level}
                self._heap = list(self._levels)
                heapify(self._heap)
                self._empty = 0
                self._look()

    def crossed(self, best: int, most: int) -> list[str]:
        taken: list[str] = []
        limit = self._sign * best
        while self._heap and self._heap[0] <= limit:
            level = self._levels[self._heap[0]]
            if not level:
                self._empty -= 1
            while level and len(taken) < most:
                order_id = next(iter(level))
                del level[order_id]
                taken.append(order_id)
            if level:
                break
            del self._levels[heappop(self._heap)]
        self._look()
        return taken

    def _look(self) -> None:
        self.limit = self._sign * self._heap[0] if self._heap else None
