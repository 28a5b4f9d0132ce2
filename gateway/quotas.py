"""How many sockets and subscriptions somebody has, against what their tier allows.

One count over all web processes where Redis is configured; while it is away, and without it,
each process counts for itself. Subscriptions are leased some in advance, so that most cost no call.
"""

import asyncio
import weakref
from collections import Counter

from django.conf import settings
from prometheus_client import Counter as Metric

from accounts.authentication import Identity
from accounts.limits import RateLimited, Tier, current_limits, refused_total
from gateway.leases import UNLIMITED, Board, Lease

ANONYMOUS = "ANONYMOUS"
SUBSCRIPTIONS_MAX = 500  # of one socket, whatever the tier
HANDSHAKES_MAX = 200  # of one address in one process, whose credentials are being looked at
SUBSCRIPTIONS_AHEAD = 16

local_total = Metric(
    "router_quotas_counted_locally", "Sockets and subscriptions counted by one process alone: Redis did not answer"
)


class Quotas:
    """The counts of one event loop: by user, and by address for who is not logged in."""

    def __init__(self, redis_url: str | None = None, prefix: str = "") -> None:
        self.handshakes: Counter[str] = Counter()
        self._leases: dict[str, Lease] = {}
        self._board = Board(redis_url, prefix, self._leases) if redis_url else None

    async def take(self, key: str, number: int, *, limit: int, spare: int = 0) -> bool:
        """Count so many more under a key; return False, and count nothing, where the limit does not allow it."""
        lease = self._leases.get(key)
        if lease is None:
            lease = self._leases[key] = Lease(key)
        try:
            while lease.used + number > lease.held:  # again: somebody else may have taken what was granted to us
                granted = await self._ask(lease, number, limit, spare)
                if not granted and lease.used + number > lease.held:  # nor was anything left over for us
                    return False
            lease.used += number
            return True
        finally:
            self._forget_empty(lease)

    def give_back(self, key: str, number: int) -> None:
        """Count so many less."""
        lease = self._leases[key]
        lease.used -= number
        surplus = lease.held - lease.used - (lease.spare if lease.used else 0)
        if surplus > 0:
            self._change(lease, -surplus)
        self._forget_empty(lease)

    def held(self, key: str) -> int:
        """Return how many this process holds under a key: those in use, and some in advance."""
        lease = self._leases.get(key)
        return lease.held if lease else 0

    async def leave(self) -> None:
        """Leave the common count: this process is ending."""
        if self._board is not None:
            await self._board.leave()

    async def _ask(self, lease: Lease, number: int, limit: int, spare: int) -> bool:
        if self._board is not None:
            granted = await self._board.ask(lease, number, limit=limit, spare=spare)
            if granted is not None:
                return granted > 0
            local_total.inc()
        if lease.held + number > limit:
            return False
        self._change(lease, number)
        return True

    def _change(self, lease: Lease, by: int) -> None:
        if self._board is not None:
            self._board.change(lease, by)
        else:
            lease.held += by

    def _forget_empty(self, lease: Lease) -> None:
        if lease.is_empty:
            self._leases.pop(lease.key, None)


class Share:
    """One socket's part of its owner's counts."""

    def __init__(self, quotas: Quotas, address: str) -> None:
        self._quotas = quotas
        self._address = address
        self._who: str | None = None  # that the socket is counted for
        self._tier: Tier | None = None
        self._is_handshake = False
        self._subscriptions = 0

    async def open(self, *, authenticates: bool) -> None:
        """Count the socket for its address; one that brought credentials is its user's in a moment.

        Raises:
            RateLimited: the address has as many as it may.
        """
        if not settings.RATE_LIMITS:
            return
        if not authenticates:
            await self._move_to(f"address:{self._address}", current_limits().tier(ANONYMOUS))
            return
        if self._quotas.handshakes[self._address] >= HANDSHAKES_MAX:
            raise _refused("sockets", f"at most {HANDSHAKES_MAX} sockets of an address may log in at the same time")
        self._quotas.handshakes[self._address] += 1
        self._is_handshake = True

    async def belongs_to(self, identity: Identity) -> None:
        """Count the socket, and what it subscribed to, for its user from here on.

        Raises:
            RateLimited: the user has as many as the tier allows.
        """
        if settings.RATE_LIMITS:
            await self._move_to(f"user:{identity.user_id}", current_limits().tier(identity.tier))
            self._end_handshake()

    async def subscribe(self) -> None:
        """Count one subscription more.

        Raises:
            RateLimited: the socket, or its owner, has as many as it may.
        """
        if self._subscriptions >= SUBSCRIPTIONS_MAX:
            raise _refused("subscriptions", f"at most {SUBSCRIPTIONS_MAX} subscriptions a socket")
        if self._who is not None and self._tier is not None:
            limit = self._tier.subscriptions
            if not await self._quotas.take(_subscriptions(self._who), 1, limit=limit, spare=SUBSCRIPTIONS_AHEAD):
                raise _refused("subscriptions", f"at most {limit} subscriptions in this tier")
        self._subscriptions += 1

    def unsubscribe(self, number: int) -> None:
        self._subscriptions -= number
        if self._who is not None and number:
            self._quotas.give_back(_subscriptions(self._who), number)

    def close(self) -> None:
        self._end_handshake()
        self._give_back()
        self._who, self._subscriptions = None, 0

    async def _move_to(self, who: str, tier: Tier) -> None:
        if who != self._who:
            if not await self._quotas.take(_sockets(who), 1, limit=tier.sockets):
                raise _refused("sockets", f"at most {tier.sockets} sockets at once in this tier")
            if self._subscriptions:
                await self._quotas.take(_subscriptions(who), self._subscriptions, limit=UNLIMITED)
            self._give_back()
        self._who, self._tier = who, tier

    def _give_back(self) -> None:
        if self._who is not None:
            self._quotas.give_back(_sockets(self._who), 1)
            if self._subscriptions:
                self._quotas.give_back(_subscriptions(self._who), self._subscriptions)

    def _end_handshake(self) -> None:
        if self._is_handshake:
            self._is_handshake = False
            self._quotas.handshakes[self._address] -= 1
            if not self._quotas.handshakes[self._address]:
                del self._quotas.handshakes[self._address]


def _sockets(who: str) -> str:
    return f"{who}:sockets"


def _subscriptions(who: str) -> str:
    return f"{who}:subscriptions"


def _refused(what: str, message: str) -> RateLimited:
    refused_total.labels(what).inc()
    return RateLimited(message)


_quotas: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Quotas]" = weakref.WeakKeyDictionary()


def current_quotas() -> Quotas:
    """Return the counts of this event loop, over Redis where it is configured."""
    loop = asyncio.get_running_loop()
    if loop not in _quotas:
        url = settings.REDIS_URLS[0] if settings.REDIS_URLS else None
        _quotas[loop] = Quotas(url, settings.CHANNEL_PREFIX)
    return _quotas[loop]
