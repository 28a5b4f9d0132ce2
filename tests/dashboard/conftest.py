"""A running router, the dashboard in front of it, and a browser: real processes, Debian's Chromium."""

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright
from router_client import AsyncAPIClient

from tests import services
from tests.client.conftest import environment_of, wait_for_market
from tests.running import ROOT, START_S, Process

PASSWORD = "password123"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SHOTS = ROOT / "artifacts" / "screenshots"
WIDE = {"width": 1440, "height": 1000}
NARROW = {"width": 400, "height": 900}
Desk = tuple[Page, AsyncAPIClient]  # a user's page, and the same user's client
_numbers = itertools.count(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Rig:
    """The router and the dashboard; the router can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.port, self.page_port = free_port(), free_port()
        self.url, self.page_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.page_port}"
        self.elsewhere: list[str] = []  # addresses outside this machine that a page asked for
        self._environment = {**environment_of(folder), "PORT": str(self.port)}
        self._log = folder / "dashboard.log"
        self._router: Process | None = None
        self._dashboard: asyncio.subprocess.Process | None = None
        self.browser: Browser | None = None

    async def start_router(self) -> None:
        self._router = Process("web,feeds,matcher", self._environment)
        await self._router.start()
        await self._router.logged("listening")
        await wait_for_market(self.url)

    async def kill_router(self) -> None:
        assert self._router is not None
        self._router.send_signal(9)
        await self._router.ended()

    async def start_dashboard(self) -> None:
        command = ("-m", "streamlit", "run", "dashboard/app.py", "--server.address", "127.0.0.1")
        with self._log.open("wb") as log:
            self._dashboard = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--server.port", str(self.page_port),
                cwd=ROOT, env={**os.environ, "ROUTER_URL": self.url}, stdout=log, stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(START_S), httpx.AsyncClient(base_url=self.page_url) as http:
            while True:
                assert self._dashboard.returncode is None, self._log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/_stcore/health")).is_success:
                        return

    async def stop(self) -> None:
        if self._dashboard is not None:
            self._dashboard.terminate()
            await self._dashboard.wait()
        if self._router is not None and self._router.running:
            await self._router.stop()

    def connections(self) -> int:
        """How many connections the dashboard has to the router."""
        assert self._dashboard is not None
        peers = [one.raddr for one in psutil.Process(self._dashboard.pid).net_connections("tcp")]
        return sum(1 for peer in peers if peer and peer.port == self.port)

    def log(self) -> str:
        """What the dashboard wrote."""
        return self._log.read_text()

    @contextlib.asynccontextmanager
    async def page(self, *, dark: bool = False, narrow: bool = False, query: str = "") -> AsyncIterator[Page]:
        """Open the dashboard in a window of its own."""
        assert self.browser is not None
        context = await self.browser.new_context(
            viewport=NARROW if narrow else WIDE, color_scheme="dark" if dark else "light"
        )
        try:
            page = await context.new_page()
            page.set_default_timeout(15_000)
            page.on("request", lambda request: self._note(request.url))
            await page.goto(self.page_url + query)
            yield page
        finally:
            await context.close()

    @contextlib.asynccontextmanager
    async def trader(self, money: int = 100_000, **options: bool) -> AsyncIterator[Desk]:
        """Make a user with some money, and open the dashboard as that user."""
        async with AsyncAPIClient(self.url) as client:
            await client.register(f"viewer{next(_numbers)}", PASSWORD)
            await client.deposit("USDT", money)
            async with self.page(**options) as page:
                await log_in(page, str(client.session.username), PASSWORD)
                yield page, client

    def _note(self, url: str) -> None:
        if not url.startswith((self.page_url, self.page_url.replace("http", "ws", 1), "data:", "blob:")):
            self.elsewhere.append(url)


async def log_in(page: Page, username: str, password: str) -> None:
    """Fill in the form and wait for the market."""
    await page.get_by_label("Username", exact=True).fill(username)
    await page.get_by_label("Password", exact=True).fill(password)
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_role("table", name="Order book").wait_for()
    await page.wait_for_function(
        "document.querySelector('.st-key-candles .js-plotly-plot')?.data?.[0].close.length > 0"
    )


async def shoot(page: Page, file: Path) -> None:
    """Keep what the whole page looks like, not only what is in the window."""
    height = await page.locator("[data-testid=stMainBlockContainer]").evaluate("block => block.scrollHeight")
    assert page.viewport_size
    await page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    await page.screenshot(path=file, animations="disabled")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(rig: Rig) -> AsyncIterator[Desk]:
    """A page that tests share; each opens the tab that it needs."""
    async with rig.trader() as (page, client):
        yield page, client


@pytest.fixture(scope="module")
def chromium() -> str:
    if CHROMIUM is None:
        reason = "there is no chromium here (apt-get install chromium, or set CHROMIUM)"
        if services.REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    return CHROMIUM


@pytest.fixture(scope="module")
def shots() -> Path:
    """The folder that keeps what the pages looked like."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("dashboard"))
    try:
        await asyncio.gather(rig.start_router(), rig.start_dashboard())
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
            rig.browser = browser
            yield rig
            await browser.close()
    finally:
        await rig.stop()
