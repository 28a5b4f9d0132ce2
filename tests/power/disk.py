"""A disk that may lose power: what surely is on it, what may be, and what it could hold if the power went now.

Writes reach the page cache; only what was written before the start of a sync that has ended is surely on the disk. Of
the rest each sector of 512 bytes may be there or not, in any order. A sector itself is never torn.

Names (of files made, renamed, removed) are surely on the disk once their directory is synced. A strict disk promises
no more than that, as POSIX; a usual one (ext4, XFS, btrfs), whose journal keeps the order of names, also writes the
names that led to a file with the first sync of the file itself.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

SECTOR = 512


@dataclass(slots=True, kw_only=True)
class Operation:
    """Something a process did; `begin` and `end` are places in the order of all that was done."""

    begin: int
    end: int


@dataclass(slots=True)
class Create(Operation):
    path: str


@dataclass(slots=True)
class MakeFolder(Operation):
    path: str


@dataclass(slots=True)
class Write(Operation):
    path: str
    offset: int | None  # None: at the end of the file
    data: bytes


@dataclass(slots=True)
class Resize(Operation):
    path: str
    size: int
    grow_only: bool = False


@dataclass(slots=True)
class Rename(Operation):
    path: str
    to: str


@dataclass(slots=True)
class Link(Operation):
    path: str
    to: str


@dataclass(slots=True)
class Remove(Operation):
    path: str


@dataclass(slots=True)
class Sync(Operation):
    path: str


class Keep(Enum):
    """Which part of what was never synced is on the disk after all."""

    NOTHING = "nothing"
    ALL = "all"
    SOME = "some"


Image = dict[str, bytearray | Path | None]  # names and contents, or where the same is; None is a folder


class File:
    """What surely is on the disk of a file, and the changes of it that may be, oldest first."""

    __slots__ = ("_surely", "changes", "size", "source")

    def __init__(self, source: Path | None = None) -> None:
        self.source = source  # its content as long as nothing has changed
        self._surely: bytearray | None = None if source else bytearray()
        self.size = source.stat().st_size if source else 0  # as the processes see it
        self.changes: list[tuple[Operation, int, bytes | None]] = []  # data at an offset, or the end of the file there

    def change(self, operation: Write | Resize) -> None:
        if isinstance(operation, Write):
            offset = self.size if operation.offset is None else operation.offset
            self.changes.append((operation, offset, operation.data))
            self.size = max(self.size, offset + len(operation.data))
        elif not operation.grow_only or operation.size > self.size:
            self.changes.append((operation, operation.size, None))
            self.size = operation.size

    def sync(self, before: int) -> None:
        """Put on the disk what had been done before this place."""
        surely = self._loaded()
        for operation, offset, data in self.changes:
            if operation.end < before:
                _apply(surely, offset, data)
        self.changes = [change for change in self.changes if change[0].end >= before]

    def content(self, keep: Keep, dice: random.Random) -> bytearray | Path:
        """Return what the disk could hold, or where the same is."""
        if self._surely is None and (keep is Keep.NOTHING or not self.changes):
            assert self.source is not None
            return self.source
        content = bytearray(self._loaded())
        if keep is not Keep.NOTHING:
            for _, offset, data in self.changes:
                if keep is Keep.ALL:
                    _apply(content, offset, data)
                else:
                    for at, part in _parts(offset, data, dice):
                        _apply(content, at, part)
        return content

    def _loaded(self) -> bytearray:
        if self._surely is None:
            assert self.source is not None
            self._surely = bytearray(self.source.read_bytes())
        return self._surely


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))  # never written: zeros
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def _parts(offset: int, data: bytes | None, dice: random.Random) -> Iterator[tuple[int, bytes | None]]:
    """Choose what of a change is on the disk: all, nothing, or some of its sectors."""
    chance = dice.choice((0.0, 0.5, 1.0))
    if data is None:
        if dice.random() < chance:
            yield offset, data
        return
    start = 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (offset + start) % SECTOR)
        if dice.random() < chance:
            yield offset + start, data[start:end]
        start = end


@dataclass(slots=True)
class _Names:
    """A change of names that may or may not be on the disk, as a whole. None: the name is gone."""

    operation: Operation
    folder: str
    names: dict[str, File | None]


FOLDER = File()  # what the name of a folder leads to


class Disk:
    """The files of a folder, from a moment at which all of them surely were on the disk."""

    def __init__(self, base: Path, *, strict: bool) -> None:
        self._strict = strict
        self._surely: dict[str, File] = {
            str(path.relative_to(base)): FOLDER if path.is_dir() else File(path) for path in sorted(base.rglob("*"))
        }
        self._names = dict(self._surely)  # as the processes see them
        self._changes: list[_Names] = []

    def begin(self, operation: Operation) -> None:
        """Take in that something has begun: from now on it may be on the disk, or a part of it."""
        match operation:
            case Write() | Resize():
                if operation.path not in self._names:  # its creation is still on its way back to who asked for it
                    self._rename(operation, operation.path, {operation.path: File()})
                self._names[operation.path].change(operation)
            case Create():
                if operation.path not in self._names:
                    self._rename(operation, operation.path, {operation.path: File()})
            case MakeFolder():
                self._rename(operation, operation.path, {operation.path: FOLDER})
            case Rename():
                moved = {operation.path: operation.to} | {
                    name: operation.to + name[len(operation.path) :]
                    for name in self._names
                    if name.startswith(operation.path + "/")
                }
                gone: dict[str, File | None] = dict.fromkeys(moved)
                self._rename(operation, operation.to, gone | {to: self._names[name] for name, to in moved.items()})
            case Link():
                self._rename(operation, operation.to, {operation.to: self._names[operation.path]})
            case Remove():
                self._rename(operation, operation.path, {operation.path: None})

    def end(self, operation: Operation) -> None:
        """Take in that something has ended: what a sync promises is surely on the disk now."""
        if not isinstance(operation, Sync):
            return
        file = self._names.get(operation.path, FOLDER if not operation.path else None)
        if file is None:
            return  # it was removed meanwhile
        if file is FOLDER:
            self._settle([one for one in self._changes if one.folder == operation.path], operation.begin)
            return
        file.sync(operation.begin)
        if not self._strict:
            leading = [place for place, one in enumerate(self._changes) if file in one.names.values()]
            if leading:
                self._settle(self._changes[: leading[-1] + 1], operation.begin)

    def image(self, *, data: Keep, names: Keep, dice: random.Random) -> Image:
        """Return what the disk could hold if the power went now."""
        found = dict(self._surely)
        kept = {Keep.NOTHING: 0, Keep.ALL: len(self._changes), Keep.SOME: dice.randint(0, len(self._changes))}[names]
        for change in self._changes[:kept]:
            _rename(found, change.names)
        return {
            name: None if file is FOLDER else file.content(data, dice)
            for name, file in found.items()
            if _reached(name, found)
        }

    def _rename(self, operation: Operation, path: str, names: dict[str, File | None]) -> None:
        self._changes.append(_Names(operation, path.rpartition("/")[0], names))
        _rename(self._names, names)

    def _settle(self, changes: list[_Names], before: int) -> None:
        settled = [one for one in changes if one.operation.end < before]
        for one in settled:
            _rename(self._surely, one.names)
        self._changes = [one for one in self._changes if not any(one is other for other in settled)]


def _rename(names: dict[str, File], changes: dict[str, File | None]) -> None:
    for name, file in changes.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


def _reached(name: str, names: dict[str, File]) -> bool:
    folder = name.rpartition("/")[0]
    return not folder or folder in names
