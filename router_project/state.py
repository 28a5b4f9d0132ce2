"""Whether a process is ready, and what one without the web role tells of itself: /health, /ready and /metrics."""

import asyncio
from typing import Any

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, Error, connection, connections
from django.db.migrations.executor import MigrationExecutor
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from core import strict_json
from core.errors import Unavailable
from marketdata import services
from router_project.errors import JSON, answer, answer_for
from router_project.guard import App, Guard, Receive, Scope, Send


class NotReady(Unavailable):
    code = "not_ready"


class Readiness:
    """What must be so before a process does its work. Belongs to one event loop."""

    def __init__(self, *, hears_feeds: bool) -> None:
        self.hears_feeds = hears_feeds
        self._awaited: list[tuple[asyncio.Event, str]] = []

    def wait_for(self, problem: str) -> asyncio.Event:
        """Return an event without which the process is not ready; `problem` says what is missing until it is set."""
        event = asyncio.Event()
        self._awaited.append((event, problem))
        return event

    async def problem(self, *, besides: asyncio.Event | None = None) -> str | None:
        """Return what is missing, None when the process is ready; `besides` is not looked at."""
        for event, problem in self._awaited:
            if event is not besides and not event.is_set():
                return problem
        try:
            tables = await database_sync_to_async(database_problem, thread_sensitive=False)()
        except Error:
            return "the database does not answer"
        return tables or (await services.feeds_problem() if self.hears_feeds else None)


_migrated = False  # once they are in place, tables stay


def database_problem() -> str | None:
    """Return what is wrong with the database's tables, None when they are up to date. Asks the database."""
    global _migrated
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    if not _migrated:
        executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return "the database's tables are not up to date; run manage.py migrate"
        _migrated = True
    return None


def state_application(readiness: Readiness) -> App:
    """Return the ASGI application of a process that serves nobody but who watches it."""

    async def health() -> tuple[str, bytes]:
        return JSON, strict_json.dumps({"status": "ok", "paper": True, "version": settings.VERSION})

    async def ready() -> tuple[str, bytes]:
        problem = await readiness.problem()
        if problem is not None:
            raise NotReady(f"not ready: {problem}", retry_after=1)
        return JSON, strict_json.dumps({"status": "ready", "source": settings.MARKET_SOURCE})

    async def metrics() -> tuple[str, bytes]:
        return CONTENT_TYPE_LATEST, await services.metrics_text() if readiness.hears_feeds else generate_latest()

    routes = {"/health": health, "/ready": ready, "/metrics": metrics}

    async def application(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        route = routes.get(scope["path"])
        if route is None or scope["method"] not in ("GET", "HEAD"):
            refusal = answer(404 if route is None else 405)
            await _send(send, refusal.status, JSON, refusal.json(), refusal.headers)
            return
        try:
            content_type, body = await route()
        except Unavailable as error:
            refused = answer_for(error)
            assert refused is not None
            await _send(send, refused.status, JSON, refused.json(), refused.headers)
        else:
            await _send(send, 200, content_type, body)

    return Guard(application)


async def _send(send: Send, status: int, content_type: str, body: bytes, extra: Any = None) -> None:
    headers = {"Content-Type": content_type, "Content-Length": str(len(body)), **(extra or {})}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
