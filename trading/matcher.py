"""The role "matcher": settles resting orders at the touch that crosses them.

The index of resting orders is a cache of the database, the touch comes from this process's
hub, and every fill is a command to its exchange, which checks everything again: an order that
was cancelled, or filled by somebody else, stays as it is. Notices of new and ended orders only
save time; a sweep of the database finds what they missed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import structlog
from channels.layers import BaseChannelLayer, get_channel_layer
from django.db import close_old_connections, connection, connections

from core.account import Market
from core.errors import DomainError, Unavailable
from core.events import Side
from core.matching import Resting, RestingOrder
from core.money import from_units, to_units
from core.touch import Best
from marketdata.hub import Hub
from marketdata.services import current_hub
from trading import metrics, publish, services
from trading.audit import auditor
from trading.clock import VISIBLE, ScheduleClock
from trading.commands import FillResting
from trading.exchange import Exchange
from trading.leadership import Leadership
from trading.market import market
from trading.slicer import Slicer

T = TypeVar("T")

log = structlog.get_logger(__name__)

OUTSTANDING_MAX = 500  # fills that wait for their commit: others' commands pass between them
CROSSED_AT_ONCE_MAX = 2_000  # orders taken out of the index without letting others run
PAGE = 2_000  # rows of open orders read at once
SWEEP_S = 1.0
COMPARE_S = 60.0
RETRY_S = 0.1  # after a refusal by the database, doubling
RETRY_MAX_S = 2.0
DOUBTS_PAUSE_S = 0.05  # between two looks at orders that did not execute

_COLUMNS = "number, id, account_id, instrument, side, price"
_OPEN = f"SELECT {_COLUMNS} FROM trading_order WHERE status = 'open' AND order_type = 'limit'"  # noqa: S608 - our own words

Row = tuple[int, str, int, str, str, int]


class _Settling(NamedTuple):
    """An order that is being filled; `order` is what to index should it not be, None when it ended meanwhile."""

    instrument: str
    order: RestingOrder | None


class Matcher:
    """Resting orders beside the touch. Lives in one event loop; the database is read in a thread of its own."""

    def __init__(
        self,
        hub: Hub,
        exchange: Exchange,
        layer: BaseChannelLayer,
        share: tuple[int, int] = (1, 1),
        *,
        now: ScheduleClock | None = None,
    ) -> None:
        self.loaded = asyncio.Event()  # set once all open orders were read
        self._hub = hub
        self._exchange = exchange
        self._layer = layer
        self._loop = asyncio.get_running_loop()
        self._resting = {instrument: Resting() for instrument in hub.instruments}
        self.leadership = Leadership(self._resting, self._leadership_changed, share)
        self._waiting: deque[FillResting] = deque()  # crossed, not submitted yet
        self._settling: dict[str, _Settling] = {}
        self._outstanding = 0
        self._retry_s = 0.0  # not 0: paused
        self._doubtful: set[str] = set()  # orders that did not execute: what became of them?
        self._doubts = asyncio.Event()
        self._now = now or ScheduleClock()
        self._read_at = self._now()  # what was stamped before, and could be read then, was read
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="matcher-reader")

    def __len__(self) -> int:
        return sum(map(len, self._resting.values()))

    async def run(self) -> None:
        """Settle until cancelled."""
        self._hub.touch_listeners.append(self._touched)
        self.leadership.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._notices_loop())
                tasks.create_task(self._database_loop())
                first = next(iter(self._resting))  # whose leader is the one that audits
                tasks.create_task(auditor().run(lambda: first in self.leadership.held))
        finally:
            self._hub.touch_listeners.remove(self._touched)
            await asyncio.to_thread(self.leadership.stop)
            await self._in_thread(connections.close_all)
            self._reader.shutdown(wait=False)

    # -- touches

    def _touched(self, instrument: str) -> None:
        try:
            self.check(instrument)
        except Exception:
            log.exception("a touch could not be matched", instrument=instrument)

    def check(self, instrument: str) -> None:
        """Settle what the present touch crosses, if this matcher leads the instrument."""
        # This runs at every change of every touch: two comparisons, nothing more, unless something is crossed.
        resting, touch = self._resting[instrument], self._hub.touch(instrument)
        limit = resting.bids.limit
        if limit is not None and touch.ask is not None and touch.ask.price <= _coins(limit):
            self._reached(instrument, Side.BUY, touch.ask)
        limit = resting.asks.limit
        if limit is not None and touch.bid is not None and touch.bid.price >= _coins(limit):
            self._reached(instrument, Side.SELL, touch.bid)

    def _reached(self, instrument: str, side: Side, best: Best) -> None:
        price = _units(best)
        if price is not None:
            # An old market that comes after this process stood still is looked at again when the order is filled.
            now_ns = time.monotonic_ns()  # before the question: it may stand still between the two
            self._cross(instrument, side, price, None, now_ns if self._hub.is_current() else 0)

    def _cross(self, instrument: str, side: Side, best: int, seen: Market | None, seen_ns: int) -> None:
        """Take out the orders that this price crosses; all of them execute in the market as it was seen."""
        if self._retry_s or instrument not in self.leadership.held:
            return  # they stay: after the pause, and with every new leader, all are looked at
        orders = self._resting[instrument].crossed(side, best=best, most=CROSSED_AT_ONCE_MAX)
        if not orders:
            return
        seen = seen or market(self._hub.board(instrument), side, now_ns=time.time_ns())
        for order in orders:
            self._settling[order.order_id] = _Settling(instrument, order)
            self._waiting.append(FillResting(order.account_id, order.order_id, seen, seen_ns))
        if len(orders) == CROSSED_AT_ONCE_MAX:
            self._loop.call_soon(self._cross, instrument, side, best, seen, seen_ns)
        self._submit()

    # -- settling

    def _submit(self) -> None:
        while self._waiting and self._outstanding < OUTSTANDING_MAX and not self._retry_s:
            fill = self._waiting.popleft()
            try:
                future = self._exchange.submit(fill)
            except Unavailable as error:
                self._postpone(fill, error)
                return
            self._outstanding += 1
            future.add_done_callback(partial(self._written, fill))

    def _written(self, fill: FillResting, future: "Future[Any]") -> None:
        """In the writer's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settled, fill, future)

    def _settled(self, fill: FillResting, future: "Future[Any]") -> None:
        self._outstanding -= 1
        error = future.exception()
        if isinstance(error, Unavailable):
            self._postpone(fill, error)
            return
        del self._settling[fill.order_id]
        if error is not None:
            # It would be refused again (its user is disabled, say): the next comparison tries anew.
            report = log.warning if isinstance(error, DomainError) else log.error
            report("a crossed order was refused", order_id=fill.order_id, error=str(error))
        elif future.result():
            if fill.seen_ns:
                metrics.SETTLE_SECONDS.observe((time.monotonic_ns() - fill.seen_ns) / 1e9)
        else:
            self._doubtful.add(fill.order_id)
            self._doubts.set()
        self._submit()

    def _postpone(self, fill: FillResting, error: Unavailable) -> None:
        """Put this order and all that wait back; look at them again after a pause."""
        self._put_back([fill, *self._waiting])
        self._waiting.clear()
        if not self._retry_s:
            self._pause(RETRY_S)
            log.warning("orders cannot be settled now; they are tried again", error=str(error))

    def _put_back(self, fills: Iterable[FillResting]) -> None:
        for fill in fills:
            settling = self._settling.pop(fill.order_id)
            if settling.order is not None:
                self._resting[settling.instrument].add(settling.order)

    def _pause(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._loop.call_later(retry_s, self._resume, retry_s)

    def _resume(self, paused_s: float) -> None:
        self._retry_s = 0.0
        self._check(self._resting)
        if self._retry_s:  # refused at once
            self._retry_s = min(2 * paused_s, RETRY_MAX_S)

    # -- what rests

    def _check(self, instruments: Iterable[str]) -> None:
        for instrument in instruments:
            self._touched(instrument)

    def _rest(self, instrument: str, order: RestingOrder) -> bool:
        """Index an order; return whether that was news."""
        resting = self._resting.get(instrument)
        if resting is None:
            return False  # not served any more: it rests until it is again, or is cancelled
        if order.order_id in self._settling:
            self._settling[order.order_id] = _Settling(instrument, order)
            return False
        return resting.add(order)

    def _forget(self, instrument: str, order_id: str) -> None:
        if order_id in self._settling:
            self._settling[order_id] = _Settling(instrument, None)
        elif instrument in self._resting:
            self._resting[instrument].remove(order_id)

    async def _notices_loop(self) -> None:
        while True:
            try:
                channel = await self._layer.new_channel()
                await self._layer.group_add(publish.ORDERS_GROUP, channel)
            except Exception:
                log.exception("listening to notices of orders failed")
                await asyncio.sleep(RETRY_S)
                continue
            while True:
                await self._receive(channel)

    async def _receive(self, channel: str) -> None:
        """Take one message. One that cannot be read is left out: a new channel would fill the old one for ever."""
        try:
            self._take_notices(publish.read_notices(await self._layer.receive(channel)))
        except Exception:
            log.exception("receiving notices of orders failed")
            await asyncio.sleep(RETRY_S)

    def _take_notices(self, notices: Iterable[publish.Notice]) -> None:
        news: set[str] = set()
        for notice in notices:
            if notice.price is None:
                self._forget(notice.instrument, notice.order_id)
            elif self._rest(
                notice.instrument, RestingOrder(notice.order_id, notice.account_id, notice.side, notice.price)
            ):
                news.add(notice.instrument)
        self._check(news)

    def _leadership_changed(self) -> None:
        """In the leadership's thread."""
        for instrument in self._resting:
            metrics.LEADER.labels(instrument).set(instrument in self.leadership.held)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._led)

    def _led(self) -> None:
        """Leave what waits to those who lead it now; look at what is led anew."""
        held = self.leadership.held
        waiting, self._waiting = self._waiting, deque()
        for fill in waiting:
            if self._settling[fill.order_id].instrument in held:
                self._waiting.append(fill)
            else:
                self._put_back([fill])
        self._check(self._resting)

    # -- the database

    async def _database_loop(self) -> None:
        compared_s = -COMPARE_S
        swept_s = 0.0
        while True:
            try:
                if self._doubtful:
                    await self._look_at_doubts()
                if time.monotonic() - compared_s >= COMPARE_S:
                    began_s = time.monotonic()
                    await self._compare()
                    compared_s = began_s
                elif time.monotonic() - swept_s >= SWEEP_S:
                    swept_s = time.monotonic()
                    await self._sweep()
                metrics.ORDERS_OPEN.set(len(self) + len(self._settling))
            except Exception:
                log.exception("the open orders could not be read; trying again")
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(DOUBTS_PAUSE_S)
            await self._until_doubts(swept_s + SWEEP_S - time.monotonic())

    async def _until_doubts(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._doubts.wait()
        except TimeoutError:
            return
        self._doubts.clear()

    async def _look_at_doubts(self) -> None:
        """Index those again that are still open: the market, or their price, was another one when it was their turn."""
        doubtful = list(self._doubtful)
        for start in range(0, len(doubtful), OUTSTANDING_MAX):
            ids = doubtful[start : start + OUTSTANDING_MAX]
            marks = ", ".join(["%s"] * len(ids))
            rows = await self._in_thread(_rows, f"{_OPEN} AND id IN ({marks})", ids)
            self._doubtful.difference_update(ids)
            self._take_rows(rows)

    async def _compare(self) -> None:
        """Make the index what the database says, page by page."""
        began_s, began_at, last = time.monotonic(), self._now(), 0
        before = {order_id for resting in self._resting.values() for order_id in resting}
        while True:
            rows = await self._in_thread(_rows, f"{_OPEN} AND number > %s ORDER BY number LIMIT {PAGE}", [last])
            missed = self._take_rows(rows)
            if self.loaded.is_set() and missed:
                log.warning("open orders were missing in the matcher's index", orders=missed)
            before.difference_update(row[1] for row in rows)
            if len(rows) < PAGE:
                break
            last = rows[-1][0]
        for resting in self._resting.values():
            for order_id in before:  # ended, and nobody said so
                resting.remove(order_id)
        self._read_at = began_at
        if not self.loaded.is_set():
            self.loaded.set()
            log.info("the matcher knows the open orders", orders=len(self), seconds=time.monotonic() - began_s)

    async def _sweep(self) -> None:
        """Find new and amended orders whose notices were lost, since the last look that came to its end."""
        began_at = self._now()
        moment = connection.ops.adapt_datetimefield_value(self._now.earliest(self._read_at - VISIBLE))
        self._take_rows(await self._in_thread(_rows, f"{_OPEN} AND updated_at > %s", [moment]))
        self._read_at = began_at

    def _take_rows(self, rows: Iterable[Row]) -> int:
        """Index what is news; return how many were."""
        news: set[str] = set()
        count = 0
        for _, order_id, account_id, instrument, side, price in rows:
            resting = self._resting.get(instrument)
            if resting is not None and resting.price_of(order_id) == price:
                continue  # nearly all of them, and a busy second has thousands
            if self._rest(instrument, RestingOrder(order_id, account_id, Side(side), price)):
                news.add(instrument)
                count += 1
        self._check(news)
        return count

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        def run() -> T:
            close_old_connections()
            return call(*args)

        return await self._loop.run_in_executor(self._reader, run)


async def run_matcher(loaded: asyncio.Event | None = None, share: tuple[int, int] = (1, 1)) -> None:
    """Settle resting orders, and run the slices of TWAP orders, until cancelled; set `loaded` once they are known.

    `share`: as in `Leadership`.
    """
    hub, exchange, layer = await current_hub(), services.current_exchange(), get_channel_layer()
    matcher = Matcher(hub, exchange, layer, share)
    matcher.loaded = loaded or matcher.loaded
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(matcher.run())
        tasks.create_task(Slicer(hub, exchange, layer, matcher.leadership).run())


_coins = lru_cache(maxsize=10_000)(from_units)


def _units(best: Best) -> int | None:
    """Return a best price in units; None for one that money cannot express."""
    try:
        return to_units(best.price)
    except ValueError:
        return None


def _rows(sql: str, values: Sequence[Any]) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
