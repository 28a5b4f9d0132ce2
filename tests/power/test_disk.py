"""The disk that may lose power, the trace that tells what it was given, and what is told to clients."""

import json
import random
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from router_project.environment import secret_key
from tests.power import strace
from tests.power.disk import SECTOR, Create, Disk, Keep, Operation, Remove, Rename, Resize, Sync, Write
from tests.power.strace import Said
from tests.power.told import messages
from tests.running import ROOT

SEEDS = range(200)
EVERYTHING = """
import os
os.mkdir("folder")
with open("folder/a", "wb") as file:
    file.write(b"one" * 1000)
    file.flush()
    file.write(b"two")
with open("folder/a", "ab") as file:
    file.write(b"three")
b = os.open("b", os.O_RDWR | os.O_CREAT)
os.posix_fallocate(b, 0, 5000)
os.pwrite(b, b"four", 1024)
os.pwritev(b, [b"five", b"six"], 2000)
os.ftruncate(b, 4000)
os.write(b, b"seven")
os.writev(b, [b"eight", b"nine"])
os.fsync(b)
os.link("b", "c")
os.rename("b", "folder/b")
os.rename("folder", "moved")
os.pwrite(b, b"moved", 10)
for name in ("gone", "short"):
    with open(name, "wb") as file:
        file.write(b"ten")
os.unlink("gone")
os.truncate("short", 1)
open("empty", "w").close()
open("short2", "w").write("eleven")
open("short2", "w").write("12")
"""


class Running:
    """Does one thing after another on a disk that was empty, or `was`."""

    def __init__(self, folder: Path, *, strict: bool = True, **was: bytes) -> None:
        folder.mkdir()
        for name, content in was.items():
            (folder / name).write_bytes(content)
        self.disk = Disk(folder, strict=strict)
        self._place = 0

    def do(self, kind: type[Operation], *arguments: object) -> "Running":
        operation = kind(*arguments, begin=self._place, end=self._place)
        self._place += 1
        self.disk.begin(operation)
        self.disk.end(operation)
        return self

    def left(self, data: Keep = Keep.NOTHING, names: Keep = Keep.NOTHING, seed: int = 1) -> dict[str, bytes]:
        found = self.disk.image(data=data, names=names, dice=random.Random(seed))
        return {
            name: content.read_bytes() if isinstance(content, Path) else bytes(content)
            for name, content in found.items()
            if content is not None
        }


def test_what_was_not_synced_is_there_or_not_by_sectors(tmp_path: Path) -> None:
    disk = Running(tmp_path / "disk", a=b"." * 4 * SECTOR).do(Write, "a", SECTOR - 2, b"x" * (SECTOR + 4))
    assert disk.left()["a"] == b"." * 4 * SECTOR
    assert disk.left(Keep.ALL)["a"].count(b"x") == SECTOR + 4
    found = {disk.left(Keep.SOME, seed=seed)["a"] for seed in SEEDS}
    assert {content.count(b"x") for content in found} == {0, 2, 4, SECTOR, SECTOR + 2, SECTOR + 4}
    disk.do(Sync, "a")
    assert disk.left()["a"].count(b"x") == SECTOR + 4


def test_a_later_write_may_be_there_without_the_earlier_one(tmp_path: Path) -> None:
    disk = Running(tmp_path / "disk", a=b"").do(Write, "a", 0, b"x" * SECTOR).do(Write, "a", SECTOR, b"y" * SECTOR)
    found = {disk.left(Keep.SOME, seed=seed)["a"] for seed in SEEDS}
    assert found == {b"", b"x" * SECTOR, b"x" * SECTOR + b"y" * SECTOR, bytes(SECTOR) + b"y" * SECTOR}


def test_a_sync_promises_only_what_had_ended_before_it_began(tmp_path: Path) -> None:
    disk = Running(tmp_path / "disk", a=b"...").disk
    early, late = Write("a", 0, b"x", begin=0, end=0), Write("a", 1, b"y", begin=1, end=4)
    sync = Sync("a", begin=2, end=3)
    for operation in (early, late, sync):
        disk.begin(operation)
    dice = random.Random(1)
    assert disk.image(data=Keep.NOTHING, names=Keep.ALL, dice=dice)["a"] == tmp_path / "disk" / "a"
    disk.end(sync)
    assert disk.image(data=Keep.NOTHING, names=Keep.ALL, dice=dice)["a"] == b"x.."


@pytest.mark.parametrize("strict", [True, False])
def test_a_strict_disk_keeps_a_name_when_its_folder_is_synced(tmp_path: Path, strict: bool) -> None:
    disk = Running(tmp_path / "disk", strict=strict).do(Create, "a").do(Write, "a", None, b"x").do(Sync, "a")
    assert disk.left() == ({} if strict else {"a": b"x"})
    assert disk.left(names=Keep.ALL) == {"a": b"x"}
    assert disk.do(Sync, "").left() == {"a": b"x"}


def test_a_rename_is_whole_or_not_there(tmp_path: Path) -> None:
    disk = Running(tmp_path / "disk", a=b"old").do(Create, "b").do(Write, "b", 0, b"new").do(Sync, "b").do(Sync, "")
    disk.do(Rename, "b", "a")
    assert disk.left() == {"a": b"old", "b": b"new"}
    assert disk.left(names=Keep.ALL) == {"a": b"new"}
    assert disk.do(Sync, "").left() == {"a": b"new"}


def test_what_was_removed_or_cut_may_come_back(tmp_path: Path) -> None:
    disk = Running(tmp_path / "disk", a=b"here", b=b"long")
    disk.do(Remove, "a").do(Resize, "b", 1)
    assert disk.left() == {"a": b"here", "b": b"long"}
    assert disk.left(Keep.ALL, Keep.ALL) == {"b": b"l"}


def traced(code: str, folder: Path, output: Path) -> tuple[str, list[Operation]]:
    """Run code in a folder; return what it printed, and what it did there."""
    strace.require()
    command = [*strace.command(output), sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    return said, strace.read(output.read_bytes().splitlines(), folder)


def replayed(operations: list[Operation], folder: Path, *, strict: bool) -> "Running":
    disk = Running(folder, strict=strict)
    moments = [(one.begin, disk.disk.begin, one) for one in operations]
    moments += [(one.end, disk.disk.end, one) for one in operations]
    for _, step, one in sorted(moments, key=lambda moment: moment[0]):
        step(one)
    return disk


def test_a_trace_tells_all_that_was_done_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    _, operations = traced(EVERYTHING, folder, tmp_path / "trace")
    there = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(there) == 6
    assert replayed(operations, tmp_path / "disk", strict=True).left(Keep.ALL, Keep.ALL) == there


def test_a_secret_key_that_was_used_is_there_after_a_power_loss(tmp_path: Path) -> None:
    """At any moment: a router starts, and once the key had been made it is the same one."""
    folder = tmp_path / "folder"
    folder.mkdir()
    code = (
        "from pathlib import Path; from router_project.environment import secret_key;"
        " print(secret_key('', production=False, kept_in=Path.cwd() / 'secret_key'))"
    )
    said, operations = traced(code, folder, tmp_path / "trace")
    made = [one for one in operations if not isinstance(one, Said)]
    looked_at = set()
    for number, data, names in product(range(len(made) + 1), Keep, Keep):
        shutil.rmtree(tmp_path / "disk", ignore_errors=True)
        left = replayed(made[:number], tmp_path / "disk", strict=True).left(data, names)
        assert number < len(made) or left["secret_key"].decode() == said.strip()
        if (left_is := frozenset(left.items())) not in looked_at:
            looked_at.add(left_is)
            image = tmp_path / f"image{len(looked_at)}"
            image.mkdir()
            for name, content in left.items():
                (image / name).write_bytes(content)
            assert secret_key("", production=False, kept_in=image / "secret_key")


def test_whatever_tells_of_an_order_is_read_from_the_bytes_of_a_connection() -> None:
    answer, frame = ({"token_id": name} for name in ("answered", "framed"))
    body = json.dumps(answer).encode()
    frame_body = json.dumps(frame).encode() + b" " * 200
    sent = (
        b"HTTP/1.1 204 No Content\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        + b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x89\x00"
        + b"\x81\x7e" + len(frame_body).to_bytes(2, "big") + frame_body
    )  # fmt: skip
    other = Said("another", b'GET / HTTP/1.1\r\n\r\n{"token_id": "asked"}', begin=0, end=0)
    for size in (1, 7, 1_000):
        pieces = [
            Said("one", sent[start : start + size], begin=start, end=start) for start in range(0, len(sent), size)
        ]
        found = messages([other, *pieces])
        assert [message.body for message in found] == [answer, frame]
        assert found[-1].place == pieces[-1].begin
