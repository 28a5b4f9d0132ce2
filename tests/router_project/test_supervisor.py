"""The spare process, and how soon who dies is followed: with small programs in the router's place."""

import asyncio
import itertools
import os
import resource
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router_project import supervisor
from router_project.supervisor import Place, Spare

pytestmark = pytest.mark.asyncio

ANY = ("127.0.0.1", 0)
WITHIN_S = 30.0
ROOT = Path(supervisor.__file__).parents[1]
PROGRAM = """
    import os, sys, time
    from router_project.supervisor import hear_arguments
    life_s, lives, *spare = sys.argv[1:]
    ready = int(spare[-1])
    if spare[0] == "--spare":
        told = hear_arguments(ready)
        if told is None:
            sys.exit()
        arguments, files = told
        ready = files[int(arguments[-1])]
    with open(lives, "a") as out:
        print(os.getpid(), time.monotonic(), file=out, flush=True)
    os.write(ready, b"ready")
    time.sleep(float(life_s))
"""


@asynccontextmanager
async def kept(folder: Path, *, life_s: float) -> AsyncIterator[tuple[Place, Spare]]:
    """Keep a program that lives for so long each time, with a spare process."""
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
    program = [sys.executable, str(folder / "program.py"), str(life_s), str(folder / "lives")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    spare = Spare(lambda heard: [*program, "--spare", str(heard)], environment=environment, folder=folder)
    place = Place(
        "place",
        lambda _, ready: [*program, "--alone", str(ready)],
        ANY,
        environment=environment,
        folder=folder,
        spare=spare,
    )
    await place.start()
    await spare.prepare()
    keeping = asyncio.create_task(place.keep())
    try:
        yield place, spare
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await spare.stop()
        await place.stop()


async def lives(folder: Path, number: int) -> list[tuple[int, float]]:
    """Wait for so many processes; return each one's id and when it was ready."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            lines = (folder / "lives").read_text().splitlines()
            if len(lines) >= number:
                return [(int(pid), float(at_s)) for pid, at_s in map(str.split, lines)]
            await asyncio.sleep(0.02)


async def test_the_spare_process_follows_one_that_ends_and_another_waits(tmp_path: Path) -> None:
    async with kept(tmp_path, life_s=60) as (place, spare):
        waits = spare.running
        assert waits is not None
        assert place.running is not None
        place.running.kill()
        found = await lives(tmp_path, 2)
        assert found[1][0] == waits.pid
        async with asyncio.timeout(WITHIN_S):
            while spare.running is None:  # noqa: ASYNC110 - the keeper prepares it
                await asyncio.sleep(0.02)
        assert spare.running is not waits


async def test_without_a_spare_process_a_place_starts_its_own(tmp_path: Path) -> None:
    async with kept(tmp_path, life_s=60) as (place, spare):
        waits = spare.running
        assert waits is not None
        assert place.running is not None
        waits.kill()
        place.running.kill()
        found = await lives(tmp_path, 2)
        assert found[1][0] != waits.pid


async def test_who_dies_again_and_again_is_followed_ever_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although each follower had waited for longer than a steady process lives."""
    monkeypatch.setattr(supervisor, "RESTART_S", 0.4)
    monkeypatch.setattr(supervisor, "STEADY_S", 1.5)
    async with kept(tmp_path, life_s=0.2):
        found = [at_s for _, at_s in await lives(tmp_path, 5)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert gaps[-1] > 0.2 + 0.4 * 2**3, gaps


async def test_a_supervisor_without_files_goes_on_without_a_spare_process(
    tmp_path: Path,
) -> None:
    async with kept(tmp_path, life_s=60) as (place, spare):
        await spare.stop()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            await spare.prepare()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert spare.running is None
        assert place.running is not None
        assert not place.running.ended
