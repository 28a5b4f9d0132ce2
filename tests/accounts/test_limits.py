import asyncio
import uuid

import pytest

from accounts.limits import Counter, Limits, LocalCounter, RedisCounter, Tier
from tests import services

TIERS = {"BASIC": Tier(requests_a_minute=10, order_actions_a_second=3, sockets=1, subscriptions=1)}


@pytest.fixture(params=["local", "redis", "redis that is away"])
def counter(request: pytest.FixtureRequest) -> Counter:
    if request.param == "local":
        return LocalCounter()
    if request.param == "redis":
        services.require("redis")
        return RedisCounter(services.REDIS_URL, f"test-{uuid.uuid4().hex}")
    return RedisCounter("redis://127.0.0.1:1", "nowhere")


async def test_of_many_requests_at_once_exactly_the_allowed_number_passes(counter: Counter) -> None:
    limits = Limits(TIERS, counter)
    windows = await asyncio.gather(*(limits.request("user:1", "BASIC") for _ in range(300)))
    assert sum(window.allowed for window in windows) == 10
    assert sorted(window.remaining for window in windows)[-10:] == list(range(10))
    assert all(0 < window.reset_s <= 60 for window in windows)
    assert (await limits.request("user:2", "BASIC")).allowed, "everybody has a window of their own"
    assert (await limits.order_action("user:1", "BASIC")).allowed, "order actions are counted apart"


async def test_a_window_closes_after_its_time(counter: Counter) -> None:
    limits = Limits(TIERS, counter)
    windows = [await limits.attempt("login", "alice", 2, 0.2) for _ in range(3)]
    assert [window.allowed for window in windows] == [True, True, False]
    await asyncio.sleep(windows[-1].reset_s + 0.05)
    assert (await limits.attempt("login", "alice", 2, 0.2)).allowed


async def test_processes_share_one_count_over_redis() -> None:
    services.require("redis")
    prefix = f"test-{uuid.uuid4().hex}"
    processes = [Limits(TIERS, RedisCounter(services.REDIS_URL, prefix)) for _ in range(4)]
    windows = await asyncio.gather(*(limits.request("user:1", "BASIC") for limits in processes for _ in range(75)))
    assert sum(window.allowed for window in windows) == 10
