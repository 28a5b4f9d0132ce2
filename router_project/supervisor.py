"""Keeps processes running: starts them, replaces them without a gap, starts again what ended, stops in order.

A place of the profile holds one process at a time. It owns the bound socket that the process serves
on: a replacement listens on the same one before the old process stops, so that no connection is
refused or lost in between. A process that ends unasked takes the socket with it, so that a proxy
is refused at once and asks another; its follower gets a new one on the same port. The follower is
the spare process, which has loaded the program already: that takes longer than all the rest.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

START_S = 60.0  # until a process is ready
STOP_S = 20.0  # then it is killed
RESTART_S = 0.1  # before the next one; doubled each time, up to
RESTART_MAX_S = 10.0
STEADY_S = 5.0  # a process that lived so long starts the doubling anew
POLL_S = 0.05

TOLD_MAX = 64 * 1024  # bytes; what a spare process is told fits a Unix socket's buffer

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

Address = tuple[str, int]


class NotReady(Exception):
    """A process ended, or took too long, before it was ready."""


class Running:
    """One process, which leads a group of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.began_s = time.monotonic()
        self.asked_to_stop = False
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self, signum: signal.Signals = signal.SIGTERM, timeout_s: float = STOP_S) -> None:
        """Ask it to end and wait; kill it where it does not."""
        self.asked_to_stop = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)
        try:
            async with asyncio.timeout(timeout_s):
                await self.wait()
        except TimeoutError:
            log.error("a process did not stop in time and is killed", pid=self.pid)
        self.kill()
        await self.wait()

    def kill(self) -> None:
        """Kill it, and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Spare:
    """One process that has loaded the program and waits to be told what to do. `command` starts it, given a socket.

    It knows the program as it was when the spare process was made: whoever wants a new program starts anew.
    """

    def __init__(
        self, command: Callable[[int], Sequence[str]], *, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.running: Running | None = None
        self._command = command
        self._environment = dict(environment)
        self._folder = folder
        self._telling: socket.socket | None = None
        self._changing = asyncio.Lock()

    async def prepare(self) -> None:
        """Have one process wait; without one, a place that needs it starts its own."""
        async with self._changing:
            if self.running is not None and not self.running.ended:
                return
            self._forget()
            heard: socket.socket | None = None
            try:
                self._telling, heard = socket.socketpair()
                self._telling.setblocking(False)
                self.running = await _spawn(
                    self._command(heard.fileno()), (heard.fileno(),), environment=self._environment, folder=self._folder
                )
            except (OSError, RuntimeError) as error:  # no more files, processes or threads
                self._forget()
                log.error("no spare process can be started", error=str(error))
            else:
                log.info("a spare process is started", pid=self.running.pid)
            finally:
                if heard is not None:
                    heard.close()

    def take(self, arguments: Sequence[str], files: Sequence[int]) -> Running | None:
        """Tell the waiting process its arguments, in which a file number is a place in `files`; None: nobody waits."""
        running, telling = self.running, self._telling
        if running is None or running.ended or telling is None:
            return None
        try:
            socket.send_fds(telling, [json.dumps(arguments).encode()], files)
        except OSError as error:
            log.error("the spare process does not listen", pid=running.pid, error=str(error))
            running.kill()
            return None
        finally:
            self._forget()
        running.began_s = time.monotonic()  # waiting was no life
        return running

    async def stop(self) -> None:
        """End the process that waits."""
        async with self._changing:
            running = self.running
            self._forget()
            if running is not None:
                await running.stop(signal.SIGKILL)  # it does nothing yet

    def _forget(self) -> None:
        self.running = None
        if self._telling is not None:
            self._telling.close()
            self._telling = None


def hear_arguments(heard: int) -> tuple[list[str], list[int]] | None:
    """In a spare process: wait until it is told its arguments and files; None: it is not needed any more."""
    with socket.socket(fileno=heard) as hearing:
        told, files, _, _ = socket.recv_fds(hearing, TOLD_MAX, 2)
    return (json.loads(told), list(files)) if told else None


class Place:
    """One place of the profile. `command` makes the arguments, of the socket's and the ready pipe's file numbers."""

    stop_signal = signal.SIGTERM

    def __init__(
        self,
        name: str,
        command: Callable[[int, int], Sequence[str]],
        address: Address,
        *,
        environment: Mapping[str, str],
        folder: Path,
        spare: Spare | None = None,
    ) -> None:
        self.name = name
        self.running: Running | None = None
        self._command = command
        self._spare = spare
        self._environment = dict(environment)
        self._folder = folder
        self._socket: socket.socket | None = bound(address)
        self.address: Address = self._socket.getsockname()[:2]
        self._leaving: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()  # one process at a time is started here

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Have a process here and wait until it is ready.

        Raises:
            NotReady: it ended, or needed more than `START_S`.
        """
        self.running = await self._ready_one()

    async def replace(self) -> None:
        """Have another process here; the old one stops once the new one is ready, and stays if that never is.

        Raises:
            NotReady: it never was.
        """
        async with self._changing:
            old = self.running
            self.running = await self._ready_one()
        log.info("a process was replaced", place=self.name, pid=self.running.pid, old=old and old.pid)
        if old is not None:
            leaving = asyncio.create_task(old.stop(self.stop_signal))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def keep(self) -> None:
        """Start another process whenever the present one ends unasked; until cancelled."""
        pause_s = RESTART_S
        while True:
            running = self.running
            assert running is not None
            status = await running.wait()
            if running is not self.running:
                continue  # it was replaced
            if running.asked_to_stop:
                return
            running.kill()  # what it may have left behind
            log.error("a process ended and is started again", place=self.name, pid=running.pid, status=status)
            if time.monotonic() - running.began_s > STEADY_S:
                pause_s = RESTART_S
            while self.running is running:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RESTART_MAX_S)
                try:
                    async with self._changing:
                        if self.running is running:  # nobody replaced it meanwhile
                            self._unbind()
                            self.running = await self._ready_one(self._spare)
                except (NotReady, OSError) as error:
                    log.error("a process could not be started", place=self.name, error=str(error))
            log.info("a process was started again", place=self.name, pid=self.running.pid, old=running.pid)
            if self._spare is not None:
                await self._spare.prepare()

    async def stop(self) -> None:
        """Stop the process, and those that are still leaving."""
        if self.running is not None:
            await self.running.stop(self.stop_signal)
        await asyncio.gather(*self._leaving)
        self._unbind()

    async def _ready_one(self, spare: Spare | None = None) -> Running:
        if self._socket is None:
            self._socket = bound(self.address)
        reading, writing = os.pipe()
        files = self._socket.fileno(), writing
        try:
            taken = spare.take(self._command(0, 1), files) if spare is not None else None
            running = taken or await self._spawn(self._command(*files), files)
        except OSError as error:
            os.close(reading)
            raise NotReady(f"{self.name} cannot be started: {error}") from error
        finally:
            os.close(writing)
        try:
            async with asyncio.timeout(START_S):
                told = await _first_byte(reading)
        except TimeoutError:
            told = b""
        except asyncio.CancelledError:
            await running.stop(self.stop_signal)
            raise
        if not told:
            await running.stop(self.stop_signal)
            raise NotReady(f"{self.name} ended, or was not ready within {START_S:.0f} s; its log tells why")
        return running

    async def _spawn(self, arguments: Sequence[str], files: Sequence[int] = ()) -> Running:
        return await _spawn(arguments, files, environment=self._environment, folder=self._folder)

    def _unbind(self) -> None:
        """Let go of the socket: who waits in its queue is told so, and the next process gets a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Proxy(Place):
    """A place whose process opens its port by itself, and is ready when it accepts connections."""

    stop_signal = signal.SIGQUIT  # nginx: finish what is asked

    async def _ready_one(self, spare: Spare | None = None) -> Running:
        self._unbind()  # it only held the port
        running = await self._spawn(self._command(-1, -1))
        end_s = time.monotonic() + START_S
        while not running.ended and time.monotonic() < end_s:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(*self.address)
                writer.close()
                return running
            await asyncio.sleep(POLL_S)
        await running.stop(self.stop_signal)
        raise NotReady(f"{self.name} does not listen on {self.url}")


def bound(address: Address) -> socket.socket:
    """Return a socket that holds an address and does not listen: who connects is refused, not kept waiting."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


async def _spawn(
    arguments: Sequence[str], files: Sequence[int], *, environment: Mapping[str, str], folder: Path
) -> Running:
    return Running(
        await asyncio.create_subprocess_exec(
            *arguments,
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=files,
            start_new_session=True,  # a Ctrl-C is for the supervisor, who stops all in order
            preexec_fn=_end_with_parent if _libc is not None else None,
        )
    )


async def _first_byte(reading: int) -> bytes:
    """Wait for the first byte of a pipe; none when it is closed."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(reading, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        return await reader.read(1)
    finally:
        transport.close()


def _end_with_parent() -> None:
    """In the child: end when the supervisor is killed, who cannot stop it then."""
    assert _libc is not None
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
