"""The commands of docs/operations.md that back up and restore, run as they stand there on a router under load."""

import asyncio
import os
import sys
from pathlib import Path

import psycopg
import pytest

from marketdata.simulated import SimulatedVenues
from tests import services
from tests.deploy.load import Load
from tests.end_to_end.conftest import SYMBOLS, environment_of, roles_of
from tests.end_to_end.test_trading_matcher import ASK, calm, new_trader, touch_is
from tests.running import ROOT, Router

pytestmark = pytest.mark.timeout(180)


def commands(first: str) -> list[str]:
    """Return the block of the page that begins with this word."""
    blocks = (ROOT / "docs" / "operations.md").read_text().split("\n```\n")
    return next(block for block in blocks if block.startswith(first)).splitlines()


async def run(command: str, environment: dict[str, str], folder: Path) -> str:
    command = command.replace("python manage.py", f"{sys.executable} {ROOT}/manage.py")
    command = command.replace("python -c", f"{sys.executable} -c")
    process = await asyncio.create_subprocess_shell(
        f"set -e; {command}", cwd=folder, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, f"{command}\n{said.decode()}"
    return said.decode()


async def backed_up(profile: str, environment: dict[str, str], lines: list[str], folder: Path) -> str:
    """Run the commands while customers trade; return what the last one, the proof, said."""
    async with SimulatedVenues(SYMBOLS, seed=5) as market:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        router = Router({**environment, **urls}, roles=roles_of(profile))
        await router.start()
        try:
            calm(market)
            trader = await new_trader(router)
            await touch_is(router, trader.token, ASK)
            async with Load(trader, listeners=0).running() as load:
                while len(load.bought) < 20:  # noqa: ASYNC110 - others trade
                    await asyncio.sleep(0.05)
                for line in lines:
                    said = await run(line, environment, folder)
                before = len(load.bought)
            assert load.failures == []
            assert before > 20
        finally:
            await router.stop()
    return said


async def test_a_sqlite_backup_is_one_right_moment(tmp_path: Path) -> None:
    with environment_of("embedded", tmp_path) as environment:
        (tmp_path / "data").mkdir()
        environment["DATABASE_URL"] = f"sqlite:///{tmp_path}/data/router.sqlite3"
        said = await backed_up("embedded", environment, commands("python -c"), tmp_path)
        assert "1 account checked" in said
        assert (tmp_path / "backup.sqlite3").stat().st_size > 0


async def test_a_postgresql_dump_restores_to_one_right_moment(tmp_path: Path) -> None:
    services.require("postgres")
    with environment_of("production", tmp_path) as environment:
        name = f"{environment['DATABASE_URL'].rpartition('/')[2]}_restored"
        environment["RESTORED_URL"] = f"{services.POSTGRES_URL.rpartition('/')[0]}/{name}"
        lines = [line.replace(" restored", f" {name}") for line in commands("pg_dump")]
        try:
            assert "1 account checked" in await backed_up("production", environment, lines, tmp_path)
        finally:
            with psycopg.connect(services.POSTGRES_URL, autocommit=True) as connection:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
