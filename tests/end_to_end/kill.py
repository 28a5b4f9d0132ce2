"""Kills a part of a running router at a random moment under load, and checks that nothing answered is lost.

`python -m tests.end_to_end.kill --times 50` kills the one process of the embedded profile; `--part
web` (or matcher, feeds, postgres, redis) kills that part of the production profile, with a
PostgreSQL or Redis of its own where that is the victim.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

import tests.environment  # noqa: F401 - the router's processes inherit it
from marketdata.simulated import SimulatedVenues
from tests.end_to_end.conftest import SYMBOLS, environment_of, roles_of
from tests.end_to_end.test_trading_matcher import calm, touch_is
from tests.running import STARTED, Message, Process, Router
from tests.trading.rival import Rival

SYMBOL, INSTRUMENT = "BTCUSDT", "BTC-USDT"
BID, ASK = Decimal(49_990), Decimal(50_000)
LOWEST, HIGHEST = Decimal(40_000), Decimal(60_000)  # resting orders lie between
CUSTOMERS = 3
LOAD_S = (0.2, 1.5)  # how long a part lives under load
ANSWER_S = 10.0
SETTLE_S = 30.0  # until a router that was killed is all there again
PAUSE_S = 0.1
PAGE = 200
PARTS = ("router", "web", "matcher", "feeds", "postgres", "redis")
DOWN = 503
REFUSALS = (None, "no_market", "insufficient_funds", "order_not_open", "nothing_to_change")

Ask = Callable[[str, Message], Awaitable[Message]]


class Lost(Exception):
    """The other side went away before it answered: what was asked may have happened, or not."""


@dataclass
class Asked:
    """An order that a customer asked for, and what is known of it."""

    body: Message
    answer: Message | None = None  # the newest one
    doubtful: bool = False  # something was asked of it and not answered
    amended: Decimal | None = None  # the quantity of the last amendment that was answered


@dataclass
class Customer:
    """A user who orders without pause, over REST and a WebSocket, and remembers every answer."""

    name: str
    token: str
    dice: random.Random
    orders: dict[str, Asked] = field(default_factory=dict)
    deposits: dict[Decimal, bool] = field(default_factory=dict)  # each of another amount: whether it was answered
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    unanswered: int = 0  # orders of which nothing was known after a kill
    written: int = 0  # of these: those that were there

    async def rest(self, router: Router, web: int, stop: asyncio.Event) -> None:
        """Ask over REST until told to stop, or until nobody answers."""
        async with self._http(router, web) as http:
            with contextlib.suppress(Lost):
                while not stop.is_set():
                    await self._step(partial(_over_rest, http), deposits=True)

    async def socket(self, router: Router, web: int, stop: asyncio.Event) -> None:
        """Ask over a WebSocket until told to stop, or until nobody answers."""
        url = f"{router.urls[web].replace('http', 'ws', 1)}/ws?token={self.token}"
        with contextlib.suppress(Lost, OSError, WebSocketException, TimeoutError):
            async with connect(url, compression=None, close_timeout=1, open_timeout=ANSWER_S) as socket:
                while not stop.is_set():
                    await self._step(partial(_over_socket, socket), deposits=False)

    async def _step(self, ask: Ask, *, deposits: bool) -> None:
        number = next(self.numbers)
        resting = [
            one
            for one in self.orders.values()
            if one.answer is not None and one.answer["status"] == "open" and not one.doubtful
        ]
        choice = self.dice.randrange(10)
        if choice == 0 and deposits:
            amount = Decimal(10_000) + Decimal(number).scaleb(-8)
            self.deposits[amount] = False
            answer = await ask("deposit", {"asset": "USDT", "amount": str(amount)})
            assert answer["code"] is None, answer
            self.deposits[amount] = True
        elif choice in (1, 2) and resting:
            await self._change(ask, self.dice.choice(resting), "cancel", None)
        elif choice in (3, 4) and resting:
            await self._change(ask, self.dice.choice(resting), "amend", Decimal(number).scaleb(-6))
        else:
            asked = Asked({"token_id": f"{self.name}-{number}", "symbol": SYMBOL, **self._order()}, doubtful=True)
            self.orders[asked.body["token_id"]] = asked
            self._learn(asked, await ask("place", asked.body))

    async def _change(self, ask: Ask, asked: Asked, action: str, quantity: Decimal | None) -> None:
        asked.doubtful = True
        body = {"token_id": asked.body["token_id"]} | ({} if quantity is None else {"quantity": str(quantity)})
        answer = await ask(action, body)
        if answer["code"] is None and quantity is not None:
            asked.amended = quantity
        self._learn(asked, answer)

    def _learn(self, asked: Asked, answer: Message) -> None:
        """Take an answer in. A refusal tells that nothing was changed."""
        assert answer["code"] in REFUSALS, answer
        asked.doubtful = False
        if answer["code"] is None:
            asked.answer = answer["order"]
        elif asked.answer is None:
            del self.orders[asked.body["token_id"]]  # refused: it does not exist

    def _order(self) -> Message:
        kind = self.dice.choice(("rest", "rest", "rest", "cross", "market", "ioc"))
        side = self.dice.choice(("buy", "buy", "sell"))
        quantity = str(Decimal(self.dice.randint(1, 10**5)).scaleb(-8))
        if kind == "market":
            return {"side": side, "order_type": "market", "quantity": quantity}
        away = Decimal(self.dice.randint(1, 998_999)).scaleb(-2)
        worse = -1 if side == "buy" else 1
        price = (BID if side == "buy" else ASK) + worse * (away if kind == "rest" else -100)
        return {
            "side": side, "order_type": "ioc" if kind == "ioc" else "limit", "price": str(price), "quantity": quantity,
        }  # fmt: skip

    def _http(self, router: Router, web: int) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.AsyncClient(base_url=router.urls[web], headers=headers, timeout=ANSWER_S)

    # -- after the kill

    async def check(self, router: Router, web: int) -> None:
        """Compare all that was answered with what there is; ask again for what was not."""
        async with self._http(router, web) as http:
            entries = await _all(http, "/ledger", "entries")
            found = {Decimal(entry["amount"]) for entry in entries if entry["kind"] == "deposit"}
            assert len(found) == sum(entry["kind"] == "deposit" for entry in entries), "a deposit was written twice"
            answered = {amount for amount, known in self.deposits.items() if known}
            assert answered <= found <= set(self.deposits), f"deposits lost: {answered - found}; from nowhere: {found}"
            orders = {order["token_id"]: order for order in await _all(http, "/orders", "orders")}
            assert set(orders) <= set(self.orders), "an order that nobody asked for, or that was refused"
            for token, asked in list(self.orders.items()):
                if asked.answer is not None:
                    self._same(asked, orders[token])
                else:  # never answered: asking again makes it, or tells that it is there
                    self.unanswered += 1
                    self.written += token in orders
                    asked.doubtful = True
                    again = await _over_rest(http, "place", asked.body)
                    if token not in orders:
                        self._learn(asked, again)
                        continue
                    assert again["code"] == "duplicate_token_id", again
                    assert again["refusal"]["order"]["id"] == orders[token]["id"]
                asked.answer, asked.doubtful, asked.amended = orders[token], False, None

    def _same(self, asked: Asked, now: Message) -> None:
        told = asked.answer
        assert told is not None
        assert now["id"] == told["id"]
        kept = {fill["fill_id"]: fill for fill in now["fills"]}
        for fill in told["fills"]:
            assert kept[fill["fill_id"]] == fill, "a receipt is not what it was"
        if told["status"] != "open":
            assert now["status"] == told["status"], f"{told['status']} became {now['status']}"
        elif not asked.doubtful:
            wanted = ("open", "filled") if _marketable(asked.body) else ("open",)
            assert now["status"] in wanted, f"answered open, now {now['status']}, and nothing crossed it"
            assert asked.amended is None or Decimal(now["quantity"]) == asked.amended

    async def all_executed(self, router: Router, web: int, side: str) -> None:
        """Wait until no order of this side rests any more: each was crossed."""
        async with self._http(router, web) as http:
            async with asyncio.timeout(SETTLE_S):
                resting = True
                while resting:
                    await asyncio.sleep(PAUSE_S)
                    resting = side in [order["side"] for order in await _all(http, "/orders", "orders", status="open")]
            orders = {order["token_id"]: order for order in await _all(http, "/orders", "orders")}
            for token, asked in self.orders.items():
                if asked.answer is not None and asked.answer["status"] == "open" and asked.body["side"] == side:
                    assert orders[token]["status"] == "filled", orders[token]
                    assert len(orders[token]["fills"]) == 1, "filled twice"
                asked.answer = orders[token]


def _marketable(body: Message) -> bool:
    """An order that rested because nobody showed a price executes once somebody does."""
    price = Decimal(body.get("price", ASK))
    return price >= ASK if body["side"] == "buy" else price <= BID


async def _over_rest(http: httpx.AsyncClient, action: str, body: Message) -> Message:
    token = body.get("token_id")
    method, path, sent = {
        "deposit": ("POST", "/deposit", body),
        "place": ("POST", "/orders", body),
        "amend": ("PUT", f"/orders/{token}", {"quantity": body.get("quantity")}),
        "cancel": ("DELETE", f"/orders/{token}", None),
    }[action]
    try:
        answer = await http.request(method, path, json=sent)
    except httpx.TransportError as error:
        raise Lost from error
    if answer.status_code == DOWN:
        raise Lost
    assert answer.status_code < 500, answer.text
    found = _loads(answer.text)
    refused = answer.status_code >= 400
    return {"code": found["code"] if refused else None, "order": found, "refusal": found}


async def _over_socket(socket: Any, action: str, body: Message) -> Message:
    name = {"place": "submit_order", "amend": "modify_order", "cancel": "cancel_order"}[action]
    try:
        async with asyncio.timeout(ANSWER_S):
            await socket.send(json.dumps({"action": name, "id": "asked", **body}))
            message: Message = {}
            while message.get("id") != "asked":
                message = _loads(await socket.recv())
    except (OSError, WebSocketException, TimeoutError) as error:
        raise Lost from error
    if message.get("code") in ("unavailable", "busy"):
        raise Lost
    return {"code": message.get("code"), "order": message.get("order"), "refusal": message}


def _loads(text: str | bytes) -> Message:
    message: Message = json.loads(text, parse_float=Decimal)
    return message


async def _all(http: httpx.AsyncClient, path: str, name: str, **filters: str) -> list[Message]:
    """Read a list, page by page."""
    rows: list[Message] = []
    cursor: str | None = None
    while True:
        parameters: dict[str, Any] = {"limit": PAGE, **filters} | ({"cursor": cursor} if cursor else {})
        page = _loads((await http.get(path, params=parameters)).raise_for_status().text)
        rows.extend(page[name])
        cursor = page["next_cursor"]
        if cursor is None:
            return rows


class Trial:
    """A router, its customers, and somebody who proves the rows."""

    def __init__(self, router: Router, market: SimulatedVenues, services: dict[str, "Service"], seed: int) -> None:
        self.router = router
        self.market = market
        self.services = services
        self.dice = random.Random(seed)
        self.customers: list[Customer] = []
        self.prover = Rival({**os.environ, **router.environment})
        self.kills = 0

    async def open(self) -> None:
        calm(self.market)
        await self.router.start()
        for number in range(CUSTOMERS):
            name = f"customer{number}"
            token = await self.router.register(name)
            customer = Customer(name, token, random.Random(self.dice.random()))
            self.customers.append(customer)
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=self.router.url, headers=headers, timeout=ANSWER_S) as http:
                for asset, amount in (("USDT", Decimal(20_000)), ("BTC", Decimal(1))):
                    customer.deposits[amount] = True
                    (await http.post("/deposit", json={"asset": asset, "amount": str(amount)})).raise_for_status()
        await touch_is(self.router, self.customers[0].token, ASK)

    async def close(self) -> None:
        await self.router.stop()
        await asyncio.to_thread(self.prover.stop)

    async def kill(self, part: str) -> None:
        """Let customers order, kill the part in the middle of it, start it again, and check."""
        stop = asyncio.Event()
        webs = len(self.router.urls)
        async with asyncio.TaskGroup() as customers:
            for number, customer in enumerate(self.customers):
                customers.create_task(customer.rest(self.router, number % webs, stop))
                customers.create_task(customer.socket(self.router, (number + 1) % webs, stop))
            await asyncio.sleep(self.dice.uniform(*LOAD_S))
            revive = await self._strike(part)
            await asyncio.sleep(self.dice.uniform(0, 0.3))
            stop.set()
        await revive()
        self.kills += 1
        await self.check()

    async def check(self) -> None:
        """Everything answered is there, nothing is half done, and what rests still executes, once."""
        await self._healthy()
        await touch_is(self.router, self.customers[0].token, ASK)
        await self._each(Customer.check)
        await asyncio.to_thread(self.prover.ask, "prove")
        okx = self.market["okx"]
        okx.quote(INSTRUMENT, LOWEST - 10, Decimal(1), LOWEST, Decimal(1))
        await self._each(Customer.all_executed, "buy")
        okx.quote(INSTRUMENT, HIGHEST, Decimal(1), HIGHEST + 10, Decimal(1))
        await self._each(Customer.all_executed, "sell")
        await asyncio.to_thread(self.prover.ask, "prove")
        calm(self.market)
        await touch_is(self.router, self.customers[0].token, ASK)

    async def _each(self, what: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        webs = len(self.router.urls)
        await asyncio.gather(
            *(what(one, self.router, number % webs, *arguments) for number, one in enumerate(self.customers))
        )

    async def _healthy(self) -> None:
        """Wait until every web process answers questions of the database again."""
        headers = {"Authorization": f"Bearer {self.customers[0].token}"}
        for url in self.router.urls:
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=ANSWER_S) as http:
                async with asyncio.timeout(SETTLE_S):
                    while (await http.get("/balance")).status_code == DOWN:  # noqa: ASYNC110 - others decide when
                        await asyncio.sleep(PAUSE_S)

    async def _strike(self, part: str) -> Callable[[], Awaitable[None]]:
        """Kill a part; return how to start it again."""
        if part == "router":
            await self.router.kill()
            return self.router.start
        if part in self.services:
            service = self.services[part]
            await asyncio.to_thread(service.kill)
            return partial(asyncio.to_thread, service.start)
        number = self.dice.choice([place for place, roles in enumerate(self.router.roles) if roles == part])
        process = self.router.processes[number]
        process.send_signal(signal.SIGKILL)
        await process.ended()
        return partial(self._restart, number)

    async def _restart(self, number: int) -> None:
        roles = self.router.roles[number]
        process = Process(roles, {**self.router.environment, "PORT": "0"})
        self.router.processes[number] = process
        await process.start()
        if "web" in roles:
            web = [place for place, one in enumerate(self.router.roles) if "web" in one].index(number)
            self.router.urls[web] = (await process.logged("listening"))["url"]
        else:
            await process.logged(STARTED[roles])


class Service:
    """A PostgreSQL or Redis of our own that may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError


class OwnRedis(Service):
    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip
        _until_it_listens(self.port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class OwnPostgres(Service):
    """Runs as the user `postgres` where we are root, whom PostgreSQL refuses."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.data = folder / "postgres"
        self.data.mkdir()
        if os.geteuid() == 0:
            for place in (*reversed(folder.parents), folder, self.data):
                if place.stat().st_mode & 0o005 != 0o005:
                    place.chmod(place.stat().st_mode | 0o055)
            shutil.chown(self.data, "postgres")
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-o", options, "-l", str(self.data / "log"), "start")

    def kill(self) -> None:
        """Kill every process of it; what is in memory only is gone."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(postmaster)], capture_output=True, text=True)
        for pid in (postmaster, *map(int, children.stdout.split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(Path(f"/proc/{pid}").exists() for pid in map(int, children.stdout.split())):
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        (place, *_) = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run(
            [*as_user, str(place), *arguments], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            cwd=self.data,
        )  # fmt: skip


def _until_it_listens(port: int) -> None:
    end_s = time.monotonic() + SETTLE_S
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


@contextlib.asynccontextmanager
async def trial(profile: str, folder: Path, *, seed: int, own: tuple[str, ...] = ()) -> AsyncIterator[Trial]:
    """Run a router on a profile; `own` names the services that it shall have for itself."""
    services: dict[str, Service] = {}
    with environment_of(profile, folder) as environment:
        environment["RATE_LIMITS"] = "off"
        if "postgres" in own:
            services["postgres"] = postgres = OwnPostgres(folder)
            environment["DATABASE_URL"] = postgres.url
        if "redis" in own:
            services["redis"] = redis = OwnRedis(folder)
            environment["REDIS_URL"] = redis.url
        for service in services.values():
            service.start()
        try:
            async with SimulatedVenues(SYMBOLS, seed=seed) as market:
                urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
                made = Trial(Router({**environment, **urls}, roles=roles_of(profile)), market, services, seed)
                try:
                    await made.open()
                    yield made
                except Exception:
                    for process in made.router.processes:
                        print(f"-- the log of {process.roles}:\n{process.tail()}", file=sys.stderr)
                    raise
                finally:
                    await made.close()
        finally:
            for service in services.values():
                service.kill()


async def main(arguments: argparse.Namespace) -> None:
    profile = "embedded" if arguments.part == "router" else "production"
    own = (arguments.part,) if arguments.part in ("postgres", "redis") else ()
    with tempfile.TemporaryDirectory() as folder:
        async with trial(profile, Path(folder), seed=arguments.seed, own=own) as made:
            for number in range(1, arguments.times + 1):
                began_s = time.monotonic()
                await made.kill(arguments.part)
                orders = sum(len(customer.orders) for customer in made.customers)
                print(
                    f"{arguments.part} killed {number} ×: {orders} orders, {time.monotonic() - began_s:.1f} s",
                    flush=True,
                )
        unanswered, written = (sum(getattr(one, name) for one in made.customers) for name in ("unanswered", "written"))
    print(
        f"nothing was lost in {arguments.times} kills of {arguments.part}:"
        f" of {orders} orders {unanswered} had no answer, and of these {written} were there, whole"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--part", choices=PARTS, default="router")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
