"""What happens to every HTTP request before a view sees it."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import SimpleLazyObject, empty
from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]
from whitenoise.responders import StaticFile  # type: ignore[import-untyped]

STATIC = "/static/"
OWN_SLASHES = ("/admin/", STATIC)  # these make their own URLs
# Scripts from files of ours alone: what somebody smuggles into a page does not run, and nothing leaves for elsewhere.
CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI and Redoc write styles into their elements
        "img-src 'self' data:",
        "worker-src 'self' blob:",  # Redoc's search
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


class AccountNamed:
    """Tells the request's line in the log whose it was, where a view or a middleware found that out."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        user = getattr(request, "user", None)
        told = getattr(request, "scope", {}).get("log")
        if told is not None and user is not None and not _unasked(user) and user.is_authenticated:
            told["account"] = user.pk
        return response


def _unasked(user: object) -> bool:
    """Return whether nobody asked for the session's user; asking now would cost a query."""
    return isinstance(user, SimpleLazyObject) and user.__dict__.get("_wrapped") is empty


class BrowserRules:
    """Tells browsers what our pages may do, and everybody that answers are not kept: most are somebody's own."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        response.headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
        if not request.path_info.startswith(STATIC):
            response.headers.setdefault("Cache-Control", "no-store")
        return response


class TrailingSlash:
    """Serves /orders/ as /orders, without a redirect that would lose a POST's body.

    Not for a DELETE of a whole collection: /orders/ with an empty id must never mean all orders.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        path = request.path_info
        if path == "/admin" and request.method in ("GET", "HEAD"):
            return HttpResponseRedirect("/admin/")
        if len(path) > 1 and path.endswith("/") and not path.startswith(OWN_SLASHES):
            bare = path[:-1]
            if request.method != "DELETE" or bare.count("/") > 1:
                request.path_info = bare
                request.path = request.path[:-1]
        return self._get_response(request)


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]
    """Serves the packages' own assets. They are small: read at once, where a stream would pass through a thread."""

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        found = static_file.get_response(request.method, request.META)
        content = b""
        if found.file is not None:
            with found.file:
                content = found.file.read()
        response = HttpResponse(content, status=int(found.status))
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response
