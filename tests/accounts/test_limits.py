import asyncio
import uuid

import pytest
from django.conf import LazySettings
from django.test import Client

from accounts.limits import (
    FAILED_LOGINS_A_PAIR,
    FAILED_LOGINS_AN_ADDRESS,
    Counter,
    Limits,
    LocalCounter,
    RateLimited,
    RedisCounter,
    Tier,
    current_limits,
)
from tests import services

PATIENT_S = 20.0  # of a Redis that is there, but beside which much else runs
TIERS = {"BASIC": Tier(requests_a_minute=10, order_actions_a_second=3, sockets=1, subscriptions=1)}


@pytest.fixture(params=["local", "redis", "redis that is away"])
def counter(request: pytest.FixtureRequest) -> Counter:
    if request.param == "local":
        return LocalCounter()
    if request.param == "redis":
        services.require("redis")
        return RedisCounter(services.REDIS_URL, f"test-{uuid.uuid4().hex}", timeout_s=PATIENT_S)
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
    counts = [(await counter.hit("x", 1.5))[0] for _ in range(3)]
    assert counts == [1, 2, 3]
    count, left_s = await counter.look("x")
    assert (count, 0 < left_s <= 1.5) == (3, True)
    await asyncio.sleep(left_s + 0.05)
    assert (await counter.look("x"))[0] == 0
    assert (await counter.hit("x", 1.5))[0] == 1


async def test_failed_logins_are_limited_for_a_name_at_an_address_and_for_the_address(counter: Counter) -> None:
    limits = Limits(TIERS, counter)
    for _ in range(FAILED_LOGINS_A_PAIR):
        await limits.login("alice", "1.1.1.1")
        await limits.login_failed("Alice", "1.1.1.1")
    with pytest.raises(RateLimited) as refused:
        await limits.login("ALICE", "1.1.1.1")
    assert 1 <= int(str(refused.value.details["retry_after"])) <= 300
    await limits.login("alice", "2.2.2.2")  # the owner, from elsewhere
    await limits.login("bob", "1.1.1.1")
    for number in range(FAILED_LOGINS_AN_ADDRESS - FAILED_LOGINS_A_PAIR):
        await limits.login_failed(f"user{number}", "1.1.1.1")
    with pytest.raises(RateLimited):
        await limits.login("bob", "1.1.1.1")


async def test_processes_share_one_count_over_redis() -> None:
    services.require("redis")
    prefix = f"test-{uuid.uuid4().hex}"
    processes = [Limits(TIERS, RedisCounter(services.REDIS_URL, prefix, timeout_s=PATIENT_S)) for _ in range(4)]
    windows = await asyncio.gather(*(limits.request("user:1", "BASIC") for limits in processes for _ in range(75)))
    assert sum(window.allowed for window in windows) == 10


@pytest.mark.django_db
def test_a_guesser_is_turned_away_while_others_log_in(client: Client, settings: LazySettings) -> None:
    settings.RATE_LIMITS = True
    current_limits.cache_clear()

    def login(password: str) -> int:
        body = {"username": "alice", "password": password}
        return client.post("/login", body, content_type="application/json").status_code

    body = {"username": "alice", "password": "password123"}
    assert client.post("/register", body, content_type="application/json").status_code == 201
    assert [login("wrong") for _ in range(FAILED_LOGINS_A_PAIR)] == [401] * FAILED_LOGINS_A_PAIR
    assert login("password123") == 429
    other = client.post("/login", body, content_type="application/json", REMOTE_ADDR="9.9.9.9")
    assert other.status_code == 200
    current_limits.cache_clear()
