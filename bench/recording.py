"""What recording costs: POST /orders with and without it, in turns, and a venue's frame as it is written down.

The routers are those of the orders bench. Of the frames the CPU is measured that a frame costs beside its
reading, and what it takes on the disk.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from bench.orders import KINDS, Server, _own_database, _postgres_is_missing, _router
from bench.processes import Failed
from bench.report import Row, failed, skipped
from marketdata.arrivals import FrameRecorder

ROOT = Path(__file__).resolve().parent.parent
GROUP = "recording"
KIND = "order"
ROUNDS = 5
REQUESTS, QUICK_REQUESTS = 3_000, 400
FRAMES = 100_000
BURST = 20  # frames between two turns of the loop
FRAME = (
    b'{"stream":"btcusdt@bookTicker","data":{"u":400900217,"s":"BTCUSDT","b":"50000.01000000","B":"3.12100000",'
    b'"a":"50000.02000000","A":"4.06600000"}}'
)


def run(*, quick: bool) -> Iterator[Row]:
    yield from _frames(FRAMES // 10 if quick else FRAMES)
    why_not = _postgres_is_missing()
    for what in ("SQLite", "PostgreSQL"):
        if what == "PostgreSQL" and why_not is not None:
            yield skipped(GROUP, why_not)
            continue
        try:
            yield from _orders(what, ROUNDS if not quick else 1, QUICK_REQUESTS if quick else REQUESTS)
        except (Failed, OSError, psycopg.Error) as error:
            yield failed(GROUP, f"{what}: {KINDS[KIND]}", error)


def _orders(what: str, rounds: int, requests: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="router-bench-") as name:
        folder = Path(name)
        with contextlib.ExitStack() as stack:
            servers: list[Server] = []
            for recording in ("", name):
                url = stack.enter_context(_own_database()) if what == "PostgreSQL" else ""
                servers.append(stack.enter_context(_router(what, url, RECORDING=recording)))
            for server in servers:
                server.rest(1.0)
                server.warm_up(KIND)
            before = _size(folder)
            for _ in range(rounds):
                for server in servers:
                    server.measure(KIND, requests)
            written = (_size(folder) - before) / (rounds * requests)
            plain, recorded = (server.figures[KIND] for server in servers)
        again = _rerun(folder)
    ratio = statistics.median(mine / its for mine, its in zip(recorded.cpu_us, plain.cpu_us, strict=True))
    for name, figure in (("not recorded", plain), ("recorded", recorded)):
        note = f"{statistics.median(figure.per_second):.0f}/s, p99 {statistics.median(figure.p99_ms):.1f} ms"
        cpu_us = statistics.median(figure.cpu_us)
        yield Row(GROUP, f"{what}: {KINDS[KIND]}, {name}, CPU", cpu_us, "µs", note=note)
        if any(figure.database_us):
            yield Row(GROUP, "  CPU of its PostgreSQL backends", statistics.median(figure.database_us), "µs")
    spread = f"{min(recorded.cpu_us):.0f}–{max(recorded.cpu_us):.0f} µs in the rounds"
    yield Row(GROUP, "  recorded against not", ratio, "×", note=spread)
    yield Row(GROUP, "  on the disk, an order", written, "bytes")
    note = f"{again['transactions']:,} transactions, {again['frames']:,} frames, in {again['seconds']} s"
    yield Row(GROUP, "  run again, orders and deposits", again["commands"] / again["seconds"], "/s", note=note)


def _rerun(folder: Path) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "manage.py", "rerun", str(folder), "--json"], cwd=ROOT, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(process.stdout or "{}")
    if process.returncode:
        raise Failed(f"rerun: {found.get('problem') or process.stderr}")
    return found


def _frames(count: int) -> Iterator[Row]:
    async def write(recorder: FrameRecorder) -> None:
        for number in range(count):
            recorder.frame(1, FRAME, 10**14 + number, 17 * 10**17 + number)
            if number % BURST == 0:
                await asyncio.sleep(0)

    with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
        recorder = FrameRecorder(Path(folder), "bench")
        start_s = time.process_time()
        asyncio.run(write(recorder))
        spent_s = time.process_time() - start_s
        recorder.stop()
        size = _size(Path(folder)) / count
    yield Row(GROUP, "a frame, written down, CPU", spent_s / count * 1e6, "µs", note=f"{BURST} at once")
    yield Row(GROUP, "  on the disk", size, "bytes", note=f"a frame of {len(FRAME)}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.rec"))
