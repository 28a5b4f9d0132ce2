"""The wire's side of market data: what routes take, and for the documentation what they give."""

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from core.candles import INTERVALS, Candle

LIMIT_MAX = 1_000
LIMIT_DEFAULT = 500
DEPTH_MAX = 20

_WHOLE = re.compile(r"[0-9]{1,12}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)


class Whole(serializers.IntegerField):
    """A whole number in plain ASCII digits."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str) or not _WHOLE.fullmatch(data):
            self.fail("invalid")
        return super().to_internal_value(data)


@extend_schema_field({"type": "number"})
class Seconds(serializers.Field[int, str, Any, Any]):
    """Seconds since the epoch, rounded to whole ones in the range's favour."""

    default_error_messages = {"invalid": "must be seconds since the epoch"}

    def __init__(self, *, up: bool, **options: Any) -> None:
        self._rounding = ROUND_CEILING if up else ROUND_FLOOR
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str) or not _SECONDS.fullmatch(data):
            self.fail("invalid")
        return int(Decimal(data).to_integral_value(self._rounding))


class Query(serializers.Serializer[Any]):
    """A query string; an empty value is none."""

    def __init__(self, query: Any = None, **options: Any) -> None:
        data = {name: value for name, value in query.items() if value != ""} if query is not None else {}
        super().__init__(data=data, **options)


class KlinesQuery(Query):
    interval = serializers.ChoiceField(list(INTERVALS), default="1m")
    limit = Whole(min_value=1, max_value=LIMIT_MAX, default=LIMIT_DEFAULT)
    start = Seconds(up=True, required=False, help_text="open time of the first candle, seconds")
    end = Seconds(up=False, required=False, help_text="open time of the last candle, seconds")


class BookQuery(Query):
    depth = Whole(min_value=1, max_value=DEPTH_MAX, default=DEPTH_MAX, help_text="levels of each side")


@extend_schema_field({"type": "number"})
class ExactNumber(serializers.Field[Any, Any, Any, Any]):
    """A JSON number with all its digits."""


class CandleOut(serializers.Serializer[Any]):
    timestamp = serializers.IntegerField(help_text="open time, seconds")
    open = ExactNumber()
    high = ExactNumber()
    low = ExactNumber()
    close = ExactNumber()
    volume = ExactNumber(help_text="in the base asset")
    trades = serializers.IntegerField()
    is_closed = serializers.BooleanField()
    partial = serializers.BooleanField(help_text="not all of the interval was seen")  # type: ignore[assignment]


class KlinesOut(serializers.Serializer[Any]):
    exchange = serializers.CharField()
    symbol = serializers.CharField()
    interval = serializers.CharField()
    candles = CandleOut(many=True)


class BookOut(serializers.Serializer[Any]):
    exchange = serializers.CharField()
    symbol = serializers.CharField()
    depth = serializers.IntegerField()
    bids = serializers.ListField(
        child=serializers.ListField(), help_text="[price, quantity], best first; for `all` the exchange as third"
    )
    asks = serializers.ListField(child=serializers.ListField())
    timestamp = ExactNumber(help_text="seconds since the epoch")


class InfoOut(serializers.Serializer[Any]):
    assets = serializers.ListField(child=serializers.CharField())
    pairs = serializers.ListField(child=serializers.CharField())
    trading_pairs = serializers.ListField(child=serializers.CharField())
    exchanges = serializers.ListField(child=serializers.CharField())
    kline_intervals = serializers.ListField(child=serializers.CharField())
    streams = serializers.ListField(child=serializers.CharField())
    order_types = serializers.ListField(child=serializers.CharField())
    paper = serializers.BooleanField(help_text="always true: there is no live trading")
    source = serializers.CharField(help_text="live or simulated")  # type: ignore[assignment]
    simulated = serializers.BooleanField()
    version = serializers.CharField()


class StatusOut(serializers.Serializer[Any]):
    paper = serializers.BooleanField()
    source = serializers.CharField()  # type: ignore[assignment]
    source_requested = serializers.CharField()
    simulated = serializers.BooleanField()
    version = serializers.CharField()
    timestamp = serializers.FloatField()
    exchanges = serializers.DictField(help_text="state, reason, ages, reconnects, gaps and frames a second by exchange")
    symbols = serializers.DictField(help_text="the touch and its age by symbol")
    counters = serializers.DictField(child=serializers.IntegerField())


def candle(item: Candle) -> dict[str, Any]:
    """Write a candle as the contract spells it."""
    return {
        "timestamp": item.open_time,
        "open": item.open,
        "high": item.high,
        "low": item.low,
        "close": item.close,
        "volume": item.volume,
        "trades": item.trades,
        "is_closed": item.closed,
        "partial": item.partial,
    }
