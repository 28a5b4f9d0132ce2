"""The real adapters on the simulated wires: both sides of the protocol, written apart, agree."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import TypeVar

import pytest
from websockets.asyncio.client import ClientConnection, connect

from core.events import BookImage, Quote, Trade
from marketdata.feed import Disabled, FeedEvent, FeedSession, KeptImage, MarketEvent
from marketdata.simulated import SimulatedVenues
from marketdata.venues import VENUES
from tests.marketdata.simulated.client import BTC, ETH

WAIT_S = 15.0

Body = TypeVar("Body", Quote, BookImage, Trade)


class Fed:
    """A feed session on a real socket, and everything that it told."""

    def __init__(self, session: FeedSession, socket: ClientConnection) -> None:
        self.session = session
        self.events: list[FeedEvent] = []
        self._socket = socket

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                while self.session.outgoing:
                    await self._socket.send(self.session.outgoing.popleft())
                    await asyncio.sleep(self.session.venue.send_interval_s)  # the venue's budget
                for event in self.session.receive(await self._socket.recv(), time.monotonic_ns()):
                    self.events.append(_read(event))

    def bodies(self, kind: type[Body], instrument: str) -> list[Body]:
        return [
            event.body
            for event in self.events
            if isinstance(event, MarketEvent) and event.instrument == instrument and isinstance(event.body, kind)
        ]


def _read(event: FeedEvent) -> FeedEvent:
    """Read a book as soon as it comes."""
    if isinstance(event, MarketEvent) and isinstance(event.body, KeptImage):
        return MarketEvent(event.instrument, event.body.read())
    return event


@contextlib.asynccontextmanager
async def fed(market: SimulatedVenues, venue: str, *instruments: str) -> AsyncIterator[Fed]:
    url = market.urls[venue]
    async with connect(url, proxy=None, compression=None, ping_interval=None, max_size=None, max_queue=None) as socket:
        session = FeedSession(VENUES[venue], instruments)
        session.opened(time.monotonic_ns())
        yield Fed(session, socket)


@pytest.mark.parametrize("venue", VENUES)
async def test_an_adapter_reads_everything_and_misses_nothing(market: SimulatedVenues, venue: str) -> None:
    async with fed(market, venue, BTC, ETH) as feed:
        await feed.until(
            lambda: all(len(feed.bodies(kind, name)) >= 10 for name in (BTC, ETH) for kind in (Quote, BookImage, Trade))
        )
    assert feed.session.ready
    assert not feed.session.counters  # nothing unreadable, no resync, no bad checksum
    for name in (BTC, ETH):
        trades = feed.bodies(Trade, name)
        assert all(later.first_id == earlier.last_id + 1 for earlier, later in itertools.pairwise(trades))
        sent = {trade.last_id: trade for trade in market[venue].trades if trade.instrument == name}
        for trade in trades:
            if trade.last_id in sent and trade.first_id == sent[trade.last_id].first_id:
                assert (trade.price, trade.size) == (sent[trade.last_id].price, sent[trade.last_id].size)
                assert trade.side == sent[trade.last_id].side
        for image in feed.bodies(BookImage, name):
            assert image.bids[0][0] < image.asks[0][0]
        assert not any(quote.crossed for quote in feed.bodies(Quote, name))


@pytest.mark.parametrize("venue", VENUES)
async def test_an_adapter_sees_a_pinned_touch_to_the_digit(market: SimulatedVenues, venue: str) -> None:
    pinned = (Decimal("94999.10"), Decimal("0.12345678"), Decimal("95000.20"), Decimal(7))
    async with fed(market, venue, BTC) as feed:
        await feed.until(lambda: feed.session.ready and bool(feed.bodies(BookImage, BTC)))
        market[venue].quote(BTC, *pinned)

        def seen() -> bool:
            quotes, images = feed.bodies(Quote, BTC), feed.bodies(BookImage, BTC)
            top = (*images[-1].bids[0], *images[-1].asks[0])
            newest = quotes[-1]
            return top == pinned == (newest.bid, newest.bid_size, newest.ask, newest.ask_size)

        await feed.until(seen)


@pytest.mark.parametrize("venue", ["okx", "kraken"])
async def test_an_adapter_is_told_what_the_venue_does_not_carry(market: SimulatedVenues, venue: str) -> None:
    async with fed(market, venue, BTC, "SOL-USDT") as feed:
        await feed.until(lambda: feed.session.ready)
    assert feed.session.disabled.keys() == {"SOL-USDT"}
    assert any(isinstance(event, Disabled) and event.instrument == "SOL-USDT" for event in feed.events)


async def test_an_adapter_repairs_krakens_book_after_a_wrong_checksum(market: SimulatedVenues) -> None:
    async with fed(market, "kraken", BTC) as feed:
        await feed.until(lambda: bool(feed.bodies(BookImage, BTC)))
        market["kraken"].corrupt_checksum()
        await feed.until(lambda: feed.session.counters["BadChecksum"] == 1)
        images = len(feed.bodies(BookImage, BTC))
        assert feed.bodies(BookImage, BTC)[-1].bids == ()
        await feed.until(lambda: len(feed.bodies(BookImage, BTC)) > images + 20)
    assert feed.session.counters["BadChecksum"] == 1
    assert all(image.bids for image in feed.bodies(BookImage, BTC)[images:])


@pytest.mark.parametrize("venue", VENUES)
async def test_an_adapter_survives_garbage(market: SimulatedVenues, venue: str) -> None:
    async with fed(market, venue, BTC) as feed:
        await feed.until(lambda: feed.session.ready)
        market[venue].garbage(11)
        await feed.until(lambda: feed.session.counters["unreadable"] >= 9)
        quotes = len(feed.bodies(Quote, BTC))
        await feed.until(lambda: len(feed.bodies(Quote, BTC)) > quotes + 5)
    for quote in feed.bodies(Quote, BTC):
        assert quote.bid is not None
        assert quote.ask is not None
        assert 0 < quote.bid < quote.ask
