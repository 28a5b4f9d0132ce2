"""What the production profile promises behind its proxy while parts of it are replaced, killed and stopped."""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import pytest_asyncio

from marketdata.simulated import SimulatedVenues
from tests import services
from tests.deploy.conftest import Profile, require_nginx
from tests.deploy.load import Load
from tests.end_to_end.conftest import environment_of
from tests.end_to_end.test_orders_ws import Trader, market_order
from tests.end_to_end.test_trading_matcher import (
    ASK,
    INSTRUMENT,
    TAKE_OVER_S,
    VENUES,
    calm,
    ledger_is_right,
    new_trader,
    place,
    show,
    touch_is,
    update,
)
from tests.running import ANSWER_S, Message, Process

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

# Limits that a test can reach with addresses and not with its orders.
ENVIRONMENT = {
    "RATE_LIMITS": "on",
    "RATE_REQUESTS_A_MINUTE": "1000,1000000,2000000",
    "RATE_ORDER_ACTIONS_A_SECOND": "100,100000,200000",
}
COME_BACK = 1012
GONE_S = 10.0
STARTED_S = 60.0


@pytest_asyncio.fixture(loop_scope="module")
async def trader(router: Profile, market: SimulatedVenues) -> AsyncIterator[Trader]:
    calm(market)
    trader = await new_trader(router)
    await touch_is(router, trader.token, ASK)
    yield trader
    for venue in VENUES:
        market[venue].release(INSTRUMENT)


async def test_web_processes_are_replaced_under_load_and_no_request_fails(router: Profile, trader: Trader) -> None:
    load = Load(trader, listeners=8)
    async with load.running():
        await router.replaced()
        await load.more(20)  # the new ones serve
    assert load.failures == []
    assert len(load.bought) > 100, "there was hardly any load"
    fills = await load.executed()
    assert fills == len(load.bought)
    for listener in load.listeners:
        assert listener.seqs == list(range(1, fills + 1)), "a report was lost or doubled"
        assert listener.closes
        assert set(listener.closes) == {COME_BACK}
        assert listener.refusals == []
    await ledger_is_right(router)


async def test_a_later_releases_column_harms_nothing_that_runs(router: Profile, trader: Trader) -> None:
    load = Load(trader, listeners=1)
    url = router.environment["DATABASE_URL"]
    async with load.running(), await psycopg.AsyncConnection.connect(url, autocommit=True) as database:
        for number in range(3):
            await database.execute(f"ALTER TABLE trading_order ADD COLUMN later{number} integer")
            await load.more(10)
    assert load.failures == []
    await ledger_is_right(router)


async def test_a_killed_web_process_costs_at_most_what_it_was_asked_just_then(router: Profile, trader: Trader) -> None:
    load = Load(trader)
    async with load.running():
        await load.more(20)
        await router.started_again("web 1", router.kill_place("web 1"))
        await load.more(20)
    assert any(listener.closes for listener in load.listeners), "the killed one served nobody"
    assert not [failure for failure in load.failures if failure.startswith("GET")], "a GET may always be repeated"
    assert set(load.statuses) <= {200, 201, 503}, load.failures
    for order in load.doubtful:  # written or not: asking again tells, and never makes a second one
        answer = await trader.rest("POST", "/orders", order)
        assert answer.status_code == 201 or answer.json()["code"] == "duplicate_token_id", answer.text
    for listener in load.listeners:
        assert listener.seqs == list(range(1, len(listener.seqs) + 1)), "a report was lost or doubled"
    await ledger_is_right(router)


async def test_the_spare_process_follows_one_that_is_killed(
    router: Profile, market: SimulatedVenues, trader: Trader
) -> None:
    for name in ("web 1", "feeds"):
        spare = await _spare(router)
        await router.started_again(name, router.kill_place(name))
        assert router.pid(name) == spare
        assert await _spare(router) != spare, "the next one waits"
    show(market, "okx", ASK - 1)  # which only the new feeds can tell
    await touch_is(router, trader.token, ASK - 1)
    assert (await trader.rest("POST", "/orders", market_order("0.001"))).status_code == 201
    os.kill(await _spare(router), signal.SIGKILL)  # then a place starts its own
    await router.started_again("web 1", router.kill_place("web 1"))
    assert "--spare" not in _arguments(router.pid("web 1"))
    await ledger_is_right(router)


async def test_a_replacement_runs_the_program_as_it_is_now_and_so_does_the_spare_process(router: Profile) -> None:
    spare = await _spare(router)
    await router.replaced()
    assert "--spare" not in _arguments(router.pid("web 1"))
    assert await _spare(router, {spare}) not in {router.pid(place) for place in router.places}
    assert not psutil.pid_exists(spare)


async def test_another_takes_over_when_the_leading_matcher_is_killed(
    router: Profile, market: SimulatedVenues, trader: Trader
) -> None:
    leader = await _leader(router)
    os.kill(await _spare(router), signal.SIGKILL)  # so that nobody but the standby can lead in time
    async with router.client(trader.token) as client:
        before = await place(trader, "49900")
        after = await place(trader, "49800")
        show(market, "okx", 49_900)
        await update(client, before["token_id"])
        killed = router.kill_place(leader)
        killed_s = time.monotonic()
        show(market, "okx", 49_800)
        data = await update(client, after["token_id"], TAKE_OVER_S)
        assert time.monotonic() - killed_s < TAKE_OVER_S
        assert data["fill"]["price"] == 49_800
    await router.started_again(leader, killed)
    assert await _leader(router)  # the standby, or who came instead of the killed one and was asked to share again
    await ledger_is_right(router)


async def test_a_process_that_cannot_be_replaced_stays(router: Profile, trader: Trader) -> None:
    """The new web process dies before it is ready; then the old one dies too, and somebody follows it."""
    old = router.pid("web 1")
    before = {child.pid for child in psutil.Process(router.supervisor.pid).children()}
    router.supervisor.send_signal(signal.SIGHUP)
    new = await _child(router, "--roles", ANSWER_S, before)
    os.kill(new, signal.SIGKILL)
    await router.supervisor.logged("what runs stays: its replacement is not ready", STARTED_S)
    assert router.pid("web 1") == old
    assert (await trader.rest("GET", "/balance")).status_code == 200
    await router.started_again("web 1", router.kill_place("web 1"))
    assert (await trader.rest("GET", "/balance")).status_code == 200


async def test_clients_are_told_apart_by_their_own_addresses(router: Profile) -> None:
    async def left(address: str) -> int:
        transport = httpx.AsyncHTTPTransport(local_address=address)
        async with httpx.AsyncClient(base_url=router.url, transport=transport) as http:
            answer = await http.get("/info", headers={"X-Forwarded-For": "203.0.113.9"})
            return int(answer.raise_for_status().headers["X-RateLimit-Remaining"])

    assert [await left("127.0.0.2") for _ in range(3)] == [999, 998, 997]
    assert await left("127.0.0.3") == 999


async def test_a_requests_id_joins_the_proxys_line_with_the_web_processs(router: Profile, trader: Trader) -> None:
    async with httpx.AsyncClient(base_url=router.url, timeout=ANSWER_S) as http:
        headers = {"Authorization": f"Bearer {trader.token}", "X-Request-Id": "mine-1"}
        assert (await http.get("/balance", headers=headers)).headers["X-Request-Id"] == "mine-1"
        made = (await http.get("/info", headers={"X-Request-Id": "not a word"})).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
        refused = await http.post("/orders", content=b"x" * 70_000, headers={**headers, "X-Request-Id": "mine-2"})
        assert (refused.status_code, refused.headers["X-Request-Id"]) == (413, "mine-2")
        assert refused.json()["code"] == "too_large"
    proxied, answered = await _line(router, "proxied", "mine-1"), await _line(router, "request", "mine-1")
    assert (proxied["path"], proxied["status"], proxied["address"]) == ("/balance", 200, "127.0.0.1")
    assert (answered["path"], answered["status"], answered["address"]) == ("/balance", 200, "127.0.0.1")
    assert answered["account"] == trader_id(trader)
    assert (await _line(router, "proxied", made))["path"] == "/info"
    assert (await _line(router, "proxied", "mine-2"))["upstream"] == "", "no web process was bothered"
    assert not any(trader.token in line for line in router.supervisor.log), "sockets came with it in their URLs"


async def test_every_place_tells_its_state_and_metrics(router: Profile) -> None:
    async with httpx.AsyncClient(timeout=ANSWER_S) as http:
        for name, told in router.places.items():
            if name == "proxy":
                continue
            assert (await http.get(f"{told['url']}/health")).json()["status"] == "ok", name
            assert (await http.get(f"{told['url']}/ready")).json()["status"] == "ready", name
            metrics = (await http.get(f"{told['url']}/metrics")).raise_for_status().text
            assert "process_cpu_seconds_total" in metrics, name
            assert ("router_venue_state{" in metrics) == (name != "feeds"), name
        answer = await http.get(f"{router.places['feeds']['url']}/orders")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_stop_ends_orders_under_way_and_leaves_a_right_ledger(router: Profile, trader: Trader) -> None:
    async with router.client(trader.token) as client:
        asked = [asyncio.create_task(trader.rest("POST", "/orders", market_order())) for _ in range(20)]
        await asyncio.gather(*asked)
        pids = [await _spare(router), *(router.pid(place) for place in router.places)]
        await router.stop()
        await client.socket.wait_closed()
        assert client.socket.close_code == COME_BACK
    assert all(task.result().status_code == 201 for task in asked)
    assert not any(_exists(pid) for pid in pids)
    await ledger_is_right(router)


async def test_nothing_is_left_when_the_supervisor_itself_is_killed(market: SimulatedVenues, tmp_path: Path) -> None:
    require_nginx()
    with environment_of("production", tmp_path) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        profile = Profile({**environment, **urls}, webs=1)
        await profile.start()
        await profile.kill()
        pids = [told["pid"] for told in profile.places.values()]
        async with asyncio.timeout(GONE_S):
            while any(_exists(pid) for pid in pids):  # noqa: ASYNC110 - they end in their own time
                await asyncio.sleep(0.05)


async def test_a_profile_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with environment_of("production", tmp_path) as environment:
        arguments = ("--port", "0", "--webs", "1", "--matchers", "1", "--nginx", "false")
        process = Process("profile", {**environment, "MARKET_SOURCE": "simulated"}, *arguments, command="run_profile")
        await process.start()
        assert await process.ended(STARTED_S) == 1
        assert any("CommandError: proxy does not listen on" in line for line in process.log), process.tail()
        assert _of_database(environment["DATABASE_URL"]) == []


async def test_feeds_split_by_venue_and_matchers_with_shares_are_places_of_their_own(
    market: SimulatedVenues, tmp_path: Path
) -> None:
    require_nginx()
    with environment_of("production", tmp_path) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        profile = Profile({**environment, **urls}, "--split-feeds", "--share-instruments", webs=1)
        await profile.start()
        try:
            assert {"feeds binance", "feeds okx", "feeds kraken", "consolidator"} <= profile.places.keys()
            assert "feeds" not in profile.places
            await profile.supervisor.logged("the matcher leads", instruments=1, of=2)
            async with profile.client(await profile.register()) as client:
                await client.ask(action="subscribe", stream="klines", symbol="BTCUSDT", interval="1s")
                candle = await client.until(lambda message: message["type"] == "klines")
                assert candle["data"]["exchange"] == "all"
                await profile.started_again("consolidator", profile.kill_place("consolidator"))
                await client.until(lambda message: message["type"] == "klines" and message["data"]["is_closed"])
        finally:
            await profile.stop()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("run_router", "--roles", "feeds", "--venues", "okx"), {"REDIS_URL": ""}, "need Redis: set REDIS_URL"),
        (("run_router", "--roles", "consolidator"), {"REDIS_URL": ""}, "need Redis: set REDIS_URL"),
        (("run_router", "--roles", "feeds", "--venues", "okx"), {"MARKET_SOURCE": "simulated"}, "leave --venues out"),
        (("run_router", "--roles", "feeds", "--venues", "nasdaq"), {}, "choose from binance, okx, kraken"),
        (("run_router", "--roles", "matcher", "--share", "3/2"), {}, "is no share; the second of three is 2/3"),
        (("run_router", "--share", "1/2"), {"DATABASE_URL": ""}, "over PostgreSQL only"),
        (("run_profile", "--split-feeds"), {"MARKET_SOURCE": "simulated"}, "no --split-feeds"),
    ],
)
async def test_a_split_that_would_lose_venues_is_refused(
    arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    needed = {"DATABASE_URL": services.POSTGRES_URL, "REDIS_URL": services.REDIS_URL, "MARKET_SOURCE": "live"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", *arguments, env={**os.environ, **needed, **environment},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == 1
    assert words in said.decode()


async def test_the_profile_says_what_it_needs() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", "run_profile", env={**os.environ, "REDIS_URL": ""}, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"set DATABASE_URL and REDIS_URL" in said


def _of_database(url: str) -> list[int]:
    """Return the processes that were started with this DATABASE_URL."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("DATABASE_URL") == url:
                found.append(process.pid)
    return found


def trader_id(trader: Trader) -> int:
    """Return the user whom a token names."""
    claims = trader.token.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["user_id"])


async def _line(router: Profile, event: str, request_id: str) -> Message:
    """Wait for a request's line in the log."""
    async with asyncio.timeout(ANSWER_S):
        while True:
            for text in list(router.supervisor.log):
                if request_id in text and text.startswith("{"):
                    line: Message = json.loads(text)
                    if (line["event"], line["request_id"]) == (event, request_id):
                        return line
            await asyncio.sleep(0.02)


async def _spare(router: Profile, besides: Collection[int] = ()) -> int:
    """Wait until a process is spare; return its id."""
    return await _child(router, "--spare", STARTED_S, besides)


async def _child(router: Profile, argument: str, timeout_s: float, besides: Collection[int] = ()) -> int:
    """Wait until the supervisor has a process with this argument that holds no place; return its id."""
    supervisor = psutil.Process(router.supervisor.pid)
    async with asyncio.timeout(timeout_s):
        while True:
            known = {*besides, *(router.pid(place) for place in router.places)}
            for child in supervisor.children():
                with contextlib.suppress(psutil.Error):  # it ended just now
                    if child.pid not in known and argument in child.cmdline():
                        return child.pid
            await asyncio.sleep(0.02)


def _arguments(pid: int) -> list[str]:
    return psutil.Process(pid).cmdline()


async def _leader(router: Profile) -> str:
    """Return the matcher that leads, as soon as one does."""
    async with httpx.AsyncClient(timeout=ANSWER_S) as http, asyncio.timeout(ANSWER_S):
        while True:
            for name, told in router.places.items():
                if name.startswith("matcher"):
                    metrics = (await http.get(f"{told['url']}/metrics")).text
                    if f'matcher_leader{{instrument="{INSTRUMENT}"}} 1.0' in metrics:
                        return name
            await asyncio.sleep(0.1)


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
