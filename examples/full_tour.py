"""Everything that the router does, once, on a running one: market, streams, money, orders, what became of them.

    python examples/full_tour.py --url http://127.0.0.1:8000

It ends with 0 when all of it worked.
"""

import argparse
import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

from router_client import DEFAULT_URL, AsyncAPIClient, Refused, RouterError, Stream

T = TypeVar("T")

SYMBOL = "BTCUSDT"
PATIENCE_S = 20.0  # for the first item of a stream


def title(words: str) -> None:
    print(f"\n== {words}")


def tell(name: str, value: Any) -> None:
    print(f"   {name:<22} {value}")


@asynccontextmanager
async def expected(code: str) -> AsyncIterator[None]:
    """Show that the router refuses this, and why."""
    try:
        yield
    except Refused as refused:
        if refused.code != code:
            raise
        tell("refused, as it should", refused)
    else:
        raise SystemExit(f"this should have been refused with {code}")


async def first(stream: Stream[T]) -> T:
    async with asyncio.timeout(PATIENCE_S), stream:
        return await anext(stream)


async def look_around(client: AsyncAPIClient) -> None:
    title("the router")
    info, status = await client.info(), await client.status()
    tell("version", f"{info.version}, paper trading, the market is {status.source}")
    tell("pairs", ", ".join(info.pairs))
    for name, venue in status.exchanges.items():
        tell(name, f"{venue.state}, {venue.frames_per_second:.0f} frames/s, carries {len(await client.pairs(name))}")


async def see_the_market(client: AsyncAPIClient) -> None:
    title(f"every stream of {SYMBOL}")
    touch = await first(client.best_touch(SYMBOL))
    tell("best touch", f"{touch.best_bid} on {touch.best_bid_exchange}, {touch.best_ask} on {touch.best_ask_exchange}")
    trade = await first(client.trades(SYMBOL))
    tell("trade", f"{trade.side} {trade.quantity} at {trade.price} on {trade.exchange}")
    kline = await first(client.klines(SYMBOL, interval="1s"))
    tell("candle of a second", f"{kline.open} {kline.high} {kline.low} {kline.close}, {kline.trades} trades")
    ewma = await first(client.ewma(SYMBOL, half_life=10))
    tell("average of 10 s", ewma.value)
    book = await first(client.orderbook(SYMBOL, depth=3))
    tell("book", f"{len(book.bids)} bids from {book.bids[0].price}, {len(book.asks)} asks from {book.asks[0].price}")
    images = await first(client.websocket_orderbook())
    tell("all books", ", ".join(f"{name}: {len(symbols)}" for name, symbols in images.items()))
    history = await client.get_klines(SYMBOL, interval="1s", limit=5)
    tell("candles kept", len(history.candles))


async def trade(client: AsyncAPIClient) -> None:
    title("money and orders")
    tell("deposit", f"{(await client.deposit('USDT', 100_000)).new_balance} USDT")
    async with client.order_updates() as updates:
        bought = await client.place_order(SYMBOL, "buy", "0.1", order_type="market")
        tell("bought", f"{bought.filled_quantity} at {bought.execution_price} on {bought.exchange}")
        update = await anext(updates)
        tell("told of it", f"order update number {update.seq}, {update.order.status}")

        bid = (await client.get_orderbook(SYMBOL, depth=1)).bids[0].price
        resting = await client.place_order(SYMBOL, "buy", "0.1", bid / 2)
        tell("limit order", f"{resting.status} at {resting.price}")
        balance = (await client.balance())["USDT"]
        tell("held for it", f"{balance.reserved} of {balance.total} USDT")
        amended = await client.amend_order(resting.token_id, quantity="0.2")
        tell("amended", f"now {amended.quantity}")
        crossed = await client.amend_order(resting.token_id, price=bid * 2)
        tell("price over the market", f"{crossed.status} at {crossed.execution_price}, never worse than the touch")
        tell("told of it", f"order update number {(await anext(updates)).seq}")

        over_socket = await client.ws.submit_order(SYMBOL, "sell", "0.05", bid * 2)
        tell("over the WebSocket", f"{over_socket.side} at {over_socket.price}, {over_socket.status}")
        tell("cancelled", (await client.ws.cancel_order(over_socket.token_id)).status)
        ioc = await client.place_order(SYMBOL, "sell", "0.05", order_type="ioc")
        tell("immediate or cancel", f"{ioc.status}, {ioc.filled_quantity} of {ioc.quantity}")

    twap = await client.place_twap(SYMBOL, "buy", "0.03", duration_seconds=2, slices=3)
    async with client.order_updates(from_seq=0) as updates:
        async for update in updates:
            if update.twap is not None and update.twap.is_completed:
                break
    twap = await client.twap(twap.order_id)
    tell("TWAP order", f"{twap.status}, {twap.slices_executed} slices at {twap.average_price} on average")
    tell("beside the market", f"{twap.market_twap} in its time, {twap.slippage_twap_bps} basis points of slippage")

    async with expected("order_not_open"):
        await client.cancel_order(over_socket.token_id)
    async with expected("duplicate_token_id"):
        await client.place_order(SYMBOL, "buy", 1, 1, token_id=resting.token_id)
    async with expected("insufficient_funds"):
        await client.place_order(SYMBOL, "buy", 1_000, bid)


async def take_stock(client: AsyncAPIClient) -> None:
    title("what became of it")
    for order in (await client.orders(limit=10)).orders:
        tell(order.token_id, f"{order.order_type} {order.side}, {order.status}, {order.filled_quantity} filled")
    balances = await client.balance()
    totals: dict[str, Decimal] = {}
    async for entry in client.iter_ledger():
        totals[entry.asset] = totals.get(entry.asset, Decimal(0)) + entry.amount
    for asset, total in totals.items():
        if balances[asset].total != total:
            raise SystemExit(f"the ledger of {asset} says {total}, the balance {balances[asset].total}")
        tell(asset, f"{total}, by the balance and by the sum of the ledger")


async def tour(url: str) -> None:
    async with AsyncAPIClient(url) as client:
        await look_around(client)
        name = f"tour-{secrets.token_hex(4)}"
        title("an account")
        tell("registered", (await client.register(name, "password123")).username)
        await see_the_market(client)
        await trade(client)
        await take_stock(client)
    print("\nall of it worked")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=DEFAULT_URL)
    try:
        asyncio.run(tour(parser.parse_args().url))
    except RouterError as error:
        print(f"it did not work: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
