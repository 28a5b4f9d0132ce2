"""Kraken v2: ticker on every change of the touch, book of 25 with checksums, trade.

The instrument list comes first: it says which pairs exist and with how many decimals a book's
checksum is built. Prices are JSON numbers. Heartbeats come once a second when all else is quiet.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct, field

from core.events import BookDelta, Channel, Level, Quote, Side, Trade
from marketdata.venue import (
    Accepted,
    Alive,
    Data,
    EngineStatus,
    Ignored,
    Listed,
    Listing,
    Message,
    Rejected,
    Request,
    Topic,
    Unreadable,
    Venue,
)
from marketdata.wire import Id, positive_number, reads, rfc3339_ns, size_number

BOOK_DEPTH = 25
SYMBOLS_MAX = 200  # in one request
PRECISION_MAX = 18  # decimals of a pair that we believe
ONLINE = "online"  # of the engine and of a pair; in every other status matching is off or restricted

_NAMES = {Channel.TOUCH: "ticker", Channel.DEPTH: "book", Channel.TRADES: "trade"}
_CHANNELS = {name: channel for channel, name in _NAMES.items()}
_OPTIONS: dict[Channel, dict[str, str | int | bool]] = {
    Channel.TOUCH: {"event_trigger": "bbo", "snapshot": True},  # the default speaks only when a trade happens
    Channel.DEPTH: {"depth": BOOK_DEPTH, "snapshot": True},
    Channel.TRADES: {"snapshot": False},
}
_DISTINGUISHING = ("event_trigger", "depth")  # options that an unsubscription repeats
_UNUSED = frozenset(("balances", "executions", "level3", "ohlc"))
_SNAPSHOT = "snapshot"


class _Item(Struct):
    """What `read` needs of an element of `data`: a pair's symbol or the engine's status."""

    symbol: str = ""
    system: str = ""


class _Pair(Struct):
    symbol: str
    status: str
    price_precision: int
    qty_precision: int


class _Instruments(Struct):
    pairs: list[_Pair]


class _Result(Struct):
    channel: str = ""
    symbol: str = ""


class _Frame(Struct):
    channel: str = ""
    type: str = ""
    data: list[_Item] | _Instruments | None = None
    method: str = ""
    success: bool | None = None
    error: str = ""
    symbol: str = ""
    result: _Result | None = None
    req_id: int | None = None


class _Parts(Struct):
    type: str
    data: list[Raw]


class _Ticker(Struct):
    bid: Decimal
    bid_qty: Decimal
    ask: Decimal
    ask_qty: Decimal
    timestamp: str = ""


class _Tickers(Struct):
    data: list[_Ticker]


class _Level(Struct):
    price: Decimal
    size: Decimal = field(name="qty")


class _Book(Struct):
    bids: list[_Level]
    asks: list[_Level]
    checksum: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    timestamp: str = ""


class _Books(Struct):
    type: str
    data: list[_Book]


class _Trade(Struct):
    side: Side  # the taker's
    price: Decimal
    size: Decimal = field(name="qty")
    trade_id: Id
    timestamp: str


class _Trades(Struct):
    type: str
    data: list[_Trade]


_frame = msgspec.json.Decoder(_Frame)
_parts = msgspec.json.Decoder(_Parts)
_tickers = msgspec.json.Decoder(_Tickers)
_books = msgspec.json.Decoder(_Books)
_trades = msgspec.json.Decoder(_Trades)


def symbol(instrument: str) -> str:
    return instrument.replace("-", "/")


def listing(request_id: int) -> Request:
    params = {"channel": "instrument", "snapshot": True}
    return _request("subscribe", params, (), request_id)


def probe(request_id: int) -> str:
    return msgspec.json.encode({"method": "ping", "req_id": request_id}).decode()


def subscribe(topics: Sequence[Topic], first_id: int) -> list[Request]:
    return _requests("subscribe", topics, first_id)


def unsubscribe(topics: Sequence[Topic], first_id: int) -> list[Request]:
    return _requests("unsubscribe", topics, first_id)


def _requests(method: str, topics: Sequence[Topic], first_id: int) -> list[Request]:
    requests: list[Request] = []
    for channel in Channel:
        same = [topic for topic in topics if topic.channel is channel]
        options = _OPTIONS[channel]
        if method == "unsubscribe":
            options = {name: value for name, value in options.items() if name in _DISTINGUISHING}
        for start in range(0, len(same), SYMBOLS_MAX):
            chunk = tuple(same[start : start + SYMBOLS_MAX])
            params = {"channel": _NAMES[channel], "symbol": [topic.symbol for topic in chunk], **options}
            requests.append(_request(method, params, chunk, first_id + len(requests)))
    return requests


def _request(method: str, params: object, topics: tuple[Topic, ...], request_id: int) -> Request:
    frame = {"method": method, "params": params, "req_id": request_id}
    return Request(msgspec.json.encode(frame).decode(), topics, request_id)


@reads
def read(frame: str | bytes) -> Iterable[Message]:
    raw = _frame.decode(frame)
    if raw.channel:
        channel = _CHANNELS.get(raw.channel)
        if channel is not None:
            return _data(channel, raw, frame)
        return _service(raw)
    if raw.method or raw.success is not None:
        return (_answer(raw),)
    raise Unreadable("neither a channel nor an answer")


def _data(channel: Channel, raw: _Frame, frame: str | bytes) -> list[Message]:
    """Name the topics of a frame. The payload is the frame itself, whose `type` the parsers need."""
    if not isinstance(raw.data, list) or not raw.data or not all(item.symbol for item in raw.data):
        raise Unreadable("market data without a symbol")
    payload = frame.encode() if isinstance(frame, str) else frame
    symbols = {item.symbol for item in raw.data}
    if len(symbols) == 1:
        return [Data(Topic(channel, raw.data[0].symbol), payload)]
    parts = _parts.decode(payload)
    messages: list[Message] = []
    for item, part in zip(raw.data, parts.data, strict=True):
        alone = msgspec.json.encode({"type": parts.type, "data": [part]})
        messages.append(Data(Topic(channel, item.symbol), alone))
    return messages


def _service(raw: _Frame) -> list[Message]:
    if raw.channel == "heartbeat":
        return [Alive()]
    if raw.channel == "status":
        if not isinstance(raw.data, list) or not raw.data:
            raise Unreadable("a status without a system")
        return [_status(item.system) for item in raw.data]
    if raw.channel == "instrument":
        if not isinstance(raw.data, _Instruments):
            raise Unreadable("an instrument list without pairs")
        return [Listing(tuple(_listed(raw.data.pairs)), complete=raw.type == _SNAPSHOT)]
    return [Ignored(raw.channel if raw.channel in _UNUSED else "other channel")]


def _status(system: str) -> EngineStatus:
    if not system:
        raise Unreadable("a status without a system")
    online = system == ONLINE
    return EngineStatus(online, "" if online else f"the venue's engine is in {system[:40]}")


def _listed(pairs: Iterable[_Pair]) -> Iterable[Listed]:
    for pair in pairs:
        if 0 <= pair.price_precision <= PRECISION_MAX and 0 <= pair.qty_precision <= PRECISION_MAX:
            yield Listed(pair.symbol, pair.price_precision, pair.qty_precision, online=pair.status == ONLINE)


def _answer(raw: _Frame) -> Message:
    if raw.method == "pong":
        return Alive(answer=True)
    if raw.success is False:
        if raw.method == "unsubscribe":
            return Ignored("refused unsubscription")  # we were not subscribed: no reason to doubt the symbol
        return Rejected(raw.error[:200], symbol=raw.symbol or None, request_id=raw.req_id)
    if raw.success:
        result = raw.result or _Result()
        channel = _CHANNELS.get(result.channel)
        return Accepted(Topic(channel, result.symbol) if channel is not None and result.symbol else None)
    return Ignored("other answer")


@reads
def parse_touch(payload: str | bytes) -> Iterable[Quote]:
    return [
        Quote(
            bid=positive_number(raw.bid),
            bid_size=positive_number(raw.bid_qty),
            ask=positive_number(raw.ask),
            ask_size=positive_number(raw.ask_qty),
            venue_ns=_time(raw.timestamp),
        )
        for raw in _tickers.decode(payload).data
    ]


@reads
def parse_book(payload: str | bytes) -> Iterable[BookDelta]:
    raw = _books.decode(payload)
    snapshot = _is_snapshot(raw.type)
    return [
        BookDelta(
            bids=_changes(book.bids),
            asks=_changes(book.asks),
            checksum=book.checksum,
            snapshot=snapshot,
            venue_ns=_time(book.timestamp),
        )
        for book in raw.data
    ]


def _changes(levels: Iterable[_Level]) -> tuple[Level, ...]:
    return tuple([(positive_number(level.price), size_number(level.size)) for level in levels])


@reads
def parse_trades(payload: str | bytes) -> Iterable[Trade]:
    raw = _trades.decode(payload)
    snapshot = _is_snapshot(raw.type)
    return [
        Trade(
            trade_id=str(trade.trade_id),
            first_id=trade.trade_id,
            last_id=trade.trade_id,
            price=positive_number(trade.price),
            size=positive_number(trade.size),
            side=trade.side,
            venue_ns=rfc3339_ns(trade.timestamp),
            snapshot=snapshot,
        )
        for trade in raw.data
    ]


def _is_snapshot(kind: str) -> bool:
    if kind not in (_SNAPSHOT, "update"):
        raise Unreadable(f"neither a snapshot nor an update: {kind[:40]!r}")
    return kind == _SNAPSHOT


def _time(text: str) -> int | None:
    return rfc3339_ns(text) if text else None


KRAKEN = Venue(
    name="kraken",
    url="wss://ws.kraken.com/v2",
    symbol=symbol,
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    read=read,
    parse={Channel.TOUCH: parse_touch, Channel.DEPTH: parse_book, Channel.TRADES: parse_trades},
    listing=listing,
    probe=probe,
    send_interval_s=0.25,
    book_depth=BOOK_DEPTH,
    depth_sizes_touch=True,  # whether a change of size alone makes a ticker is not documented
)
