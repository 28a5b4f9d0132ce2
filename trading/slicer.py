"""Runs the slices of TWAP orders when they are due: a part of the role "matcher", under its leadership.

The schedules are a cache of the database, and every slice is a command to the exchange, which
knows which slices are past: running one twice does nothing. After a restart the schedules go on
where they should be by now (`core/twap.py` says what becomes of slices that were missed).
"""

import asyncio
import time
from collections.abc import Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Any

import structlog
from channels.layers import BaseChannelLayer
from django.db import close_old_connections, connection, connections
from msgspec import Struct, structs

from core.errors import DomainError, Unavailable
from core.orders import Order
from core.twap import Schedule
from marketdata.hub import Hub
from trading import metrics, publish
from trading.clock import VISIBLE, ScheduleClock
from trading.commands import RunSlices
from trading.exchange import Done, Exchange
from trading.leadership import Leadership
from trading.ledger import ORDER_COLUMNS, read_order, read_twaps
from trading.market import middle
from trading.services import written

log = structlog.get_logger(__name__)

AT_ONCE_MAX = 500  # slices that wait for their commit: others' commands pass between them
PAGE = 2_000  # rows of open orders read at once
SAMPLE_S = 0.1  # between two looks at the market, for its mean
OBSERVE_S = 60.0  # the mean is stored so often between slices that are further apart
AHEAD_S = 10.0  # the books that a slice needs are asked for so long before it is due
KEEP_S = 2.0
SWEEP_S = 1.0
COMPARE_S = 60.0
RETRY_S = 0.1
TOGETHER = timedelta(milliseconds=10)  # slices of an order that are due within it are run as one
LED_POLL_S = 0.2
MARKET_S = 3.0  # that slices wait, after a start, for the venues: what is due would find nothing

_OPEN = (
    f"SELECT number, {', '.join(ORDER_COLUMNS)} FROM trading_order"  # noqa: S608 - our own words
    " WHERE status = 'open' AND order_type = 'twap'"
)


class _Mean:
    """The middle of a market over the time in which there was one: a sum of price × µs, and the µs."""

    def __init__(self) -> None:
        self.sum = self.us = 0
        self._looked_s = time.monotonic()

    def look(self, price: int | None) -> None:
        now_s = time.monotonic()
        us = min(round((now_s - self._looked_s) * 1e6), round(SWEEP_S * 1e6))  # a process that stood still saw nothing
        self._looked_s = now_s
        if price is not None:
            self.sum += price * us
            self.us += us


class _Parent(Struct, eq=False):
    """A running order: its schedule, how far it is, and where the market's mean began for it."""

    order_id: str
    account_id: int
    instrument: str
    venue: str
    schedule: Schedule
    next_slice: int
    mean: _Mean
    sum_before: int  # of the stored mean, less what the shared one had by then
    us_before: int
    stored_s: float
    busy: bool = False
    queued: bool = False  # it is among those that wait for their time

    @property
    def due_at(self) -> datetime:
        return self.schedule.due_at(self.next_slice)


class Slicer:
    """The running TWAP orders of the instruments that this process leads. Lives in one event loop."""

    def __init__(
        self,
        hub: Hub,
        exchange: Exchange,
        layer: BaseChannelLayer,
        leadership: Leadership,
        *,
        now: ScheduleClock | None = None,
    ) -> None:
        self._hub = hub
        self._exchange = exchange
        self._layer = layer
        self._leadership = leadership
        self._now = now or ScheduleClock()
        self._read_at = self._now()  # what was stamped before, and could be read then, was read
        self._parents: dict[str, _Parent] = {}
        self._due: list[tuple[datetime, str]] = []
        self._means: dict[tuple[str, str], _Mean] = {}
        self._woken = asyncio.Event()  # the clock has something new to wait for
        self._told = asyncio.Event()  # somebody placed an order
        self._running: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="slicer-reader")

    def __len__(self) -> int:
        return len(self._parents)

    async def run(self) -> None:
        """Run slices until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._notices_loop())
                tasks.create_task(self._database_loop())
                tasks.create_task(self._clock_loop())
        finally:
            for task in self._running:
                task.cancel()
            await self._in_thread(connections.close_all)
            self._reader.shutdown(wait=False)

    # -- the clock

    async def _clock_loop(self) -> None:
        await self._until_the_market_is_here()
        kept_s = 0.0
        while True:
            try:
                self._look()
                if time.monotonic() - kept_s >= KEEP_S:
                    kept_s = time.monotonic()
                    self._keep_books()
                    self._observe()
                self._start_due()
            except Exception:
                log.exception("the clock of the TWAP orders failed")
                await asyncio.sleep(RETRY_S)
            await self._until_due()

    async def _until_the_market_is_here(self) -> None:
        until_s = time.monotonic() + MARKET_S
        while time.monotonic() < until_s and not all(map(self._hub.is_live, self._hub.venues)):  # noqa: ASYNC110
            await asyncio.sleep(RETRY_S)

    async def _until_due(self) -> None:
        """Wait for the next slice, or the next look at the market; for ever while nothing runs."""
        timeout_s = None
        if self._parents:
            timeout_s = SAMPLE_S
            if self._due:
                timeout_s = min(SAMPLE_S, max((self._due[0][0] - self._now()).total_seconds(), 0))
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def _look(self) -> None:
        for (instrument, venue), mean in self._means.items():
            mean.look(middle(self._hub, instrument, venue))

    def _keep_books(self) -> None:
        """Have the books at hand when slices are due, and forget the means that nobody needs."""
        soon = self._now() + timedelta(seconds=AHEAD_S)
        for instrument in {parent.instrument for parent in self._parents.values() if parent.due_at <= soon}:
            self._hub.keep(instrument)
        wanted = {(parent.instrument, parent.venue) for parent in self._parents.values()}
        self._means = {key: mean for key, mean in self._means.items() if key in wanted}

    def _observe(self) -> None:
        stale_s = time.monotonic() - OBSERVE_S
        for parent in self._parents.values():
            if parent.stored_s < stale_s and not parent.busy:
                self._start(parent)

    def _start_due(self) -> None:
        now = self._now()
        while self._due and self._due[0][0] <= now:
            parent = self._parents.get(heappop(self._due)[1])
            if parent is not None:
                parent.queued = False
                if not parent.busy:
                    self._start(parent)

    def _queue(self, parent: _Parent, at: datetime) -> None:
        if not parent.queued:
            parent.queued = True
            heappush(self._due, (at, parent.order_id))
            self._woken.set()

    def _start(self, parent: _Parent) -> None:
        parent.busy = True
        task = asyncio.create_task(self._run_slices(parent))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # -- slices

    async def _run_slices(self, parent: _Parent) -> None:
        """Run what is due of an order, then wait for its next slice; leave it if it has ended, or is not ours."""
        again_at: datetime | None = None
        try:
            async with self._slots:
                done = await self._submit(parent)
            if done is not None and done.order.is_open and done.order.twap is not None:
                parent.next_slice = done.order.twap.next_slice
                again_at = max(parent.due_at, self._now() + TOGETHER)
        except Unavailable as error:
            log.warning("slices cannot be run now; they are tried again", error=str(error))
            again_at = self._now() + timedelta(seconds=RETRY_S)
        except DomainError as error:  # its user is disabled, say: the next comparison tries anew
            log.warning("a slice was refused", order_id=parent.order_id, error=str(error))
        except Exception:
            log.exception("a slice failed", order_id=parent.order_id)
        parent.busy = False
        if again_at is None:
            self._parents.pop(parent.order_id, None)
        else:
            self._queue(parent, again_at)

    async def _submit(self, parent: _Parent) -> Done | None:
        await self._hub.books(parent.instrument)
        if parent.instrument not in self._leadership.held:
            return None
        now = self._now()
        first, end = parent.schedule.window(now)
        parent.mean.look(middle(self._hub, parent.instrument, parent.venue))
        totals = (parent.sum_before + parent.mean.sum, parent.us_before + parent.mean.us)
        done: Done | None = await written(
            self._exchange.submit(RunSlices(parent.account_id, parent.order_id, first, end, *totals))
        )
        parent.stored_s = time.monotonic()
        if end > parent.next_slice:
            metrics.SLICE_LATE_SECONDS.observe(max((now - parent.schedule.due_at(end - 1)).total_seconds(), 0))
        return done

    # -- what runs

    async def _notices_loop(self) -> None:
        while True:
            try:
                channel = await self._layer.new_channel()
                await self._layer.group_add(publish.TWAPS_GROUP, channel)
                while True:
                    await self._layer.receive(channel)
                    self._told.set()
            except Exception:
                log.exception("receiving notices of TWAP orders failed")
                await asyncio.sleep(RETRY_S)

    async def _database_loop(self) -> None:
        compared_s, swept_s = -COMPARE_S, 0.0
        compared: Set[str] = frozenset()  # what was led then; another object, even if equal: it was lost meanwhile
        while True:
            try:
                held = self._leadership.held
                self._leave(held)
                if held is not compared or time.monotonic() - compared_s >= COMPARE_S:
                    began_s = time.monotonic()
                    await self._compare()
                    compared_s, compared = began_s, held
                elif self._told.is_set() or time.monotonic() - swept_s >= SWEEP_S:
                    self._told.clear()
                    swept_s = time.monotonic()
                    await self._sweep()
                metrics.TWAPS_RUNNING.set(len(self))
            except Exception:
                log.exception("the TWAP orders could not be read; trying again")
                await asyncio.sleep(RETRY_S)
            try:
                async with asyncio.timeout(LED_POLL_S):
                    await self._told.wait()
            except TimeoutError:
                continue

    async def _compare(self) -> None:
        """Make the schedules what the database says, page by page."""
        began_at, before, last = self._now(), set(self._parents), 0
        while True:
            rows = await self._in_thread(_orders, f"{_OPEN} AND number > %s ORDER BY number LIMIT {PAGE}", [last])
            self._take(order for _, order in rows)
            before.difference_update(order.order_id for _, order in rows)
            if len(rows) < PAGE:
                break
            last = rows[-1][0]
        self._forget(self._parents[order_id] for order_id in before & set(self._parents))
        self._read_at = began_at

    def _leave(self, held: Set[str]) -> None:
        """Leave orders of other instruments than these to those who lead them now."""
        self._forget(parent for parent in self._parents.values() if parent.instrument not in held)

    def _forget(self, parents: Iterable[_Parent]) -> None:
        for parent in list(parents):
            if not parent.busy:  # else what comes of it will tell
                del self._parents[parent.order_id]

    async def _sweep(self) -> None:
        """Find the new orders, since the last look that came to its end."""
        began_at = self._now()
        moment = connection.ops.adapt_datetimefield_value(self._now.earliest(self._read_at - VISIBLE))
        self._take(order for _, order in await self._in_thread(_orders, f"{_OPEN} AND updated_at > %s", [moment]))
        self._read_at = began_at

    def _take(self, orders: Iterable[Order]) -> None:
        for order in orders:
            twap, instrument = order.twap, order.terms.instrument
            if twap is None or order.order_id in self._parents or instrument not in self._leadership.held:
                continue
            mean = self._means.setdefault((instrument, twap.venue), _Mean())
            mean.look(middle(self._hub, instrument, twap.venue))
            parent = self._parents[order.order_id] = _Parent(
                order_id=order.order_id,
                account_id=order.account_id,
                instrument=instrument,
                venue=twap.venue,
                schedule=structs.replace(order.schedule, started_at=self._now.at(order.created_at)),
                next_slice=twap.next_slice,
                mean=mean,
                sum_before=twap.market_sum - mean.sum,
                us_before=twap.market_us - mean.us,
                stored_s=time.monotonic(),
            )
            self._queue(parent, parent.due_at)

    async def _in_thread(self, call: Any, *args: object) -> Any:
        def run() -> Any:
            close_old_connections()
            return call(*args)

        return await asyncio.get_running_loop().run_in_executor(self._reader, run)


def _orders(sql: str, values: Sequence[Any]) -> list[tuple[int, Order]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        rows = [(row[0], read_order(row[1:])) for row in cursor.fetchall()]
    read_twaps(order for _, order in rows)
    return rows
