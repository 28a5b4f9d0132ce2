"""What a client asks of its account, as types, and the one reader of each from JSON."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct

from core.account import Market
from core.errors import Invalid
from core.events import Side
from core.instruments import Catalogue
from core.money import read_amount
from core.orders import OrderType, Terms

TOKEN_LENGTH_MAX = 128
ASSET_LENGTH_MAX = 16
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


Command = Deposit | Place | Amend | Cancel | CancelAll | Reset | FillResting


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
        OrderType.LIMIT if body.get("order_type") is None else _choice("order_type", body["order_type"], OrderType)
    )
    price: int | None = None
    if order_type is OrderType.LIMIT or (order_type is OrderType.IOC and body.get("price") is not None):
        price = read_amount(body.get("price"), loc=("body", "price"))
    elif body.get("price") is not None:
        read_amount(body["price"], loc=("body", "price"))  # a market order has no limit, but nonsense is told
    quantity = read_amount(body.get("quantity"), loc=("body", "quantity"))
    return Terms(token_id, catalogue.find(symbol).name, side, order_type, price, quantity)


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


def _choice(name: str, value: object, choices: type[Any]) -> Any:
    words = [choice.value for choice in choices]
    if not isinstance(value, str) or value not in words:
        raise _missing_or(name, value, f"must be one of {', '.join(words)}")
    return choices(value)


def _missing_or(name: str, value: object, rule: str) -> Invalid:
    if value is None:
        return Invalid("field required", loc=("body", name), kind="missing")
    return Invalid(rule, loc=("body", name))


Amount = int | Decimal | str
