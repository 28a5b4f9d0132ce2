"""Orders and accounts for the tests, without a database."""

from datetime import UTC, datetime
from itertools import count

from core.account import Account, Balance, Fees, Market, Offer
from core.events import Side
from core.orders import Order, OrderType, Status, Terms

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BTC = "BTC-USDT"
NOBODY = Market((), {})


def terms(
    side: Side, price: int | None, quantity: int, *, kind: OrderType = OrderType.LIMIT, token: str = "t"
) -> Terms:
    return Terms(token, BTC, side, kind, price, quantity)


def an_order(side: Side, price: int, quantity: int) -> Order:
    return Order("o", 1, terms(side, price, quantity), price, quantity, Status.OPEN, NOW, NOW)


def account(*, fees: Fees | None = None, **totals: int) -> Account:
    numbers = count(1)
    balances = {asset: Balance(total) for asset, total in totals.items()}
    return Account(1, balances, fees=fees or Fees(), new_id=lambda: f"id-{next(numbers)}")


def market(*offers: tuple[int, int, str]) -> Market:
    """(price, size, venue) each, at one price."""
    return Market(tuple(Offer(*offer) for offer in offers), {"shown": len(offers)})
