"""A TWAP order: buys in equal slices over a time, shows each one, and what the whole cost beside the market.

python examples/twap.py --url http://127.0.0.1:8000 --seconds 30 --slices 6
"""

import argparse
import asyncio
import secrets
import sys
from decimal import Decimal

from router_client import DEFAULT_URL, AsyncAPIClient, RouterError, TwapOrder

MONEY = Decimal(10_000_000)


def show_slices(order: TwapOrder) -> None:
    for one in order.executions:
        print(f"slice {one.slice}: {one.quantity} at {one.price} on {one.exchange}, due {one.scheduled_at:%H:%M:%S.%f}")


def show_result(order: TwapOrder) -> None:
    print(f"{order.status}: {order.executed_quantity} of {order.total_quantity} at {order.average_price} on average")
    for name, price, slippage in (
        ("the market when it came", order.arrival_price, order.slippage_arrival_bps),
        ("the market over its time", order.market_twap, order.slippage_twap_bps),
    ):
        if price is not None and slippage is not None:
            print(f"{name}: {price}, {abs(slippage)} basis points {'better' if slippage > 0 else 'worse'} than ours")


async def run(asked: argparse.Namespace) -> None:
    async with AsyncAPIClient(asked.url) as client:
        await client.register(f"twap-{secrets.token_hex(4)}", "password123")
        await client.deposit("USDT", MONEY)
        async with client.order_updates() as updates:  # before the order, so that its first slice is told too
            order = await client.place_twap(
                asked.symbol,
                "buy",
                asked.quantity,
                duration_seconds=asked.seconds,
                slices=asked.slices,
                exchange=asked.exchange,
            )
            print(f"{order.message}; no slice pays more than {order.limit_price}")
            async for update in updates:
                if update.twap is None or update.twap.order_id != order.order_id:
                    continue
                if update.fill is not None:
                    print(f"{update.twap.percent_executed:6} %: {update.fill.quantity} at {update.fill.price}")
                if update.twap.is_completed:
                    break
        order = await client.twap(order.order_id)
        show_slices(order)
        show_result(order)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--symbol", default="BTCUSDT")
    parser.add_argument("--quantity", type=Decimal, default=Decimal("0.06"))
    parser.add_argument("--seconds", type=int, default=30, help="over how long")
    parser.add_argument("--slices", type=int, default=6, help="in how many parts")
    parser.add_argument("--exchange", default="all")
    try:
        asyncio.run(run(parser.parse_args()))
    except RouterError as error:
        print(f"it did not work: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
