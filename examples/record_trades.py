"""Write every trade of some symbols to a CSV file, for a while.

python examples/record_trades.py --url http://127.0.0.1:8000 --file trades.csv --seconds 60 BTCUSDT ETHUSDT
"""

import argparse
import asyncio
import csv
import secrets
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

from router_client import DEFAULT_URL, AsyncAPIClient, Notice, Trade, TradeGap

COLUMNS = ("timestamp", "exchange", "symbol", "trade_id", "side", "price", "quantity")


def tell_holes(notice: Notice) -> None:
    """A record is worth what is known of its holes."""
    if isinstance(notice, TradeGap):
        print(f"missing: {notice.exchange} {notice.symbol} {notice.from_id} to {notice.to_id}", file=sys.stderr)


async def record(url: str, symbols: list[str], seconds: float, file: TextIO) -> int:
    """Write trades as they come; return how many."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    count = 0

    async def write(client: AsyncAPIClient, symbol: str) -> None:
        nonlocal count
        trade: Trade
        async with client.trades(symbol) as trades:
            async for trade in trades:
                rows.writerow([getattr(trade, column) for column in COLUMNS])
                count += 1

    async with AsyncAPIClient(url, on_notice=tell_holes) as client:
        await client.register(f"recorder-{secrets.token_hex(4)}", "password123")
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as writers:
                for symbol in symbols:
                    writers.create_task(write(client, symbol))
        except TimeoutError:
            pass
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("symbols", nargs="*", default=["BTCUSDT"])
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--file", type=Path, help="standard output if absent")
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    with asked.file.open("w", newline="") if asked.file else nullcontext(sys.stdout) as file:
        count = asyncio.run(record(asked.url, asked.symbols, asked.seconds, file))
    print(f"{count} trades", file=sys.stderr)


if __name__ == "__main__":
    main()
