"""The same recorded frames through us, ccxt.pro and cryptofeed: CPU seconds of each, in turns, in one run.

The libraries run in a Python of their own (`peers/feed_libraries.py`): one named by
`BENCH_PEERS_PYTHON`, or one that is made here, once. Neither is needed for anything else.
"""

import gzip
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from bench.processes import Child, Failed
from bench.report import Row, at_least, failed, skipped

GROUP = "feeds"
PEERS = Path(__file__).parent / "peers"
REQUIREMENTS = PEERS / "requirements.txt"
ENVIRONMENT = PEERS / ".venv"
INSTALL_S = 600.0
PASS_S = 120.0  # one pass of a library over the frames
ROUNDS = 5  # in which we and the libraries take turns
DEPTH = 20  # levels a side of a whole book
LIBRARIES = {"ccxt": "ccxt.pro", "cryptofeed": "cryptofeed"}


class Ours(Protocol):
    """One pass of ours over frames: CPU seconds, and what came of them."""

    def __call__(self, frames: Sequence[str], *, read_books: bool) -> tuple[float, Counter[str]]: ...


class Unavailable(Exception):
    """The libraries cannot be run here; the message says why."""


class Comparison(Struct, frozen=True):
    """One kind of market data, in the format that each side subscribes to; as many frames on every side."""

    what: str
    event: str  # how we count it
    ours: list[str]
    libraries: dict[str, tuple[list[str], str]]  # library → frames, and how it names their events
    targets: dict[str, float]  # library → how many times as fast we are at least
    snapshot: dict[str, Any] | None = None  # the book before the first frame, where frames are its changes
    kept: bool = False  # the target is for books that nobody asks for


def run(path: Path, ours: Ours, *, quick: bool) -> Iterator[Row]:
    try:
        python = _python(make=not quick)
    except Unavailable as error:
        yield skipped(GROUP, f"ccxt.pro and cryptofeed: {error}")
        return
    for comparison in _comparisons(path):
        try:
            yield from _compare(comparison, ours, python, 1 if quick else ROUNDS)
        except Failed as error:
            yield failed(GROUP, comparison.what, error)


def _compare(comparison: Comparison, ours: Ours, python: str, rounds: int) -> Iterator[Row]:
    count = len(comparison.ours)
    passes: dict[str, list[float]] = {name: [] for name in ("ours", "ours, kept", *LIBRARIES)}
    with tempfile.TemporaryDirectory() as folder:
        children = {}
        try:
            for library, (frames, _) in comparison.libraries.items():
                file = Path(folder) / f"{library}.json"
                file.write_text(json.dumps({"frames": frames, "snapshot": comparison.snapshot}))
                children[library] = Child([str(PEERS / "feed_libraries.py"), library, str(file)], {}, python=python)
            for _ in range(rounds):
                for name, read_books in (("ours", True), ("ours, kept", False)):
                    cpu_s, counts = ours(comparison.ours, read_books=read_books)
                    _check("ours", counts[comparison.event], count)
                    passes[name].append(cpu_s)
                for library, child in children.items():
                    child.tell("go")
                    told = child.answer(PASS_S)
                    _check(library, told["events"].get(comparison.libraries[library][1], 0), count)
                    passes[library].append(told["cpu_s"])
        finally:
            for child in children.values():
                child.stop()
    rates = {name: count / statistics.median(seconds) for name, seconds in passes.items()}
    yield Row(GROUP, f"{comparison.what}: decoded", rates["ours"], "frames/CPU s", note=f"{count} frames")
    if comparison.kept:
        yield Row(GROUP, f"{comparison.what}: kept", rates["ours, kept"], "frames/CPU s", note="nobody asks for them")
    counted = "ours, kept" if comparison.kept else "ours"
    for library, name in LIBRARIES.items():
        event = comparison.libraries[library][1]
        yield Row(GROUP, f"  {name}", rates[library], "frames/CPU s", note=f"{count} events ({event})")
        ratios = [theirs / mine for mine, theirs in zip(passes[counted], passes[library], strict=True)]
        note = f"{rates['ours'] / rates[library]:.2g} × when all are decoded" if comparison.kept else ""
        ratio = statistics.median(ratios)
        yield at_least(GROUP, f"  against {name}", ratio, "×", comparison.targets[library], note=note)


def _check(who: str, events: int, frames: int) -> None:
    if events != frames:
        raise Failed(f"{who} made {events} events of {frames} frames")


# -- the frames


def _comparisons(path: Path) -> list[Comparison]:
    touches, trades, changes, snapshot = _read(path)
    aggregates = [_as_aggregate(frame) for frame in trades]
    images = _images(changes, snapshot)
    return [
        Comparison(
            "touches beside libraries", "quotes", touches,
            {"ccxt": (touches, "bidask"), "cryptofeed": (touches, "ticker")}, {"ccxt": 10, "cryptofeed": 1.5},
        ),
        Comparison(
            "trades beside libraries", "trades", trades,
            {"ccxt": (trades, "trade"), "cryptofeed": (aggregates, "trades")}, {"ccxt": 10, "cryptofeed": 1.5},
        ),
        Comparison(
            "books beside libraries", "books", images,
            {"ccxt": (changes, "orderbook"), "cryptofeed": (changes, "l2_book")}, {"ccxt": 20, "cryptofeed": 20},
            snapshot=snapshot, kept=True,
        ),
    ]  # fmt: skip


def _read(path: Path) -> tuple[list[str], list[str], list[str], dict[str, Any]]:
    """Return the recorded touches, trades and changes of the book, the latter from the recorded snapshot on."""
    kinds: dict[str, list[str]] = {"bookTicker": [], "trade": [], "depth": []}
    snapshot: dict[str, Any] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            entry = json.loads(line)
            if "url" in entry:
                snapshot = json.loads(entry["raw"])
            elif entry["dir"] == "in":
                kinds[json.loads(entry["raw"])["stream"].split("@")[1]].append(entry["raw"])
    since = [frame for frame in kinds["depth"] if json.loads(frame)["data"]["u"] > snapshot["lastUpdateId"]]
    return kinds["bookTicker"], kinds["trade"], since, snapshot


def _as_aggregate(frame: str) -> str:
    """Write a trade as an aggregate of one, the only kind that cryptofeed reads."""
    trade = json.loads(frame)["data"]
    trade |= {"e": "aggTrade", "a": trade["t"], "f": trade["t"], "l": trade.pop("t")}
    return _frame("btcusdt@aggTrade", trade)


def _images(changes: Sequence[str], snapshot: dict[str, Any]) -> list[str]:
    """Write the book after each change as the venue does on its channel of whole books."""
    sides = {side: {Decimal(price): (price, size) for price, size in snapshot[side]} for side in ("bids", "asks")}
    frames = []
    for frame in changes:
        data = json.loads(frame)["data"]
        for side, key in (("bids", "b"), ("asks", "a")):
            for price, size in data[key]:
                if Decimal(size):
                    sides[side][Decimal(price)] = (price, size)
                else:
                    sides[side].pop(Decimal(price), None)
        bids, asks = sides["bids"], sides["asks"]
        image = {
            "bids": [bids[price] for price in heapq.nlargest(DEPTH, bids)],
            "asks": [asks[price] for price in heapq.nsmallest(DEPTH, asks)],
        }
        frames.append(_frame("btcusdt@depth20@100ms", {"lastUpdateId": data["u"], **image}))
    return frames


def _frame(stream: str, data: object) -> str:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":"))


# -- the libraries' Python


def _python(*, make: bool) -> str:
    """Return a Python that has the libraries, made now if need be and allowed.

    Raises:
        Unavailable: there is none, and none could be made.
    """
    named = os.environ.get("BENCH_PEERS_PYTHON")
    if named:
        return named
    wanted, installed = REQUIREMENTS.read_text(), ENVIRONMENT / "installed.txt"
    python = ENVIRONMENT / "bin" / "python"
    if not installed.is_file() or installed.read_text() != wanted:
        if not make:
            raise Unavailable("not installed yet; a run without --quick does that")
        print("Installing ccxt and cryptofeed to compare with, once; about a minute.", file=sys.stderr)
        try:
            _do(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
            _do(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS))
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"they could not be installed ({type(error).__name__})") from error
        installed.write_text(wanted)
    return str(python)


def _do(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_S, capture_output=True)
