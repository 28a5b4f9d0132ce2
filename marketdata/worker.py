"""The role "feeds": every venue's connection, the publisher, and the store of closed candles."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import close_old_connections, connections

from core.candles import Candle
from marketdata import history
from marketdata.arrivals import FrameRecorder
from marketdata.connection import VenueWorker
from marketdata.market import VenueMarket
from marketdata.publish import Publisher
from marketdata.simulated import SimulatedVenues
from marketdata.venues import VENUES

T = TypeVar("T")

log = structlog.get_logger(__name__)

STORE_INTERVAL_S = 1.0
PRUNE_INTERVAL_S = 60.0
CANDLES_WAITING_MAX = 200_000  # while the database is away: over an hour of the default symbols


class CandleStore:
    """Writes closed candles from one thread; the loop never waits for the database."""

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: deque[history.Row] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="candles")

    def closed(self, venue: str, instrument: str, candles: Sequence[Candle]) -> None:
        self._waiting.extend((venue, instrument, candle) for candle in candles)
        while len(self._waiting) > CANDLES_WAITING_MAX:
            self._waiting.popleft()
            self.lost += 1

    async def restore(self, publisher: Publisher) -> None:
        """Give every series what it needs to go on with the candles that were open before a restart."""
        now_s = time.time()
        for (venue, instrument), series in publisher.all_series().items():
            seconds = await self._in_thread(history.recent_seconds, venue, instrument, now_s)
            self.closed(venue, instrument, series.restore(seconds, time.time_ns()))

    async def run(self) -> None:
        """Store what closed, once a second, and forget what is too old; on cancellation store the rest."""
        pruned_s = 0.0
        try:
            while True:
                await asyncio.sleep(STORE_INTERVAL_S)
                try:
                    await self._store()
                    if time.monotonic() - pruned_s > PRUNE_INTERVAL_S:
                        pruned_s = time.monotonic()
                        await self._in_thread(history.prune, time.time())
                except Exception:
                    log.exception(
                        "candles could not be stored; they are kept and tried again", waiting=len(self._waiting)
                    )
        finally:
            await asyncio.shield(self._store())
            await self._in_thread(connections.close_all)
            self._executor.shutdown(wait=False)

    async def _store(self) -> None:
        rows, lost = list(self._waiting), self.lost
        if rows:
            await self._in_thread(history.store, rows)
            for _ in range(len(rows) - (self.lost - lost)):  # some may have been given up meanwhile
                self._waiting.popleft()

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        def run() -> T:
            close_old_connections()
            return call(*args)

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)


async def run_feeds(source: str, venues: Sequence[str], recorder: FrameRecorder | None = None) -> None:
    """Keep the feeds of these venues until cancelled; for "simulated", of the built-in ones."""
    instruments = [instrument.name for instrument in settings.CATALOGUE.instruments]
    if source == "simulated":
        simulated = SimulatedVenues(
            instruments, venues=settings.VENUES, seed=settings.SIMULATED_SEED, rate=settings.SIMULATED_RATE
        )
        async with simulated:
            await _publish(source, simulated.urls, venues=venues, consolidated=venues, recorder=recorder)
    else:
        # Feeds of some venues leave the candles over all of them to the consolidator.
        whole = set(venues) == set(settings.VENUES)
        consolidated = venues if whole else ()
        await _publish(source, settings.VENUE_URLS, venues=venues, consolidated=consolidated, recorder=recorder)


async def run_consolidator(source: str) -> None:
    """Make the candles over all venues, whose feeds run in several processes, until cancelled."""
    await _publish(source, {}, venues=(), consolidated=settings.VENUES)


async def _publish(
    source: str,
    urls: Mapping[str, str],
    *,
    venues: Sequence[str],
    consolidated: Sequence[str],
    recorder: FrameRecorder | None = None,
) -> None:
    """Feed some venues from these addresses (venue → WebSocket URL), consolidate, publish and store."""
    instruments = [instrument.name for instrument in settings.CATALOGUE.instruments]
    store = CandleStore()
    publisher = Publisher(
        get_channel_layer(),
        source=source,
        instruments=instruments,
        venues=venues,
        consolidated=consolidated,
        closed=store.closed,
        record=None if recorder is None else recorder.write,
    )
    await store.restore(publisher)
    workers = []
    for name in venues:
        market = VenueMarket(name, instruments, stale_after_s=settings.VENUE_STALE_AFTER_S, sink=publisher)
        publisher.markets[name] = market
        workers.append(VenueWorker(VENUES[name], urls[name], market, recorder))
    log.info("feeds start", source=source, venues=list(venues), consolidated=list(consolidated))
    async with asyncio.TaskGroup() as group:
        group.create_task(publisher.run())
        group.create_task(store.run())
        for worker in workers:
            group.create_task(worker.run())
