"""The order path against the exchange that a student writes: 16 traders, resting limit orders, balances.

The router is the whole process as it ships (market, matcher and sockets too), on SQLite and on
PostgreSQL, every commit on the disk before its answer; the peer keeps dicts. They take turns.
"""

import contextlib
import json
import os
import secrets
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from urllib.request import Request, urlopen

import psutil
import psycopg
from msgspec import Struct, field

from bench.processes import Child, Failed, free_port, router_environment, running, wait_until_ready
from bench.report import Row, at_most, failed, skipped
from bench.traders import Tally

GROUP = "orders"
TRADERS = 16
ROUNDS = 5
REQUESTS = 3_000  # of a kind, a server and a round
QUICK_REQUESTS = 400
WARM_UP_REQUESTS = 200
PART_LOAD = 0.7
PART_LOAD_S = 5.0
IDLE_S = 3.0
SYNCS = 200  # a round
PAGE = 4096  # bytes of a sync: about what a commit writes
OF_PEER_MAX = {"SQLite": 1.0, "PostgreSQL": 1.5}  # the CPU of a server that stores nothing
PART_P99_MAX_MS = 50.0
PAPER_MONEY = 1_000_000_000
POSTGRES_URL = os.environ.get("BENCH_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")

KINDS = {"order": "POST /orders", "balance": "GET /balance", "submit": "submit_order by WebSocket"}


class Figure(Struct):
    """What one kind of request cost in the rounds, one figure a round."""

    cpu_us: list[float] = field(default_factory=list)  # of the server's process, a request
    database_us: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    part_p50_ms: list[float] = field(default_factory=list)
    part_p99_ms: list[float] = field(default_factory=list)


class Server:
    """A running exchange, its traders, and what was measured of it."""

    def __init__(self, what: str, child: Child, traders: Child, *, database: str = "", sockets: bool = True) -> None:
        self.what = what
        self.kinds = tuple(KINDS) if sockets else tuple(KINDS)[:2]
        self.figures = {kind: Figure() for kind in self.kinds}
        self.idle_share = 0.0  # of a core: market data, which goes on meanwhile
        self._child = child
        self._traders = traders
        self._database = database

    def rest(self, duration_s: float) -> None:
        self.idle_share = self._child.cpu_share(duration_s)

    def warm_up(self, kind: str) -> None:
        self._perform(kind, WARM_UP_REQUESTS)

    def measure(self, kind: str, requests: int) -> None:
        """Have the traders ask as fast as they are answered.

        Raises:
            Failed: a process failed, or a request was refused.
        """
        before_s, database_s = self._child.cpu_s(), backends_cpu_s(self._database)
        tally = self._perform(kind, requests)
        spent_s = self._child.cpu_s() - before_s - self.idle_share * tally.duration_s
        figure = self.figures[kind]
        figure.cpu_us.append(spent_s / requests * 1e6)
        figure.database_us.append((backends_cpu_s(self._database) - database_s) / requests * 1e6)
        figure.per_second.append(requests / tally.duration_s)
        figure.p50_ms.append(tally.p50)
        figure.p99_ms.append(tally.p99)

    def measure_part_load(self, kind: str, duration_s: float) -> None:
        """Have the traders ask at a part of the pace that the last round reached."""
        figure = self.figures[kind]
        per_second = PART_LOAD * figure.per_second[-1]
        tally = self._perform(kind, max(int(per_second * duration_s), 100), per_second)
        figure.part_p50_ms.append(tally.p50)
        figure.part_p99_ms.append(tally.p99)

    def _perform(self, kind: str, requests: int, per_second: float | None = None) -> Tally:
        self._traders.tell(json.dumps({"kind": kind, "requests": requests, "per_second": per_second}))
        answer = self._traders.answer(120.0)
        tally = Tally(**answer)
        if tally.refused:
            raise Failed(f"{self.what}: refused: {next(iter(tally.refused))}")
        return tally


def run(*, quick: bool) -> Iterator[Row]:
    syncs_ms: list[float] = []
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="router-bench-"))
            peer = stack.enter_context(_peer())
            sqlite = stack.enter_context(_router("SQLite"))
            servers = [peer, sqlite]
            why_not = _postgres_is_missing()
            if why_not is None:
                servers.append(stack.enter_context(_router("PostgreSQL", stack.enter_context(_own_database()))))
            for server in servers:
                server.rest(IDLE_S / 3 if quick else IDLE_S)
                for kind in server.kinds:
                    server.warm_up(kind)
            for _ in range(1 if quick else ROUNDS):
                # In turns: what else the machine does meanwhile meets all of them.
                for kind in KINDS:
                    for server in servers:
                        if kind in server.kinds:
                            server.measure(kind, QUICK_REQUESTS if quick else REQUESTS)
                            server.measure_part_load(kind, 1.0 if quick else PART_LOAD_S)
                syncs_ms.extend(_sync_times_ms(folder, SYNCS))
        except (Failed, OSError, psycopg.Error) as error:
            yield failed(GROUP, "order path", error)
            return
    sync_p99_ms = statistics.quantiles(syncs_ms, n=100)[98]
    yield Row(GROUP, "fsync of the same disk, p99", sync_p99_ms, "ms", note=f"p50 {statistics.median(syncs_ms):.2f} ms")
    for server in servers:
        yield from _rows(server, peer)
    if why_not is not None:
        yield skipped(GROUP, why_not)


def _rows(server: Server, peer: Server) -> Iterator[Row]:
    ours = server is not peer
    for kind in server.kinds:
        figure, what = server.figures[kind], f"{server.what}: {KINDS[kind]}"
        rate = statistics.median(figure.per_second)
        note = f"{rate:.0f}/s with {TRADERS} traders, CPU of the process"
        if server.idle_share > 0.001:
            note += f" less the market's own {server.idle_share:.1%}"
        yield Row(GROUP, f"{what}, CPU", statistics.median(figure.cpu_us), "µs", note=note)
        if any(figure.database_us):
            yield Row(GROUP, "  CPU of its PostgreSQL backends", statistics.median(figure.database_us), "µs")
        if ours:
            pair = (figure, peer.figures["balance" if kind == "balance" else "order"])
            ratio = statistics.median(mine / its for mine, its in zip(pair[0].cpu_us, pair[1].cpu_us, strict=True))
            spread = f"{min(pair[0].cpu_us):.0f}–{max(pair[0].cpu_us):.0f} µs in the rounds"
            yield at_most(GROUP, "  against the peer's", ratio, "×", OF_PEER_MAX[server.what], note=spread)
        p50, p99 = statistics.median(figure.p50_ms), statistics.median(figure.p99_ms)
        yield Row(GROUP, "  p99, all asking at once", p99, "ms", note=f"p50 {p50:.1f} ms")
        part_p50, part_p99 = statistics.median(figure.part_p50_ms), statistics.median(figure.part_p99_ms)
        name, note = f"  p99 at {PART_LOAD:.0%} of that pace", f"p50 {part_p50:.1f} ms, from when each was due"
        if ours:
            yield at_most(GROUP, name, part_p99, "ms", PART_P99_MAX_MS, note=note)
        else:
            yield Row(GROUP, name, part_p99, "ms", note=note)


# -- the servers


@contextlib.contextmanager
def _peer() -> Iterator[Server]:
    port = free_port()
    with running(["-m", "bench.peers.student_exchange", str(port)]) as child:
        _wait_until_heard(child, port)
        with _traders(port) as traders:
            yield Server("in-memory FastAPI", child, traders, sockets=False)


@contextlib.contextmanager
def _router(what: str, database_url: str = "", **more: str) -> Iterator[Server]:
    port = free_port()
    settings = {
        "MARKET_SOURCE": "simulated",
        "SIMULATED_RATE": "0.01",  # there is a market, and it costs next to nothing
        "SECRET_KEY": secrets.token_urlsafe(48),
        "REDIS_URL": "",
        **({"DATABASE_URL": database_url} if database_url else {}),
        **more,
    }
    with (
        router_environment(**settings) as environment,
        running(["manage.py", "run_router", "--port", str(port)], environment) as child,
    ):
        wait_until_ready(child, port)
        with _traders(port) as traders:
            yield Server(what, child, traders, database=database_url)


@contextlib.contextmanager
def _traders(port: int) -> Iterator[Child]:
    """Register the traders, give them money, and connect them."""
    tokens: list[str] = []
    for number in range(TRADERS):
        who = {"username": f"trader-{number}", "password": secrets.token_urlsafe(12)}
        token = str(_post(port, "/register", who)["access_token"])
        _post(port, "/deposit", {"asset": "USDT", "amount": PAPER_MONEY}, token)
        tokens.append(token)
    with running(["-m", "bench.traders"]) as child:
        child.tell(json.dumps({"port": port, "tokens": tokens}))
        child.answer()
        yield child


def _post(port: int, path: str, body: Mapping[str, object], token: str = "") -> dict[str, object]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=30) as response:
        answer: dict[str, object] = json.load(response)
    return answer


def _wait_until_heard(child: Child, port: int, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        child.check()
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=5):
            return
        time.sleep(0.05)
    raise Failed(f"{child.name}: does not answer in {timeout_s:.0f} s")


# -- the disk and the database


def _sync_times_ms(folder: str, count: int) -> list[float]:
    """Append pages to a file, each synced; return how long each took."""
    times_ms = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(count):
            start_s = time.perf_counter()
            file.write(bytes(PAGE))
            os.fsync(file.fileno())
            times_ms.append((time.perf_counter() - start_s) * 1000)
    return times_ms


def _postgres_is_missing() -> str | None:
    try:
        psycopg.connect(POSTGRES_URL, connect_timeout=2).close()
    except psycopg.Error as error:
        return f"PostgreSQL does not answer ({str(error).splitlines()[0]})"
    return None


@contextlib.contextmanager
def _own_database() -> Iterator[str]:
    """Make an empty database and return its URL."""
    name = f"router_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield POSTGRES_URL.rpartition("/")[0] + f"/{name}"
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def backends_cpu_s(database_url: str) -> float:
    """Return the CPU time of the processes that serve this database's connections, 0 when they cannot be seen.

    What the server does for all databases together (the log's writer, checkpoints) is not among it.
    """
    if not database_url:
        return 0.0
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    total_s = 0.0
    for (pid,) in rows:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.name().startswith("postgres"):
                times = process.cpu_times()
                total_s += times.user + times.system
    return total_s
