"""Starts the production profile from local processes: nginx, web × N, matcher and standby, feeds."""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import structlog
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from core.errors import DomainError
from marketdata import history
from router_project.management.commands.run_router import CONSOLIDATOR, restart_with_source
from router_project.supervisor import Address, NotReady, Place, Proxy, Spare

log = structlog.get_logger(__name__)

INSIDE = "127.0.0.1"  # where the processes behind the proxy listen
DRAIN_S = "3"  # longer than nginx.conf keeps idle connections
NGINX_CONF = settings.BASE_DIR / "deploy" / "nginx.conf"
SERVER = "server {host}:{port} max_fails=1 fail_timeout=1s;"


class Command(BaseCommand):
    help = (
        "Run the production profile on this machine, without containers: nginx, web processes, feeds, and a matcher"
        " with a standby, over PostgreSQL and Redis. SIGHUP replaces the web processes and the matchers without a gap;"
        " SIGTERM stops all in order."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="where the proxy listens")
        parser.add_argument(
            "--port", type=int, default=settings.PORT, help="the proxy's; the processes take those after it (0: any)"
        )
        parser.add_argument("--webs", type=int, default=2, help="web processes (default 2)")
        parser.add_argument("--matchers", type=int, default=2, help="matchers: one leads, others stand by (default 2)")
        parser.add_argument(
            "--split-feeds", action="store_true", help="one feeds process a venue, and their consolidator"
        )
        parser.add_argument(
            "--share-instruments",
            action="store_true",
            help="each matcher leads a share of the instruments and stands by for the others",
        )
        parser.add_argument(
            "--record",
            metavar="FOLDER",
            default=settings.RECORDING,
            help="have every process record its part of all orders and venues' frames there (default: nothing)",
        )
        parser.add_argument("--nginx", default="nginx", help="the program")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.PRODUCTION or not settings.REDIS_URLS:
            raise CommandError("the production profile needs PostgreSQL and Redis: set DATABASE_URL and REDIS_URL")
        if min(options["webs"], options["matchers"]) < 1:
            raise CommandError("at least one web process and one matcher are needed")
        if options["split_feeds"] and settings.MARKET_SOURCE == "simulated":
            raise CommandError("the simulated venues share one market and run in one process: no --split-feeds")
        nginx = shutil.which(options["nginx"], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise CommandError(
                f"{options['nginx']} is not installed; apt-get install nginx-light, or name it (--nginx)"
            )
        if settings.MARKET_SOURCE == "auto":
            restart_with_source(settings.VENUE_URLS)
        call_command("migrate", interactive=False, verbosity=0)
        try:
            history.claim_market(settings.MARKET_SOURCE)
        except DomainError as error:
            raise CommandError(error.message) from error
        with tempfile.TemporaryDirectory(prefix="router-proxy-") as folder:
            try:
                profile = Profile(options, nginx, Path(folder))
            except OSError as error:
                raise CommandError(f"a port is taken: {error.strerror}; set PORT to a free one") from error
            asyncio.run(profile.run())


class Profile:
    """What runs where, and in which order it starts and stops."""

    def __init__(self, options: dict[str, Any], nginx: str, folder: Path) -> None:
        port = int(options["port"])
        ports = iter(range(port + 1, port + 1 + 65_535)) if port else iter(lambda: 0, None)
        environment = {
            "TRUSTED_PROXIES": INSIDE,
            **os.environ,
            "MARKET_SOURCE": settings.MARKET_SOURCE,
            "RECORDING": str(Path(options["record"]).absolute()) if options["record"] else "",
            "DRAIN_S": os.environ.get("DRAIN_S") or DRAIN_S,
            "HOST": options["host"],  # one of the names that clients may use
        }

        def waiting(heard: int) -> list[str]:
            return [*_RUN_ROUTER, "--spare", str(heard)]

        base = settings.BASE_DIR
        self.spare = spare = Spare(waiting, environment=environment, folder=base)

        def place(name: str, role: str, *arguments: str) -> Place:
            command = partial(_run_router, role, arguments)
            return Place(name, command, (INSIDE, next(ports)), environment=environment, folder=base, spare=spare)

        self.webs = [place(f"web {number}", "web") for number in range(1, options["webs"] + 1)]
        of = options["matchers"]
        self.matchers = [
            place(
                f"matcher {number}", "matcher", *(["--share", f"{number}/{of}"] if options["share_instruments"] else [])
            )
            for number in range(1, of + 1)
        ]
        self.feeds = [place("feeds", "feeds")]
        if options["split_feeds"]:
            self.feeds = [place(f"feeds {venue}", "feeds", "--venues", venue) for venue in settings.VENUES]
            self.feeds.append(place(CONSOLIDATOR, CONSOLIDATOR))
        conf = folder / "nginx.conf"
        self.proxy = Proxy(
            "proxy",
            lambda _socket, _ready: [nginx, "-p", str(folder), "-e", "stderr", "-c", str(conf)],
            (options["host"], port),
            environment=environment,
            folder=folder,
        )
        conf.write_text(proxy_conf(self.proxy.address, [web.address for web in self.webs], folder))

    @property
    def places(self) -> list[Place]:
        return [*self.feeds, *self.matchers, *self.webs, self.proxy]

    async def run(self) -> None:
        """Run until a signal."""
        stop, renew = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, stop.set)
        loop.add_signal_handler(signal.SIGHUP, renew.set)
        async with AsyncExitStack() as stack:
            # What is left last stops last: orders under way still find a matcher, a market and their way back.
            for place in (*self.feeds, *self.matchers, self.proxy, *self.webs):
                stack.push_async_callback(place.stop)
            stack.push_async_callback(self.spare.stop)
            starting = asyncio.create_task(self._start())
            await _first(starting, stop)
            if starting.done() and not stop.is_set():
                starting.result()
                keepers = [asyncio.create_task(place.keep()) for place in self.places]
                renewing = asyncio.create_task(self._renew_whenever(renew))
                self._tell()
                await self.spare.prepare()
                await stop.wait()
                await _cancel(renewing, *keepers)
            else:
                await _cancel(starting)
            log.info("the profile stops")

    async def _start(self) -> None:
        behind = (*self.feeds, *self.matchers, *self.webs)
        results = await asyncio.gather(*(place.start() for place in behind), return_exceptions=True)
        try:
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            await self.proxy.start()
        except NotReady as error:
            raise CommandError(str(error)) from error

    async def _renew_whenever(self, asked: asyncio.Event) -> None:
        """Replace the web processes, then the matchers, one after another, each time that somebody asks for it."""
        while True:
            await asked.wait()
            asked.clear()
            log.info("the processes are replaced")
            await self.spare.stop()  # it knows the program of before
            try:
                for place in (*self.webs, *self.matchers):
                    await place.replace()
            except NotReady as error:
                log.error("what runs stays: its replacement is not ready", error=str(error))
            else:
                log.info("all processes were replaced")
            await self.spare.prepare()

    def _tell(self) -> None:
        places = {
            place.name: {"url": place.url, "pid": place.running.pid if place.running else None} for place in self.places
        }
        log.info("the profile runs", url=self.proxy.url, supervisor=os.getpid(), places=places)


def proxy_conf(listen: Address, webs: list[Address], folder: Path) -> str:
    """Return nginx.conf, filled in as its head says."""
    return Template(NGINX_CONF.read_text()).safe_substitute(
        PROXY_LISTEN=f"{listen[0]}:{listen[1]}",
        PROXY_SERVERS=" ".join(SERVER.format(host=host, port=port) for host, port in webs),
        PROXY_RUN=str(folder),
    )


_RUN_ROUTER = (sys.executable, str(settings.BASE_DIR / "manage.py"), "run_router")


def _run_router(role: str, arguments: Sequence[str], sock: int, ready: int) -> list[str]:
    files = ["--fd", str(sock), "--ready-fd", str(ready)]
    return [*_RUN_ROUTER, "--roles", role, *arguments, "--no-migrate", *files]


async def _first(task: "asyncio.Task[None]", event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
