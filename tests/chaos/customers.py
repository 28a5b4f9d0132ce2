"""Users who order without pause over REST and a WebSocket, remember every answer, and later look whether it held."""

import asyncio
import contextlib
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.chaos.board import ASK, BID, SPREAD, SWING, SYMBOL, Board
from tests.chaos.findings import Findings
from tests.running import Message

ANSWER_S = 10.0
AGAIN_S = 0.1  # who was not answered tries again so much later
PACE_S = 0.02  # between two requests of a customer on one connection
PAGE = 1_000
PASSWORD = "password123"
DOWN = (503, 507)  # what the contract allows while something that the router needs is down
REFUSALS = (None, "no_market", "insufficient_funds", "order_not_open", "nothing_to_change")
UNWRITTEN = ("unavailable", "busy", "storage_full")  # over the WebSocket
TWAP = {"side": "buy", "symbol": SYMBOL, "duration_seconds": 2, "slices": 8}
TWAP_INTERVAL_S = 0.25
BURST = 4  # slices; two may come late, and together with the next one
CROSSING = Decimal(SWING) + 100  # dollars beyond the touch, wherever that is just now

Ask = Callable[[str, Message], Awaitable[Message]]


class Lost(Exception):
    """There was no definite answer: what was asked may have happened, or not."""


@dataclass
class Asked:
    """An order that a customer asked for, and what is known of it."""

    body: Message
    action: str = "place"
    answer: Message | None = None  # the newest one
    doubtful: bool = False  # something was asked of it and not answered
    amended: Decimal | None = None  # the quantity of the last amendment that was answered


@dataclass
class Customer:
    """One user: what was asked, what was answered, and what the sockets were told."""

    name: str
    token: str
    url: str
    board: Board
    findings: Findings
    dice: random.Random
    orders: dict[str, Asked] = field(default_factory=dict)
    deposits: dict[Decimal, bool] = field(default_factory=dict)  # each of another amount: whether it was answered
    seqs: list[int] = field(default_factory=list)  # of the reports that its listener heard
    news: asyncio.Event = field(default_factory=asyncio.Event)  # set with each of them
    # TWAP order → slice → when it was executed, by the router's clock
    slices: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    answered: int = 0
    unanswered: int = 0

    # -- under load

    async def rest(self, stop: asyncio.Event) -> None:
        """Ask over REST until told to stop."""
        async with self._http() as http:
            while not stop.is_set():
                try:
                    await self._step(partial(self._over_rest, http), deposits=True)
                except Lost:
                    self.unanswered += 1
                    await asyncio.sleep(AGAIN_S)

    async def socket(self, stop: asyncio.Event) -> None:
        """Ask over WebSockets, one after another, until told to stop."""
        while not stop.is_set():
            with contextlib.suppress(Lost, OSError, WebSocketException, TimeoutError):
                async with self._socket() as socket:
                    while not stop.is_set():
                        await self._step(partial(self._over_socket, socket), deposits=False)
            if not stop.is_set():
                self.unanswered += 1
                await asyncio.sleep(AGAIN_S)

    async def listen(self) -> None:
        """Hear every report of executions, over as many sockets as it takes, each going on where the last one ended."""
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                async with self._socket() as socket:
                    before = len(self.seqs)
                    last = self.seqs[-1] if self.seqs else 0
                    await socket.send(json.dumps({"action": "resume", "from_seq": last}))
                    async for frame in socket:
                        message = _loads(frame)
                        if message["type"] == "resumed":
                            del self.seqs[before:]  # what came before, on a socket that took long to open, comes again
                        elif message["type"] == "order_update":
                            self.seqs.append(message["seq"])
                            self.news.set()
                            fill = message["data"]["fill"]
                            if fill is not None and "slice" in fill:
                                executed = datetime.fromisoformat(fill["executed_at"])
                                self.slices[fill["order"]][fill["slice"]] = executed.timestamp()
            await asyncio.sleep(AGAIN_S)

    async def _step(self, ask: Ask, *, deposits: bool) -> None:
        await asyncio.sleep(PACE_S)
        number = next(self.numbers)
        resting = [
            one
            for one in self.orders.values()
            if one.action == "place" and one.answer is not None and one.answer["status"] == "open" and not one.doubtful
        ]
        choice = self.dice.randrange(12)
        if choice == 0 and deposits:
            amount = Decimal(10_000) + Decimal(number).scaleb(-8)
            self.deposits[amount] = False
            answer = await ask("deposit", {"asset": "USDT", "amount": str(amount)})
            self.findings.check(answer["code"] is None, "wrong", f"a deposit was refused: {answer}")
            self.deposits[amount] = True
        elif choice in (1, 2) and resting:
            await self._change(ask, self.dice.choice(resting), "cancel", None)
        elif choice in (3, 4) and resting:
            await self._change(ask, self.dice.choice(resting), "amend", Decimal(number).scaleb(-6))
        elif choice == 5 and deposits and number % 4 == 0:
            await self._place(ask, "twap", {"token_id": f"{self.name}-{number}", **TWAP, "total_quantity": "0.00008"})
        else:
            await self._place(ask, "place", {"token_id": f"{self.name}-{number}", "symbol": SYMBOL, **self._order()})

    async def _place(self, ask: Ask, action: str, body: Message) -> None:
        asked = Asked(body, action, doubtful=True)
        self.orders[body["token_id"]] = asked
        self._learn(asked, await ask(action, body))

    async def _change(self, ask: Ask, asked: Asked, action: str, quantity: Decimal | None) -> None:
        asked.doubtful = True
        body = {"token_id": asked.body["token_id"]} | ({} if quantity is None else {"quantity": str(quantity)})
        answer = await ask(action, body)
        if answer["code"] is None and quantity is not None:
            asked.amended = quantity
        self._learn(asked, answer)

    def _learn(self, asked: Asked, answer: Message) -> None:
        """Take an answer in. A refusal tells that nothing was changed."""
        self.answered += 1
        token = asked.body["token_id"]
        self.findings.check(answer["code"] in REFUSALS, "wrong", f"{token} was refused: {answer['refusal']}")
        # A proxy may repeat what a process that died had done: it then says that the order is not open any more.
        asked.doubtful = answer["code"] == "order_not_open"
        if answer["code"] is None:
            asked.answer = answer["order"]
        elif asked.answer is None:
            del self.orders[token]  # refused: it does not exist

    def _order(self) -> Message:
        kind = self.dice.choice(("rest", "rest", "rest", "near", "cross", "market", "ioc"))
        side = self.dice.choice(("buy", "buy", "sell"))
        quantity = str(Decimal(self.dice.randint(1, 10**5)).scaleb(-8))
        if kind == "market":
            return {"side": side, "order_type": "market", "quantity": quantity}
        reach = {"rest": (SWING + 1, 9_900), "near": (1, SWING)}.get(kind)
        away = -CROSSING if reach is None else Decimal(self.dice.randint(reach[0] * 100, reach[1] * 100)).scaleb(-2)
        price = BID - SPREAD - away if side == "buy" else ASK + SPREAD + away
        return {
            "side": side, "order_type": "ioc" if kind == "ioc" else "limit", "price": str(price), "quantity": quantity,
        }  # fmt: skip

    # -- what they say and hear

    def _http(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=ANSWER_S)

    @contextlib.asynccontextmanager
    async def _socket(self) -> AsyncIterator[Any]:
        url = f"{self.url.replace('http', 'ws', 1)}/ws?token={self.token}"
        async with connect(url, compression=None, max_queue=None, close_timeout=1, open_timeout=ANSWER_S) as socket:
            yield socket

    async def _over_rest(self, http: httpx.AsyncClient, action: str, body: Message) -> Message:
        token = body.get("token_id")
        method, path, sent = {
            "deposit": ("POST", "/deposit", body),
            "place": ("POST", "/orders", body),
            "twap": ("POST", "/orders/twap", body),
            "amend": ("PUT", f"/orders/{token}", {"quantity": body.get("quantity")}),
            "cancel": ("DELETE", f"/orders/{token}", None),
        }[action]
        try:
            answer = await http.request(method, path, json=sent)
        except httpx.TransportError as error:
            raise Lost from error
        if answer.status_code == 401:
            await self.log_in()
            raise Lost
        if answer.status_code >= 500:
            allowed = answer.status_code in DOWN and (answer.status_code != 503 or "retry-after" in answer.headers)
            self.findings.check(allowed, "wrong", f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            raise Lost
        found = _loads(answer.text)
        refused = answer.status_code >= 400
        return {"code": found["code"] if refused else None, "order": found, "refusal": found}

    async def _over_socket(self, socket: Any, action: str, body: Message) -> Message:
        name = {"place": "submit_order", "amend": "modify_order", "cancel": "cancel_order"}[action]
        try:
            async with asyncio.timeout(ANSWER_S):
                await socket.send(json.dumps({"action": name, "id": "asked", **body}))
                message: Message = {}
                while message.get("id") != "asked":
                    message = _loads(await socket.recv())
        except (OSError, WebSocketException, TimeoutError) as error:
            raise Lost from error
        if message.get("code") in UNWRITTEN:
            raise Lost
        return {"code": message.get("code"), "order": message.get("order"), "refusal": message}

    async def log_in(self) -> None:
        """Take a new token: the old one ran out."""
        with contextlib.suppress(httpx.HTTPError, KeyError):
            async with httpx.AsyncClient(base_url=self.url, timeout=ANSWER_S) as http:
                answer = await http.post("/login", json={"username": self.name, "password": PASSWORD})
                self.token = answer.json()["access_token"]

    # -- afterwards

    async def check(self, age_s: float | None) -> None:
        """Compare all that was answered with what there is; ask again for what was not.

        Prices must have been shown at most `age_s` before they were taken; None where the router's
        clock cannot be compared with ours.
        """
        async with self._http() as http:
            entries = await everything(http, "/ledger", "entries")
            made = [Decimal(entry["amount"]) for entry in entries if entry["kind"] == "deposit"]
            for amount in {amount for amount in made if made.count(amount) > 1}:
                self.findings.add("doubled", f"{self.name}: a deposit of {amount} was written twice")
            for amount in {amount for amount, known in self.deposits.items() if known} - set(made):
                self.findings.add("lost", f"{self.name}: a deposit of {amount} that was answered")
            for amount in set(made) - set(self.deposits):
                self.findings.add("wrong", f"{self.name}: a deposit of {amount} that nobody made")
            rows = await everything(http, "/orders", "orders")
            orders = {order["token_id"]: order for order in rows}
            self.findings.check(len(orders) == len(rows), "doubled", f"{self.name}: two orders with one token_id")
            for token in set(orders) - set(self.orders):
                self.findings.add("wrong", f"{self.name}: {token}, which nobody asked for or was refused, is there")
            for token, asked in list(self.orders.items()):
                if asked.answer is None:  # never answered: asking again makes it, or tells that it is there
                    await self._ask_again(http, asked, orders.get(token))
                elif token not in orders:
                    self.findings.add("lost", f"{token} was answered {asked.answer['status']} and is not there")
                else:
                    self._same(asked, orders[token])
                    asked.answer, asked.doubtful, asked.amended = orders[token], False, None
            for order in orders.values():
                for fill in order["fills"]:
                    self._price_is_right(fill, age_s)

    async def _ask_again(self, http: httpx.AsyncClient, asked: Asked, now: Message | None) -> None:
        again = await self._over_rest(http, asked.action, asked.body)
        if now is None:
            asked.doubtful = True
            self._learn(asked, again)
            return
        same = again["code"] == "duplicate_token_id" and again["refusal"]["order"]["id"] == now["id"]
        self.findings.check(same, "doubled", f"{now['token_id']} was there, and asking again said {again['refusal']}")
        asked.answer, asked.doubtful = now, False

    def _same(self, asked: Asked, now: Message) -> None:
        told, token = asked.answer, asked.body["token_id"]
        assert told is not None
        check = self.findings.check
        check(now["id"] == told["id"], "wrong", f"{token} has another id than was answered")
        kept = {fill["fill_id"]: fill for fill in now["fills"]}
        for fill in told["fills"]:
            check(
                kept.get(fill["fill_id"]) == fill, "lost", f"{token}: the receipt {fill} is {kept.get(fill['fill_id'])}"
            )
        if told["status"] != "open":
            check(now["status"] == told["status"], "lost", f"{token} was answered {told['status']}, is {now['status']}")
        elif not asked.doubtful and asked.action == "place":
            wanted = ("open", "filled")
            check(now["status"] in wanted, "lost", f"{token} was answered open, and is {now['status']}")
            amended = asked.amended is None or Decimal(now["quantity"]) == asked.amended
            check(amended, "lost", f"{token}: its amendment to {asked.amended}; it has {now['quantity']}")

    def _price_is_right(self, fill: Message, age_s: float | None) -> None:
        venue, side, price = fill["exchange"], fill["side"], Decimal(fill["price"])
        at_s = datetime.fromisoformat(fill["executed_at"]).timestamp()
        if age_s is None:
            self.findings.check(self.board.was_told(venue, side, price), "wrong", f"{venue} never showed {fill}")
            return
        age = self.board.age_s(venue, side, price, at_s)
        if age is None:
            self.findings.add("wrong", f"{venue} had not shown the price of {fill}")
        elif age > age_s:
            self.findings.add("wrong", f"{venue} showed the price {age:.1f} s before {fill}")

    async def resting(self, side: str) -> list[str]:
        """Return the token ids of what rests on this side."""
        async with self._http() as http:
            orders = await everything(http, "/orders", "orders", status="open")
        return [order["token_id"] for order in orders if order["side"] == side]

    async def executed(self, side: str) -> None:
        """Check that what rested on this side was executed, once, now that the market crossed all of it."""
        async with self._http() as http:
            orders = {order["token_id"]: order for order in await everything(http, "/orders", "orders")}
        for token, asked in self.orders.items():
            before, now = asked.answer, orders.get(token)
            if now is None or before is None or asked.action != "place":
                continue
            if before["status"] == "open" and before["side"] == side:
                self.findings.check(now["status"] == "filled", "lost", f"{token} was crossed and is {now['status']}")
                self.findings.check(len(now["fills"]) == 1, "doubled", f"{token} rested and has fills {now['fills']}")
            asked.answer = now

    async def reports(self) -> int:
        """Return how many reports there must be: one for each execution."""
        async with self._http() as http:
            return len(await everything(http, "/fills", "fills"))

    async def all_heard(self, count: int) -> None:
        """Wait until the listener has so many reports, and check that it was told each once, in order."""
        while len(self.seqs) < count:
            self.news.clear()
            await self.news.wait()
        doubled = len(self.seqs) - len(set(self.seqs))
        self.findings.check(not doubled, "doubled", f"{self.name} was told {doubled} reports twice")
        missing = set(range(1, count + 1)) - set(self.seqs)
        self.findings.check(not missing, "lost", f"{self.name} was never told the reports {sorted(missing)[:5]}")
        self.findings.check(self.seqs == sorted(self.seqs), "wrong", f"{self.name} was told reports out of order")

    def kept_pace(self) -> None:
        """Check that no TWAP order ran several slices at once."""
        for order, ran in self.slices.items():
            times = [ran[number] for number in sorted(ran)]
            for first, last in zip(times, times[BURST - 1 :], strict=False):
                if 0 <= last - first < TWAP_INTERVAL_S:  # the clock may have been set back between them
                    self.findings.add("wrong", f"{self.name}: {order} ran {BURST} slices in {last - first:.2f} s")


def _loads(text: str | bytes) -> Message:
    message: Message = json.loads(text, parse_float=Decimal)
    return message


async def everything(http: httpx.AsyncClient, path: str, name: str, **filters: str) -> list[Message]:
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
