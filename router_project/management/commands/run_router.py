"""Starts the router: the roles asked for, by default all of them in this process."""

import argparse
import asyncio
import contextlib
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from core.errors import DomainError
from gateway.protocol import RouterWebSocketProtocol
from gateway.quotas import current_quotas
from marketdata import history
from marketdata.arrivals import FrameRecorder
from marketdata.connection import reachable
from marketdata.services import current_hub, status_parts, stop_hub
from marketdata.worker import run_consolidator, run_feeds
from router_project.http_protocol import RouterHttpProtocol
from router_project.requests import watch_lag
from router_project.state import Readiness, state_application
from router_project.supervisor import hear_arguments
from trading.audit import auditor
from trading.matcher import run_matcher
from trading.services import record, start_exchange, stop_exchange

log = structlog.get_logger(__name__)

ROLES = ("web", "feeds", "matcher")  # those of a process that runs alone
CONSOLIDATOR = "consolidator"
PROBE_TIMEOUT_S = 10.0
SETTLED_AFTER_S = 2.0  # by then everything is imported and connected
SHUTDOWN_TIMEOUT_S = 5  # for what is still asked when a web process stops, beside DRAIN_S
STOP_TIMEOUT_S = SHUTDOWN_TIMEOUT_S + 3  # of a role, likewise
ACCEPTED_S = 0.05  # between the last accepted connection and its protocol
READY_POLL_S = 0.1
READY_TIMEOUT_S = 30.0  # then a web process serves what it can
WS_FRAME_MAX = 64 * 1024
WS_PING_INTERVAL_S = 20.0
CONNECTIONS_BACKLOG = 2048
SEND_BUFFER = 128 * 1024  # bytes the kernel keeps for a client that does not read
USER_TIMEOUT_MS = 10_000  # unacknowledged bytes for so long end a connection (RFC 5482)

SIMULATED_BANNER = """
  ┌──────────────────────────────────────────────────────────────────────────┐
  │  THE MARKET IS SIMULATED.  No price shown by this router is real.        │
  │  {why:<72}│
  └──────────────────────────────────────────────────────────────────────────┘
"""


class Command(BaseCommand):
    help = (
        "Run the router. Roles: web (REST and WebSockets), feeds (the venues) and matcher (resting orders);"
        " default all, in one process. Where feeds are split by --venues, one consolidator makes the candles over all."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--roles", default=",".join(ROLES), help="which roles run in this process (default: all)")
        parser.add_argument(
            "--venues",
            default=",".join(settings.VENUES),
            help="which venues the feeds of this process keep (default: all; others need a process and Redis)",
        )
        parser.add_argument(
            "--share",
            default="1/1",
            help="the instruments that this matcher leads while all live: the first half of them is 1/2 (default: all)",
        )
        parser.add_argument("--host", default=settings.HOST)
        parser.add_argument("--port", type=int, default=settings.PORT)
        parser.add_argument(
            "--state-port",
            type=int,
            default=settings.STATE_PORT,
            help="where a process without the web role answers /health, /ready and /metrics (default: nowhere)",
        )
        parser.add_argument(
            "--record",
            metavar="FOLDER",
            default=settings.RECORDING,
            help="record every order command and every venue's frame there, for `manage.py rerun` (default: nothing)",
        )
        parser.add_argument("--no-migrate", action="store_true", help="leave the database's tables as they are")
        parser.add_argument("--fd", type=int, help="a bound socket to serve on, once ready: a supervisor's")
        parser.add_argument(
            "--ready-fd", type=int, help="a pipe to write a line to once all roles work: a supervisor's"
        )
        parser.add_argument(
            "--spare",
            type=int,
            help="a socket that tells the other arguments once this process is needed: a supervisor's",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        import_module("router_project.asgi")  # else imported while the first clients wait
        if options["spare"] is not None:
            told = hear_arguments(options["spare"])
            if told is None:
                return
            (_, program, command, *arguments), files = told
            options = vars(self.create_parser(program, command).parse_args(arguments))
            options |= {name: files[options[name]] for name in ("fd", "ready_fd")}
        roles = _choices(options["roles"], (*ROLES, CONSOLIDATOR), "role")
        venues = _choices(options["venues"], tuple(settings.VENUES), "venue")
        share = _share(options["share"])
        _require_room_for_split(roles, venues, share)
        if settings.MARKET_SOURCE == "auto":
            restart_with_source(settings.VENUE_URLS)
        if not options["no_migrate"]:
            call_command("migrate", interactive=False, verbosity=0)
        try:
            history.claim_market(settings.MARKET_SOURCE)
        except DomainError as error:
            raise CommandError(error.message) from error
        if settings.MARKET_SOURCE == "simulated":
            self.stderr.write(_banner())
        recorder = _record(Path(options["record"]), roles) if options["record"] else None
        fd, host = options["fd"], options["host"]
        port = options["port"] if "web" in roles else options["state_port"]
        opened = partial(listen, host, port) if fd is None else partial(listen_on, fd)
        serves = "web" in roles or fd is not None or port != 0
        ready_fd = options["ready_fd"]
        sock = opened if serves else None
        patient = fd is not None
        _run(serve(roles, sock, venues=venues, share=share, ready_fd=ready_fd, patient=patient, recorder=recorder))


async def serve(
    roles: tuple[str, ...],
    opened: Callable[[], socket.socket] | None,
    *,
    venues: tuple[str, ...],
    share: tuple[int, int] = (1, 1),
    ready_fd: int | None = None,
    patient: bool = False,
    recorder: FrameRecorder | None = None,
) -> None:
    """Run the roles until a signal, or until one of them fails.

    `opened` makes the listening socket: of the web role, else of the process's state. A `patient`
    web process listens once it is ready, because others answer meanwhile.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    tasks: list[asyncio.Task[Any]] = []
    readiness = Readiness(hears_feeds="web" in roles or "matcher" in roles)
    if "web" in roles or "matcher" in roles:
        await current_hub()
        start_exchange(loop)
        status_parts["ledger"] = auditor().state
        await auditor().start()
    if "matcher" in roles:
        matcher_knows = readiness.wait_for("the matcher has not read the open orders yet")
        tasks.append(asyncio.create_task(run_matcher(matcher_knows, share), name="matcher"))
    if "web" in roles and opened is not None:
        serving = readiness.wait_for("not listening yet")
        if patient:
            tasks.append(asyncio.create_task(_serve_web_once_ready(opened, stop, readiness, serving), name="web"))
        else:
            tasks.append(asyncio.create_task(_serve_web(opened(), stop), name="web"))
            serving.set()
    elif opened is not None:
        server = http_server(state_application(readiness))
        tasks.append(asyncio.create_task(_serve_http(server, opened(), stop), name="state"))
    if ready_fd is not None:
        telling = asyncio.create_task(_tell_ready(readiness, ready_fd))
        telling.add_done_callback(lambda task: task.cancelled() or task.result())
    if "feeds" in roles:
        tasks.append(asyncio.create_task(run_feeds(settings.MARKET_SOURCE, venues, recorder), name="feeds"))
    if CONSOLIDATOR in roles:
        tasks.append(asyncio.create_task(run_consolidator(settings.MARKET_SOURCE), name=CONSOLIDATOR))
    tasks.append(asyncio.create_task(watch_lag(), name="lag"))
    loop.call_later(SETTLED_AFTER_S, _spare_the_collector)
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    failures = [task for task in done if task is not stopping and not task.cancelled() and task.exception()]
    # Clients first: their last orders still find a market, and somebody who writes them.
    servers = [task for task in tasks if task.get_name() in ("web", "state")]
    await _ended(servers)
    others = [task for task in tasks if task not in servers]
    for task in others:
        task.cancel()
    await _ended(others)
    await auditor().stop()
    await asyncio.to_thread(stop_exchange)
    await stop_hub()
    if recorder is not None:
        recorder.stop()
    for task in failures:
        raise CommandError(f"{task.get_name()} failed: {task.exception()}") from task.exception()


def _record(folder: Path, roles: Sequence[str]) -> FrameRecorder | None:
    """Record this process's orders from here on; return who shall record its venues' frames."""
    try:
        recording = record(folder, "router" if set(roles) >= set(ROLES) else "+".join(roles))
    except DomainError as error:
        raise CommandError(error.message) from error
    log.info("this process is recorded", folder=str(folder), life=recording.life)
    return FrameRecorder(folder, recording.life) if "feeds" in roles else None


def _spare_the_collector() -> None:
    """Leave what the start made out of later collections: each would stop the process for a tenth of a second."""
    gc.collect()
    gc.freeze()


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    if not tasks:
        return
    _, stuck = await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S + settings.DRAIN_S)
    for task in stuck:  # the loop's end cancels whatever it still waits for
        log.error("a role did not stop in time", role=task.get_name(), waits_for=str(task.get_stack(limit=1)))


async def _tell_ready(readiness: Readiness, ready_fd: int) -> None:
    """Tell the supervisor that all roles work; if they never do it hears nothing."""
    while await readiness.problem() is not None:  # noqa: ASYNC110 - others decide when
        await asyncio.sleep(READY_POLL_S)
    with contextlib.suppress(BrokenPipeError):
        os.write(ready_fd, b"ready\n")
    os.close(ready_fd)


async def _serve_web_once_ready(
    opened: Callable[[], socket.socket], stop: asyncio.Event, readiness: Readiness, serving: asyncio.Event
) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not stop.is_set() and await readiness.problem(besides=serving):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(READY_POLL_S)
    if not stop.is_set():
        serving.set()
        await _serve_web(opened(), stop)


async def _serve_web(sock: socket.socket, stop: asyncio.Event) -> None:
    await _serve_http(web_server(), sock, stop, leave=lambda: current_quotas().leave())


async def _serve_http(
    server: uvicorn.Server, sock: socket.socket, stop: asyncio.Event, leave: Callable[[], Awaitable[None]] | None = None
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    if leave is not None:
        await leave()  # its clients are welcome elsewhere at once
    server.should_exit = True
    stopping.cancel()
    await serving


def web_server() -> uvicorn.Server:
    """Return the public server: limits before parsing, frames without compression, our own signals."""
    return http_server("router_project.asgi:application")


def http_server(application: Any) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        ws=RouterWebSocketProtocol,
        ws_max_size=WS_FRAME_MAX,
        ws_ping_interval=WS_PING_INTERVAL_S,
        ws_ping_timeout=WS_PING_INTERVAL_S,
        ws_per_message_deflate=False,
        http=RouterHttpProtocol,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",  # its handshake lines would hold tokens of ?token=
        server_header=False,
        backlog=CONNECTIONS_BACKLOG,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S + math.ceil(settings.DRAIN_S),
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the command has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening first: what was accepted just now shall be known when the connections are told."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(ACCEPTED_S)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket with the limits that its connections inherit."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise CommandError(f"cannot listen on {host}:{port}: {error.strerror}; set PORT to a free one") from error
    return _listening(sock)


def listen_on(fd: int) -> socket.socket:
    """Listen on a bound socket that was inherited; another process may do so already."""
    return _listening(socket.socket(fileno=fd))


def _listening(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    sock.listen(CONNECTIONS_BACKLOG)
    sock.setblocking(False)
    host, port = sock.getsockname()[:2]
    log.info("listening", url=f"http://{host}:{port}")
    return sock


def _run(main: Awaitable[None]) -> None:
    with contextlib.suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)  # type: ignore[arg-type]
        return
    asyncio.run(main)  # type: ignore[arg-type]


def _choices(text: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise CommandError(f"unknown {what} {', '.join(unknown) or text!r}; choose from {', '.join(known)}")
    return chosen


def _share(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise CommandError(f"--share {text!r} is no share; the second of three is 2/3")
    return int(number), int(of)


def _require_room_for_split(roles: tuple[str, ...], venues: tuple[str, ...], share: tuple[int, int]) -> None:
    """Refuse what would leave venues unheard, or make two markets of one."""
    if share != (1, 1) and not settings.PRODUCTION:
        raise CommandError("matchers share instruments over PostgreSQL only: set DATABASE_URL, or leave --share out")
    split = "feeds" in roles and set(venues) != set(settings.VENUES)
    if (split or CONSOLIDATOR in roles) and not settings.REDIS_URLS:
        raise CommandError("feeds in several processes, and their consolidator, need Redis: set REDIS_URL")
    if split and settings.MARKET_SOURCE == "simulated":
        raise CommandError("the simulated venues share one market and run in one process: leave --venues out")


def restart_with_source(urls: dict[str, str]) -> None:
    """Find out whether the venues can be reached, then start again with that market for good.

    Settings, database and every later process see a source that never changes.
    """
    urls_asked = [urls[name] for name in settings.VENUES]
    live = asyncio.run(reachable(urls_asked, timeout_s=PROBE_TIMEOUT_S))
    source = "live" if live else "simulated"
    environment = {**os.environ, "MARKET_SOURCE": source, "ROUTER_SOURCE_REQUESTED": "auto"}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606 # nosec B606 # ourselves, again


def _banner() -> str:
    if settings.MARKET_SOURCE_REQUESTED == "auto":
        why = "None of the venues could be reached (MARKET_SOURCE=auto)."
    else:
        why = "It was asked for with MARKET_SOURCE=simulated."
    return SIMULATED_BANNER.format(why=why)
