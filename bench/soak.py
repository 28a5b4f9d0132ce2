"""Hours under the full load, in one process: does anything grow, slow down or get lost?

The load of the latency bench (2 000 frames a second from a venue, 200 clients) and traders who
place, amend, cancel, execute and run TWAP orders meanwhile. Every ten seconds: latencies, rate,
memory, CPU, lost trades. Nothing here grows with the time either, but a few figures a window.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import combinations, count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
from msgspec import Struct, field, structs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from bench import latency, plot, report
from bench.processes import ROOT, Child, Failed, free_port, router_environment, running, wait_until_ready
from bench.report import Row, at_most, failed
from bench.venue_stand_in import SYMBOLS, TRADE_EVERY

GROUP = "soak"
DURATION_S = 3600.0
QUICK_S = 30.0
WINDOW_S = 10.0
TRADERS = 8
PAUSE_S = 0.2  # of a trader between two commands
TWAP_S, TWAP_SLICES = 10, 5
TWAP_EVERY = 50  # commands of a trader
FAR, WITHIN, ABOVE = 50, 100.5, 1000  # the stand-in's market walks from 100 to 110, again and again
PAPER_MONEY = 1_000_000_000
ANSWER_S = 30.0
LATE_S = 30.0
IMAGE = ROOT / "docs" / "images" / "soak.svg"

RSS_GROWTH_MAX_MB_PER_H = 1.0
# The allocator takes memory in arenas and gives it back late: less than this between two ends is no growth.
RSS_NOISE_MB = 0.5


class Load(Struct, frozen=True):
    """How much of everything, and for how long."""

    duration_s: float = DURATION_S
    window_s: float = WINDOW_S
    per_second: int = latency.PER_SECOND
    clients: int = latency.CLIENTS
    traders: int = TRADERS

    @property
    def frames(self) -> int:
        whole = len(SYMBOLS) * TRADE_EVERY
        return int(self.per_second * self.duration_s) // whole * whole


class Window(Struct, frozen=True):
    """What one window showed; latencies in ms from the venue's frame to the client, None without trades."""

    minute: float
    frames_per_s: float
    p50: float | None
    p99: float | None
    max: float | None
    rss_mb: float
    cpu_percent: float
    orders_per_s: float
    holes: int
    closed: int


class Orders(Struct):
    """What the traders did; each account's reports must be numbered without a hole."""

    commands: int = 0
    reports: int = 0
    twaps: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    report_holes: int = 0


class Soaked(Struct):
    load: Load
    windows: list[Window]
    orders: Orders
    venue_per_s: float
    lost: int  # trades, by any client
    closed: int
    clients_cpu: float  # share of a core
    ledger: str  # what `verify_ledger` said against it; empty when it holds


def run(*, quick: bool, minutes: float | None = None) -> Iterator[Row]:
    duration_s = QUICK_S if quick else DURATION_S if minutes is None else minutes * 60
    load = Load(duration_s=duration_s, window_s=min(WINDOW_S, duration_s / 6))
    try:
        soaked = asyncio.run(soak(load))
    except Failed as error:
        yield failed(GROUP, f"{load.per_second} frames/s to {load.clients} clients and {load.traders} traders", error)
        return
    save(soaked, quick=quick)
    if not quick:
        draw(soaked, IMAGE)
    yield from rows(soaked)


def rows(soaked: Soaked) -> Iterator[Row]:
    load, windows, orders = soaked.load, soaked.windows, soaked.orders
    p99s = [window.p99 for window in windows if window.p99 is not None]
    p50s = [window.p50 for window in windows if window.p50 is not None]
    if p99s:
        what = f"trades, p99 of the median window of {load.window_s:.0f} s"
        note = f"{soaked.venue_per_s:.0f} frames/s from the venue, {load.clients} clients, {load.duration_s / 60:g} min"
        yield at_most(GROUP, what, statistics.median(p99s), "ms", latency.P99_MAX_MS, note=note)
        yield Row(GROUP, "trades, p99 of the worst window", max(p99s), "ms")
        yield Row(GROUP, "trades, p50 of the median window", statistics.median(p50s), "ms")
    cpu = statistics.median(window.cpu_percent for window in windows)
    rate = statistics.median(window.frames_per_s for window in windows)
    note = f"of one core, median; {rate:.0f} frames/s to clients, whose process used {soaked.clients_cpu:.0%}"
    yield at_most(GROUP, "CPU of the process", cpu, "%", latency.CPU_MAX_PERCENT, note=note)
    yield Row(GROUP, "memory", windows[-1].rss_mb, "MB", note=f"{windows[0].rss_mb:.1f} MB after the first window")
    later = windows[len(windows) // 2 :]
    what, limit = "growth of memory, second half", growth_max_mb_per_h(later)
    note = f"median of all slopes; {RSS_NOISE_MB} MB from end to end is noise"
    yield at_most(GROUP, what, growth_mb_per_h(later), "MB/h", limit, note=note)
    yield at_most(GROUP, "trades lost", soaked.lost, "", 0, note="by any client")
    yield at_most(GROUP, "connections lost", soaked.closed, "", 0)
    note = f"{orders.commands} commands, {orders.twaps} TWAPs, {orders.reports} reports"
    yield at_most(GROUP, "order reports lost", orders.report_holes, "", 0, note=note)
    note = ", ".join(f"{number} × {what}" for what, number in orders.refused.items())
    yield at_most(GROUP, "orders refused", orders.refused.total(), "", 0, note=note)
    yield at_most(GROUP, "ledgers that are wrong", int(bool(soaked.ledger)), "", 0, note=soaked.ledger)


def growth_mb_per_h(windows: Sequence[Window]) -> float:
    """Return the slope of memory over time: the median over all pairs, which single steps do not move."""
    slopes = [
        (later.rss_mb - earlier.rss_mb) / (later.minute - earlier.minute) * 60
        for earlier, later in combinations(windows, 2)
    ]
    return statistics.median(slopes) if slopes else 0.0


def growth_max_mb_per_h(windows: Sequence[Window]) -> float:
    """Return the limit for so many windows: a short run cannot tell a small growth from noise."""
    hours = (windows[-1].minute - windows[0].minute) / 60
    return max(RSS_GROWTH_MAX_MB_PER_H, RSS_NOISE_MB / hours if hours else 0.0)


def save(soaked: Soaked, *, quick: bool) -> Path:
    """Keep the windows beside the other results."""
    report.RESULTS.mkdir(exist_ok=True)
    run = report.context(quick=quick)
    path = report.RESULTS / f"soak-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{run.commit}.json"
    content = {**structs.asdict(run), **msgspec.to_builtins(soaked)}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def draw(soaked: Soaked, path: Path) -> None:
    """Draw the windows over time."""
    windows, load = soaked.windows, soaked.load
    run = report.context(quick=False)
    panels = [
        plot.Panel("Memory of the router", " MB", [plot.Line("memory", [w.rss_mb for w in windows])]),
        plot.Panel(
            "Venue's frame to client's", " ms",
            [plot.Line("p50", [w.p50 for w in windows]), plot.Line("p99", [w.p99 for w in windows])],
            limit=latency.P99_MAX_MS,
        ),
        plot.Panel("Frames to clients", " /s", [plot.Line("rate", [w.frames_per_s for w in windows])]),
        plot.Panel("CPU of the router, of one core", " %", [plot.Line("cpu", [w.cpu_percent for w in windows])]),
    ]  # fmt: skip
    below = (
        f"{soaked.venue_per_s:.0f} frames/s in, {load.clients} clients, {load.traders} traders · "
        f"{soaked.lost} trades lost · {run.machine.partition(',')[0]}, {run.cores} cores · {run.started_at[:10]}"
    )
    minutes = [window.minute for window in windows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plot.svg(f"{load.duration_s / 60:.0f} minutes under load", below, minutes, panels))


async def soak(load: Load) -> Soaked:
    """Run the load.

    Raises:
        Failed: a process ended, or did not answer.
    """
    venue_port, port = free_port(), free_port()
    settings = {
        "MARKET_SOURCE": "live",
        "VENUES": "binance",
        "BINANCE_WS_URL": f"ws://127.0.0.1:{venue_port}/stream",
        "PORT": str(port),
    }
    job = {"port": port, "path": "/ws", "subscriptions": [latency.subscriptions(n) for n in range(load.clients)]}
    with (
        router_environment(**settings) as environment,
        running(["-m", "bench.venue_stand_in", str(venue_port), str(load.per_second), str(load.frames)]) as venue,
        running(["manage.py", "run_router"], environment) as router,
        running(["-m", "bench.clients"]) as clients,
    ):
        venue.answer()
        wait_until_ready(router, port)
        clients.tell(json.dumps(job))
        clients.answer()
        await asyncio.sleep(latency.SETTLE_S)
        orders = Orders()
        async with _trading(port, load.traders, orders):
            readers_s, start_s = clients.cpu_s(), time.monotonic()
            venue.tell("go")
            windows = [window async for window in _windows(load, router, clients, orders, start_s)]
            readers = (clients.cpu_s() - readers_s) / (time.monotonic() - start_s)
            rate = await asyncio.to_thread(venue.answer, LATE_S)
        await asyncio.sleep(1.0)  # what the venue sent last is on its way
        clients.tell("stop")
        tally = await asyncio.to_thread(clients.answer)
        expect = load.frames // (len(SYMBOLS) * TRADE_EVERY) * latency.SYMBOLS_EACH
        router.check()
        ledger = await _verified(environment)
    lost = max(expect - tally["trades_fewest"], tally["holes"])
    return Soaked(load, windows, orders, rate, lost, tally["closed"], readers, ledger)


async def _windows(load: Load, router: Child, clients: Child, orders: Orders, start_s: float) -> AsyncIterator[Window]:
    clients.tell("window")  # what came before counts to none
    await asyncio.to_thread(clients.answer)
    since_s, cpu_s, commands = time.monotonic(), router.cpu_s(), orders.commands
    for number in range(1, int(load.duration_s / load.window_s) + 1):
        await asyncio.sleep(max(start_s + number * load.window_s - time.monotonic(), 0.0))
        router.check()
        now_s, now_cpu_s = time.monotonic(), router.cpu_s()
        clients.tell("window")
        tally: Any = await asyncio.to_thread(clients.answer)
        ages, lasted_s = tally["trades"] or {}, now_s - since_s
        yield Window(
            minute=(now_s - start_s) / 60,
            frames_per_s=sum(tally["frames"].values()) / lasted_s,
            p50=ages.get("p50"),
            p99=ages.get("p99"),
            max=ages.get("max"),
            rss_mb=router.memory_mb(),
            cpu_percent=(now_cpu_s - cpu_s) / lasted_s * 100,
            orders_per_s=(orders.commands - commands) / lasted_s,
            holes=tally["holes"],
            closed=tally["closed"],
        )
        since_s, cpu_s, commands = now_s, now_cpu_s, orders.commands


@asynccontextmanager
async def _trading(port: int, traders: int, orders: Orders) -> AsyncIterator[None]:
    """Have traders at work; let them finish their round at the end."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_trade(port, number, orders, stop)) for number in range(traders)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _trade(port: int, number: int, orders: Orders, stop: asyncio.Event) -> None:
    """Trade until told to stop; what goes wrong is counted, and ends this trader."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    try:
        token = await asyncio.to_thread(_account, port, f"trader{number}", symbol)
        async with connect(f"ws://127.0.0.1:{port}/ws?token={token}", compression=None) as socket:
            desk = _Desk(socket, f"{symbol}USDT", orders)
            for turn in count():
                if stop.is_set():
                    return
                await desk.take_turn(turn)
                if turn % TWAP_EVERY == number:
                    await asyncio.to_thread(_start_twap, port, token, f"{symbol}USDT")
                    orders.twaps += 1
                await asyncio.sleep(PAUSE_S)
    except (OSError, TimeoutError, WebSocketException) as error:
        orders.refused[f"{type(error).__name__}: {error}"] += 1


class _Desk:
    """One trader's socket: says a command, reads up to its answer, and checks the reports' numbers on the way."""

    def __init__(self, socket: ClientConnection, symbol: str, orders: Orders) -> None:
        self._socket = socket
        self._symbol = symbol
        self._orders = orders
        self._seq: int | None = None
        self._said = 0

    async def take_turn(self, turn: int) -> None:
        """One command of a cycle: rest, amend, cancel, execute at once both ways, ioc, rest where the market goes."""
        resting = f"o{turn // 7 * 7}"
        order = {"token_id": f"o{turn}", "symbol": self._symbol, "side": "buy", "quantity": 0.01}
        commands: tuple[dict[str, object], ...] = (
            {"action": "submit_order", **order, "price": FAR},
            {"action": "modify_order", "token_id": resting, "price": FAR + 1},
            {"action": "cancel_order", "token_id": resting},
            {"action": "submit_order", **order, "price": ABOVE},
            {"action": "submit_order", **order, "side": "sell", "price": FAR},
            {"action": "submit_order", **order, "order_type": "ioc", "price": WITHIN},
            {"action": "submit_order", **order, "price": WITHIN},
        )
        await self._say(commands[turn % len(commands)])

    async def _say(self, command: dict[str, object]) -> None:
        self._said += 1
        await self._socket.send(json.dumps({**command, "id": self._said}))
        self._orders.commands += 1
        async with asyncio.timeout(ANSWER_S):
            while True:
                message = json.loads(await self._socket.recv())
                if message["type"] == "info":
                    self._seq = message["last_seq"]
                elif message["type"] == "order_update":
                    self._reported(message["seq"])
                if message.get("id") == self._said:
                    break
        if message["type"] == "error":
            self._orders.refused[f"{command['action']}: {message['code']}"] += 1

    def _reported(self, seq: int) -> None:
        self._orders.reports += 1
        self._orders.report_holes += self._seq is not None and seq != self._seq + 1
        self._seq = seq


def _account(port: int, name: str, base: str) -> str:
    """Register, pay in both assets, and return the access token."""
    tokens = _post(port, "/register", {"username": name, "password": "password123"})
    token = str(tokens["access_token"])
    for asset in ("USDT", base):
        _post(port, "/deposit", {"asset": asset, "amount": PAPER_MONEY}, token)
    return token


def _start_twap(port: int, token: str, symbol: str) -> None:
    terms = {"total_quantity": 0.1, "duration_seconds": TWAP_S, "slices": TWAP_SLICES}
    _post(port, "/orders/twap", {"symbol": symbol, "side": "buy", **terms}, token)


def _post(port: int, path: str, body: Any, token: str = "") -> Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=ANSWER_S) as answer:
        return json.load(answer)


async def _verified(environment: Mapping[str, str]) -> str:
    """Return what `verify_ledger` has against the ledger, empty when nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", "verify_ledger",
        cwd=ROOT, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return said.decode(errors="replace").strip()[-300:] if process.returncode else ""
