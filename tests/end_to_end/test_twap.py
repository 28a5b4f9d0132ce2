"""TWAP orders of a running router, on both profiles: what they fill at, and what a kill does to them."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from marketdata.simulated import SimulatedVenues
from tests.end_to_end.test_orders_ws import Trader, updates
from tests.end_to_end.test_trading_matcher import ledger_is_right, touch_is
from tests.running import STARTED, Client, Message, Process, Router
from tests.trading.floor import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SYMBOL, INSTRUMENT = "BTCUSDT", "BTC-USDT"
VENUES = ("binance", "okx", "kraken")
ASK, DEEP = Decimal(50_000), Decimal(1_000)
ASKS = {"binance": ASK + 5, "okx": ASK, "kraken": ASK + 5}
MONEY = 10_000_000
AROUND_S = 1.0  # a price was shown at most so long before or after it was taken: books come ten times a second
LATE_S = 1.0
SETTLE_S = 90.0
LONG_S = 30
DOWN_S = 2.0  # several slices of LONG_S fall due in it


ORDER = {"symbol": SYMBOL, "side": "buy", "duration_seconds": 5, "slices": 10}


@pytest_asyncio.fixture(loop_scope="module")
async def trader(router: Router) -> Trader:
    """A new user with much money, on a router whose matcher sees the market."""
    name = f"w{uuid.uuid4().hex[:12]}"
    trader = Trader(router, name, await router.register(name))
    for asset, amount in (("USDT", MONEY), ("BTC", 100)):
        (await trader.rest("POST", "/deposit", {"asset": asset, "amount": amount})).raise_for_status()
    async with asyncio.timeout(SETTLE_S):
        while True:
            tried = await trader.rest("POST", "/orders/twap", {**ORDER, "total_quantity": 1, "slices": 1})
            if tried.status_code == 200 and (await ended(trader, tried.json()["order_id"]))["status"] == "filled":
                break
            assert tried.status_code == 200 or tried.json()["code"] == "no_market", tried.text
            await asyncio.sleep(0.1)
    (await trader.rest("POST", "/account/reset", {"balances": {"USDT": MONEY, "BTC": 100}})).raise_for_status()
    return trader


@pytest_asyncio.fixture(loop_scope="module")
async def deep(router: Router, market: SimulatedVenues, trader: Trader) -> AsyncIterator[SimulatedVenues]:
    """A market that stands still, with more at OKX's touch than anybody here asks for."""
    for venue, ask in ASKS.items():
        market[venue].quote(INSTRUMENT, ASK - 10 - (ask - ASK), DEEP, ask, DEEP)
    await touch_is(router, trader.token, ASK)
    yield market
    for venue in VENUES:
        market[venue].release(INSTRUMENT)


async def place(trader: Trader, **fields: Any) -> Message:
    answer = await trader.rest("POST", "/orders/twap", {**ORDER, "total_quantity": 1, **fields})
    assert answer.status_code == 200, answer.text
    order: Message = answer.json(parse_float=Decimal)
    return order


async def ended(trader: Trader, order_id: str) -> Message:
    """Wait until a parent order has ended, and return it."""
    async with asyncio.timeout(SETTLE_S):
        while True:
            answer = (await trader.rest("GET", f"/orders/{order_id}")).raise_for_status()
            order: Message = answer.json(parse_float=Decimal)
            if order["is_completed"]:
                return order
            await asyncio.sleep(0.1)


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Recorder:
    """What the venues show to a client, while it lasts: side, venue and price → when it was shown."""

    def __init__(self) -> None:
        self.shown: dict[tuple[str, str, Decimal], list[float]] = defaultdict(list)

    async def record(self, client: Client) -> None:
        for venue in VENUES:
            await client.send(action="subscribe", stream="best_touch", symbol=SYMBOL, exchange=venue)
            await client.send(action="subscribe", stream="orderbook", symbol=SYMBOL, exchange=venue, depth=20)
        last: dict[str, dict[str, list[Decimal]]] = defaultdict(dict)
        while True:
            message = await client.next()
            data, at_s = message.get("data", {}), float(message.get("timestamp", 0))
            if message["type"] == "best_touch":
                self._note(last, message["type"], data["exchange"], [data["best_ask"]], [data["best_bid"]], at_s)
            elif message["type"] == "orderbook":
                asks, bids = ([level[0] for level in data[side]] for side in ("asks", "bids"))
                self._note(last, message["type"], data["exchange"], asks, bids, at_s)

    def _note(
        self, last: dict[str, dict[str, list[Decimal]]], stream: str, venue: str, asks: list[Any], bids: list[Any],
        at_s: float,
    ) -> None:  # fmt: skip
        """Note what is shown now, and that what was shown before it was there until now."""
        for side, prices in (("buy", asks), ("sell", bids)):
            key = f"{stream} {venue} {side}"
            for price in (*last[key].get("", []), *prices):
                if price is not None:
                    self.shown[side, venue, Decimal(price)].append(at_s)
            last[key] = {"": prices}

    def was_shown(self, side: str, venue: str, price: Decimal, at_s: float) -> bool:
        return any(abs(shown_s - at_s) <= AROUND_S for shown_s in self.shown.get((side, venue, price), ()))


async def test_ten_slices_fill_at_prices_that_their_venues_showed(
    router: Router, market: SimulatedVenues, trader: Trader
) -> None:
    """A moving market, a buy over all venues, a sell on one, and more than a touch shows."""
    recorder = Recorder()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(router.client(trader.token))
        recording = asyncio.create_task(recorder.record(client))
        stack.callback(recording.cancel)
        await eventually(lambda: len({(side, venue) for side, venue, _ in recorder.shown}) == 2 * len(VENUES))
        placed = [
            await place(trader, total_quantity="3.00000003"),
            await place(trader, side="sell", total_quantity="0.5", exchange="kraken"),
        ]
        orders = [await ended(trader, order["order_id"]) for order in placed]
        await asyncio.sleep(AROUND_S)  # what is shown after the last slice counts too
    for order in orders:
        assert (order["status"], order["slices_executed"], order["slices_missed"]) == ("filled", 10, 0)
        assert order["executed_quantity"] == order["total_quantity"]
        slices = [one["slice"] for one in order["executions"]]
        assert (slices, slices[-1]) == (sorted(set(slices)), 9)
        assert len(slices) >= 5, "a busy machine may run two together, told as the later one, but not all"
        done = Decimal(0)
        for one in order["executions"]:
            done += one["quantity"]
            assert done <= order["total_quantity"] * (one["slice"] + 1) / 10, "ahead of its schedule"
        answer = await trader.rest("GET", f"/fills?order={order['order_id']}&limit=1000")
        receipts = answer.raise_for_status().json(parse_float=Decimal)["fills"]
        assert sum(one["quantity"] for one in receipts) == order["total_quantity"]
        unseen = [
            (one["slice"], one["exchange"], one["price"])
            for one in receipts
            if not recorder.was_shown(one["side"], one["exchange"], one["price"], seconds(one["executed_at"]))
        ]
        assert not unseen, f"of {len(receipts)} fills nobody else saw {unseen}"
        for one in receipts:
            level = one["touch"]["level"]
            assert (level["price"], level["exchange"]) == (one["price"], one["exchange"])
            assert one["quantity"] <= level["size"]
        for one in order["executions"]:
            assert 0 <= seconds(one["executed_at"]) - seconds(one["scheduled_at"]) < LATE_S
    assert {one["exchange"] for one in orders[1]["executions"]} == {"kraken"}
    assert sum(len(one["fills"]) for one in orders[0]["executions"]) > 10, "more than a level, now and then"
    await ledger_is_right(router)


async def test_a_kill_in_the_middle_changes_no_total_and_runs_no_slice_twice(
    router: Router, deep: SimulatedVenues, trader: Trader
) -> None:
    async with router.client(trader.token) as client:
        whole = await place(trader, total_quantity="3.00000007", duration_seconds=LONG_S, slices=2 * LONG_S)
        short = await place(trader, total_quantity="1", duration_seconds=2, slices=4)
        tight = await place(trader, total_quantity="1", duration_seconds=LONG_S, slices=2 * LONG_S, limit_price="49000")
        await client.until(lambda message: _slice(message) >= 4)
        heard = [message["seq"] for message in updates(client)]
    await kill_and_start(router)
    await touch_is(router, trader.token, ASK)
    orders = [await ended(trader, one["order_id"]) for one in (short, whole, tight)]

    paid = Decimal(0)
    for order in orders:
        slices = [one["slice"] for one in order["executions"]]
        assert slices == sorted(set(slices)), "a slice ran twice"
        assert sum(one["quantity"] for one in order["executions"]) == order["executed_quantity"]
        assert order["slices_executed"] + order["slices_missed"] == order["slices"]
        fills = [fill for one in order["executions"] for fill in one["fills"]]
        assert all(fill["price"] == ASKS[fill["exchange"]] for fill in fills)
        paid += sum((fill["price"] * fill["quantity"] for fill in fills), Decimal(0))
    assert (orders[0]["status"], orders[0]["reason"]) in (("filled", None), ("partially_filled", "twap_rest"))
    assert (orders[1]["status"], orders[1]["executed_quantity"]) == ("filled", Decimal("3.00000007"))
    assert orders[1]["slices_missed"] > 0, "the kill was too short to matter"
    assert (orders[2]["status"], orders[2]["reason"], orders[2]["executions"]) == ("cancelled", "twap_rest", [])
    bought = sum((Decimal(order["executed_quantity"]) for order in orders), Decimal(0))
    assert await trader.balance("BTC") == (100 + bought, Decimal(0))
    assert await trader.balance("USDT") == (MONEY - paid, Decimal(0))
    await ledger_is_right(router)
    await every_update_is_told_once(router, trader, heard)


async def kill_and_start(router: Router) -> None:
    """Kill everything, or of a router in parts the one that runs the slices; start it again when slices were missed."""
    if len(router.processes) == 1:
        await router.kill()
        await asyncio.sleep(DOWN_S)
        await router.start()
        return
    number = router.roles.index("matcher")
    await router.kill_one(number)
    await asyncio.sleep(DOWN_S)
    router.processes[number] = Process("matcher", {**router.environment, "PORT": "0"})
    await router.processes[number].start()
    await router.processes[number].logged(STARTED["matcher"])


def _slice(message: Message) -> int:
    fill = message["data"]["fill"] if message["type"] == "order_update" else None
    return -1 if fill is None else int(fill["slice"])


async def every_update_is_told_once(router: Router, trader: Trader, heard: list[int]) -> None:
    """Resume from the beginning: the numbers are 1, 2, 3 …, and each fill is in one of them."""
    fills = (await trader.rest("GET", "/fills?limit=1000")).raise_for_status().json(parse_float=Decimal)
    assert fills["next_cursor"] is None
    for web in range(len(router.urls)):
        async with router.client(trader.token, web=web) as client:
            await client.send(action="resume", from_seq=0)
            resumed = await client.until(lambda message: message["type"] == "resumed")
            told: list[Message] = []
            while len(told) < resumed["last_seq"]:
                told.append(await client.until(lambda message: message["type"] == "order_update"))
            assert [message["seq"] for message in told] == list(range(1, resumed["last_seq"] + 1))
            assert set(heard) <= {message["seq"] for message in told}
            receipts = [message["data"]["fill"] for message in told if message["data"]["fill"] is not None]
            assert sorted(one["fill_id"] for one in receipts) == sorted(one["fill_id"] for one in fills["fills"])
