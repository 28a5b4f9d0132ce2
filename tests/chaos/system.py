"""The whole router under test, with stand-ins for the venues and a link in every cable between its parts.

`Embedded` is the one process that `make run` starts; it is started again as soon as it ends, as a
service manager would. `Production` is `manage.py run_profile`, which looks after its processes by
itself, with a PostgreSQL and a Redis of its own.
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import httpx

from marketdata.simulated import SimulatedVenues
from tests.chaos.board import INSTRUMENT, PROBED, VENUES, Board
from tests.chaos.link import Link, endpoint, through
from tests.chaos.services import OwnPostgres, OwnRedis
from tests.deploy.conftest import Profile
from tests.running import Message, Process, rerun

STALE_AFTER_S = 1.5
START_S = 60.0
LEADER_S = 20.0
AGAIN_S = 0.1  # a service manager's pause before it starts a process again
DISK = 1 << 30
TRIES = 50
SOURCE = Path(__file__).with_name("clock.c")
WEBS = 2
COMMON = {
    "MARKET_SOURCE": "live",
    "SYMBOLS": f"{INSTRUMENT},{PROBED}",
    "VENUE_STALE_AFTER_S": str(STALE_AFTER_S),
    # The limits are on, and wide enough for a few customers who never pause; REST and log-ins are counted as ever.
    "RATE_REQUESTS_A_MINUTE": "600,60000,600000",
    "RATE_ORDER_ACTIONS_A_SECOND": "5,200,500",
}


class Disk:
    """A small file system of our own where we may mount one, which can be made full at any moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)], capture_output=True, check=False
        )
        self.mounted = made.returncode == 0

    def fill(self) -> None:
        """Let nothing more be written: the disk is as large as what is on it."""
        for _ in range(TRIES):  # somebody may write meanwhile, and it cannot be made smaller than what is there
            used = os.statvfs(self.folder)
            if self._resize((used.f_blocks - used.f_bfree) * used.f_frsize):
                return
        raise AssertionError("the disk grows faster than it can be filled")

    def free(self) -> None:
        assert self._resize(DISK)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)

    def _resize(self, size: int) -> bool:
        command = ["mount", "-o", f"remount,size={size}", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Clock:
    """The wall clock of a router's processes, which can be set while they run; every other clock goes on (clock.c)."""

    def __init__(self, folder: Path) -> None:
        self._offset, self._library = folder / "clock-offset", folder / "clock.so"
        self._offset.write_bytes(struct.pack("q", 0))
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", self._library, SOURCE, "-ldl"], check=True)

    def set(self, offset_s: int) -> None:
        with self._offset.open("r+b") as file:
            file.write(struct.pack("q", offset_s))

    def environment(self) -> dict[str, str]:
        """Return the variables under which a process has this clock."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._offset)}


class System(Protocol):
    """What faults and judges need of either profile."""

    profile: str
    environment: dict[str, str]
    rerun: Message  # what was recorded, run again; there once all is over
    market: SimulatedVenues
    board: Board
    links: dict[str, Link]  # a venue's name, "clients", "database", "redis"
    disk: Disk
    database_url: str  # past the links
    clock: Clock | None

    @property
    def webs(self) -> list[str]:
        """The addresses of the web processes, past the proxy."""

    @property
    def url(self) -> str: ...

    @property
    def processes(self) -> tuple[str, ...]:
        """The names of the router's processes."""

    def pid(self, process: str) -> int: ...

    def kill(self, process: str) -> None: ...

    def ends(self) -> int:
        """Return how many processes ended that nobody killed."""

    def tails(self) -> Iterable[str]:
        """Return the ends of the logs."""


class Embedded:
    """One process over SQLite."""

    profile = "embedded"

    def __init__(
        self, disk: Disk, market: SimulatedVenues, links: dict[str, Link], clock: Clock | None, seed: int
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.market, self.links, self.disk = market, links, disk
        self.board = Board(market, seed)
        self.rerun: Message = {}
        self.clock = clock
        self.database_url = f"sqlite:///{disk.folder}/router.sqlite3"
        self.webs = [f"http://127.0.0.1:{port}"]
        self.links["clients"] = Link("127.0.0.1", port)
        self.environment = {
            **COMMON, **venue_urls(market, links), "DATABASE_URL": self.database_url, "REDIS_URL": "",
            "PORT": str(port), "HOST": "127.0.0.1", **(clock.environment() if clock else {}),
        }  # fmt: skip
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._killed: set[int] = set()
        self._ends = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.links['clients'].port}"

    @property
    def processes(self) -> tuple[str, ...]:
        return ("router",)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Embedded"]:
        await self._start()
        assert self._process is not None
        await self._process.logged("listening", START_S)
        self._keeper = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            if self._process.running:
                self._process.send_signal(signal.SIGCONT)
                await self._process.stop()

    def pid(self, process: str) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self, process: str) -> None:
        self._killed.add(self.pid(process))
        os.kill(self.pid(process), signal.SIGKILL)

    def ends(self) -> int:
        return self._ends

    def tails(self) -> Iterable[str]:
        assert self._process is not None
        yield self._process.tail()

    async def _start(self) -> None:
        self._process = Process("web,feeds,matcher", self.environment)
        await self._process.start()

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            await self._process.ended(float("inf"))
            if self._process.pid not in self._killed:
                self._ends += 1
                print(f"-- the router ended by itself:\n{self._process.tail()}", flush=True)
            await asyncio.sleep(AGAIN_S)
            await self._start()


class Production:
    """nginx, web processes, feeds, matchers: each a process, over PostgreSQL and Redis."""

    profile = "production"

    def __init__(
        self, disk: Disk, market: SimulatedVenues, links: dict[str, Link], postgres: OwnPostgres, redis: OwnRedis,
        clock: Clock | None, seed: int,
    ) -> None:  # fmt: skip
        self.market, self.links, self.disk = market, links, disk
        self.board = Board(market, seed)
        self.rerun: Message = {}
        self.clock = clock
        self.postgres, self.redis = postgres, redis
        self.database_url = postgres.url
        self.environment = {
            **COMMON, **venue_urls(market, links), "DATABASE_URL": through(postgres.url, links["database"]),
            "REDIS_URL": through(redis.url, links["redis"]), "HOST": "127.0.0.1",
            **(clock.environment() if clock else {}),
        }  # fmt: skip
        self._running = Profile({}, webs=WEBS)
        self._kills = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.links['clients'].port}"

    @property
    def webs(self) -> list[str]:
        return [str(place["url"]) for name, place in self._running.places.items() if name.startswith("web")]

    @property
    def processes(self) -> tuple[str, ...]:
        return tuple(self._running.places)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Production"]:
        self._running.environment = self.environment
        await self._running.start()
        self.links["clients"].target = endpoint(self._running.url)
        try:
            yield self
        finally:
            for process in self.processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid(process), signal.SIGCONT)
            await self._running.stop()

    def pid(self, process: str) -> int:
        return self._running.pid(process)

    def kill(self, process: str) -> None:
        self._kills += 1
        self._running.kill_place(process)

    def ends(self) -> int:
        events = self._running.supervisor.placed
        return sum(event["event"] == "a process ended and is started again" for event in events) - self._kills

    def tails(self) -> Iterable[str]:
        yield self._running.supervisor.tail()

    async def leader(self) -> str:
        """Return the matcher that leads: the one that executes what rests. Wait where it is just being chosen."""
        async with httpx.AsyncClient(timeout=LEADER_S) as http, asyncio.timeout(LEADER_S):
            while True:
                for name in self.processes:
                    if name.startswith("matcher"):
                        with contextlib.suppress(httpx.TransportError):  # it was killed a moment ago
                            metrics = await http.get(f"{self._running.places[name]['url']}/metrics")
                            if f'matcher_leader{{instrument="{INSTRUMENT}"}} 1.0' in metrics.text:
                                return name
                await asyncio.sleep(AGAIN_S)


def venue_urls(market: SimulatedVenues, links: dict[str, Link]) -> dict[str, str]:
    return {f"{venue.upper()}_WS_URL": through(url, links[venue]) for venue, url in market.urls.items()}


@contextlib.asynccontextmanager
async def system(profile: str, folder: Path, *, seed: int, own: str = "") -> AsyncIterator[Embedded | Production]:
    """Run a router on a profile with everything around it; `own` is what it needs beyond that: a "clock"."""
    async with AsyncExitStack() as stack:
        disk = Disk(folder / "disk")
        stack.callback(disk.close)
        market = await stack.enter_async_context(SimulatedVenues((INSTRUMENT, PROBED), seed=seed))
        links = {venue: Link(*endpoint(market.urls[venue])) for venue in VENUES}
        for venue in VENUES:
            await stack.enter_async_context(links[venue].running())
        clock = Clock(folder) if own == "clock" else None
        recording = {"RECORDING": str(folder / "recording")}
        made: Embedded | Production
        if profile == "embedded":
            made = Embedded(disk, market, links, clock, seed)
        else:
            redis, postgres = OwnRedis(folder), OwnPostgres(disk.folder)
            postgres.make()
            for service in (redis, postgres):
                await asyncio.to_thread(service.start)
                stack.push_async_callback(asyncio.to_thread, service.kill)
                links[type(service).__name__] = Link("127.0.0.1", service.port)
            links["database"], links["redis"] = links.pop("OwnPostgres"), links.pop("OwnRedis")
            links["clients"] = Link("127.0.0.1", 1)  # known once the proxy listens
            for name in ("database", "redis"):
                await stack.enter_async_context(links[name].running())
            made = Production(disk, market, links, postgres, redis, clock, seed)
        await stack.enter_async_context(made.links["clients"].running())
        made.board.rest()
        made.environment |= recording
        async with made.running():
            yield made
        made.rerun = await rerun(folder / "recording", {**made.environment, "DATABASE_URL": made.database_url})
