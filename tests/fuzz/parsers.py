"""Whatever a venue sends: nothing is raised, nothing grows, and what it sends well afterwards is told again.

    python -m tests.fuzz.parsers --minutes 5 --venue okx

Guided by coverage, where `atheris` is installed (`pip install atheris`); an input that fails is kept in a file, and
`--input FILE` tries it again.
"""

import argparse
import asyncio
import functools
import gc
import gzip
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from types import FunctionType

from core.book import Book
from core.events import BookDelta
from marketdata.feed import HEADS_MAX, NS, REQUEST_TOPICS_MAX, FeedSession
from marketdata.market import ID_RESET_NS, State
from marketdata.simulated import SimulatedVenues
from marketdata.venue import Venue
from marketdata.venues import VENUES
from tests.conftest import CAPTURES
from tests.marketdata.replay import Replay, kraken_instruments
from tests.marketdata.venues.test_hostile_frames import SEEDS

INSTRUMENTS = ("BTC-USDT", "ETH-USDT")
BEGAN_NS = 1_790_000_000 * NS
LATER_NS = ID_RESET_NS + NS  # whatever a venue may be forgiven, it is forgiven after so long
FIRST_GOOD = 10**13  # ids above those that recordings have
COUNTERS_MAX = 40  # kinds of things that are counted
OUTGOING_MAX = 200  # frames that we want to send because of what we heard
EVENTS_PER_BYTE = 1  # of a frame, at most
RECORDED_FRAMES = 400  # of each session, as seeds
SIMULATED_FRAMES = 60
INSTRUMENTED = ("marketdata", "core")
SEPARATOR = b"\n"  # between the frames of one input

Frame = str | bytes


# -- what a venue in good health says


def good(venue: str, number: int, now_ns: int) -> list[str]:
    """Return a quote, a book and a trade of the first instrument, all told now, and what makes the venue ready."""
    price, ms = Decimal(60_000) + Decimal(number % 100) / 10, now_ns // 1_000_000
    bid, ask = f"{price}", f"{price + 1}"
    if venue == "binance":
        touch = {"u": number, "s": "BTCUSDT", "b": bid, "B": "1.25", "a": ask, "A": "0.80"}
        book = {"lastUpdateId": number, "bids": [[bid, "1.25"]], "asks": [[ask, "0.80"]]}
        trade = {"e": "trade", "t": number, "p": bid, "q": "0.5", "T": ms, "m": True}
        return [
            _json({"stream": f"btcusdt@{stream}", "data": data})
            for stream, data in (("bookTicker", touch), ("depth20@100ms", book), ("trade", trade))
        ]
    if venue == "okx":
        levels = {"asks": [[ask, "0.80", "0", "3"]], "bids": [[bid, "1.25", "0", "5"]], "ts": str(ms), "seqId": number}
        trade = {"instId": "BTC-USDT", "tradeId": str(number), "px": bid, "sz": "0.5", "side": "buy", "ts": str(ms)}
        return [
            _json({"arg": {"channel": channel, "instId": "BTC-USDT"}, "data": [data]})
            for channel, data in (("bbo-tbt", levels), ("books5", levels), ("trades", trade))
        ]
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ns // NS)) + f".{now_ns % NS // 1000:06d}Z"
    proof = Book(10, 1, 8)
    proof.apply(
        BookDelta(bids=((price, Decimal("1.25")),), asks=((price + 1, Decimal("0.8")),), checksum=None, snapshot=True)
    )
    sides = {
        name: [{"price": float(at_price), "qty": size}]
        for name, at_price, size in (("bids", price, 1.25), ("asks", price + 1, 0.8))
    }
    touch = {
        "symbol": "BTC/USDT",
        "bid": float(bid),
        "bid_qty": 1.25,
        "ask": float(ask),
        "ask_qty": 0.8,
        "timestamp": at,
    }
    trade = {"symbol": "BTC/USDT", "side": "sell", "price": float(bid), "qty": 0.5, "trade_id": number, "timestamp": at}
    book = {"symbol": "BTC/USDT", **sides, "checksum": proof.checksum(), "timestamp": at}
    return [
        _json({"channel": "status", "type": "update", "data": [{"system": "online"}]}),
        kraken_instruments(BTC_USDT=(1, 8), ETH_USDT=(2, 8)),
        _json({"channel": "ticker", "type": "update", "data": [touch]}),
        _json({"channel": "book", "type": "snapshot", "data": [book]}),
        _json({"channel": "trade", "type": "update", "data": [trade]}),
    ]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


# -- the oracle


def survives(venue: Venue, frames: Iterable[Frame]) -> None:
    """Hand frames to a venue in good health, and see that it comes back to it.

    Raises:
        AssertionError: something grew, or what is told well is not told on.
    """
    run = Replay(venue, INSTRUMENTS, now_ns=BEGAN_NS)
    numbers = itertools.count(FIRST_GOOD)
    _hear_good(run, next(numbers))
    for frame in frames:
        events = run.push(frame)
        assert len(events) <= 2 + EVENTS_PER_BYTE * len(frame), f"{len(events)} events of one frame"
    session = run.session
    assert len(session.counters) + len(run.market.counters) <= COUNTERS_MAX, "counters are named by the venue"
    assert len(session.outgoing) <= OUTGOING_MAX, "we answer each frame"
    assert len(session._heads) <= HEADS_MAX
    assert len(session._requests) <= REQUEST_TOPICS_MAX
    assert session.disabled.keys() | run.market.disabled.keys() <= set(INSTRUMENTS)
    for _ in range(4):
        run.now_ns += LATER_NS
        told = _hear_good(run, next(numbers))
    if not run.market.disabled:  # a price that money cannot express takes an instrument out until the next connection
        _assert_told(run, told, "on the same connection")
    run.market.lost("in the test")
    run.session = FeedSession(venue, INSTRUMENTS)
    run.market.connecting()
    run.market.connected(run.now_ns)
    run.session.opened(run.now_ns)
    for _ in range(2):
        run.now_ns += LATER_NS
        told = _hear_good(run, next(numbers))
    _assert_told(run, told, "on the next connection")


def _hear_good(run: Replay, number: int) -> int:
    for sink in (run.sink.quotes, run.sink.books, run.sink.trades):
        sink.clear()
    frames = good(run.session.venue.name, number, run.now_ns)
    for _ in range(2):  # the market takes books once it is live: the first quote makes it so
        for frame in frames:
            run.push(frame)
    return number


def _assert_told(run: Replay, number: int, when: str) -> None:
    price = Decimal(60_000) + Decimal(number % 100) / 10
    assert run.market.state is State.LIVE, f"not live {when}: {run.market.reason}"
    quotes = [quote for name, quote in run.sink.quotes if name == INSTRUMENTS[0]]
    books = [book for name, book in run.sink.books if name == INSTRUMENTS[0]]
    trades = [trade for name, trade in run.sink.trades if name == INSTRUMENTS[0]]
    assert quotes, f"no quote {when}"
    assert quotes[-1], f"the quote is lost {when}"
    assert (quotes[-1].bid, quotes[-1].ask) == (price, price + 1), f"another quote {when}"
    assert books, f"no book {when}"
    assert [level[0] for level in (*books[-1].bids, *books[-1].asks)] == [price, price + 1], f"another book {when}"
    assert trades, f"no trade {when}"
    assert trades[-1].last_id == number, f"another trade {when}"


# -- real frames to start from


def recorded(venue: str) -> Iterator[str]:
    """Yield the first frames of each recorded session of a venue, where there are any."""
    for path in sorted(CAPTURES.glob(f"*{venue}*.jsonl.gz")) if CAPTURES.is_dir() else ():
        if not path.name.startswith("instruments"):
            with gzip.open(path, "rt") as lines:
                records = (json.loads(line) for line in lines)
                inbound = (record["raw"] for record in records if record["dir"] == "in" and "url" not in record)
                yield from itertools.islice(inbound, RECORDED_FRAMES)


async def simulated(venue: str) -> list[str]:
    """Return frames of the built-in venue, which speaks the protocol by itself."""
    from websockets.asyncio.client import connect

    frames: list[str] = []
    async with SimulatedVenues(INSTRUMENTS, seed=5) as market, connect(market.urls[venue], proxy=None) as socket:
        session = FeedSession(VENUES[venue], INSTRUMENTS)
        session.opened(time.monotonic_ns())
        while len(frames) < SIMULATED_FRAMES:
            while session.outgoing:
                await socket.send(session.outgoing.popleft())
            frame = await socket.recv(decode=True)
            session.receive(frame, time.monotonic_ns())
            frames.append(frame)
    return frames


@functools.cache
def seeds(venue: str) -> Sequence[str]:
    return [*SEEDS[venue], *good(venue, FIRST_GOOD + 7, BEGAN_NS), *recorded(venue)]


# -- guided by coverage


def fuzz(venue: str, seconds: float, folder: Path) -> None:
    """Run libFuzzer in this process, which ends with it."""
    import atheris

    def one(data: bytes) -> None:
        survives(VENUES[venue], data.split(SEPARATOR))

    inputs = folder / "inputs"
    inputs.mkdir(exist_ok=True)
    chosen = [*seeds(venue), *asyncio.run(simulated(venue))]
    for number, frame in enumerate(dict.fromkeys(chosen)):
        (inputs / f"seed-{number}").write_bytes(frame.encode())
    words = folder / "words"
    words.write_text("".join(f'"{word}"\n' for word in _words(chosen)))
    for function in gc.get_objects():  # ours alone: all that is imported takes minutes
        if type(function) is FunctionType and (function.__module__ or "").split(".")[0] in INSTRUMENTED:
            atheris.instrument_func(function)
    options = [
        f"-max_total_time={seconds:.0f}",
        f"-dict={words}",
        f"-artifact_prefix={folder}/failed-",
        "-max_len=8192",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(inputs)], one)
    atheris.Fuzz()


def _words(frames: Iterable[str]) -> list[str]:
    """Return the words of the frames, as libFuzzer's dictionary writes them."""
    import re

    found: dict[str, None] = {}
    for frame in frames:
        found |= dict.fromkeys(re.findall(r"[A-Za-z@/_-]{2,20}", frame))
    return [*list(found)[:400], "9" * 20, "1e999", "-1", "null", r"\x00", r"\xed\xa0\x80", "{}", "[]"]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.parsers", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for each venue")
    parser.add_argument("--venue", choices=tuple(VENUES), action="append", help="this one only")
    parser.add_argument("--input", type=Path, help="try the frames of a file again")
    parser.add_argument("--folder", type=Path, help="where inputs are kept and found again")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    names: list[str] = chosen.venue or list(VENUES)
    if chosen.input is not None:
        for name in names:
            survives(VENUES[name], chosen.input.read_bytes().split(SEPARATOR))
        return 0
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    if chosen.in_process:
        fuzz(names[0], chosen.minutes * 60, folder)
    statuses = []
    for name in names:  # libFuzzer ends its process
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.parsers",
            "--in-process",
            "--venue",
            name,
            "--minutes",
            str(chosen.minutes),
        ]
        statuses.append(subprocess.run([*command, "--folder", str(place)], check=False).returncode)
    print(f"inputs are in {folder}; ended with {dict(zip(names, statuses, strict=True))}")
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
