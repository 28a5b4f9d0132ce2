"""The venues' prices as the suite makes them, each remembered with the time in which it could be believed."""

import asyncio
import bisect
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from marketdata.simulated import SimulatedVenues

VENUES = ("binance", "okx", "kraken")
INSTRUMENT, SYMBOL = "BTC-USDT", "BTCUSDT"
PROBED, PROBED_SYMBOL = "ETH-USDT", "ETHUSDT"  # the load's market is left alone by who looks whether all works
BID, ASK = Decimal(49_990), Decimal(50_000)
LOWEST, HIGHEST = Decimal(40_000), Decimal(60_000)  # between them lies what the load asks for
SPREAD = Decimal(10)
SWING = 150  # dollars that the touch moves around BID and ASK
WORSE = Decimal(5)
SIZE = Decimal(2)
MOVES_S = (0.01, 0.03)  # between two moves: often, so that a silence is unusual
EARLY_S = 0.1  # our clock and the router's are one; a quote is noted just before it is sent


@dataclass
class _Shown:
    """When a price was told, and when it was taken back, in the order of time."""

    since: list[float] = field(default_factory=list)
    until: list[float] = field(default_factory=list)


class Board:
    """Moves the venues' prices, and knows which of them could fill an order at which time."""

    def __init__(self, market: SimulatedVenues, seed: int) -> None:
        self.market = market
        self._dice = random.Random(seed)
        self._shown: dict[tuple[str, str, Decimal], _Shown] = defaultdict(_Shown)
        self._now: dict[str, tuple[Decimal, Decimal]] = {}
        self.silent: set[str] = set()  # venues that tell nobody what they quote

    def quote(self, venue: str, bid: Decimal, ask: Decimal) -> None:
        """Have a venue quote these prices."""
        now_s = time.time()
        self._end(venue, now_s)
        self._now[venue] = (bid, ask)
        self._begin(venue, now_s)
        self.market[venue].quote(INSTRUMENT, bid, SIZE, ask, SIZE)

    @contextlib.contextmanager
    def unheard(self, venue: str) -> Iterator[None]:
        """Meanwhile nobody hears this venue: what it shows ends, and is shown again by who is heard again."""
        self.silent.add(venue)
        self._end(venue, time.time())
        try:
            yield
        finally:
            self._begin(venue, time.time())
            self.silent.discard(venue)

    def _begin(self, venue: str, now_s: float) -> None:
        for side, price in zip(("sell", "buy"), self._now.get(venue, ()), strict=False):
            shown = self._shown[venue, side, price]
            shown.since.append(now_s)
            shown.until.append(float("inf"))

    def _end(self, venue: str, now_s: float) -> None:
        for side, price in zip(("sell", "buy"), self._now.get(venue, ()), strict=False):
            self._shown[venue, side, price].until[-1] = now_s

    def rest(self) -> None:
        """OKX has the touch, 49 990 at 50 000; the others are worse."""
        for venue in VENUES:
            worse = Decimal(0) if venue == "okx" else WORSE
            self.quote(venue, BID - worse, ASK + worse)

    async def move(self) -> None:
        """Move one venue's prices after another, without end; the silent ones keep theirs to themselves."""
        while True:
            await asyncio.sleep(self._dice.uniform(*MOVES_S))
            venue = self._dice.choice(VENUES)
            if venue in self.silent:
                continue
            bid = BID + Decimal(self._dice.randint(-SWING * 10, SWING * 10)) / 10
            self.quote(venue, bid, bid + SPREAD)

    def age_s(self, venue: str, side: str, price: Decimal, at_s: float) -> float | None:
        """Return how long ago the price that an order of this side took was last shown there; None: it never was."""
        shown = self._shown.get((venue, side, price))
        last = -1 if shown is None else bisect.bisect_right(shown.since, at_s + EARLY_S) - 1
        return None if shown is None or last < 0 else max(0.0, at_s - shown.until[last])

    def was_told(self, venue: str, side: str, price: Decimal) -> bool:
        return (venue, side, price) in self._shown
