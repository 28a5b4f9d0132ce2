"""The router is killed and started again in the middle of a stream: no order update is lost or doubled."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from router_client import AsyncAPIClient, Connected, Disconnected, Kline, Order, OrderUpdate, Refused, Retries, Stream

from tests.client.conftest import MONEY, PASSWORD, environment_of, wait_for_market
from tests.client.relay import Relay
from tests.running import Router

pytestmark = pytest.mark.timeout(180)

ORDERS = 60
RESTING = 30
PATIENT = Retries(attempts=60, max_s=1)  # a start takes its time on a busy machine


@pytest_asyncio.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[Router]:
    """A router that may be killed."""
    router = Router(environment_of(tmp_path), roles=("web,feeds,matcher",))
    await router.start()
    await wait_for_market(router.url)
    try:
        yield router
    finally:
        await router.stop()


@pytest_asyncio.fixture
async def relay(mortal: Router) -> AsyncIterator[Relay]:
    async with Relay(mortal.url).running() as relay:
        yield relay


@pytest_asyncio.fixture
async def survivor(relay: Relay, name: str) -> AsyncIterator[AsyncAPIClient]:
    async with AsyncAPIClient(relay.url, retries=PATIENT) as client:
        await client.register(name, PASSWORD)
        await client.deposit("USDT", MONEY)
        yield client


async def restart(router: Router, relay: Relay, *, politely: bool) -> None:
    await (router.stop() if politely else router.kill())
    relay.cut()
    await router.start()
    await wait_for_market(router.url)
    relay.target = router.url


async def buy(client: AsyncAPIClient) -> Order:
    """Buy, as soon as there is a market again."""
    while True:
        try:
            return await client.place_order("BTCUSDT", "buy", "0.001", order_type="market")
        except Refused as refused:
            if refused.code != "no_market":
                raise


async def read(updates: Stream[OrderUpdate], count: int) -> list[OrderUpdate]:
    async with asyncio.timeout(60):
        return [await anext(updates) for _ in range(count)]


@pytest.mark.parametrize("politely", [False, True], ids=["killed", "stopped"])
async def test_updates_of_the_time_away_come_once_after_a_restart(
    mortal: Router, relay: Relay, survivor: AsyncAPIClient, politely: bool
) -> None:
    async with survivor.order_updates() as updates, survivor.best_touch("BTCUSDT") as touches:
        before = [await buy(survivor) for _ in range(3)]
        seen = await read(updates, 2)  # one of them is read only later

        await (mortal.stop() if politely else mortal.kill())
        relay.cut()
        await mortal.start()
        await wait_for_market(mortal.url)
        async with AsyncAPIClient(mortal.url, session=survivor.session) as other:  # the survivor is still away
            away = [await buy(other) for _ in range(3)]
        relay.target = mortal.url
        seen += await read(updates, 4)
        after = [await buy(survivor) for _ in range(2)]
        seen += await read(updates, 2)

        assert [update.seq for update in seen] == list(range(1, 9))
        assert [update.order.token_id for update in seen] == [order.token_id for order in (*before, *away, *after)]
        assert (await anext(touches)).best_bid is not None


async def test_an_update_before_the_first_one_seen_is_not_lost_either(
    mortal: Router, relay: Relay, survivor: AsyncAPIClient
) -> None:
    """The stream has begun, nothing was executed yet; what executes while it is away is its first."""
    async with survivor.order_updates() as updates:
        relay.refusing = True
        relay.cut()
        async with AsyncAPIClient(mortal.url, session=survivor.session) as other:
            order = await buy(other)
        relay.refusing = False

        (update,) = await read(updates, 1)

    assert (update.seq, update.order.token_id) == (1, order.token_id)


async def test_trading_through_a_kill_places_and_reports_each_order_once(
    mortal: Router, relay: Relay, survivor: AsyncAPIClient
) -> None:
    reconnected = asyncio.Event()

    async def listen() -> None:
        async for notice in survivor.notices():
            if isinstance(notice, Connected) and notice.reconnects:
                reconnected.set()
                return

    async def trade(count: int) -> list[Order]:
        return [await buy(survivor) for _ in range(count)]

    listening = asyncio.create_task(listen())
    async with survivor.order_updates() as updates:
        trading = [asyncio.create_task(trade(ORDERS // 4)) for _ in range(4)]
        seen = await read(updates, 10)
        await restart(mortal, relay, politely=False)
        orders = [order for task in trading for order in await task]
        seen += await read(updates, ORDERS - len(seen))
        await listening

    assert [update.seq for update in seen] == list(range(1, ORDERS + 1))
    assert sorted(update.order.token_id for update in seen) == sorted(order.token_id for order in orders)
    there = [order async for order in survivor.iter_orders()]
    assert len(there) == ORDERS
    assert reconnected.is_set()


async def test_market_streams_go_on_after_a_kill(mortal: Router, relay: Relay, survivor: AsyncAPIClient) -> None:
    streams: dict[str, Stream[Any]] = {
        "touch": survivor.best_touch("BTCUSDT"),
        "trades": survivor.trades("BTCUSDT"),
        "trades of one exchange": survivor.trades("ETHUSDT", "okx"),
        "klines": survivor.klines("BTCUSDT", interval="1s"),
        "ewma": survivor.ewma("BTCUSDT", half_life=5),
        "book": survivor.orderbook("BTCUSDT", depth=3),
        "all books": survivor.websocket_orderbook("okx"),
    }
    async with asyncio.timeout(30):
        for stream in streams.values():
            await anext(stream)
    notices = survivor.notices()
    await notices.begin()

    await restart(mortal, relay, politely=False)
    back_s = time.time()
    async with asyncio.timeout(30):
        assert isinstance(await anext(notices), Disconnected)
        for name, stream in streams.items():
            if name == "all books":
                for _ in range(3):  # one may have waited, the others are new
                    await anext(stream)
            else:
                while _moment(await anext(stream)) < back_s:
                    pass
    made = await survivor.ws.subscriptions()

    assert len(made) == len(streams) - 1, "each once; the images have a socket of their own"
    assert survivor.ws.connections == 2


def _moment(item: Any) -> float:
    return float(item.start if isinstance(item, Kline) else item.timestamp)


async def test_resting_orders_and_a_twap_that_fill_through_a_kill_are_told_once_each(
    mortal: Router, relay: Relay, survivor: AsyncAPIClient
) -> None:
    seen: list[OrderUpdate] = []
    ended: dict[str, str] = {}

    async def read_until(done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                update = await anext(updates)
                seen.append(update)
                if not update.order.is_open:
                    ended[update.order.token_id] = update.order.status

    async def rest(count: int) -> list[Order]:
        """Place an order at each new bid; the market fills it when it comes down to it."""
        placed: list[Order] = []
        async with survivor.best_touch("BTCUSDT") as touches:
            while len(placed) < count:
                bid = (await anext(touches)).best_bid
                if bid is not None:
                    placed.append(await survivor.place_order("BTCUSDT", "buy", "0.001", bid))
        return placed

    async with survivor.order_updates() as updates:
        twap = await survivor.place_twap("ETHUSDT", "buy", "0.5", duration_seconds=12, slices=24)
        resting = [asyncio.create_task(rest(RESTING // 2)) for _ in range(2)]
        await read_until(lambda: any(update.order.order_type == "limit" for update in seen) and len(seen) >= 5)
        assert not any(task.done() for task in resting), "orders are placed through the kill, too"
        await restart(mortal, relay, politely=False)
        orders = [order for task in resting for order in await task]
        async for order in survivor.iter_orders(status="open", symbol="BTCUSDT"):  # what the market did not come to
            with contextlib.suppress(Refused):  # now it did
                await survivor.amend_order(order.token_id, price=(order.price or 0) * 2)
        await read_until(lambda: len(ended) == RESTING + 1)

    assert [update.seq for update in seen] == list(range(1, len(seen) + 1))
    assert {token: ended[token] for token in ended if token != twap.token_id} == {
        order.token_id: "filled" for order in orders
    }
    told = [update.fill.fill_id for update in seen if update.fill is not None]
    assert len(set(told)) == len(told)
    assert set(told) == {fill.fill_id async for fill in survivor.iter_fills()}
    done = await survivor.twap(twap.order_id)
    assert done.is_completed
    assert sum(one.quantity for one in done.executions) == done.executed_quantity
