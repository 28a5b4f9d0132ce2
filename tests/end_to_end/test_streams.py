"""What a client of a running router sees, on both profiles."""

import itertools
from collections import defaultdict
from decimal import Decimal
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from marketdata.simulated import SimulatedVenues
from tests.end_to_end.conftest import STALE_AFTER_S
from tests.running import Client, Message, Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SYMBOL, INSTRUMENT = "BTCUSDT", "BTC-USDT"
VENUES = ("binance", "okx", "kraken")
FIELDS = {
    "best_touch": {
        "symbol", "exchange", "best_bid", "best_bid_qty", "best_bid_exchange", "best_ask", "best_ask_qty",
        "best_ask_exchange", "spread", "bid_price", "bid_exchange", "ask_price", "ask_exchange", "timestamp",
    },
    "trades": {"symbol", "exchange", "trade_id", "price", "quantity", "side", "timestamp"},
    "klines": {
        "symbol", "exchange", "interval", "start", "end", "open_time", "close_time", "open", "high", "low", "close",
        "volume", "trades", "is_closed",
    },
    "ewma": {"symbol", "exchange", "half_life", "value", "timestamp"},
    "orderbook": {"symbol", "exchange", "bids", "asks", "timestamp"},
}  # fmt: skip


def of(kind: str, **fields: Any):  # type: ignore[no-untyped-def]
    """Return a test for messages of a type whose data has these values."""

    def wanted(message: Message) -> bool:
        data = message.get("data", {})
        return message["type"] == kind and all(data.get(name) == value for name, value in fields.items())

    return wanted


async def live(client: Client) -> None:
    """Subscribe to each venue's touch until all of them quote, then leave again."""
    for venue in VENUES:
        await client.ask(action="subscribe", stream="best_touch", symbol=SYMBOL, exchange=venue)
    waiting = set(VENUES)
    while waiting:
        message = await client.until(of("best_touch"), timeout_s=20)
        if message["data"]["best_bid"] is not None:
            waiting.discard(message["data"]["exchange"])
    await client.ask(action="unsubscribe")


async def test_every_stream_moves_and_has_the_fields_of_the_contract(router: Router) -> None:
    token = await router.register()
    async with router.client(token) as client:
        info = await client.next()
        assert (info["type"], info["status"], info["auth_status"], info["username"]) == (
            "info", "ok", "authenticated", "alice",
        )  # fmt: skip
        await live(client)
        for stream in FIELDS:
            answer = await client.ask(action="subscribe", stream=stream, symbol="btc/usdt", interval="1s", half_life=5)
            assert (answer["type"], answer["stream"], answer["symbol"], answer["exchange"]) == (
                "subscribed", stream, SYMBOL, "all",
            )  # fmt: skip
        seen: dict[str, set[str]] = defaultdict(set)
        while not all(len(seen[stream]) >= 3 for stream in FIELDS):
            message = await client.next()
            if "data" in message:
                assert FIELDS[message["type"]] <= message["data"].keys()
                assert message["topic"].startswith(f"{SYMBOL}.{message['type']}")
                assert isinstance(message["timestamp"], Decimal)
                seen[message["type"]].add(str(message["data"]))


async def test_the_touch_is_attributed_to_the_venue_that_quotes_it(router: Router, market: SimulatedVenues) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await live(client)
        await client.ask(action="subscribe", stream="best_touch", symbol=SYMBOL)
        quotes = {"binance": ("90000.01", "90000.05"), "okx": ("90000.1", "90000.6"), "kraken": ("90000.0", "90000.1")}
        for venue, (bid, ask) in quotes.items():
            market[venue].quote(INSTRUMENT, Decimal(bid), Decimal("0.5"), Decimal(ask), Decimal("0.25"))
        message = await client.until(
            of("best_touch", best_bid=Decimal("90000.1"), best_ask=Decimal("90000.05"), exchange="all")
        )
        for venue in VENUES:
            market[venue].release(INSTRUMENT)
    data = message["data"]
    assert (data["best_bid_exchange"], data["best_ask_exchange"]) == ("okx", "binance")
    assert (data["bid_exchange"], data["ask_exchange"]) == ("okx", "binance")
    assert (data["best_bid_qty"], data["best_ask_qty"]) == (Decimal("0.5"), Decimal("0.25"))
    assert data["spread"] == Decimal("-0.05")


async def test_each_trade_arrives_once_in_order_and_to_the_digit(router: Router, market: SimulatedVenues) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await live(client)
        await client.ask(action="subscribe", stream="trades", symbol=SYMBOL)
        await client.until(of("trades"))
        made: dict[str, list[tuple[str, Decimal, Decimal, str]]] = {venue: [] for venue in VENUES}
        for number in range(30):
            for venue in VENUES:
                price, size = Decimal("90000.1") + number, Decimal("0.00012") * (number + 1)
                side = "buy" if number % 2 else "sell"
                made[venue].append((str(market[venue].trade(INSTRUMENT, price, size, side)), price, size, side))
        waiting = {(venue, trades[-1][0]) for venue, trades in made.items()}
        while waiting:
            data = (await client.until(of("trades")))["data"]
            waiting.discard((data["exchange"], data["trade_id"]))
    got: dict[str, list[tuple[str, Decimal, Decimal, str]]] = {venue: [] for venue in VENUES}
    for message in client.messages:
        if message["type"] == "trades":
            data = message["data"]
            got[data["exchange"]].append((data["trade_id"], data["price"], data["quantity"], data["side"]))
    assert not [message for message in client.messages if message["type"] == "gap"]
    for venue in VENUES:
        ids = [int(trade[0]) for trade in got[venue]]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert [trade for trade in got[venue] if trade in made[venue]] == made[venue]


async def test_candles_come_every_second_closed_once_and_are_the_same_over_rest(router: Router) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await live(client)
        await client.ask(action="subscribe", stream="klines", symbol=SYMBOL, interval="1s", exchange="okx")
        closed: list[Message] = []
        while len(closed) < 4:
            data = (await client.until(of("klines")))["data"]
            if data["is_closed"]:
                closed.append(data)
        for _ in range(2):  # by then those are stored
            await client.until(of("klines", is_closed=True))
    times = [candle["open_time"] for candle in closed]
    assert times == list(range(times[0], times[0] + 4))
    for candle, later in itertools.pairwise(closed):
        if later["trades"] == 0:
            assert later["open"] == later["high"] == later["low"] == later["close"] == candle["close"]
            assert later["volume"] == 0
    params = {"interval": "1s", "start": times[0], "end": times[-1], "limit": 10}
    async with httpx.AsyncClient(base_url=router.urls[-1]) as http:
        page = (await http.get(f"/klines/okx/{SYMBOL}", params=params)).raise_for_status()
    answer = page.json(parse_float=Decimal)
    assert (answer["exchange"], answer["symbol"], answer["interval"]) == ("okx", SYMBOL, "1s")
    names = ("open", "high", "low", "close", "volume", "trades")
    assert [(candle["timestamp"], *(candle[name] for name in names)) for candle in answer["candles"]] == [
        (candle["open_time"], *(candle[name] for name in names)) for candle in closed
    ]


async def test_the_public_routes_answer(router: Router) -> None:
    async with httpx.AsyncClient(base_url=router.urls[-1]) as http:
        info = (await http.get("/info")).raise_for_status().json()
        assert info["pairs"] == info["trading_pairs"] == ["BTCUSDT", "ETHUSDT"]
        assert info["exchanges"] == list(VENUES)
        assert info["kline_intervals"] == ["1s", "10s", "1m", "5m"]
        assert info["paper"] is True
        assert (await http.get("/exchanges")).json() == list(VENUES)
        assert (await http.get("/exchanges/kraken/pairs")).json() == ["BTCUSDT", "ETHUSDT"]
        for venue in ("okx", "all"):
            book = (await http.get(f"/orderbook/{venue}/{SYMBOL}", params={"depth": 5})).raise_for_status().json()
            assert 1 <= len(book["bids"]) <= 5
            assert len(book["bids"][0]) == (3 if venue == "all" else 2)
            prices = [level[0] for level in book["bids"]]
            assert prices == sorted(prices, reverse=True)
        status = (await http.get("/status")).raise_for_status().json()
        assert status["paper"] is True
        for path in ("/health", "/ready", "/metrics", "/openapi.json", "/docs", "/redoc"):
            assert (await http.get(path)).status_code == 200, path


async def test_the_public_book_socket_sends_an_image_a_second(router: Router) -> None:
    async with router.client(path="/ws/orderbook") as client:
        image = await client.until(lambda message: all(message.get(venue, {}).get(SYMBOL) for venue in VENUES))
        bids = image["okx"][SYMBOL]["bids"]
        assert 1 <= len(bids) <= 10
        assert all(len(level) == 2 for level in bids)
    async with router.client(path="/ws/orderbook/kraken") as client:
        image = await client.until(lambda message: bool(message.get("kraken", {}).get(SYMBOL)))
        assert set(image) == {"kraken"}


async def test_a_stalled_venue_is_told_and_leaves_the_touch(router: Router, market: SimulatedVenues) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await live(client)
        await client.ask(action="subscribe", stream="best_touch", symbol=SYMBOL)
        await client.ask(action="subscribe", stream="best_touch", symbol=SYMBOL, exchange="okx")
        market["okx"].stall(answering=False)
        told = await client.until(lambda message: message["type"] == "venue", timeout_s=STALE_AFTER_S + 3)
        assert (told["exchange"], told["state"]) == ("okx", "stale")
        empty = await client.until(of("best_touch", exchange="okx", best_bid=None, best_ask=None))
        assert empty["data"]["spread"] is None
        market["okx"].resume()
        await client.until(lambda message: message["type"] == "venue" and message["state"] == "live", timeout_s=5)
        await client.until(lambda message: of("best_touch", exchange="okx")(message) and message["data"]["best_bid"])


async def test_older_clients_get_their_own_words(router: Router) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await live(client)
        answer = await client.ask(action="subscribe", data_type="kline", symbol=SYMBOL, exchange="all", interval="1m")
        assert (answer["type"], answer["action"], answer["subscription"]) == (
            "confirmation", "subscribed", "kline:BTCUSDT:all:1m",
        )  # fmt: skip
        await client.until(of("kline"))


async def test_a_restart_tells_its_sockets_to_come_back_and_keeps_the_candles(router: Router) -> None:
    token = await router.register()
    async with httpx.AsyncClient(base_url=router.url) as http:
        before = (await http.get(f"/klines/all/{SYMBOL}", params={"interval": "1s"})).json()["candles"]
    async with router.client(token) as client:
        await client.next()
        await router.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await client.until(lambda message: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    await router.start()
    async with router.client(token) as client:  # the token outlives the restart
        assert (await client.next())["auth_status"] == "authenticated"
    async with httpx.AsyncClient(base_url=router.url) as http:
        after = (await http.get(f"/klines/all/{SYMBOL}", params={"interval": "1s", "limit": 1000})).json()["candles"]
    closed_before = {candle["timestamp"] for candle in before if candle["is_closed"]}
    assert closed_before
    assert closed_before <= {candle["timestamp"] for candle in after}
