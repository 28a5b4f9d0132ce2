"""How often somebody may do something: counted in windows, exactly, over all processes.

A window opens with its first hit and lasts its time; what comes after the limit is refused until
it closes. Redis counts where it is configured; while it is away each process counts for itself.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from functools import cache
from typing import Protocol

import structlog
from django.conf import settings
from django.http import HttpRequest
from msgspec import Struct
from prometheus_client import Counter as Metric
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from core.errors import DomainError

log = structlog.get_logger(__name__)

KEYS_KEPT_MAX = 100_000  # windows open in one process; beyond it the oldest are forgotten
REDIS_CONNECTIONS_MAX = 16
REDIS_TIMEOUT_S = 0.5
REDIS_WAIT_S = 2.0  # for one of the connections
REDIS_PAUSE_S = 2.0  # after a failure Redis is not asked for so long

_hit_script = """
if ARGV[1] == '0' then
    return {tonumber(redis.call('GET', KEYS[1]) or '0'), redis.call('PTTL', KEYS[1])}
end
local count = redis.call('INCRBY', KEYS[1], 1)
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('PTTL', KEYS[1])}
"""

refused_total = Metric("router_rate_limited", "Requests and actions that were refused", ["what"])
local_total = Metric("router_rate_limits_counted_locally", "Hits counted by one process alone: Redis did not answer")


LOGIN_WINDOW_S = 300.0
FAILED_LOGINS_A_PAIR = 10
FAILED_LOGINS_AN_ADDRESS = 50
FAILED_LOGINS_A_NAME = 100  # high: a stranger must not be able to lock somebody out
REGISTRATION_WINDOW_S = 3600.0
REGISTRATIONS_AN_ADDRESS = 500  # a class behind one address may register; each new user has limits of their own


class RateLimited(DomainError):
    """Too many (429); `retry_after` is in seconds."""

    code = "rate_limited"


class Tier(Struct, frozen=True):
    """What a tier may do."""

    requests_a_minute: int
    order_actions_a_second: int
    sockets: int
    subscriptions: int


class Window(Struct, frozen=True):
    """The state of a window after a hit."""

    limit: int
    count: int
    reset_s: float  # until it closes

    @property
    def allowed(self) -> bool:
        return self.count <= self.limit

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.count)


class Counter(Protocol):
    async def hit(self, key: str, window_s: float) -> tuple[int, float]:
        """Count one; return how many the open window has, and how long it stays open."""

    async def look(self, key: str) -> tuple[int, float]:
        """Return the same without counting."""


class LocalCounter:
    """Counts in this process."""

    def __init__(self) -> None:
        self._windows: dict[str, list[float]] = {}  # key → count, end

    async def hit(self, key: str, window_s: float) -> tuple[int, float]:
        now_s = time.monotonic()
        window = self._windows.get(key)
        if window is None or window[1] <= now_s:
            self._windows.pop(key, None)  # a new window goes to the end of the row
            while len(self._windows) >= KEYS_KEPT_MAX:
                del self._windows[next(iter(self._windows))]
            window = self._windows[key] = [0, now_s + window_s]
        window[0] += 1
        return int(window[0]), window[1] - now_s

    async def look(self, key: str) -> tuple[int, float]:
        count, end_s = self._windows.get(key, (0, 0.0))
        left_s = end_s - time.monotonic()
        return (int(count), left_s) if left_s > 0 else (0, 0.0)


class RedisCounter:
    """Counts in Redis for all processes; without it, in this one."""

    def __init__(self, url: str, prefix: str, *, timeout_s: float = REDIS_TIMEOUT_S) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=REDIS_CONNECTIONS_MAX,
            timeout=REDIS_WAIT_S,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
        )
        self._hit = Redis.from_pool(pool).register_script(_hit_script)
        self._prefix = prefix
        self._local = LocalCounter()
        self._ask_again_s = 0.0

    async def hit(self, key: str, window_s: float) -> tuple[int, float]:
        found = await self._ask(key, int(window_s * 1000))
        if found is None:
            local_total.inc()
            return await self._local.hit(key, window_s)
        return found

    async def look(self, key: str) -> tuple[int, float]:
        found = await self._ask(key, 0)
        return await self._local.look(key) if found is None else found

    async def _ask(self, key: str, window_ms: int) -> tuple[int, float] | None:
        """Run the script; None when Redis does not answer."""
        if time.monotonic() < self._ask_again_s:
            return None
        try:
            count, left_ms = await self._hit(keys=[f"{self._prefix}:limit:{key}"], args=[window_ms])
        except (RedisError, OSError, TimeoutError) as error:
            self._ask_again_s = time.monotonic() + REDIS_PAUSE_S
            log.warning("Redis does not count; this process does so alone", error=str(error))
            return None
        return int(count), max(0, int(left_ms)) / 1000


class Limits:
    """The limits of every tier over one counter."""

    def __init__(self, tiers: Mapping[str, Tier], counter: Counter) -> None:
        self._tiers = tiers
        self._counter = counter

    def tier(self, name: str) -> Tier:
        return self._tiers[name]

    async def request(self, who: str, tier: str) -> Window:
        """Count a request of `who` (a user, or an address); the caller refuses when it is not allowed."""
        return await self._count("requests", who, self.tier(tier).requests_a_minute, 60)

    async def order_action(self, who: str, tier: str) -> Window:
        return await self._count("orders", who, self.tier(tier).order_actions_a_second, 1)

    async def login(self, username: str, address: str) -> None:
        """Refuse a log-in after too many wrong ones: of one name from one address, from one address, of one name.

        Raises:
            RateLimited: the message says when to come back.
        """
        for key, limit in _login_keys(username, address):
            count, left_s = await self._counter.look(key)
            if count >= limit:
                raise _refused("login", "too many failed log-ins", left_s)

    async def login_failed(self, username: str, address: str) -> None:
        for key, _ in _login_keys(username, address):
            await self._counter.hit(key, LOGIN_WINDOW_S)

    async def registration(self, address: str) -> None:
        """Count a registration, also one whose name is taken: those tell who is here.

        Raises:
            RateLimited: the address made as many as it may; the message says when to come back.
        """
        count, left_s = await self._counter.hit(f"register:{address}", REGISTRATION_WINDOW_S)
        if count > REGISTRATIONS_AN_ADDRESS:
            raise _refused("registration", "too many registrations", left_s)

    async def _count(self, what: str, who: str, limit: int, window_s: float) -> Window:
        count, reset_s = await self._counter.hit(f"{what}:{who}", window_s)
        window = Window(limit, count, reset_s)
        if not window.allowed:
            refused_total.labels(what).inc()
        return window


def address_of(request: HttpRequest) -> str:
    """Return the client's address, as the throttle found it."""
    return str(request.META.get("REMOTE_ADDR") or "unknown")


def _refused(what: str, why: str, left_s: float) -> RateLimited:
    refused_total.labels(what).inc()
    wait_s = max(1, math.ceil(left_s))
    return RateLimited(f"{why}; try again in {wait_s} s", retry_after=wait_s)


def _login_keys(username: str, address: str) -> list[tuple[str, int]]:
    name = hashlib.sha256(username.lower().encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return [
        (f"login:{name}:{address}", FAILED_LOGINS_A_PAIR),
        (f"login:{address}", FAILED_LOGINS_AN_ADDRESS),
        (f"login:{name}", FAILED_LOGINS_A_NAME),
    ]


@cache
def current_limits() -> Limits:
    """Return this process's limits as configured, over Redis where there is one."""
    tiers = {
        name: Tier(
            settings.RATE_REQUESTS_A_MINUTE[name],
            settings.RATE_ORDER_ACTIONS_A_SECOND[name],
            settings.RATE_SOCKETS[name],
            settings.RATE_SUBSCRIPTIONS[name],
        )
        for name in settings.TIERS
    }
    counter: Counter = LocalCounter()
    if settings.REDIS_URLS:
        counter = RedisCounter(settings.REDIS_URLS[0], settings.CHANNEL_PREFIX)
    return Limits(tiers, counter)
