"""What the servers of the delivery bench share: the event that they deliver, and when."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Deliver = Callable[[int], Awaitable[None]]


def trade(number: int) -> dict[str, Any]:
    """Return one event in the form of the router's own trade frames, of some 200 bytes."""
    return {
        "type": "trades",
        "topic": "BTCUSDT.trades",
        "timestamp": time.time(),
        "data": {
            "symbol": "BTCUSDT",
            "exchange": "binance",
            "trade_id": str(number),
            "price": 61837.63,
            "quantity": 0.00713,
            "side": "buy",
            "timestamp": time.time(),
        },
    }


async def play(deliver: Deliver, *, events: int, per_second: float, burst: int = 1) -> None:
    """Say that the server is up; on a line of stdin deliver the events, at a steady pace, `burst` at a time."""
    loop = asyncio.get_running_loop()
    print(json.dumps("up"), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    start_s = time.monotonic()
    for number in range(1, events + 1):
        if (number - 1) % burst == 0:
            await asyncio.sleep(start_s + number / per_second - time.monotonic())
        await deliver(number)
