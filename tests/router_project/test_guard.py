"""The guard on real sockets, behind the server that is used in public."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import uvicorn

from core.strict_json import BODY_SIZE_MAX
from router_project.guard import HEADERS_MAX, LINGER_SIZE_MAX, Guard

KERNEL_BUFFERS = 16 * 1024 * 1024  # what two loopback sockets may hold between them


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what arrived: the path, the stated length and the body's size."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await send({"type": "websocket.close"})
        return
    message = await receive()
    told = {
        "path": scope["path"],
        "length": next((value.decode() for name, value in scope["headers"] if name == b"content-length"), None),
        "chunked": any(name == b"transfer-encoding" for name, _ in scope["headers"]),
        "size": len(message["body"]),
        "whole": not message["more_body"],
    }
    body = json.dumps(told).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def serving(app: Any, http: Any = "httptools") -> AsyncIterator[int]:
    """Serve an application on a free port as the router does."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, http=http, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0)
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        sock.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(Guard(echo)) as number:
        yield number


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return Reply(int(head[0].split()[1]), headers, body)


async def ask(port: int, data: bytes) -> tuple[Reply, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return await read_reply(reader), reader, writer


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), 10) == b""
    except ConnectionError:
        return True


def post(path: str, body: bytes, length: int | str | None = None, headers: str = "") -> bytes:
    stated = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {stated}\r\n{headers}\r\n".encode() + body


CHUNKED = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(size: int) -> bytes:
    return f"{size:x}\r\n".encode() + b"x" * size + b"\r\n"


def is_refusal(reply: Reply, status: int, code: str) -> bool:
    body = json.loads(reply.body)
    return (
        reply.status == status
        and reply.headers["content-type"] == "application/json"
        and reply.headers["connection"] == "close"
        and set(body) == {"detail", "message", "code"}
        and body["code"] == code
    )


async def test_a_body_at_the_limit_arrives_whole(port: int) -> None:
    reply, _, writer = await ask(port, post("/orders", b"x" * BODY_SIZE_MAX))
    assert json.loads(reply.body) == {
        "path": "/orders", "length": str(BODY_SIZE_MAX), "chunked": False, "size": BODY_SIZE_MAX, "whole": True,
    }  # fmt: skip
    writer.close()


async def test_a_stated_length_over_the_limit_is_refused_before_the_body(port: int) -> None:
    reply, reader, writer = await ask(port, post("/orders", b"", BODY_SIZE_MAX + 1))
    assert is_refusal(reply, 413, "too_large")
    assert await is_closed(reader)
    writer.close()


async def test_a_client_that_sends_all_of_a_large_body_still_reads_the_refusal(port: int) -> None:
    reply, reader, writer = await ask(port, post("/orders", b"x" * (BODY_SIZE_MAX * 3)))
    assert is_refusal(reply, 413, "too_large")
    assert await is_closed(reader)
    writer.close()


async def test_a_chunked_body_arrives_with_its_length(port: int) -> None:
    reply, _, writer = await ask(port, CHUNKED + chunk(1000) + chunk(24) + b"0\r\n\r\n")
    assert json.loads(reply.body) == {
        "path": "/nowhere", "length": "1024", "chunked": False, "size": 1024, "whole": True,
    }  # fmt: skip
    writer.close()


async def test_an_endless_chunked_body_is_cut_off(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CHUNKED)
    sent = 0

    async def pour() -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(chunk(8192))
                await writer.drain()
                sent += 8192

    pouring = asyncio.create_task(pour())
    reply = await asyncio.wait_for(read_reply(reader), 5)
    assert is_refusal(reply, 413, "too_large")
    await asyncio.wait_for(pouring, 5)  # the connection is gone
    assert sent < BODY_SIZE_MAX + LINGER_SIZE_MAX + KERNEL_BUFFERS
    writer.close()


async def test_a_body_that_does_not_come_times_out() -> None:
    async with serving(Guard(echo, body_timeout_s=0.2)) as port:
        reply, reader, writer = await ask(port, post("/orders", b"{", 100))
        assert is_refusal(reply, 408, "timeout")
        assert await is_closed(reader)
        writer.close()


async def test_a_client_that_leaves_in_the_middle_reaches_no_application() -> None:
    reached = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/second":
            await echo(scope, receive, send)
        else:
            reached.set()

    async with serving(Guard(app)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/first", b"{", 100))
        await writer.drain()
        writer.close()
        reply, _, writer = await ask(port, post("/second", b"{}"))
        assert reply.status == 200
        assert not reached.is_set()
        writer.close()


@pytest.mark.parametrize(
    "headers",
    ["".join(f"X-{number}: 1\r\n" for number in range(HEADERS_MAX)), "X-Long: " + "a" * 33_000 + "\r\n"],
    ids=["many", "long"],
)
async def test_too_many_or_too_long_headers_are_refused(port: int, headers: str) -> None:
    reply, reader, writer = await ask(port, post("/orders", b"{}", headers=headers))
    assert is_refusal(reply, 431, "headers_too_large")
    assert await is_closed(reader)
    writer.close()


async def test_a_query_that_is_not_utf_8_is_refused() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    await Guard(echo)({"type": "http", "path": "/", "query_string": b"a=\xff", "headers": []}, receive, send)
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["code"] == "bad_request"


async def test_a_kept_connection_serves_the_next_request(port: int) -> None:
    reply, reader, writer = await ask(port, post("/one", b"{}"))
    writer.write(post("/two", b"{}"))
    assert json.loads(reply.body)["path"] == "/one"
    assert json.loads((await read_reply(reader)).body)["path"] == "/two"
    writer.close()


async def test_a_websocket_passes_through(port: int) -> None:
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{port}/ws", open_timeout=5) as client:
        assert await client.recv() == "hello"


@pytest.mark.parametrize("length", ["-1", "+39", "0x10", "1e3", "5, 5"])
async def test_an_odd_content_length_never_reaches_the_application(port: int, length: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post("/orders", b"{}", length))
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()
