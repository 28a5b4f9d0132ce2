from collections.abc import AsyncIterator

import pytest

from marketdata.simulated import SimulatedVenues
from tests.marketdata.simulated.client import BTC, ETH

VENUES = ("binance", "okx", "kraken")


@pytest.fixture
async def market() -> AsyncIterator[SimulatedVenues]:
    """Two instruments, twenty times as fast as usual, and SOL-USDT, which no venue carries."""
    missing = dict.fromkeys(VENUES, ("SOL-USDT",))
    async with SimulatedVenues((BTC, ETH, "SOL-USDT"), seed=3, rate=20.0, missing=missing) as running:
        yield running
