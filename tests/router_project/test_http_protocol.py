"""Heads of requests that never end or are none, on real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router_project import http_protocol
from router_project.guard import Guard
from router_project.http_protocol import HEAD_SIZE_MAX, RouterHttpProtocol
from tests.router_project.test_guard import ask, echo, is_closed, is_refusal, read_reply, serving

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class Impatient(RouterHttpProtocol):
    head_timeout_s = 1.0


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(Guard(echo), http=RouterHttpProtocol) as number:
        yield number


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", GET + b"Bad Header: 1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
     # A proxy may read these otherwise than we do, and take the rest for another client's request.
     GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     GET + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
     GET + b"Content-Length: 0\r\nContent-Length: 30\r\n\r\n", GET + b"Transfer-Encoding: gzip, identity\r\n\r\n",
     GET + b"Content-Length : 5\r\n\r\nhello", GET + b"X-A: 1\r\n folded\r\n\r\n"],
    ids=["words", "raw bytes", "space in a name", "TLS", "length and chunks", "chunks and length", "two lengths",
         "unknown coding", "space after a name", "a folded header"],
)  # fmt: skip
async def test_what_is_no_http_is_told_in_json(port: int, data: bytes) -> None:
    reply, reader, writer = await ask(port, data)
    assert is_refusal(reply, 400, "malformed")
    assert await is_closed(reader)
    writer.close()


async def test_an_endless_head_is_cut_off(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def pour() -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(GET)
            while True:
                writer.write(b"X-Padding: " + b"a" * 8000 + b"\r\n")
                await writer.drain()

    await asyncio.wait_for(pour(), 5)
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # the reset may overtake the answer
        assert (await read_reply(reader)).status == 431
    assert await is_closed(reader)
    writer.close()


async def test_a_head_just_over_the_limit_is_told(port: int) -> None:
    reply, reader, writer = await ask(port, GET + b"X-Padding: " + b"a" * HEAD_SIZE_MAX)
    assert is_refusal(reply, 431, "headers_too_large")
    assert await is_closed(reader)
    writer.close()


@pytest.mark.parametrize("begun", [b"", b"GET / HT", GET])
async def test_a_head_that_does_not_come_ends_the_connection(begun: bytes) -> None:
    async with serving(Guard(echo), http=Impatient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        if begun:
            assert is_refusal(await read_reply(reader), 408, "timeout")
        assert await is_closed(reader)
        writer.close()


async def test_a_second_request_is_held_to_the_same_time() -> None:
    async with serving(Guard(echo), http=Impatient) as port:
        reply, reader, writer = await ask(port, GET + b"\r\n")
        assert reply.status == 200
        writer.write(GET)
        assert is_refusal(await read_reply(reader), 408, "timeout")
        writer.close()


async def test_a_slow_answer_is_no_late_head() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(Impatient.head_timeout_s * 2)
        await echo(scope, receive, send)

    async with serving(Guard(slow), http=Impatient) as port:
        reply, _, writer = await ask(port, GET + b"\r\n")
        assert reply.status == 200
        writer.close()


async def test_pipelined_requests_are_all_answered(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(f"GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for number in range(5)))
    paths = [json.loads((await read_reply(reader)).body)["path"] for _ in range(5)]
    assert paths == ["/0", "/1", "/2", "/3", "/4"]
    writer.close()


def test_the_limit_leaves_room_for_what_the_guard_allows() -> None:
    from router_project.guard import HEADERS_SIZE_MAX

    assert http_protocol.HEAD_SIZE_MAX > HEADERS_SIZE_MAX


class Writes:
    """Counts what a transport is asked to write."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def protocol(self) -> type[RouterHttpProtocol]:
        sizes = self.sizes

        class Counted(RouterHttpProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                write = transport.write

                def counted(data: Any) -> None:
                    sizes.append(len(data))
                    write(data)

                transport.write = counted  # type: ignore[method-assign]
                super().connection_made(transport)

        return Counted


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_head_and_body_leave_in_one_write(method: str) -> None:
    writes = Writes()
    async with serving(Guard(echo), http=writes.protocol()) as port:
        for path in ("/1", "/2"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            if method == "GET":
                assert json.loads(await reader.readexactly(writes.sizes[-1] - len(head)))["path"] == path
            writer.close()
    assert len(writes.sizes) == 2


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked_at_once(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert json.loads((await read_reply(reader)).body)["size"] == 2
    writer.close()


async def test_an_answer_in_parts_and_one_that_breaks_off_still_reach_the_client() -> None:
    async def parts(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/breaks":
            return
        for part in (b"one", b"two", b""):
            await send({"type": "http.response.body", "body": part, "more_body": bool(part)})

    async with serving(parts, http=RouterHttpProtocol) as port:
        for path, rest in (("/", b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), ("/breaks", b"")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert body == rest
            writer.close()
