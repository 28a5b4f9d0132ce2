"""The synchronous client. `AsyncAPIClient` has the same calls as coroutines."""

import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from router_client import calls, flows
from router_client.background import BackgroundStreams, SyncStream
from router_client.calls import Call
from router_client.errors import AnswerLost, ConnectionFailed, RouterError
from router_client.flows import Answer, Flow, Renew, Retries, Send, Session, Wait
from router_client.models import (
    ALL,
    ApiKey,
    Balances,
    BasicAccount,
    BestTouch,
    Books,
    Deposited,
    Entry,
    Ewma,
    Fill,
    FillPage,
    Health,
    Info,
    Kline,
    Klines,
    LedgerPage,
    Notice,
    Order,
    OrderBook,
    OrderPage,
    OrderUpdate,
    RateLimit,
    Status,
    Tokens,
    Trade,
    TwapOrder,
)
from router_client.wire import Number

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 20.0
# Raised before a request leaves: whatever it asks was not done.
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


class APIClient:
    """A client of one router, over REST, and over a WebSocket of its own thread for the streams.

    Every call raises a `RouterError`: `Refused` with a `code`, `InvalidRequest` with `problems`,
    `Unauthorized`, `NotFound`, `TooManyRequests`, `Unavailable`, `ConnectionFailed`. Reading calls
    are repeated by themselves, orders too, once each whatever happens to the answers. Usable from
    several threads.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        refresh_token: str | None = None,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
    ) -> None:
        """Credentials may be given here (name and password log in at the first call that needs it), or later."""
        self.url = url.rstrip("/")
        self.session = Session(
            username=username, password=password, token=token, refresh_token=refresh_token, api_key=api_key
        )
        self.retries = retries or Retries()
        self._timeout_s = timeout_s
        self._renewing = threading.Lock()
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s)
        self._streams = BackgroundStreams(self.url, self.session, timeout_s, self.retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; iterators end."""
        self._streams.close()
        self._http.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the last answer said of the limit: how many in all, how many are left, seconds until it is whole."""
        return self.session.rate_limit

    # -- who you are

    def register(self, username: str, password: str) -> Tokens:
        """Make a user and log in. `Refused` with code `username_taken` where the name is in use."""
        return self._run(flows.register(username, password, self.session, self.retries))

    def login(self, username: str, password: str) -> Tokens:
        """Log in; tokens are renewed by themselves from then on."""
        return self._run(flows.log_in(username, password, self.session, self.retries))

    def refresh(self) -> bool:
        """Renew the access token now; return whether that was possible."""
        return self._run(flows.renew(self.session, self.retries))

    def logout(self) -> None:
        """Forget the credentials."""
        self.session.forget()

    def register_basic(self) -> BasicAccount:
        """Make an account that has nothing but an API key, and use it from now on."""
        made = self._call(calls.register_basic())
        self.session.forget()
        self.session.api_key = made.api_key
        return made

    def api_keys(self) -> list[ApiKey]:
        """Return the account's keys, without their secrets."""
        return self._call(calls.api_keys()).api_keys

    def create_api_key(self, name: str = "") -> ApiKey:
        """Make a key. Its `api_key` is shown this once."""
        return self._call(calls.create_api_key(name))

    def delete_api_key(self, key_id: int | str) -> None:
        """Revoke a key."""
        self._call(calls.delete_api_key(key_id))

    # -- the market

    def info(self) -> Info:
        """Return assets, pairs, exchanges, intervals, streams and order types."""
        return self._call(calls.info())

    def exchanges(self) -> list[str]:
        """Return the names of the exchanges."""
        return self._call(calls.exchanges())

    def pairs(self, exchange: str) -> list[str]:
        """Return the pairs that an exchange really carries."""
        return self._call(calls.pairs(exchange))

    def get_klines(
        self,
        symbol: str,
        exchange: str = ALL,
        *,
        interval: str = "1m",
        limit: int | None = None,
        start: Number | datetime | None = None,
        end: Number | datetime | None = None,
    ) -> Klines:
        """Return candles, oldest first; `start` and `end` (seconds or datetime) bound their open times."""
        return self._call(calls.klines(symbol, exchange, interval=interval, limit=limit, start=start, end=end))

    def get_orderbook(self, symbol: str, exchange: str = ALL, *, depth: int | None = None) -> OrderBook:
        """Return the best levels, up to 20 a side."""
        return self._call(calls.orderbook(symbol, exchange, depth=depth))

    def status(self) -> Status:
        """Return the state of the market data: each exchange, each symbol's touch."""
        return self._call(calls.status())

    def health(self) -> Health:
        """Return whether the process answers."""
        return self._call(calls.health())

    def ready(self) -> Health:
        """Return whether the router is ready; `Unavailable` while it is not."""
        return self._call(calls.ready())

    def metrics(self) -> str:
        """Return the metrics in Prometheus' text."""
        return self._call(calls.metrics())

    # -- the account

    def deposit(self, asset: str, amount: Number) -> Deposited:
        """Add paper money. Not repeated by itself: `AnswerLost` means that it may be in the balance or not."""
        return self._call(calls.deposit(asset, amount))

    def balance(self) -> Balances:
        """Return every asset's balance."""
        return self._call(calls.balance())

    def reset_account(self, balances: Mapping[str, Number] | None = None) -> Balances:
        """Cancel everything and start again with nothing, or with these balances; history stays."""
        return self._call(calls.reset_account(balances))

    def fills(
        self,
        *,
        symbol: str | None = None,
        order: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> FillPage:
        """Return a page of receipts, newest first; maybe those of a symbol, or of one order (its token id)."""
        return self._call(calls.fills(symbol=symbol, order=order, limit=limit, cursor=cursor))

    def iter_fills(self, *, symbol: str | None = None, order: str | None = None) -> Iterator[Fill]:
        """Yield all receipts, newest first, page by page."""
        page = self.fills(symbol=symbol, order=order)
        yield from page.fills
        while page.next_cursor:
            page = self.fills(symbol=symbol, order=order, cursor=page.next_cursor)
            yield from page.fills

    def ledger(
        self,
        *,
        asset: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> LedgerPage:
        """Return a page of the ledger, newest first; kinds are deposit, credit, fill, fee and reset."""
        return self._call(calls.ledger(asset=asset, kind=kind, limit=limit, cursor=cursor))

    def iter_ledger(self, *, asset: str | None = None, kind: str | None = None) -> Iterator[Entry]:
        """Yield all entries, newest first, page by page."""
        page = self.ledger(asset=asset, kind=kind)
        yield from page.entries
        while page.next_cursor:
            page = self.ledger(asset=asset, kind=kind, cursor=page.next_cursor)
            yield from page.entries

    def fills_csv(self) -> str:
        """Return all receipts as CSV."""
        return self._call(calls.csv("/fills"))

    def ledger_csv(self) -> str:
        """Return the whole ledger as CSV."""
        return self._call(calls.csv("/ledger"))

    # -- orders

    def place_order(
        self,
        symbol: str,
        side: str,
        quantity: Number,
        price: Number | None = None,
        *,
        order_type: str = "limit",
        token_id: str | None = None,
    ) -> Order:
        """Place an order, once: when the answer is lost, the router is asked for it by its token id.

        Raises:
            DuplicateTokenId: the token id was used before; `.order` is that order.
            Refused: `insufficient_funds`, `no_market`, `unknown_symbol`, `amount_too_large`.
        """
        new = calls.new_order(symbol, side, quantity, price, order_type=order_type, token_id=token_id)
        return self._run(flows.place_order(new, self.session, self.retries))

    def orders(
        self,
        *,
        status: str | None = None,
        symbol: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> OrderPage:
        """Return a page of orders, newest first."""
        return self._call(calls.orders(status=status, symbol=symbol, limit=limit, cursor=cursor))

    def iter_orders(self, *, status: str | None = None, symbol: str | None = None) -> Iterator[Order]:
        """Yield all orders, newest first, page by page."""
        page = self.orders(status=status, symbol=symbol)
        yield from page.orders
        while page.next_cursor:
            page = self.orders(status=status, symbol=symbol, cursor=page.next_cursor)
            yield from page.orders

    def order(self, token_id: str) -> Order:
        """Return an order by its token id, or its id."""
        return self._call(calls.order(token_id))

    def amend_order(self, token_id: str, *, price: Number | None = None, quantity: Number | None = None) -> Order:
        """Change an open order; one that crosses the market now executes at once."""
        return self._run(flows.amend_order(token_id, calls.change(price, quantity), self.session, self.retries))

    def cancel_order(self, token_id: str) -> Order:
        """End an open order. `Refused` with code `order_not_open` where it has ended."""
        return self._run(flows.cancel_order(token_id, self.session, self.retries))

    def cancel_all(self, symbol: str | None = None) -> list[Order]:
        """End all open orders, or those of one symbol; return them."""
        return self._call(calls.cancel_all(symbol)).orders

    def place_twap(
        self,
        symbol: str,
        side: str,
        total_quantity: Number,
        *,
        duration_seconds: Number,
        slices: int,
        limit_price: Number | None = None,
        exchange: str = ALL,
        token_id: str | None = None,
    ) -> TwapOrder:
        """Place an order that executes in equal slices over a time, once like any order."""
        new = calls.new_twap(
            symbol,
            side,
            total_quantity,
            duration_seconds=duration_seconds,
            slices=slices,
            limit_price=limit_price,
            exchange=exchange,
            token_id=token_id,
        )
        return self._run(flows.place_twap(new, self.session, self.retries))

    def twap(self, order_id: str) -> TwapOrder:
        """Return a TWAP order with its executions."""
        return self._call(calls.twap(order_id))

    def stop_twap(self, order_id: str) -> TwapOrder:
        """Stop a TWAP order; what it executed stays. `Refused` with code `order_not_open` where it has ended."""
        return self._run(flows.stop_twap(order_id, self.session, self.retries))

    # -- streams; see AsyncAPIClient

    def best_touch(self, symbol: str, exchange: str = ALL) -> SyncStream[BestTouch]:
        """Yield the best bid and ask as they change, the newest where reading is slow."""
        return self._streams.open(lambda client: client.best_touch(symbol, exchange))

    def trades(self, symbol: str, exchange: str = ALL) -> SyncStream[Trade]:
        """Yield every trade once."""
        return self._streams.open(lambda client: client.trades(symbol, exchange))

    def klines(self, symbol: str, exchange: str = ALL, *, interval: str = "1m") -> SyncStream[Kline]:
        """Yield the running candle every second and each closed one once."""
        return self._streams.open(lambda client: client.klines(symbol, exchange, interval=interval))

    def ewma(self, symbol: str, exchange: str = ALL, *, half_life: Number = 30) -> SyncStream[Ewma]:
        """Yield the moving average of the trade price."""
        return self._streams.open(lambda client: client.ewma(symbol, exchange, half_life=half_life))

    def orderbook(self, symbol: str, exchange: str = ALL, *, depth: int = 10) -> SyncStream[OrderBook]:
        """Yield the book, the newest where reading is slow."""
        return self._streams.open(lambda client: client.orderbook(symbol, exchange, depth=depth))

    def order_updates(self, *, from_seq: int | None = None) -> SyncStream[OrderUpdate]:
        """Yield the account's executions, each once and none missing, over reconnects too."""
        return self._streams.open(lambda client: client.order_updates(from_seq=from_seq))

    def notices(self) -> SyncStream[Notice]:
        """Yield what happens to the exchanges and to the connection."""
        return self._streams.open(lambda client: client.notices())

    def websocket_orderbook(self, exchange: str | None = None) -> SyncStream[Books]:
        """Yield one image a second of all books (of one exchange); needs no credentials."""
        return self._streams.open(lambda client: client.websocket_orderbook(exchange))

    # -- carrying out

    def _call(self, wanted: Call[T]) -> T:
        return self._run(flows.call(wanted, self.session, self.retries))

    def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    done = self._do(step)
                except RouterError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(done)
        except StopIteration as end:
            result: T = end.value
            return result

    def _do(self, step: Send | Wait | Renew) -> Any:
        if isinstance(step, Send):
            return self._exchange(step)
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        with self._renewing:
            return self._run(flows.renew(self.session, self.retries, seen=step.seen))

    def _exchange(self, send: Send) -> Answer:
        try:
            answer = self._http.request(
                send.method, send.path, params=dict(send.params), headers=dict(send.headers), content=send.body
            )
        except httpx.HTTPError as error:
            raise failure(self.url, error) from error
        return Answer(answer.status_code, dict(answer.headers.items()), answer.content)


def failure(url: str, error: Exception) -> ConnectionFailed:
    """Return what a failed exchange means: nothing was asked, or nobody knows."""
    told: Any = str(error) or type(error).__name__
    if isinstance(error, NOT_SENT):
        return ConnectionFailed(f"{url} cannot be reached: {told}", code="connection_failed")
    return AnswerLost(f"{url} did not answer: {told}", code="answer_lost")
