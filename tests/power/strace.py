"""Traces what processes do with the files of a folder and say over sockets, in one exact order, by `strace`.

One tracer stops each process before and after each call and writes both down as they come. So what is written down
later happened later: an answer stands at its call's beginning, a sync counts from its end.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import services
from tests.power.disk import Create, Link, MakeFolder, Operation, Remove, Rename, Resize, Sync, Write

CALLS = (
    "open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,"
    "sendto,sendmsg,sendfile,copy_file_range,splice"
)
UNFOLLOWED = {"symlink", "symlinkat", "copy_file_range", "splice", "sendfile"}
STRING_MAX = 2**26  # bytes of one call
NEVER = 2**62  # where a call stands that did not end

_STRING = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_PLACE = re.compile(rb"(-?\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_NUMBER = re.compile(rb"-?\d+")


class NotFollowed(Exception):
    """The trace has something that the model of the disk does not know."""


@dataclass(slots=True)
class Said(Operation):
    """Bytes that went out on a connection."""

    connection: str
    data: bytes


def require() -> None:
    """Skip the test where there is no `strace`; in CI, fail."""
    if shutil.which("strace") is None:
        if services.REQUIRED:
            pytest.fail("strace is not installed")
        pytest.skip("strace is not installed (apt-get install strace)")


def command(output: Path) -> tuple[str, ...]:
    """Return what to put before a command. It keeps its process id; the tracer is a grandchild of it."""
    return (
        "strace", "-D", "-f", "--seccomp-bpf", "-y", "-xx", "-s", str(STRING_MAX), "-e", "abbrev=none",
        "-e", "signal=none", "-e", f"trace={CALLS}", "-o", str(output),
    )  # fmt: skip


def read(lines: Iterable[bytes], folder: Path) -> list[Operation]:
    """Return what was done in a folder and said over sockets, in the order of its beginnings.

    Raises:
        NotFollowed: something was done there that the model does not know.
    """
    reader = _Reader(folder)
    return sorted((one for call in _calls(lines) for one in reader.read(call)), key=lambda one: one.begin)


@dataclass(slots=True)
class _Call:
    begin: int
    end: int
    name: str
    arguments: bytes
    result: int
    returned: bytes  # a path, where the result is a file


def _calls(lines: Iterable[bytes]) -> Iterator[_Call]:
    """Put the halves of each call together."""
    begun: dict[bytes, tuple[int, bytes]] = {}
    for place, line in enumerate(lines):
        pid, _, text = line.rstrip().partition(b" ")
        text = text.lstrip()
        if text.startswith((b"+++", b"---")):
            continue
        begin = place
        if text.startswith(b"<... "):
            begin, head = begun.pop(pid)
            text = head + text[text.index(b" resumed>") + len(b" resumed>") :]
        elif text.endswith(b" <unfinished ...>"):
            begun[pid] = (place, text.removesuffix(b" <unfinished ...>"))
            continue
        yield _call(begin, place, text)
    for begin, text in begun.values():  # the process ended within the call
        yield _call(begin, NEVER, text + b" = ?")


def _call(begin: int, end: int, text: bytes) -> _Call:
    head, _, result = text.rpartition(b" = ")
    name, _, arguments = head.partition(b"(")
    number = _NUMBER.match(result)
    where = _PLACE.match(result)
    return _Call(
        begin, end, name.decode(), arguments, int(number[0]) if number else 0, _unquoted(where[2]) if where else b""
    )


def _unquoted(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(rb"\x", b"").decode())


def _strings(arguments: bytes) -> list[bytes]:
    found = []
    for text, cut in _STRING.findall(arguments):
        if cut:
            raise NotFollowed("a longer string than is traced")
        found.append(_unquoted(text))
    return found


class _Reader:
    """Knows where each file stands that is written without saying where."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._positions: dict[tuple[str, bytes], int | None] = {}  # path and descriptor; None: at the file's end

    def read(self, call: _Call) -> Iterator[Operation]:
        if call.result < 0 and call.end != NEVER:
            return
        match call.name:
            case "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "sendto" | "sendmsg":
                yield from self._written(call)
            case "open" | "openat" | "creat":
                yield from self._opened(call)
            case "fsync" | "fdatasync":
                if (path := self._inside(_PLACE.match(call.arguments))) is not None:
                    yield Sync(path, begin=call.begin, end=call.end)
            case "ftruncate" | "fallocate":
                if (path := self._inside(_PLACE.match(call.arguments))) is not None:
                    yield self._resized(call, path)
            case _:
                yield from self._renamed(call)

    def _written(self, call: _Call) -> Iterator[Operation]:
        where = _PLACE.match(call.arguments)
        if where is None:
            return
        name = _unquoted(where[2]).decode()
        if name.startswith("socket:"):
            data = b"".join(_strings(call.arguments))
            yield Said(name, data[: call.result], begin=call.begin, end=call.end)
            return
        if (path := self._inside(where)) is None:
            return
        data = b"".join(_strings(call.arguments))
        if call.end != NEVER:
            data = data[: call.result]
        offset: int | None
        if call.name.startswith("p"):
            offset = int(_NUMBER.findall(call.arguments.rpartition(b'"')[2])[-1 if call.name != "pwritev2" else -2])
        else:
            if (path, where[1]) not in self._positions:
                raise NotFollowed(f"{path} was renamed or passed on, and is written where it stands")
            offset = self._positions[path, where[1]]
            if offset is not None:
                self._positions[path, where[1]] = offset + len(data)
        yield Write(path, offset, data, begin=call.begin, end=call.end)

    def _opened(self, call: _Call) -> Iterator[Operation]:
        if (path := self._relative(call.returned)) is None:
            return
        self._positions[path, b"%d" % call.result] = None if b"O_APPEND" in call.arguments else 0
        if b"O_CREAT" in call.arguments or call.name == "creat":
            yield Create(path, begin=call.begin, end=call.end)
        if b"O_TRUNC" in call.arguments or call.name == "creat":
            yield Resize(path, 0, begin=call.begin, end=call.end)

    def _resized(self, call: _Call, path: str) -> Operation:
        numbers = [int(number) for number in _NUMBER.findall(call.arguments.partition(b">")[2])]
        if call.name == "ftruncate":
            return Resize(path, numbers[-1], begin=call.begin, end=call.end)
        if b"FALLOC" in call.arguments:
            raise NotFollowed(f"fallocate of {path}: {call.arguments!r}")
        return Resize(path, numbers[-2] + numbers[-1], grow_only=True, begin=call.begin, end=call.end)

    def _renamed(self, call: _Call) -> Iterator[Operation]:
        """Names are given whole, or from the folder: that is where PostgreSQL's processes are."""
        paths = [self._relative(self._whole(path)) for path in _strings(call.arguments)]
        if not paths or paths[-1] is None:
            if any(path is not None for path in paths):
                raise NotFollowed(f"{call.name} out of the folder")
            return
        path, to = paths[0], paths[-1]
        place = {"begin": call.begin, "end": call.end}
        if path is None or call.name in UNFOLLOWED or b"RENAME_" in call.arguments:
            raise NotFollowed(f"{call.name} of {path} to {to}")
        if call.name.startswith("rename"):
            yield Rename(path, to, **place)
        elif call.name.startswith("link"):
            yield Link(path, to, **place)
        elif call.name.startswith(("unlink", "rmdir")):
            yield Remove(path, **place)
        elif call.name.startswith("mkdir"):
            yield MakeFolder(path, **place)
        else:
            yield Resize(path, int(_NUMBER.findall(call.arguments)[-1]), **place)

    def _inside(self, where: re.Match[bytes] | None) -> str | None:
        return None if where is None or where[3] else self._relative(_unquoted(where[2]))

    def _whole(self, path: bytes) -> bytes:
        return path if path.startswith(b"/") else self._folder.encode() + b"/" + path

    def _relative(self, path: bytes) -> str | None:
        name = path.decode(errors="replace")
        if name == self._folder:
            return ""
        return name.removeprefix(self._folder + "/") if name.startswith(self._folder + "/") else None
