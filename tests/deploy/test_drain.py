"""A web process that is told to stop answers the request that a proxy is just sending, and then it stops."""

import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.end_to_end.conftest import environment_of
from tests.running import Process

DRAIN_S = 5.0
LONG_DRAIN_S = 12.0  # what nobody waits for on a busy machine either


@pytest_asyncio.fixture
async def web(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Process, str]]:
    with environment_of("embedded", tmp_path) as environment:
        process = Process("web", {**environment, "PORT": "0", "DRAIN_S": str(request.param)})
        await process.start()
        url = (await process.logged("listening"))["url"]
        try:
            yield process, url
        finally:
            if process.running:
                await process.stop()


@pytest.mark.parametrize("web", [DRAIN_S], indirect=True)
async def test_an_idle_connection_may_be_used_until_an_answer_ends_it(web: tuple[Process, str]) -> None:
    process, url = web
    busy, idle, silent = [await _connected(url) for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    _until_refused(url)
    while not _asked(busy):  # until the process has told its connections that it stops
        pass
    assert _asked(idle), "its first answer since is its last"
    began_s = time.monotonic()
    assert await process.ended() == 0
    assert 1 < time.monotonic() - began_s < DRAIN_S + 4, "the silent one had its time, and no more"
    assert silent.sock is not None
    assert silent.sock.recv(1) == b""


@pytest.mark.parametrize("web", [LONG_DRAIN_S], indirect=True)
async def test_it_stops_at_once_when_the_proxy_has_ended_its_connections(web: tuple[Process, str]) -> None:
    process, url = web
    connection = await _connected(url)
    began_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _until_refused(url)
    connection.close()
    assert await process.ended() == 0
    assert time.monotonic() - began_s < LONG_DRAIN_S


@pytest.mark.parametrize("web", [0], indirect=True)
async def test_without_a_proxy_nobody_waits_for_idle_connections(web: tuple[Process, str]) -> None:
    process, url = web
    connection = await _connected(url)
    began_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert time.monotonic() - began_s < DRAIN_S
    assert connection.sock is not None
    assert connection.sock.recv(1) == b""


async def _connected(url: str) -> HTTPConnection:
    """Return a connection that has had an answer and is kept."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=5)
    assert not _asked(connection)
    return connection


def _asked(connection: HTTPConnection) -> bool:
    """Ask, be answered, and return whether that was the connection's last answer."""
    connection.request("GET", "/health")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["status"]) == (200, "ok")
    return answer.getheader("Connection") == "close"


def _until_refused(url: str) -> None:
    """Wait until it listens no more."""
    address = urlsplit(url)
    end_s = time.monotonic() + 5
    while time.monotonic() < end_s:
        try:
            socket.create_connection((address.hostname, address.port), 1).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.01)
    raise AssertionError("it still listens")
