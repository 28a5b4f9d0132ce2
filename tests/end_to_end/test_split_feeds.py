"""Feeds split by venue over processes: clients see one market, and each venue by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import pairwise

import pytest
import pytest_asyncio
from django.conf import settings

from marketdata.simulated import SimulatedVenues
from tests.end_to_end.conftest import environment_of
from tests.end_to_end.test_streams import (  # noqa: F401
    INSTRUMENT,
    SYMBOL,
    live,
    of,
    test_each_trade_arrives_once_in_order_and_to_the_digit,
    test_every_stream_moves_and_has_the_fields_of_the_contract,
    test_the_touch_is_attributed_to_the_venue_that_quotes_it,
)
from tests.running import STARTED, Client, Message, Process, Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

ROLES = ("web", "feeds --venues binance", "feeds --venues okx,kraken", "consolidator", "matcher")
CANDLES = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(market: SimulatedVenues, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    with environment_of("production", tmp_path_factory.mktemp("split")) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        router = Router({**environment, **urls}, roles=ROLES)
        await router.start()
        try:
            yield router
        finally:
            await router.stop()


async def closed_candle(client: Client, exchange: str = "all") -> Message:
    data: Message = (await client.until(of("klines", is_closed=True, exchange=exchange)))["data"]
    return data


async def test_candles_over_all_venues_are_those_of_the_trades(router: Router, market: SimulatedVenues) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await live(client)
        for stream in ("trades", "klines"):
            await client.ask(action="subscribe", stream=stream, symbol=SYMBOL, interval="1s")
        began_s = time.time()
        candles: list[Message] = []
        trading = asyncio.create_task(_trade_everywhere(market))
        try:
            while len(candles) < CANDLES:
                candle = await closed_candle(client)
                if candle["open_time"] > began_s + 1:  # all of it was heard, and traded in
                    candles.append(candle)
        finally:
            trading.cancel()
        trades = [message["data"] for message in client.messages if message["type"] == "trades"]

    assert [later["open_time"] - one["open_time"] for one, later in pairwise(candles)] == [1] * (CANDLES - 1)
    for candle in candles:
        inside = [trade for trade in trades if int(trade["timestamp"]) == candle["open_time"]]
        assert (candle["trades"], candle["volume"]) == (len(inside), sum(trade["quantity"] for trade in inside))
        assert {trade["exchange"] for trade in inside} == set(settings.VENUES)
        prices = [trade["price"] for trade in inside]
        assert candle["high"] == max(prices)
        assert candle["low"] == min(prices)
        assert {candle["open"], candle["close"]} <= set(prices)


async def test_killed_feeds_cost_their_venues_alone_and_candles_go_on_partial(
    router: Router, market: SimulatedVenues
) -> None:
    token = await router.register()
    number = next(number for number, roles in enumerate(ROLES) if "okx" in roles)
    async with router.client(token) as client:
        await live(client)
        await client.ask(action="subscribe", stream="klines", symbol=SYMBOL, interval="1s")
        await client.ask(action="subscribe", stream="best_touch", symbol=SYMBOL)
        await closed_candle(client)

        await router.kill_one(number)
        lost = await _told(client, "stale")
        market["binance"].trade(INSTRUMENT, Decimal(90_000), Decimal("0.001"), "buy")
        without = [await closed_candle(client) for _ in range(4)]
        touch = await client.until(of("best_touch", exchange="all"))

        again = router.processes[number] = Process(ROLES[number], {**router.environment, "PORT": "0"})
        await again.start()
        await again.logged(STARTED["feeds"])
        await _told(client, "live")

    assert "binance" not in lost
    assert {touch["data"]["best_bid_exchange"], touch["data"]["best_ask_exchange"]} == {"binance"}
    assert [later["open_time"] - one["open_time"] for one, later in pairwise(without)] == [1, 1, 1]
    assert any(candle["trades"] > 0 for candle in without)
    assert all(candle["partial"] for candle in without[1:])


async def _trade_everywhere(market: SimulatedVenues) -> None:
    while True:
        for venue in settings.VENUES:
            market[venue].trade(INSTRUMENT, Decimal(90_000), Decimal("0.001"), "buy")
        await asyncio.sleep(0.2)


async def _told(client: Client, state: str) -> set[str]:
    """Wait until both venues of the killed feeds are told to be so; return all that are."""
    told: set[str] = set()
    async with asyncio.timeout(20):
        while not told >= {"okx", "kraken"}:
            told.add((await client.until(of_venue(state)))["exchange"])
    return told


def of_venue(state: str):  # type: ignore[no-untyped-def]
    return lambda message: message["type"] == "venue" and message.get("state") == state
