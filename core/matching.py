"""Resting orders of one instrument, indexed by price: a touch that crosses nothing costs nothing."""

from heapq import heappop, heappush

from core.events import Side

Key = tuple[int, str]  # account, order


class Resting:
    """Open limit orders by price, then by arrival.

    `crossed` takes those that a touch crosses out of the index: who takes them settles them, and
    puts back (`add`) those that were not settled after all.
    """

    __slots__ = ("_asks", "_bids", "_orders")

    def __init__(self) -> None:
        self._orders: dict[str, tuple[Side, int, int, int]] = {}  # order → side, price, arrival, account
        self._bids: list[tuple[int, int, str]] = []  # heaps: best first, with entries of orders that left
        self._asks: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return len(self._orders)

    def __contains__(self, order_id: str) -> bool:
        return order_id in self._orders

    def add(self, order_id: str, *, account_id: int, side: Side, price: int, arrival: int) -> None:
        """Index an order, or index it anew at another price."""
        entry = (side, price, arrival, account_id)
        if self._orders.get(order_id) == entry:
            return
        self._orders[order_id] = entry
        if side is Side.BUY:
            heappush(self._bids, (-price, arrival, order_id))
        else:
            heappush(self._asks, (price, arrival, order_id))
        self._sweep()

    def remove(self, order_id: str) -> None:
        self._orders.pop(order_id, None)

    def crossed(self, *, bid: int | None, ask: int | None, most: int) -> list[Key]:
        """Take out, best price first, up to `most` orders that this touch executes."""
        taken: list[Key] = []
        if ask is not None:
            while self._bids and -self._bids[0][0] >= ask and len(taken) < most:
                self._take(self._bids, Side.BUY, -1, taken)
        if bid is not None:
            while self._asks and self._asks[0][0] <= bid and len(taken) < most:
                self._take(self._asks, Side.SELL, 1, taken)
        return taken

    def _take(self, heap: list[tuple[int, int, str]], side: Side, sign: int, taken: list[Key]) -> None:
        signed, arrival, order_id = heappop(heap)
        entry = self._orders.get(order_id)
        if entry is not None and entry[:3] == (side, sign * signed, arrival):
            del self._orders[order_id]
            taken.append((entry[3], order_id))

    def _sweep(self) -> None:
        """Rebuild the heaps when most of their entries are of orders that left or moved."""
        if len(self._bids) + len(self._asks) <= 2 * len(self._orders) + 64:
            return
        bids = [(-price, arrival, key) for key, (side, price, arrival, _) in self._orders.items() if side is Side.BUY]
        asks = [(price, arrival, key) for key, (side, price, arrival, _) in self._orders.items() if side is Side.SELL]
        bids.sort()
        asks.sort()
        self._bids, self._asks = bids, asks
