"""One session's client: a thread with its event loop, which follows the streams and keeps what they bring.

The page's fragments read `market`, `link`, `status`, `account` and `equity` and never wait for the
router; only what a person asks for (log in, place, cancel) is waited for, by `ask`.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import TimeoutError as NoAnswer
from decimal import Decimal
from typing import Any, TypeVar

from router_client import (
    AsyncAPIClient,
    Connected,
    ConnectionFailed,
    Disconnected,
    Info,
    NotFound,
    Notice,
    Refused,
    Retries,
    RouterError,
    Status,
    Stream,
    TwapOrder,
    Unauthorized,
)
from router_client.flows import Session

from dashboard import equity
from dashboard.equity import Closes, Worth
from dashboard.state import QUOTE, Account, Link, Market, Watched, marks

T = TypeVar("T")
log = logging.getLogger(__name__)

ANSWER_S = 15.0  # that a person waits for an answer
REQUEST_S = 5.0
STATUS_EVERY_S = 1.0
ACCOUNT_EVERY_S = 5.0  # and at once when something executed
EQUITY_EVERY_S = 60.0  # rebuilt from the ledger, and when a balance moved; sampled with each status in between
EQUITY_PAUSE_S = 2.0
RETRY_S = 1.0  # before a stream that ended is opened again
LOST_AFTER_S = 1.0  # a connection that comes back sooner is not told of
SILENT_AFTER_S = 8.0
BOOK_DEPTH = 20
TWAP = "twap"  # the type of a parent order
ORDERS_SHOWN = 100
TWAPS_SHOWN = 10
SLICES_A_SECOND = 200  # that are read again: an order of thousands comes with all of them each time
ENTRIES_READ, ENTRIES_A_PAGE = 5_000, 1_000
SAMPLES_KEPT = 600
CANDLES_READ = 240
EQUITY_CANDLES = 500
EQUITY_INTERVALS = {"1m": 60, "5m": 300}
RETRIES = Retries(attempts=3, first_s=0.2, max_s=1.0, patience_s=5.0)


class Feeds:
    """A client of the router in a thread of its own."""

    def __init__(self, url: str, session: Session) -> None:
        """`session` has the credentials; it is kept elsewhere and may outlive this."""
        self.url = url
        self.session = session
        self.market: Market | None = None
        self.link = Link(connected=False, since=time.monotonic())
        self.status: Status | None = None
        self.status_at = time.monotonic()
        self.info: Info | None = None
        self._info_is_due = True
        self.account: Account | None = None
        self.twaps: list[TwapOrder] = []
        self._twaps_read_at: dict[str, float] = {}
        self.refused: str | None = None  # why the credentials are no good any more
        self.paid_in: Decimal | None = None
        self._history: list[Worth] = []
        self._samples: deque[Worth] = deque(maxlen=SAMPLES_KEPT)
        self._lock = threading.Lock()
        self._executed = asyncio.Event()
        self._moved = asyncio.Event()  # a balance
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: list[asyncio.Task[None]] = []
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="dashboard feeds", daemon=True)
        self._thread.start()
        self.client = AsyncAPIClient(
            url, session=session, timeout_s=REQUEST_S, retries=RETRIES, on_notice=self._take_notice
        )

    # -- for the page

    def ask(self, work: Coroutine[Any, Any, T], timeout_s: float = ANSWER_S) -> T:
        """Wait for an answer of the router.

        Raises:
            RouterError: it refuses, is away, or takes too long.
        """
        if self._closed:
            work.close()
            raise ConnectionFailed("the page was closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except NoAnswer:
            future.cancel()
            raise ConnectionFailed(f"{self.url} did not answer in {timeout_s:g} s") from None

    def start(self) -> None:
        """Follow the account and the state of the router, from now on."""

        async def begin() -> None:
            for work in (self._follow_status, self._follow_account, self._follow_reports, self._follow_equity):
                self._spawn(work())

        self.ask(begin())

    def load(self) -> bool:
        """Read what the page cannot be shown without, where it is not there yet; return whether it is now."""

        async def read() -> None:
            self.info, self.status = await asyncio.gather(self.client.info(), self.client.status())

        if self.info is None or self.status is None:
            try:
                self.ask(read())
            except RouterError:
                return False
        return True

    def watch(self, watched: Watched) -> None:
        """Follow this market, and no other any more."""
        if self.market is not None and self.market.watched == watched:
            return
        market = self.market = Market(watched)

        async def begin() -> None:
            for task in self._watching:
                task.cancel()
            symbol, exchange = watched.symbol, watched.exchange
            client = self.client
            self._watching = [
                self._spawn(self._follow(lambda: client.best_touch(symbol, exchange), market.take_touch)),
                self._spawn(self._follow(lambda: client.trades(symbol, exchange), market.take_trade)),
                self._spawn(
                    self._follow(lambda: client.orderbook(symbol, exchange, depth=BOOK_DEPTH), market.take_book)
                ),
                self._spawn(
                    self._follow(lambda: client.klines(symbol, exchange, interval=watched.interval), market.take_kline)
                ),
                self._spawn(self._read_history(market)),
            ]

        self.ask(begin())

    def refresh(self) -> None:
        """Read the account now, so that the page shows what was just done."""
        self.ask(self._read_account())

    @property
    def lost(self) -> str | None:
        """What is wrong with the connection to the router; None when all is well."""
        now = time.monotonic()
        if not self.link.connected and now - self.link.since > LOST_AFTER_S:
            return self.link.reason or "no connection"
        if now - self.status_at > SILENT_AFTER_S:
            return "no answers"
        return None

    @property
    def worths(self) -> list[Worth]:
        """What the account was worth, oldest first."""
        with self._lock:
            return [*self._history, *self._samples]

    def close(self) -> None:
        """End the connection and the thread, without waiting for them."""
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)

    # -- in the loop

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.client.aclose()
        finally:
            self._loop.call_soon(self._loop.stop)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, stream: Callable[[], Stream[T]], take: Callable[[T], None]) -> None:
        """Hand over what a stream brings, and open it again when it ends."""

        async def once() -> None:
            async with stream() as items:
                async for item in items:
                    take(item)

        await self._keep_on(once, RETRY_S)

    async def _follow_status(self) -> None:
        async def once() -> None:
            async with asyncio.timeout(REQUEST_S):
                if self._info_is_due:
                    self.info = await self.client.info()
                    self._info_is_due = False
                self.status = await self.client.status()
            self.status_at = time.monotonic()
            self._sample()

        await self._keep_on(once, STATUS_EVERY_S)

    async def _follow_account(self) -> None:
        async def once() -> None:
            self._executed.clear()
            await self._read_account()
            running = any(order.is_open for order in self.twaps)
            with contextlib.suppress(TimeoutError):  # nothing executed; what another client did is seen now
                async with asyncio.timeout(STATUS_EVERY_S if running else ACCOUNT_EVERY_S):
                    await self._executed.wait()

        await self._keep_on(once, 0.2)

    async def _follow_reports(self) -> None:
        await self._follow(self.client.order_updates, lambda _: self._executed.set())

    async def _follow_equity(self) -> None:
        async def once() -> None:
            self._moved.clear()
            await self._rebuild_equity()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EQUITY_EVERY_S):
                    await self._moved.wait()

        await self._keep_on(once, EQUITY_PAUSE_S)

    async def _keep_on(self, once: Callable[[], Awaitable[None]], pause_s: float) -> None:
        """Do it again and again; what fails is tried again, but for credentials that are refused."""
        while True:
            wait_s = pause_s
            try:
                await once()
            except Unauthorized as error:
                self.refused = error.message
                return
            except (RouterError, TimeoutError):
                wait_s = RETRY_S  # the page sees it by the link and the age of the status
            except Exception:
                log.exception("a part of the page is not followed; trying again")
                wait_s = RETRY_S
            await asyncio.sleep(wait_s)

    def _take_notice(self, notice: Notice) -> None:
        if isinstance(notice, Connected):
            self.link = Link(connected=True, since=time.monotonic())
            self._info_is_due = True  # another router may have come in its place
            if self.market is not None:
                self._spawn(self._read_history(self.market))  # the candles of the time away
            self._executed.set()
        elif isinstance(notice, Disconnected):
            self.link = Link(connected=False, since=time.monotonic(), reason=notice.reason)

    async def _read_history(self, market: Market) -> None:
        watched = market.watched
        try:
            klines = await self.client.get_klines(
                watched.symbol, watched.exchange, interval=watched.interval, limit=CANDLES_READ
            )
        except RouterError:
            return  # read again with the next connection
        market.take_history(klines.candles)

    async def _read_account(self) -> None:
        balances, opened, page = await asyncio.gather(
            self.client.balance(), self.client.orders(status="open"), self.client.orders(limit=ORDERS_SHOWN)
        )
        if self.account is None or balances.balances != self.account.balances.balances:
            self._moved.set()
        placed = [order for order in opened.orders if order.order_type != TWAP]
        self.account = Account(balances, placed, page.orders)
        ids = [order.id for order in page.orders if order.order_type == TWAP][:TWAPS_SHOWN]
        self.twaps = [await self._read_twap(order_id) for order_id in ids]

    async def _read_twap(self, order_id: str) -> TwapOrder:
        """Return a TWAP order; one that has ended, or was read just now, as it was read."""
        known = next((order for order in self.twaps if order.order_id == order_id), None)
        if known is not None:
            again_at = self._twaps_read_at[order_id] + known.slices / SLICES_A_SECOND
            if not known.is_open or time.monotonic() < again_at:
                return known
        order = await self.client.twap(order_id)
        self._twaps_read_at[order_id] = time.monotonic()
        return order

    # -- equity

    def _sample(self) -> None:
        if self.account is None or self.status is None or self._moved.is_set():
            return  # what moved may be a deposit: first the ledger tells
        value = equity.worth(self._totals(), marks(self.status))
        with self._lock:
            self._samples.append(Worth(time.time(), value))

    def _totals(self) -> dict[str, Decimal]:
        assert self.account is not None
        return {balance.asset: balance.total for balance in self.account.balances.balances}

    async def _rebuild_equity(self) -> None:
        page = await self.client.ledger(limit=ENTRIES_A_PAGE)
        entries = list(page.entries)
        while page.next_cursor and len(entries) < ENTRIES_READ:
            page = await self.client.ledger(limit=ENTRIES_A_PAGE, cursor=page.next_cursor)
            entries += page.entries
        balances = await self.client.balance()
        totals = {balance.asset: balance.total for balance in balances.balances}
        now = time.time()
        begin = min((entry.created_at.timestamp() for entry in entries if entry.created_at), default=now)
        assets = sorted({entry.asset for entry in entries} - {QUOTE})
        closes = dict(zip(assets, [await self._closes(asset, now - begin) for asset in assets], strict=True))
        history = equity.rebuild(entries, totals, closes, now)
        with self._lock:
            self._history = history
            while self._samples and history and self._samples[0].at <= history[-1].at:
                self._samples.popleft()
            self.paid_in = equity.paid_in(entries, closes)

    async def _closes(self, asset: str, span_s: float) -> Closes:
        """Return an asset's prices over a time until now, as fine as that time allows."""
        interval, seconds = next(
            (given for given in EQUITY_INTERVALS.items() if span_s < given[1] * EQUITY_CANDLES), ("5m", 300)
        )
        try:
            klines = await self.client.get_klines(asset + QUOTE, interval=interval, limit=EQUITY_CANDLES)
        except (NotFound, Refused):
            return Closes((), seconds)
        return Closes(klines.candles, seconds)
