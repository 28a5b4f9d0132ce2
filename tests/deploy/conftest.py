"""The production profile from local processes: nginx, web × N, feeds, matcher and standby."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio

from marketdata.simulated import SimulatedVenues
from tests import services
from tests.end_to_end.conftest import SYMBOLS, environment_of
from tests.running import Message, Process, Router

WEBS = 2
PROFILE_START_S = 90.0
PROFILE_STOP_S = 40.0
REPLACED = "all processes were replaced"
REPLACED_S = 90.0
SBIN = "/usr/sbin:/usr/local/sbin"


class Profile(Router):
    """The profile as its clients see it: one address, the proxy's."""

    def __init__(
        self, environment: Mapping[str, str], *options: str, webs: int = WEBS, under: Sequence[str] = ()
    ) -> None:
        super().__init__(environment, roles=("profile",), under=under)
        self.webs = webs
        self.options = options
        self.places: dict[str, Message] = {}  # name → url and pid, as they were at the start

    @property
    def supervisor(self) -> Process:
        return self.processes[0]

    async def start(self) -> None:
        arguments = ("--webs", str(self.webs), "--port", "0", *self.options)
        self.processes = [Process("profile", self.environment, *arguments, command="run_profile", under=self.under)]
        await self.supervisor.start()
        told = await self.supervisor.logged("the profile runs", PROFILE_START_S)
        self.urls = [told["url"]]
        self.places = told["places"]

    async def stop(self) -> None:
        supervisor, self.processes = self.supervisor, []
        supervisor.send_signal(signal.SIGTERM)
        assert await supervisor.ended(PROFILE_STOP_S) == 0, supervisor.tail()

    def pid(self, place: str) -> int:
        """Return the id of the process that holds a place now."""
        news = [event for event in self.supervisor.placed if event["place"] == place and "old" in event]
        return int((news[-1] if news else self.places[place])["pid"])

    def kill_place(self, place: str) -> int:
        """Kill the process that holds a place; return its id."""
        pid = self.pid(place)
        os.kill(pid, signal.SIGKILL)
        return pid

    async def started_again(self, place: str, old: int) -> None:
        await self.supervisor.logged("a process was started again", PROFILE_START_S, place=place, old=old)

    async def replaced(self) -> Message:
        """Ask for new web processes and matchers, and wait until they are there."""
        for line in [line for line in self.supervisor.events if line.get("event") == REPLACED]:
            self.supervisor.events.remove(line)  # it tells of an earlier time
        self.supervisor.send_signal(signal.SIGHUP)
        return await self.supervisor.logged(REPLACED, REPLACED_S)


def require_nginx() -> None:
    if shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:{SBIN}") is None:
        if services.REQUIRED:
            pytest.fail("nginx is not installed")
        pytest.skip("nginx is not installed (apt-get install nginx-light)")


@pytest.fixture(scope="module")
def profile() -> str:
    return "production"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market() -> AsyncIterator[SimulatedVenues]:
    async with SimulatedVenues(SYMBOLS, seed=11) as market:
        yield market


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(
    market: SimulatedVenues, tmp_path_factory: pytest.TempPathFactory, request: Any
) -> AsyncIterator[Profile]:
    require_nginx()
    with environment_of("production", tmp_path_factory.mktemp("profile")) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        extra = getattr(request.module, "ENVIRONMENT", {})
        router = Profile({**environment, **urls, **extra})
        await router.start()
        try:
            yield router
        finally:
            if router.processes:
                await router.stop()
