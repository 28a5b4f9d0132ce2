"""The floor of a matcher: a real database, a hub that the test feeds by hand, and what waits for both."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from channels.layers import get_channel_layer
from django.db import OperationalError, connection, connections

from core.account import Fees, Market
from core.events import Side
from core.instruments import parse_instrument
from core.orders import OrderType, Status, Terms
from marketdata.batches import QuoteSlot
from marketdata.hub import Hub
from tests.marketdata.test_hub import Feeds
from tests.trading.desk import BTC, ETH, units
from trading import audit, models, publish
from trading.clock import ScheduleClock
from trading.commands import Command, Place
from trading.exchange import Exchange
from trading.market import market
from trading.matcher import Matcher
from trading.services import written

T = TypeVar("T")

VENUES = ("binance", "okx", "kraken")
WAIT_S = 10.0


@contextlib.contextmanager
def database_in_a_file(folder: Path) -> Iterator[None]:
    """On SQLite a copy of the tests' database in a file: in memory, readers and writers lock each other out."""
    if connection.vendor != "sqlite":
        yield
        return
    in_memory = connection.settings_dict["NAME"]
    connection.ensure_connection()
    kept = connection.connection  # the database in memory lives as long as its last connection
    path = str(folder / "router.sqlite3")
    with contextlib.closing(sqlite3.connect(path)) as copy:
        kept.backup(copy)
    connection.connection = None
    connections.databases["default"]["NAME"] = path
    yield
    connection.close()
    connections.databases["default"]["NAME"] = in_memory
    connection.connection = kept


@contextlib.contextmanager
def unreadable(module: Any, reader: str) -> Iterator[threading.Event]:
    """Meanwhile a module's reader of rows finds no database; the event is set once it tried."""
    tried = threading.Event()

    def away(*_: Any) -> Any:
        tried.set()
        raise OperationalError("the database is away")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, reader, away)
        yield tried


class Clock:
    """A wall clock that may jump, and the time that really passes: only when the test says so."""

    def __init__(self) -> None:
        self.wall_at = datetime(2026, 1, 1, tzinfo=UTC)
        self.passed_s = 0.0

    def wall(self) -> datetime:
        return self.wall_at

    def schedule(self) -> ScheduleClock:
        """Return the clock of schedules that a process has which starts now."""
        return ScheduleClock(self.wall, lambda: self.passed_s)

    def pass_(self, seconds: float) -> None:
        self.passed_s += seconds
        self.wall_at += timedelta(seconds=seconds)

    def jump(self, seconds: float) -> None:
        self.wall_at += timedelta(seconds=seconds)


class Floor:
    """A hub that is fed by hand, an exchange, and as many matchers as the test wants."""

    def __init__(self) -> None:
        self.layer = get_channel_layer()
        self.feeds = Feeds(self.layer)
        self.hub = Hub(self.layer, [parse_instrument(BTC), parse_instrument(ETH)], VENUES)
        self.exchanges: list[Exchange] = []
        self.exchange = self.new_exchange()
        self.tasks: list[asyncio.Task[None]] = []
        self._tokens = 0

    def market_of(self, instrument: str, side: Side) -> Market:
        """As `trading.market.market_of` does it for the one hub of a process."""
        if not self.hub.is_current():
            return Market((), {})
        return market(self.hub.board(instrument), side, now_ns=time.time_ns())

    def new_exchange(self) -> Exchange:
        exchange = Exchange(
            self.market_of,
            takes_part=self.hub.takes_part,
            fees=Fees(),
            told=publish.Teller(asyncio.get_running_loop()),
        )
        self.exchanges.append(exchange)
        return exchange

    async def open(self) -> None:
        await self.layer.flush()
        await self.hub.start()
        await self.hub.listening.wait()
        await self.feeds.touch(states=dict.fromkeys(VENUES, "live"))
        await eventually(lambda: all(map(self.hub.is_live, VENUES)))

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for exchange in self.exchanges:
            await asyncio.to_thread(exchange.stop)
        await self.hub.stop()

    async def matcher(
        self,
        exchange: Exchange | None = None,
        *,
        leads: bool = True,
        share: tuple[int, int] = (1, 1),
        now: ScheduleClock | None = None,
    ) -> Matcher:
        """Start a matcher; return it when it knows the open orders, and leads."""
        made = Matcher(self.hub, exchange or self.exchange, self.layer, share, now=now)
        self.tasks.append(asyncio.create_task(made.run()))
        await asyncio.wait_for(made.loaded.wait(), WAIT_S)
        if leads:
            await eventually(lambda: made.leadership.held == frozenset(self.hub.instruments))
        return made

    async def stop(self, index: int = 0) -> None:
        """End a matcher as a process's end does."""
        task = self.tasks.pop(index)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def quote(self, venue: str, bid: str | None, ask: str | None, at: str = BTC) -> None:
        sides = [None if price is None else Decimal(price) for price in (bid, ask)]
        sizes = [None if price is None else Decimal("0.5") for price in sides]
        await self.feeds.touch(QuoteSlot(venue, at, sides[0], sizes[0], sides[1], sizes[1], None, time.time_ns()))

    async def do(self, command: Command, exchange: Exchange | None = None) -> Any:
        return await written((exchange or self.exchange).submit(command))

    async def order(self, account_id: int, side: str, quantity: str, price: str, at: str = BTC) -> Any:
        self._tokens += 1
        terms = Terms(f"t-{self._tokens}", at, Side(side), OrderType.LIMIT, units(price), units(quantity))
        return await self.do(Place(account_id, terms))


async def eventually(true: Callable[[], bool], within_s: float = WAIT_S) -> None:
    """Wait until something that has no event of its own is true."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def order_now(order_id: str) -> models.Order:
    return models.Order.objects.get(id=order_id)


async def read(call: Callable[..., T], *args: Any, **named: Any) -> T:
    """Use the database in a thread, and leave no connection behind."""

    def run() -> T:
        try:
            return call(*args, **named)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


async def stored(order_id: str) -> models.Order:
    return await read(order_now, order_id)


async def filled(floor: Floor, order_id: str, within_s: float = WAIT_S) -> models.Order:
    """Wait until an order is filled, and return it."""
    async with asyncio.timeout(within_s):
        while (order := await stored(order_id)).status != Status.FILLED:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return order


async def fills(account_id: int) -> list[models.Fill]:
    return await read(lambda: list(models.Fill.objects.filter(account_id=account_id).order_by("seq")))


async def proved() -> list[audit.Finding]:
    return await read(audit.verify)
