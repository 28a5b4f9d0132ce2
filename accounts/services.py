"""Registers users, logs them in and renews their tokens."""

import hashlib
import secrets
import time
from collections.abc import Mapping
from functools import cache
from hmac import compare_digest
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.db import IntegrityError, transaction
from django.utils import timezone
from msgspec import Struct
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from accounts import selectors
from accounts.models import KEY_START_LENGTH, ApiKey, User, token_key
from core.errors import NotFound, Refused, Unauthorized

TOKEN_LENGTH_MAX = 4_096
USER_ID_MAX = 2**63 - 1
BEARERS_KEPT_MAX = 10_000
USER_CLAIM = "user_id"
KEY_CLAIM = "key"
WRONG_CREDENTIALS = "wrong username or password"
BAD_TOKEN = "the token is not valid; log in again"  # noqa: S105
EXPIRED_TOKEN = "the token has expired or was revoked; log in again"  # noqa: S105


KEY_PREFIX = "sr_"
KEY_BYTES = 32
KEY_LENGTH_MAX = 128
KEYS_MAX = 20  # of an account, not counting revoked ones
BAD_KEY = "the API key is not valid or was revoked"


class TooManyKeys(Refused):
    code = "too_many_keys"


class UsernameTaken(Refused):
    code = "username_taken"


_bearers: dict[str, "Bearer"] = {}  # verified tokens: a signature is checked once


class Session(Struct, frozen=True):
    """A user with the tokens that were just made."""

    user: User
    access_token: str
    refresh_token: str
    expires_in: int  # seconds


def register(*, username: str, password: str) -> Session:
    """Make a user and log them in.

    Raises:
        UsernameTaken: somebody has this name, in whatever case.
        Busy: too many passwords are being hashed.
    """
    taken = UsernameTaken("this username is taken; choose another")
    if selectors.user_by_name(username) is not None:
        raise taken
    user = User(username=username, password=make_password(password))
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:  # another request was faster
        raise taken from None
    return _session(user)


def login(*, username: str, password: str) -> Session:
    """Check a password and make tokens.

    Raises:
        Unauthorized: wrong name or password, or an inactive user: the same words after the same work.
        Busy: too many passwords are being hashed.
    """
    nobody = _nobodys_password()
    user = selectors.user_by_name(username)
    known = user is not None and user.has_usable_password()
    # One check in every case, so that the time tells nothing either.
    matches = check_password(password, user.password if user is not None and known else nobody)
    if user is None or not known or not matches or not user.is_active:
        raise Unauthorized(WRONG_CREDENTIALS)
    return _session(user)


@cache
def _nobodys_password() -> str:
    """Return a hash that no password matches."""
    return make_password(secrets.token_urlsafe())


def refresh(*, refresh_token: str) -> Session:
    """Make a new access token.

    Raises:
        Unauthorized: the refresh token, or its user, is not good any more.
    """
    user, _ = user_of_token(refresh_token, RefreshToken)
    return _session(user, refresh_token)


def user_of_token(raw: str, kind: type[Token]) -> tuple[User, Mapping[str, Any]]:
    """Return the active user of a signed token of this kind, and its claims. One query.

    Raises:
        Unauthorized: anything about it is wrong.
    """
    claims = _claims(raw, kind)
    user_id = claims.get(USER_CLAIM)
    if type(user_id) is not int or not 0 < user_id <= USER_ID_MAX:
        raise Unauthorized(BAD_TOKEN)
    user = selectors.user_by_id(user_id)
    if user is None or not user.is_active or claims.get(KEY_CLAIM) != user.token_key:
        raise Unauthorized(EXPIRED_TOKEN)
    return user, claims


class NewKey(Struct, frozen=True):
    """A key as it is shown, once."""

    key: ApiKey
    raw: str


def make_key(*, user_id: int, name: str = "") -> NewKey:
    """Make an API key for a user.

    Raises:
        TooManyKeys: the user has as many as anybody may.
    """
    if len(selectors.keys_of(user_id)) >= KEYS_MAX:
        raise TooManyKeys(f"no account may have more than {KEYS_MAX} keys; revoke one first")
    raw = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    key = ApiKey.objects.create(user_id=user_id, name=name, start=raw[:KEY_START_LENGTH], digest=_digest(raw))
    return NewKey(key, raw)


def revoke_key(*, user_id: int, key_id: int) -> ApiKey:
    """End a key at once.

    Raises:
        NotFound: the user has no such key, or it was revoked before.
    """
    revoked = ApiKey.objects.filter(pk=key_id, user_id=user_id, revoked_at=None).update(revoked_at=timezone.now())
    if not revoked:
        raise NotFound("you have no such key")
    return ApiKey.objects.get(pk=key_id)


def register_client() -> NewKey:
    """Make a user without a password, who comes with an API key."""
    user = User(username=f"client-{secrets.token_hex(8)}")
    user.set_unusable_password()
    with transaction.atomic():
        user.save(force_insert=True)
        return make_key(user_id=user.pk, name="made with the account")


def user_of_key(raw: str) -> tuple[User, ApiKey]:
    """Return whom an API key speaks for. One query.

    Raises:
        Unauthorized: it is no key, or revoked, or its user is gone.
    """
    if len(raw) > KEY_LENGTH_MAX or not raw.isascii():
        raise Unauthorized(BAD_KEY)
    key = ApiKey.objects.select_related("user").filter(digest=_digest(raw), revoked_at=None).first()
    if key is None or not key.user.is_active:
        raise Unauthorized(BAD_KEY)
    return key.user, key


def is_key(raw: str) -> bool:
    """Tell an API key from a token."""
    return raw.startswith(KEY_PREFIX)


def _digest(raw: str) -> str:
    # No salt, no stretching: a key is 256 random bits, which nobody guesses.
    return hashlib.sha256(raw.encode()).hexdigest()


class Bearer(Struct, frozen=True):
    """Whom a token was made for. That the user still is, and has this `key`, is for the caller's query to see."""

    user_id: int
    key: str
    expires_at: int


def bearer_of_token(raw: str) -> Bearer:
    """Return whom an access token was made for, without a query; `holds` completes the check.

    Raises:
        Unauthorized: it is expired, forged, of another kind, or no token at all.
    """
    known = _bearers.get(raw)
    if known is not None:
        if known.expires_at <= time.time():
            raise Unauthorized(EXPIRED_TOKEN)
        return known
    claims = _claims(raw, AccessToken)
    user_id, key = claims.get(USER_CLAIM), claims.get(KEY_CLAIM)
    if type(user_id) is not int or not 0 < user_id <= USER_ID_MAX:
        raise Unauthorized(BAD_TOKEN)
    if not isinstance(key, str) or not key or not key.isascii():  # an empty one would stand for a checked user
        raise Unauthorized(BAD_TOKEN)
    while len(_bearers) >= BEARERS_KEPT_MAX:
        _bearers.pop(next(iter(_bearers)), None)
    bearer = _bearers[raw] = Bearer(user_id, key, claims["exp"])
    return bearer


def holds(key: str, *, password: str, is_active: bool) -> bool:
    """Tell whether a token's `key` is still good for a user with this stored password hash."""
    return is_active and compare_digest(key, token_key(password))


def _claims(raw: str, kind: type[Token]) -> Mapping[str, Any]:
    if not raw or len(raw) > TOKEN_LENGTH_MAX or not raw.isascii():
        raise Unauthorized(BAD_TOKEN)
    try:
        claims = kind(raw).payload  # type: ignore[arg-type]
        if type(claims["exp"]) is not int:
            raise Unauthorized(BAD_TOKEN)
    except TokenError as error:
        raise Unauthorized(EXPIRED_TOKEN if "expired" in str(error) else BAD_TOKEN) from None
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, AttributeError):
        # Signed by us, or by nobody: a payload that no issuer of ours writes.
        raise Unauthorized(BAD_TOKEN) from None
    if not isinstance(claims, Mapping):
        raise Unauthorized(BAD_TOKEN)
    return claims


def _session(user: User, refresh_token: str = "") -> Session:
    return Session(
        user=user,
        access_token=str(_token(AccessToken, user)),
        refresh_token=refresh_token or str(_token(RefreshToken, user)),
        expires_in=settings.ACCESS_TOKEN_MINUTES * 60,
    )


def _token(kind: type[Token], user: User) -> Token:
    token = kind()
    token[USER_CLAIM] = user.pk
    token[KEY_CLAIM] = user.token_key
    return token
