"""A plain WebSocket client that keeps what it is told, for tests of the simulated venues."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from marketdata.simulated import SimulatedVenues

WAIT_S = 10.0
BTC, ETH = "BTC-USDT", "ETH-USDT"

Frame = dict[str, Any]


class Client:
    """Reads frames one by one, numbers as exact decimals."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, message: object) -> None:
        await self.socket.send(message if isinstance(message, str) else json.dumps(message))

    async def text(self) -> str | bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.socket.recv()

    async def next(self) -> Frame:
        return json.loads(await self.text(), parse_float=Decimal, parse_int=Decimal)

    async def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        while True:
            frame = await self.next()
            if wanted(frame):
                return frame

    async def take(self, count: int, wanted: Callable[[Frame], bool] = lambda frame: True) -> list[Frame]:
        return [await self.until(wanted) for _ in range(count)]

    async def rest(self, silence_s: float) -> list[Frame]:
        """Read until nothing came for a while, and return the frames that are objects."""
        frames: list[Frame] = []
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(silence_s):
                    text = await self.socket.recv()
                frames.append(json.loads(text, parse_float=Decimal, parse_int=Decimal))
        return frames

    async def is_silent(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.socket.recv()
        except TimeoutError:
            return True
        return False

    async def closed(self) -> int | None:
        """Read to the end; return the close code the venue sent, None when there was no close frame."""
        async with asyncio.timeout(WAIT_S):
            await self.socket.wait_closed()
        received = self.socket.protocol.close_rcvd
        return received.code if received else None


@contextlib.asynccontextmanager
async def client(market: SimulatedVenues, venue: str) -> AsyncIterator[Client]:
    async with connect(
        market.urls[venue],
        proxy=None,
        compression=None,
        ping_interval=None,
        max_size=None,
        max_queue=None,
        close_timeout=1,
    ) as socket:
        yield Client(socket)


async def subscribe(to: Client, venue: str, *instruments: str) -> None:
    """Ask for touch, depth and trades in the venue's words."""
    for request in requests(venue, instruments):
        await to.say(request)


def requests(venue: str, instruments: Sequence[str]) -> list[Frame]:
    if venue == "binance":
        streams = [
            name.replace("-", "").lower() + suffix
            for name in instruments
            for suffix in ("@bookTicker", "@depth20@100ms", "@trade")
        ]
        return [{"method": "SUBSCRIBE", "params": streams, "id": 1}]
    if venue == "okx":
        args = [
            {"channel": channel, "instId": name} for name in instruments for channel in ("bbo-tbt", "books5", "trades")
        ]
        return [{"id": "1", "op": "subscribe", "args": args}]
    symbols = [name.replace("-", "/") for name in instruments]
    options: list[Frame] = [
        {"channel": "ticker", "event_trigger": "bbo"},
        {"channel": "book", "depth": 10},
        {"channel": "trade", "snapshot": False},
    ]
    return [
        {"method": "subscribe", "params": {**option, "symbol": symbols}, "req_id": number}
        for number, option in enumerate(options, 1)
    ]


def trade_ids(frame: Frame) -> list[int]:
    """Return the ids that a frame of any venue prints, nothing when it is no trade."""
    if frame.get("stream", "").endswith("@trade"):
        return [int(frame["data"]["t"])]
    if frame.get("arg", {}).get("channel") == "trades" and "data" in frame:
        return [
            number
            for trade in frame["data"]
            for number in range(int(trade["tradeId"]) - int(trade["count"]) + 1, int(trade["tradeId"]) + 1)
        ]
    if frame.get("channel") == "trade" and frame["type"] == "update":
        return [int(trade["trade_id"]) for trade in frame["data"]]
    return []


def touch_of(frame: Frame) -> tuple[Decimal, Decimal] | None:
    """Return bid and ask of a venue's touch frame, None when it is another frame."""
    if frame.get("stream", "").endswith("@bookTicker"):
        return Decimal(frame["data"]["b"]), Decimal(frame["data"]["a"])
    if frame.get("arg", {}).get("channel") == "bbo-tbt" and "data" in frame:
        book = frame["data"][0]
        return Decimal(book["bids"][0][0]), Decimal(book["asks"][0][0])
    if frame.get("channel") == "ticker":
        return frame["data"][0]["bid"], frame["data"][0]["ask"]
    return None


def depth_of(frame: Frame) -> tuple[list[Decimal], list[Decimal]] | None:
    """Return the bid and ask prices of a full image of the book, None when it is another frame."""
    if "@depth" in frame.get("stream", ""):
        data = frame["data"]
    elif frame.get("arg", {}).get("channel") == "books5" and "data" in frame:
        data = frame["data"][0]
    else:
        return None
    return [Decimal(level[0]) for level in data["bids"]], [Decimal(level[0]) for level in data["asks"]]
