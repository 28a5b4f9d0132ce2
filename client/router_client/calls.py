"""Every route of the router as a value: what to send, what comes back, and whether it may be sent twice."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from msgspec import Struct

from router_client import wire
from router_client.models import (
    ALL,
    ApiKey,
    ApiKeys,
    Balances,
    BasicAccount,
    Deposited,
    FillPage,
    Health,
    Info,
    Klines,
    LedgerPage,
    Order,
    OrderBook,
    OrderPage,
    Status,
    Tokens,
    TwapOrder,
)
from router_client.wire import Number

T = TypeVar("T")

TOKEN_ID_BYTES = 10  # of chance: unique among an account's orders
NO_NAMES = frozenset({"", ".", ".."})  # as a path they would name something else
TICK = Decimal("1E-8")  # of every price, quantity and amount


class Repeat(Enum):
    """When a failed call may be sent again."""

    SAFE = "whatever happened"
    NOT_DONE = "when it surely was not done"


class Call(Struct, Generic[T], frozen=True):
    """One request. `answer` is the type of what comes back: a model, or str or bytes for the body as it is."""

    method: str
    path: str
    answer: type[T]
    params: Mapping[str, str] = {}
    body: Any = None
    repeat: Repeat = Repeat.NOT_DONE
    public: bool = False  # needs no credentials, and none are asked for


def get(path: str, answer: type[T], params: Mapping[str, Any] | None = None, *, public: bool = False) -> Call[T]:
    """Return a reading call; parameters that are None are left away."""
    given = {name: _text(value) for name, value in (params or {}).items() if value is not None}
    return Call("GET", path, answer, given, repeat=Repeat.SAFE, public=public)


# -- who you are


def register(username: str, password: str) -> Call[Tokens]:
    return Call("POST", "/register", Tokens, body={"username": username, "password": password}, public=True)


def register_basic() -> Call[BasicAccount]:
    return Call("POST", "/register", BasicAccount, {"client_type": "basic_client"}, public=True)


def login(username: str, password: str) -> Call[Tokens]:
    body = {"username": username, "password": password}
    return Call("POST", "/login", Tokens, body=body, repeat=Repeat.SAFE, public=True)


def refresh(refresh_token: str) -> Call[Tokens]:
    body = {"refresh_token": refresh_token}
    return Call("POST", "/token/refresh", Tokens, body=body, repeat=Repeat.SAFE, public=True)


def api_keys() -> Call[ApiKeys]:
    return get("/api-keys", ApiKeys)


def create_api_key(name: str) -> Call[ApiKey]:
    return Call("POST", "/api-keys", ApiKey, body={"name": name})


def delete_api_key(key_id: int | str) -> Call[bytes]:
    return Call("DELETE", f"/api-keys/{_quoted(str(key_id))}", bytes, repeat=Repeat.SAFE)


# -- the market


def info() -> Call[Info]:
    return get("/info", Info, public=True)


def exchanges() -> Call[list[str]]:
    return get("/exchanges", list[str], public=True)


def pairs(exchange: str) -> Call[list[str]]:
    return get(f"/exchanges/{_quoted(exchange)}/pairs", list[str], public=True)


def klines(
    symbol: str,
    exchange: str = ALL,
    *,
    interval: str = "1m",
    limit: int | None = None,
    start: Number | datetime | None = None,
    end: Number | datetime | None = None,
) -> Call[Klines]:
    params = {"interval": interval, "limit": limit, "start": _seconds(start), "end": _seconds(end)}
    return get(f"/klines/{_quoted(exchange)}/{_quoted(_symbol(symbol))}", Klines, params, public=True)


def orderbook(symbol: str, exchange: str = ALL, *, depth: int | None = None) -> Call[OrderBook]:
    path = f"/orderbook/{_quoted(exchange)}/{_quoted(_symbol(symbol))}"
    return get(path, OrderBook, {"depth": depth}, public=True)


def status() -> Call[Status]:
    return get("/status", Status, public=True)


def health() -> Call[Health]:
    return get("/health", Health, public=True)


def ready() -> Call[Health]:
    return get("/ready", Health, public=True)


def metrics() -> Call[str]:
    return get("/metrics", str, public=True)


# -- the account


def deposit(asset: str, amount: Number) -> Call[Deposited]:
    return Call("POST", "/deposit", Deposited, body={"asset": asset, "amount": wire.exact(amount, "amount")})


def balance() -> Call[Balances]:
    return get("/balance", Balances)


def reset_account(balances: Mapping[str, Number] | None) -> Call[Balances]:
    body: dict[str, Any] = {}
    if balances is not None:
        body = {"balances": {asset: wire.exact(amount, asset) for asset, amount in balances.items()}}
    return Call("POST", "/account/reset", Balances, body=body)


def fills(*, symbol: str | None, order: str | None, limit: int | None, cursor: str | None) -> Call[FillPage]:
    return get("/fills", FillPage, {"symbol": symbol, "order": order, "limit": limit, "cursor": cursor})


def ledger(*, asset: str | None, kind: str | None, limit: int | None, cursor: str | None) -> Call[LedgerPage]:
    return get("/ledger", LedgerPage, {"asset": asset, "kind": kind, "limit": limit, "cursor": cursor})


def csv(path: str) -> Call[str]:
    return get(path, str, {"format": "csv"})


# -- orders


class NewOrder(Struct, frozen=True, omit_defaults=True):
    """An order as it is sent."""

    token_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal | None = None
    order_type: str | None = None

    def is_that_of(self, order: Order) -> bool:
        """Whether an order on the router has these terms: the one that was sent, its answer lost."""
        asked = (_symbol(self.symbol), self.side.lower(), self.order_type or "limit", _rounded(self.quantity))
        if asked != (order.symbol, order.side, order.order_type, order.quantity):
            return False
        # A market order shows what it cost, and so does an ioc: only the limit of a limit order is its own.
        return order.order_type != "limit" or self.price is None or _rounded(self.price) == order.price


def new_order(
    symbol: str, side: str, quantity: Number, price: Number | None, *, order_type: str, token_id: str | None
) -> NewOrder:
    """Return an order to send, under a token id of its own where none is given."""
    return NewOrder(
        token_id or _new_token_id(),
        symbol,
        side,
        wire.exact(quantity, "quantity"),
        None if price is None else wire.exact(price, "price"),
        order_type,
    )


def place_order(new: NewOrder) -> Call[Order]:
    return Call("POST", "/orders", Order, body=new)


def orders(*, status: str | None, symbol: str | None, limit: int | None, cursor: str | None) -> Call[OrderPage]:
    params = {"status": status, "symbol": symbol, "limit": limit, "cursor": cursor}
    return get("/orders", OrderPage, params)


def order(token_id: str) -> Call[Order]:
    return get(_order_path(token_id), Order)


class Change(Struct, frozen=True, omit_defaults=True):
    """A change of an open order as it is sent."""

    price: Decimal | None = None
    quantity: Decimal | None = None

    def is_done(self, order: Order) -> bool:
        """Whether the order is as it should become."""
        return (self.price is None or order.price == _rounded(self.price)) and (
            self.quantity is None or order.quantity == _rounded(self.quantity)
        )


def change(price: Number | None, quantity: Number | None) -> Change:
    return Change(
        None if price is None else wire.exact(price, "price"),
        None if quantity is None else wire.exact(quantity, "quantity"),
    )


def amend_order(token_id: str, change: Change) -> Call[Order]:
    return Call("PUT", _order_path(token_id), Order, body=change)


def cancel_order(token_id: str) -> Call[Order]:
    return Call("DELETE", _order_path(token_id), Order)


def cancel_all(symbol: str | None) -> Call[OrderPage]:
    params = {} if symbol is None else {"symbol": symbol}
    return Call("DELETE", "/orders", OrderPage, params, repeat=Repeat.SAFE)


class NewTwap(Struct, frozen=True, omit_defaults=True):
    """A TWAP order as it is sent."""

    token_id: str
    symbol: str
    side: str
    total_quantity: Decimal
    duration_seconds: Decimal
    slices: int
    exchange: str
    limit_price: Decimal | None = None

    def is_that_of(self, order: TwapOrder) -> bool:
        asked = (_symbol(self.symbol), self.side.lower(), self.exchange.lower(), self.slices)
        return asked == (order.symbol, order.side, order.exchange, order.slices) and (
            _rounded(self.total_quantity) == order.total_quantity
        )


def new_twap(
    symbol: str,
    side: str,
    total_quantity: Number,
    *,
    duration_seconds: Number,
    slices: int,
    limit_price: Number | None,
    exchange: str,
    token_id: str | None,
) -> NewTwap:
    return NewTwap(
        token_id or _new_token_id(),
        symbol,
        side,
        wire.exact(total_quantity, "total_quantity"),
        wire.exact(duration_seconds, "duration_seconds"),
        slices,
        exchange,
        None if limit_price is None else wire.exact(limit_price, "limit_price"),
    )


def place_twap(new: NewTwap) -> Call[TwapOrder]:
    return Call("POST", "/orders/twap", TwapOrder, body=new)


def twap(order_id: str) -> Call[TwapOrder]:
    return get(_order_path(order_id), TwapOrder)


def stop_twap(order_id: str) -> Call[TwapOrder]:
    return Call("DELETE", _order_path(order_id), TwapOrder)


# -- words


def fields(body: NewOrder | Change) -> dict[str, Any]:
    """Return what a body says, by name."""
    given = {name: getattr(body, name) for name in body.__struct_fields__}
    return {name: value for name, value in given.items() if value is not None}


def _new_token_id() -> str:
    return secrets.token_hex(TOKEN_ID_BYTES)


def _symbol(symbol: str) -> str:
    return symbol.upper().replace("-", "").replace("/", "")


def _order_path(token_id: str) -> str:
    if token_id in NO_NAMES:
        raise ValueError(f"no order is called {token_id!r}")
    return f"/orders/{_quoted(token_id)}"


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(TICK, ROUND_HALF_EVEN)


def _seconds(moment: Number | datetime | None) -> str | None:
    if moment is None:
        return None
    if isinstance(moment, datetime):
        return f"{moment.timestamp():.6f}"
    return wire.plain(wire.exact(moment, "a moment in seconds"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
