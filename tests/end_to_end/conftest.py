"""A running router on each profile, fed by simulated venues that the test holds in its hand."""

import asyncio
import contextlib
import os
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import httpx
import psycopg
import pytest
import pytest_asyncio

from marketdata.simulated import SimulatedVenues
from tests import services
from tests.running import Router

T = TypeVar("T")

SYMBOLS = ("BTC-USDT", "ETH-USDT")
PROFILES = ("embedded", "production")
ALONE_S = 6.0  # at most so long does a process count for itself after Redis did not answer
STALE_AFTER_S = 3.0  # the venues live in the tests' own process, which is busy at times


@contextlib.contextmanager
def _fresh_postgres() -> Iterator[str]:
    """Make an empty database and return its URL."""
    name = f"router_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(services.POSTGRES_URL, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield services.POSTGRES_URL.rsplit("/", 1)[0] + f"/{name}"
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextlib.contextmanager
def environment_of(profile: str, folder: Path) -> Iterator[dict[str, str]]:
    """Return the settings of a profile with a database of its own."""
    common = {"MARKET_SOURCE": "live", "SYMBOLS": ",".join(SYMBOLS), "VENUE_STALE_AFTER_S": str(STALE_AFTER_S)}
    if profile == "embedded":
        yield {**common, "DATABASE_URL": f"sqlite:///{folder}/router.sqlite3", "REDIS_URL": ""}
        return
    for service in ("postgres", "redis"):
        services.require(service)
    with _fresh_postgres() as url:
        prefix = f"test-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        yield {**common, "DATABASE_URL": url, "REDIS_URL": services.REDIS_URL, "CHANNEL_PREFIX": prefix}


def roles_of(profile: str) -> tuple[str, ...]:
    """Return what runs in each process."""
    return ("web,feeds,matcher",) if profile == "embedded" else ("web", "web", "feeds", "matcher")


@pytest.fixture(scope="module", params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market() -> AsyncIterator[SimulatedVenues]:
    async with SimulatedVenues(SYMBOLS, seed=11) as market:
        yield market


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(
    profile: str, market: SimulatedVenues, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Router]:
    with environment_of(profile, tmp_path_factory.mktemp(profile)) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        router = Router({**environment, **urls}, roles=roles_of(profile))
        await router.start()
        try:
            yield router
        finally:
            await router.stop()


async def counted_locally(router: Router, what: Literal["quotas", "rate_limits"]) -> list[float]:
    """Return how often each web process counted alone."""
    async with httpx.AsyncClient() as http:
        texts = [(await http.get(f"{url}/metrics")).text for url in router.urls]
    pattern = rf"^router_{what}_counted_locally_total (\S+)$"
    return [float(re.findall(pattern, text, re.MULTILINE)[0]) for text in texts]


async def counted_together(
    router: Router, what: Literal["quotas", "rate_limits"], attempt: Callable[[str], Awaitable[T]]
) -> T:
    """Try as a new user, whose name is given; again where Redis did not answer in time: the machine stood still."""
    for _ in range(3):
        before = await counted_locally(router, what)
        found = await attempt(f"user{uuid.uuid4().hex[:12]}")
        if await counted_locally(router, what) == before:
            break
        await asyncio.sleep(ALONE_S)
    return found
