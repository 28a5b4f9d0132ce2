"""Frames normalised per CPU second, on recorded sessions, beside `json.loads` of the same frames.

The road of every frame: adapter, `FeedSession` (with Kraken's checked book), `VenueMarket`, and
a `TouchBoard` at the end. No sockets, one thread. Then the same frames of Binance beside two
market data libraries (`feed_peers.py`).
"""

import gzip
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct, structs

from bench import feed_peers
from bench.report import Row, skipped
from core.events import BookImage, Quote, Trade
from core.touch import TouchBoard
from marketdata.feed import NS, FeedSession, KeptImage
from marketdata.market import State, VenueMarket
from marketdata.venue import Venue
from marketdata.venues import VENUES

GROUP = "feeds"
CAPTURES_DEFAULT = Path(__file__).parent.parent.parent / "shared" / "captures"
CPU_S = 1.5  # of each figure; the passes over the frames that fit
PASSES_MIN = 3
FIRST_TOUCH = b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"0.01","B":"1","a":"0.02","A":"1"}}'
WALL_NS = 1_700_000_000 * NS  # of recordings without receive times


class Recording(Struct, frozen=True):
    """A file of frames and what must be known beforehand to read it."""

    file: str
    venue: Venue
    instruments: tuple[str, ...]
    before: tuple[bytes, ...] = ()  # frames that the recording lacks: Kraken's instrument list and a first quote
    kinds: tuple[tuple[str, bytes], ...] = ()  # a part of the frames: its name, and the bytes that tell it


Frame = tuple[bytes, int]  # as received, wall clock in nanoseconds


class _Board:
    """A sink that keeps what every process keeps, the touches, and counts the rest."""

    def __init__(self, instruments: Sequence[str], venue: str, *, read_books: bool) -> None:
        self._read_books = read_books
        self.quotes = self.books = self.levels = self.trades = self.gaps = 0
        self._boards = {instrument: TouchBoard((venue,)) for instrument in instruments}

    @property
    def counts(self) -> Counter[str]:
        kinds = ("quotes", "books", "levels", "trades", "gaps")
        return Counter({kind: count for kind in kinds if (count := getattr(self, kind))})

    def quote(self, venue: str, instrument: str, quote: Quote | None, wall_ns: int) -> None:
        self.quotes += 1
        if quote is not None:
            self._boards[instrument].quote(venue, quote, wall_ns)

    def book(self, venue: str, instrument: str, image: BookImage | KeptImage, wall_ns: int) -> None:
        self.books += 1
        if self._read_books and isinstance(image, KeptImage):
            self.levels += len(image.read().bids) + len(image.read().asks)

    def trade(self, venue: str, instrument: str, trade: Trade, time_ns: int) -> None:
        self.trades += 1

    def gap(self, venue: str, instrument: str, from_id: int, to_id: int) -> None:
        self.gaps += 1

    def state(self, venue: str, state: State, reason: str) -> None:
        for board in self._boards.values():
            board.set_live(venue, state is State.LIVE)


def _kraken(symbol: str, price_decimals: int, size_decimals: int) -> tuple[bytes, ...]:
    pair = {"symbol": symbol, "status": "online", "price_precision": price_decimals, "qty_precision": size_decimals}
    listing = {"channel": "instrument", "type": "snapshot", "data": {"assets": [], "pairs": [pair]}}
    quote = {"symbol": symbol, "bid": 0.01, "bid_qty": 1, "ask": 99999, "ask_qty": 1}
    ticker = {"channel": "ticker", "type": "snapshot", "data": [quote]}
    return json.dumps(listing).encode(), json.dumps(ticker).encode()


COMPARED = Recording(
    "binance-spot-20240808-btcusdt", VENUES["binance"], ("BTC-USDT",),
    kinds=(("bookTicker", b"@bookTicker"), ("trade", b"@trade")),
)  # fmt: skip
RECORDINGS = (
    COMPARED,
    Recording(
        "binance-spot-20210405-10sym", VENUES["binance"],
        ("AXS-BNB", "BTC-AUD", "BTCST-USDT", "DENT-USDT", "ETH-BRL", "MANA-USDT", "NEO-USDC", "QTUM-ETH", "RENBTC-ETH",
         "ZIL-USDT"),
        kinds=(("bookTicker", b"@bookTicker"),),
    ),
    Recording("okx-v5-20220513-3inst", VENUES["okx"], ("BTC-USDT",)),
    Recording(
        "kraken-v2-20230730-btcusd-d10", structs.replace(VENUES["kraken"], book_depth=10), ("BTC-USD",),
        _kraken("BTC/USD", 1, 8),
    ),
    Recording(
        "kraken-v2-20260816-minagbp-d25", VENUES["kraken"], ("MINA-GBP",), _kraken("MINA/GBP", 4, 8)
    ),
)  # fmt: skip


def run(*, quick: bool) -> Iterator[Row]:
    folder = Path(os.environ.get("ROUTER_CAPTURES") or CAPTURES_DEFAULT)
    if not folder.is_dir():
        yield skipped(GROUP, f"no recorded frames in {folder.name}/ (ROUTER_CAPTURES)")
        return
    cpu_s = CPU_S / 10 if quick else CPU_S
    for recording in RECORDINGS:
        path = folder / f"{recording.file}.jsonl.gz"
        if not path.is_file():
            yield skipped(GROUP, f"{path.name} is absent")
            continue
        frames = read(path)
        if recording is COMPARED:
            yield from _beside_the_libraries(recording, path, quick=quick)
        for kind, mark in recording.kinds:
            part = [frame for frame in frames if mark in frame[0]]
            yield from _measure(recording, f"{recording.file}: {kind}", part, cpu_s)
        yield from _measure(recording, f"{recording.file}: all", frames, cpu_s)


def read(path: Path) -> list[Frame]:
    """Return the frames that the venue sent, in the recorded order."""
    frames: list[Frame] = []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["dir"] == "in" and "url" not in entry:
                wall_ns = int(entry["t"] * NS) if entry["t"] is not None else WALL_NS + len(frames)
                frames.append((entry["raw"].encode(), wall_ns))
    return frames


def _measure(recording: Recording, what: str, frames: Sequence[Frame], cpu_s: float) -> Iterator[Row]:
    counts: Counter[str] = Counter()

    def normalise_all() -> None:
        nonlocal counts
        counts = normalise(recording, frames)

    ours = _rate(normalise_all, len(frames), cpu_s)
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    yield Row(GROUP, what, ours, "frames/CPU s", note=f"{len(frames)} frames: {told}")
    plain = _rate(lambda: _loads(frames), len(frames), cpu_s)
    yield Row(GROUP, "  the same, json.loads alone", plain, "frames/CPU s", note=f"ours is {ours / plain:.2f} of it")


def _beside_the_libraries(recording: Recording, path: Path, *, quick: bool) -> Iterator[Row]:
    live = structs.replace(recording, before=(FIRST_TOUCH,))  # a venue without a quote shows no books either

    def ours(frames: Sequence[str], *, read_books: bool) -> tuple[float, Counter[str]]:
        stamped = [(frame.encode(), _told_ns(frame)) for frame in frames]
        began_s = time.process_time()
        counts = normalise(live, stamped, read_books=read_books)
        spent_s = time.process_time() - began_s
        counts["quotes"] -= len(live.before)
        return spent_s, counts

    yield from feed_peers.run(path, ours, quick=quick)


def _told_ns(frame: str) -> int:
    """Return when the venue sent a trade, as if it were received at once: a clock that is off has a road of its own."""
    told_ms = json.loads(frame)["data"].get("E")
    return WALL_NS if told_ms is None else told_ms * (NS // 1000)


def normalise(recording: Recording, frames: Sequence[Frame], *, read_books: bool = True) -> Counter[str]:
    """Take every frame as the feed does, and return what came of it. Whole books are read, or kept as they came."""
    sink = _Board(recording.instruments, recording.venue.name, read_books=read_books)
    market = VenueMarket(recording.venue.name, recording.instruments, stale_after_s=5, sink=sink)
    session = FeedSession(recording.venue, recording.instruments)
    market.connected(1)
    session.opened(1)
    for frame in recording.before:
        market.take(session.receive(frame, 1), 1, WALL_NS)
    for number, (frame, wall_ns) in enumerate(frames):
        now_ns = 1 + number * 1000
        market.take(session.receive(frame, now_ns), now_ns, wall_ns)
    return sink.counts + Counter(session.counters)


def _loads(frames: Sequence[Frame]) -> None:
    for frame, _ in frames:
        json.loads(frame)


def _rate(work: Callable[[], None], frames: int, cpu_s: float) -> float:
    """Return frames per CPU second: the median over passes."""
    spent: list[float] = []
    while len(spent) < PASSES_MIN or sum(spent) < cpu_s:
        before = time.process_time()
        work()
        spent.append(time.process_time() - before)
    return frames / statistics.median(spent)
