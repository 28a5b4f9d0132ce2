"""Limits hold to the request: over REST and the socket, and over all web processes together."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from marketdata.simulated import SimulatedVenues
from tests.end_to_end.conftest import counted_together, environment_of
from tests.running import Client, Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

ALLOWED = 100
SURELY_ONE_S = 0.9  # commands that took no longer are counted in one second
LIMITS = {
    "RATE_LIMITS": "on",
    "RATE_REQUESTS_A_MINUTE": f"1000,{ALLOWED},100000",
    "RATE_ORDER_ACTIONS_A_SECOND": "1,2,1000",
    "RATE_SOCKETS": "4,3,100",
    "RATE_SUBSCRIPTIONS": "5,6,100",
}


@pytest.fixture(scope="module", params=["embedded", "production"])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(
    profile: str, market: SimulatedVenues, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Router]:
    roles = ("web,feeds,matcher",) if profile == "embedded" else ("web", "web", "web", "web", "feeds")
    with environment_of(profile, tmp_path_factory.mktemp(profile)) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        router = Router({**environment, **urls, **LIMITS}, roles=roles)
        await router.start()
        try:
            yield router
        finally:
            await router.stop()


async def refused(client: Client) -> tuple[str, int | None]:
    """Return the error's code and the close code of a socket that was turned away."""
    error = await client.until(lambda message: message["type"] == "error")
    with pytest.raises(ConnectionClosed) as closed:
        await client.next()
    return str(error["code"]), closed.value.rcvd.code if closed.value.rcvd else None


async def test_of_300_parallel_requests_exactly_the_allowed_number_passes(router: Router) -> None:
    async def ask(name: str) -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {await router.register(name)}"}
        async with httpx.AsyncClient(headers=headers, timeout=30) as http:
            return await asyncio.gather(
                *(http.get(f"{router.urls[number % len(router.urls)]}/info") for number in range(300))
            )

    answers = await counted_together(router, "rate_limits", ask)
    assert Counter(answer.status_code for answer in answers) == {200: ALLOWED, 429: 300 - ALLOWED}
    remaining = sorted(int(answer.headers["x-ratelimit-remaining"]) for answer in answers if answer.status_code == 200)
    assert remaining == list(range(ALLOWED))
    turned_away = next(answer for answer in answers if answer.status_code == 429)
    assert turned_away.json()["code"] == "rate_limited"
    assert 1 <= int(turned_away.headers["retry-after"]) <= 60


async def test_order_commands_are_counted_together_over_rest_and_the_socket(router: Router) -> None:
    async def command(name: str) -> list[object]:
        token = await router.register(name)
        async with (
            router.client(token) as client,
            httpx.AsyncClient(base_url=router.urls[-1], headers={"Authorization": f"Bearer {token}"}) as http,
        ):
            await client.next()
            while True:
                began_s = time.monotonic()
                statuses = [(await http.delete("/orders/none")).status_code for _ in range(2)]
                answer = await client.ask(action="cancel_order", token_id="none")
                if time.monotonic() - began_s < SURELY_ONE_S:
                    return [*statuses, answer["code"]]
                await asyncio.sleep(1)  # a busy machine took longer: again, in a second of their own

    codes = await counted_together(router, "rate_limits", command)
    assert codes.count("rate_limited") + codes.count(429) == 1, codes


async def test_sockets_and_subscriptions_are_held_to_the_tier(router: Router) -> None:
    token = await router.register("fred")
    async with router.client(token) as first, router.client(token) as second, router.client(token):
        for number in range(6):
            client = first if number % 2 else second
            answer = await client.ask(action="subscribe", stream="ewma", symbol="BTCUSDT", half_life=number + 1)
            assert answer["type"] == "subscribed"
        answer = await first.ask(action="subscribe", stream="ewma", symbol="BTCUSDT", half_life=99)
        assert answer["code"] == "too_many_subscriptions"
        await first.ask(action="unsubscribe")
        assert (await second.ask(action="subscribe", stream="trades", symbol="BTCUSDT"))["type"] == "subscribed"
        async with router.client(token) as fourth:
            assert await refused(fourth) == ("rate_limited", 1013)
    async with router.client(token) as again:
        assert (await again.next())["type"] == "info", "a closed socket counts no more"
