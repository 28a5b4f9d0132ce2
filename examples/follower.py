"""A tiny strategy: buy when the price runs above its average, sell when it falls below.

It holds one position of a fixed size at most and sells it at the end. It is here to show how the streams
and orders play together, not to earn anything, not even paper money.

    python examples/follower.py --url http://127.0.0.1:8000 --seconds 60
"""

import argparse
import asyncio
import secrets
import time
from decimal import Decimal

from router_client import DEFAULT_URL, AsyncAPIClient, BestTouch, Ewma, Order, Refused

MONEY = Decimal(100_000)


class Follower:
    """Decides; `touch` and `average` are what it knows of the market."""

    def __init__(self, client: AsyncAPIClient, symbol: str, quantity: Decimal, edge_bps: Decimal) -> None:
        self.client = client
        self.symbol = symbol
        self.quantity = quantity
        self.edge = edge_bps / 10_000
        self.touch: BestTouch | None = None
        self.average: Ewma | None = None
        self.holding = False

    async def decide(self) -> None:
        if self.touch is None or self.average is None or self.touch.best_bid is None or self.touch.best_ask is None:
            return
        middle = (self.touch.best_bid + self.touch.best_ask) / 2
        if not self.holding and middle > self.average.value * (1 + self.edge):
            await self.trade("buy")
        elif self.holding and middle < self.average.value * (1 - self.edge):
            await self.trade("sell")

    async def trade(self, side: str) -> None:
        try:
            order: Order = await self.client.ws.submit_order(self.symbol, side, self.quantity, order_type="market")
        except Refused as refused:  # the market went away just now: there will be another moment
            print(f"not now: {refused}")
            return
        self.holding = side == "buy"
        print(f"{side:>4} {order.quantity} at {order.execution_price} on {order.exchange}")

    async def watch_touch(self) -> None:
        async with self.client.best_touch(self.symbol) as touches:
            async for self.touch in touches:
                await self.decide()

    async def watch_average(self, half_life: float) -> None:
        async with self.client.ewma(self.symbol, half_life=half_life) as averages:
            async for self.average in averages:
                pass


async def run(asked: argparse.Namespace) -> None:
    async with AsyncAPIClient(asked.url) as client:
        await client.register(f"follower-{secrets.token_hex(4)}", "password123")
        await client.deposit("USDT", MONEY)
        follower = Follower(client, asked.symbol, asked.quantity, asked.edge_bps)
        end = time.monotonic() + asked.seconds
        try:
            async with asyncio.timeout(asked.seconds), asyncio.TaskGroup() as tasks:
                tasks.create_task(follower.watch_touch())
                tasks.create_task(follower.watch_average(asked.half_life))
        except TimeoutError:
            print(f"the time is up ({asked.seconds:g} s, {time.monotonic() - end:.1f} s over)")
        if follower.holding:
            await follower.trade("sell")
        result = (await client.balance())["USDT"].total - MONEY
        print(f"result: {result:+} USDT in {len([order async for order in client.iter_orders()])} orders")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--symbol", default="BTCUSDT")
    parser.add_argument("--quantity", type=Decimal, default=Decimal("0.1"))
    parser.add_argument("--half-life", type=float, default=5, help="seconds of the average")
    parser.add_argument("--edge-bps", type=Decimal, default=Decimal("0.2"), help="how far above or below")
    parser.add_argument("--seconds", type=float, default=30, help="how long")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
