"""The files of a recording: lines that are only ever added, each with its checksum.

A line is with the kernel before what it tells of can count: a process that is killed loses nothing, a machine
that loses its power may (nothing is synced to the disk).
"""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

from core.errors import DomainError

PART_SIZE_MAX = 64 * 2**20  # bytes; then the next part begins
TAIL_SIZE = 2**20  # bytes in which the last line is looked for
SUFFIX = ".rec"


class Unusable(DomainError):
    """A recording that is damaged, or of which a part is missing."""

    code = "recording_unusable"


class Tape:
    """Adds lines to the parts of one file. Belongs to one thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._part = 0
        self._size = 0
        self._fd = -1
        self._next_part()

    def write(self, lines: Iterable[bytes]) -> None:
        """Add lines, together. None of them may hold a line's end."""
        if self._size >= PART_SIZE_MAX:
            self._next_part()
        data = memoryview(b"".join([b"%08x %b\n" % (crc32(line), line) for line in lines]))
        self._size += len(data)
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _next_part(self) -> None:
        self.close()
        self._part += 1
        path = self._folder / f"{self._name}.{self._part:04d}{SUFFIX}"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._size = 0


class Reader:
    """Reads the parts of one file; `torn` tells that the last line was cut off, `read` how many bytes were read."""

    def __init__(self, folder: Path, name: str) -> None:
        self.parts = sorted(folder.glob(f"{name}.[0-9]*{SUFFIX}"))
        self.size = sum(part.stat().st_size for part in self.parts)
        self.read = 0
        self.torn = False
        for number, part in enumerate(self.parts, 1):
            if part.name != f"{name}.{number:04d}{SUFFIX}":
                raise Unusable(f"{folder / name}.{number:04d}{SUFFIX} is missing")
        if not self.parts:
            raise Unusable(f"{folder / name}.0001{SUFFIX} is missing")

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines.

        Raises:
            Unusable: one was changed, or cut off where others follow.
        """
        for part in self.parts:
            with part.open("rb") as file:
                for number, line in enumerate(file, 1):
                    self.read += len(line)
                    body = _whole(line)
                    if body is not None:
                        yield body
                    elif part is self.parts[-1] and not file.peek(1):
                        self.torn = True  # the process was killed as it wrote
                    else:
                        raise Unusable(f"{part}, line {number}: it is not what was written there")

    def last(self) -> bytes | None:
        """Return the last line that is whole; None where there is none in the last part's last bytes."""
        with self.parts[-1].open("rb") as file:
            file.seek(max(0, self.parts[-1].stat().st_size - TAIL_SIZE))
            for line in reversed(file.read().splitlines(keepends=True)):
                if (body := _whole(line)) is not None:
                    return body
        return None


def _whole(line: bytes) -> bytes | None:
    """Return what a line says, None when it is not what was written."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    return body if line.endswith(b"\n") and checksum == b"%08x" % crc32(body) else None


def names(folder: Path) -> list[str]:
    """Return the names of the files in a folder, without their parts."""
    return sorted({path.name.rsplit(".", 2)[0] for path in folder.glob(f"*.[0-9]*{SUFFIX}")})


def life_name(role: str) -> str:
    """Name this process's life: its role, its id, and when it was named."""
    return f"{role}-{os.getpid()}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def boot_id() -> str:
    """Name the time since this machine was started: monotonic clocks can be compared within it."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
