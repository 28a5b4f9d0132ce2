"""The wire's side of trading for the documentation, what query strings say, and tables for download.

Bodies are read by `trading/commands.py` and written by `trading/wire.py`; the serializers named
`…In` and `…Out` only describe them.
"""

import csv
import io
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from core import strict_json
from core.events import Side
from core.orders import SIMPLE_TYPES, Liquidity, OrderType, Status
from core.twap import DURATION_MAX_S, SLICES_MAX
from marketdata.batches import ALL
from marketdata.serializers import ExactNumber, Query, Whole
from trading import wire
from trading.commands import ASSET_LENGTH_MAX, NAMING_RULE, TOKEN_LENGTH_MAX
from trading.models import Entry
from trading.selectors import Receipt

PAGE_MAX = 1_000
PAGE_DEFAULT = 100
TOKEN_PATTERN = r"^[!-.0-~]([ -.0-~]*[!-.0-~])?$"  # noqa: S105
KINDS = ("deposit", "credit", "fill", "fee", "reset")

ENTRY_COLUMNS = ("id", "created_at", "asset", "kind", "amount", "balance", "fill_id")
FILL_COLUMNS = (
    "executed_at", "fill_id", "order", "token_id", "symbol", "side", "price", "quantity", "exchange", "fee",
    "fee_asset", "liquidity", "rule",
)  # fmt: skip

# -- query strings


class PageQuery(Query):
    limit = Whole(min_value=1, max_value=PAGE_MAX, required=False, help_text=f"rows, {PAGE_DEFAULT} if absent")
    cursor = Whole(min_value=1, required=False, help_text="the last page's `next_cursor`")


class OrdersQuery(PageQuery):
    status = serializers.ChoiceField([status.value for status in Status], required=False)
    symbol = serializers.CharField(required=False, help_text="BTCUSDT, BTC-USDT, BTC/USDT; any case")


class DownloadQuery(PageQuery):
    format = serializers.ChoiceField(
        ["json", "csv"], default="json", help_text="`csv` downloads all rows, or the newest `limit`"
    )


class FillsQuery(DownloadQuery):
    symbol = serializers.CharField(required=False, help_text="BTCUSDT, BTC-USDT, BTC/USDT; any case")
    order = serializers.CharField(required=False, help_text="a token_id, or an order's id")


class LedgerQuery(DownloadQuery):
    asset = serializers.CharField(required=False, max_length=ASSET_LENGTH_MAX)
    kind = serializers.ChoiceField(list(KINDS), required=False)


class CancelQuery(serializers.Serializer[Any]):
    """What to cancel. Nothing is overlooked here: a slip must not cancel everything."""

    symbol = serializers.CharField(required=False, help_text="cancel only this symbol's orders")

    def validate(self, attributes: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(self.initial_data) - set(self.fields))
        if unknown:
            raise serializers.ValidationError({name[:60]: "unknown parameter" for name in unknown})
        return attributes


# -- bodies


@extend_schema_field(
    {
        "oneOf": [
            {
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 90_000_000_000,
                "exclusiveMaximum": True,
            },
            {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,8})?$", "maxLength": 40},
        ]
    }
)
class Amount(ExactNumber):
    """A number, or a plain numeric string: above 0, below 9×10^10, multiples of 10^-8."""


@extend_schema_field({"type": "string", "pattern": TOKEN_PATTERN, "minLength": 1, "maxLength": TOKEN_LENGTH_MAX})
class Token(serializers.CharField):
    """A name that the client gives."""


class DepositIn(serializers.Serializer[Any]):
    asset = serializers.CharField(max_length=ASSET_LENGTH_MAX, help_text="one of `GET /info`'s assets")
    amount = Amount()


class OrderIn(serializers.Serializer[Any]):
    token_id = Token(help_text=f"the client's name for the order, used once for ever: {NAMING_RULE}")
    symbol = serializers.CharField(help_text="BTCUSDT, BTC-USDT, BTC/USDT; any case")
    side = serializers.ChoiceField([side.value for side in Side])
    order_type = serializers.ChoiceField([kind.value for kind in SIMPLE_TYPES], default=OrderType.LIMIT.value)
    price = Amount(required=False, help_text="the limit; needed for `limit`, optional for `ioc`")
    quantity = Amount()


class TwapIn(serializers.Serializer[Any]):
    symbol = serializers.CharField(required=False, help_text="BTCUSDT, BTC-USDT, BTC/USDT; any case")
    pair = serializers.CharField(required=False, help_text="the same as symbol; one of them is needed")
    side = serializers.ChoiceField([side.value for side in Side])
    total_quantity = Amount()
    duration_seconds = Whole(min_value=1, max_value=DURATION_MAX_S)
    slices = Whole(min_value=1, max_value=SLICES_MAX)
    limit_price = Amount(
        required=False, help_text="of every slice; without it the touch now, worsened by TWAP_COLLAR_BPS"
    )
    exchange = serializers.CharField(default=ALL, help_text="a venue, or `all`")
    token_id = Token(required=False, help_text=f"the client's name for it, else its order_id: {NAMING_RULE}")


class AmendIn(serializers.Serializer[Any]):
    price = Amount(required=False)
    quantity = Amount(required=False, help_text="the whole quantity, what is filled included")


class ResetIn(serializers.Serializer[Any]):
    balances = serializers.DictField(child=Amount(), required=False, help_text="what to start again with, by asset")


# -- answers


class DepositOut(serializers.Serializer[Any]):
    status = serializers.CharField(help_text="ok")
    asset = serializers.CharField()
    amount = ExactNumber()
    deposited = ExactNumber(help_text="the same as amount")
    new_balance = ExactNumber(help_text="the total now")
    new_total = ExactNumber(help_text="the same as new_balance")
    available = ExactNumber()


class BalanceRow(serializers.Serializer[Any]):
    asset = serializers.CharField()
    total = ExactNumber()
    available = ExactNumber(help_text="total − reserved")
    reserved = ExactNumber(help_text="held by open orders")


class BalanceOut(serializers.Serializer[Any]):
    balances = BalanceRow(many=True, help_text="every asset, sorted")
    total = serializers.DictField(child=ExactNumber())
    available = serializers.DictField(child=ExactNumber())
    reserved = serializers.DictField(child=ExactNumber())


class ResetOut(BalanceOut):
    status = serializers.CharField(help_text="ok")


class TouchSide(serializers.Serializer[Any]):
    price = ExactNumber()
    size = ExactNumber()
    exchange = serializers.CharField()
    age_ms = serializers.IntegerField()


class TouchOut(serializers.Serializer[Any]):
    bid = TouchSide(allow_null=True)
    ask = TouchSide(allow_null=True)


class FillOut(serializers.Serializer[Any]):
    fill_id = serializers.CharField()
    order = serializers.CharField(help_text="the order's id")
    token_id = serializers.CharField()
    symbol = serializers.CharField()
    side = serializers.ChoiceField([side.value for side in Side])
    price = ExactNumber()
    quantity = ExactNumber()
    exchange = serializers.CharField(help_text="that filled it")
    fee = ExactNumber()
    fee_asset = serializers.CharField()
    liquidity = serializers.ChoiceField([kind.value for kind in Liquidity])
    touch = TouchOut(help_text="what the market showed")
    rule = serializers.CharField(help_text="why it executed")
    slice = serializers.IntegerField(required=False, help_text="of a TWAP order, from 0")
    executed_at = serializers.DateTimeField()


class OrderOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    order_id = serializers.CharField(help_text="the same as id")
    user_id = serializers.IntegerField()
    token_id = serializers.CharField()
    symbol = serializers.CharField()
    side = serializers.ChoiceField([side.value for side in Side])
    order_type = serializers.ChoiceField([kind.value for kind in OrderType])
    price = ExactNumber(allow_null=True, help_text="the limit; of a filled market or ioc order the execution price")
    quantity = ExactNumber()
    filled_quantity = ExactNumber()
    filled_price = ExactNumber(allow_null=True, help_text="the mean over its fills")
    execution_price = ExactNumber(allow_null=True, help_text="the same as filled_price")
    exchange = serializers.CharField(allow_null=True, help_text="that filled it; `multiple` where several did")
    status = serializers.ChoiceField([status.value for status in Status])
    reason = serializers.CharField(allow_null=True, help_text="why it ended without being filled")
    fills = FillOut(many=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    executed_at = serializers.DateTimeField(allow_null=True, help_text="of the last fill")


class SliceFillOut(serializers.Serializer[Any]):
    fill_id = serializers.CharField()
    price = ExactNumber()
    quantity = ExactNumber()
    exchange = serializers.CharField()


class ExecutionOut(serializers.Serializer[Any]):
    slice = serializers.IntegerField(help_text="from 0; of slices that were due together the last")
    scheduled_at = serializers.DateTimeField()
    executed_at = serializers.DateTimeField()
    quantity = ExactNumber()
    price = ExactNumber(help_text="the mean over its fills")
    exchange = serializers.CharField(help_text="that filled it; `multiple` where several did")
    fills = SliceFillOut(many=True)


class TwapOut(OrderOut):
    """An order, and beside it how far it is."""

    exchange = serializers.CharField(help_text="whose depth it takes, or `all`")
    fills = FillOut(many=True, help_text="empty here: its receipts are at `GET /fills?order=…`")
    pair = serializers.CharField(help_text="the same as symbol")
    total_quantity = ExactNumber(help_text="the same as quantity")
    executed_quantity = ExactNumber(help_text="the same as filled_quantity")
    average_price = ExactNumber(allow_null=True, help_text="the same as filled_price")
    limit_price = ExactNumber(help_text="no slice executes at a worse price")
    duration_seconds = serializers.IntegerField()
    slices = serializers.IntegerField()
    slices_executed = serializers.IntegerField(help_text="slices that were run, filled or not")
    slices_missed = serializers.IntegerField(help_text="slices that were due while the router did not run")
    percent_executed = ExactNumber(help_text="of the quantity")
    is_completed = serializers.BooleanField(help_text="whether it has ended, filled or not")
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    arrival_price = ExactNumber(allow_null=True, help_text="the middle of bid and ask when it came")
    market_twap = ExactNumber(allow_null=True, help_text="the time-weighted mean of the middle, to its last slice")
    slippage_arrival_bps = ExactNumber(allow_null=True, help_text="average against arrival price; below 0 is better")
    slippage_twap_bps = ExactNumber(allow_null=True, help_text="average against market TWAP; below 0 is better")
    executions = ExecutionOut(many=True, required=False, help_text="of one order; left out of lists")


class TwapPlacedOut(TwapOut):
    message = serializers.CharField()


@extend_schema_field({"type": "string", "nullable": True, "description": "for the following page; null on the last"})
class Cursor(serializers.CharField):
    """A place in a list."""


class OrdersOut(serializers.Serializer[Any]):
    orders = OrderOut(many=True)
    next_cursor = Cursor()


class CancelledOut(serializers.Serializer[Any]):
    cancelled = serializers.IntegerField(help_text="how many")
    orders = OrderOut(many=True)


class FillsOut(serializers.Serializer[Any]):
    fills = FillOut(many=True)
    next_cursor = Cursor()


class EntryOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    asset = serializers.CharField()
    kind = serializers.ChoiceField(list(KINDS))
    amount = ExactNumber(help_text="what was added; below 0 what was taken")
    balance = ExactNumber(help_text="the asset's total after it")
    fill_id = serializers.CharField(allow_null=True)


class LedgerOut(serializers.Serializer[Any]):
    entries = EntryOut(many=True)
    next_cursor = Cursor()


# -- writing


def receipt(found: Receipt) -> dict[str, Any]:
    return wire.fill(found.order, found.fill)


def entry(found: Entry) -> dict[str, Any]:
    """Write an entry of the ledger."""
    return {
        "id": found.pk,
        "created_at": wire.time(found.created_at),
        "asset": found.asset,
        "kind": found.kind,
        "amount": wire.units(found.amount),
        "balance": wire.units(found.balance),
        "fill_id": found.reference or None,
    }


def cursor(place: int | None) -> str | None:
    return None if place is None else str(place)


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as lines of CSV, numbers with all their digits."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return strict_json.number(value) if isinstance(value, Decimal) else str(value)
