"""How many sockets and subscriptions somebody has, against what their tier allows.

Counted in this process: a socket belongs to one, and a process that dies takes its count along.
"""

import asyncio
import weakref
from collections import Counter

from django.conf import settings

from accounts.authentication import Identity
from accounts.limits import RateLimited, Tier, current_limits

ANONYMOUS = "ANONYMOUS"
SUBSCRIPTIONS_MAX = 500  # of one socket, whatever the tier


class Quotas:
    """The counts of one event loop: by user, and by address for who is not logged in."""

    def __init__(self) -> None:
        self.sockets: Counter[str] = Counter()
        self.subscriptions: Counter[str] = Counter()


class Share:
    """One socket's part of its owner's counts."""

    def __init__(self, quotas: Quotas, address: str) -> None:
        self._quotas = quotas
        self._who = f"address:{address}"
        self._tier = _tier(ANONYMOUS)
        self._open = False
        self._subscriptions = 0

    def open(self) -> None:
        """Count the socket for its address.

        Raises:
            RateLimited: the address has as many as it may.
        """
        self._count_socket(self._who, self._tier)
        self._open = True

    def belongs_to(self, identity: Identity) -> None:
        """Count the socket, and what it subscribed to, for its user from here on.

        Raises:
            RateLimited: the user has as many as the tier allows.
        """
        who, tier = f"user:{identity.user_id}", _tier(identity.tier)
        if who != self._who:
            self._count_socket(who, tier)
            self._quotas.subscriptions[who] += self._subscriptions
            self._take_back()
        self._who, self._tier, self._open = who, tier, True

    def subscribe(self) -> None:
        """Count one subscription more.

        Raises:
            RateLimited: the socket, or its owner, has as many as it may.
        """
        if self._subscriptions >= SUBSCRIPTIONS_MAX:
            raise RateLimited(f"at most {SUBSCRIPTIONS_MAX} subscriptions a socket")
        if self._tier is not None and self._quotas.subscriptions[self._who] >= self._tier.subscriptions:
            raise RateLimited(f"at most {self._tier.subscriptions} subscriptions in this tier")
        self._subscriptions += 1
        self._quotas.subscriptions[self._who] += 1

    def unsubscribe(self, number: int) -> None:
        self._subscriptions -= number
        _less(self._quotas.subscriptions, self._who, number)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._take_back()
            self._subscriptions = 0

    def _count_socket(self, who: str, tier: Tier | None) -> None:
        if tier is not None and self._quotas.sockets[who] >= tier.sockets:
            raise RateLimited(f"at most {tier.sockets} sockets at once in this tier")
        self._quotas.sockets[who] += 1

    def _take_back(self) -> None:
        _less(self._quotas.sockets, self._who, 1)
        _less(self._quotas.subscriptions, self._who, self._subscriptions)


def _tier(name: str) -> Tier | None:
    """Return a tier's limits; None when there are none."""
    return current_limits().tier(name) if settings.RATE_LIMITS else None


def _less(counter: Counter[str], who: str, number: int) -> None:
    counter[who] -= number
    if counter[who] <= 0:
        del counter[who]


_quotas: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Quotas]" = weakref.WeakKeyDictionary()


def current_quotas() -> Quotas:
    """Return the counts of this event loop."""
    return _quotas.setdefault(asyncio.get_running_loop(), Quotas())
