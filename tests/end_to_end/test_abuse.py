"""Clients that abuse the protocol below its messages: they end alone, and the others notice nothing."""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.running import Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

TEXT, CONTINUATION, PING, PONG = 0x1, 0x0, 0x9, 0xA
FLOOD_S = 2.0
DELAY_MAX_S = 0.5  # of the others' answers, on a busy machine


@pytest.fixture(scope="module")
def profile() -> str:
    return "embedded"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a client's frame, masked with zeros."""
    length = len(payload)
    size = bytes((0x80 | length,)) if length < 126 else b"\xfe" + struct.pack("!H", length)
    return bytes((0x80 * fin | opcode,)) + size + b"\0\0\0\0" + payload


class Hostile:
    """A connection without a WebSocket library's manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def flood(self, data: bytes, *, reading: bool) -> None:
        """Send without end, until the server ends it."""
        sink = asyncio.create_task(self._sink()) if reading else None
        if not reading:
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError):
            while True:
                self._writer.write(data)
                await self._writer.drain()
        if sink is not None:
            sink.cancel()

    async def _sink(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def close_code(self) -> int:
        """Return the code of the close frame that ends the connection."""
        async with asyncio.timeout(10):
            heard = await self._reader.read()
        at = heard.rindex(b"\x88")
        return int.from_bytes(heard[at + 2 : at + 4], "big")


@contextlib.asynccontextmanager
async def hostile(router: Router, path: str = "/ws") -> AsyncIterator[Hostile]:
    host, port = router.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield Hostile(reader, writer)
    finally:
        writer.transport.abort()


async def slowest_answer_during(router: Router, work: "asyncio.Task[None]") -> float:
    """Return how long another client waited for a pong while the work went on: the longest of all but one."""
    loop = asyncio.get_running_loop()
    took = [0.0, 0.0]
    async with router.client(await router.register()) as other:
        for _ in range(int(FLOOD_S / 0.02)):
            asked = loop.time()
            await other.ask(action="ping")
            took.append(loop.time() - asked)
            await asyncio.sleep(0.02)
            if work.done():
                break
    return sorted(took)[-2]


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "not reading"])
@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (b"", frame(PING) * 20_000),
        (b"", frame(PING, b"x" * 125) * 2_000),
        (b"", frame(PONG) * 20_000),
        (frame(TEXT, b"{", fin=False), frame(CONTINUATION, fin=False) * 20_000),
        (b"", frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 20_000),
    ],
    ids=["pings", "long pings", "pongs", "empty fragments", "fragments"],
)
async def test_a_flood_of_frames_that_nobody_answers_ends_the_flooder_alone(
    router: Router, opening: bytes, flood: bytes, reading: bool
) -> None:
    async with hostile(router) as enemy:
        enemy.send(opening)
        work = asyncio.create_task(enemy.flood(flood, reading=reading))
        try:
            assert await slowest_answer_during(router, work) < DELAY_MAX_S
            async with asyncio.timeout(10):
                await work
        finally:
            work.cancel()


async def test_a_flood_of_commands_keeps_nobody_waiting(router: Router) -> None:
    token = await router.register()
    async with hostile(router, f"/ws?token={token}") as enemy:
        flood = b"".join(
            frame(TEXT, json.dumps({"action": action, "stream": "trades", "symbol": "BTCUSDT"}).encode())
            for action in ("subscribe", "unsubscribe")
        )
        work = asyncio.create_task(enemy.flood(flood * 2_000, reading=True))
        try:
            assert await slowest_answer_during(router, work) < DELAY_MAX_S
            assert not work.done()
        finally:
            work.cancel()


async def test_a_handshake_that_is_none_is_answered_and_closed(router: Router) -> None:
    host, port = router.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Content-Length: 5\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b" 400 " in head
    assert f"content-length: {len(body)}\r\n".encode() in head
    assert json.loads(body)["code"] == "malformed"
    writer.close()


async def test_a_client_that_sends_too_much_is_told_so_although_it_goes_on(router: Router) -> None:
    """A close while bytes are unread resets the connection, and the code is lost."""
    for _ in range(5):
        async with hostile(router, f"/ws?token={await router.register()}") as enemy:
            enemy.send(b"\x81\xff" + struct.pack("!Q", 2**20) + b"\0\0\0\0" + b" " * 2**20)
            assert await enemy.close_code() == 1009


async def test_a_text_that_is_not_utf_8_ends_its_sender_and_is_no_fault_of_ours(router: Router) -> None:
    faults = [len(process.faults) for process in router.processes]
    async with hostile(router, f"/ws?token={await router.register()}") as enemy:
        enemy.send(frame(TEXT, b"\xff") * 3 + frame(PING) * 3)
        assert await enemy.close_code() == 1007
    async with router.client(await router.register()) as client:
        assert (await client.ask(action="ping"))["type"] == "pong"
    assert faults == [len(process.faults) for process in router.processes]


async def test_many_pings_within_the_bound_are_all_answered(router: Router) -> None:
    async with router.client(await router.register()) as client:
        pongs = [await client.socket.ping() for _ in range(200)]
        async with asyncio.timeout(5):
            await asyncio.gather(*pongs)


async def test_commands_sent_at_once_and_in_pieces_are_answered_in_order(router: Router) -> None:
    token = await router.register()
    async with router.client(token) as client:
        await client.next()
        for number in range(1_000):
            await client.send(action="ping", id=number)
        answers = [(await client.next())["id"] for _ in range(1_000)]
        assert answers == list(range(1_000))
        fragments: Iterator[str] = iter(['{"action"', ':"ping",', '"id":"whole"}'])
        await client.socket.send(fragments)
        assert (await client.next())["id"] == "whole"
