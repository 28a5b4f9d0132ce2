"""Orders, fills, balances and entries as clients read them: numbers exact, times ISO 8601."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from core.account import Balance
from core.events import Side
from core.money import from_units
from core.orders import BPS, Fill, Order, OrderType, Status, mean
from core.twap import Twap, slippage

Json = dict[str, Any]

_NOTHING = Decimal(0)


def time(moment: datetime | None) -> str | None:
    """Write a moment as 2026-01-02T03:04:05.678901Z."""
    return None if moment is None else _instant(moment)


@lru_cache(maxsize=64)  # what is written together shares a moment
def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def units(value: int | None) -> Decimal | None:
    return None if value is None else from_units(value)


def percent(part: int, whole: int) -> Decimal:
    """Return a share with two decimals, rounded down: 100 means all."""
    return Decimal(part * 10_000 // whole).scaleb(-2)


def bps(share: Fraction) -> Decimal:
    """Return a share in basis points, with four decimals."""
    return Decimal(round(share * BPS * 10_000)).scaleb(-4)


def symbol(instrument: str) -> str:
    return instrument.replace("-", "")


def fill(order: Order, made: Fill) -> Json:
    """Return a receipt: what executed, at what price, where, and what the market showed."""
    receipt: Json = {
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
    if made.slice is not None:
        receipt["slice"] = made.slice
    return receipt


def order(made: Order, fills: Sequence[Fill]) -> Json:
    """Return an order with its receipts; of a TWAP order instead how far it is."""
    execution_price = units(made.average_price)
    shown = made.price
    if made.terms.order_type in (OrderType.MARKET, OrderType.IOC) and made.status is Status.FILLED:
        shown = made.average_price
    written = {
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
    if made.twap is not None:
        written |= _progress(made, made.twap)
    return written


def _progress(made: Order, twap: Twap) -> Json:
    buys, average = made.side is Side.BUY, made.average_price
    against = {"arrival": twap.arrival_price, "twap": twap.market_price}
    return {
        # Its venues are in its executions, its receipts at GET /fills?order=…: they may be thousands.
        "exchange": twap.venue,
        "fills": [],
        "pair": symbol(made.terms.instrument),
        "total_quantity": from_units(made.quantity),
        "executed_quantity": from_units(made.filled_quantity),
        "average_price": units(average),
        "limit_price": units(made.price),
        "duration_seconds": twap.duration_s,
        "slices": twap.slices,
        "slices_executed": twap.next_slice - twap.missed,
        "slices_missed": twap.missed,
        "percent_executed": percent(made.filled_quantity, made.quantity),
        "is_completed": not made.is_open,
        "starts_at": time(made.created_at),
        "ends_at": time(made.schedule.ends_at),
        "arrival_price": units(twap.arrival_price),
        "market_twap": units(twap.market_price),
        **{
            f"slippage_{name}_bps": None
            if average is None or price is None
            else bps(slippage(price=average, benchmark=price, buys=buys))
            for name, price in against.items()
        },
    }


def executions(made: Order, fills: Sequence[Fill]) -> Json:
    """Return a TWAP order with what each of its slices did, or those that were due together, as the last of them."""
    slices: dict[int, list[Fill]] = {}
    for one in fills:
        if one.slice is not None:
            slices.setdefault(one.slice, []).append(one)
    return order(made, ()) | {"executions": [_execution(made, *each) for each in slices.items()]}


def _execution(made: Order, number: int, fills: Sequence[Fill]) -> Json:
    quantity = sum(one.quantity for one in fills)
    venues = {one.venue for one in fills}
    return {
        "slice": number,
        "scheduled_at": time(made.schedule.due_at(number)),
        "executed_at": time(fills[0].executed_at),
        "quantity": from_units(quantity),
        "price": from_units(mean(sum(one.price * one.quantity for one in fills), quantity)),
        "exchange": venues.pop() if len(venues) == 1 else "multiple",
        "fills": [
            {
                "fill_id": one.fill_id,
                "price": from_units(one.price),
                "quantity": from_units(one.quantity),
                "exchange": one.venue,
            }
            for one in fills
        ],
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
