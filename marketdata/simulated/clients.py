"""A client's connection to a simulated venue: its subscriptions, its budget, and its violent ends."""

import contextlib
import socket as sockets
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from marketdata.simulated.dialect import KINDS, Topic

if TYPE_CHECKING:
    from marketdata.simulated.venue import SimulatedVenue

WAITING_MAX = 1000  # requests of a socket kept while the venue is stalled
WRITE_BUFFER_MAX = 8 * 2**20  # unread bytes of a client before it is cut off


class Connection(ServerConnection):
    """Tells its socket about control frames, which the library keeps to itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_frame: Callable[[Opcode], None] = lambda opcode: None

    def process_event(self, event: Any) -> None:
        super().process_event(event)
        if isinstance(event, Frame):
            self.on_frame(event.opcode)


class ClientSocket:
    """One client's connection and its subscriptions."""

    def __init__(self, venue: "SimulatedVenue", connection: ServerConnection, number: int) -> None:
        self.number = number
        self.topics: set[Topic] = set()
        self.waiting: deque[str] = deque(maxlen=WAITING_MAX)  # requests that a stall keeps
        self.connection = connection
        self._venue = venue
        self._arrivals: deque[float] = deque(maxlen=1 + (venue.dialect.messages_per_s_max or 0))
        self._sent_s = self._ping_s = time.monotonic()
        self._pinged_s: float | None = None

    @property
    def complete(self) -> bool:
        """True when the socket listens to touch, depth and trades of every instrument that it asked for."""
        instruments = {topic.instrument for topic in self.topics} - {""}
        listened = {(topic.instrument, topic.kind) for topic in self.topics}
        return bool(instruments) and all((name, kind) in listened for name in instruments for kind in KINDS)

    def send(self, kind: str, frame: str | bytes) -> None:
        """Write one frame; a client that does not read is cut off."""
        broadcast((self.connection,), frame)
        self._venue.sent[kind] += 1
        self._sent_s = time.monotonic()
        if self.connection.transport.get_write_buffer_size() > WRITE_BUFFER_MAX:
            self.abort()

    def subscribe(self, topic: Topic) -> None:
        self._venue.flush(topic.instrument)  # the others' deltas end where this one's snapshot begins
        self.topics.add(topic)
        self._venue.listeners.setdefault(topic, set()).add(self)

    def unsubscribe(self, topic: Topic) -> None:
        self.topics.discard(topic)
        listening = self._venue.listeners.get(topic, set())
        listening.discard(self)
        if not listening:
            self._venue.listeners.pop(topic, None)

    def ping(self) -> None:
        """Send a WebSocket ping."""
        self._ping_s = time.monotonic()
        if self._pinged_s is None:
            self._pinged_s = self._ping_s
        if self.connection.protocol.state is State.OPEN:
            self.connection.protocol.send_ping(str(int(self._ping_s * 1000)).encode())
            self.connection.send_data()

    def close(self, code: int, reason: str) -> None:
        self._venue.forget(self)
        self._venue.spawn(self.connection.close(code, reason))

    def abort(self) -> None:
        """Reset the connection without a close frame."""
        self._venue.forget(self)
        transport = self.connection.transport
        raw = transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
        transport.abort()

    def pause_reading(self) -> None:
        self.connection.transport.pause_reading()

    def resume_reading(self) -> None:
        self.connection.transport.resume_reading()

    def idle_s(self) -> float:
        return time.monotonic() - self._sent_s

    def idle_ping_s(self) -> float:
        return time.monotonic() - self._ping_s

    def unanswered_ping_s(self) -> float:
        return 0.0 if self._pinged_s is None else time.monotonic() - self._pinged_s

    def arrived(self, opcode: Opcode) -> None:
        """Count a client's frame of any kind against its budget."""
        if opcode is Opcode.PONG:
            self._pinged_s = None
        self._arrivals.append(time.monotonic())
        full = len(self._arrivals) == self._arrivals.maxlen
        if self._venue.dialect.messages_per_s_max and full and self._arrivals[-1] - self._arrivals[0] < 1.0:
            self.close(1008, "Too many requests")
