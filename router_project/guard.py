"""Outermost ASGI layer: no request reaches Django before its size is known to be small.

Django spools a body to disk before it looks at the path or the credentials; here a body is read
into memory up to the limit, refused as soon as it is known to be larger, whatever the URL says,
and handed on whole. Refusals are the contract's JSON and close the connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from core.strict_json import BODY_SIZE_MAX
from router_project.errors import JSON, Answer, answer

BODY_TIMEOUT_S = 10.0
HEADERS_MAX = 100
HEADERS_SIZE_MAX = 32 * 1024
# A refused client may still be sending. What it sends is thrown away for a moment, because closing
# at once would reset the connection and take the answer with it.
LINGER_S = 0.5
LINGER_SIZE_MAX = 256 * 1024

Scope = Mapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

_TOO_LARGE = answer(413)
_TOO_SLOW = answer(408, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s")
_HEADERS = answer(431, f"more than {HEADERS_MAX} headers or {HEADERS_SIZE_MAX // 1024} KiB of them")
_BAD_QUERY = answer(400, "the query string is not UTF-8")
_BAD_LENGTH = answer(400, "Content-Length is not a number")


class _Gone(Exception):
    """The client went away before its request was whole."""


class _Refusal(Exception):
    def __init__(self, refusal: Answer) -> None:
        self.answer = refusal


class Guard:
    """Bounds every HTTP request; WebSockets and lifespan pass through."""

    def __init__(self, app: App, *, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket" and _headers_too_large(scope["headers"]):
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": "headers too large"})
                return
            await self._app(scope, receive, send)
            return
        try:
            _check_head(scope)
            async with asyncio.timeout(self._body_timeout_s):
                body = await _read(receive)
        except _Gone:
            return
        except TimeoutError:
            await _refuse(_TOO_SLOW, receive, send)
        except _Refusal as refusal:
            await _refuse(refusal.answer, receive, send)
        else:
            await self._app(_with_length(scope, body), _Replay(body, receive), send)


class _Replay:
    """Gives the body once, then whatever the server has to say (that the client went away)."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


def _check_head(scope: Scope) -> None:
    if _headers_too_large(scope["headers"]):
        raise _Refusal(_HEADERS)
    try:
        scope.get("query_string", b"").decode("utf-8")
    except UnicodeDecodeError:
        raise _Refusal(_BAD_QUERY) from None
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise _Refusal(_BAD_LENGTH)
            if len(value) > len(str(BODY_SIZE_MAX)) + 1 or int(value) > BODY_SIZE_MAX:
                raise _Refusal(_TOO_LARGE)


def _headers_too_large(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    count = size = 0
    for name, value in headers:
        count += 1
        size += len(name) + len(value)
    return count > HEADERS_MAX or size > HEADERS_SIZE_MAX


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        body += bytes(message.get("body", b""))
        if len(body) > BODY_SIZE_MAX:
            raise _Refusal(_TOO_LARGE)
        if not message.get("more_body", False):
            return body


def _with_length(scope: Scope, body: bytes) -> dict[str, Any]:
    """State the body's length: REST framework takes a chunked one without it for empty."""
    headers = [item for item in scope["headers"] if item[0] not in (b"content-length", b"transfer-encoding")]
    if body or len(headers) != len(scope["headers"]):
        headers.append((b"content-length", str(len(body)).encode()))
    return {**scope, "headers": headers}


async def _refuse(refusal: Answer, receive: Receive, send: Send) -> None:
    body = refusal.json()
    headers = [
        (b"content-type", JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *((name.lower().encode(), value.encode()) for name, value in refusal.headers.items()),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _linger(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _linger(receive: Receive) -> None:
    thrown_away = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while thrown_away < LINGER_SIZE_MAX:
                message = await receive()
                thrown_away += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
