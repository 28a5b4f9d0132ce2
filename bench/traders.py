"""Traders in one cheap process: `python -m bench.traders`, their place on the first line of stdin, then tasks.

Each has a connection of its own, kept open during a task, and asks one thing at a time. Requests
are written and answers read as bytes, so that a server under test is what is measured. Every task
is answered with a tally.
"""

import asyncio
import base64
import os
import statistics
import sys
import time
from array import array
from collections import Counter, deque
from functools import partial
from itertools import count
from typing import Literal, cast

import msgspec
import uvloop
from msgspec import Struct, field

SYMBOL = "BTCUSDT"
PRICE, QUANTITY = "100.25", "0.015"  # far below the market: the order rests
ANSWER_S = 60.0
ERRORS_KEPT_MAX = 5


class Place(Struct):
    """Where they trade: one access token a trader."""

    port: int
    tokens: list[str]


class Task(Struct):
    """`requests` in all. `per_second` None: each asks again as soon as it has its answer; else at this common pace."""

    kind: Literal["order", "balance", "submit"]  # by REST; submit: an order by WebSocket
    requests: int
    per_second: float | None = None


class Tally(Struct):
    """Latencies in milliseconds; at a pace they count from when the request was due, sent or not."""

    duration_s: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    answers: int = 0
    bytes: float = 0.0  # of an answer, mean
    refused: Counter[str] = field(default_factory=Counter)


class _Run:
    """One task on the way: who asks next, and what came back."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.unsent = task.requests
        self.ages = array("d")
        self.bytes = 0
        self.refused: Counter[str] = Counter()
        self.due: deque[float] = deque()  # of requests at a pace, for which no trader was free
        self.idle: deque[_Trader] = deque()
        self.done = asyncio.Event()

    def answered(self, trader: "_Trader", due_s: float, size: int, refusal: bytes) -> None:
        now_s = time.perf_counter()
        self.ages.append(now_s - due_s)
        self.bytes += size
        if refusal and len(self.refused) < ERRORS_KEPT_MAX:
            self.refused[refusal[-300:].decode(errors="replace")] += 1
        if len(self.ages) == self.task.requests:
            self.done.set()
        elif self.task.per_second is None:
            if self.unsent:
                self.unsent -= 1
                trader.ask(self, now_s)
        elif self.due:
            trader.ask(self, self.due.popleft())
        else:
            self.idle.append(trader)

    async def at_a_pace(self, per_second: float) -> None:
        start_s = time.perf_counter()
        for number in range(self.task.requests):
            due_s = start_s + number / per_second
            wait_s = due_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if self.idle:
                self.idle.popleft().ask(self, due_s)
            else:
                self.due.append(due_s)


class _Trader(asyncio.Protocol):
    """One connection. `ask` sends a request; its answer goes to the run."""

    def __init__(self, name: str, token: str) -> None:
        self._token = token
        self._name = name  # of its orders, each with a number more
        self._asked = 0
        self._buffer = b""
        self._run: _Run | None = None
        self._due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._run is not None and not self._run.done.is_set():
            raise SystemExit(f"a connection was lost: {exc}")

    def ask(self, run: _Run, due_s: float) -> None:
        self._run, self._due_s = run, due_s
        self._transport.write(self._request(run.task.kind))

    def _request(self, kind: str) -> bytes:
        raise NotImplementedError

    def _order(self) -> str:
        self._asked += 1
        return (
            f'"token_id":"{self._name}-{self._asked}","symbol":"{SYMBOL}","side":"buy","order_type":"limit",'
            f'"price":{PRICE},"quantity":{QUANTITY}}}'
        )

    def _answered(self, size: int, refusal: bytes) -> None:
        assert self._run is not None
        self._run.answered(self, self._due_s, size, refusal)


class _RestTrader(_Trader):
    def __init__(self, name: str, token: str) -> None:
        super().__init__(name, token)
        common = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nAccept: */*\r\n"
        self._get = f"GET /balance HTTP/1.1\r\n{common}\r\n".encode()
        self._post = f"POST /orders HTTP/1.1\r\n{common}Content-Type: application/json\r\nContent-Length: "

    def _request(self, kind: str) -> bytes:
        if kind == "balance":
            return self._get
        body = "{" + self._order()
        return f"{self._post}{len(body)}\r\n\r\n{body}".encode()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        head = data.find(b"\r\n\r\n")
        if head >= 0:
            at = data.lower().find(b"content-length: ", 0, head) + 16
            end = head + 4 + int(data[at : data.find(b"\r", at)])
            if len(data) >= end:
                self._buffer = b""
                self._answered(end, b"" if data[9:12] in (b"200", b"201") else data[:end])
                return
        self._buffer = data


class _SocketTrader(_Trader):
    """Sends frames masked with zeros; reads on until the answer to its last request."""

    def __init__(self, name: str, token: str) -> None:
        super().__init__(name, token)
        self._open = False
        self.ready = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET /ws?token={self._token} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def _request(self, kind: str) -> bytes:
        return _frame(1, f'{{"action":"submit_order",{self._order()}'.encode())

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self._open:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                self._buffer = data
                return
            if b" 101 " not in data[:20]:
                raise SystemExit(f"refused: {data[:200]!r}")
            self._open, data = True, data[head + 4 :]
        position = 0
        while position + 2 <= len(data):
            length, start = data[position + 1] & 127, position + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            if start + length > len(data):
                break
            opcode, payload = data[position] & 15, data[start : start + length]
            position = start + length
            self._take(opcode, payload)
        self._buffer = data[position:]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            self._transport.write(_frame(10, payload))
        elif opcode == 8:
            raise SystemExit(f"closed: {payload!r}")
        elif b'"type":"info"' in payload[:40]:
            self.ready.set()
        elif b'"type":"order_submitted"' in payload[:60]:
            self._answered(len(payload), b"")
        elif b'"type":"error"' in payload[:60]:
            if not self.ready.is_set():
                raise SystemExit(f"refused: {payload!r}")
            self._answered(len(payload), payload)


def _frame(opcode: int, payload: bytes) -> bytes:
    length = bytes((128 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((128 | opcode,)) + length + bytes(4) + payload


async def _connect(place: Place, task: Task, number: int) -> list[_Trader]:
    loop = asyncio.get_running_loop()
    kind = _SocketTrader if task.kind == "submit" else _RestTrader
    traders: list[_Trader] = []
    for who, token in enumerate(place.tokens):
        make = partial(kind, f"{who}-{os.getpid()}-{number}", token)
        _, trader = await loop.create_connection(make, "127.0.0.1", place.port)
        traders.append(trader)
        if isinstance(trader, _SocketTrader):
            await asyncio.wait_for(trader.ready.wait(), ANSWER_S)
    return traders


async def _perform(task: Task, traders: list[_Trader]) -> Tally:
    run = _Run(task)
    start_s = time.perf_counter()
    if task.per_second is None:
        first = min(len(traders), task.requests)
        run.unsent -= first
        for trader in traders[:first]:
            trader.ask(run, time.perf_counter())
    else:
        run.idle.extend(traders)
        await run.at_a_pace(task.per_second)
    await asyncio.wait_for(run.done.wait(), ANSWER_S)
    cuts = statistics.quantiles(run.ages, n=100)
    return Tally(
        duration_s=time.perf_counter() - start_s,
        p50=cuts[49] * 1000,
        p99=cuts[98] * 1000,
        max=max(run.ages) * 1000,
        answers=len(run.ages),
        bytes=run.bytes / len(run.ages),
        refused=run.refused,
    )


async def main() -> None:
    loop = asyncio.get_running_loop()
    place = msgspec.json.decode(sys.stdin.readline(), type=Place)
    print('"ready"', flush=True)
    for number in count():
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            return
        task = msgspec.json.decode(line, type=Task)
        traders = await _connect(place, task, number)
        tally = await _perform(task, traders)
        for trader in traders:
            trader.close()
        print(msgspec.json.encode(tally).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
