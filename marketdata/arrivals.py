"""Records what the venues send: each frame as it came, with both clocks, and the life of each connection."""

import asyncio
from base64 import b64encode
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from marketdata.tape import Tape

log = structlog.get_logger(__name__)

FRAME, ENCODED = b"f", b"b"  # a frame as it came, or in base64 where it holds a line's end


class Opened(Struct, tag="opened", tag_field="what"):
    """A connection is there; one that is `held` waits until it takes over from another."""

    connection: int
    at_ns: int
    wall_ns: int
    venue: str
    held: bool


class TookOver(Struct, tag="took over", tag_field="what"):
    connection: int
    at_ns: int
    wall_ns: int


class Asked(Struct, tag="asked", tag_field="what"):
    """The venue was asked whether it is there, which takes a number of those that requests have."""

    connection: int
    at_ns: int
    wall_ns: int


class Lost(Struct, tag="lost", tag_field="what"):
    """The venue's connection is gone, and its quotes with it."""

    venue: str
    at_ns: int
    wall_ns: int
    reason: str


Event = Opened | TookOver | Asked | Lost

_encode = msgspec.json.Encoder().encode
read_event = msgspec.json.Decoder(Event).decode


class FrameRecorder:
    """Writes the frames of one process, from its event loop.

    A burst of frames is written together, at the loop's next turn, or before its publisher sends what they say:
    what others were told is on the tape. A recording that cannot be written ends; the feeds go on.
    """

    def __init__(self, folder: Path, life: str) -> None:
        self._tape: Tape | None = Tape(folder, f"{life}.frames")
        self._waiting: list[bytes] = []
        self._connections = 0

    def next_connection(self) -> int:
        self._connections += 1
        return self._connections

    def frame(self, connection: int, frame: bytes, now_ns: int, wall_ns: int) -> None:
        kind = FRAME
        if b"\n" in frame:
            kind, frame = ENCODED, b64encode(frame)
        self._add(b"%b %d %d %d %b" % (kind, connection, now_ns, wall_ns, frame))

    def event(self, event: Event) -> None:
        self._add(_encode(event))

    def write(self) -> None:
        """Write what came so far."""
        lines, self._waiting = self._waiting, []
        if self._tape is None or not lines:
            return
        try:
            self._tape.write(lines)
        except OSError as error:
            self._tape = None
            log.error("THE RECORDING OF FRAMES ENDS: it cannot be written", error=str(error))

    def stop(self) -> None:
        self.write()
        if self._tape is not None:
            self._tape.close()
            self._tape = None

    def _add(self, line: bytes) -> None:
        if self._tape is None:
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.write)
        self._waiting.append(line)


def moment_ns(line: bytes) -> int:
    """Return a recorded line's monotonic time."""
    return read_event(line).at_ns if line.startswith(b"{") else int(line.split(b" ", 3)[2])
