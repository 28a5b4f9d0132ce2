"""All simulated venues on one clock: the market that `MARKET_SOURCE=simulated` and the demo run on."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Self

from marketdata.simulated.binance import Binance
from marketdata.simulated.dialect import Clock, Dialect, Listeners, Makers
from marketdata.simulated.flow import PHASE_S, Flow
from marketdata.simulated.kraken import Kraken
from marketdata.simulated.okx import Okx
from marketdata.simulated.venue import SimulatedVenue

DIALECTS: dict[str, Callable[[Makers, Listeners, Clock], Dialect]] = {"binance": Binance, "okx": Okx, "kraken": Kraken}
PHASES_BEHIND_MAX = 100  # after a pause of this process the market goes on, it does not catch up
TICK_INTERVAL_S = 0.1


class SimulatedVenues:
    """A seeded market on loopback WebSockets, one per venue, each speaking the venue's own protocol.

    `missing` names the instruments that a venue does not carry. `rate` is the pace of the
    market's own clock. The same seed yields the same prices and trades, time aside.

    Raises:
        ValueError: a venue that is not simulated.
    """

    def __init__(
        self,
        instruments: Sequence[str],
        *,
        venues: Sequence[str] = ("binance", "okx", "kraken"),
        seed: int = 1,
        rate: float = 1.0,
        host: str = "127.0.0.1",
        missing: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        unknown = set(venues) - DIALECTS.keys()
        if unknown:
            raise ValueError(f"not simulated: {', '.join(sorted(unknown))} (there are {', '.join(DIALECTS)})")
        self.rate = rate
        self._flow = Flow(instruments, venues, seed, missing)
        self._venues = {name: SimulatedVenue(name, DIALECTS[name], self._flow, host) for name in venues}
        self._clock: asyncio.Task[None] | None = None

    def __getitem__(self, venue: str) -> SimulatedVenue:
        return self._venues[venue]

    @property
    def urls(self) -> dict[str, str]:
        """Return each venue's address; known once started."""
        return {name: venue.url for name, venue in self._venues.items()}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the ports and let the market run."""
        try:
            for venue in self._venues.values():
                await venue.start()
        except BaseException:
            await self.stop()
            raise
        self._clock = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop the market and close every connection; it can be started again, on the same ports."""
        if self._clock is not None:
            self._clock.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._clock
            self._clock = None
        await asyncio.gather(*(venue.stop() for venue in self._venues.values()))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        last_s = tick_s = loop.time()
        due = 0.0
        while True:
            await asyncio.sleep(PHASE_S)
            now_s = loop.time()
            due = min(due + (now_s - last_s) * self.rate / PHASE_S, PHASES_BEHIND_MAX)
            last_s = now_s
            while due >= 1:
                due -= 1
                for change in self._flow.advance():
                    self._venues[change.maker.venue].apply(change)
            if now_s - tick_s >= TICK_INTERVAL_S:
                tick_s = now_s
                for venue in self._venues.values():
                    venue.tick()
