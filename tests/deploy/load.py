"""Steady load through the proxy that remembers every answer, and sockets that come back and resume."""

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.end_to_end.test_orders_ws import Trader, limit_order, market_order
from tests.running import ANSWER_S, Message

ORDER_PAUSE_S = 0.02
REST_PRICE = "40000"  # far from the market


class Load:
    """Customers of one account: what they asked, what they were answered, and what its sockets were told."""

    def __init__(self, trader: Trader, *, customers: int = 3, listeners: int = 4) -> None:
        self.trader = trader
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []  # every answer that is not the expected one, and every one that never came
        self.bought: list[str] = []  # token ids of executed orders, as answered
        self.doubtful: list[Message] = []  # orders whose answer was that there is none
        self.listeners = [Listener(trader) for _ in range(listeners)]
        self._customers = customers
        self._stop = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Order and listen inside; on leaving, let what is asked be answered."""
        listening = [asyncio.create_task(listener.run()) for listener in self.listeners]
        asking = [asyncio.create_task(self._customer(keep_alive=number > 0)) for number in range(self._customers)]
        try:
            yield self
            self._stop.set()
            await asyncio.gather(*asking)
            async with asyncio.timeout(ANSWER_S):
                for listener in self.listeners:
                    await listener.heard(await self.executed())
        finally:
            for task in (*asking, *listening):
                task.cancel()
            await asyncio.gather(*asking, *listening, return_exceptions=True)

    async def more(self, count: int) -> None:
        """Wait until so many more orders are answered."""
        wanted = len(self.bought) + count
        async with asyncio.timeout(ANSWER_S):
            while len(self.bought) < wanted:  # noqa: ASYNC110 - each customer adds to it
                await asyncio.sleep(0.05)

    async def executed(self) -> int:
        """Return how many reports the account must have been told: one for each fill."""
        count, cursor = 0, None
        while True:
            path = "/fills?limit=200" + (f"&cursor={cursor}" if cursor else "")
            page = (await self.trader.rest("GET", path)).raise_for_status().json()
            count += len(page["fills"])
            cursor = page["next_cursor"]
            if cursor is None:
                return count

    async def _customer(self, *, keep_alive: bool) -> None:
        """Buy, look, rest, amend, cancel, without end. Without keep-alive each request is a connection of its own."""
        headers = {"Authorization": f"Bearer {self.trader.token}"}
        limits = httpx.Limits(max_keepalive_connections=8 if keep_alive else 0)
        async with httpx.AsyncClient(
            base_url=self.trader.router.url, headers=headers, timeout=ANSWER_S, limits=limits
        ) as http:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                await asyncio.sleep(ORDER_PAUSE_S)
                order = market_order("0.0001")
                if await self._ask(http, "POST", "/orders", 201, order):
                    self.bought.append(order["token_id"])
                await self._ask(http, "GET", "/balance", 200)
                if number % 4 == 0:
                    resting = limit_order(REST_PRICE)
                    path = f"/orders/{resting['token_id']}"
                    if await self._ask(http, "POST", "/orders", 201, resting):
                        await self._ask(http, "PUT", path, 200, {"quantity": "0.002"})
                        await self._ask(http, "GET", path, 200)
                        await self._ask(http, "DELETE", path, 200)

    async def _ask(self, http: httpx.AsyncClient, method: str, path: str, expected: int, body: Any = None) -> bool:
        try:
            answer = await http.request(method, path, json=body)
        except httpx.TransportError as error:
            self.failures.append(f"{method} {path}: {error!r}")
            return False
        self.statuses[answer.status_code] += 1
        if answer.status_code == expected:
            return True
        self.failures.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        if method == "POST":
            self.doubtful.append(body)
        return False


class Listener:
    """A socket of the account that connects again whenever it is closed, and asks for what it missed."""

    def __init__(self, trader: Trader) -> None:
        self.seqs: list[int] = []
        self.closes: list[int] = []
        self.refusals: list[str] = []
        self._trader = trader
        self._news = asyncio.Condition()

    async def run(self) -> None:
        url = f"{self._trader.router.url.replace('http', 'ws', 1)}/ws?token={self._trader.token}"
        while True:
            try:
                async with connect(url, compression=None, max_queue=None, close_timeout=2) as socket:
                    last = self.seqs[-1] if self.seqs else 0
                    await socket.send(json.dumps({"action": "resume", "from_seq": last}))
                    async for frame in socket:
                        message = json.loads(frame, parse_float=Decimal)
                        if message["type"] == "order_update":
                            async with self._news:
                                self.seqs.append(message["seq"])
                                self._news.notify_all()
                    self.closes.append(socket.close_code or 0)
            except ConnectionClosed as closed:
                self.closes.append(closed.rcvd.code if closed.rcvd else 1006)
            except (InvalidStatus, OSError) as error:
                self.refusals.append(repr(error))
                await asyncio.sleep(0.1)  # as a client that is refused does

    async def heard(self, count: int) -> None:
        """Wait until so many reports came."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.seqs) >= count)
