"""Every stream at once over one WebSocket, for a while.

python examples/streams.py --url http://127.0.0.1:8000 --symbol ETHUSDT --seconds 10
"""

import argparse
import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from router_client import DEFAULT_URL, AsyncAPIClient, Notice, Stream


async def follow(name: str, stream: Stream[Any], words: Callable[[Any], str]) -> None:
    """Print a stream until it is cancelled. Each has its own pace: none waits for another."""
    async with stream:
        async for item in stream:
            print(f"{name:>10}  {words(item)}")


def notice(what: Notice) -> None:
    print(f"{'notice':>10}  {what}")


async def run(url: str, symbol: str, seconds: float) -> None:
    async with AsyncAPIClient(url, on_notice=notice) as client:
        await client.register(f"streams-{secrets.token_hex(4)}", "password123")
        streams: list[tuple[str, Stream[Any], Callable[[Any], str]]] = [
            (
                "touch",
                client.best_touch(symbol),
                lambda t: f"{t.best_bid} ({t.best_bid_exchange}) … {t.best_ask} ({t.best_ask_exchange})",
            ),
            ("trade", client.trades(symbol), lambda t: f"{t.side} {t.quantity} at {t.price} on {t.exchange}"),
            ("kline", client.klines(symbol, interval="1s"), lambda k: f"{k.open} {k.high} {k.low} {k.close}"),
            ("ewma", client.ewma(symbol, half_life=10), lambda e: f"{e.value:.4f}"),
            ("book", client.orderbook(symbol, depth=5), lambda b: f"{len(b.bids)} bids, {len(b.asks)} asks"),
            ("all books", client.websocket_orderbook(), lambda books: ", ".join(books)),
        ]
        tasks = [asyncio.create_task(follow(*one)) for one in streams]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if not task.done():
                task.cancel()
        failures = [one for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, Exception)]
        if failures:
            raise failures[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--symbol", default="BTCUSDT")
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    asyncio.run(run(asked.url, asked.symbol, asked.seconds))


if __name__ == "__main__":
    main()
