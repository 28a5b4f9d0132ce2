"""Web processes side by side over one Redis: does each delivery cost the same in one, two and four of them?

The same clients are split over the processes; CPU time says what each part costs, whatever else the
machine does. Then what a web process spends on clients that want nothing while the market is busy,
and what feeds of three venues cost in one process and split by venue.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.request import urlopen

import psutil
import redis
from msgspec import Struct

from bench.latency import SYMBOLS_EACH, subscriptions
from bench.processes import ROOT, Child, Failed, free_port, router_environment, running, wait_until_ready
from bench.report import Row, at_most, failed, skipped
from bench.venue_stand_in import SYMBOLS

GROUP = "scale"
PROCESSES = (1, 2, 4)
CLIENTS = 200
PER_SECOND = 500
DURATION_S = 10.0
ROUNDS = 3
OF_ONE_MAX = 1.25  # CPU a message in several processes, against one
IDLE_SOCKETS = (500, 1000, 2000)
IDLE_MAX_US = 40  # of CPU, a socket and second: its place under the clock, and a ping each 20 s
VENUES = ("binance", "okx", "kraken")
VENUES_RATE = 8.0  # times the pace of the simulated market
OF_WHOLE_MAX = 0.6  # CPU of the busiest of split feeds, against feeds of everything in one process
SETTLE_S = 3.0
ROUTER = ("manage.py", "run_router", "--no-migrate")
LATE_S = 60.0


class Cost(Struct, frozen=True):
    """What one round cost."""

    base: float  # share of a core of a web process that is told of all of a busy market, for one client
    message_us: float  # CPU of the web processes above that, for each message delivered to the others
    messages_per_s: float
    feeds: float  # share of a core
    redis: float  # share of a core
    publish_us: float  # CPU of Redis for a batch
    batches_per_s: float


class Shares(Struct, frozen=True):
    """Shares of a core that processes of feeds used, and the frames that they took together."""

    each: list[float]
    frames_per_s: float


class Redis:
    """A Redis of the bench's own, so that its CPU is that of the router alone."""

    def __init__(self, port: int, process: psutil.Process) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self._client = redis.Redis(port=port)
        self._process = process

    def cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def published(self) -> int:
        """Return how many batches went through it so far."""
        stats = self._client.info("commandstats")
        assert isinstance(stats, dict)
        return int(stats.get("cmdstat_publish", {"calls": 0})["calls"])


def run(*, quick: bool) -> Iterator[Row]:
    if shutil.which("redis-server") is None:
        yield skipped(GROUP, "redis-server is not installed here")
        return
    try:
        yield from _side_by_side(1 if quick else ROUNDS, DURATION_S / (4 if quick else 1))
        yield from _idle(IDLE_SOCKETS[:1] if quick else IDLE_SOCKETS, DURATION_S / (4 if quick else 1))
        yield from _split(1 if quick else ROUNDS, DURATION_S / (4 if quick else 1))
    except Failed as error:
        yield failed(GROUP, f"{CLIENTS} clients over {PROCESSES} web processes", error)


def _side_by_side(rounds: int, duration_s: float) -> Iterator[Row]:
    costs: dict[int, list[Cost]] = {number: [] for number in PROCESSES}
    for _ in range(rounds):  # in turns: what else the machine does meanwhile meets all of them
        for number in PROCESSES:
            costs[number].append(_round(number, duration_s))
    for number, some in costs.items():
        name = "1 web process" if number == 1 else f"{number} web processes"
        each_us, base = _median(some, "message_us"), _median(some, "base")
        rate = _median(some, "messages_per_s")
        note = f"{rate:.0f} messages/s in all; a process with one client of all uses {base:.1%} of a core"
        yield Row(GROUP, f"{name}: CPU a message", each_us, "µs", note=note)
        if number > 1:
            ratios = [mine.message_us / its.message_us for mine, its in zip(some, costs[1], strict=True)]
            yield at_most(GROUP, "  against one process", statistics.median(ratios), "×", OF_ONE_MAX)
        note = f"{_median(some, 'batches_per_s'):.0f} batches/s, {_median(some, 'redis') * 100:.1f} % of a core"
        yield Row(GROUP, "  CPU of Redis a batch", _median(some, "publish_us"), "µs", note=note)
    feeds = _median(costs[1], "feeds")
    yield Row(GROUP, "CPU of the feeds", feeds * 100, "%", note=f"of one core, {PER_SECOND} frames/s")


def _median(costs: list[Cost], name: str) -> float:
    return statistics.median(float(getattr(cost, name)) for cost in costs)


def _round(number: int, duration_s: float) -> Cost:
    frames = int(PER_SECOND * (duration_s + LATE_S))
    with _profile(number, frames) as (server, venue, feeds, webs), contextlib.ExitStack() as stack:
        children = [child for child, _ in webs]
        venue.tell("go")
        # One client of everything in each process: all of the market comes in, as it does for many.
        watchers = [_reader(stack, port, [_everything()]) for _, port in webs]
        base, watched, _ = _observe(children, watchers, duration_s / 2)
        readers = [
            _reader(stack, port, [subscriptions(client) for client in range(which, CLIENTS, number)])
            for which, (_, port) in enumerate(webs)
        ]
        redis_s, batches, feeds_s = server.cpu_s(), server.published(), feeds.cpu_s()
        share, messages_per_s, lasted_s = _observe(children, readers, duration_s)
        redis_s, batches, feeds_s = server.cpu_s() - redis_s, server.published() - batches, feeds.cpu_s() - feeds_s
        return Cost(
            base=base / number,
            message_us=(share - base) / messages_per_s * 1e6,
            messages_per_s=messages_per_s + watched,
            feeds=feeds_s / lasted_s,
            redis=redis_s / lasted_s,
            publish_us=redis_s / batches * 1e6,
            batches_per_s=batches / lasted_s,
        )


def _everything() -> list[dict[str, object]]:
    return [message for number in range(0, len(SYMBOLS), SYMBOLS_EACH) for message in subscriptions(number)]


def _reader(stack: contextlib.ExitStack, port: int, wanted: list[list[dict[str, object]]]) -> Child:
    reader = stack.enter_context(running(["-m", "bench.clients"]))
    reader.tell(json.dumps({"port": port, "path": "/ws", "subscriptions": wanted}))
    reader.answer(LATE_S)
    return reader


def _observe(children: list[Child], readers: list[Child], duration_s: float) -> tuple[float, float, float]:
    """Return the share of a core that the children used together, what the readers got a second, and how long it took.

    Raises:
        Failed: a reader lost messages or its connection.
    """
    time.sleep(SETTLE_S)
    before = [_window(reader) for reader in readers]
    before_s, start_s = sum(child.cpu_s() for child in children), time.monotonic()
    time.sleep(duration_s)
    spent_s, lasted_s = sum(child.cpu_s() for child in children) - before_s, time.monotonic() - start_s
    tallies = [_window(reader) for reader in readers]
    if any(tally["closed"] or tally["holes"] for tally in (*before, *tallies)):
        raise Failed(f"messages were lost: {tallies}")
    return spent_s / lasted_s, sum(sum(tally["frames"].values()) for tally in tallies) / lasted_s, lasted_s


def _window(reader: Child) -> Any:
    reader.tell("window")
    return reader.answer()


def _idle(numbers: tuple[int, ...], duration_s: float) -> Iterator[Row]:
    """Measure a web process whose clients subscribe to nothing, more and more of them."""
    frames = int(PER_SECOND * (len(numbers) + 1) * (duration_s + LATE_S))
    with _profile(1, frames) as (_, venue, _, webs), contextlib.ExitStack() as stack:
        web, port = webs[0]
        venue.tell("go")
        time.sleep(SETTLE_S)
        base, opened = web.cpu_share(duration_s), 0
        note = f"of one core, {PER_SECOND} frames/s from the venue"
        yield Row(GROUP, "CPU of a web process, no clients", base * 100, "%", note=note)
        for number in numbers:
            reader = stack.enter_context(running(["-m", "bench.clients"]))
            reader.tell(json.dumps({"port": port, "path": "/ws", "subscriptions": [[]] * (number - opened)}))
            reader.answer(LATE_S)
            opened = number
            time.sleep(SETTLE_S)
            more = web.cpu_share(duration_s) - base
            each_us = max(more, 0.0) / number * 1e6
            note = f"a socket and second; {(base + more) * 100:.1f} % of one core"
            yield at_most(GROUP, f"  with {number} that want nothing, more", each_us, "µs", IDLE_MAX_US, note=note)


def _split(rounds: int, duration_s: float) -> Iterator[Row]:
    """Measure feeds of all venues in one process, and each venue's in its own, on the same market."""
    whole = (f"--roles feeds --venues {','.join(VENUES)}",)
    split = (*(f"--roles feeds --venues {venue}" for venue in VENUES), "--roles consolidator")
    wholes: list[Shares] = []
    splits: list[Shares] = []
    for _ in range(rounds):
        wholes.append(_feeds(whole, duration_s))
        splits.append(_feeds(split, duration_s))
    together = statistics.median(shares.each[0] for shares in wholes)
    frames = statistics.median(shares.frames_per_s for shares in wholes)
    note = f"of one core, {frames:.0f} frames/s of {len(VENUES)} venues"
    yield Row(GROUP, "CPU of feeds in one process", together * 100, "%", note=note)
    busiest = statistics.median(max(shares.each) for shares in splits)
    frames = statistics.median(shares.frames_per_s for shares in splits)
    note = f"of one core, {frames:.0f} frames/s"
    yield Row(GROUP, "CPU of the busiest, split by venue", busiest * 100, "%", note=note)
    ratio = statistics.median(max(part.each) / one.each[0] for part, one in zip(splits, wholes, strict=True))
    yield at_most(GROUP, "  against one process", ratio, "×", OF_WHOLE_MAX)
    summed = statistics.median(sum(shares.each) for shares in splits)
    consolidator = statistics.median(shares.each[-1] for shares in splits)
    note = f"of one core; the consolidator {consolidator * 100:.1f} %"
    yield Row(GROUP, "  all of them together", summed * 100, "%", note=note)


def _feeds(processes: Sequence[str], duration_s: float) -> Shares:
    """Run feeds in these processes under a client of everything, and return what each used."""
    instruments = [f"{symbol}-USDT" for symbol in SYMBOLS]
    with contextlib.ExitStack() as stack:
        market = stack.enter_context(running(["-m", "bench.venues_stand_in", str(VENUES_RATE), *instruments]))
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.answer().items()}
        environment = _migrated(stack, VENUES=",".join(VENUES), SYMBOLS=",".join(instruments), **urls)
        feeds = [stack.enter_context(running([*ROUTER, *each.split()], environment)) for each in processes]
        web, port = _web(stack, environment)
        wait_until_ready(web, port, LATE_S)
        reader = _reader(stack, port, [_everything()])
        time.sleep(SETTLE_S)
        before, start_s = [child.cpu_s() for child in feeds], time.monotonic()
        time.sleep(duration_s)
        lasted_s = time.monotonic() - start_s
        each = [(child.cpu_s() - one) / lasted_s for child, one in zip(feeds, before, strict=True)]
        if any(_window(reader)[name] for name in ("closed", "holes")):
            raise Failed("messages were lost")
        with urlopen(f"http://127.0.0.1:{port}/status", timeout=LATE_S) as answer:
            venues = json.load(answer)["exchanges"].values()
        return Shares(each, sum(venue["frames_per_second"] for venue in venues))


@contextlib.contextmanager
def _profile(number: int, frames: int) -> Iterator[tuple[Redis, Child, Child, list[tuple[Child, int]]]]:
    """Run Redis, a stand-in for a venue, feeds, and so many web processes, all ready."""
    venue_port = free_port()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_redis())
        url = f"ws://127.0.0.1:{venue_port}/stream"
        environment = _migrated(stack, server, VENUES="binance", BINANCE_WS_URL=url)
        stand_in = ["-m", "bench.venue_stand_in", str(venue_port), str(PER_SECOND), str(frames)]
        venue = stack.enter_context(running(stand_in))
        venue.answer()
        feeds = stack.enter_context(running([*ROUTER, "--roles", "feeds"], environment))
        webs = [_web(stack, environment) for _ in range(number)]
        for web in webs:
            wait_until_ready(*web, LATE_S)
        yield server, venue, feeds, webs


def _migrated(stack: contextlib.ExitStack, server: Redis | None = None, **settings: str) -> dict[str, str]:
    """Return the environment of a router over Redis, whose database has its tables."""
    server = server or stack.enter_context(_redis())
    environment = stack.enter_context(
        router_environment(
            MARKET_SOURCE="live", REDIS_URL=server.url, SECRET_KEY="only-for-the-bench-" + "x" * 32, **settings
        )
    )
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=ROOT, env={**os.environ, **environment}, check=True)
    return environment


def _web(stack: contextlib.ExitStack, environment: Mapping[str, str]) -> tuple[Child, int]:
    port = free_port()
    return stack.enter_context(running([*ROUTER, "--roles", "web", "--port", str(port)], environment)), port


@contextlib.contextmanager
def _redis() -> Iterator[Redis]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
        process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield Redis(port, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait()
