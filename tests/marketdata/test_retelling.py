"""Frames that were recorded, told again: the venues say what they said then, at the same moments."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from core.events import Quote, Side
from marketdata import tape
from marketdata.arrivals import Asked, FrameRecorder, Opened, moment_ns
from marketdata.feed import NS
from marketdata.market import State
from marketdata.retelling import Retelling
from marketdata.tape import Reader, Unusable
from tests.marketdata.rig import Rig, rig
from trading.rerun import as_units

BTC, ETH = "BTC-USDT", "ETH-USDT"
STALE_AFTER_S = 3.0  # longer than a busy machine lets the test wait
LIFE = "feeds-1"
Said = list[tuple[str, str, Quote | None, int]]


class _Listening:
    """Stands before a publisher's sink and keeps what the venues' markets say."""

    def __init__(self, running: Rig) -> None:
        self.said: Said = []
        self.lost: list[str] = []
        for market in running.publisher.markets.values():
            self._sink: Any = market._sink
            market._sink = self

    def quote(self, venue: str, instrument: str, quote: Quote | None, wall_ns: int) -> None:
        self.said.append((venue, instrument, quote, wall_ns))
        self._sink.quote(venue, instrument, quote, wall_ns)

    def state(self, venue: str, state: State, reason: str) -> None:
        if state is not State.LIVE:
            self.lost.append(venue)
        self._sink.state(venue, state, reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


class _Retold(Retelling):
    def __init__(self) -> None:
        super().__init__((BTC, ETH), stale_after_s=STALE_AFTER_S, kept_ns=10 * NS)
        self.said: Said = []
        self.lost: list[str] = []

    def quote(self, venue: str, instrument: str, quote: Quote | None, wall_ns: int) -> None:
        self.said.append((venue, instrument, quote, wall_ns))
        super().quote(venue, instrument, quote, wall_ns)

    def state(self, venue: str, state: State, reason: str) -> None:
        if state is not State.LIVE:
            self.lost.append(venue)
        super().state(venue, state, reason)


async def test_venues_that_are_lost_replaced_and_confused_are_told_again(tmp_path: Path) -> None:
    recorder = FrameRecorder(tmp_path, LIFE)
    async with rig(BTC, ETH, stale_after_s=STALE_AFTER_S, rate=4, recorder=recorder) as running:
        listening = _Listening(running)
        market = running.publisher.markets["okx"]
        running.market["okx"].announce_close()
        async with asyncio.timeout(30):
            while not market.counters["replacements"]:
                await running.told.until(lambda message: message["type"] == "best_touch", after=running.mark())
        mark = running.mark()
        running.market["binance"].abort()
        running.market["kraken"].corrupt_checksum()
        running.market["okx"].garbage()
        await running.state("binance", "live", after=mark, timeout_s=30)
        mark = running.mark()
        running.market["kraken"].stall(answering=False)
        await running.state("kraken", "stale", after=mark, timeout_s=30)
        said, lost = list(listening.said), set(listening.lost)
    recorder.stop()

    retold = _Retold()
    for line in Reader(tmp_path, f"{LIFE}.frames"):
        retold.tell(line)

    first = retold.said.index(said[0])  # before, nobody listened
    assert retold.said[first : first + len(said)] == said
    assert len(said) > 50
    assert lost <= set(retold.lost)
    assert retold.connections >= 5


def _told(retelling: Retelling, at_ns: int, *, price: int = 50_000, size: int = 1, depth: bool = False) -> int | None:
    """Return until when an ask was binance's last word; 0: it still is, None: it never was."""
    level = (price * 10**8, size * 10**8)
    found = retelling.told("binance", BTC, Side.BUY, as_units, level, at_ns=at_ns, depth=depth)
    return None if found is None else found.until_ns or 0


def _frame(number: int, ask: int) -> bytes:
    return (
        f'{{"stream":"btcusdt@bookTicker","data":{{"u":{number},"s":"BTCUSDT","b":"100","B":"1","a":"{ask}","A":"1"}}}}'
    ).encode()


async def _record(tmp_path: Path, *frames: tuple[int, bytes]) -> Retelling:
    """Record a connection to Binance and these frames, and tell them again."""
    recorder = FrameRecorder(tmp_path, LIFE)
    recorder.event(Opened(1, 0, 0, "binance", False))
    for at_ns, frame in frames:
        recorder.frame(1, frame, at_ns, at_ns)
    await asyncio.sleep(0)
    recorder.stop()
    retelling = Retelling((BTC,), stale_after_s=STALE_AFTER_S, kept_ns=10 * NS)
    for line in Reader(tmp_path, f"{LIFE}.frames"):
        retelling.tell(line)
    return retelling


async def test_a_word_holds_until_the_next_one(tmp_path: Path) -> None:
    retelling = await _record(tmp_path, (5, _frame(1, 50_000)), (9, _frame(2, 51_000)))

    assert _told(retelling, 4) is None
    assert _told(retelling, 5) == 9
    assert _told(retelling, 9, price=51_000) == 0
    assert _told(retelling, 9, price=51_000, size=2) is None
    retelling.ended()
    assert _told(retelling, 20, price=51_000) == 9


async def test_a_price_that_was_the_best_one_is_told_by_the_book_that_shows_it_further_down(tmp_path: Path) -> None:
    book = (
        '{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":3,"bids":[["100","1"]],'
        '"asks":[["49000","1"],["50000","1"]]}}'
    )
    retelling = await _record(tmp_path, (5, _frame(1, 50_000)), (9, _frame(2, 49_000)), (10, book.encode()))

    assert _told(retelling, 20) == 9
    assert _told(retelling, 20, depth=True) == 0


async def test_words_of_long_ago_are_forgotten(tmp_path: Path) -> None:
    moments = [(second * NS, _frame(second, 50_000 + second)) for second in range(1, 31)]
    retelling = await _record(tmp_path, *moments)

    assert _told(retelling, 30 * NS, price=50_010) is None
    assert _told(retelling, 30 * NS, price=50_025) == 26 * NS


async def test_a_frame_with_a_line_s_end_is_recorded_whole(tmp_path: Path) -> None:
    retelling = await _record(tmp_path, (5, _frame(1, 50_000).replace(b":{", b":\n{")))

    assert _told(retelling, 5) == 0


async def test_every_line_has_its_moment(tmp_path: Path) -> None:
    recorder = FrameRecorder(tmp_path, LIFE)
    recorder.event(Asked(1, 3, 4))
    recorder.frame(1, b"f {1 2 3", 5, 6)
    recorder.frame(1, b"\n", 7, 8)
    recorder.stop()

    assert [moment_ns(line) for line in Reader(tmp_path, f"{LIFE}.frames")] == [3, 5, 7]


async def test_feeds_go_on_where_nothing_can_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = FrameRecorder(tmp_path, LIFE)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tape.os, "write", full)
    recorder.frame(1, b"lost", 5, 6)
    await asyncio.sleep(0)
    recorder.frame(1, b"not even tried", 5, 6)
    recorder.stop()

    assert list(Reader(tmp_path, f"{LIFE}.frames")) == []


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"feeds-1\.frames\.0001\.rec is missing"):
        Reader(tmp_path, f"{LIFE}.frames")


def test_sizes_are_compared_as_orders_see_them() -> None:
    assert as_units(Decimal("1.5"), Decimal("0.123456789")) == (150_000_000, 12_345_678)
    assert as_units(Decimal("1E-9"), Decimal(1)) is None
