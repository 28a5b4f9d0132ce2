"""Turns an access token or an API key into a user, for REST requests and for sockets."""

import math
from collections.abc import Collection, Iterable

from msgspec import Struct
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.tokens import AccessToken

from accounts import selectors, services
from accounts.models import User
from core.errors import Unauthorized

KEY_HEADERS = ("X-API-Key", "X-Token-ID")


class Identity(Struct, frozen=True):
    """Who a token speaks for, and until when. `key` changes when the user's tokens are revoked."""

    user_id: int
    username: str
    expires_at: float  # seconds since the epoch
    tier: str
    key: str = ""


def authenticate_token(raw: str) -> Identity:
    """Return whom an access token, or an API key, speaks for. One query.

    Raises:
        Unauthorized: it is expired, revoked, forged, of another kind, or no token at all; or its user is gone.
    """
    return _identify(raw)[1]


def revoked_among(identities: Iterable[Identity]) -> list[Identity]:
    """Return those whose user was deleted, disabled or has another password since, or whose key was revoked.

    Two queries at most. Expiry is not looked at: `expires_at` is in the caller's hands.
    """
    asked = list(identities)
    users = selectors.active_users(identity.user_id for identity in asked)
    keys = selectors.good_keys(identity.key for identity in asked if services.is_key(identity.key))
    return [identity for identity in asked if _is_revoked(identity, users.get(identity.user_id), keys)]


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer <access token>`, the word in any case."""

    def authenticate(self, request: Request) -> tuple[User, Identity] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() != "bearer":
            return None
        return _authenticate(token.strip())

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class KeyAuthentication(BaseAuthentication):
    """`X-API-Key`, or `X-Token-ID` as other servers call it."""

    def authenticate(self, request: Request) -> tuple[User, Identity] | None:
        for name in KEY_HEADERS:
            raw = request.headers.get(name)
            if raw is not None:
                return _authenticate(raw.strip())
        return None


def _authenticate(raw: str) -> tuple[User, Identity]:
    try:
        return _identify(raw)
    except Unauthorized as error:
        raise AuthenticationFailed(error.message) from None


def _identify(raw: str) -> tuple[User, Identity]:
    if services.is_key(raw):
        user, key = services.user_of_key(raw)
        return user, Identity(user.pk, user.username, math.inf, user.tier, f"{key.start}:{key.pk}")
    user, claims = services.user_of_token(raw, AccessToken)
    return user, Identity(user.pk, user.username, float(claims["exp"]), user.tier, user.token_key)


def _is_revoked(identity: Identity, user: User | None, keys: Collection[str]) -> bool:
    if user is None:
        return True
    return identity.key not in keys if services.is_key(identity.key) else user.token_key != identity.key
