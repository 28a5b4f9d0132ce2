"""Child processes of a bench: started, spoken to in lines, measured from outside, always ended."""

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

ROOT = Path(__file__).parent.parent
ANSWER_S = 30.0
STOP_S = 10.0


class Failed(Exception):
    """A child ended or did not answer; the message has the end of what it wrote to stderr."""


class Child:
    """A Python process that answers in JSON lines on its stdout."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, python: str = sys.executable
    ) -> None:
        self.name = " ".join(arguments)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(
            [python, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
            text=True, cwd=ROOT, env={**os.environ, **environment},
        )  # fmt: skip
        self._observed = psutil.Process(self._process.pid)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer will say why it ended
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def answer(self, timeout_s: float = ANSWER_S) -> Any:
        """Return the next line that it writes, decoded.

        Raises:
            Failed: it ended, or wrote nothing in time.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise Failed(f"{self.name}: no answer for {timeout_s:.0f} s\n{self._complaints()}") from None
        if line is None:
            raise Failed(f"{self.name}: ended\n{self._complaints()}")
        return json.loads(line)

    def check(self) -> None:
        if self._process.poll() is not None:
            raise Failed(f"{self.name}: ended\n{self._complaints()}")

    def cpu_s(self) -> float:
        """Return the CPU time that it used so far, user and system, in seconds."""
        times = self._observed.cpu_times()
        return float(times.user + times.system)

    def cpu_share(self, duration_s: float) -> float:
        """Watch it for a while and return the share of one core that it used."""
        before_s, start_s = self.cpu_s(), time.monotonic()
        time.sleep(duration_s)
        self.check()
        return (self.cpu_s() - before_s) / (time.monotonic() - start_s)

    def memory_mb(self) -> float:
        """Return its resident memory."""
        return float(self._observed.memory_info().rss / 2**20)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _complaints(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")[-3000:]


@contextlib.contextmanager
def running(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    child = Child(arguments, environment or {})
    try:
        yield child
    finally:
        child.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(router: Child, port: int, timeout_s: float = ANSWER_S) -> None:
    """Return when the router says that it is ready: its database answers and its feeds are heard.

    Raises:
        Failed: it ended, or is not ready in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        router.check()
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):  # 503 is an OSError
            return
        time.sleep(0.05)
    raise Failed(f"{router.name}: not ready in {timeout_s:.0f} s")


@contextlib.contextmanager
def router_environment(**settings: str) -> Iterator[dict[str, str]]:
    """Give a router of the bench its own database, open sockets and no limits."""
    with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
        yield {
            "DATABASE_URL": f"sqlite:///{folder}/router.sqlite3",
            "ENV_FILE": f"{folder}/none",  # a developer's own .env does not take part
            "DJANGO_SETTINGS_MODULE": "router_project.settings",
            "RATE_LIMITS": "off",
            "WS_ANONYMOUS_MARKET_DATA": "true",
            **settings,
        }
