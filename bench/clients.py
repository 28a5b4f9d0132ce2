"""Many WebSocket clients in one cheap process: `python -m bench.clients`, its job on the first line of stdin.

They read raw frames off their transports, so that a server under test is never waiting for
them. Once all have what they subscribed to, the process writes "ready"; it counts until every
client has the trades that it expects or the line "stop" comes, then writes its tally. The line
"window" asks for what was counted since the last one. Its memory does not grow with what it reads.
"""

import asyncio
import base64
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

from bench.ages import Ages, Latency

NUMBERED_BY_ONE = ("binance", "kraken")  # venues whose trade ids show a hole by themselves
PONG, PING, CLOSE, TEXT = 0xA, 0x9, 0x8, 0x1
CONNECT_AT_ONCE = 20
ARRIVE_S = 1.0  # for what is on its way when the counting stops
WINDOW = "window"
CHECKSUM_PRIME = 2**61 - 1


class Job(Struct):
    """`subscriptions`: per client, the messages that it sends. `expect`: trades per client, None until told to stop."""

    port: int
    path: str
    subscriptions: list[list[dict[str, object]]]
    expect: int | None = None


class Tally(Struct):
    """What was counted, from "ready" on; in a window of it, frames, bytes and ages of the window alone."""

    frames: Counter[str]
    bytes: int
    trades_fewest: int  # of a client
    trades_most: int
    holes: int  # trades that are missing by number, or that others had (in a window: by number), or that came twice
    closed: int  # connections that the server ended
    trades: Latency | None
    touches: Latency | None


class _Data(Struct):
    symbol: str = ""
    exchange: str = ""
    trade_id: str = ""
    timestamp: float = 0.0
    best_bid_qty: float | None = None


class _Frame(Struct):
    type: str = ""
    data: _Data | None = None


class Received:
    """The trades of one venue and symbol that one client got: how many, which, and whether in order without a hole."""

    __slots__ = ("checksum", "count", "faults", "last")

    def __init__(self) -> None:
        self.count = 0
        self.checksum = 0  # of the ids in their order
        self.last: int | None = None
        self.faults = 0  # missing by number, twice, or out of order

    def take(self, trade_id: int, *, numbered: bool) -> None:
        last = self.last
        if last is not None and trade_id != last + 1:
            if trade_id <= last:
                self.faults += 1
            elif numbered:
                self.faults += trade_id - last - 1
        self.last = trade_id
        self.count += 1
        self.checksum = (self.checksum * 31 + trade_id) % CHECKSUM_PRIME


def holes(received: Sequence[Received]) -> int:
    """Count the trades of one venue and symbol that a subscriber missed, or received twice or out of order."""
    whole = max(received, key=lambda one: (one.count, -one.faults))
    found = 0
    for one in received:
        differs = one.count != whole.count or one.checksum != whole.checksum
        found += max(one.faults, whole.count - one.count, int(differs))
    return found


class _Clients:
    """What all the connections share."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.frames: Counter[str] = Counter()
        self.bytes = 0
        self.unanswered = sum(len(messages) for messages in job.subscriptions)
        self.unfinished = len(job.subscriptions)
        self.closed = 0
        self.since_s = math.inf  # only trades of this time count: every client must have all of them
        self.until_s = math.inf
        self.ready = asyncio.Event()
        self.done = asyncio.Event()
        self.trade_ages = Ages()
        self.touch_ages = Ages()
        self._before = (Counter[str](), 0, Ages(), Ages())  # frames, bytes and ages of the windows so far

    def subscribed(self) -> None:
        self.unanswered -= 1
        if self.unanswered == 0:
            self.ready.set()

    def start(self) -> None:
        """Forget what came with subscribing."""
        self.frames.clear()
        self.bytes = 0
        self.since_s = time.time()

    def end_window(self) -> None:
        """Put what was counted with the windows before, and count anew."""
        frames, size, trade_ages, touch_ages = self._before
        trade_ages.merge(self.trade_ages)
        touch_ages.merge(self.touch_ages)
        self._before = (frames + self.frames, size + self.bytes, trade_ages, touch_ages)
        self.frames, self.bytes = Counter(), 0
        self.trade_ages, self.touch_ages = Ages(), Ages()

    def end_all(self) -> None:
        """Count everything since the start together."""
        self.end_window()
        self.frames, self.bytes, self.trade_ages, self.touch_ages = self._before

    def stop(self) -> None:
        """Take no newer trades, but let those on their way arrive."""
        self.until_s = time.time()
        asyncio.get_running_loop().call_later(ARRIVE_S, self.done.set)


class _Client(asyncio.Protocol):
    def __init__(self, shared: _Clients, messages: list[dict[str, object]]) -> None:
        self.trades = 0
        self.symbols = {message["symbol"] for message in messages if message["stream"] == "trades"}
        self.received: dict[tuple[str, str], Received] = {}
        self._shared = shared
        self._messages = messages
        self._buffer = b""
        self._open = False
        self._decode: Callable[[bytes], _Frame] = msgspec.json.Decoder(_Frame).decode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET {self._shared.job.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.closed += 1

    def data_received(self, data: bytes) -> None:
        now_s = time.time()
        data = self._buffer + data
        position = 0 if self._open else self._handshake(data)
        while position + 2 <= len(data):
            length, start = data[position + 1] & 127, position + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            if start + length > len(data):
                break
            self._take(data[position] & 15, data[start : start + length], now_s)
            position = start + length
        self._buffer = data[position:]

    def _handshake(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return len(data) + 1
        if b" 101 " not in data[:20]:
            raise SystemExit(f"refused: {data[:200]!r}")
        self._open = True
        for message in self._messages:
            self._send(TEXT, msgspec.json.encode(message))
        return end + 4

    def _send(self, opcode: int, payload: bytes) -> None:
        length = bytes((128 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        self._transport.write(bytes((128 | opcode,)) + length + bytes(4) + payload)  # masked with zeros

    def _take(self, opcode: int, payload: bytes, now_s: float) -> None:
        if opcode == PING:
            self._send(PONG, payload)
        if opcode != TEXT:
            return
        frame, shared = self._decode(payload), self._shared
        shared.frames[frame.type] += 1
        shared.bytes += len(payload)
        if frame.type == "subscribed":
            shared.subscribed()
        elif frame.type == "trades" and frame.data is not None:
            self._take_trade(frame.data, now_s)
        elif frame.type == "best_touch" and frame.data is not None:
            sent_s = frame.data.best_bid_qty  # where the venue is the bench's own
            if sent_s is not None and sent_s > shared.since_s:
                shared.touch_ages.add(now_s - sent_s)

    def _take_trade(self, trade: _Data, now_s: float) -> None:
        shared = self._shared
        if not shared.since_s <= trade.timestamp <= shared.until_s:
            return
        self.trades += 1
        key = (trade.exchange, trade.symbol)
        received = self.received.get(key)
        if received is None:
            received = self.received[key] = Received()
        received.take(int(trade.trade_id), numbered=trade.exchange in NUMBERED_BY_ONE)
        shared.trade_ages.add(now_s - trade.timestamp)
        if self.trades == shared.job.expect:
            shared.unfinished -= 1
            if shared.unfinished == 0:
                shared.done.set()


async def main() -> None:
    job = msgspec.json.decode(sys.stdin.readline(), type=Job)
    shared = _Clients(job)
    clients: list[_Client] = []
    loop = asyncio.get_running_loop()
    for start in range(0, len(job.subscriptions), CONNECT_AT_ONCE):
        few = [_Client(shared, messages) for messages in job.subscriptions[start : start + CONNECT_AT_ONCE]]
        await asyncio.gather(*(loop.create_connection(lambda c=c: c, "127.0.0.1", job.port) for c in few))
        clients.extend(few)
    if shared.unanswered:
        await shared.ready.wait()
    shared.start()
    print('"ready"', flush=True)

    def take_lines() -> None:
        while sys.stdin.readline().strip() == WINDOW:
            loop.call_soon_threadsafe(tell_window)
        loop.call_soon_threadsafe(shared.stop)

    def tell_window() -> None:
        faults = sum(received.faults for client in clients for received in client.received.values())
        _tell(_tally(shared, clients, faults))
        shared.end_window()

    threading.Thread(target=take_lines, daemon=True).start()
    await shared.done.wait()
    shared.end_all()
    _tell(_tally(shared, clients, _all_holes(clients)))
    os._exit(0)  # the thread still waits for a line


def _tell(tally: Tally) -> None:
    print(msgspec.json.encode(tally).decode(), flush=True)


def _tally(shared: _Clients, clients: list[_Client], holes_found: int) -> Tally:
    counts = [client.trades for client in clients]
    return Tally(
        frames=shared.frames,
        bytes=shared.bytes,
        trades_fewest=min(counts),
        trades_most=max(counts),
        holes=holes_found,
        closed=shared.closed,
        trades=shared.trade_ages.latency(),
        touches=shared.touch_ages.latency(),
    )


def _all_holes(clients: list[_Client]) -> int:
    keys = {key for client in clients for key in client.received}
    nothing = Received()
    return sum(
        holes([client.received.get((venue, symbol), nothing) for client in clients if symbol in client.symbols])
        for venue, symbol in keys
    )


if __name__ == "__main__":
    uvloop.run(main())
