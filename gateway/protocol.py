"""uvicorn's WebSocket protocol with one door more: ready frames straight to the transport.

The framed bytes of an event are the same for every client (no masking, no compression), so
they are made once and written to each transport. Anything else (handshake, pings, close,
messages from the client) stays uvicorn's.
"""

from collections.abc import Callable

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from marketdata.hub import Encoded

SCOPE_EXTENSION = "router.direct"
WRITE_BUFFER_MAX = 64 * 1024  # bytes waiting in this process for one client
ABORT_AFTER_S = 2.0  # a close that the client does not take is cut off

_TEXT_FIN = 0x81


def frame_text(encoded: Encoded) -> bytes:
    """Return an event as one unmasked WebSocket text frame (RFC 6455 §5.2), made on first use."""
    framed = encoded.framed
    if framed is None:
        length = len(encoded.text)
        if length < 126:
            header = bytes((_TEXT_FIN, length))
        elif length < 65_536:
            header = bytes((_TEXT_FIN, 126)) + length.to_bytes(2, "big")
        else:
            header = bytes((_TEXT_FIN, 127)) + length.to_bytes(8, "big")
        framed = encoded.framed = header + encoded.text
    return framed


class DirectSocket:
    """One connection as the outbox sees it."""

    __slots__ = ("_protocol", "on_writable", "writable", "write")

    def __init__(self, protocol: "RouterWebSocketProtocol") -> None:
        self._protocol = protocol
        self.on_writable: Callable[[], None] | None = None
        self.writable = True
        self.write: Callable[[bytes], None] = protocol.transport.write

    def end(self, last_frame: bytes, code: int) -> None:
        """Say why, close, and cut the connection if the client does not take even that."""
        protocol = self._protocol
        transport = protocol.transport
        if not transport.is_closing() and not protocol.close_sent:
            transport.write(last_frame)
            close = Frame(Opcode.CLOSE, code.to_bytes(2, "big")).serialize(mask=False)
            transport.write(close)
        protocol.close_sent = True
        protocol.loop.call_later(ABORT_AFTER_S, transport.abort)

    def abort(self) -> None:
        self._protocol.transport.abort()


class RouterWebSocketProtocol(WebSocketsSansIOProtocol):
    """Adds a `DirectSocket` to the scope of every accepted connection."""

    direct: DirectSocket | None = None

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.close_sent:
            return  # refused handshake: there is no scope
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_MAX)
        self.direct = DirectSocket(self)
        extensions = self.scope["extensions"]
        assert extensions is not None
        extensions[SCOPE_EXTENSION] = self.direct  # type: ignore[assignment]

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.direct is not None:
            self.direct.writable = False

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.direct is not None:
            self.direct.writable = True
            if self.direct.on_writable is not None:
                self.direct.on_writable()

    def shutdown(self) -> None:
        self._stop_direct()
        super().shutdown()

    def keepalive_timeout(self) -> None:
        self._stop_direct()
        super().keepalive_timeout()

    def handle_close(self, event: Frame) -> None:
        self._stop_direct()
        super().handle_close(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_direct()
        super().connection_lost(exc)

    def _stop_direct(self) -> None:
        """Write nothing after a close."""
        if self.direct is not None:
            self.direct.writable = False
            self.direct.on_writable = None
