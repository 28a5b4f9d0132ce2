"""Two market data libraries, each fed frames through its own message handler. No sockets.

Runs under a Python that has them (see `requirements.txt` beside this file) and knows nothing of
the router: `python feed_libraries.py ccxt|cryptofeed FILE`, where the file holds one JSON text,
{"frames": [...], "snapshot": {...} | null}. Each line on stdin is one pass over the frames with
a fresh exchange; it is answered by {"cpu_s", "events"}, CPU seconds and what the library told.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

MARKET = {"base": "BTC", "quote": "USDT", "id": "BTCUSDT"}
Pass = Callable[[list[str], dict[str, Any] | None], Awaitable[tuple[float, Counter[str]]]]


async def ccxt_pass(frames: list[str], snapshot: dict[str, Any] | None) -> tuple[float, Counter[str]]:
    """Hand frames to ccxt.pro's client, as its receive loop does, and count what it resolves."""
    import ccxt.pro

    exchange = ccxt.pro.binance()
    exchange.set_markets([exchange.safe_market_structure(_ccxt_market())])
    client = exchange.client("wss://stream.binance.com:9443/stream")
    told: Counter[str] = Counter()
    resolve = client.resolve

    def counting(result: object, message_hash: str | None) -> object:
        told[str(message_hash).partition(":")[0]] += 1
        return resolve(result, message_hash)

    client.resolve = counting
    if snapshot is not None:
        book = exchange.orderbooks["BTC/USDT"] = exchange.order_book({}, 1000)
        book.reset(exchange.parse_order_book(snapshot, "BTC/USDT"))
        book["nonce"] = snapshot["lastUpdateId"]
    try:
        before = time.process_time()
        for frame in frames:
            client.handle_text_or_binary_message(frame)
        return time.process_time() - before, told
    finally:
        await exchange.close()


def _ccxt_market() -> dict[str, Any]:
    base, quote, name = MARKET["base"], MARKET["quote"], MARKET["id"]
    return {
        "id": name, "lowercaseId": name.lower(), "symbol": f"{base}/{quote}", "type": "spot", "spot": True,
        "base": base, "quote": quote, "baseId": base, "quoteId": quote, "active": True, "contract": False,
        "precision": {"amount": 1e-05, "price": 0.01},
    }  # fmt: skip


async def cryptofeed_pass(frames: list[str], snapshot: dict[str, Any] | None) -> tuple[float, Counter[str]]:
    """Await cryptofeed's handler for each frame, with callbacks that count."""
    from decimal import Decimal

    from cryptofeed.defines import ASK, BID, L2_BOOK, TICKER, TRADES
    from cryptofeed.exchanges import Binance
    from cryptofeed.symbols import Symbols
    from cryptofeed.types import OrderBook

    pair = {"symbol": MARKET["id"], "baseAsset": MARKET["base"], "quoteAsset": MARKET["quote"]}
    listed = {"symbols": [pair | {"status": "TRADING", "filters": [{"tickSize": "0.01"}]}]}
    Symbols.set(Binance.id, *Binance._parse_symbol_data(listed))
    told: Counter[str] = Counter()

    def counts(kind: str) -> Callable[[object, float], Awaitable[None]]:
        async def count(_told: object, _received_s: float) -> None:
            told[kind] += 1

        return count

    channels = [TICKER, TRADES, L2_BOOK]
    feed = Binance(symbols=["BTC-USDT"], channels=channels, callbacks={kind: counts(kind) for kind in channels})
    if snapshot is not None:
        feed.last_update_id["BTC-USDT"] = snapshot["lastUpdateId"]
        sides = {name: {Decimal(price): Decimal(size) for price, size in snapshot[name]} for name in ("bids", "asks")}
        feed._l2_book["BTC-USDT"] = OrderBook(Binance.id, "BTC-USDT", max_depth=0, **sides)
        assert {BID, ASK} == {"bid", "ask"}
    received_s = time.time()
    before = time.process_time()
    for frame in frames:
        await feed.message_handler(frame, None, received_s)
    return time.process_time() - before, told


PASSES: dict[str, Pass] = {"ccxt": ccxt_pass, "cryptofeed": cryptofeed_pass}


def main(library: str, path: str) -> None:
    given = json.loads(Path(path).read_text())
    for _ in sys.stdin:
        cpu_s, events = asyncio.run(PASSES[library](given["frames"], given["snapshot"]))
        print(json.dumps({"cpu_s": cpu_s, "events": events}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
