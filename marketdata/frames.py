"""The JSON that clients read, written once per event: numbers exact, no float near a price."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from core.candles import INTERVALS, Candle
from core.events import Level
from core.touch import Best, Touch
from marketdata.batches import ALL, Gap, TradePrint

INTERVAL_NAMES = {seconds: name for name, seconds in INTERVALS.items()}
SINGULAR = {"best_touch": "best_touch", "trades": "trade", "klines": "kline", "ewma": "ewma", "orderbook": "orderbook"}

_NS = 1_000_000_000
_text = msgspec.json.Encoder()


def number(value: Decimal) -> str:
    """Write a decimal as a JSON number: all its digits, no exponent, no trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def seconds(ns: int) -> str:
    """Write nanoseconds since the epoch as seconds with six decimals."""
    return f"{ns // _NS}.{ns % _NS // 1000:06d}"


def quoted(text: str) -> str:
    """Write any text as a JSON string."""
    return _text.encode(text).decode()


def topic(stream: str, symbol: str, venue: str, interval: int | None = None) -> str:
    """Name a stream as clients see it: symbol, stream, interval in seconds, exchange where not all."""
    parts = [symbol, stream]
    if interval is not None:
        parts.append(str(interval))
    if venue != ALL:
        parts.append(venue)
    return ".".join(parts)


def _side(name: str, best: Best | None) -> str:
    if best is None:
        return (
            f'"best_{name}":null,"best_{name}_qty":null,"best_{name}_exchange":null,'
            f'"{name}_price":null,"{name}_exchange":null'
        )
    price, venue = number(best.price), quoted(best.venue)
    return (
        f'"best_{name}":{price},"best_{name}_qty":{number(best.size)},"best_{name}_exchange":{venue},'
        f'"{name}_price":{price},"{name}_exchange":{venue}'
    )


def touch_data(symbol: str, venue: str, touch: Touch, now_ns: int) -> str:
    bid, ask = touch.bid, touch.ask
    spread = number(ask.price - bid.price) if bid and ask else "null"
    return (
        f'{{"symbol":"{symbol}","exchange":"{venue}",{_side("bid", bid)},{_side("ask", ask)},'
        f'"spread":{spread},"timestamp":{seconds(now_ns)}}}'
    )


def trade_data(symbol: str, trade: TradePrint) -> str:
    return (
        f'{{"symbol":"{symbol}","exchange":"{trade.venue}","trade_id":{quoted(trade.trade_id)},'
        f'"price":{number(trade.price)},"quantity":{number(trade.size)},"side":"{trade.side.value}",'
        f'"timestamp":{seconds(trade.venue_ns)}}}'
    )


def candle_data(symbol: str, venue: str, candle: Candle) -> str:
    end = candle.open_time + candle.interval
    return (
        f'{{"symbol":"{symbol}","exchange":"{venue}","interval":"{INTERVAL_NAMES[candle.interval]}",'
        f'"start":{candle.open_time},"end":{end},"open_time":{candle.open_time},"close_time":{end},'
        f'"open":{number(candle.open)},"high":{number(candle.high)},"low":{number(candle.low)},'
        f'"close":{number(candle.close)},"volume":{number(candle.volume)},"trades":{candle.trades},'
        f'"is_closed":{_flag(candle.closed)},"partial":{_flag(candle.partial)}}}'
    )


def ewma_data(symbol: str, venue: str, half_life: float, value: float, time_ns: int) -> str:
    life = int(half_life) if half_life.is_integer() and half_life < 1e15 else half_life
    return (
        f'{{"symbol":"{symbol}","exchange":"{venue}","half_life":{life},'
        f'"value":{number(Decimal(f"{value:.10f}"))},"timestamp":{seconds(time_ns)}}}'
    )


def levels(side: Iterable[Level]) -> str:
    return "[" + ",".join(f"[{number(price)},{number(size)}]" for price, size in side) + "]"


def venue_levels(side: Iterable[tuple[Decimal, Decimal, str]]) -> str:
    return "[" + ",".join(f'[{number(price)},{number(size)},"{venue}"]' for price, size, venue in side) + "]"


def book_data(symbol: str, venue: str, bids: str, asks: str, now_ns: int, depth: int) -> str:
    return (
        f'{{"symbol":"{symbol}","exchange":"{venue}","depth":{depth},"bids":{bids},"asks":{asks},'
        f'"timestamp":{seconds(now_ns)}}}'
    )


def data_frame(kind: str, name: str, now_ns: int, data: str) -> bytes:
    """Wrap the data of a stream in its frame."""
    return f'{{"type":"{kind}","topic":"{name}","timestamp":{seconds(now_ns)},"data":{data}}}'.encode()


def venue_frame(venue: str, state: str, reason: str) -> bytes:
    return f'{{"type":"venue","exchange":"{venue}","state":"{state}","reason":{quoted(reason)}}}'.encode()


def gap_frame(symbol: str, gap: Gap) -> bytes:
    return (
        f'{{"type":"gap","exchange":"{gap.venue}","symbol":"{symbol}","from_id":{gap.from_id},"to_id":{gap.to_id}}}'
    ).encode()


def books_frame(books: Mapping[str, Mapping[str, tuple[Sequence[Level], Sequence[Level]]]]) -> bytes:
    """Write venue → symbol → its levels."""
    venues = (
        f'"{venue}":{{'
        + ",".join(
            f'"{symbol}":{{"bids":{levels(bids)},"asks":{levels(asks)}}}' for symbol, (bids, asks) in symbols.items()
        )
        + "}"
        for venue, symbols in books.items()
    )
    return ("{" + ",".join(venues) + "}").encode()


def merge_levels(
    sides: Mapping[str, Sequence[Level]], *, depth: int, best_is_highest: bool
) -> list[tuple[Decimal, Decimal, str]]:
    """Interleave the venues' levels, best first; at equal prices the larger size first."""
    merged = [(price, size, venue) for venue, side in sides.items() for price, size in side[:depth]]
    merged.sort(key=lambda level: (-level[0] if best_is_highest else level[0], -level[1], level[2]))
    return merged[:depth]


def _flag(value: bool) -> str:
    return "true" if value else "false"
