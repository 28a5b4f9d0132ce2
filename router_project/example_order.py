"""An order and its execution for the documents, written by the code that writes real ones."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from core import strict_json
from core.events import Side
from core.money import to_units
from core.orders import Fill, Liquidity, Order, OrderType, Status, Terms
from gateway.reports import read_event
from trading import wire

_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
_PLACED, _EXECUTED = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), datetime(2026, 1, 2, 3, 4, 6, 12345, UTC)
_PRICE, _QUANTITY = to_units(Decimal("95000.2")), to_units(Decimal("0.01"))
_TOUCH = {
    "bid": {"price": Decimal("95000.1"), "size": Decimal("0.5"), "exchange": "okx", "age_ms": 12},
    "ask": {"price": Decimal("95000.2"), "size": Decimal("1.25"), "exchange": "binance", "age_ms": 3},
}
_FILL = Fill(
    fill_id="7c9e6679-7425-40de-944b-e07fc1f90ae7", number=1, price=_PRICE, quantity=_QUANTITY, venue="binance",
    fee=0, fee_asset="BTC", liquidity=Liquidity.MAKER, touch=_TOUCH, rule="resting_limit_crossed",
    executed_at=_EXECUTED,
)  # fmt: skip


def _order(*, filled: bool) -> Order:
    order = Order(
        order_id=_ID,
        account_id=7,
        terms=Terms("my-order-1", "BTC-USDT", Side.BUY, OrderType.LIMIT, to_units(Decimal("95000.5")), _QUANTITY),
        price=to_units(Decimal("95000.5")),
        quantity=_QUANTITY,
        status=Status.OPEN,
        created_at=_PLACED,
        updated_at=_PLACED,
    )
    if filled:
        order.status, order.filled_quantity, order.filled_notional = Status.FILLED, _QUANTITY, _PRICE * _QUANTITY
        order.venue, order.executed_at, order.updated_at = "binance", _EXECUTED, _EXECUTED
    return order


def resting() -> dict[str, Any]:
    return wire.order(_order(filled=False), ())


def cancelled() -> dict[str, Any]:
    order = _order(filled=False)
    order.status, order.reason, order.updated_at = Status.CANCELLED, "by_client", _EXECUTED
    return wire.order(order, ())


def update() -> dict[str, Any]:
    """Return the `order_update` of its execution."""
    body = strict_json.dumps(wire.report(_order(filled=True), _FILL, (_FILL,)))
    made: dict[str, Any] = strict_json.loads(read_event(42, body).frame.text)
    return made
