"""What each web process holds of its users' limits, kept in Redis so that all processes count together.

Each process writes into a hash of its own and is listed with the end of its lease; what somebody
holds is the sum over the listed processes. A heartbeat renews the lease, so a process that was
killed is forgotten with all that it held. One call is under way at a time, for everything that
was asked meanwhile: a burst of sockets costs a few calls, and a release none of its own.
"""

import asyncio
import contextlib
import uuid

import structlog
from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from accounts.limits import REDIS_PAUSE_S, REDIS_TIMEOUT_S

log = structlog.get_logger(__name__)

LEASE_S = 20.0  # a killed process's sockets count so long, at most
HEARTBEAT_S = 5.0
REDIS_CONNECTIONS_MAX = 2
ASKS_A_CALL_MAX = 500
UNLIMITED = 2**31
SPARE_PART = 8  # of what is left; a grant in advance takes no more of it

# Milliseconds by Redis' own clock; the processes' may differ.
_now = "local time = redis.call('TIME') local now = time[1] * 1000 + math.floor(time[2] / 1000) "
_renew = """
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
redis.call('PEXPIREAT', KEYS[1], now + ARGV[3])
redis.call('PEXPIREAT', ARGV[1] .. ARGV[2], now + ARGV[3])
"""
# ARGV: prefix of the hashes, this process, length of the lease, then key, wanted, limit, spare of each ask.
_settle_script = f"""
{_now}
local listed = redis.call('ZSCORE', KEYS[1], ARGV[2])
if not listed or tonumber(listed) <= now then return false end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local webs = redis.call('ZRANGE', KEYS[1], 0, -1)
local grants = {{}}
for i = 4, #ARGV, 4 do
    local key, wanted, limit, spare = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
    local granted = 0
    if wanted < 0 then
        granted = wanted
    else
        local left = limit
        for _, web in ipairs(webs) do left = left - tonumber(redis.call('HGET', ARGV[1] .. web, key) or '0') end
        if left >= wanted then granted = wanted + math.min(spare, math.floor((left - wanted) / {SPARE_PART})) end
    end
    if granted ~= 0 and redis.call('HINCRBY', ARGV[1] .. ARGV[2], key, granted) <= 0 then
        redis.call('HDEL', ARGV[1] .. ARGV[2], key)
    end
    grants[#grants + 1] = granted
end
{_renew}
return grants
"""
# ARGV: prefix, this process, length of the lease, the name that it had before, then key and number of what it holds.
_enter_script = f"""
{_now}
redis.call('ZREM', KEYS[1], ARGV[4])
redis.call('DEL', ARGV[1] .. ARGV[4])
for i = 5, #ARGV, 2 do redis.call('HSET', ARGV[1] .. ARGV[2], ARGV[i], ARGV[i + 1]) end
{_renew}
"""


class Lease(Struct, eq=False):
    """What this process holds of one limit, and what of it is in use; `spare` is kept for the next."""

    key: str
    held: int = 0
    used: int = 0
    spare: int = 0
    asking: int = 0  # asks under way: a grant may still come

    @property
    def is_empty(self) -> bool:
        return not (self.held or self.used or self.asking)


class _Ask(Struct, eq=False):
    lease: Lease
    wanted: int  # below zero: given back
    limit: int
    spare: int = 0
    answered: asyncio.Future[int | None] | None = None  # none: it is done here already, and only told


class Board:
    """The processes' counts in Redis, as one of them writes and reads them. Belongs to one event loop."""

    def __init__(self, url: str, prefix: str, leases: dict[str, Lease]) -> None:
        """`leases` are this process's own: `held` is changed here, and an empty one is dropped."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=REDIS_CONNECTIONS_MAX,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
        )
        self._redis = Redis.from_pool(pool)
        self._settle_call = self._redis.register_script(_settle_script)
        self._enter_call = self._redis.register_script(_enter_script)
        self._webs, self._prefix = f"{prefix}:webs", f"{prefix}:web:"
        self._leases = leases
        self._asks: list[_Ask] = []
        # A new one after each failure: what a call did whose answer was lost is forgotten with the old one.
        self._process: str | None = None
        self._former = ""
        self._away = False
        self._closed = False
        self._is_due = False
        self._worker: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None

    async def ask(self, lease: Lease, wanted: int, *, limit: int, spare: int) -> int | None:
        """Raise what the lease holds by `wanted`, and up to `spare` in advance, or by nothing where the limit is
        reached; return by how much, None where Redis did not answer.
        """
        if self._away or self._closed:
            return None
        if self._heart is None:
            self._heart = asyncio.create_task(self._beat(), name="leases: heartbeat")
        answered: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._put(_Ask(lease, wanted, limit, spare, answered))
        lease.asking += 1
        try:
            return await answered
        finally:
            if not answered.cancelled():  # else a grant may still come
                lease.asking -= 1

    def change(self, lease: Lease, by: int) -> None:
        """Change what the lease holds without asking; the others learn of it soon."""
        lease.held += by
        if self._process is not None and not self._closed:
            self._put(_Ask(lease, by, UNLIMITED))

    async def leave(self) -> None:
        """Take this process's counts away: its clients go to the others."""
        self._closed = True
        if self._heart is not None:
            self._heart.cancel()
        if self._worker is not None:
            await asyncio.wait([self._worker])
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self._redis.zrem(self._webs, process)
                await self._redis.delete(self._prefix + process)
        await self._redis.aclose()

    def _put(self, ask: _Ask) -> None:
        self._asks.append(ask)
        self._wake()

    def _wake(self) -> None:
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="leases")

    async def _beat(self) -> None:
        """Renew the lease, give back what lies idle, and come back to Redis after it was away."""
        while True:
            await asyncio.sleep(REDIS_PAUSE_S if self._away else HEARTBEAT_S)
            for lease in tuple(self._leases.values()):
                lease.spare = 0
                if lease.held > lease.used and not lease.asking:
                    self.change(lease, lease.used - lease.held)
                if lease.is_empty:
                    del self._leases[lease.key]
            self._is_due = True
            self._wake()

    async def _work(self) -> None:
        while self._asks or self._is_due:
            self._is_due = False
            batch, self._asks = self._asks[:ASKS_A_CALL_MAX], self._asks[ASKS_A_CALL_MAX:]
            try:
                await self._settle(batch)
            except (RedisError, OSError, TimeoutError) as error:
                self._lose(batch, error)
            except Exception as error:
                log.exception("the shared counts failed")
                self._lose(batch, error)

    async def _settle(self, batch: list[_Ask]) -> None:
        if self._process is None:
            await self._enter()
        grants = await self._run(batch)
        if grants is None:  # forgotten: this process hung for too long, or Redis was emptied
            batch = [ask for ask in batch if ask.answered is not None]
            await self._enter()
            grants = await self._run(batch)
        if grants is None:
            raise TimeoutError("the lease ended at once")
        self._away = False
        for ask, granted in zip(batch, grants, strict=True):
            if ask.answered is not None:
                ask.lease.held += granted
                ask.lease.spare = max(0, granted - ask.wanted)
                _answer(ask, granted)

    async def _run(self, batch: list[_Ask]) -> list[int] | None:
        asks = [part for ask in batch for part in (ask.lease.key, ask.wanted, ask.limit, ask.spare)]
        grants: list[int] | None = await self._settle_call(
            keys=[self._webs], args=[self._prefix, self._process or "", _ms(LEASE_S), *asks]
        )
        return grants

    async def _enter(self) -> None:
        """List this process under a new name, with what it holds now."""
        self._asks = [ask for ask in self._asks if ask.answered is not None]  # what is done is told by the whole
        self._process = uuid.uuid4().hex
        held = [part for lease in self._leases.values() if lease.held for part in (lease.key, lease.held)]
        await self._enter_call(keys=[self._webs], args=[self._prefix, self._process, _ms(LEASE_S), self._former, *held])
        self._former = self._process

    def _lose(self, batch: list[_Ask], error: Exception) -> None:
        """Let each process count for itself until Redis answers again."""
        if not self._away:
            log.warning("Redis does not count sockets; this process does so alone", error=str(error))
        self._away = True
        self._former, self._process = self._process or self._former, None
        asks, self._asks = [*batch, *self._asks], []
        for ask in asks:
            _answer(ask, None)


def _answer(ask: _Ask, granted: int | None) -> None:
    if ask.answered is None:
        return
    if ask.answered.cancelled():  # who asked has gone
        ask.lease.asking -= 1
    else:
        ask.answered.set_result(granted)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
