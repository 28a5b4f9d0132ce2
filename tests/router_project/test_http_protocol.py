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
    head_timeout_s = 0.2


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(Guard(echo), http=RouterHttpProtocol) as number:
        yield number


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", GET + b"Bad Header: 1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"],
    ids=["words", "raw bytes", "space in a name", "TLS"],
)
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
