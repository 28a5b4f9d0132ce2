"""uvicorn's WebSocket protocol with one door more: ready frames straight to the transport.

The framed bytes of an event are the same for every client (no masking, no compression), so
they are made once and written to each transport. Anything else (handshake, pings, close,
messages from the client) stays uvicorn's, within bounds: one client's frames are read a slice
at a time, so that the others get their turns, and those that nobody answers for (pings, pongs,
fragments) are counted.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from marketdata.hub import Encoded

SCOPE_EXTENSION = "router.direct"
WRITE_BUFFER_MAX = 64 * 1024  # bytes waiting in this process for one client
CORKED_MAX = 16 * 1024  # bytes of one client that wait for the end of a turn
ABORT_AFTER_S = 2.0  # a close that the client does not take is cut off

READ_SLICE = 4 * 1024  # bytes of one client read in one turn of the loop: some hundred small frames
UNANSWERED_PER_S_MAX = 500  # pings, pongs and fragments of messages of one client
CLOSE_POLICY = 1008
CLOSE_NOT_UTF8 = 1007
# A client whose frames cannot be read may still be sending. What it sends is thrown away for a moment, because closing
# at once would reset the connection and take the close code with it.
LINGER_S = 0.5

_TEXT_FIN = 0x81
_NO_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 111\r\nconnection: close\r\n\r\n"
    b'{"detail":"this is not a WebSocket handshake","message":"this is not a WebSocket handshake","code":"malformed"}'
)
_TOO_MANY_FRAMES = Encoded(
    b'{"type":"error","code":"too_many_frames","message":"too many pings or fragments of messages a second"}'
)


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
    """One connection as the outbox sees it.

    What is written in one turn of the loop goes out with one call of the kernel, which costs more
    than all that we do for a frame.
    """

    __slots__ = ("_bytes", "_frames", "_protocol", "_write", "on_writable", "writable")

    def __init__(self, protocol: "RouterWebSocketProtocol") -> None:
        self._protocol = protocol
        self.on_writable: Callable[[], None] | None = None
        self.writable = True
        self._write: Callable[[bytes], None] = protocol.transport.write
        self._frames: list[bytes] = []
        self._bytes = 0

    def write(self, frame: bytes) -> None:
        """Write a frame at the end of this turn; at once when much has come together."""
        self._frames.append(frame)
        self._bytes += len(frame)
        if len(self._frames) == 1:
            if not _corked:
                self._protocol.loop.call_soon(_uncork)
            _corked.append(self)
        elif self._bytes > CORKED_MAX:
            self.flush()

    def flush(self) -> None:
        """Hand what was written to the transport."""
        frames, self._frames, self._bytes = self._frames, [], 0
        if frames and not self._protocol.transport.is_closing():
            self._write(frames[0] if len(frames) == 1 else b"".join(frames))

    def end(self, last_frame: bytes, code: int) -> None:
        """Say why and close without waiting: what the client does not take in time is cut off."""
        protocol = self._protocol
        transport = protocol.transport
        self.flush()
        self.writable = False
        if transport.is_closing() or protocol.close_sent:
            return
        close = Frame(Opcode.CLOSE, code.to_bytes(2, "big")).serialize(mask=False)
        transport.write(last_frame + close)
        protocol.close_sent = True
        protocol.queue.put_nowait({"type": "websocket.disconnect", "code": code})
        protocol.close_timer = protocol.loop.call_later(ABORT_AFTER_S, transport.abort)
        protocol.read_on()  # the client's own close is still to come

    def abort(self) -> None:
        self._protocol.transport.abort()


_corked: list[DirectSocket] = []  # those that were written to in this turn


def _uncork() -> None:
    corked = _corked.copy()
    _corked.clear()
    for socket in corked:
        socket.flush()


class RouterWebSocketProtocol(WebSocketsSansIOProtocol):
    """Adds a `DirectSocket` to the scope of every accepted connection."""

    direct: DirectSocket | None = None

    _unread: memoryview = memoryview(b"")  # received, not yet parsed: the transport is paused meanwhile
    _turn: asyncio.Handle | None = None
    _second = 0
    _unanswered = 0  # frames of this second
    _abused = False
    _failed = False  # nothing more of it can be read

    def data_received(self, data: bytes) -> None:
        if self._failed:
            return
        self._unread = memoryview(bytes(self._unread) + data) if self._unread else memoryview(data)
        if self._turn is None and not self.read_paused:
            self._read_slice()

    async def send(self, message: Any) -> None:
        if self.direct is not None:
            self.direct.flush()  # what was told before goes out before
        await super().send(message)

    async def receive(self) -> Any:
        message = await super().receive()
        if self._unread and not self.read_paused:
            self.read_on()
        return message

    def read_on(self) -> None:
        """Read what waits, from the next turn of the loop."""
        self.read_paused = False
        if self._unread:
            self.transport.pause_reading()
            if self._turn is None:
                self._turn = self.loop.call_soon(self._read_slice)
        else:
            self.transport.resume_reading()

    def _read_slice(self) -> None:
        self._turn = None
        if self._abused or self.transport.is_closing():
            self._unread = memoryview(b"")
            return
        part, self._unread = self._unread[:READ_SLICE], self._unread[READ_SLICE:]
        super().data_received(bytes(part))
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(_NO_HANDSHAKE)  # nobody else answers it
            self.transport.close()
        if not self.read_paused and not self.transport.is_closing() and self._turn is None:
            if self._unread:
                self.read_on()
            elif not self._abused:
                self.transport.resume_reading()

    def handle_ping(self) -> None:
        if not self._within_bounds() or not self.writable.is_set():
            self.conn.data_to_send()  # the pong; a client that does not read gets none
            return
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self._within_bounds():
            super().handle_pong(event)

    def handle_text(self, event: Frame) -> None:
        if event.fin or self._within_bounds():
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        if event.fin or self._within_bounds():
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        if self._within_bounds():
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:  # uvicorn would note it with a traceback, as often as a client likes
                self.frames = []
                self.conn.send_close(CLOSE_NOT_UTF8)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Say why the connection fails, and close it when the client had time to hear it."""
        sent = self.conn.close_sent
        assert sent is not None
        self._stop_direct()
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._failed = True
        self._unread = memoryview(b"")
        self.read_paused = False
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def _within_bounds(self) -> bool:
        """Count a frame that the application never sees; end a client that sends too many of them."""
        second = int(self.loop.time())
        if second != self._second:
            self._second, self._unanswered = second, 0
        self._unanswered += 1
        if self._unanswered > UNANSWERED_PER_S_MAX and not self._abused:
            if self.direct is not None and self.handshake_complete:
                self.direct.end(frame_text(_TOO_MANY_FRAMES), CLOSE_POLICY)
            else:
                self.transport.abort()
            self._abused = True
            self.transport.pause_reading()
        return not self._abused

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
        if self._abused:
            return  # its end is on its way
        self._stop_direct()
        super().handle_close(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_direct()
        super().connection_lost(exc)

    def _stop_direct(self) -> None:
        """Write nothing after a close."""
        if self.direct is not None:
            self.direct.flush()
            self.direct.writable = False
            self.direct.on_writable = None
