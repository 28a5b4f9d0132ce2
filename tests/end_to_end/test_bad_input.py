"""Frames that no client should send: each is told once, and the socket lives."""

import asyncio
import json
import socket
import time
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.running import Client, Message, Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def profile() -> str:
    return "embedded"


SUBSCRIBE = {"action": "subscribe", "stream": "best_touch", "symbol": "BTCUSDT"}
BAD_FRAMES: list[tuple[str | bytes, str]] = [
    ("", "bad_json"),
    ("{", "bad_json"),
    ("not json", "bad_json"),
    ('{"action":"ping"} trailing', "bad_json"),
    ('{"action":"ping","action":"list"}', "bad_json"),
    ('{"action":"ping","x":NaN}', "bad_json"),
    ('{"action":"ping","x":Infinity}', "bad_json"),
    ('{"action":"ping","x":"\\ud800"}', "bad_json"),
    ("[" * 1000, "bad_json"),
    ('{"a":' * 20 + "1" + "}" * 20, "bad_json"),
    ('{"action":"ping","x":' + "9" * 5000 + "}", "bad_json"),
    ("[]", "bad_command"),
    ('[{"action":"ping"}]', "bad_command"),
    ("1", "bad_command"),
    ("null", "bad_command"),
    ("true", "bad_command"),
    ('"ping"', "bad_command"),
    ("{}", "bad_command"),
    ('{"action":1}', "bad_command"),
    ('{"action":null}', "bad_command"),
    ('{"action":"ping","id":{}}', "bad_command"),
    ('{"action":"ping","id":[1]}', "bad_command"),
    (b'{"action":"ping"}', "bad_command"),
    (b"\x00\xff", "bad_command"),
    ('{"action":"PING"}', "unknown_action"),
    ('{"action":"__class__"}', "unknown_action"),
    ('{"action":"buy"}', "unknown_action"),
    ('{"action":"subscribe"}', "unknown_stream"),
    *(
        (json.dumps({**SUBSCRIBE, **wrong}), code)
        for wrong, code in (
            ({"stream": "prices"}, "unknown_stream"),
            ({"stream": None}, "unknown_stream"),
            ({"stream": ["trades"]}, "unknown_stream"),
            ({"symbol": "NOPEUSDT"}, "unknown_symbol"),
            ({"symbol": None}, "unknown_symbol"),
            ({"symbol": 5}, "unknown_symbol"),
            ({"symbol": "BTC USDT"}, "unknown_symbol"),
            ({"symbol": "ＢＴＣUSDT"}, "unknown_symbol"),
            ({"symbol": "B" * 10_000}, "unknown_symbol"),
            ({"exchange": "nyse"}, "unknown_exchange"),
            ({"exchange": 1}, "unknown_exchange"),
            ({"exchange": "\u212araken"}, "unknown_exchange"),  # a Kelvin sign
            ({"exchange": ""}, "unknown_exchange"),
            ({"stream": "klines", "interval": "2m"}, "unknown_interval"),
            ({"stream": "klines", "interval": 60}, "unknown_interval"),
            ({"stream": "klines", "interval": None}, "unknown_interval"),
            ({"stream": "ewma", "half_life": 0}, "bad_half_life"),
            ({"stream": "ewma", "half_life": -1}, "bad_half_life"),
            ({"stream": "ewma", "half_life": "30"}, "bad_half_life"),
            ({"stream": "ewma", "half_life": True}, "bad_half_life"),
            ({"stream": "ewma", "half_life": None}, "bad_half_life"),
            ({"stream": "ewma", "half_life": [30]}, "bad_half_life"),
            ({"stream": "orderbook", "depth": 0}, "bad_depth"),
            ({"stream": "orderbook", "depth": 21}, "bad_depth"),
            ({"stream": "orderbook", "depth": 1.5}, "bad_depth"),
            ({"stream": "orderbook", "depth": "10"}, "bad_depth"),
        )
    ),
    ('{"action":"subscribe","stream":"ewma","symbol":"BTCUSDT","half_life":1e400}', "bad_half_life"),
    ('{"action":"unsubscribe","stream":"prices"}', "unknown_stream"),
    ('{"action":"unsubscribe","symbol":"NOPE"}', "unknown_symbol"),
]


async def test_every_malformed_frame_gets_one_error_and_the_socket_lives(router: Router) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await client.next()
        for frame, code in BAD_FRAMES:
            await client.socket.send(frame)
            error = await client.next()
            assert (error["type"], error["code"]) == ("error", code), frame[:80]
            assert isinstance(error["message"], str)
            assert error["message"]
            pong = await client.ask(action="ping")
            assert pong == {**pong, "type": "pong", "action": "pong", "id": "asked"}
            assert client.messages[-2] is error, "one error, no more"


@pytest.mark.parametrize("answer_id", ["a", 7, 1.5, True, False, None, ""])
async def test_the_id_of_a_command_is_echoed_in_its_answer_and_in_its_error(router: Router, answer_id: Any) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await client.next()
        for action in ("ping", "list", "nonsense"):
            await client.send(action=action, id=answer_id)
            assert (await client.next())["id"] == answer_id


async def test_without_a_token_only_auth_is_answered(router: Router) -> None:
    token = await router.register()
    async with router.client() as client:
        info = await client.next()
        assert info["type"] == "info"
        assert "required" in info["auth_status"]
        for action in ("subscribe", "list", "ping", "submit_order"):
            error = await client.ask(action=action)
            assert (error["type"], error["code"]) == ("error", "unauthorized")
        answer = await client.ask(action="auth", token=token)
        assert (answer["type"], answer["status"], answer["username"]) == ("auth", "ok", "alice")
        assert (await client.ask(action="ping"))["type"] == "pong"
        other = await router.register("bob")
        await client.send(action="auth", token=other)
        assert (await client.next())["code"] == "unauthorized"
        with pytest.raises(ConnectionClosed):
            await client.next()


async def test_an_auth_message_that_comes_at_once_is_answered_first(router: Router) -> None:
    token = await router.register()
    async with router.client() as client:
        await client.send(action="auth", token=token)
        assert await client.next() == {"type": "auth", "status": "ok", "username": "alice"}


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "%00", "x" * 5000])
async def test_a_bad_token_is_told_and_closed_with_1008(router: Router, token: str) -> None:
    async with router.client(token) as client:
        error = await client.next()
        assert (error["type"], error["code"]) == ("error", "unauthorized")
        with pytest.raises(ConnectionClosed) as closed:
            await client.next()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_a_frame_over_64_kib_closes_with_1009(router: Router) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await client.next()
        await client.send(action="ping", padding="x" * 64_000)
        assert (await client.next())["type"] == "pong"
        await client.send(action="ping", padding="x" * 70_000)
        with pytest.raises(ConnectionClosed) as closed:
            await client.until(lambda message: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_a_socket_takes_500_subscriptions_and_a_second_subscribe_is_the_same_one(router: Router) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await client.next()
        for number in range(500):
            await client.send(action="subscribe", stream="ewma", symbol="BTCUSDT", half_life=number + 1, id=number)
        await client.until(lambda message: message.get("id") == 499)
        error = await client.ask(action="subscribe", stream="ewma", symbol="BTCUSDT", half_life=1000)
        assert error["code"] == "too_many_subscriptions"
        again = await client.ask(action="subscribe", stream="ewma", symbol="BTCUSDT", half_life=1)
        assert again["type"] == "subscribed"
        assert len((await client.ask(action="list"))["subscriptions"]) == 500
        gone = await client.ask(action="unsubscribe", stream="ewma")
        assert (gone["type"], gone["count"]) == ("unsubscribed", 500)
        assert (await client.ask(action="list"))["subscriptions"] == []


@pytest.mark.parametrize("path", ["/ws/nothing", "/ws/orderbook/nyse", "/elsewhere"])
async def test_a_socket_that_does_not_exist_says_so(router: Router, path: str) -> None:
    async with router.client(path=path) as client:
        assert (await client.next())["type"] == "error"
        with pytest.raises(ConnectionClosed):
            await client.next()


async def test_a_foreign_web_page_cannot_connect(router: Router) -> None:
    url = router.url.replace("http", "ws", 1) + "/ws"
    with pytest.raises(Exception, match="403"):
        async with connect(url, origin="https://evil.example"):  # type: ignore[arg-type]
            pass
    async with connect(url, origin=router.url) as ours:  # type: ignore[arg-type]
        assert json.loads(await ours.recv())["type"] == "info"


SUBSCRIPTIONS = [
    {"action": "subscribe", "stream": stream, "symbol": symbol, "exchange": exchange, "depth": 20}
    for stream in ("best_touch", "trades", "orderbook")
    for symbol in ("BTCUSDT", "ETHUSDT")
    for exchange in ("all", "binance", "okx", "kraken")
]


async def test_a_client_that_does_not_read_slows_nobody_and_is_dropped(router: Router) -> None:
    """Fifty readers get everything, and at once, while one client stops reading."""
    token = await router.register()
    async with asyncio.TaskGroup() as group:
        opened = [group.create_task(_subscribed(router, token)) for _ in range(50)]
    readers = [task.result() for task in opened]
    try:
        before = await asyncio.gather(*(reader.during(3) for reader in readers))
        dropped = asyncio.create_task(asyncio.to_thread(_wait_until_dropped, _lazy_client(router, token)))
        beside = await asyncio.gather(*(reader.during(4) for reader in readers))
        # Three times: the machine may stand still once, and readers have then to catch up.
        ages = [max(await asyncio.gather(*(_age_of_the_next(reader) for reader in readers))) for _ in range(3)]
        assert await dropped < 15 + 1
        # The market has its moods: what counts is that all get the same, that nothing is missing, nothing is late.
        for messages in (before, beside):
            counts = [len(one) for one in messages]
            assert min(counts) > 60
            assert min(counts) > 0.75 * max(counts)  # a busy machine gives each reader a window of its own
        assert min(ages) < 1
        for reader in readers:
            assert not [message for message in reader.messages if message["type"] == "gap"]
            _assert_no_trade_is_missing(reader.messages)
    finally:
        await asyncio.gather(*(reader.socket.close() for reader in readers))


async def _age_of_the_next(reader: Client) -> float:
    """Return how old the newest message is when it is read, in seconds."""
    message = await reader.until(lambda message: "data" in message)
    return time.time() - float(message["timestamp"])


def _assert_no_trade_is_missing(messages: list[Message]) -> None:
    """Look at the stream over all venues: each venue's ids rise by one (OKX's may stand for several)."""
    ids: dict[tuple[str, str], list[int]] = {}
    for message in messages:
        data = message.get("data", {})
        if message["type"] == "trades" and message["topic"].count(".") == 1 and data["exchange"] != "okx":
            ids.setdefault((data["exchange"], data["symbol"]), []).append(int(data["trade_id"]))
    assert ids
    for seen in ids.values():
        assert seen == list(range(seen[0], seen[0] + len(seen)))


async def _subscribed(router: Router, token: str) -> Client:
    url = router.url.replace("http", "ws", 1) + f"/ws?token={token}"
    client = Client(await connect(url, compression=None, max_queue=None))
    for command in SUBSCRIPTIONS:
        await client.send(**command)
    return client


def _lazy_client(router: Router, token: str) -> socket.socket:
    """Open a socket by hand with a small receive buffer, subscribe to everything, and never read."""
    host, port = router.url.removeprefix("http://").split(":")
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.connect((host, int(port)))
    lazy.sendall(
        f"GET /ws?token={token} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b"101" in lazy.recv(12)
    for command in SUBSCRIPTIONS:
        text = json.dumps(command).encode()
        assert len(text) < 126
        lazy.sendall(bytes((0x81, 0x80 | len(text))) + b"\0\0\0\0" + text)
    return lazy


def _wait_until_dropped(lazy: socket.socket) -> float:
    """Return how long the server kept the socket, without ever reading from it."""
    began_s = time.monotonic()
    with lazy:
        while time.monotonic() - began_s < 40:
            try:
                lazy.sendall(bytes((0x89, 0x80)) + b"\0\0\0\0")  # a ping: fails once the server is gone
            except OSError:
                break
            time.sleep(0.25)
        return time.monotonic() - began_s
