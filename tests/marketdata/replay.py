"""Frames through a venue's real adapter, session and market, into a sink that remembers."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from core.events import BookImage, Quote, Trade
from marketdata.feed import NS, FeedEvent, FeedSession, KeptImage
from marketdata.market import State, VenueMarket
from marketdata.venue import Venue

START_NS = 1_700_000_000 * NS  # for frames without a receive time
STEP_NS = NS // 100


@dataclass
class Recorder:
    """A sink that keeps everything in order."""

    quotes: list[tuple[str, Quote | None]] = field(default_factory=list)
    books: list[tuple[str, BookImage]] = field(default_factory=list)
    trades: list[tuple[str, Trade]] = field(default_factory=list)
    trade_times: list[int] = field(default_factory=list)
    gaps: list[tuple[str, int, int]] = field(default_factory=list)
    states: list[tuple[State, str]] = field(default_factory=list)

    def quote(self, venue: str, instrument: str, quote: Quote | None, wall_ns: int) -> None:
        self.quotes.append((instrument, quote))

    def book(self, venue: str, instrument: str, image: BookImage | KeptImage, wall_ns: int) -> None:
        self.books.append((instrument, image.read() if isinstance(image, KeptImage) else image))

    def trade(self, venue: str, instrument: str, trade: Trade, time_ns: int) -> None:
        self.trades.append((instrument, trade))
        self.trade_times.append(time_ns)

    def gap(self, venue: str, instrument: str, from_id: int, to_id: int) -> None:
        self.gaps.append((instrument, from_id, to_id))

    def state(self, venue: str, state: State, reason: str) -> None:
        self.states.append((state, reason))


class Replay:
    """A connected session of one venue; `push` hands it one frame."""

    def __init__(self, venue: Venue, instruments: Sequence[str], *, now_ns: int = START_NS) -> None:
        self.sink = Recorder()
        self.market = VenueMarket(venue.name, instruments, stale_after_s=5.0, sink=self.sink)
        self.session = FeedSession(venue, instruments)
        self.now_ns = now_ns
        self.market.connecting()
        self.market.connected(now_ns)
        self.session.opened(now_ns)

    def push(self, frame: str | bytes, now_ns: int | None = None) -> list[FeedEvent]:
        """Hand over a frame at a time, or a little after the last one; return what the session made of it."""
        self.now_ns = self.now_ns + STEP_NS if now_ns is None else now_ns
        events = self.session.receive(frame, self.now_ns)
        self.market.take(events, now_ns=self.now_ns, wall_ns=self.now_ns)
        return events

    def take(self, event: FeedEvent, now_ns: int | None = None) -> None:
        self.now_ns = self.now_ns if now_ns is None else now_ns
        self.market.take((event,), now_ns=self.now_ns, wall_ns=self.now_ns, frame=False)

    def sent(self) -> list[str]:
        """Return, and forget, the frames that the session wants to send."""
        frames = list(self.session.outgoing)
        self.session.outgoing.clear()
        return frames


def received_ns(record: dict[str, Any]) -> int | None:
    """Return a recorded frame's receive time, None where it was not recorded."""
    return None if record["t"] is None else round(record["t"] * 1_000_000) * 1000


def replay(venue: Venue, records: Iterable[dict[str, Any]], instruments: Sequence[str], *first: str) -> Replay:
    """Hand over a recorded session, frames in `first` before it; trades are in `.sink.trades`."""
    records = list(records)
    began_ns = received_ns(records[0]) or START_NS
    run = Replay(venue, instruments, now_ns=began_ns - NS)
    for frame in first:
        run.push(frame, began_ns)
    for record in records:
        run.push(record["raw"], received_ns(record))
    return run


def exact(raw: str) -> Any:
    """Read JSON a second, independent way: every number with a point as a `Decimal`."""
    return json.loads(raw, parse_float=Decimal)


def kraken_instruments(**precisions: tuple[int, int]) -> str:
    """Write an instrument list: BTC_USD=(1, 8) is BTC/USD with one decimal of price and eight of size."""
    pairs = [
        {"symbol": name.replace("_", "/"), "status": "online", "price_precision": price, "qty_precision": size}
        for name, (price, size) in precisions.items()
    ]
    return json.dumps({"channel": "instrument", "type": "snapshot", "data": {"assets": [], "pairs": pairs}})
