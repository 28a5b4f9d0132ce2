"""What one socket still has to be told, bounded, and the fastest way to tell it.

Under our uvicorn protocol (`gateway/protocol.py`) a frame is framed once for all sockets and
written straight to the transport; under any other ASGI server a task sends the texts. In both
a client that does not read keeps the newest of each conflated stream and a bounded queue of
the rest, and is ended when it has not read for `STALLED_AFTER_S`.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from gateway.protocol import DirectSocket, frame_text
from marketdata.hub import Encoded, TopicKey

log = structlog.get_logger(__name__)

QUEUE_MAX = 2_000  # frames that must not be conflated, waiting for one client
QUEUE_BYTES_MAX = 4 * 2**20  # of them: answers may be long
STALLED_AFTER_S = 10.0  # without a byte taken by the client
ROOM_QUEUE_MAX = QUEUE_MAX // 4  # what may wait before a replay waits too
ROOM_BYTES_MAX = QUEUE_BYTES_MAX // 4
FINISH_S = 1.0  # for the last words to a client that reads slowly
SLOW_CONSUMER = Encoded(
    b'{"type":"error","code":"slow_consumer","message":"this client reads too slowly; reconnect and read faster, '
    b'or subscribe to less"}'
)
CLOSE_SLOW = 1013

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Outbox:
    """The frames of one socket, in order; conflated ones keep their newest value only."""

    def __init__(self, send: Send, direct: DirectSocket | None, give_up: Callable[[], None]) -> None:
        self._send = send
        self._direct = direct
        self._give_up = give_up  # called once when the client is too slow
        self._queue: deque[Encoded] = deque()
        self._queue_bytes = 0
        self._latest: dict[TopicKey, Encoded] = {}
        self._blocked_since_s: float | None = None
        self._closed = False
        self._news = asyncio.Event()
        self._room: asyncio.Future[None] | None = None  # somebody waits for room
        self._pump_task: asyncio.Task[None] | None = None
        if direct is None:
            self._pump_task = asyncio.create_task(self._pump())
        else:
            direct.on_writable = self._drain

    def push(self, frame: Encoded, latest: TopicKey | None) -> None:
        """Tell the client now if it is reading, else keep the frame; `latest` replaces the value before."""
        if self._closed:
            return
        direct = self._direct
        if direct is not None and direct.writable and self._blocked_since_s is None:
            direct.write(frame_text(frame))
            return
        if latest is not None:
            self._latest[latest] = frame
        elif len(self._queue) < QUEUE_MAX and self._queue_bytes < QUEUE_BYTES_MAX:
            self._queue.append(frame)
            self._queue_bytes += len(frame.text)
        else:
            self._too_slow("its queue is full")
            return
        if self._blocked_since_s is None:
            self._blocked_since_s = time.monotonic()
        self._news.set()

    def forget(self, latest: TopicKey) -> None:
        """Drop a waiting value of a stream that the client left."""
        self._latest.pop(latest, None)

    @property
    def has_room(self) -> bool:
        """True when little waits: whoever has much to tell goes on only then."""
        return len(self._queue) <= ROOM_QUEUE_MAX and self._queue_bytes <= ROOM_BYTES_MAX

    async def room(self) -> None:
        """Return when there is room, or when the socket is closed."""
        while not self.has_room and not self._closed:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def check(self, now_s: float) -> None:
        """End a client that takes nothing; call about once a second."""
        if self._blocked_since_s is not None and now_s - self._blocked_since_s > STALLED_AFTER_S:
            self._too_slow("it does not read")

    async def close(self) -> None:
        self._drop_all()
        if self._direct is not None:
            self._direct.on_writable = None
        await self._stop_pump()

    async def finish(self, last: Encoded, code: int) -> bool:
        """Send what waits and the last words, and take no more.

        Return whether the socket is closed with that; else a close has to follow. A client that
        does not read is not waited for.
        """
        if self._closed:
            return True
        if self._direct is not None:
            waiting = [frame_text(frame) for frame in self._all()]
            self._drop_all()
            self._direct.on_writable = None
            self._direct.end(b"".join((*waiting, frame_text(last))), code)
            return True
        self._closed = True
        await self._stop_pump()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                for frame in (*self._all(), last):
                    await self._send({"type": "websocket.send", "text": frame.text.decode()})
        return False

    def _all(self) -> tuple[Encoded, ...]:
        return (*self._queue, *self._latest.values())

    def _drop_all(self) -> None:
        self._closed = True
        self._queue.clear()
        self._queue_bytes = 0
        self._latest.clear()
        self._tell_room()

    def _tell_room(self) -> None:
        if self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def _next(self) -> Encoded | None:
        if self._queue:
            frame = self._queue.popleft()
            self._queue_bytes -= len(frame.text)
            if self._room is not None and self.has_room:
                self._tell_room()
            return frame
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        return None

    def _drain(self) -> None:
        """The transport takes bytes again."""
        direct = self._direct
        assert direct is not None
        while direct.writable:
            frame = self._next()
            if frame is None:
                self._blocked_since_s = None
                return
            direct.write(frame_text(frame))
        self._blocked_since_s = time.monotonic()  # it took something: the clock starts again

    async def _pump(self) -> None:
        """Send through ASGI, which waits while the client does not read."""
        while True:
            await self._news.wait()
            self._news.clear()
            while (frame := self._next()) is not None:
                self._blocked_since_s = time.monotonic()
                await self._send({"type": "websocket.send", "text": frame.text.decode()})
            self._blocked_since_s = None

    async def _stop_pump(self) -> None:
        if self._pump_task is not None:
            self._pump_task.cancel()
            await asyncio.gather(self._pump_task, return_exceptions=True)

    def _too_slow(self, why: str) -> None:
        self._drop_all()
        log.warning("slow client dropped", why=why)
        if self._direct is not None:
            self._direct.end(frame_text(SLOW_CONSUMER), CLOSE_SLOW)
        # Not at once: whoever pushes is going through the subscribers.
        asyncio.get_running_loop().call_soon(self._give_up)
