"""The two routes that bots call all the time, answered before Django: POST /orders and GET /balance.

Same readers, same exchange, same errors and same words as the documented views, which answer
whatever these leave alone: browsers, cookies, other credentials, web pages' origins. Django's
handler and REST framework cost ten times what the order itself does.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from accounts.services import Bearer, bearer_of_token
from core import strict_json
from core.errors import Invalid
from router_project.errors import JSON, Answer, answer, answer_for
from trading import reader, services, wire
from trading.commands import Place, read_terms
from trading.exchange import Done

log = structlog.get_logger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
Handler = Callable[[Bearer, bytes], Awaitable[tuple[int, Any]]]

JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
LEFT_TO_DJANGO = frozenset({b"cookie", b"origin", b"x-api-key", b"x-token-id", b"x-http-method-override"})
HOSTS_KEPT_MAX = 1_000
HOST_LENGTH_MAX = 255  # of those


class HotRoutes:
    """Answers the hot routes for bearers of tokens; hands everything else on."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._hosts: set[bytes] = set()  # that are ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            handler = HANDLERS.get((scope["method"], scope["path"]))
            token = self._token(scope) if handler is not None and not scope["query_string"] else None
            if handler is not None and token is not None:
                message = await receive()
                await _send(await _answer(handler, token, message.get("body", b""), scope.get("log")), send)
                return
        await self._app(scope, receive, send)

    def _token(self, scope: Scope) -> str | None:
        """Return the bearer's token of a request that is plain enough to be answered here."""
        token: str | None = None
        content_type, host = None, b""
        for name, value in scope["headers"]:
            if name in LEFT_TO_DJANGO or (name == b"accept" and not _takes_json(value)):
                return None
            if name == b"authorization":
                scheme, _, rest = value.partition(b" ")
                if token is not None or scheme.lower() != b"bearer":
                    return None
                token = rest.strip().decode("latin-1")
            elif name == b"content-type":
                content_type = value.strip().lower()
            elif name == b"host":
                host = value
        if scope["method"] == "POST" and content_type not in JSON_TYPES:
            return None
        return token if self._is_ours(host) else None

    def _is_ours(self, host: bytes) -> bool:
        if host in self._hosts:
            return True
        domain, _ = split_domain_port(host.decode("latin-1"))
        known = bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
        if known and len(host) <= HOST_LENGTH_MAX and len(self._hosts) < HOSTS_KEPT_MAX:
            self._hosts.add(host)
        return known


async def _answer(
    handler: Handler, token: str, body: bytes, line: dict[str, Any] | None
) -> tuple[int, bytes, Mapping[str, str]]:
    try:
        bearer = bearer_of_token(token)
        if line is not None:
            line["account"] = bearer.user_id
        status, data = await handler(bearer, body)
        return status, strict_json.dumps(data), {}
    except Exception as error:
        told: Answer | None = answer_for(error)
        if told is None:
            log.exception("a hot route failed")
            told = answer(500)
        return told.status, told.json(), told.headers


async def _send(made: tuple[int, bytes, Mapping[str, str]], send: Send) -> None:
    status, body, headers = made
    extra = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", JSON.encode()),
                (b"content-length", str(len(body)).encode()),
                *SECURITY_HEADERS,
                *extra,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


async def _place_order(bearer: Bearer, body: bytes) -> tuple[int, Any]:
    data = strict_json.loads(body)
    if not isinstance(data, dict):
        raise Invalid("send a JSON object", loc=("body",))
    terms = read_terms(data, settings.CATALOGUE)
    done: Done = await services.written(services.submit(Place(bearer.user_id, terms, bearer.key)))
    return 201, wire.order(done.order, done.fills)


async def _balance(bearer: Bearer, body: bytes) -> tuple[int, Any]:
    held = await reader.balances(bearer.user_id, bearer.key)
    return 200, wire.balances(held, services.assets())


def _takes_json(accept: bytes) -> bool:
    return b"text/html" not in accept and (b"*/*" in accept or b"application/json" in accept)


HANDLERS: Mapping[tuple[str, str], Handler] = {("POST", "/orders"): _place_order, ("GET", "/balance"): _balance}
