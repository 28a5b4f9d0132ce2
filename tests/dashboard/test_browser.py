"""The dashboard as a person sees it: Chromium before the real thing, router and all."""

import asyncio
import re
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Locator, Page, expect

from tests.dashboard.conftest import NARROW, PASSWORD, WIDE, Desk, Rig, shoot
from tests.running import START_S

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

SOON_MS = 15_000
expect.set_options(timeout=SOON_MS)
LAST_CLOSE = "() => document.querySelector('.st-key-candles .js-plotly-plot').data[0].close.at(-1)"  # that is drawn

RANGE = "() => document.querySelector('.st-key-candles .js-plotly-plot')._fullLayout.xaxis.range"  # that is seen
PAPER_AND_TEXT = {
    "dark": ("rgb(13, 17, 23)", "rgb(228, 233, 240)"),
    "light": ("rgb(246, 247, 249)", "rgb(20, 26, 36)"),
}


def account(page: Page) -> Locator:
    return page.locator(".st-key-panel-account")


def ticket(page: Page) -> Locator:
    return page.locator(".st-key-panel-ticket")


async def open_tab(page: Page, name: str) -> None:
    await page.get_by_role("tab", name=name, exact=True).click()


async def place_limit(page: Page, quantity: str, price: str) -> None:
    await open_tab(page, "Order")
    await ticket(page).get_by_role("radio", name="Limit").click()
    await ticket(page).get_by_label("Quantity, BTC", exact=True).fill(quantity)
    await ticket(page).get_by_label("Price, USDT", exact=True).fill(price)
    await ticket(page).get_by_role("button", name="Buy BTC").click()


async def test_a_wrong_password_is_refused_in_words(rig: Rig) -> None:
    async with rig.page() as page:
        await page.get_by_label("Username", exact=True).fill("nobody")
        await page.get_by_label("Password", exact=True).fill("wrong-password")
        await page.get_by_role("button", name="Log in").click()

        await expect(page.get_by_role("alert")).to_contain_text("password", ignore_case=True)
        await expect(page.get_by_role("table", name="Order book")).to_have_count(0)


async def test_who_registers_is_in_and_who_logs_out_is_out(rig: Rig) -> None:
    async with rig.page() as page:
        await open_tab(page, "Register")
        await page.get_by_label("New username", exact=True).fill("newcomer")
        await page.get_by_label("New password", exact=True).fill(PASSWORD)
        await page.get_by_role("button", name="Register").click()
        await page.get_by_role("table", name="Order book").wait_for()
        await expect(page.locator(".st-key-top")).to_contain_text("newcomer")

        await page.get_by_role("button", name="Log out").click()
        await page.get_by_label("Username", exact=True).wait_for()
        await page.reload()
        await page.get_by_label("Username", exact=True).wait_for()


async def test_an_api_key_lets_in_until_it_is_revoked(rig: Rig, desk: Desk) -> None:
    _, client = desk
    async with rig.page() as page:
        key = await client.create_api_key("dashboard")
        await open_tab(page, "API key")
        await page.get_by_role("textbox", name="API key").fill(str(key.api_key))
        await page.get_by_role("button", name="Use this key").click()

        await expect(page.get_by_test_id("total-USDT")).to_have_text("100,000")

        await client.delete_api_key(str(key.id))
        await expect(page.get_by_role("alert")).to_contain_text("Logged out by the router")
        await expect(page.get_by_role("textbox", name="Username")).to_be_visible()


async def test_the_market_moves_by_itself(desk: Desk) -> None:
    page, _ = desk
    await expect(page.get_by_text("SIMULATED MARKET")).to_be_visible()
    for name in ("binance", "okx", "kraken"):
        await expect(page.get_by_label(re.compile(f"^{name}: live"))).to_be_visible()
    book = page.get_by_role("table", name="Order book")
    tape = page.get_by_role("table", name="Trades")
    before = await book.inner_text(), await tape.inner_text(), await page.evaluate(LAST_CLOSE)

    await expect(book).not_to_have_text(before[0])
    await expect(tape).not_to_have_text(before[1])
    await page.wait_for_function(f"close => ({LAST_CLOSE})() !== close", arg=before[2])
    venues = set(re.findall("binance|okx|kraken", await book.inner_text()))
    assert len(venues) > 1  # `all` shows the levels of several


async def test_a_refresh_leaves_the_charts_and_their_zoom_alone(desk: Desk) -> None:
    page, _ = desk
    chart = page.locator(".st-key-candles .js-plotly-plot")
    await chart.evaluate("plot => { plot.isTheSame = true }")
    box = await chart.bounding_box()
    assert box
    await page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
    await page.mouse.down()
    await page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    await page.mouse.up()
    zoomed = await page.evaluate(RANGE)
    close = await page.evaluate(LAST_CLOSE)

    for _again in range(2):
        await page.wait_for_function(f"close => ({LAST_CLOSE})() !== close", arg=close)
        close = await page.evaluate(LAST_CLOSE)

    assert await chart.evaluate("plot => plot.isTheSame")
    assert await page.evaluate(RANGE) == zoomed
    await chart.dblclick(position={"x": 0.5 * box["width"], "y": 0.4 * box["height"]})
    await page.wait_for_function(f"zoomed => JSON.stringify(({RANGE})()) !== JSON.stringify(zoomed)", arg=zoomed)


async def test_user_exchange_and_pair_stay_over_a_reload_and_a_closed_page_closes_its_connections(rig: Rig) -> None:
    before = rig.connections()
    async with rig.trader() as (page, _):
        await page.locator(".st-key-exchange").get_by_role("radio", name="kraken").click()
        await page.get_by_role("combobox", name="Pair").click()
        await page.get_by_role("option", name="ETHUSDT").click()
        await expect(page.locator(".st-key-panel-candles")).to_contain_text(re.compile("ETHUSDT.*trades of kraken"))
        await expect(page).to_have_url(re.compile("exchange=kraken"))
        await expect(page).to_have_url(re.compile("pair=ETHUSDT"))

        await page.reload()

        await expect(page.locator(".st-key-panel-candles")).to_contain_text(re.compile("ETHUSDT.*trades of kraken"))
        await expect(page.get_by_role("table", name="Order book")).to_contain_text("kraken")
        await expect(page.get_by_role("table", name="Order book")).not_to_contain_text("okx")
        assert rig.connections() > before
    async with asyncio.timeout(START_S):
        while rig.connections() > before:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)


async def test_an_order_is_placed_amended_and_cancelled(desk: Desk) -> None:
    page, client = desk
    await place_limit(page, "0.01", "50000")
    await open_tab(page, "Open orders")
    await expect(account(page)).to_contain_text("Buy 0.01 BTCUSDT at 50,000.00")
    placed = (await client.orders()).orders[0]
    assert (placed.price, placed.quantity, placed.status) == (Decimal(50_000), Decimal("0.01"), "open")

    await account(page).get_by_role("button", name="Amend").click()
    await page.get_by_label("New price", exact=True).fill("51,000.5")
    await page.get_by_role("button", name="Amend order").click()
    await expect(account(page)).to_contain_text("Buy 0.01 BTCUSDT at 51,000.50")
    assert (await client.order(placed.token_id)).price == Decimal("51000.5")

    await account(page).get_by_role("button", name="Cancel", exact=True).click()
    await expect(account(page)).to_contain_text("No open orders")
    assert (await client.order(placed.token_id)).status == "cancelled"


async def test_a_market_order_is_in_history_balances_and_equity(desk: Desk, shots: Path) -> None:
    page, client = desk
    await open_tab(page, "Order")
    await ticket(page).get_by_role("radio", name="Market").click()
    await ticket(page).get_by_label("Quantity, BTC", exact=True).fill("0.05")
    await ticket(page).get_by_role("button", name="Buy BTC").click()

    await expect(ticket(page)).to_contain_text("filled")
    await expect(page.get_by_test_id("total-BTC")).to_have_text("0.05")
    made = (await client.fills()).fills[0]
    await open_tab(page, "History")
    row = page.get_by_role("table", name="Order history").get_by_role("row").nth(1)
    await expect(row).to_contain_text("Buy market")
    await row.locator("summary").click()
    await expect(row).to_contain_text(f"at {made.price:,.2f} on {made.exchange}")
    await open_tab(page, "Equity")
    await expect(account(page)).to_contain_text("100,000.00 USDT")  # paid in
    await page.locator(".st-key-equity-chart .js-plotly-plot").wait_for()
    await shoot(page, shots / "equity.png")


async def test_a_refusal_is_told(desk: Desk) -> None:
    page, _ = desk
    await place_limit(page, "100", "50000")
    await expect(ticket(page).get_by_role("alert")).to_contain_text("Refused")
    await place_limit(page, "many", "50000")
    await expect(ticket(page).get_by_role("alert")).to_contain_text("“many” is not a number")


async def test_a_twap_order_runs_to_its_end(desk: Desk, shots: Path) -> None:
    page, client = desk
    await open_tab(page, "TWAP")
    await ticket(page).get_by_label("Total quantity, BTC", exact=True).fill("0.025")
    await ticket(page).get_by_label("Duration, s", exact=True).fill("5")
    await ticket(page).get_by_label("Slices", exact=True).fill("5")
    await ticket(page).get_by_role("button", name="Start TWAP: buy BTC").click()
    await open_tab(page, "TWAP orders")
    await expect(account(page)).to_contain_text(re.compile("[1-5] of 5"))
    await expect(account(page)).to_contain_text("5 of 5")

    await expect(account(page)).to_contain_text("100.0 %")
    await expect(account(page)).to_contain_text("slippage")
    rows = page.get_by_role("table", name="Slices").get_by_role("row")
    await expect(rows).to_have_count(1 + 5)
    done = await client.twap((await client.orders()).orders[0].id)
    assert (done.status, done.executed_quantity, len(done.executions)) == ("filled", Decimal("0.025"), 5)
    await expect(account(page)).to_contain_text(f"{done.average_price:,.2f}")
    await shoot(page, shots / "twap.png")
    await open_tab(page, "History")
    await expect(page.get_by_role("table", name="Order history")).to_contain_text("Buy twap")
    await expect(page.get_by_test_id("total-BTC")).to_have_text("0.075")


async def test_a_running_twap_order_is_stopped(desk: Desk) -> None:
    page, client = desk
    placed = await client.place_twap("BTCUSDT", "buy", "0.02", duration_seconds=3600, slices=10)
    await open_tab(page, "TWAP orders")
    await account(page).get_by_role("button", name="Stop").click()

    await expect(account(page)).to_contain_text("Stopped after")
    assert not (await client.twap(placed.order_id)).is_open


@pytest.mark.parametrize("theme", ["dark", "light"])
async def test_it_fits_the_window_in_both_themes(desk: Desk, shots: Path, theme: Literal["dark", "light"]) -> None:
    page, _ = desk
    await page.emulate_media(color_scheme=theme)
    paper, text = (("rgb(13, 17, 23)", "rgb(228, 233, 240)"), ("rgb(246, 247, 249)", "rgb(20, 26, 36)"))[
        theme == "light"
    ]
    await expect(page.get_by_test_id("stApp")).to_have_css("background-color", paper)
    await expect(page.locator(".sr-brand")).to_have_css("color", text)  # our own style follows
    for name, size in (("narrow", NARROW), ("wide", WIDE)):
        await page.set_viewport_size(size)
        await page.wait_for_function(  # the charts follow the window
            "width => [...document.querySelectorAll('.js-plotly-plot .main-svg')]"
            ".every(chart => chart.getBoundingClientRect().right <= width)",
            arg=size["width"],
        )
        assert await page.get_by_test_id("stMain").evaluate("main => main.scrollWidth") <= size["width"]
        await shoot(page, shots / f"{name}-{theme}.png")
    await page.set_viewport_size(WIDE)


async def test_a_lost_router_is_told_and_recovered_from(rig: Rig, desk: Desk, shots: Path) -> None:
    page, _ = desk
    lost = page.get_by_role("alert").filter(has_text="Connection to the router lost")
    await expect(lost).to_have_count(0)

    await rig.kill_router()
    await expect(lost).to_be_visible()
    await shoot(page, shots / "lost.png")

    await rig.start_router()
    await expect(lost).to_have_count(0, timeout=2 * SOON_MS)
    book = page.get_by_role("table", name="Order book")
    before = await book.inner_text()
    await expect(book).not_to_have_text(before)
    await place_limit(page, "0.01", "50000")
    await open_tab(page, "Open orders")
    await expect(account(page)).to_contain_text("Buy 0.01 BTCUSDT at 50,000.00")


async def test_nothing_was_asked_of_the_internet_and_nothing_failed(rig: Rig) -> None:
    assert rig.elsewhere == []
    assert not re.findall(r'File ".*/dashboard/', rig.log()), rig.log()
