"""Orders, fills, balances and entries as clients read them: numbers exact, times ISO 8601."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from core.account import Balance
from core.money import from_units
from core.orders import Fill, Order, OrderType, Status

Json = dict[str, Any]

_NOTHING = Decimal(0)


def time(moment: datetime | None) -> str | None:
    """Write a moment as 2026-01-02T03:04:05.678901Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def units(value: int | None) -> Decimal | None:
    return None if value is None else from_units(value)


def symbol(instrument: str) -> str:
    return instrument.replace("-", "")


def fill(order: Order, made: Fill) -> Json:
    """Return a receipt: what executed, at what price, where, and what the market showed."""
    return {
        "fill_id": made.fill_id,
        "order": order.order_id,
        "token_id": order.terms.token_id,
        "symbol": symbol(order.terms.instrument),
        "side": order.side.value,
        "price": from_units(made.price),
        "quantity": from_units(made.quantity),
        "exchange": made.venue,
        "fee": from_units(made.fee),
        "fee_asset": made.fee_asset,
        "liquidity": made.liquidity.value,
        "touch": made.touch,
        "rule": made.rule,
        "executed_at": time(made.executed_at),
    }


def order(made: Order, fills: Sequence[Fill]) -> Json:
    """Return an order with its receipts."""
    execution_price = units(made.average_price)
    shown = made.price
    if made.terms.order_type is not OrderType.LIMIT and made.status is Status.FILLED:
        shown = made.average_price
    return {
        "id": made.order_id,
        "order_id": made.order_id,
        "user_id": made.account_id,
        "token_id": made.terms.token_id,
        "symbol": symbol(made.terms.instrument),
        "side": made.side.value,
        "order_type": made.terms.order_type.value,
        "price": units(shown),
        "quantity": from_units(made.quantity),
        "filled_quantity": from_units(made.filled_quantity),
        "filled_price": execution_price,
        "execution_price": execution_price,
        "exchange": made.venue,
        "status": made.status.value,
        "reason": made.reason or None,
        "fills": [fill(made, one) for one in fills],
        "created_at": time(made.created_at),
        "updated_at": time(made.updated_at),
        "executed_at": time(made.executed_at),
    }


def report(made: Order, execution: Fill | None, fills: Sequence[Fill]) -> Json:
    """Return an execution report's data: the order after it, and the fill that it tells of, if one."""
    return {"order": order(made, fills), "fill": None if execution is None else fill(made, execution)}


def balances(held: Mapping[str, Balance], assets: Iterable[str]) -> Json:
    """Return every asset's balance, sorted, and the same by kind."""
    rows = []
    total, available, reserved = {}, {}, {}
    for asset in sorted({*assets, *held}):
        balance = held.get(asset)
        if balance is None:
            amounts = (_NOTHING, _NOTHING, _NOTHING)
        else:
            amounts = (from_units(balance.total), from_units(balance.free), from_units(balance.held))
        total[asset], available[asset], reserved[asset] = amounts
        rows.append({"asset": asset, "total": amounts[0], "available": amounts[1], "reserved": amounts[2]})
    return {"balances": rows, "total": total, "available": available, "reserved": reserved}


def deposited(asset: str, amount: int, balance: Balance) -> Json:
    return {
        "status": "ok",
        "asset": asset,
        "amount": from_units(amount),
        "deposited": from_units(amount),
        "new_balance": from_units(balance.total),
        "new_total": from_units(balance.total),
        "available": from_units(balance.free),
    }
