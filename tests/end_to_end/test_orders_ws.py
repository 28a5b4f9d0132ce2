"""Orders over the WebSocket and their execution reports, on both profiles."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from marketdata.simulated import SimulatedVenues
from tests.running import ANSWER_S, ROOT, Client, Message, Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SYMBOL, INSTRUMENT = "BTCUSDT", "BTC-USDT"
VENUES = ("binance", "okx", "kraken")
BID, ASK = Decimal(49_990), Decimal(50_000)  # OKX shows both, the others are worse
tokens = (f"token-{number}" for number in itertools.count(1))


class Trader:
    """A user with money, over REST on a chosen web process."""

    def __init__(self, router: Router, name: str, token: str) -> None:
        self.router = router
        self.name = name
        self.token = token

    async def rest(self, method: str, path: str, body: Any = None, *, web: int = 0) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(base_url=self.router.urls[web], headers=headers, timeout=ANSWER_S) as http:
            return await http.request(method, path, json=body)

    async def balance(self, asset: str = "USDT") -> tuple[Decimal, Decimal]:
        """Return total and reserved."""
        found = (await self.rest("GET", "/balance")).raise_for_status().json(parse_float=Decimal)
        return Decimal(found["total"][asset]), Decimal(found["reserved"][asset])

    async def buy(self, quantity: str = "0.001", *, web: int = 0) -> Message:
        answer = await self.rest("POST", "/orders", market_order(quantity), web=web)
        assert answer.status_code == 201, answer.text
        made: Message = answer.json(parse_float=Decimal)
        return made


def market_order(quantity: str = "0.001", **fields: Any) -> Message:
    made = {"token_id": next(tokens), "symbol": SYMBOL, "side": "buy", "order_type": "market", "quantity": quantity}
    return {**made, **fields}


def limit_order(price: str, quantity: str = "0.001", **fields: Any) -> Message:
    return {**market_order(quantity), "order_type": "limit", "price": price, **fields}


def updates(client: Client) -> list[Message]:
    return [message for message in client.messages if message["type"] == "order_update"]


def seqs(client: Client) -> list[int]:
    return [message["seq"] for message in updates(client)]


async def hear(client: Client, count: int, timeout_s: float = ANSWER_S) -> list[int]:
    """Read until so many updates came; return the numbers of all."""
    async with asyncio.timeout(timeout_s):
        while len(updates(client)) < count:
            await client.next(timeout_s)
    return seqs(client)


@pytest_asyncio.fixture(loop_scope="module")
async def trader(router: Router, market: SimulatedVenues) -> AsyncIterator[Trader]:
    """A new user with 100 000 USDT, on a market whose touch is OKX's."""
    for venue in VENUES:
        worse = Decimal(0 if venue == "okx" else 5)
        market[venue].quote(INSTRUMENT, BID - worse, Decimal(1), ASK + worse, Decimal(2))
    name = f"t{uuid.uuid4().hex[:12]}"
    trader = Trader(router, name, await router.register(name))
    (await trader.rest("POST", "/deposit", {"asset": "USDT", "amount": 100_000})).raise_for_status()
    for web in range(len(router.urls)):
        async with router.client(trader.token, web=web) as client:
            await client.send(action="subscribe", stream="best_touch", symbol=SYMBOL)
            await client.until(lambda message: message.get("data", {}).get("best_ask") == ASK, timeout_s=20)
    yield trader
    for venue in VENUES:
        market[venue].release(INSTRUMENT)


async def test_an_order_is_submitted_amended_and_cancelled_over_the_socket(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        order = limit_order("40000", "0.5")
        answer = await client.ask(action="submit_order", **order)
        assert (answer["type"], answer["order"]["status"]) == ("order_submitted", "open")
        assert answer["order"]["token_id"] == order["token_id"]
        assert await trader.balance() == (100_000, 20_000)
        answer = await client.ask(action="modify_order", token_id=order["token_id"], price=30_000, quantity="1")
        assert (answer["type"], answer["order"]["price"], answer["order"]["quantity"]) == ("order_modified", 30_000, 1)
        assert await trader.balance() == (100_000, 30_000)
        error = await client.ask(action="modify_order", order_id=answer["order"]["id"], quantity=4)
        assert (error["type"], error["code"]) == ("error", "insufficient_funds")
        answer = await client.ask(action="cancel_order", order_id=answer["order"]["id"])
        assert (answer["type"], answer["order"]["status"]) == ("order_cancelled", "cancelled")
        assert await trader.balance() == (100_000, 0)
        error = await client.ask(action="cancel_order", token_id=order["token_id"])
        assert error["code"] == "order_not_open"
        error = await client.ask(action="cancel_order", token_id="never-seen")
        assert (error["code"], error["token_id"]) == ("order_not_found", "never-seen")
        error = await client.ask(action="submit_order", **order)
        assert (error["code"], error["order"]["status"]) == ("duplicate_token_id", "cancelled")
        assert updates(client) == [], "updates are for executions"


async def test_an_order_over_rest_is_told_to_every_socket_of_its_user_alone(router: Router, trader: Trader) -> None:
    async with AsyncExitStack() as stack:
        webs = range(len(router.urls))
        mine = [await stack.enter_async_context(router.client(trader.token, web=web)) for web in (*webs, *webs)]
        other = await stack.enter_async_context(router.client(await router.register("stranger")))
        for client in (*mine, other):
            assert (await client.next())["type"] == "info"
        made = [await trader.buy(web=web) for web in (*webs, *webs)]
        for client in mine:
            assert await hear(client, len(made)) == list(range(1, len(made) + 1))
            for order, update in zip(made, updates(client), strict=True):
                assert update["data"]["order"] == order
                assert update["data"]["fill"] == order["fills"][0]
                for name in ("token_id", "symbol", "side", "status", "price", "quantity", "filled_quantity", "exchange",
                             "execution_price", "order_id"):  # fmt: skip
                    assert update[name] == order[name], name
            assert (update["exchange"], update["execution_price"]) == ("okx", ASK)
        await asyncio.gather(*(client.during(0.5) for client in (*mine, other)))
        assert all(len(updates(client)) == len(made) for client in mine), "each once"
        assert updates(other) == []


async def test_the_answer_comes_before_the_updates_of_its_order(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        orders = [market_order() for _ in range(40)]
        for order in orders:
            await client.send(action="submit_order", id=order["token_id"], **order)
        await hear(client, len(orders))
        answered = [message["id"] for message in client.messages if message["type"] == "order_submitted"]
        assert answered == [order["token_id"] for order in orders], "answered in order"
        seen: set[str] = set()
        for message in client.messages[1:]:
            if message["type"] == "order_submitted":
                seen.add(message["order"]["token_id"])
            else:
                assert message["token_id"] in seen
        assert seqs(client) == list(range(1, len(orders) + 1))


async def test_commands_of_every_kind_are_answered_in_their_order(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        await client.next()
        for number in range(0, 500, 5):
            await client.send(action="submit_order", id=number, **limit_order("1", "0.00001"))
            await client.send(action="submit_order", id=number + 1, **limit_order("nonsense"))
            await client.send(action="cancel_order", id=number + 2, token_id="never-seen")
            await client.send(action="ping", id=number + 3)
            await client.send(action="nonsense", id=number + 4)
        answers = [await client.next() for _ in range(500)]
    assert [answer["id"] for answer in answers] == list(range(500))
    kinds = [answer.get("code", answer["type"]) for answer in answers]
    assert kinds == ["order_submitted", "invalid", "order_not_found", "pong", "unknown_action"] * 100


async def test_an_amended_order_that_crosses_is_answered_and_then_told(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        order = limit_order("40000")
        await client.ask(action="submit_order", **order)
        answer = await client.ask(action="modify_order", token_id=order["token_id"], price=50_001)
        assert (answer["type"], answer["order"]["status"]) == ("order_modified", "filled")
        update = await client.next()
        assert (update["type"], update["execution_price"], update["price"]) == ("order_update", ASK, 50_001)


async def test_a_resting_order_that_the_market_reaches_is_told_on_every_web_process(
    router: Router, trader: Trader, market: SimulatedVenues
) -> None:
    async with router.client(trader.token) as client, router.client(trader.token, web=len(router.urls) - 1) as other:
        assert (await other.next())["type"] == "info"
        answer = await client.ask(action="submit_order", **limit_order("49999"))
        assert answer["order"]["status"] == "open"
        market["kraken"].quote(INSTRUMENT, Decimal(49_980), Decimal(1), Decimal(49_998), Decimal(1))
        for socket in (client, other):
            assert await hear(socket, 1) == [1]
            (update,) = updates(socket)
            assert (update["status"], update["exchange"], update["execution_price"]) == ("filled", "kraken", 49_998)
    assert await trader.balance() == (Decimal("99950.002"), 0)


async def test_an_ioc_that_cannot_be_filled_whole_is_told_with_its_cancelled_rest(
    router: Router, trader: Trader
) -> None:
    async with router.client(trader.token) as client:
        (await trader.rest("POST", "/deposit", {"asset": "USDT", "amount": 1_000_000})).raise_for_status()
        order = limit_order("50000", "5", order_type="ioc")
        answer = await client.ask(action="submit_order", **order)
        assert (answer["order"]["status"], answer["order"]["filled_quantity"]) == ("partially_filled", 2)
        assert await hear(client, 2) == [1, 2]
        first, last = updates(client)
        assert (first["data"]["fill"]["quantity"], last["data"]["fill"]) == (2, None)
        assert last["status"] == "partially_filled"


AMOUNTS = (
    "NaN", "Infinity", "-Infinity", '"NaN"', '"Infinity"', "1e400", '"1e400"', "true", "false", "[1]", "{}", '"abc"',
    "1e308", "1e-300", "9" * 5000, '"1_000"', '" 12 "', '"１２"', '""', "-0", "0", "-1", "0.000000001",
    '"0.000000001"', "9e10", '"0.123456789"', '"' + "1" * 100 + '"', '"\\ud800"', '"\\u0000"',
)  # fmt: skip
NAMES = (
    '""', '" "', '" a"', '"a "', "123", "true", "null", "[]", '"a/b"', '"."', '".."', '"twap"', '"é"', '"\\ud800"',
    '"a\\nb"', '"a\\u0000"', '"\\u202e"', '"' + "x" * 10_000 + '"', '"' + "x" * 129 + '"',
)  # fmt: skip
WRONG_FIELDS = [
    *(("price", amount) for amount in (*AMOUNTS, "null")),
    *(("quantity", amount) for amount in (*AMOUNTS, "null")),
    *(("token_id", name) for name in NAMES),
    *(("side", side) for side in ('"BUY"', '"hold"', '""', "null", "1", '["buy"]', '"\\ud800"')),
    *(("order_type", kind) for kind in ('"LIMIT"', '"stop"', '""', "1", "[]")),
    *(("symbol", symbol) for symbol in ('"NOPEUSDT"', '""', "null", "5", '"BTC USDT"', '"ＢＴＣUSDT"', "[]")),
]
CODES = {"bad_json", "invalid", "unknown_symbol", "insufficient_funds", "amount_too_large"}


def frame(action: str, fields: Message, **raw: str) -> str:
    """Write a command with some values as they are."""
    members = {name: json.dumps(value) for name, value in {"action": action, **fields}.items()} | raw
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


async def test_every_malformed_order_gets_one_error_and_changes_nothing(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        await client.next()
        kept = limit_order("40000", "1", token_id="kept")
        await client.ask(action="submit_order", **kept)
        missing = [{**limit_order("1"), name: None} for name in ("token_id", "symbol", "side", "quantity", "price")]
        frames = [
            *(frame("submit_order", limit_order("40000"), **{name: value}) for name, value in WRONG_FIELDS),
            *(frame("submit_order", {k: v for k, v in order.items() if v is not None}) for order in missing),
            *(frame("modify_order", {"token_id": "kept"}, price=value) for value in AMOUNTS),
            *(frame("modify_order", {"token_id": "kept"}, quantity=value) for value in AMOUNTS),
            *(frame("modify_order", {"price": 1}, token_id=name) for name in NAMES),
            *(frame("cancel_order", {}, token_id=name) for name in NAMES),
            *(frame("cancel_order", {}, order_id=name) for name in NAMES),
            '{"action":"submit_order"}',
            '{"action":"modify_order"}',
            '{"action":"cancel_order"}',
            frame("submit_order", limit_order("1"))[:-1] + ',"price":2}',
        ]
        for text in frames:
            await client.socket.send(text)
            error = await client.next()
            assert (error["type"], error["code"] in CODES) == ("error", True), (text[:150], error)
            if error["code"] == "invalid":
                assert {"loc", "msg", "type"} <= error["detail"][0].keys()
            pong = await client.ask(action="ping")
            assert pong["type"] == "pong"
            assert client.messages[-2] is error, "one error, no more"
        found = (await trader.rest("GET", "/orders")).raise_for_status().json(parse_float=Decimal)["orders"]
        assert [(order["token_id"], order["price"], order["quantity"]) for order in found] == [("kept", 40_000, 1)]
        assert await trader.balance() == (100_000, 40_000)
        assert updates(client) == []


async def test_a_number_with_more_decimals_is_rounded_and_an_exponent_is_fine(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        await client.next()
        await client.socket.send(frame("submit_order", limit_order("1"), price="4e4", quantity="0.10000000000000001"))
        order = (await client.next())["order"]
        assert (order["price"], order["quantity"]) == (40_000, Decimal("0.1"))
        await client.socket.send(frame("submit_order", limit_order("1"), symbol='"btc/usdt"'))
        assert (await client.next())["order"]["symbol"] == SYMBOL


async def test_nobody_trades_without_a_token(router: Router, trader: Trader) -> None:
    async with router.client() as client:
        for action in ("submit_order", "modify_order", "cancel_order", "resume"):
            error = await client.ask(action=action, **limit_order("1"), from_seq=0)
            assert error["code"] == "unauthorized"


async def test_a_socket_that_authenticates_later_hears_from_then_on(router: Router, trader: Trader) -> None:
    await trader.buy()
    async with router.client() as client:
        assert (await client.ask(action="auth", token=trader.token))["type"] == "auth"
        await trader.buy()
        assert await hear(client, 1) == [2]


async def test_resume_tells_what_was_missed_and_goes_on_live(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        for _ in range(3):
            await trader.buy()
        assert await hear(client, 3) == [1, 2, 3]
        told = updates(client)
    for _ in range(3):
        await trader.buy()
    async with router.client(trader.token, web=len(router.urls) - 1) as client:
        info = await client.next()
        assert info["last_seq"] == 6
        answer = await client.ask(action="resume", from_seq=3)
        assert answer == {"type": "resumed", "from_seq": 3, "last_seq": 6, "id": "asked"}
        await trader.buy()
        assert await hear(client, 4) == [4, 5, 6, 7]
        assert (await client.ask(action="resume", from_seq=0))["last_seq"] == 7
        before = len(client.messages)
        await hear(client, 4 + 7)
        assert [message["seq"] for message in client.messages[before:]] == [1, 2, 3, 4, 5, 6, 7]
        assert client.messages[before : before + 3] == told, "a report is told again as it was told"
        assert (await client.ask(action="resume", from_seq=7))["last_seq"] == 7
        assert await client.during(0.4) == []


@pytest.mark.parametrize(
    "from_seq", ["-1", "1", "1e3", "0.5", '"0"', "null", "true", "[0]", "9223372036854775808", "9" * 39, '"\\ud800"']
)
async def test_a_bad_resume_is_told_and_the_socket_hears_on(router: Router, trader: Trader, from_seq: str) -> None:
    async with router.client(trader.token) as client:
        await client.next()
        await client.socket.send(frame("resume", {}, from_seq=from_seq))
        assert (await client.next())["code"] in {"bad_from_seq", "bad_json"}
        await client.send(action="resume")
        assert (await client.next())["code"] == "bad_from_seq"
        await trader.buy()
        assert await hear(client, 1) == [1]


async def test_seq_is_gapless_under_orders_from_everywhere_at_once(router: Router, trader: Trader) -> None:
    each, webs = 40, len(router.urls)
    expected = list(range(1, 5 * each + 1))

    async def over_socket(client: Client) -> None:
        for _ in range(each):
            await client.send(action="submit_order", **market_order("0.0001"))

    async def over_rest(web: int) -> None:
        for _ in range(each):
            await trader.buy("0.0001", web=web)

    async with AsyncExitStack() as stack:
        places = (0, webs - 1, 0, webs - 1)
        clients = [await stack.enter_async_context(router.client(trader.token, web=web)) for web in places]
        for client in clients:
            assert (await client.next())["last_seq"] == 0
        orders = [*(over_socket(client) for client in clients[:3]), over_rest(0), over_rest(webs - 1)]
        await asyncio.gather(*orders, *(hear(client, len(expected), 60) for client in clients))
        for client in clients:
            assert seqs(client) == expected
            assert len({message["token_id"] for message in updates(client)}) == len(expected)
            assert not [message for message in client.messages if message["type"] == "error"]


async def test_a_storm_of_reconnects_under_load_loses_nothing(router: Router, trader: Trader) -> None:
    sockets, orders = 60, 60
    done = asyncio.Event()

    async def trade() -> None:
        for number in range(orders):
            await trader.buy("0.0001", web=number % len(router.urls))
        done.set()

    async def listen(number: int) -> list[int]:
        """Come and go, resuming from what was heard last."""
        heard: list[int] = []
        web = number
        while len(heard) < orders:
            web += 1
            async with router.client(trader.token, web=web % len(router.urls)) as client:
                answer = await client.ask(action="resume", from_seq=heard[-1] if heard else 0)
                assert answer["type"] == "resumed"
                client.messages.clear()  # of a socket that took long to open some came before, and come again
                wanted = 1 + number % 7 if not done.is_set() else orders - len(heard)
                wanted = min(wanted, orders - len(heard))
                await hear(client, wanted, 30)
                heard += seqs(client)
        return heard

    async with asyncio.timeout(120):
        *stories, _ = await asyncio.gather(*(listen(number) for number in range(sockets)), trade())
    for heard in stories:
        assert heard == list(range(1, orders + 1))


DISABLE = """
import sys
import django
django.setup()
from accounts.models import User
assert User.objects.filter(username=sys.argv[1]).update(is_active=False) == 1
"""


async def elsewhere(script: str, trader: Trader) -> None:
    """Run a script beside the router, on its database."""
    environment = {**os.environ, **trader.router.environment, "DJANGO_SETTINGS_MODULE": "router_project.settings"}
    command = [sys.executable, "-c", script, trader.name]
    await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=environment, check=True)


async def test_a_disabled_user_trades_no_more_and_is_cut_off(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        await client.ask(action="submit_order", **limit_order("1"))
        await elsewhere(DISABLE, trader)
        await client.send(action="submit_order", **limit_order("1"))
        assert (await client.next())["code"] == "unauthorized"
        with pytest.raises(ConnectionClosed) as closed:
            await client.until(lambda message: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


SILENT_ORDER = """
import sys
from decimal import Decimal
import django
django.setup()
from accounts.models import User
from core.account import Fees, Market, Offer
from core.events import Side
from core.money import UNITS
from core.orders import OrderType, Terms
from trading.commands import Place
from trading.exchange import Exchange
market = Market((Offer(50_000 * UNITS, UNITS, "okx"),), {"bid": None, "ask": None})
exchange = Exchange(lambda instrument, side: market, takes_part=lambda instrument, venue: True, fees=Fees())
user = User.objects.get(username=sys.argv[1])
terms = Terms("silent", "BTC-USDT", Side.BUY, OrderType.MARKET, None, UNITS // 1000)
(result,), _ = exchange.apply([Place(user.pk, terms)])
assert result.order.status == "filled", result
"""


async def test_what_no_message_told_is_told_within_three_seconds(router: Router, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        await client.next()
        await trader.buy()
        await hear(client, 1)
        await elsewhere(SILENT_ORDER, trader)
        assert await hear(client, 2, 3.0) == [1, 2]
        assert updates(client)[1]["token_id"] == "silent"
