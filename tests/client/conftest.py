"""A running router with the simulated market, and clients of it."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from router_client import APIClient, AsyncAPIClient

from tests.running import Router

PASSWORD = "password123"
MONEY = Decimal(1_000_000)
MARKET_S = 45.0  # within which the market must be there
_numbers = itertools.count(1)


def environment_of(folder: Path) -> dict[str, str]:
    """Return the settings of a router of its own."""
    return {
        "MARKET_SOURCE": "simulated",
        "SYMBOLS": "BTC-USDT,ETH-USDT",
        "DATABASE_URL": f"sqlite:///{folder}/router.sqlite3",
        "REDIS_URL": "",
    }


async def wait_for_market(url: str) -> None:
    """Return when orders can be executed."""
    async with asyncio.timeout(MARKET_S), AsyncAPIClient(url) as client:
        await client.ready()
        while any(touch.best_ask is None for touch in (await client.status()).symbols.values()):
            pass


@pytest.fixture(scope="package")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """One router for all tests that leave it as it is, looked after by a thread: synchronous clients block theirs."""
    router = Router(environment_of(tmp_path_factory.mktemp("client")), roles=("web,feeds,matcher",))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="router under test")
    thread.start()

    def run(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        run(router.start())
        try:
            run(wait_for_market(router.url))
            yield router
        finally:
            run(router.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def name() -> str:
    return f"user-{next(_numbers)}"


@pytest.fixture
def client(router: Router, name: str) -> Iterator[APIClient]:
    """A synchronous client, logged in, with money."""
    with APIClient(router.url) as client:
        client.register(name, PASSWORD)
        client.deposit("USDT", MONEY)
        yield client


@pytest_asyncio.fixture
async def trader(router: Router, name: str) -> AsyncIterator[AsyncAPIClient]:
    """An asynchronous client, logged in, with money."""
    async with AsyncAPIClient(router.url) as client:
        await client.register(name, PASSWORD)
        await client.deposit("USDT", MONEY)
        yield client
