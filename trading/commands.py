"""What a client asks of its account, as types, and the one reader of each from JSON."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from msgspec import Struct

from core.account import Market
from core.errors import Invalid
from core.events import Side
from core.instruments import Catalogue
from core.money import read_amount
from core.orders import SIMPLE_TYPES, OrderType, Terms
from core.twap import DURATION_MAX_S, SLICES_MAX
from marketdata.batches import ALL

C = TypeVar("C", bound=StrEnum)

TOKEN_LENGTH_MAX = 128
ASSET_LENGTH_MAX = 16
DIGITS_MAX = 9  # of a whole number that is sent as a string
RESERVED_TOKENS = frozenset({".", "..", "twap"})
NAMING_RULE = (
    "must be 1 to 128 printable ASCII characters without '/', not starting or ending with a space,"
    " and not '.', '..' or 'twap'"
)


class Deposit(Struct, frozen=True):
    account_id: int
    asset: str
    amount: int
    kind: str = "deposit"  # or "credit": given by whoever runs the router


class Place(Struct, frozen=True):
    account_id: int
    terms: Terms
    key: str = ""  # of the token that asks; empty where the caller checked the user


class Amend(Struct, frozen=True):
    account_id: int
    token: str  # token id, or order id
    price: int | None
    quantity: int | None
    key: str = ""  # of the token that asks; empty where the caller checked the user


class Cancel(Struct, frozen=True):
    account_id: int
    token: str
    reason: str = "by_client"
    key: str = ""  # of the token that asks; empty where the caller checked the user


class CancelAll(Struct, frozen=True):
    account_id: int
    instrument: str | None = None
    reason: str = "by_client"
    key: str = ""  # of the token that asks; empty where the caller checked the user


class Reset(Struct, frozen=True):
    account_id: int
    balances: Mapping[str, int]  # asset → units to start again with


class FillResting(Struct, frozen=True):
    """The matcher's: this order is crossed by this market, seen at that moment (monotonic clock)."""

    account_id: int
    order_id: str
    market: Market
    seen_ns: int


class PlaceTwap(Struct, frozen=True):
    """A parent order. Its terms have the type TWAP, perhaps no token id, perhaps no price: the exchange finds one."""

    account_id: int
    terms: Terms
    venue: str  # or "all"
    duration_s: int
    slices: int


class RunSlices(Struct, frozen=True):
    """Of the one who keeps the schedule: run slices first … end − 1; the market's mean so far, as totals."""

    account_id: int
    order_id: str
    first: int
    end: int
    market_sum: int  # price × µs
    market_us: int


Command = Deposit | Place | PlaceTwap | Amend | Cancel | CancelAll | Reset | FillResting | RunSlices


def read_object(body: object) -> Mapping[str, Any]:
    """Return a body that is a JSON object.

    Raises:
        Invalid: it is something else.
    """
    if not isinstance(body, dict):
        raise Invalid("send a JSON object", loc=("body",), kind="type_error")
    return body


def read_deposit(body: Mapping[str, Any]) -> tuple[str, int]:
    """Read a deposit: an asset, which may not exist, and an amount in units."""
    return read_asset(body.get("asset")), read_amount(body.get("amount"), loc=("body", "amount"))


def read_start(body: Mapping[str, Any]) -> Mapping[str, int]:
    """Read what an account starts again with: assets, which may not exist, and amounts in units; maybe none."""
    balances = body.get("balances", {})
    if not isinstance(balances, dict):
        raise Invalid('must be an object such as {"USDT": 1000}', loc=("body", "balances"), kind="type_error")
    start: dict[str, int] = {}
    for name, amount in balances.items():
        asset = read_asset(name, loc=("body", "balances", name))
        if asset in start:
            raise Invalid(f"{asset} comes twice", loc=("body", "balances", name))
        start[asset] = read_amount(amount, loc=("body", "balances", name))
    return start


def read_terms(body: Mapping[str, Any], catalogue: Catalogue) -> Terms:
    """Read an order as a client writes it.

    Raises:
        Invalid: a field is missing, or of the wrong shape or value.
        UnknownSymbol: the symbol is not served here.
    """
    token_id = read_token(body.get("token_id"))
    symbol = body.get("symbol")
    if not isinstance(symbol, str):
        raise _missing_or("symbol", symbol, "must be a string such as BTCUSDT")
    side = _choice("side", body.get("side"), Side)
    order_type = (
        OrderType.LIMIT if body.get("order_type") is None else _choice("order_type", body["order_type"], SIMPLE_TYPES)
    )
    price: int | None = None
    if order_type is OrderType.LIMIT or (order_type is OrderType.IOC and body.get("price") is not None):
        price = read_amount(body.get("price"), loc=("body", "price"))
    elif body.get("price") is not None:
        read_amount(body["price"], loc=("body", "price"))  # a market order has no limit, but nonsense is told
    quantity = read_amount(body.get("quantity"), loc=("body", "quantity"))
    return Terms(token_id, catalogue.find(symbol).name, side, order_type, price, quantity)


def read_twap(body: Mapping[str, Any], catalogue: Catalogue, venues: Sequence[str]) -> tuple[Terms, str, int, int]:
    """Read a parent order as a client writes it: terms, exchange, duration in seconds, and slices.

    Raises:
        Invalid: a field is missing, or of the wrong shape or value.
        UnknownSymbol: the symbol is not served here.
    """
    token_id = "" if body.get("token_id") is None else read_token(body["token_id"])
    name = "pair" if body.get("symbol") is None and body.get("pair") is not None else "symbol"
    symbol = body.get(name)
    if not isinstance(symbol, str):
        raise _missing_or(name, symbol, "must be a string such as BTCUSDT")
    side = _choice("side", body.get("side"), Side)
    quantity = read_amount(body.get("total_quantity"), loc=("body", "total_quantity"))
    duration_s = _whole("duration_seconds", body.get("duration_seconds"), DURATION_MAX_S)
    slices = _whole("slices", body.get("slices"), SLICES_MAX)
    limit = body.get("limit_price")
    price = None if limit is None else read_amount(limit, loc=("body", "limit_price"))
    venue = ALL if body.get("exchange") is None else body["exchange"]
    if not isinstance(venue, str) or not venue.isascii() or venue.lower() not in (ALL, *venues):
        raise Invalid(f"must be one of {', '.join((ALL, *venues))}", loc=("body", "exchange"))
    instrument, pair = catalogue.find(symbol), body.get("pair")
    if pair is not None and (not isinstance(pair, str) or catalogue.find(pair) != instrument):
        raise Invalid("is another than the symbol: send one of the two", loc=("body", "pair"))
    terms = Terms(token_id, instrument.name, side, OrderType.TWAP, price, quantity)
    return terms, venue.lower(), duration_s, slices


def read_amend(body: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Read a change of an order: price and quantity, either may be absent."""
    price = None if body.get("price") is None else read_amount(body["price"], loc=("body", "price"))
    quantity = None if body.get("quantity") is None else read_amount(body["quantity"], loc=("body", "quantity"))
    return price, quantity


def read_token(value: object, *, name: str = "token_id") -> str:
    if value is None:
        raise Invalid("field required", loc=("body", name), kind="missing")
    if not isinstance(value, str) or not is_token(value):
        raise Invalid(NAMING_RULE, loc=("body", name))
    return value


def is_token(text: str) -> bool:
    """Tell whether an order may have this token id; the ids that we make are such words too."""
    return (
        1 <= len(text) <= TOKEN_LENGTH_MAX
        and text.isascii()
        and text.isprintable()
        and "/" not in text
        and text == text.strip(" ")
        and text not in RESERVED_TOKENS
    )


def read_asset(value: object, *, loc: tuple[str | int, ...] = ("body", "asset")) -> str:
    if value is None:
        raise Invalid("field required", loc=loc, kind="missing")
    if not isinstance(value, str) or not 1 <= len(value) <= ASSET_LENGTH_MAX:
        raise Invalid("must be a string such as USDT", loc=loc)
    return value.upper()


def _choice(name: str, value: object, choices: Iterable[C]) -> C:
    for choice in choices:
        if value == choice.value:
            return choice
    raise _missing_or(name, value, f"must be one of {', '.join(choice.value for choice in choices)}")


def _whole(name: str, value: object, most: int) -> int:
    """Read a whole number from 1 to `most`: 60, 60.0 or "60"."""
    number: int | Decimal = 0
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= DIGITS_MAX:
        number = int(value)
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        number = value
    if not 1 <= number <= most or number != int(number):
        raise _missing_or(name, value, f"must be a whole number from 1 to {most}")
    return int(number)


def _missing_or(name: str, value: object, rule: str) -> Invalid:
    if value is None:
        return Invalid("field required", loc=("body", name), kind="missing")
    return Invalid(rule, loc=("body", name))


Amount = int | Decimal | str
