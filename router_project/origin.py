"""Refuses WebSocket handshakes from foreign web pages; clients that are no browsers send no Origin."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host

App = Callable[[Any, Any, Any], Awaitable[None]]


class OriginChecked:
    """Lets a handshake through when its Origin is absent, an allowed host or an allowed CORS origin."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        origin = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), None)
        if origin is None or _allowed(origin):
            await self._app(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "origin not allowed"})


def _allowed(origin: str) -> bool:
    if origin in settings.CORS_ALLOWED_ORIGINS:
        return True
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return host is not None and validate_host(host, settings.ALLOWED_HOSTS)
