"""The limit of a Python server: `websockets.broadcast()` to everybody, no compression, nothing else.

`python -m bench.peers.bare_broadcast PORT EVENTS PER_SECOND BURST`
"""

import asyncio
import json
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.stage import play, trade


async def main(port: int, events: int, per_second: float, burst: int) -> None:
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        async for _ in connection:
            connections.add(connection)
            await connection.send('{"type":"subscribed"}')

    async def deliver(number: int) -> None:
        broadcast(connections, json.dumps(trade(number), separators=(",", ":")))

    async with serve(handle, "127.0.0.1", port, compression=None):
        await play(deliver, events=events, per_second=per_second, burst=burst)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
