"""uvicorn's HTTP protocol with bounds on a request's head, and refusals that are JSON.

The guard sees a request when its head is complete; before that, nothing bounds how long or how
large it grows.
"""

import asyncio

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from router_project.errors import JSON, Answer, answer

HEAD_SIZE_MAX = 64 * 1024  # bytes; the guard's own limit on headers is lower
HEAD_TIMEOUT_S = 10.0

_MALFORMED = answer(400, "this is not an HTTP request as this server reads it", code="malformed")
_TOO_LARGE = answer(431, f"the request's head is larger than {HEAD_SIZE_MAX // 1024} KiB")
_TOO_SLOW = answer(408, f"the request's head did not arrive within {HEAD_TIMEOUT_S:.0f} s")


class RouterHttpProtocol(HttpToolsProtocol):
    """Ends connections whose next request does not come in good time and size."""

    head_timeout_s = HEAD_TIMEOUT_S

    _head_size = 0
    _in_head = True
    _begun = False
    _head_timer: asyncio.TimerHandle | None = None
    _last = False  # the server stops: the next request, if one comes, is the connection's last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > HEAD_SIZE_MAX:
            self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_head:
            self._expect_head()
        self._begun = True

    def on_headers_complete(self) -> None:
        self._in_head = self._begun = False
        self._head_size = 0
        self._stop_timer()
        super().on_headers_complete()
        cycle = self.cycle  # the last request's, where this one becomes a WebSocket
        if cycle is not None and cycle.transport is self.transport and self.scope["method"] != "HEAD":
            cycle.transport = _Joined(cycle)  # type: ignore[assignment] # all that a cycle uses
        if cycle is not None and self._last:
            cycle.keep_alive = False  # says so in its answer

    def handle_websocket_upgrade(self) -> None:
        if self._last:
            self.transport.close()  # unanswered: a proxy asks another server
        else:
            super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """End when the answer is out; when idle after `DRAIN_S`, because a request may be on its way."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and settings.DRAIN_S and not self._last:
            self._last = True
            self.loop.call_later(settings.DRAIN_S, super().shutdown)
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(_MALFORMED)

    def _expect_head(self) -> None:
        self._in_head = True
        self._stop_timer()
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._begun:
            self._refuse(_TOO_SLOW)
        else:
            self.transport.close()  # it never said anything

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, refusal: Answer) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        body = refusal.json()
        head = (f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n").encode()
        self.transport.write(STATUS_LINE[refusal.status] + head + body)
        self.transport.close()


class _Joined:
    """Where one answer is written: its head waits for the first part of its body, and both leave together.

    Each write costs a system call and wakes the client; small answers had two.
    """

    __slots__ = ("_cycle", "_head", "_joined", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._transport = cycle.transport
        self._head = b""
        self._joined = False

    def write(self, data: bytes) -> None:
        if self._joined or not self._cycle.response_started:  # 100 Continue goes out at once
            self._transport.write(data)
        elif not self._head:
            self._head = data
        else:
            self._joined = True
            self._transport.write(self._head + data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if self._head and not self._joined:
            self._transport.write(self._head)
        self._transport.close()
