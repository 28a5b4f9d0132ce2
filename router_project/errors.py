"""Every error as the contract shapes it: `{"detail", "message", "code"}`, for every path and status.

The one place where an exception becomes a status. `answer_for` serves every road to a client:
REST framework (`exception_handler`), Django's own pages (`handler…`, `JsonErrors`) and plain ASGI.
"""

import errno
import sys
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from django.conf import settings
from django.core.exceptions import DisallowedHost, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from msgspec import Struct
from rest_framework import exceptions
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.response import Response

from accounts.limits import RateLimited
from core import strict_json
from core.errors import DomainError, Invalid, Malformed, NotFound, Refused, TooLarge, Unauthorized, Unavailable

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=HttpResponseBase)

JSON = "application/json"
RETRY_AFTER_S = 1
UNPROCESSABLE = 422
STORAGE_FULL = 507
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})

STATUS: tuple[tuple[type[DomainError], int], ...] = (  # the first that fits
    (Invalid, UNPROCESSABLE),
    (Malformed, 400),
    (TooLarge, 413),
    (Unauthorized, 401),
    (NotFound, 404),
    (Unavailable, 503),
    (RateLimited, 429),
    (Refused, 400),
    (DomainError, 400),
)
CODES = {
    400: "bad_request",
    401: Unauthorized.code,
    403: "forbidden",
    404: NotFound.code,
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout",
    413: TooLarge.code,
    415: "unsupported_media_type",
    UNPROCESSABLE: Invalid.code,
    429: "rate_limited",
    431: "headers_too_large",
    500: "internal",
    503: Unavailable.code,
    STORAGE_FULL: "storage_full",
}
WORDS = {
    404: "there is nothing at this address; GET /openapi.json lists the routes",
    405: "this address does not take this method",
    413: "the body is larger than 64 KiB",
    500: "the server failed on this request; it was noted",
}


class Answer(Struct, frozen=True):
    """An error as it goes to a client."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]

    def json(self) -> bytes:
        return strict_json.dumps(self.body)


def answer(
    status: int,
    message: str = "",
    *,
    code: str = "",
    detail: Any = None,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Answer:
    """Return an error of a status; `details` are further members of its body."""
    message = message or WORDS.get(status) or _phrase(status)
    body = {
        **(details or {}),
        "detail": message if detail is None else detail,
        "message": message,
        "code": code or CODES.get(status, "error"),
    }
    headers = dict(headers or {})
    if status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    if status in (429, 503):
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Answer(status, body, headers)


def answer_for(error: BaseException, *, place: str = "body") -> Answer | None:
    """Return what a client is told about an exception; None when it is a fault of ours (500).

    `place` is where the request's values are: "body" or "query".
    """
    if isinstance(error, DomainError):
        return _domain(error)
    if isinstance(error, exceptions.APIException):
        return _framework(error, place)
    if isinstance(error, Http404):
        return answer(404)
    if isinstance(error, PermissionDenied):
        return answer(403, str(error))
    if isinstance(error, RequestDataTooBig):
        return answer(413)
    if isinstance(error, RecursionError):
        return answer(400, "nested too deep", code=Malformed.code)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return answer(STORAGE_FULL, "the server's disk is full")
    return _database(error)


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """REST framework's hook."""
    request = context.get("request")
    place = "body" if request is None or request.method in BODY_METHODS else "query"
    found = answer_for(error, place=place)
    if found is None:
        return None
    if found.status >= 500 and not isinstance(error, DomainError):
        log.warning("a request could not be served", status=found.status, error=type(error).__name__)
    return _known(Response(found.body, status=found.status, headers=found.headers))


class JsonErrors:
    """Outermost middleware: turns what Django or a package says in HTML or not at all into JSON."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        if response.status_code < 400 or _is_json(response) or _is_page(response):
            return response
        if settings.DEBUG and "text/html" in request.headers.get("Accept", ""):
            return response  # Django's page for developers
        kept = {name: response[name] for name in ("Allow", "Retry-After", "WWW-Authenticate") if name in response}
        return _response(answer(response.status_code, headers=kept))

    def process_exception(self, _request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer what a plain Django view raised."""
        found = None if isinstance(error, Http404 | PermissionDenied) else answer_for(error)
        return None if found is None else _known(_response(found))


def bad_request(_request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if isinstance(exception, DisallowedHost):
        message = "this server does not answer to this Host; its operator can add it to ALLOWED_HOSTS"
        return _response(answer(400, message, code="bad_host"))
    message = str(exception) if isinstance(exception, SuspiciousOperation) else ""
    return _response(answer(400, message))


def permission_denied(_request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _response(answer(403))


def not_found(_request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _response(answer(404))


def server_error(_request: HttpRequest) -> HttpResponse:
    """Answer an exception that reached Django: a dependency that is down, or a fault of ours."""
    error = sys.exc_info()[1]
    return _response((error and answer_for(error)) or answer(500))


def csrf_failure(_request: HttpRequest, reason: str = "") -> HttpResponse:
    return _response(answer(403, reason, code="csrf_failed"))


# -- each family of exceptions


def _domain(error: DomainError) -> Answer:
    status = next(status for kind, status in STATUS if isinstance(error, kind))
    details = dict(error.details)
    headers = {}
    if "retry_after" in details:
        headers["Retry-After"] = str(details.pop("retry_after"))
    detail = None
    message = error.message
    if isinstance(error, Invalid):
        detail = [{"loc": list(error.loc), "msg": message, "type": error.kind}]
        message = _line(detail[0])
    return answer(status, message, code=error.code, detail=detail, headers=headers, details=details)


def _framework(error: exceptions.APIException, place: str) -> Answer:
    headers = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    if isinstance(error, exceptions.ValidationError):
        detail = list(_flat(error.detail, (place,)))
        return answer(UNPROCESSABLE, "; ".join(map(_line, detail[:3])), detail=detail)
    if isinstance(error, exceptions.Throttled):
        wait = getattr(error, "wait", None)
        wait_s = max(1, round(wait + 0.5)) if wait else RETRY_AFTER_S
        return answer(429, f"too many requests; try again in {wait_s} s", headers={"Retry-After": str(wait_s)})
    if isinstance(error, exceptions.AuthenticationFailed | exceptions.NotAuthenticated):
        return answer(401, str(error.detail), headers=headers)
    code = Malformed.code if isinstance(error, exceptions.ParseError) else ""
    message = WORDS.get(error.status_code, "") if isinstance(error, exceptions.NotFound) else str(error.detail)
    return answer(error.status_code, message, code=code, headers=headers)


def _flat(detail: Any, loc: tuple[str | int, ...]) -> Iterator[dict[str, Any]]:
    """Yield REST framework's nested messages one by one, each with its place."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flat(inner, loc if name == "non_field_errors" else (*loc, name))
    elif isinstance(detail, list | tuple):
        for position, inner in enumerate(detail):
            if isinstance(inner, Mapping | list):
                yield from _flat(inner, (*loc, position)) if inner else ()
            else:
                yield from _flat(inner, loc)
    else:
        yield {"loc": list(loc), "msg": str(detail), "type": getattr(detail, "code", "value_error")}


def _line(item: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"][1:])
    return f"{place}: {item['msg']}" if place else str(item["msg"])


def _database(error: BaseException) -> Answer | None:
    if isinstance(error, OperationalError | InterfaceError):
        if _is_disk_full(error):
            return answer(STORAGE_FULL, "the server's disk is full")
        return answer(503, "the database does not answer; try again in a moment")
    if isinstance(error, DataError):
        return answer(400, "a value does not fit", code=Refused.code)
    if isinstance(error, IntegrityError):
        return answer(409, "the request meets another one; look at the present state and try again", code="conflict")
    return None


def _is_disk_full(error: BaseException) -> bool:
    cause = error.__cause__
    return "disk is full" in str(error) or getattr(cause, "sqlstate", None) == "53100"


def _is_json(response: HttpResponseBase) -> bool:
    return str(response.get("Content-Type", "")).startswith(JSON)


def _is_page(response: HttpResponseBase) -> bool:
    """Tell the browsable API's answer to a browser, which is the error in HTML."""
    return isinstance(getattr(response, "accepted_renderer", None), BrowsableAPIRenderer)


def _response(found: Answer) -> HttpResponse:
    return HttpResponse(found.json(), status=found.status, content_type=JSON, headers=found.headers)


def _known(response: R) -> R:
    """Keep an expected 503 out of Django's log of faults: a flood of them would fill it."""
    response._has_been_logged = True  # type: ignore[attr-defined]  # what django.utils.log.log_response looks at
    return response


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return "error"
