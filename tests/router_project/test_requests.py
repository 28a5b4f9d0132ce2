"""Every request has an id, on its line in the log and in its answer, and the line says whose it was."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.end_to_end.conftest import environment_of
from tests.running import Message, Process

MADE = re.compile(r"[0-9a-f]{32}")
LOGGED_S = 5.0


class Web:
    """A web process, and its log."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url
        self.http = httpx.AsyncClient(base_url=url)

    async def line(self, wanted: Callable[[Message], bool]) -> Message:
        """Wait for a line of the log and return it."""
        async with asyncio.timeout(LOGGED_S):
            while True:
                for text in self.process.log:
                    line = json.loads(text) if text.startswith("{") else {}
                    if line and wanted(line):
                        return dict(line)
                await asyncio.sleep(0.02)

    async def of(self, answer: httpx.Response) -> Message:
        """Return the line of an answered request."""
        request_id = answer.headers["X-Request-Id"]
        line = await self.line(lambda line: line["event"] == "request" and line["request_id"] == request_id)
        assert line["status"] == answer.status_code
        assert (line["method"], line["path"]) == (answer.request.method, answer.request.url.path)
        assert (line["address"], line["level"]) == ("127.0.0.1", "info")
        assert 0 < line["seconds"] < 30
        return line

    async def user(self, name: str) -> tuple[int, str]:
        body = {"username": name, "password": "password123"}
        made = (await self.http.post("/register", json=body)).raise_for_status().json()
        return made["user_id"], made["access_token"]


@pytest_asyncio.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    with environment_of("embedded", tmp_path) as environment:
        process = Process("web", {**environment, "PORT": "0"})
        await process.start()
        web = Web(process, (await process.logged("listening"))["url"])
        try:
            async with web.http:
                yield web
        finally:
            await process.stop()


async def test_the_line_tells_whose_request_it_was_on_every_road(web: Web) -> None:
    user_id, token = await web.user("alice")
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await web.of(await web.http.get("/balance", headers=bearer)))["account"] == user_id  # before Django
    assert (await web.of(await web.http.get("/orders", headers=bearer)))["account"] == user_id  # REST framework
    key = (await web.http.post("/api-keys", headers=bearer, json={})).raise_for_status().json()["api_key"]
    assert (await web.of(await web.http.get("/balance", headers={"X-API-Key": key})))["account"] == user_id
    for path in ("/info", "/", "/nowhere", "/balance"):
        assert "account" not in await web.of(await web.http.get(path)), path
    too_large = await web.http.post("/orders", content=b"x" * 70_000, headers=bearer)  # before anybody looked
    assert (too_large.status_code, "account" in await web.of(too_large)) == (413, False)


async def test_the_senders_id_is_taken_when_it_is_a_plain_word(web: Web) -> None:
    for given in ("abc-1.2_3", "x" * 64):
        answer = await web.http.get("/info", headers={"X-Request-Id": given})
        assert answer.headers.get_list("X-Request-Id") == [given]
        await web.of(answer)
    for given in ("x" * 65, "two words", '{"a":1}', "", "tab\there", "ä"):
        answer = await web.http.get("/info", headers={"X-Request-Id": given.encode()})
        (made,) = answer.headers.get_list("X-Request-Id")
        assert MADE.fullmatch(made), given
        await web.of(answer)


async def test_a_socket_has_its_line_when_it_ends_and_no_token_in_it(web: Web) -> None:
    user_id, token = await web.user("bob")
    url = f"{web.url.replace('http', 'ws', 1)}/ws?token={token}"
    async with connect(url, additional_headers={"X-Request-Id": "socket-1"}) as socket:
        assert socket.response is not None
        assert socket.response.headers["X-Request-Id"] == "socket-1"
        assert json.loads(await socket.recv())["type"] == "info"
        metrics = (await web.http.get("/metrics")).text
        assert "websockets_open 1.0" in metrics
    line = await web.line(lambda line: line["event"] == "socket")
    assert (line["request_id"], line["account"], line["opened"], line["code"]) == ("socket-1", user_id, True, 1000)
    assert line["path"] == "/ws"
    assert not any(token in text for text in web.process.log)
    metrics = (await web.http.get("/metrics")).text
    assert "websockets_open 0.0" in metrics
    assert 'websockets_ended_total{code="1000"} 1.0' in metrics
    for code in (3000, 4321, 4999):  # chosen by the client: not one metric for each
        async with connect(url) as socket:
            await socket.recv()
            await socket.close(code)
        await web.line(lambda line, code=code: line["event"] == "socket" and line["code"] == code)  # type: ignore[misc]
    assert 'websockets_ended_total{code="private"} 3.0' in (await web.http.get("/metrics")).text
    assert re.search(r'http_requests_total\{method="POST",status="201"\} 1\.0', metrics)


async def test_what_machines_ask_all_the_time_is_not_logged(web: Web) -> None:
    for path in ("/health", "/metrics"):
        assert (await web.http.get(path)).status_code == 200
    not_ready = await web.http.get("/ready")
    assert (await web.of(not_ready))["status"] == 503
    paths = {json.loads(text).get("path") for text in web.process.log if text.startswith("{")}
    assert not paths & {"/health", "/metrics"}
