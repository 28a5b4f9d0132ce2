"""What a call takes beyond one request: credentials, repetition, recovery of lost answers.

Written once, without I/O, as generators: they yield what is to be done (`Send`, `Wait`, `Renew`)
and are sent the result; the synchronous and the asynchronous client only carry it out.
"""

import contextlib
import random
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from router_client import calls, wire
from router_client.calls import Call, Change, NewOrder, NewTwap, Repeat
from router_client.errors import (
    AnswerLost,
    ConnectionFailed,
    DuplicateTokenId,
    NotFound,
    Refused,
    RouterError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    error_for,
)
from router_client.models import Order, RateLimit, Tokens, TwapOrder

T = TypeVar("T")
Placed = TypeVar("Placed", bound=Order | TwapOrder)

REFRESH_BEFORE_S = 60.0  # an access token is renewed so long before it ends
DOUBLINGS_MAX = 30
REFRESH_PART = 0.1  # or this part of its life, where that is shorter


class Send(Struct, frozen=True):
    """Make this request; the result is an `Answer`."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes | None


class Wait(Struct, frozen=True):
    """Let so many seconds pass."""

    seconds: float


class Renew(Struct, frozen=True):
    """Get a new token (`renew`), one at a time, unless there is another than `seen`; the result is a bool."""

    seen: int


class Answer(Struct, frozen=True):
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Flow = Generator[Send | Wait | Renew, Any, T]


class Retries(Struct, frozen=True):
    """How hard to try. Seconds double from `first_s` to `max_s`, with jitter."""

    attempts: int = 8  # about twelve seconds in all: a restart of the router
    first_s: float = 0.2
    max_s: float = 5.0
    patience_s: float = 30.0  # a longer Retry-After is handed to the caller instead of waited for

    def wait_s(self, attempt: int, error: RouterError) -> float | None:
        """Return how long to wait after the failure of this attempt (from 0); None to give up."""
        if attempt + 1 >= self.attempts:
            return None
        asked = error.retry_after if isinstance(error, TooManyRequests | Unavailable) else None
        if asked is not None:
            return None if asked > self.patience_s else asked + random.uniform(0, self.first_s)  # noqa: S311 # nosec B311 # jitter
        return self.pause_s(attempt, self.max_s)

    def pause_s(self, attempt: int, max_s: float) -> float:
        """Return a wait that doubles with each attempt, up to a bound, with jitter."""
        ceiling = min(max_s, self.first_s * 2 ** min(attempt, DOUBLINGS_MAX))
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 # nosec B311 # jitter


class Session:
    """Who the client is: an API key, or tokens that are renewed in time."""

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        refresh_token: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self.username = username
        self.api_key = api_key
        self._password = password
        self._refresh_token = refresh_token
        self._token = token
        self._renew_at: float | None = None  # monotonic
        self.version = 0  # grows with each new token
        self.rate_limit: RateLimit | None = None  # as the last answer told it

    @property
    def token(self) -> str | None:
        return self._token

    @property
    def refresh_token(self) -> str | None:
        return self._refresh_token

    @property
    def known(self) -> bool:
        """Whether there is anything to show to the router."""
        return bool(self.api_key or self._token or self._refresh_token or self._password)

    @property
    def is_due(self) -> bool:
        """Whether a new token should be got before the next call."""
        due_s = self.renew_in_s
        return (due_s is not None and due_s <= 0) or not self.headers()

    @property
    def renew_in_s(self) -> float | None:
        """Seconds until the access token should be renewed; None where that is not known."""
        return None if self._renew_at is None else self._renew_at - time.monotonic()

    def take(self, tokens: Tokens, *, username: str = "", password: str | None = None) -> Tokens:
        """Use these tokens from now on."""
        self._token = tokens.access_token
        self._refresh_token = tokens.refresh_token or self._refresh_token
        self.username = tokens.username or username or self.username
        self._password = password or self._password
        self._renew_at = None
        if tokens.expires_in > 0:
            margin_s = min(REFRESH_BEFORE_S, tokens.expires_in * REFRESH_PART)
            self._renew_at = time.monotonic() + tokens.expires_in - margin_s
        self.version += 1
        return tokens

    def forget(self) -> None:
        """Be nobody."""
        self.username = self._password = self._token = self._refresh_token = self.api_key = None
        self._renew_at = None
        self.version += 1

    def note_limit(self, headers: Mapping[str, str]) -> None:
        """Keep what an answer says of the sender's limit, where it says something."""
        try:
            limit, remaining = int(headers["x-ratelimit-limit"]), int(headers["x-ratelimit-remaining"])
            self.rate_limit = RateLimit(limit, remaining, float(headers["x-ratelimit-reset"]))
        except (KeyError, ValueError):  # free of limits, or another server
            return

    def headers(self) -> dict[str, str]:
        if self.api_key:
            return {"X-API-Key": self.api_key}
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def renewals(self) -> list[Call[Tokens]]:
        """Return what may give a new token, the cheapest first."""
        ways: list[Call[Tokens]] = []
        if self.api_key:
            return ways
        if self._refresh_token:
            ways.append(calls.refresh(self._refresh_token))
        if self.username and self._password:
            ways.append(calls.login(self.username, self._password))
        return ways


def call(wanted: Call[T], session: Session, retries: Retries) -> Flow[T]:
    """Make a call: credentials renewed when due, failures repeated where that is harmless."""
    attempt = 0
    while True:
        try:
            return (yield from _authorized(wanted, session))
        except RouterError as error:
            wait_s = retries.wait_s(attempt, error) if _repeatable(wanted, error) else None
            if wait_s is None:
                raise
        yield Wait(wait_s)
        attempt += 1


def renew(session: Session, retries: Retries, *, seen: int | None = None) -> Flow[bool]:
    """Get a new access token, unless another did since version `seen`; return whether there is one."""
    if seen is not None and session.version != seen:
        return True
    for way in session.renewals():
        attempt = 0
        while True:
            try:
                session.take((yield from _once(way, session, {})))
                return True
            except Unauthorized:
                break  # the next way
            except RouterError as error:
                if isinstance(error, AnswerLost):  # to the log-in: the call itself was not sent
                    error = ConnectionFailed(error.message)
                wait_s = retries.wait_s(attempt, error) if _repeatable(way, error) else None
                if wait_s is None:
                    raise error from None
            yield Wait(wait_s)
            attempt += 1
    return False


def log_in(username: str, password: str, session: Session, retries: Retries) -> Flow[Tokens]:
    tokens = yield from call(calls.login(username, password), session, retries)
    return session.take(tokens, username=username, password=password)


def register(username: str, password: str, session: Session, retries: Retries) -> Flow[Tokens]:
    """Make a user; where the answer is lost, log in to see whether it was made."""
    attempt = 0
    while True:
        try:
            tokens = yield from call(calls.register(username, password), session, retries)
            return session.take(tokens, username=username, password=password)
        except (AnswerLost, Unavailable) as error:
            wait_s = retries.wait_s(attempt, error)
            if wait_s is None:
                raise
        yield Wait(wait_s)
        attempt += 1
        with contextlib.suppress(Unauthorized):
            return (yield from log_in(username, password, session, retries))


def place_order(new: NewOrder, session: Session, retries: Retries) -> Flow[Order]:
    """Place an order once, whatever happens to the answers: its token id tells whether it arrived."""
    return (yield from _place_once(calls.place_order(new), calls.order(new.token_id), new.is_that_of, session, retries))


def place_twap(new: NewTwap, session: Session, retries: Retries) -> Flow[TwapOrder]:
    """Place a TWAP order once, whatever happens to the answers."""
    return (yield from _place_once(calls.place_twap(new), calls.twap(new.token_id), new.is_that_of, session, retries))


def recover_order(new: NewOrder, session: Session, retries: Retries) -> Flow[Order]:
    """Ask for an order whose answer was lost elsewhere, and place it if it never arrived.

    Raises:
        DuplicateTokenId: the token id belongs to another order.
    """
    try:
        found = yield from call(calls.order(new.token_id), session, retries)
    except NotFound:
        return (yield from place_order(new, session, retries))
    return _same(new.is_that_of, found)


def amend_order(token_id: str, change: Change, session: Session, retries: Retries) -> Flow[Order]:
    """Change an order; after a lost answer look first whether it is changed already."""
    return (
        yield from _until_seen(
            calls.amend_order(token_id, change), calls.order(token_id), change.is_done, session, retries
        )
    )


def cancel_order(token_id: str, session: Session, retries: Retries) -> Flow[Order]:
    """Cancel an order; after a lost answer look first whether it is cancelled already."""
    return (
        yield from _until_seen(calls.cancel_order(token_id), calls.order(token_id), _is_cancelled, session, retries)
    )


def stop_twap(order_id: str, session: Session, retries: Retries) -> Flow[TwapOrder]:
    """Stop a TWAP order; after a lost answer look first whether it is stopped already."""
    return (yield from _until_seen(calls.stop_twap(order_id), calls.twap(order_id), _is_cancelled, session, retries))


def recover_amend(token_id: str, change: Change, session: Session, retries: Retries) -> Flow[Order]:
    """Ask whether a change whose answer was lost elsewhere was made, and make it if not."""
    order = yield from call(calls.order(token_id), session, retries)
    return order if change.is_done(order) else (yield from amend_order(token_id, change, session, retries))


def recover_cancel(token_id: str, session: Session, retries: Retries) -> Flow[Order]:
    """Ask whether an order whose cancellation's answer was lost elsewhere is cancelled, and cancel it if not."""
    order = yield from call(calls.order(token_id), session, retries)
    return order if _is_cancelled(order) else (yield from cancel_order(token_id, session, retries))


# -- the pieces


def _place_once(
    place: Call[Placed], ask: Call[Placed], is_ours: Callable[[Placed], bool], session: Session, retries: Retries
) -> Flow[Placed]:
    lost = False
    attempt = 0
    while True:
        try:
            return (yield from call(place, session, retries))
        except DuplicateTokenId:
            if not lost:
                raise  # its own, or another's earlier order: the caller has to know
            return _same(is_ours, (yield from call(ask, session, retries)))
        except (AnswerLost, Unavailable) as error:
            wait_s = retries.wait_s(attempt, error)
            if wait_s is None:
                raise
        lost = True
        yield Wait(wait_s)
        attempt += 1
        try:
            return _same(is_ours, (yield from call(ask, session, retries)))
        except NotFound:
            continue  # it never arrived, or is still on its way: the token id keeps it single


def _until_seen(
    change: Call[Placed], ask: Call[Placed], is_done: Callable[[Placed], bool], session: Session, retries: Retries
) -> Flow[Placed]:
    attempt = 0
    while True:
        try:
            return (yield from call(change, session, retries))
        except Refused:
            if not attempt:
                raise
            order = yield from call(ask, session, retries)
            if not is_done(order):
                raise
            return order  # an earlier attempt did it
        except (AnswerLost, Unavailable) as error:
            wait_s = retries.wait_s(attempt, error)
            if wait_s is None:
                raise
        yield Wait(wait_s)
        attempt += 1
        order = yield from call(ask, session, retries)
        if is_done(order):
            return order


def _is_cancelled(order: Order | TwapOrder) -> bool:
    """Whether it was ended by its owner; a TWAP order may have executed a part before."""
    return order.status == "cancelled" or order.reason == "by_client"


def _same(is_ours: Callable[[Placed], bool], found: Placed) -> Placed:
    if is_ours(found):
        return found
    error = DuplicateTokenId(f"the token id {found.token_id!r} belongs to another order", code="duplicate_token_id")
    error.order = found if isinstance(found, Order) else None
    raise error


def _repeatable(wanted: Call[Any], error: RouterError) -> bool:
    if isinstance(error, AnswerLost | Unavailable):
        return wanted.repeat is Repeat.SAFE
    return isinstance(error, ConnectionFailed | TooManyRequests)


def _authorized(wanted: Call[T], session: Session) -> Flow[T]:
    if wanted.public:
        return (yield from _once(wanted, session, session.headers()))
    if session.is_due:
        yield Renew(session.version)
    seen = session.version
    try:
        return (yield from _once(wanted, session, session.headers()))
    except Unauthorized:
        # Refused before anything was done, so it may be sent again with a new token.
        if not (yield Renew(seen)):
            raise
    return (yield from _once(wanted, session, session.headers()))


def _once(wanted: Call[T], session: Session, credentials: Mapping[str, str]) -> Flow[T]:
    headers = {"Accept": "application/json", **credentials}
    if wanted.answer is str:
        headers["Accept"] = "*/*"
    body = None
    if wanted.body is not None:
        body = wire.encode(wanted.body)
        headers["Content-Type"] = "application/json"
    answer: Answer = yield Send(wanted.method, wanted.path, wanted.params, headers, body)
    session.note_limit(answer.headers)
    if not 200 <= answer.status < 300:
        raise error_for(answer.body, status=answer.status, headers=answer.headers)
    return _read(wanted, answer)


def _read(wanted: Call[T], answer: Answer) -> T:
    kind: Any = wanted.answer
    if kind is bytes:
        raw: Any = answer.body
        return raw  # type: ignore[no-any-return]
    if kind is str:
        text: Any = answer.body.decode("utf-8", "replace")
        return text  # type: ignore[no-any-return]
    try:
        return wire.decode(answer.body, wanted.answer)
    except msgspec.DecodeError as error:
        raise UnexpectedAnswer(
            f"{wanted.method} {wanted.path} answered what this client cannot read: {error}", status=answer.status
        ) from None
