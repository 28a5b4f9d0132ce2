"""The router is killed and started again in the middle of a stream: no order update is lost or doubled."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from router_client import AsyncAPIClient, Connected, Order, OrderUpdate, Refused, Stream

from tests.client.conftest import MONEY, PASSWORD, environment_of, wait_for_market
from tests.client.relay import Relay
from tests.running import Router

pytestmark = pytest.mark.timeout(180)

ORDERS = 60


@pytest_asyncio.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[Router]:
    """A router that may be killed."""
    router = Router(environment_of(tmp_path), roles=("web,feeds",))
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
    async with AsyncAPIClient(relay.url) as client:
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
