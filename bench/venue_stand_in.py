"""A venue for the latency bench, in Binance's protocol: every frame says when it was sent.

`python -m bench.venue_stand_in PORT PER_SECOND FRAMES`. A trade carries its sending time as its
venue time, a touch as the size of its bid, both in seconds with microseconds.
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

SYMBOLS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LTC", "LINK", "AVAX", "DOT")
TRADE_EVERY = 3  # of a symbol's frames: one trade, then touches
KEEP_LIVE_S = 0.2  # between touches while nothing is measured


class StandIn:
    def __init__(self) -> None:
        self.connections: set[ServerConnection] = set()
        self._update_id = 0
        self._trade_ids = dict.fromkeys(SYMBOLS, 0)

    async def handle(self, connection: ServerConnection) -> None:
        async for text in connection:
            request: dict[str, Any] = json.loads(text)
            await connection.send(json.dumps({"result": None, "id": request["id"]}))
            self.connections.add(connection)

    def send_touch(self, base: str) -> None:
        self._update_id += 1
        price = 100 + self._update_id % 1000 / 100
        data = (
            f'{{"u":{self._update_id},"s":"{base}USDT","b":"{price:.2f}","B":"{time.time():.6f}",'
            f'"a":"{price + 0.01:.2f}","A":"1.00000000"}}'
        )
        self._send(f'{{"stream":"{base.lower()}usdt@bookTicker","data":{data}}}')

    def send_trade(self, base: str) -> None:
        self._trade_ids[base] += 1
        now_us = time.time_ns() // 1000
        data = (
            f'{{"e":"trade","E":{now_us},"s":"{base}USDT","t":{self._trade_ids[base]},"p":"100.01","q":"0.50000000",'
            f'"T":{now_us},"m":true,"M":true}}'
        )
        self._send(f'{{"stream":"{base.lower()}usdt@trade","data":{data}}}')

    def _send(self, frame: str) -> None:
        broadcast(self.connections, frame)

    async def keep_live(self) -> None:
        while True:
            for base in SYMBOLS:
                self.send_touch(base)
            await asyncio.sleep(KEEP_LIVE_S)

    async def play(self, per_second: float, frames: int) -> None:
        """Send the frames at a steady pace, the symbols in turn."""
        start_s = time.monotonic()
        for number in range(frames):
            wait_s = start_s + number / per_second - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            base = SYMBOLS[number % len(SYMBOLS)]
            if number // len(SYMBOLS) % TRADE_EVERY == 0:
                self.send_trade(base)
            else:
                self.send_touch(base)


async def main(port: int, per_second: float, frames: int) -> None:
    venue = StandIn()
    async with serve(venue.handle, "127.0.0.1", port, compression=None):
        live = asyncio.create_task(venue.keep_live())
        print(json.dumps("up"), flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.readline)
        live.cancel()
        start_s = time.monotonic()
        await venue.play(per_second, frames)
        print(json.dumps(frames / (time.monotonic() - start_s)), flush=True)
        await venue.keep_live()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
