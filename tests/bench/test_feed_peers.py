"""What the feeds bench hands to the libraries is the recording, and nothing else."""

import json
from decimal import Decimal

import pytest

from bench import feed_peers, feeds
from core.events import BookImage, Quote
from marketdata.venue import Data
from marketdata.venues.binance import BINANCE
from tests.conftest import CAPTURES, NO_CAPTURES


@pytest.fixture(scope="module")
def comparisons() -> list[feed_peers.Comparison]:
    path = CAPTURES / f"{feeds.COMPARED.file}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{NO_CAPTURES} ({CAPTURES}); set ROUTER_CAPTURES")
    return feed_peers._comparisons(path)


def events(frames: list[str]) -> list[object]:
    bodies: list[object] = []
    for frame in frames:
        for message in BINANCE.read(frame):
            assert isinstance(message, Data)
            bodies.extend(BINANCE.parse[message.topic.channel](message.payload))
    return bodies


def test_the_whole_books_show_the_recorded_touch_wherever_both_have_the_same_update_id(
    comparisons: list[feed_peers.Comparison],
) -> None:
    touches, _, books = comparisons
    quotes = {quote.sequence: quote for quote in events(touches.ours) if isinstance(quote, Quote)}
    images = [image for image in events(books.ours) if isinstance(image, BookImage)]

    both = [(quotes[image.sequence], image) for image in images if image.sequence in quotes]

    assert len(both) > 1000
    for quote, image in both:
        assert image.bids[0] == (quote.bid, quote.bid_size)
        assert image.asks[0] == (quote.ask, quote.ask_size)
    assert all(len(image.bids) == len(image.asks) == feed_peers.DEPTH for image in images)


def test_every_side_gets_as_many_frames_and_the_same_trades(comparisons: list[feed_peers.Comparison]) -> None:
    for comparison in comparisons:
        for frames, _ in comparison.libraries.values():
            assert len(frames) == len(comparison.ours) > 5000

    _, trades, _ = comparisons
    aggregates, _ = trades.libraries["cryptofeed"]
    for ours, theirs in zip(trades.ours, aggregates, strict=True):
        trade, aggregate = json.loads(ours)["data"], json.loads(theirs)["data"]
        assert aggregate["e"] == "aggTrade"
        assert aggregate["a"] == aggregate["f"] == aggregate["l"] == trade["t"]
        assert (Decimal(aggregate["p"]), Decimal(aggregate["q"])) == (Decimal(trade["p"]), Decimal(trade["q"]))
        assert (aggregate["m"], aggregate["T"]) == (trade["m"], trade["T"])


def test_we_make_an_event_of_every_frame_that_is_compared(comparisons: list[feed_peers.Comparison]) -> None:
    for comparison in comparisons:
        frames = [(frame.encode(), feeds.WALL_NS) for frame in comparison.ours]
        live = feeds.FIRST_TOUCH, feeds.WALL_NS
        for read_books in (True, False):
            counts = feeds.normalise(feeds.COMPARED, [live, *frames], read_books=read_books)
            assert counts[comparison.event] == len(frames) + (comparison.event == "quotes")
            assert bool(counts["levels"]) == (comparison.event == "books" and read_books)
