"""The client against a router that holds it to its tier: short waits are waited, the rest is told."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from router_client import AsyncAPIClient, Retries, TooManyRequests

from tests.client.conftest import MONEY, PASSWORD, environment_of, wait_for_market
from tests.running import Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

PACE = 2  # order actions a second
SOCKETS = 2
REQUESTS = 40
LIMITS = {
    "RATE_LIMITS": "on",
    "RATE_REQUESTS_A_MINUTE": f"100000,{REQUESTS},200000",
    "RATE_ORDER_ACTIONS_A_SECOND": f"1000,{PACE},2000",
    "RATE_SOCKETS": f"100,{SOCKETS},200",
}
BRISK = Retries(attempts=2, first_s=0.01, patience_s=3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    router = Router({**environment_of(tmp_path_factory.mktemp("limits")), **LIMITS}, roles=("web,feeds,matcher",))
    await router.start()
    try:
        await wait_for_market(router.url)
        yield router
    finally:
        await router.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def held(strict: Router, name: str) -> AsyncIterator[AsyncAPIClient]:
    async with AsyncAPIClient(strict.url) as client:
        await client.register(name, PASSWORD)
        await client.deposit("USDT", MONEY)
        yield client


async def test_what_is_left_is_shown_after_each_answer(held: AsyncAPIClient) -> None:
    await held.balance()
    before = held.rate_limit
    await held.balance()
    after = held.rate_limit

    assert before is not None
    assert after is not None
    assert (after.limit, after.remaining) == (REQUESTS, before.remaining - 1)
    assert 0 < after.reset_s <= 60


async def test_orders_over_the_pace_wait_for_their_turn(held: AsyncAPIClient) -> None:
    began_s = time.monotonic()
    async with held.best_touch("BTCUSDT"):  # the socket is open
        over_rest = [held.place_order("BTCUSDT", "buy", "0.001", 1000) for _ in range(PACE)]
        over_socket = [held.ws.submit_order("BTCUSDT", "buy", "0.001", 1000) for _ in range(PACE)]
        placed = await asyncio.gather(*over_rest, *over_socket)

    assert all(order.is_open for order in placed)
    assert time.monotonic() - began_s >= 1, "they cannot all have been taken in one second"
    assert len((await held.orders()).orders) == 2 * PACE


async def test_a_long_wait_is_told_with_its_time(held: AsyncAPIClient, strict: Router) -> None:
    async with AsyncAPIClient(strict.url, session=held.session, retries=BRISK) as brisk:
        with pytest.raises(TooManyRequests) as refused:
            await asyncio.gather(*(brisk.balance() for _ in range(REQUESTS + 1)))

    assert BRISK.patience_s < refused.value.retry_after <= 60
    assert held.rate_limit is not None
    assert held.rate_limit.remaining == 0


async def test_a_socket_too_many_is_told_as_that(held: AsyncAPIClient, strict: Router) -> None:
    others = [AsyncAPIClient(strict.url, session=held.session, retries=BRISK) for _ in range(SOCKETS)]
    for other in others:
        await other.best_touch("BTCUSDT").begin()
    with pytest.raises(TooManyRequests):
        async with AsyncAPIClient(strict.url, session=held.session, retries=BRISK) as one_more:
            await one_more.best_touch("BTCUSDT").begin()

    await others[0].aclose()
    await held.best_touch("BTCUSDT").begin()  # in its place
    for other in others:
        await other.aclose()
