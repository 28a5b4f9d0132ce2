"""From a venue's frame to the execution report that it causes, while 1 000 other frames a second come in.

One venue shows, again and again, the price that a resting order waits for; another keeps the
router busy. Both ends read one clock: a figure holds the venue's socket, the matcher, the
commit (synced to disk), and the way to the client.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from websockets.asyncio.client import ClientConnection, connect

from bench.processes import Failed, free_port, router_environment, running, wait_until_ready
from bench.report import Row, at_most, failed
from marketdata.simulated import SimulatedVenues

GROUP = "reaction"
SYMBOL, INSTRUMENT = "DOTUSDT", "DOT-USDT"
PER_SECOND = 1000
ORDERS = 500
BEYOND_SYNC_MS = 10  # a commit waits for the disk; the rest is ours
ONE, HIGH, WANTED = Decimal(1), Decimal(99), Decimal(50)  # the busy venue asks about 100
ANSWER_S = 10.0


def run(*, quick: bool) -> Iterator[Row]:
    try:
        yield from _measure(30 if quick else ORDERS)
    except Failed as error:
        yield failed(GROUP, "resting order filled", error)


def _measure(orders: int) -> Iterator[Row]:
    busy_port, port = free_port(), free_port()
    frames = PER_SECOND * 120  # more than the orders take
    with running(["-m", "bench.venue_stand_in", str(busy_port), str(PER_SECOND), str(frames)]) as busy:
        busy.answer()
        ages = asyncio.run(_with_market(orders, busy, busy_port, port))
    ages.sort()
    note = f"{orders} orders, one after another, beside {PER_SECOND} frames/s"
    sync_ms = _sync_p99_ms()
    yield Row(GROUP, "frame → order_update, p50", statistics.median(ages), "ms", note=note)
    p99 = ages[int(len(ages) * 0.99)]
    yield at_most(GROUP, "frame → order_update, p99", p99, "ms", sync_ms + BEYOND_SYNC_MS, note="fsync + 10 ms")
    yield Row(GROUP, "frame → order_update, max", ages[-1], "ms")
    yield Row(GROUP, "fsync of this disk, p99", sync_ms, "ms", note="4 KiB appended and synced, 200 times")


async def _with_market(orders: int, busy: Any, busy_port: int, port: int) -> list[float]:
    async with SimulatedVenues([INSTRUMENT], venues=("okx",)) as market:
        settings = {
            "MARKET_SOURCE": "live",
            "VENUES": "binance,okx",
            "BINANCE_WS_URL": f"ws://127.0.0.1:{busy_port}/stream",
            "OKX_WS_URL": market.urls["okx"],
        }
        with (
            router_environment(**settings) as environment,
            running(["manage.py", "run_router", "--port", str(port)], environment) as router,
        ):
            await asyncio.to_thread(wait_until_ready, router, port)
            await market["okx"].connected()
            market["okx"].pause_market()
            token = await asyncio.to_thread(trader, port)
            busy.tell("go")
            async with connect(f"ws://127.0.0.1:{port}/ws?token={token}", compression=None) as socket:
                await _say(socket, action="subscribe", stream="best_touch", symbol=SYMBOL, exchange="okx", id="touch")
                return [await _one(socket, market, number) for number in range(orders)]


async def _one(socket: ClientConnection, market: SimulatedVenues, number: int) -> float:
    """Let an order rest, show its price, and return how long its report took, in milliseconds."""
    await _quoted(socket, market, HIGH)
    order = {"token_id": f"r{number}", "symbol": SYMBOL, "side": "buy", "price": 50, "quantity": 0.01}
    placed = await _say(socket, action="submit_order", id=number, **order)
    if placed["type"] != "order_submitted" or placed["order"]["status"] != "open":
        raise Failed(f"the order does not rest: {placed}")
    began_s = time.perf_counter()
    market["okx"].quote(INSTRUMENT, ONE, ONE, WANTED, ONE)
    async with asyncio.timeout(ANSWER_S):
        while (message := json.loads(await socket.recv()))["type"] != "order_update":
            pass
    age_ms = (time.perf_counter() - began_s) * 1000
    if message["data"]["order"]["token_id"] != f"r{number}":
        raise Failed(f"another order was reported: {message}")
    return age_ms


async def _quoted(socket: ClientConnection, market: SimulatedVenues, ask: Decimal) -> None:
    """Show a price and wait until the router shows it too."""
    market["okx"].quote(INSTRUMENT, ONE, ONE, ask, ONE)
    async with asyncio.timeout(ANSWER_S):
        while json.loads(await socket.recv()).get("data", {}).get("best_ask") != ask:
            pass


async def _say(socket: ClientConnection, **message: Any) -> Any:
    await socket.send(json.dumps(message))
    async with asyncio.timeout(ANSWER_S):
        while (answer := json.loads(await socket.recv())).get("id") != message["id"]:
            pass
    return answer


def trader(port: int) -> str:
    """Register, pay in, and return the access token."""
    tokens = _post(port, "/register", {"username": "trader", "password": "password123"})
    token = str(tokens["access_token"])
    _post(port, "/deposit", {"asset": "USDT", "amount": 1_000_000}, token)
    return token


def _post(port: int, path: str, body: Any, token: str = "") -> Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=ANSWER_S) as answer:
        return json.load(answer)


def _sync_p99_ms() -> float:
    """Return how long this disk takes to make 4 KiB durable."""
    ages = []
    with tempfile.TemporaryDirectory(prefix="router-bench-") as folder, Path(folder, "file").open("wb") as file:
        for _ in range(200):
            began_s = time.perf_counter()
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
            ages.append((time.perf_counter() - began_s) * 1000)
    return sorted(ages)[197]
