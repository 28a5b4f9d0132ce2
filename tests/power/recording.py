"""Runs a router with its database under `strace` while customers deposit, order, amend, cancel and run TWAPs.

What comes out is a `Recording`: every change of the database's files and every message to a client, in one order.
"""

import asyncio
import contextlib
import itertools
import os
import random
import re
import shlex
import shutil
import sqlite3
import subprocess
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

import tests.environment  # noqa: F401 - the router's processes inherit it
from marketdata.simulated import SimulatedVenues
from tests import services
from tests.chaos.board import ASK, SYMBOL, Board
from tests.chaos.customers import Customer
from tests.chaos.findings import Findings
from tests.chaos.services import OwnPostgres
from tests.deploy.conftest import Profile
from tests.end_to_end.conftest import SYMBOLS
from tests.end_to_end.test_trading_matcher import touch_is
from tests.power import strace
from tests.power.disk import Disk, Keep, Operation, Sync
from tests.power.told import Message, messages
from tests.running import ANSWER_S, Router

CUSTOMERS = 3
NUMBERS_EACH = 10_000  # orders and deposits of a customer: each its own number, so that no two deposits are the same
TWAP = {
    "symbol": SYMBOL, "side": "buy", "total_quantity": 0.01, "duration_seconds": 3, "slices": 12,
    "limit_price": 60_000,  # so that it is taken also while the traced router lags behind the market
}  # fmt: skip
START_S = 300.0  # of a router that is traced, or shares the machine with others
LOG_SHOWN_MAX = 1_000  # characters
FILE = "router.sqlite3"
REBUILT = "-shm"  # SQLite's index of its WAL: memory that looks like a file
SMALL = ("-c", "max_wal_size=2MB", "-c", "min_wal_size=2MB", "-c", "checkpoint_timeout=30s")  # checkpoints under load


class Database(ABC):
    """Runs a traced router on a database, and opens images of that."""

    disks: tuple[bool, ...]  # strict ones or usual ones

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.common = {
            "MARKET_SOURCE": "live", "SYMBOLS": ",".join(SYMBOLS), "VENUE_STALE_AFTER_S": "10", "RATE_LIMITS": "off",
            "DRAIN_S": "0.1", "UV_USE_IO_URING": "0",  # what a loop does through that would not be seen
        }  # fmt: skip

    data: Path  # what is traced

    @abstractmethod
    def traced(self, urls: dict[str, str], trace: Path) -> Router:
        """Return a router that is traced from its start."""

    @abstractmethod
    def opened(self, image: Path) -> "contextlib.AbstractContextManager[Any]":
        """Let the database recover an image; return a connection.

        Raises:
            Corrupt: it does not, or finds a fault.
        """

    @abstractmethod
    def revived(self, image: Path, urls: dict[str, str]) -> "contextlib.AbstractContextManager[Router]":
        """Recover an image and return a router on it, which is not started."""


class Corrupt(Exception):
    """A database that does not recover, or finds itself broken."""


class Sqlite(Database):
    """The embedded profile. With `careless` that is its `PRAGMA synchronous`."""

    disks = (True, False)

    def __init__(self, folder: Path, careless: str | None = None) -> None:
        super().__init__(folder)
        self.data = folder / "data"
        self.data.mkdir()
        if careless:
            self.common |= {"DJANGO_SETTINGS_MODULE": "tests.power.careless", "CARELESS_SYNCHRONOUS": careless}

    def traced(self, urls: dict[str, str], trace: Path) -> Router:
        return self._router(self.data, urls, strace.command(trace))

    @contextlib.contextmanager
    def opened(self, image: Path) -> Iterator[Any]:
        with contextlib.closing(sqlite3.connect(image / FILE)) as connection:
            # A rule of the users' table wants it; Django brings it, SQLite has none.
            connection.create_function("REGEXP", 2, lambda pattern, text: re.search(pattern, text) is not None)
            try:
                ((said,), *_) = connection.execute("PRAGMA integrity_check").fetchall()
            except sqlite3.DatabaseError as error:
                raise Corrupt(str(error)) from error
            if said != "ok":
                raise Corrupt(said)
            yield connection

    @contextlib.contextmanager
    def revived(self, image: Path, urls: dict[str, str]) -> Iterator[Router]:
        yield self._router(image, urls)

    def _router(self, folder: Path, urls: dict[str, str], under: Sequence[str] = ()) -> Router:
        place = {"DATABASE_URL": f"sqlite:///{folder / FILE}", "REDIS_URL": ""}
        return Router({**self.common, **place, **urls}, roles=("web,feeds,matcher",), under=under, start_s=START_S)


class Postgres(Database):
    """The production profile from local processes; what is started on an image is one process.

    With `careless` that is an option of the server.
    """

    disks = (False,)

    def __init__(self, folder: Path, careless: str | None = None) -> None:
        super().__init__(folder)
        self._server = OwnPostgres(folder)
        self._server.make("--data-checksums", "--wal-segsize=1")
        self.data = self._server.data
        self._options = [*SMALL, *(["-c", careless] if careless else [])]

    def traced(self, urls: dict[str, str], trace: Path) -> Router:
        server = self._server.command("postgres", "-D", str(self.data), *self._server.options, *self._options)
        ready = self._server.command("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._server.port))
        # One tracer for the server and the router: only so are syncs and answers in one order.
        pid = self.data / "postmaster.pid"
        script = (
            f"(cd {self.data} && exec {shlex.join(server)}) > {self.folder}/server.log 2>&1 &"
            f" (tail -f /dev/null -s 0.1 --pid=$$; kill -INT $(head -n 1 {pid})) > /dev/null 2>&1 &"
            f' until {shlex.join(ready)}; do sleep 0.05; done; exec "$@"'
        )
        under = (*strace.command(trace), "sh", "-c", script, "sh")
        return Profile(self._environment(self._server, urls), "--matchers", "1", under=under)

    @contextlib.contextmanager
    def opened(self, image: Path) -> Iterator[Any]:
        try:
            with self._started(image) as server, psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
                connection.execute(
                    "SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am m ON m.oid = c.relam"
                    " WHERE m.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'"
                )
                yield connection
        except (subprocess.CalledProcessError, psycopg.OperationalError, psycopg.InternalError) as error:
            raise Corrupt(f"{error}\n{(image / 'log').read_text()[-LOG_SHOWN_MAX:]}") from error

    @contextlib.contextmanager
    def revived(self, image: Path, urls: dict[str, str]) -> Iterator[Router]:
        with self._started(image) as server:
            yield Router(self._environment(server, urls), roles=("web,feeds,matcher",), start_s=START_S)

    @contextlib.contextmanager
    def _started(self, image: Path) -> Iterator[OwnPostgres]:
        (image / "postmaster.pid").unlink(missing_ok=True)  # its process id may be somebody's by now
        server = OwnPostgres(image.parent, image.name)
        server.start()
        try:
            yield server
        finally:
            server.stop()

    def _environment(self, server: OwnPostgres, urls: dict[str, str]) -> dict[str, str]:
        own = {"REDIS_URL": services.REDIS_URL, "CHANNEL_PREFIX": f"power-{uuid.uuid4().hex[:12]}"}
        return {**self.common, **own, **urls, "DATABASE_URL": server.url}


DATABASES: dict[str, type[Sqlite] | type[Postgres]] = {"sqlite": Sqlite, "postgres": Postgres}


@dataclass
class Recording:
    """What happened until the processes had stopped, and what the folder was before."""

    base: Path
    operations: list[Operation]
    told: list[Message]
    asked: set[str]  # the token ids of all orders that anybody may have got

    def replay(self, *, strict: bool) -> tuple[Disk, Callable[[int], None]]:
        """Return a disk as it was at the start, and how to take it to a later place."""
        disk = Disk(self.base, strict=strict)
        moments = [(one.begin, 0, number) for number, one in enumerate(self.operations)]
        moments += [(one.end, 1, number) for number, one in enumerate(self.operations) if isinstance(one, Sync)]
        coming = deque(sorted(moments))

        def play(until: int) -> None:
            while coming and coming[0][0] <= until:
                _, ended, number = coming.popleft()
                (disk.end if ended else disk.begin)(self.operations[number])

        return disk, play

    def check(self, folder: Path) -> None:
        """With all that was written kept, the disk must be what the folder is now."""
        disk, play = self.replay(strict=True)
        play(strace.NEVER - 1)
        image = disk.image(data=Keep.ALL, names=Keep.ALL, dice=random.Random(0))
        made = {name: _bytes(content) for name, content in image.items() if content is not None}
        there = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        odd = [
            name
            for name in made.keys() | there.keys()
            if made.get(name) != there.get(name) and not name.endswith(REBUILT)
        ]
        assert not odd, f"the trace does not tell how these came to be: {sorted(odd)}"


def _bytes(content: bytearray | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else bytes(content)


async def record(database: Database, *, load_s: float, seed: int) -> Recording:
    """Run a traced router under load, from an empty database to its orderly end."""
    base, trace = database.folder / "base", database.folder / "trace"
    shutil.copytree(database.data, base)
    os.mkfifo(trace)
    reading = asyncio.create_task(asyncio.to_thread(_lines, trace))
    try:
        async with SimulatedVenues(SYMBOLS, seed=seed) as market:
            board = Board(market, seed)
            board.rest()
            router = database.traced(urls_of(market), trace)
            try:
                await router.start()
                asked = await _load(router, board, load_s, random.Random(seed))
                await router.stop()
            except Exception as error:
                for process in router.processes:
                    error.add_note(f"the log of {process.roles}:\n{process.tail()}")
                raise
            finally:
                await router.kill()
        lines = await reading
    finally:
        with contextlib.suppress(OSError):  # nobody waits there, as it should be
            os.close(os.open(trace, os.O_WRONLY | os.O_NONBLOCK))
    operations = strace.read(lines, database.data)
    told = messages(one for one in operations if isinstance(one, strace.Said))
    changes = [one for one in operations if not isinstance(one, strace.Said)]
    recording = Recording(base, changes, told, asked)
    recording.check(database.data)
    return recording


def _lines(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return file.readlines()


def urls_of(market: SimulatedVenues) -> dict[str, str]:
    return {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}


async def _load(router: Router, board: Board, load_s: float, dice: random.Random) -> set[str]:
    """Let customers do all they can while the market moves; return the token ids of the orders there may be."""
    stop, findings = asyncio.Event(), Findings()
    customers = [
        Customer(
            (name := f"customer{number}"), await router.register(name), router.url, board, findings,
            random.Random(dice.random()), numbers=itertools.count(1 + number * NUMBERS_EACH),
        )
        for number in range(CUSTOMERS)
    ]  # fmt: skip
    await touch_is(router, customers[0].token, ASK)

    async def begin(number: int, customer: Customer) -> None:
        async with http_of(router, customer.token) as http:
            for asset, amount in (("USDT", 20_000 + number), ("BTC", 1 + number)):
                (await http.post("/deposit", json={"asset": asset, "amount": amount})).raise_for_status()
            (await http.post("/orders/twap", json={**TWAP, "token_id": f"{customer.name}-twap"})).raise_for_status()

    async with asyncio.TaskGroup() as group:
        moving = group.create_task(board.move())
        working = [group.create_task(begin(*one)) for one in enumerate(customers)]
        working += [group.create_task(customer.rest(stop)) for customer in customers]
        working += [group.create_task(customer.socket(stop)) for customer in customers]
        await asyncio.sleep(load_s)
        stop.set()
        await asyncio.gather(*working)
        moving.cancel()
    assert not findings.texts, findings.texts
    return {f"{customer.name}-twap" for customer in customers}.union(*(customer.orders for customer in customers))


def http_of(router: Router, token: str = "") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=router.url, headers=headers, timeout=ANSWER_S)
