"""The whole road of a price in one event loop: simulated venues, feeds, layer, hub, one subscriber."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

from core.instruments import parse_instrument
from core.touch import Touch
from marketdata.arrivals import FrameRecorder
from marketdata.batches import ALL
from marketdata.connection import VenueWorker
from marketdata.hub import Encoded, Hub, TopicKey
from marketdata.layer import InProcessLayer
from marketdata.market import VenueMarket
from marketdata.publish import Publisher
from marketdata.simulated import SimulatedVenues
from marketdata.venues import VENUES

WAIT_S = 10.0

Message = dict[str, Any]


class Recorder:
    """A subscriber that keeps what it was told, and wakes who waits for it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._news = asyncio.Event()

    def push(self, frame: Encoded, latest: TopicKey | None) -> None:
        self.messages.append({"at": time.monotonic(), **json.loads(frame.text, parse_float=Decimal)})
        self._news.set()

    def forget(self, latest: TopicKey) -> None: ...

    async def until(self, wanted: Callable[[Message], bool], *, after: int = 0, timeout_s: float = WAIT_S) -> Message:
        """Wait for a message that is wanted, among those from the given index on."""
        seen = after
        async with asyncio.timeout(timeout_s):
            while True:
                for message in self.messages[seen:]:
                    if wanted(message):
                        return message
                seen = len(self.messages)
                self._news.clear()
                await self._news.wait()


class Rig:
    def __init__(self, market: SimulatedVenues, hub: Hub, publisher: Publisher) -> None:
        self.market = market
        self.hub = hub
        self.publisher = publisher
        self.told = Recorder()

    async def subscribe(self, stream: str, instrument: str, venue: str = ALL, argument: float | None = None) -> None:
        await self.hub.awaken(stream, instrument)
        self.hub.join(self.told, self.hub.topic_key(stream, instrument, venue, argument))

    def touch(self, instrument: str, venue: str = ALL) -> Touch:
        return self.hub.touch(instrument, venue)

    async def state(self, venue: str, state: str, *, after: int = 0, timeout_s: float = WAIT_S) -> Message:
        """Wait until subscribers are told that the venue is in this state."""
        return await self.told.until(
            lambda message: message["type"] == "venue" and (message["exchange"], message["state"]) == (venue, state),
            after=after,
            timeout_s=timeout_s,
        )

    def mark(self) -> int:
        """Return the place in the messages from which what follows counts."""
        return len(self.told.messages)

    async def all_live(self) -> None:
        for venue in self.hub.venues:
            if not self.hub.is_live(venue):
                await self.state(venue, "live")


@contextlib.asynccontextmanager
async def rig(
    *instruments: str,
    stale_after_s: float = 1.0,
    missing: dict[str, tuple[str, ...]] | None = None,
    rate: float = 1.0,
    recorder: FrameRecorder | None = None,
) -> AsyncIterator[Rig]:
    """Run everything, with a subscriber to the touch of each instrument, until all venues are live."""
    layer = InProcessLayer(capacity=10_000)
    async with SimulatedVenues(instruments, seed=7, rate=rate, missing=missing or {}) as market:
        publisher = Publisher(
            layer,
            source="simulated",
            instruments=instruments,
            venues=tuple(VENUES),
            consolidated=tuple(VENUES),
            closed=lambda *closed: None,
        )
        hub = Hub(layer, [parse_instrument(name) for name in instruments], tuple(VENUES))
        await hub.start()
        made = Rig(market, hub, publisher)
        for instrument in instruments:
            await made.subscribe("best_touch", instrument)
        tasks = [asyncio.create_task(publisher.run())]
        for name, venue in VENUES.items():
            venue_market = VenueMarket(name, instruments, stale_after_s=stale_after_s, sink=publisher)
            publisher.markets[name] = venue_market
            tasks.append(asyncio.create_task(VenueWorker(venue, market.urls[name], venue_market, recorder).run()))
        try:
            await made.all_live()
            for name in VENUES:
                await market[name].connected()
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await hub.stop()
