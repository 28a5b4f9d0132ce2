"""What can go wrong, as types: by what the server answered, or because it did not."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from msgspec import DecodeError, Struct, ValidationError

from router_client import wire
from router_client.models import Order


class RouterError(Exception):
    """Anything that this client raises about the router."""

    def __init__(self, message: str, *, code: str = "error", status: int | None = None, detail: object = None) -> None:
        """`code` is the router's stable word, `status` that of HTTP, `detail` as the router sent it."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.detail: object = message if detail is None else detail

    def __str__(self) -> str:
        return f"{self.message} ({self.code})" if self.code != "error" else self.message


class Problem(Struct, frozen=True):
    """One value that the server could not take."""

    loc: list[str | int]
    msg: str
    type: str = "value_error"

    def __str__(self) -> str:
        place = ".".join(str(part) for part in self.loc[1:])
        return f"{place}: {self.msg}" if place else self.msg


class Refused(RouterError):
    """The account or the market refuses a well-formed request; `code` says why (400)."""


class DuplicateTokenId(Refused):
    """The token id was used before, for `order`."""

    order: Order | None = None


class InvalidRequest(RouterError):
    """A value has the wrong shape (422); `problems` lists each with its place."""

    problems: tuple[Problem, ...] = ()


class Unauthorized(RouterError):
    """Credentials are missing, wrong, expired or revoked (401)."""


class Forbidden(RouterError):
    """The credentials do not reach so far (403)."""


class NotFound(RouterError):
    """No such thing, or another user's (404)."""


class TooManyRequests(RouterError):
    """Over the limit of the tier (429); `retry_after` is in seconds."""

    retry_after: float = 1.0


class ServerError(RouterError):
    """The server failed (5xx)."""


class Unavailable(ServerError):
    """Something behind the server is down (502, 503, 504, 507); `retry_after` is in seconds where it said so."""

    retry_after: float | None = None


class UnexpectedAnswer(RouterError):
    """An answer that is not what this client reads: another server, or another version."""


class ConnectionFailed(RouterError):
    """The router could not be reached, and was asked nothing."""


class AnswerLost(ConnectionFailed):
    """The request went out and no answer came: it may have been done or not. Ask before repeating it."""


class SlowConsumer(RouterError):
    """An iterator was read too slowly: it fell more items behind than it may keep. The other iterators go on."""


class StreamClosed(RouterError):
    """The client was closed while something waited on its socket."""


UNAVAILABLE = frozenset({502, 503, 504, 507})

_BY_STATUS: Mapping[int, type[RouterError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    422: InvalidRequest,
    429: TooManyRequests,
}
_BY_CODE: Mapping[str, type[RouterError]] = {  # the WebSocket has no status
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "order_not_found": NotFound,
    "invalid": InvalidRequest,
    "rate_limited": TooManyRequests,
    "too_many_requests": TooManyRequests,
    "slow_consumer": SlowConsumer,
    "unavailable": Unavailable,
    "busy": Unavailable,
    "internal": ServerError,
    "duplicate_token_id": DuplicateTokenId,
}


class _Body(Struct):
    """An error's members as they may come; none is trusted to be there."""

    message: Any = None
    code: Any = None
    detail: Any = None
    order: wire.Raw = wire.NOTHING
    retry_after: Any = None


def error_for(body: bytes, *, status: int | None = None, headers: Mapping[str, str] | None = None) -> RouterError:
    """Return the error that a body tells of, by status and code. Never raises, whatever the body is."""
    try:
        told = wire.decode(body, _Body)
    except (DecodeError, ValidationError):
        told = _Body(message=f"the server answered {status}" if status else "the server sent an error")
    code = told.code if isinstance(told.code, str) else "error"
    message = told.message if isinstance(told.message, str) else told.detail
    if not isinstance(message, str):
        message = f"the server answered {status}"
    error = _kind(status, code)(message, code=code, status=status, detail=told.detail)
    wait_s = _seconds((headers or {}).get("retry-after") or told.retry_after)
    if isinstance(error, DuplicateTokenId) and told.order:
        error.order = _order(told.order)
    elif isinstance(error, InvalidRequest):
        error.problems = tuple(_problems(told.detail))
    elif isinstance(error, Unavailable) or (isinstance(error, TooManyRequests) and wait_s is not None):
        error.retry_after = wait_s
    return error


def _kind(status: int | None, code: str) -> type[RouterError]:
    if status is None:
        return _BY_CODE.get(code, Refused)
    if code == "duplicate_token_id":
        return DuplicateTokenId
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return Unavailable if status in UNAVAILABLE else ServerError
    return Refused


def _order(raw: wire.Raw) -> Order | None:
    try:
        return wire.decode(raw, Order)
    except (DecodeError, ValidationError):
        return None


def _problems(detail: Any) -> list[Problem]:
    problems = []
    for item in detail if isinstance(detail, list) else ():
        try:
            problems.append(wire.convert(item, Problem))
        except ValidationError:
            continue
    return problems


def _seconds(value: Any) -> float | None:
    """Read Retry-After: seconds, or a date."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return max(0.0, (parsedate_to_datetime(str(value)) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
