from collections.abc import AsyncIterator

import pytest

from marketdata.simulated import SimulatedVenues
from tests.marketdata.simulated.client import BTC, ETH


@pytest.fixture
async def market() -> AsyncIterator[SimulatedVenues]:
    """Two instruments on three venues, five times as fast as usual; OKX and Kraken do not carry SOL-USDT."""
    missing = dict.fromkeys(("binance", "okx", "kraken"), ("SOL-USDT",))
    async with SimulatedVenues((BTC, ETH, "SOL-USDT"), seed=3, rate=5.0, missing=missing) as running:
        yield running
