"""Who may no longer is out: over REST at once, on open sockets within five seconds, in whatever process they are."""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.sessions import CHECK_INTERVAL_S, REVOCATION_INTERVAL_S
from tests.running import ANSWER_S, ROOT, Client, Router

pytestmark = pytest.mark.timeout(180)

CUT_OFF_S = 5.0
BUSY_S = 2.0  # what a loaded machine may add
CHANGED_S = 60.0  # until the change is made, by a process that has to start first
WAYS = ("disabled", "deleted", "another password", "key revoked")

CHANGE = """
import sys, time
import django
django.setup()
from accounts.models import ApiKey, User
from django.utils import timezone
disabled, deleted, changed, keyed = (User.objects.get(username=name) for name in sys.argv[1:])
changed.set_password("another one")
User.objects.filter(pk=disabled.pk).update(is_active=False)
ApiKey.objects.filter(user=keyed).update(revoked_at=timezone.now())
changed.save()
deleted.delete()
print(time.monotonic())
"""


class Visitor:
    """A user with a credential of the kind that will end, and a socket in each web process."""

    def __init__(self, name: str, headers: dict[str, str]) -> None:
        self.name = name
        self.headers = headers
        self.sockets: list[Any] = []

    async def statuses(self, router: Router) -> set[int]:
        """Ask by REST: the short road and Django's, reads and a write of nothing, in every web process."""
        found = set()
        for url in router.urls:
            async with httpx.AsyncClient(base_url=url, headers=self.headers, timeout=ANSWER_S) as http:
                found |= {
                    (await http.get("/balance")).status_code,
                    (await http.get("/orders")).status_code,
                    (await http.delete("/api-keys/0")).status_code,
                }
        return found


async def new_visitor(router: Router, way: str) -> Visitor:
    name = f"v{uuid.uuid4().hex[:12]}"
    headers = {"Authorization": f"Bearer {await router.register(name)}"}
    if way == "key revoked":
        async with httpx.AsyncClient(base_url=router.url, headers=headers) as http:
            made = (await http.post("/api-keys", json={})).raise_for_status()
        headers = {"X-API-Key": made.json()["api_key"]}
    visitor = Visitor(name, headers)
    for url in router.urls:
        socket = await connect(url.replace("http", "ws", 1) + "/ws", additional_headers=headers, close_timeout=2)
        visitor.sockets.append(socket)
        assert (await Client(socket).next())["auth_status"] == "authenticated"
    return visitor


async def cut_off_at(socket: Any) -> float:
    """Return when the socket was told why and closed, in monotonic seconds."""
    client = Client(socket)
    error = await client.until(lambda message: message["type"] == "error", CHANGED_S)
    assert error["code"] == "unauthorized"
    with pytest.raises(ConnectionClosed) as closed:
        await client.next()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    return time.monotonic()


def test_the_sockets_clock_leaves_room_for_its_question() -> None:
    """How long it took below depends on when the clock asked last; the longest that it may take is this and a query."""
    assert CHECK_INTERVAL_S + REVOCATION_INTERVAL_S < CUT_OFF_S


@pytest.mark.asyncio(loop_scope="module")
async def test_whoever_may_no_longer_is_out_within_five_seconds(router: Router) -> None:
    visitors = [await new_visitor(router, way) for way in WAYS]
    bystander = await new_visitor(router, "stays")
    assert [await visitor.statuses(router) for visitor in visitors] == [{200, 404}] * len(WAYS)
    waiting = [asyncio.create_task(cut_off_at(socket)) for visitor in visitors for socket in visitor.sockets]
    environment = {**os.environ, **router.environment, "DJANGO_SETTINGS_MODULE": "router_project.settings"}
    command = [sys.executable, "-c", CHANGE, *(visitor.name for visitor in visitors)]
    changed = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    for way, visitor in zip(WAYS, visitors, strict=True):
        assert await visitor.statuses(router) == {401}, way
    committed_s = float(changed.stdout)
    took_s = [await task - committed_s for task in waiting]
    assert max(took_s) < CUT_OFF_S + BUSY_S, took_s
    assert await bystander.statuses(router) == {200, 404}
    for socket in bystander.sockets:
        assert (await Client(socket).ask(action="ping"))["type"] == "pong"
        await socket.close()
