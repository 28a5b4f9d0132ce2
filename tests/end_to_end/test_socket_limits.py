"""Sockets and subscriptions are counted over all web processes, and a process that ends counts no more."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.leases import LEASE_S
from marketdata.simulated import SimulatedVenues
from tests.chaos.services import OwnRedis
from tests.end_to_end.conftest import counted_locally, counted_together, environment_of
from tests.running import Client, Message, Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SOCKETS = 12
SUBSCRIPTIONS = 6
LIMITS = {
    "RATE_LIMITS": "on",
    "RATE_SOCKETS": f"3,{SOCKETS},100",
    "RATE_SUBSCRIPTIONS": f"1,{SUBSCRIPTIONS},100",
}
FORGOTTEN_S = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(market: SimulatedVenues, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    with environment_of("production", tmp_path_factory.mktemp("webs")) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        router = Router({**environment, **urls, **LIMITS}, roles=("web", "web", "web", "web", "feeds"))
        await router.start()
        try:
            yield router
        finally:
            await router.stop()


class Visitors:
    """Sockets of one user, on whichever web process."""

    def __init__(self, router: Router, token: str | None, stack: contextlib.AsyncExitStack) -> None:
        self._router = router
        self._token = token
        self._stack = stack

    async def come(self, web: int) -> Client | None:
        """Open a socket; return None where it is refused."""
        client = await self._stack.enter_async_context(self._router.client(self._token, web=web))
        first: Message = await client.next()
        if first["type"] == "info":
            return client
        assert first["code"] == "rate_limited", first
        return None


@pytest_asyncio.fixture(loop_scope="module")
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def free_places(visitors: Visitors, web: int) -> int:
    """Open sockets until one is refused; return how many there were."""
    places = 0
    while await visitors.come(web) is not None:
        places += 1
    return places


async def test_of_many_sockets_over_all_processes_exactly_the_allowed_number_opens(
    router: Router, stack: contextlib.AsyncExitStack
) -> None:
    async def come(name: str) -> int:
        visitors = Visitors(router, await router.register(name), stack)
        came = await asyncio.gather(*(visitors.come(number % 4) for number in range(5 * SOCKETS)))
        return sum(client is not None for client in came)

    assert await counted_together(router, "quotas", come) == SOCKETS


async def test_sockets_without_credentials_are_their_addresses_over_all_processes(
    router: Router, stack: contextlib.AsyncExitStack
) -> None:
    visitors = Visitors(router, None, stack)

    came = await asyncio.gather(*(visitors.come(number % 4) for number in range(12)))

    assert sum(client is not None for client in came) == 3


async def test_subscriptions_are_counted_over_all_processes(router: Router, stack: contextlib.AsyncExitStack) -> None:
    visitors = Visitors(router, await router.register("bert"), stack)
    clients = [client for web in range(4) if (client := await visitors.come(web)) is not None]

    async def subscribe(number: int) -> str:
        client = clients[number % 4]
        answer = await client.ask(action="subscribe", stream="ewma", symbol="BTCUSDT", half_life=number + 1)
        return str(answer.get("code") or answer["type"])

    answers = [await subscribe(number) for number in range(SUBSCRIPTIONS + 4)]
    assert answers == ["subscribed"] * SUBSCRIPTIONS + ["too_many_subscriptions"] * 4

    assert (await clients[0].ask(action="unsubscribe"))["count"] == 2
    async with asyncio.timeout(5):  # the other processes learn of it soon
        for number in (9, 10):
            while await subscribe(number) != "subscribed":
                pass
    assert await subscribe(11) == "too_many_subscriptions"


async def test_the_sockets_of_a_process_that_ends_come_free(router: Router, stack: contextlib.AsyncExitStack) -> None:
    visitors = Visitors(router, await router.register("carl"), stack)
    assert await free_places(visitors, web=2) == SOCKETS
    assert await free_places(visitors, web=0) == 0

    stopped = router.processes[2]
    stopped.send_signal(signal.SIGTERM)
    await stopped.ended()
    assert await free_places(visitors, web=3) == SOCKETS, "a process that ends in order takes them along at once"

    killed = router.processes[3]
    killed.send_signal(signal.SIGKILL)
    await killed.ended()
    began_s, places = time.monotonic(), 0
    while places < SOCKETS and time.monotonic() - began_s < FORGOTTEN_S:
        places += await free_places(visitors, web=places % 2)

    assert places == SOCKETS
    assert time.monotonic() - began_s < LEASE_S + 5
    assert await free_places(visitors, web=0) == 0


async def test_without_redis_each_process_counts_for_itself_and_tells_it(
    market: SimulatedVenues, tmp_path: Path, stack: contextlib.AsyncExitStack
) -> None:
    redis = OwnRedis(tmp_path)
    redis.start()
    with environment_of("production", tmp_path) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        router = Router({**environment, **urls, **LIMITS, "REDIS_URL": redis.url}, roles=("web", "web", "feeds"))
        await router.start()
        try:
            visitors = Visitors(router, await router.register("dave"), stack)
            assert await free_places(visitors, web=0) == SOCKETS
            assert await free_places(visitors, web=1) == 0
            assert await counted_locally(router, "quotas") == [0, 0]

            redis.kill()
            assert await free_places(visitors, web=1) == SOCKETS
            assert await free_places(visitors, web=0) == 0
            assert all(count > 0 for count in await counted_locally(router, "quotas"))
        finally:
            redis.kill()
            await router.stop()
