"""Whether all works: every venue's prices reach each web process, orders are answered, what rests executes."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from itertools import count

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.chaos.board import PROBED, PROBED_SYMBOL, SIZE, VENUES
from tests.chaos.customers import PASSWORD
from tests.chaos.system import System

NAME = "probe"
MONEY = {"asset": "USDT", "amount": "1000000000"}
PRICE, LOWER = Decimal(2_000), Decimal(1_500)  # where marks begin, and a limit that they do not reach
ATTEMPT_S = 2.0
PAUSE_S = 0.05
PULSE_S = 0.1  # between two new prices: a venue tells nothing while nothing changes
GIVE_UP_S = 60.0


class NotYet(Exception):
    """Something answers, and not as it should."""


class Probe:
    def __init__(self, system: System) -> None:
        self._system = system
        self._token = ""
        self._marks = (PRICE + Decimal(number) / 100 for number in count(1))
        self.road: list[str] = []  # the attempts in vain, since the last time that all worked
        self._tokens = (f"{NAME}-{number}" for number in count(1))

    async def open(self) -> None:
        self._token = await register(self._system.url, NAME)
        async with self._http() as http:
            (await http.post("/deposit", json=MONEY)).raise_for_status()

    async def all_works(self, since_s: float) -> float | None:
        """Wait until all works; return how long after a moment of the monotonic clock that was, None if it never is."""
        self.road.clear()
        try:
            async with asyncio.timeout(GIVE_UP_S):
                for look in (self._all_hear, self._trades):
                    await self._until(look, since_s)
        except TimeoutError:
            return None
        return time.monotonic() - since_s

    async def _until(self, look: Callable[[], Awaitable[None]], since_s: float) -> None:
        """Look again and again until all is as it should be, and note what was not."""
        while True:
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    await look()
            except (NotYet, OSError, TimeoutError, WebSocketException, httpx.HTTPError) as error:
                self.road.append(f"{time.monotonic() - since_s:.1f} s: {look.__name__}: {error!r}")
                await asyncio.sleep(PAUSE_S)
            else:
                return

    async def _all_hear(self) -> None:
        shown: dict[str, set[Decimal]] = {venue: set() for venue in VENUES}
        pulse = asyncio.create_task(self._pulse(shown))
        try:
            await asyncio.gather(*(self._hears(web, shown) for web in self._system.webs))
        finally:
            pulse.cancel()

    async def _pulse(self, shown: dict[str, set[Decimal]]) -> None:
        while True:
            for venue in VENUES:
                ask = next(self._marks)
                shown[venue].add(ask)
                self._quote(venue, ask)
            await asyncio.sleep(PULSE_S)

    def _quote(self, venue: str, ask: Decimal) -> None:
        self._system.market[venue].quote(PROBED, ask - 1, SIZE, ask, SIZE)

    async def _hears(self, web: str, shown: dict[str, set[Decimal]]) -> None:
        """Wait until a new client of a web process sees a price of each venue that was made for it."""
        url = f"{web.replace('http', 'ws', 1)}/ws?token={self._token}"
        async with connect(url, compression=None, max_queue=None, close_timeout=0.1, open_timeout=1) as socket:
            for venue in VENUES:
                subscribe = {"action": "subscribe", "stream": "best_touch", "symbol": PROBED_SYMBOL, "exchange": venue}
                await socket.send(json.dumps(subscribe))
            missing = set(VENUES)
            while missing:
                data = json.loads(await socket.recv(), parse_float=Decimal).get("data", {})
                if data.get("best_ask") in shown.get(data.get("exchange"), ()):
                    missing.discard(data["exchange"])

    async def _trades(self) -> None:
        """Rest an order, let the market cross it, and wait until it is executed."""
        token = next(self._tokens)
        limit = {
            "symbol": PROBED_SYMBOL,
            "side": "buy",
            "order_type": "limit",
            "price": str(LOWER),
            "quantity": "0.001",
        }
        async with self._http() as http:
            made = await http.post("/orders", json={**limit, "token_id": token})
            if made.status_code != 201 or made.json()["status"] != "open":
                raise NotYet(made.text)
            try:
                while True:
                    for venue in VENUES:  # one that moved so far alone would not be believed
                        self._quote(venue, next(self._marks) - (PRICE - LOWER) - 100)
                    await asyncio.sleep(PAUSE_S)
                    if (await http.get(f"/orders/{token}")).raise_for_status().json()["status"] == "filled":
                        return
            finally:
                for venue in VENUES:
                    self._quote(venue, next(self._marks))

    def _http(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self._token}"}
        return httpx.AsyncClient(base_url=self._system.url, headers=headers, timeout=ATTEMPT_S)


async def register(url: str, name: str) -> str:
    """Make the user, or log in, and return the access token."""
    body = {"username": name, "password": PASSWORD}
    async with httpx.AsyncClient(base_url=url, timeout=10.0) as http:
        answer = await http.post("/register", json=body)
        if answer.status_code == 400:
            answer = await http.post("/login", json=body)
        return str(answer.raise_for_status().json()["access_token"])
