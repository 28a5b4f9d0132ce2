"""Holds every request to its sender's tier, and tells on every answer what is left.

Users are known by their token or key, all others by their address; a proxy's word about the
address counts only when the proxy is trusted.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from channels.db import database_sync_to_async
from django.conf import settings

from accounts import selectors, services
from accounts.authentication import KEY_HEADERS
from accounts.limits import Limits, Window, current_limits
from core.errors import Unauthorized
from router_project.errors import answer

App = Callable[[Any, Any, Any], Awaitable[None]]
Scope = Mapping[str, Any]

ANONYMOUS = "ANONYMOUS"
FREE = ("/health", "/ready", "/metrics", "/static/")  # asked by machines that must not be turned away
ORDER_METHODS = frozenset({"POST", "PUT", "DELETE"})
TIERS_KEPT_MAX = 10_000
TIER_KEPT_S = 5.0  # a change of tier, or a revoked key, is seen after so long
TOKEN_HEADER = b"authorization"
CREDENTIAL_HEADERS = (TOKEN_HEADER, *(name.lower().encode() for name in KEY_HEADERS))  # the first that is there counts
IPV6_NETWORK = 64  # bits: who has one address of such a network has all of them


class Throttle:
    """Counts requests, and order actions besides."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._limits: Limits | None = current_limits() if settings.RATE_LIMITS else None
        self._known: dict[str, tuple[str, str, float]] = {}  # credential → who, tier, until when

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            # From here on the client's own, not its proxy's: the address as it is counted, the scheme that it used.
            scope = {**scope, "client": (counted_as(address_of(scope)), 0)}
            if settings.HTTPS and scope["type"] == "http":
                scope["scheme"] = "https"
        if self._limits is None or scope["type"] != "http" or scope["path"].startswith(FREE):
            await self._app(scope, receive, send)
            return
        who, tier = await self._sender(scope)
        _name_account(scope, who)
        window = await self._limits.request(who, tier)
        if window.allowed and _is_order_action(scope):
            orders = await self._limits.order_action(who, tier)
            window = window if orders.allowed else orders
        if not window.allowed:
            await _refuse(window, send)
            return
        headers = _headers(window)

        async def with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self._app(scope, receive, with_headers)

    async def _sender(self, scope: Scope) -> tuple[str, str]:
        credential = _credential(scope)
        if credential:
            known = self._known.get(credential)
            now_s = time.monotonic()
            if known is None or known[2] < now_s:
                known = (*await _identify(credential), now_s + TIER_KEPT_S)
                if known[0]:  # what is none may be long, and is different each time
                    while len(self._known) >= TIERS_KEPT_MAX:
                        del self._known[next(iter(self._known))]
                    self._known[credential] = known
            if known[0]:
                return known[0], known[1]
        return f"address:{scope['client'][0]}", ANONYMOUS


def identify(credential: str) -> tuple[str, str]:
    """Return who a credential counts for, and the tier; nobody when it is none."""
    try:
        if services.is_key(credential):
            user, _ = services.user_of_key(credential)
        else:
            found = selectors.user_by_id(services.bearer_of_token(credential).user_id)
            if found is None or not found.is_active:
                return "", ANONYMOUS
            user = found
    except Unauthorized:
        return "", ANONYMOUS
    return f"user:{user.pk}", user.tier


# Gives its connection back to the pool each time: the threads are more than the pool has.
_identify = database_sync_to_async(identify, thread_sensitive=False)


def _name_account(scope: Scope, who: str) -> None:
    kind, _, number = who.partition(":")
    if kind == "user" and "log" in scope:
        scope["log"]["account"] = int(number)


def _credential(scope: Scope) -> str:
    """Return the credential by which REST framework will know the sender: another one would be counted for nothing."""
    given: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in CREDENTIAL_HEADERS:
            given[name] = given[name] + b"," + value if name in given else value  # as Django joins them: no credential
    scheme, _, token = given.pop(TOKEN_HEADER, b"").strip().partition(b" ")
    if scheme.lower() != b"bearer":
        token = next((given[name] for name in CREDENTIAL_HEADERS if name in given), b"")
    return token.strip().decode("latin-1")


def address_of(scope: Scope) -> str:
    """Return the client's address: the peer's, or what trusted proxies say stands before them."""
    peer = scope["client"][0] if scope.get("client") else "unknown"
    if peer not in settings.TRUSTED_PROXIES:
        return str(peer)
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    for hop in reversed([hop.strip() for hop in forwarded.split(",") if hop.strip()]):
        try:
            address = str(ip_address(hop))
        except ValueError:
            break
        if address not in settings.TRUSTED_PROXIES:
            return address
    return str(peer)


def counted_as(address: str) -> str:
    """Return the name under which an address is counted: of IPv6 its network, else one host would be many."""
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((int(found), IPV6_NETWORK), strict=False).network_address)


def _is_order_action(scope: Scope) -> bool:
    path = scope["path"]
    return scope["method"] in ORDER_METHODS and (path == "/orders" or path.startswith("/orders/"))


def _headers(window: Window) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit", str(window.limit).encode()),
        (b"x-ratelimit-remaining", str(window.remaining).encode()),
        (b"x-ratelimit-reset", str(math.ceil(window.reset_s)).encode()),
    ]


async def _refuse(window: Window, send: Any) -> None:
    wait_s = max(1, math.ceil(window.reset_s))
    refusal = answer(429, f"too many requests; try again in {wait_s} s", headers={"Retry-After": str(wait_s)})
    body = refusal.json()
    headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    await send(
        {
            "type": "http.response.start",
            "status": 429,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *headers,
                *_headers(window),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
