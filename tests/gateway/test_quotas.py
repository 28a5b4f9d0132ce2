"""What somebody may have at once is counted over all processes, to the last one, also when one or Redis dies."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from django.conf import LazySettings
from redis.asyncio import Redis

from accounts.authentication import Identity
from accounts.limits import RateLimited, current_limits
from gateway import leases
from gateway import quotas as quotas_module
from gateway.quotas import Quotas, Share, local_total
from tests import services
from tests.chaos.services import OwnRedis

LIMIT = 10
KEY = "user:1:sockets"
OTHER = "user:2:sockets"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts that beat quickly, and leases that end soon."""
    monkeypatch.setattr(leases, "LEASE_S", 4.0)
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(leases, "REDIS_PAUSE_S", 0.2)


@pytest.fixture
def prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    services.require("redis")
    monkeypatch.setattr(leases, "REDIS_TIMEOUT_S", 20.0)  # this one is there, but beside it much else runs
    return f"test-{uuid.uuid4().hex}"


@pytest_asyncio.fixture
async def processes(prefix: str) -> AsyncIterator[list[Quotas]]:
    """The counts of four web processes."""
    processes = [Quotas(services.REDIS_URL, prefix) for _ in range(4)]
    yield processes
    for process in processes:
        await process.leave()


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


async def fill(process: Quotas, key: str = KEY, limit: int = LIMIT) -> int:
    """Take one by one until the limit; return how many there were."""
    taken = 0
    while await process.take(key, 1, limit=limit):
        taken += 1
    return taken


async def test_of_many_sockets_at_once_exactly_the_allowed_number_opens(processes: list[Quotas]) -> None:
    taken = await asyncio.gather(*(process.take(KEY, 1, limit=LIMIT) for process in processes for _ in range(50)))

    assert sum(taken) == LIMIT
    assert sum(process.held(KEY) for process in processes) == LIMIT
    assert await processes[0].take(OTHER, 1, limit=LIMIT), "everybody has a limit of their own"


async def test_a_socket_that_comes_between_anothers_question_and_answer_costs_it_nothing(
    processes: list[Quotas],
) -> None:
    process = processes[0]

    async def comes_between() -> bool:
        while not process.held(KEY):  # noqa: ASYNC110 - a turn of the loop each, so that none is missed
            await asyncio.sleep(0)
        return await process.take(KEY, 1, limit=LIMIT)

    assert await asyncio.gather(comes_between(), process.take(KEY, 1, limit=LIMIT)) == [True, True]
    assert await fill(processes[1]) == LIMIT - 2


async def test_what_one_socket_was_granted_in_advance_serves_the_next(processes: list[Quotas]) -> None:
    takes = (processes[0].take(KEY, 1, limit=LIMIT, spare=16) for _ in range(LIMIT))
    assert await asyncio.gather(*takes) == [True] * LIMIT
    assert not await processes[0].take(KEY, 1, limit=LIMIT, spare=16)


async def test_what_one_process_gives_back_another_may_take_at_once(processes: list[Quotas]) -> None:
    one, other = processes[:2]
    assert await fill(one) == LIMIT
    assert not await other.take(KEY, 1, limit=LIMIT)

    for number in range(1, LIMIT + 1):
        one.give_back(KEY, 1)
        await one.take(OTHER, 1, limit=1000)  # in line behind it
        assert await fill(other) == 1, f"after {number}"
    assert one.held(KEY) == 0


async def test_most_subscriptions_cost_no_call(prefix: str, processes: list[Quotas]) -> None:
    async with Redis.from_url(services.REDIS_URL) as redis:
        [process, *_] = processes
        assert await process.take(KEY, 1, limit=500, spare=16)
        (name,) = [key async for key in redis.scan_iter(f"{prefix}:web:*")]
        await redis.delete(name)  # who asks again now would be told another number

        for _ in range(16):
            assert await process.take(KEY, 1, limit=500, spare=16)

        assert process.held(KEY) == 17


async def test_what_is_held_in_advance_never_exceeds_the_limit(processes: list[Quotas]) -> None:
    taken = await asyncio.gather(
        *(process.take(KEY, 1, limit=100, spare=16) for _ in range(40) for process in processes)
    )

    assert sum(taken) <= 100
    assert sum(process.held(KEY) for process in processes) <= 100


@pytest.mark.usefixtures("quick")
async def test_what_lies_idle_goes_to_who_wants_it(processes: list[Quotas]) -> None:
    idle, busy = processes[:2]
    assert await idle.take(KEY, 1, limit=100, spare=16)
    assert idle.held(KEY) > 1

    used = 0

    async def takes_all() -> bool:
        nonlocal used
        used += await fill(busy, KEY, 100)
        return used == 99

    await until(takes_all)
    assert idle.held(KEY) == 1


@pytest.mark.usefixtures("quick")
async def test_a_killed_process_is_forgotten_and_a_living_one_is_not(processes: list[Quotas]) -> None:
    killed, living, other = processes[:3]
    for process in (killed, living):
        for _ in range(LIMIT // 2):
            assert await process.take(KEY, 1, limit=LIMIT)
    assert await fill(other) == 0

    heart = killed._board._heart  # type: ignore[union-attr]
    assert heart is not None
    heart.cancel()
    taken = 0

    async def half_is_free() -> bool:
        nonlocal taken
        taken += await fill(other)
        return taken == LIMIT // 2

    await until(half_is_free)
    await asyncio.sleep(leases.LEASE_S + 1)  # hearts beat on
    assert await fill(other) == 0


async def test_a_process_that_leaves_leaves_nothing(prefix: str, processes: list[Quotas]) -> None:
    one, other = processes[:2]
    await fill(one)

    await one.leave()

    assert await fill(other) == LIMIT
    one.give_back(KEY, 1)  # its sockets close later
    assert await fill(other) == 0
    await other.leave()
    async with Redis.from_url(services.REDIS_URL) as redis:
        assert [key async for key in redis.scan_iter(f"{prefix}:web:*")] == []


async def test_an_asker_who_goes_leaves_nothing_behind(processes: list[Quotas]) -> None:
    one, other = processes[:2]
    asking = [asyncio.create_task(one.take(KEY, 1, limit=LIMIT)) for _ in range(LIMIT)]
    await asyncio.sleep(0)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)

    async def all_are_free() -> bool:
        return await other.take(KEY, LIMIT, limit=LIMIT)

    await until(all_are_free, within_s=2 * leases.HEARTBEAT_S)


async def test_without_redis_a_process_counts_for_itself() -> None:
    process = Quotas()

    assert await fill(process) == LIMIT
    process.give_back(KEY, 3)
    assert await fill(process) == 3


@pytest.mark.usefixtures("quick")
async def test_while_redis_is_away_each_process_counts_alone_and_then_together_again(tmp_path: Path) -> None:
    redis = OwnRedis(tmp_path)
    redis.start()
    one, other = Quotas(redis.url, "test"), Quotas(redis.url, "test")
    try:
        for _ in range(4):
            assert await one.take(KEY, 1, limit=LIMIT)
        assert await other.take(KEY, 1, limit=LIMIT)

        redis.kill()
        before = local_total._value.get()
        assert await fill(other) == LIMIT - 1, "its own one is known"
        one.give_back(KEY, 1)
        assert one.held(KEY) == 3
        assert local_total._value.get() > before

        for _ in range(5):
            other.give_back(KEY, 1)
        redis.start()  # empty

        async def counts_together() -> bool:
            before = local_total._value.get()
            if await one.take(KEY, 1, limit=3 + 5 + 1):  # its own, the other's and one more
                one.give_back(KEY, 1)
            allowed = await one.take(KEY, 1, limit=3 + 5)
            if allowed:
                one.give_back(KEY, 1)
            return not allowed and local_total._value.get() == before

        await until(counts_together)
        assert await fill(other) == LIMIT - 3 - 5
    finally:
        redis.kill()
        await one.leave()
        await other.leave()


@pytest.mark.usefixtures("quick")
async def test_a_redis_that_hangs_holds_up_one_call_at_most(tmp_path: Path) -> None:
    redis = OwnRedis(tmp_path)
    redis.start()
    process = Quotas(redis.url, "test")
    try:
        assert await process.take(KEY, 1, limit=LIMIT)
        redis.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(5):
            assert await fill(process) == LIMIT - 1
        async with asyncio.timeout(0.1):
            assert await process.take(OTHER, 1, limit=LIMIT)

        redis.process.send_signal(signal.SIGCONT)  # what hung is done now, and must not count

        async def is_back() -> bool:
            before = local_total._value.get()
            process.give_back(KEY, 1)
            assert await process.take(KEY, 1, limit=LIMIT)
            return local_total._value.get() == before

        await until(is_back)
        async with Redis.from_url(redis.url, decode_responses=True) as client:
            (name,) = [key async for key in client.scan_iter("test:web:*")]
            assert await client.hgetall(name) == {KEY: str(LIMIT), OTHER: "1"}
    finally:
        redis.kill()
        await process.leave()


@pytest.fixture
def limited(settings: LazySettings) -> Iterator[None]:
    settings.RATE_LIMITS = True
    current_limits.cache_clear()
    yield
    current_limits.cache_clear()


ALICE = Identity(user_id=1, username="alice", tier="BASIC", expires_at=0, key="")


@pytest.mark.usefixtures("limited")
async def test_a_socket_takes_its_subscriptions_along_from_its_address_to_its_user(settings: LazySettings) -> None:
    quotas = Quotas()
    share = Share(quotas, "1.1.1.1")
    await share.open(authenticates=False)
    for _ in range(3):
        await share.subscribe()
    assert (quotas.held("address:1.1.1.1:sockets"), quotas.held("address:1.1.1.1:subscriptions")) == (1, 3)

    for _ in range(2):  # the second time changes nothing
        await share.belongs_to(ALICE)
        assert (quotas.held("user:1:sockets"), quotas.held("user:1:subscriptions")) == (1, 3)
        assert (quotas.held("address:1.1.1.1:sockets"), quotas.held("address:1.1.1.1:subscriptions")) == (0, 0)

    share.unsubscribe(2)
    assert quotas.held("user:1:subscriptions") == 1
    share.close()
    share.close()
    assert quotas._leases == {}


@pytest.mark.usefixtures("limited")
async def test_sockets_that_log_in_count_for_their_address_meanwhile_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_module, "HANDSHAKES_MAX", 2)
    quotas = Quotas()
    one, other, third = (Share(quotas, "1.1.1.1") for _ in range(3))
    await one.open(authenticates=True)
    await other.open(authenticates=True)
    with pytest.raises(RateLimited):
        await third.open(authenticates=True)
    third.close()

    await one.belongs_to(ALICE)
    await third.open(authenticates=True)
    other.close()
    third.close()
    one.close()
    assert not quotas.handshakes
    assert quotas._leases == {}
