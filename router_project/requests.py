"""Outermost ASGI layer: gives every request an id and a line in the log, and counts it.

The id is the sender's `X-Request-Id` where that is a plain word, else made here. It is on every
line that an HTTP request causes, and in its answer. Whoever learns whose request it is writes it into
the scope's `log`: {"account": …}.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram

from core.ids import new_word
from router_project.guard import App, Receive, Scope, Send
from router_project.throttle import FREE, address_of

log = logging.getLogger("router.requests")

ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
HEADER = b"x-request-id"
LAG_INTERVAL_S = 0.5
PRIVATE_CODES = 3_000  # from here on clients close with whatever code they like
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REQUESTS = Counter("http_requests", "Requests that were answered", ["method", "status"])
SECONDS = Histogram(
    "http_request_seconds",
    "From the whole request to the end of its answer",
    ["method"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
IN_FLIGHT = Gauge("http_requests_in_flight", "Requests that are being answered")
SOCKETS = Gauge("websockets_open", "Open WebSockets")
SOCKETS_ENDED = Counter("websockets_ended", "WebSockets that ended, by their close code", ["code"])
LAG = Gauge("event_loop_lag_seconds", "How late the event loop was when it was last looked at")


# Finding a metric by its labels costs more than counting; there are few of them.
_answered = cache(REQUESTS.labels)
_seconds = cache(SECONDS.labels)


class Requests:
    """Names, logs and counts whatever passes."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._writes_lines = settings.LOG_REQUESTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = next((value for name, value in scope["headers"] if name == HEADER), b"")
        request_id = asked if ID.fullmatch(asked) else new_word().encode()
        told: dict[str, Any] = {"request_id": request_id.decode()}
        scope = {**scope, "log": told}
        if scope["type"] == "http":
            await self._request(scope, receive, send, request_id, told)
        else:
            await self._socket(scope, receive, send, request_id, told)

    async def _request(
        self, scope: Scope, receive: Receive, send: Send, request_id: bytes, told: Mapping[str, Any]
    ) -> None:
        status = 0  # no answer: the client went away

        async def named(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (HEADER, request_id)]}
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=told["request_id"])  # ends with the request's task
        began_s = time.perf_counter()
        IN_FLIGHT.inc()
        try:
            await self._app(scope, receive, named)
        finally:
            IN_FLIGHT.dec()
            took_s = time.perf_counter() - began_s
            method = scope["method"] if scope["method"] in METHODS else "other"
            _answered(method, status).inc()
            _seconds(method).observe(took_s)
            if self._writes_lines and (status >= 400 or not scope["path"].startswith(FREE)):
                log.info(_line("request", scope, told) | {"status": status, "seconds": round(took_s, 6)})

    async def _socket(
        self, scope: Scope, receive: Receive, send: Send, request_id: bytes, told: Mapping[str, Any]
    ) -> None:
        code = 0  # none was said
        opened = False

        async def named(message: dict[str, Any]) -> None:
            nonlocal code, opened
            if message["type"] == "websocket.accept":
                opened = True
                SOCKETS.inc()
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id)]}
            elif message["type"] == "websocket.close":
                code = message.get("code", 1000)
            await send(message)

        async def heard() -> dict[str, Any]:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect" and not code:
                code = message.get("code", 1006)
            return message

        began_s = time.perf_counter()
        try:
            await self._app(scope, heard, named)
        finally:
            if opened:
                SOCKETS.dec()
                SOCKETS_ENDED.labels(code if code < PRIVATE_CODES else "private").inc()
            if self._writes_lines:
                took_s = time.perf_counter() - began_s
                log.info(_line("socket", scope, told) | {"opened": opened, "code": code, "seconds": round(took_s, 3)})


def _line(event: str, scope: Scope, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both kinds of line tell. The path comes without its query string: that may hold a token."""
    where = {"method": scope.get("method", "GET"), "path": scope["path"], "address": address_of(scope)}
    return {"event": event, **where, **told}


async def watch_lag() -> None:
    """Keep the gauge of the event loop's lag, until cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            LAG.set(max(0.0, loop.time() - due_s))
