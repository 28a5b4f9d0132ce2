"""Books on their way out: decoded for instruments in demand only, ten times a second, and never a danger."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from msgspec import structs

from core.events import Body, Channel
from marketdata.arrivals import FrameRecorder
from marketdata.batches import (
    REQUEST_GROUP,
    TOUCH_GROUP,
    BookUpdate,
    InstrumentBatch,
    TouchBatch,
    instrument_group,
    interest_message,
    read_message,
)
from marketdata.feed import NS, FeedSession
from marketdata.layer import InProcessLayer
from marketdata.market import State, VenueMarket
from marketdata.publish import BOOK_INTERVAL_S, Publisher
from marketdata.venues.binance import BINANCE

BTC, ETH = "BTC-USDT", "ETH-USDT"
WAIT_S = 10.0


class Feed:
    """Frames of a Binance with two instruments into a publisher, and the batches of one of them out of it."""

    def __init__(self, layer: InProcessLayer, publisher: Publisher, channel: str) -> None:
        self.layer = layer
        self.publisher = publisher
        self.channel = channel
        self.decoded: list[str | bytes] = []
        self.market = publisher.markets["binance"] = VenueMarket(
            "binance", [BTC, ETH], stale_after_s=5.0, sink=publisher
        )
        watched = structs.replace(BINANCE, parse={**BINANCE.parse, Channel.DEPTH: self._parse})
        self.session = FeedSession(watched, [BTC, ETH], counters=self.market.counters)
        self.market.connected(time.monotonic_ns())
        for symbol in ("btcusdt", "ethusdt"):
            self.push(f"{symbol}@bookTicker", {"u": 1, "b": "100", "B": "1", "a": "101", "A": "1"})

    def _parse(self, frame: str | bytes) -> Iterable[Body]:
        self.decoded.append(frame)
        return BINANCE.parse[Channel.DEPTH](frame)

    def push(self, stream: str, data: object) -> None:
        now_ns = time.monotonic_ns()
        frame = json.dumps({"stream": stream, "data": data}, separators=(",", ":"))
        events = self.session.receive(frame.encode(), now_ns)
        self.market.take(events, now_ns=now_ns, wall_ns=time.time_ns())

    def book(self, update_id: int, *, symbol: str = "btcusdt", bid: str = "100") -> None:
        data = {"lastUpdateId": update_id, "bids": [[bid, str(update_id)]], "asks": [["101", "1"]]}
        self.push(f"{symbol}@depth20@100ms", data)

    async def want(self, instrument: str) -> None:
        await self.layer.group_send(REQUEST_GROUP, interest_message(instrument))

    async def next_book(self) -> BookUpdate:
        async with asyncio.timeout(WAIT_S):
            while True:
                batch = read_message(await self.layer.receive(self.channel))
                assert isinstance(batch, InstrumentBatch)
                if batch.books:
                    return batch.books[-1]


@contextlib.asynccontextmanager
async def running(record: Callable[[], None] | None = None) -> AsyncIterator[Feed]:
    layer = InProcessLayer(capacity=10_000)
    publisher = Publisher(
        layer,
        source="simulated",
        instruments=[BTC, ETH],
        venues=["binance"],
        consolidated=["binance"],
        closed=lambda *closed: None,
        record=record,
    )
    channel = await layer.new_channel()
    await layer.group_add(instrument_group(BTC), channel)
    feed = Feed(layer, publisher, channel)
    task = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(WAIT_S):
            while not layer._groups.get(REQUEST_GROUP):  # noqa: ASYNC110 - the layer wakes nobody
                await asyncio.sleep(0)
        yield feed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_a_frame_said_is_on_the_tape_before_anybody_hears_it(tmp_path: Path) -> None:
    recorder = FrameRecorder(tmp_path, "feeds-1")
    async with running(recorder.write) as feed:
        before = _size(tmp_path)
        recorder.frame(1, b"{}", time.monotonic_ns(), time.time_ns())
        feed.push("btcusdt@bookTicker", {"u": 2, "b": "100", "B": "1", "a": "102", "A": "1"})
        await feed.publisher._flush()  # in the same turn of the loop
        assert _size(tmp_path) > before
    recorder.stop()


def _size(folder: Path) -> int:
    """Return how many bytes its files have."""
    return sum(file.stat().st_size for file in folder.iterdir())


async def test_books_that_nobody_wants_are_never_decoded_and_the_newest_is_there_at_once_for_who_asks() -> None:
    async with running() as feed:
        for number in range(1, 500):
            feed.book(number)
            feed.book(number, symbol="ethusdt")
        assert feed.decoded == []

        await feed.want(BTC)
        book = await feed.next_book()

        assert book.bids[0][1] == 499
        assert len(feed.decoded) == 1


async def test_books_in_demand_are_decoded_ten_times_a_second_however_many_come() -> None:
    async with running() as feed:
        feed.book(1)
        await feed.want(BTC)
        await feed.next_book()
        began_s, sent, books = time.monotonic(), 1, 0

        while books < 3:
            waiting = asyncio.ensure_future(feed.next_book())
            while not waiting.done():
                sent += 1
                feed.book(sent)
                feed.book(sent, symbol="ethusdt")
                await asyncio.sleep(0)
            books += 1

        elapsed_s = time.monotonic() - began_s
        assert sent > 50
        assert len(feed.decoded) <= 2 + elapsed_s / BOOK_INTERVAL_S
        assert not any(b"ethusdt" in frame for frame in feed.decoded if isinstance(frame, bytes))


async def test_a_bad_book_in_demand_goes_out_empty_and_is_counted_and_the_next_good_one_follows() -> None:
    async with running() as feed:
        await feed.want(BTC)
        for bid, what in (("-1", "unreadable"), ("102", "crossed")):
            feed.book(1, bid=bid)
            book = await feed.next_book()
            assert (book.bids, book.asks) == ((), ())
            assert feed.market.counters[what] == 1

        feed.book(2)
        assert (await feed.next_book()).bids[0][1] == 2
        assert feed.market.state == "live"


async def test_after_this_process_stood_still_nobody_is_told_that_its_old_quotes_are_those_of_now() -> None:
    """Whoever beats first, or tells of another venue: the connections find it out for themselves, but maybe later."""
    async with running() as feed:
        channel = await feed.layer.new_channel()
        await feed.layer.group_add(TOUCH_GROUP, channel)
        feed.market.connected(time.monotonic_ns() - 6 * NS)  # when it was last looked at
        feed.push("btcusdt@bookTicker", {"u": 2, "b": "100", "B": "1", "a": "101", "A": "1"})
        assert feed.market.state is State.LIVE

        batches = []
        async with asyncio.timeout(WAIT_S):
            while not batches or not batches[-1].heartbeat:
                batch = read_message(await feed.layer.receive(channel))
                assert isinstance(batch, TouchBatch)
                batches.append(batch)

        assert [quote for batch in batches for quote in batch.quotes] == []
        assert {status.state for batch in batches for status in batch.statuses} == {"stale"}
