"""The matcher and the slicer without their loops: what rests beside the touch, and which slices are due."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db import connection
from msgspec import structs

from core.account import Market
from core.events import Side
from core.matching import Resting, RestingOrder
from core.money import from_units, to_units
from core.orders import Order
from core.twap import Schedule
from tests.simulation.clock import Clock
from tests.simulation.screen import Screen
from trading.clock import ScheduleClock
from trading.exchange import MarketOf
from trading.ledger import ORDER_COLUMNS, Outcome, read_order, read_twaps

AT_ONCE_MAX = 50

_OPEN = f"SELECT {', '.join(ORDER_COLUMNS)} FROM trading_order WHERE status = 'open' ORDER BY number"


class Crossed(NamedTuple):
    """An order that a touch reached, and the market as it was seen."""

    order: RestingOrder
    instrument: str
    market: Market
    seen_ns: int


class Matcher:
    """A cache of the open orders: it is read from the rows at a start, follows notices, and is swept."""

    def __init__(self, screen: Screen, clock: Clock, market_of: MarketOf) -> None:
        self.resting = {instrument: Resting() for instrument in screen.instruments}
        self.crossed: list[Crossed] = []  # taken out, not settled yet
        self.schedules: dict[str, Schedule] = {}  # of parents that run, by order
        self.next_slices: dict[str, int] = {}
        self._screen = screen
        self._clock = clock
        self._market_of = market_of
        self._schedule_clock = ScheduleClock(clock.now, clock.passed_s)

    # -- what is open

    def sweep(self) -> None:
        """Make the caches what the rows say."""
        orders = read_open()
        known = {order.order_id for order in orders}
        for resting in self.resting.values():
            for order_id in [order_id for order_id in resting if order_id not in known]:
                resting.remove(order_id)
        for order_id in [order_id for order_id in self.schedules if order_id not in known]:
            del self.schedules[order_id], self.next_slices[order_id]
        self.rested(orders)

    def noticed(self, outcome: Outcome) -> None:
        self.rested(outcome.rested)
        for order in outcome.ended:
            self.resting[order.terms.instrument].remove(order.order_id)
            self.schedules.pop(order.order_id, None)
            self.next_slices.pop(order.order_id, None)

    def rested(self, orders: Iterable[Order]) -> None:
        waiting = {one.order.order_id for one in self.crossed}
        for order in orders:
            assert order.price is not None
            if order.twap is not None:
                started_at = self._schedule_clock.at(order.created_at)
                if order.order_id not in self.schedules:
                    self.schedules[order.order_id] = structs.replace(order.schedule, started_at=started_at)
                self.next_slices[order.order_id] = order.twap.next_slice
            elif order.order_id not in waiting:
                instrument = order.terms.instrument
                self.resting[instrument].add(RestingOrder(order.order_id, order.account_id, order.side, order.price))
                self._screen.touched.add(instrument)

    # -- what is to be done

    def look(self) -> None:
        """Take out what the touches reach."""
        for instrument in sorted(self._screen.touched):
            resting, touch = self.resting[instrument], self._screen.touch(instrument)
            limit = resting.bids.limit
            if limit is not None and touch.ask is not None and touch.ask.price <= from_units(limit):
                self._cross(instrument, Side.BUY, to_units(touch.ask.price))
            limit = resting.asks.limit
            if limit is not None and touch.bid is not None and touch.bid.price >= from_units(limit):
                self._cross(instrument, Side.SELL, to_units(touch.bid.price))
        self._screen.touched.clear()

    def _cross(self, instrument: str, side: Side, best: int) -> None:
        seen = self._market_of(instrument, side)
        for order in self.resting[instrument].crossed(side, best=best, most=AT_ONCE_MAX):
            self.crossed.append(Crossed(order, instrument, seen, self._clock.passed_ns))

    def due(self) -> Sequence[tuple[str, int, int]]:
        """Return the orders with slices that are due: order, first slice, end."""
        now = self._schedule_clock()
        return [
            (order_id, *schedule.window(now))
            for order_id, schedule in self.schedules.items()
            if schedule.due_at(self.next_slices[order_id]) <= now
        ]


def read_open() -> list[Order]:
    with connection.cursor() as cursor:
        cursor.execute(_OPEN)
        orders = [read_order(row) for row in cursor.fetchall()]
    read_twaps(orders)
    return orders
