"""Resting orders of a running router, on both profiles: what fills them, what does not, and what survives a kill."""

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio

from marketdata.simulated import SimulatedVenues
from tests.end_to_end.conftest import environment_of
from tests.end_to_end.test_orders_ws import Trader, limit_order, market_order, updates
from tests.running import ROOT, Client, Message, Process, Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SYMBOL, INSTRUMENT = "BTCUSDT", "BTC-USDT"
VENUES = ("binance", "okx", "kraken")
BID, ASK = Decimal(49_990), Decimal(50_000)
WORSE = Decimal(5)
TAKE_OVER_S = 5.0


def show(market: SimulatedVenues, venue: str, ask: Decimal | int | str) -> None:
    ask = Decimal(ask)
    market[venue].quote(INSTRUMENT, ask - 10, Decimal(1), ask, Decimal(2))


def calm(market: SimulatedVenues) -> None:
    """OKX has the touch, 49 990 at 50 000; the others are worse."""
    for venue in VENUES:
        worse = Decimal(0) if venue == "okx" else WORSE
        market[venue].quote(INSTRUMENT, BID - worse, Decimal(1), ASK + worse, Decimal(2))


async def touch_is(router: Router, token: str, ask: Decimal | int) -> None:
    """Wait until every web process shows this best ask."""
    for web in range(len(router.urls)):
        async with router.client(token, web=web) as client:
            await client.send(action="subscribe", stream="best_touch", symbol=SYMBOL)
            await client.until(lambda message: message.get("data", {}).get("best_ask") == ask, timeout_s=20)


async def new_trader(router: Router) -> Trader:
    name = f"m{uuid.uuid4().hex[:12]}"
    trader = Trader(router, name, await router.register(name))
    (await trader.rest("POST", "/deposit", {"asset": "USDT", "amount": 100_000})).raise_for_status()
    return trader


async def place(trader: Trader, price: str, quantity: str = "1") -> Message:
    answer = await trader.rest("POST", "/orders", limit_order(price, quantity))
    assert answer.status_code == 201, answer.text
    order: Message = answer.json(parse_float=Decimal)
    assert order["status"] == "open"
    return order


async def update(client: Client, token_id: str, timeout_s: float = 10.0) -> Message:
    """Wait for the execution report of an order."""
    found = await client.until(
        lambda message: message["type"] == "order_update" and message["data"]["order"]["token_id"] == token_id,
        timeout_s,
    )
    data: Message = found["data"]
    return data


async def ledger_is_right(router: Router) -> None:
    """Run the command that proves the rows."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", "verify_ledger", cwd=ROOT, env={**os.environ, **router.environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@pytest_asyncio.fixture(loop_scope="module")
async def trader(router: Router, market: SimulatedVenues) -> AsyncIterator[Trader]:
    calm(market)
    trader = await new_trader(router)
    await touch_is(router, trader.token, ASK)
    yield trader
    for venue in VENUES:
        market[venue].release(INSTRUMENT)


async def test_a_buy_under_the_ask_fills_at_the_ask_that_reaches_it(
    router: Router, market: SimulatedVenues, trader: Trader
) -> None:
    async with router.client(trader.token) as client:
        order = await place(trader, "49999")
        assert await trader.balance() == (100_000, 49_999)
        show(market, "okx", "49998.5")
        data = await update(client, order["token_id"])
        fill = data["fill"]
        assert (fill["price"], fill["exchange"], fill["liquidity"]) == (Decimal("49998.5"), "okx", "maker")
        assert (fill["touch"]["ask"]["price"], fill["touch"]["ask"]["exchange"]) == (Decimal("49998.5"), "okx")
        assert data["order"]["status"] == "filled"
        assert await trader.balance() == (Decimal("50001.5"), 0)
        assert await trader.balance("BTC") == (1, 0)
        assert len(updates(client)) == 1


async def test_the_state_of_the_ledger_and_of_the_matcher_can_be_read(
    router: Router, profile: str, trader: Trader
) -> None:
    ledger = (await trader.rest("GET", "/status")).raise_for_status().json()["ledger"]
    assert ledger["violations"] == 0
    assert ledger["checked_at"] <= time.time()
    metrics = (await trader.rest("GET", "/metrics")).raise_for_status().text
    assert "ledger_invariant_violations_total 0.0" in metrics
    assert (f'matcher_leader{{instrument="{INSTRUMENT}"}} 1.0' in metrics) is (profile == "embedded")


async def test_one_venue_alone_fills_and_is_named_in_the_receipt(
    router: Router, market: SimulatedVenues, trader: Trader
) -> None:
    async with router.client(trader.token) as client:
        order = await place(trader, "49990.5")
        show(market, "kraken", "49990.5")
        data = await update(client, order["token_id"])
        assert (data["fill"]["price"], data["fill"]["exchange"]) == (Decimal("49990.5"), "kraken")
        assert data["order"]["exchange"] == "kraken"


async def test_what_a_stale_venue_showed_fills_nothing(router: Router, market: SimulatedVenues, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        await client.ask(action="subscribe", stream="best_touch", symbol=SYMBOL)
        show(market, "kraken", 49_000)
        await client.until(lambda message: message.get("data", {}).get("best_ask") == 49_000)
        market["kraken"].stall(answering=False)
        try:
            await client.until(lambda message: message.get("data", {}).get("best_ask") == ASK, timeout_s=20)
            order = await place(trader, "49500")
            show(market, "okx", "49500.5")
            await client.until(lambda message: message.get("data", {}).get("best_ask") == Decimal("49500.5"))
            assert updates(client) == []
            show(market, "okx", 49_500)
            data = await update(client, order["token_id"])
            assert (data["fill"]["price"], data["fill"]["exchange"]) == (49_500, "okx")
        finally:
            market["kraken"].resume()
    calm(market)
    await touch_is(router, trader.token, ASK)


async def test_a_lie_fills_nothing_and_is_told(router: Router, market: SimulatedVenues, trader: Trader) -> None:
    async def set_aside_are(wanted: Message) -> None:
        async with asyncio.timeout(20):  # a proxy may ask a process that hears of it a moment later
            while True:
                told = (await trader.rest("GET", "/status")).raise_for_status().json()["exchanges"]
                if {venue: state["set_aside"] for venue, state in told.items() if state["set_aside"]} == wanted:
                    return
                await asyncio.sleep(0.05)

    async with router.client(trader.token) as client:
        await client.ask(action="subscribe", stream="best_touch", symbol=SYMBOL, exchange="kraken")
        low, late = await place(trader, "48000", "0.5"), await place(trader, "49999", "0.5")
        show(market, "kraken", 30_000)
        await client.until(lambda message: message.get("data", {}).get("best_ask") == 30_000)
        await set_aside_are({"kraken": [SYMBOL]})
        now = (await trader.rest("POST", "/orders", market_order("0.1"))).raise_for_status().json()
        assert (now["execution_price"], now["exchange"]) == (ASK, "okx")
        show(market, "okx", "49999")  # the matcher sees it after the lie
        data = await update(client, late["token_id"])
        assert (data["fill"]["price"], data["fill"]["exchange"]) == (49_999, "okx")
        assert (await trader.rest("GET", f"/orders/{low['token_id']}")).json()["status"] == "open"
        assert low["token_id"] not in {message["data"]["order"]["token_id"] for message in updates(client)}
    calm(market)
    await set_aside_are({})


async def test_a_kill_forgets_no_order_and_fills_none_twice(
    router: Router, market: SimulatedVenues, trader: Trader
) -> None:
    orders = [await place(trader, str(49_000 + number), "0.01") for number in range(20)]
    late = await place(trader, "40000", "0.01")
    await router.kill()
    show(market, "okx", 48_000)  # crosses all but one while nobody is there
    await router.start()
    statuses: dict[str, Message] = {}
    async with asyncio.timeout(20):
        while sum(found["status"] == "filled" for found in statuses.values()) < len(orders):
            answer = (await trader.rest("GET", "/orders")).raise_for_status()
            statuses = {found["token_id"]: found for found in answer.json(parse_float=Decimal)["orders"]}
    for order in orders:
        (fill,) = statuses[order["token_id"]]["fills"]
        assert (fill["price"], fill["exchange"]) == (48_000, "okx")
    assert statuses[late["token_id"]]["status"] == "open"
    await ledger_is_right(router)


# -- the standby


@pytest_asyncio.fixture(loop_scope="module")
async def pair(market: SimulatedVenues, tmp_path: Path) -> AsyncIterator[tuple[Router, Process, Process]]:
    """A router of the production profile with two matchers, and which of them leads."""
    with environment_of("production", tmp_path) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        pair = Router({**environment, **urls}, roles=("web", "feeds", "matcher", "matcher"))
        await pair.start()
        try:
            leader, standby = pair.processes[2:]
            await leader.logged("the matcher leads")
            yield pair, leader, standby
        finally:
            pair.processes = [process for process in pair.processes if process.running]
            await pair.stop()


async def test_a_standby_takes_over_when_the_leader_is_killed(
    market: SimulatedVenues, pair: tuple[Router, Process, Process]
) -> None:
    router, leader, standby = pair
    calm(market)
    trader = await new_trader(router)
    await touch_is(router, trader.token, ASK)
    async with router.client(trader.token) as client:
        before = await place(trader, "49900")
        after = await place(trader, "49800")
        show(market, "okx", 49_900)
        await update(client, before["token_id"])
        assert not any("the matcher leads" in line for line in standby.log)

        leader.send_signal(signal.SIGKILL)
        await leader.ended()
        killed_s = time.monotonic()
        show(market, "okx", 49_800)
        data = await update(client, after["token_id"], TAKE_OVER_S)
        assert time.monotonic() - killed_s < TAKE_OVER_S
        assert data["fill"]["price"] == 49_800
        assert len(updates(client)) == 2
    await ledger_is_right(router)
