"""A running router for the tests: real processes, real sockets, and a client for its WebSocket."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
START_S = float(os.environ.get("TEST_START_S", "30"))  # a machine that does much else needs longer
STOP_S = 15.0
ANSWER_S = 10.0
LOG_LINES_KEPT = 2_000
FAULTS_KEPT = 20
REQUESTS = ("request", "proxied")  # a line for each of them: a log of their own
STARTED = {  # what a role without a port logs
    "feeds": "feeds start",
    "consolidator": "feeds start",
    "matcher": "the matcher knows the open orders",
}

Message = dict[str, Any]


class Process:
    """One `manage.py run_router`, or another command, its log read as it is written; options may follow the roles."""

    def __init__(
        self,
        roles: str,
        environment: Mapping[str, str],
        *arguments: str,
        command: str = "run_router",
        under: Sequence[str] = (),  # what runs it, and becomes it
    ) -> None:
        self.roles, *options = roles.split()
        self._under = under
        self.log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._command = (command, "--roles", self.roles, *options) if command == "run_router" else (command,)
        self.events: deque[Message] = deque(maxlen=LOG_LINES_KEPT)  # of lines that are objects
        self.placed: list[Message] = []  # those that tell of a supervised process, all of them
        self.faults: list[str] = []  # the first lines that tell of an exception, or of something that is wrong
        self.environment = {**os.environ, **environment, "LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._under, sys.executable, "manage.py", *self._command, *self._arguments,
            cwd=ROOT, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=2**20,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())

    async def logged(self, event: str, timeout_s: float = START_S, **fields: Any) -> Message:
        """Wait for a log line with this event, and these fields, and return it."""
        wanted = {"event": event, **fields}.items()

        def found() -> Message | None:
            return next((line for line in self.events if wanted <= line.items()), None)

        assert self._reader is not None
        async with self._news:
            try:
                async with asyncio.timeout(timeout_s):
                    while (line := found()) is None:
                        if self._reader.done():
                            raise AssertionError(f"the process ended:\n{self.tail()}")
                        await self._news.wait()
            except TimeoutError:
                raise AssertionError(f"no {event!r} in the log:\n{self.tail()}") from None
            return line

    async def ended(self, timeout_s: float = STOP_S) -> int:
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    def send_signal(self, signum: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def stop(self) -> int:
        """Ask it to end, and wait."""
        self.send_signal(signal.SIGTERM)
        try:
            return await self.ended()
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            await self.ended()
            raise AssertionError(f"it did not end on SIGTERM:\n{self.tail()}") from None

    def tail(self) -> str:
        """Return the log's last lines, without those that tell of a request each."""
        told = [line for line in self.log if (_json(line) or {}).get("event") not in REQUESTS]
        return "\n".join(told[-40:])

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._news:
                text = line.decode(errors="replace").rstrip()
                self.log.append(text)
                if _is_fault(text) and len(self.faults) < FAULTS_KEPT:
                    self.faults.append(text)
                if (event := _json(text)) is not None and event.get("event") not in REQUESTS:
                    self.events.append(event)
                    if "place" in event:
                        self.placed.append(event)
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


async def rerun(folder: str | Path, environment: Mapping[str, str], *options: str) -> Message:
    """Run a recording again, beside the database of this environment, and return what `manage.py rerun` tells."""
    options = options or ("--against-database",)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", "rerun", str(folder), "--json", *options,
        cwd=ROOT, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await process.communicate()
    assert out, error.decode()
    return {**json.loads(out), "exit_code": process.returncode}


class Router:
    """One router over its processes: the embedded one, or each role in its own."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        roles: tuple[str, ...],
        under: Sequence[str] = (),
        start_s: float = START_S,
    ) -> None:
        self.environment = dict(environment)
        self.under = under
        self.start_s = start_s
        self.roles = roles
        self.processes: list[Process] = []
        self.urls: list[str] = []  # of the web processes

    @property
    def url(self) -> str:
        return self.urls[0]

    async def start(self) -> None:
        self.urls = []
        self.processes = [Process(roles, {**self.environment, "PORT": "0"}, under=self.under) for roles in self.roles]
        for process in self.processes:  # the first one migrates before the others look at the tables
            await process.start()
            if "web" in process.roles:
                self.urls.append((await process.logged("listening", self.start_s))["url"])
            else:
                await process.logged(STARTED[process.roles])

    async def stop(self) -> None:
        results = await asyncio.gather(*(process.stop() for process in self.processes), return_exceptions=True)
        self.processes = []
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def kill(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
        await asyncio.gather(*(process.ended() for process in self.processes))
        self.processes = []

    async def kill_one(self, number: int) -> None:
        """Kill one process and wait for its end."""
        self.processes[number].send_signal(signal.SIGKILL)
        await self.processes[number].ended()

    async def register(self, username: str = "alice") -> str:
        """Make the user, or log in, and return the access token."""
        body = {"username": username, "password": "password123"}
        async with httpx.AsyncClient(base_url=self.url, timeout=ANSWER_S) as http:
            answer = await http.post("/register", json=body)
            if answer.status_code == 400:
                answer = await http.post("/login", json=body)
            return str(answer.raise_for_status().json()["access_token"])

    @contextlib.asynccontextmanager
    async def client(self, token: str | None = None, *, web: int = 0, path: str = "/ws") -> AsyncIterator["Client"]:
        """Connect as the owner of the token, or as nobody."""
        url = self.urls[web].replace("http", "ws", 1) + path + (f"?token={quote(token)}" if token else "")
        async with connect(url, compression=None, max_queue=None, close_timeout=2) as socket:
            yield Client(socket)


class Client:
    """What the server said, in order, and ways to wait for it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def next(self, timeout_s: float = ANSWER_S) -> Message:
        """Return the next message; numbers with a point are exact decimals."""
        async with asyncio.timeout(timeout_s):
            message: Message = json.loads(await self.socket.recv(), parse_float=Decimal)
        self.messages.append(message)
        return message

    async def until(self, wanted: Callable[[Message], bool], timeout_s: float = ANSWER_S) -> Message:
        """Read on until a message is the wanted one, and return it."""
        async with asyncio.timeout(timeout_s):
            while not wanted(message := await self.next(timeout_s)):
                pass
            return message

    async def ask(self, **message: Any) -> Message:
        """Send a command and return its answer, known by its id."""
        await self.send(id="asked", **message)
        return await self.until(lambda answer: answer.get("id") == "asked")

    async def during(self, seconds: float) -> list[Message]:
        """Return all that comes in a time."""
        before = len(self.messages)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self.next(seconds + 1)
        return self.messages[before:]


def _is_fault(line: str) -> bool:
    """Tell a traceback, also one of the log itself, and what is logged as an error."""
    return "Traceback (most recent" in line or '"level": "error"' in line or '"level": "critical"' in line


def _json(line: str) -> Message | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
