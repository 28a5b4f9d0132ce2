"""The asynchronous client: REST and the one WebSocket behind all its iterators."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from router_client import calls, flows, streams, wire
from router_client.buffers import Candles, Everything, Latest
from router_client.calls import Call
from router_client.client import DEFAULT_URL, TIMEOUT_S, failure
from router_client.errors import AnswerLost, RouterError, TooManyRequests
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
    Subscribed,
    Tokens,
    Trade,
    TwapOrder,
)
from router_client.streams import BooksSocket, Reports, Socket, Stream
from router_client.wire import Number

T = TypeVar("T")

CONNECTIONS_MAX = 100  # of REST calls at the same time; more wait for their turn
TRADES_MAX = 10_000  # trades that wait for their reader
CANDLES_MAX = 1_000


class AsyncAPIClient:
    """A client of one router. Every call raises a `RouterError`, as in `APIClient`.

    The iterators share one WebSocket, opened with the first of them. It comes back by itself,
    with its subscriptions; an iterator that is read slowly holds up no other.
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
        session: Session | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: Retries | None = None,
        on_notice: Callable[[Notice], None] | None = None,
    ) -> None:
        """Credentials may be given here (name and password log in at the first call that needs it), or later.

        `on_notice` is called with what happens to the exchanges and the connection; see `notices`.
        """
        self.url = url.rstrip("/")
        self.session = session or Session(
            username=username, password=password, token=token, refresh_token=refresh_token, api_key=api_key
        )
        self.retries = retries or Retries()
        self._renewing = asyncio.Lock()
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        self._http = httpx.AsyncClient(base_url=self.url, timeout=timeout_s, limits=limits)
        socket_url = self.url.replace("http", "ws", 1) + "/ws"
        self._socket = Socket(
            socket_url, self.session, self._renew, retries=self.retries, timeout_s=timeout_s, on_notice=on_notice
        )
        self._books: dict[str | None, BooksSocket] = {}
        self._timeout_s = timeout_s
        self.ws = SocketOrders(self, self._socket)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; iterators end."""
        await self._socket.close()
        for books in self._books.values():
            await books.close()
        await self._http.aclose()

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the last answer said of the limit: how many in all, how many are left, seconds until it is whole."""
        return self.session.rate_limit

    # -- who you are

    async def register(self, username: str, password: str) -> Tokens:
        """Make a user and log in. `Refused` with code `username_taken` where the name is in use."""
        return await self._run(flows.register(username, password, self.session, self.retries))

    async def login(self, username: str, password: str) -> Tokens:
        """Log in; tokens are renewed by themselves from then on."""
        return await self._run(flows.log_in(username, password, self.session, self.retries))

    async def refresh(self) -> bool:
        """Renew the access token now; return whether that was possible."""
        return await self._run(flows.renew(self.session, self.retries))

    def logout(self) -> None:
        """Forget the credentials."""
        self.session.forget()

    async def register_basic(self) -> BasicAccount:
        """Make an account that has nothing but an API key, and use it from now on."""
        made = await self._call(calls.register_basic())
        self.session.forget()
        self.session.api_key = made.api_key
        return made

    async def api_keys(self) -> list[ApiKey]:
        """Return the account's keys, without their secrets."""
        return (await self._call(calls.api_keys())).api_keys

    async def create_api_key(self, name: str = "") -> ApiKey:
        """Make a key. Its `api_key` is shown this once."""
        return await self._call(calls.create_api_key(name))

    async def delete_api_key(self, key_id: int | str) -> None:
        """Revoke a key."""
        await self._call(calls.delete_api_key(key_id))

    # -- the market

    async def info(self) -> Info:
        """Return assets, pairs, exchanges, intervals, streams and order types."""
        return await self._call(calls.info())

    async def exchanges(self) -> list[str]:
        """Return the names of the exchanges."""
        return await self._call(calls.exchanges())

    async def pairs(self, exchange: str) -> list[str]:
        """Return the pairs that an exchange really carries."""
        return await self._call(calls.pairs(exchange))

    async def get_klines(
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
        return await self._call(calls.klines(symbol, exchange, interval=interval, limit=limit, start=start, end=end))

    async def get_orderbook(self, symbol: str, exchange: str = ALL, *, depth: int | None = None) -> OrderBook:
        """Return the best levels, up to 20 a side."""
        return await self._call(calls.orderbook(symbol, exchange, depth=depth))

    async def status(self) -> Status:
        """Return the state of the market data: each exchange, each symbol's touch."""
        return await self._call(calls.status())

    async def health(self) -> Health:
        """Return whether the process answers."""
        return await self._call(calls.health())

    async def ready(self) -> Health:
        """Return whether the router is ready; `Unavailable` while it is not."""
        return await self._call(calls.ready())

    async def metrics(self) -> str:
        """Return the metrics in Prometheus' text."""
        return await self._call(calls.metrics())

    # -- the account

    async def deposit(self, asset: str, amount: Number) -> Deposited:
        """Add paper money. Not repeated by itself: `AnswerLost` means that it may be in the balance or not."""
        return await self._call(calls.deposit(asset, amount))

    async def balance(self) -> Balances:
        """Return every asset's balance."""
        return await self._call(calls.balance())

    async def reset_account(self, balances: Mapping[str, Number] | None = None) -> Balances:
        """Cancel everything and start again with nothing, or with these balances; history stays."""
        return await self._call(calls.reset_account(balances))

    async def fills(
        self,
        *,
        symbol: str | None = None,
        order: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> FillPage:
        """Return a page of receipts, newest first; maybe those of a symbol, or of one order (its token id)."""
        return await self._call(calls.fills(symbol=symbol, order=order, limit=limit, cursor=cursor))

    async def iter_fills(self, *, symbol: str | None = None, order: str | None = None) -> AsyncIterator[Fill]:
        """Yield all receipts, newest first, page by page."""
        page = await self.fills(symbol=symbol, order=order)
        while True:
            for item in page.fills:
                yield item
            if not page.next_cursor:
                return
            page = await self.fills(symbol=symbol, order=order, cursor=page.next_cursor)

    async def ledger(
        self,
        *,
        asset: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> LedgerPage:
        """Return a page of the ledger, newest first; kinds are deposit, credit, fill, fee and reset."""
        return await self._call(calls.ledger(asset=asset, kind=kind, limit=limit, cursor=cursor))

    async def iter_ledger(self, *, asset: str | None = None, kind: str | None = None) -> AsyncIterator[Entry]:
        """Yield all entries, newest first, page by page."""
        page = await self.ledger(asset=asset, kind=kind)
        while True:
            for item in page.entries:
                yield item
            if not page.next_cursor:
                return
            page = await self.ledger(asset=asset, kind=kind, cursor=page.next_cursor)

    async def fills_csv(self) -> str:
        """Return all receipts as CSV."""
        return await self._call(calls.csv("/fills"))

    async def ledger_csv(self) -> str:
        """Return the whole ledger as CSV."""
        return await self._call(calls.csv("/ledger"))

    # -- orders

    async def place_order(
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
        return await self._run(flows.place_order(new, self.session, self.retries))

    async def orders(
        self,
        *,
        status: str | None = None,
        symbol: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> OrderPage:
        """Return a page of orders, newest first."""
        return await self._call(calls.orders(status=status, symbol=symbol, limit=limit, cursor=cursor))

    async def iter_orders(self, *, status: str | None = None, symbol: str | None = None) -> AsyncIterator[Order]:
        """Yield all orders, newest first, page by page."""
        page = await self.orders(status=status, symbol=symbol)
        while True:
            for item in page.orders:
                yield item
            if not page.next_cursor:
                return
            page = await self.orders(status=status, symbol=symbol, cursor=page.next_cursor)

    async def order(self, token_id: str) -> Order:
        """Return an order by its token id, or its id."""
        return await self._call(calls.order(token_id))

    async def amend_order(self, token_id: str, *, price: Number | None = None, quantity: Number | None = None) -> Order:
        """Change an open order; one that crosses the market now executes at once."""
        return await self._run(flows.amend_order(token_id, calls.change(price, quantity), self.session, self.retries))

    async def cancel_order(self, token_id: str) -> Order:
        """End an open order. `Refused` with code `order_not_open` where it has ended."""
        return await self._run(flows.cancel_order(token_id, self.session, self.retries))

    async def cancel_all(self, symbol: str | None = None) -> list[Order]:
        """End all open orders, or those of one symbol; return them."""
        return (await self._call(calls.cancel_all(symbol))).orders

    async def place_twap(
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
        return await self._run(flows.place_twap(new, self.session, self.retries))

    async def twap(self, order_id: str) -> TwapOrder:
        """Return a TWAP order with its executions."""
        return await self._call(calls.twap(order_id))

    async def stop_twap(self, order_id: str) -> TwapOrder:
        """Stop a TWAP order; what it executed stays. `Refused` with code `order_not_open` where it has ended."""
        return await self._run(flows.stop_twap(order_id, self.session, self.retries))

    # -- streams

    def best_touch(self, symbol: str, exchange: str = ALL) -> Stream[BestTouch]:
        """Yield the best bid and ask as they change, the newest where reading is slow."""
        return Stream(self._socket, lambda: streams.subscription("best_touch", symbol, exchange, Latest[BestTouch]()))

    def trades(self, symbol: str, exchange: str = ALL) -> Stream[Trade]:
        """Yield every trade once; `SlowConsumer` for who falls ten thousand behind.

        Trades of the time in which the connection was away are missing; `notices` tells of it.
        """
        return Stream(
            self._socket, lambda: streams.subscription("trades", symbol, exchange, Everything[Trade](TRADES_MAX))
        )

    def klines(self, symbol: str, exchange: str = ALL, *, interval: str = "1m") -> Stream[Kline]:
        """Yield the running candle every second and each closed one once, never left out for a newer one."""
        return Stream(
            self._socket,
            lambda: streams.subscription("klines", symbol, exchange, Candles(CANDLES_MAX), interval=interval),
        )

    def ewma(self, symbol: str, exchange: str = ALL, *, half_life: Number = 30) -> Stream[Ewma]:
        """Yield the moving average of the trade price; `half_life` in seconds."""
        seconds = wire.exact(half_life, "half_life")
        return Stream(
            self._socket, lambda: streams.subscription("ewma", symbol, exchange, Latest[Ewma](), half_life=seconds)
        )

    def orderbook(self, symbol: str, exchange: str = ALL, *, depth: int = 10) -> Stream[OrderBook]:
        """Yield the book, up to 20 levels a side, the newest where reading is slow."""
        return Stream(
            self._socket, lambda: streams.subscription("orderbook", symbol, exchange, Latest[OrderBook](), depth=depth)
        )

    def order_updates(self, *, from_seq: int | None = None) -> Stream[OrderUpdate]:
        """Yield the account's executions, each once and none missing, over reconnects too.

        They begin with the next one, or with the one after `from_seq`.
        """
        return Stream(self._socket, lambda: Reports(from_seq))

    def notices(self) -> Stream[Notice]:
        """Yield what happens to the exchanges (`VenueChange`, `TradeGap`) and the connection."""
        return Stream(self._socket, streams.notices)

    def websocket_orderbook(self, exchange: str | None = None) -> Stream[Books]:
        """Yield one image a second of all books (of one exchange); needs no credentials."""
        if exchange not in self._books:
            path = "/ws/orderbook" if exchange is None else f"/ws/orderbook/{exchange}"
            url = self.url.replace("http", "ws", 1) + path
            self._books[exchange] = BooksSocket(url, retries=self.retries, timeout_s=self._timeout_s)
        return Stream(self._books[exchange], streams.books)

    # -- carrying out

    async def run(self, make: Callable[[Session, Retries], Flow[T]]) -> T:
        """Carry out a flow with this client's credentials."""
        return await self._run(make(self.session, self.retries))

    async def _call(self, wanted: Call[T]) -> T:
        return await self._run(flows.call(wanted, self.session, self.retries))

    async def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    done = await self._do(step)
                except RouterError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(done)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _do(self, step: Send | Wait | Renew) -> Any:
        if isinstance(step, Send):
            return await self._exchange(step)
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        return await self._renew(step.seen)

    async def _renew(self, seen: int) -> bool:
        async with self._renewing:
            return await self._run(flows.renew(self.session, self.retries, seen=seen))

    async def _exchange(self, send: Send) -> Answer:
        try:
            answer = await self._http.request(
                send.method, send.path, params=dict(send.params), headers=dict(send.headers), content=send.body
            )
        except httpx.HTTPError as error:
            raise failure(self.url, error) from error
        return Answer(answer.status_code, dict(answer.headers.items()), answer.content)


class SocketOrders:
    """Orders over the WebSocket: quicker than REST, and the same otherwise; over the tier's pace they wait a little.

    Where the connection goes before the answer comes, REST is asked what became of it.
    """

    def __init__(self, client: AsyncAPIClient, socket: Socket) -> None:
        self._client = client
        self._socket = socket

    async def submit_order(
        self,
        symbol: str,
        side: str,
        quantity: Number,
        price: Number | None = None,
        *,
        order_type: str = "limit",
        token_id: str | None = None,
    ) -> Order:
        """Place an order, once. Raises as `AsyncAPIClient.place_order`."""
        new = calls.new_order(symbol, side, quantity, price, order_type=order_type, token_id=token_id)
        try:
            return await self._ask("submit_order", **calls.fields(new))
        except AnswerLost:
            return await self._client.run(lambda session, retries: flows.recover_order(new, session, retries))

    async def modify_order(
        self, token_id: str, *, price: Number | None = None, quantity: Number | None = None
    ) -> Order:
        """Change an open order."""
        change = calls.change(price, quantity)
        try:
            return await self._ask("modify_order", token_id=token_id, **calls.fields(change))
        except AnswerLost:
            return await self._client.run(
                lambda session, retries: flows.recover_amend(token_id, change, session, retries)
            )

    async def cancel_order(self, token_id: str) -> Order:
        """End an open order."""
        try:
            return await self._ask("cancel_order", token_id=token_id)
        except AnswerLost:
            return await self._client.run(lambda session, retries: flows.recover_cancel(token_id, session, retries))

    @property
    def connections(self) -> int:
        """How often the socket was opened."""
        return self._socket.connections

    async def ping(self) -> None:
        """Wait for the router's answer on the socket."""
        await self._socket.ask("ping")

    async def subscriptions(self) -> list[Subscribed]:
        """Return what the router sends to this socket."""
        return (await self._socket.ask("list")).subscriptions

    async def _ask(self, action: str, **fields: Any) -> Order:
        attempt = 0
        while True:
            try:
                return wire.decode((await self._socket.ask(action, **fields)).order, Order)
            except TooManyRequests as error:  # refused before anything was done
                wait_s = self._client.retries.wait_s(attempt, error)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
            attempt += 1
