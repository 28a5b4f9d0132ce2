"""Binance spot: combined streams of bookTicker, depth20@100ms and trade.

The touch carries no time, only the book's update id. Depth is a full image each time. A
subscription to a symbol that does not exist is usually acknowledged and then silent.
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

import msgspec
from msgspec import Raw, Struct, field

from core.events import BookImage, Channel, Level, Quote, Side, Trade
from marketdata.venue import (
    Accepted,
    Data,
    Ignored,
    Message,
    PlannedClose,
    Rejected,
    Request,
    Topic,
    Unreadable,
    Venue,
)
from marketdata.wire import Id, best_first, epoch_ns, known_price, known_size, positive, reads

PARAMS_MAX = 100  # streams in one SUBSCRIBE
ROTATE_AFTER_S = 23 * 3600.0  # the venue cuts at 24 h

_STREAMS = {Channel.TOUCH: "bookTicker", Channel.DEPTH: "depth20@100ms", Channel.TRADES: "trade"}
_CHANNELS = {stream: channel for channel, stream in _STREAMS.items()} | {"depth20": Channel.DEPTH}
_UNUSED = frozenset(
    {
        "aggTrade",
        "avgPrice",
        "blockTrade",
        "bookTicker",
        "depth",
        "depth5",
        "depth10",
        "kline",
        "miniTicker",
        "referencePrice",
        "ticker",
        "trade",
    }
)
_BUY, _SELL = Side.BUY, Side.SELL  # looked up once: a member of an enum takes as long as a number to read
_SHUTDOWN = "serverShutdown"
_NAMED_STREAM = re.compile(r"\b([a-z0-9]{2,32})@", re.ASCII)


class _Error(Struct):
    code: int = 0
    msg: str = ""


class _Frame(Struct):
    stream: str = ""
    data: Raw = Raw()
    result: Raw = Raw()
    error: _Error | None = None
    code: int | None = None
    msg: str = ""
    id: int | str | None = None
    event: str = field(name="e", default="")


class _BookTicker(Struct, gc=False):
    update_id: Id = field(name="u")
    bid: str = field(name="b")
    bid_size: str = field(name="B")
    ask: str = field(name="a")
    ask_size: str = field(name="A")


class _BookTickerFrame(Struct, gc=False):
    data: _BookTicker


class _Level(Struct, array_like=True):
    price: str
    size: str


class _Depth(Struct):
    last_update_id: Id = field(name="lastUpdateId")
    bids: list[_Level]
    asks: list[_Level]


class _DepthFrame(Struct):
    data: _Depth


class _Trade(Struct, gc=False):
    id: Id = field(name="t")
    price: str = field(name="p")
    size: str = field(name="q")
    time: int = field(name="T")
    buyer_is_maker: bool = field(name="m")


class _TradeFrame(Struct, gc=False):
    data: _Trade


_frame = msgspec.json.Decoder(_Frame)
_book_ticker = msgspec.json.Decoder(_BookTickerFrame).decode
_depth = msgspec.json.Decoder(_DepthFrame)
_trade = msgspec.json.Decoder(_TradeFrame).decode


def symbol(instrument: str) -> str:
    return instrument.replace("-", "").lower()


def subscribe(topics: Sequence[Topic], first_id: int) -> list[Request]:
    return _requests("SUBSCRIBE", topics, first_id)


def unsubscribe(topics: Sequence[Topic], first_id: int) -> list[Request]:
    return _requests("UNSUBSCRIBE", topics, first_id)


def _requests(method: str, topics: Sequence[Topic], first_id: int) -> list[Request]:
    requests = []
    for number, start in enumerate(range(0, len(topics), PARAMS_MAX)):
        chunk = tuple(topics[start : start + PARAMS_MAX])
        streams = [f"{topic.symbol}@{_STREAMS[topic.channel]}" for topic in chunk]
        frame = {"method": method, "params": streams, "id": first_id + number}
        requests.append(Request(msgspec.json.encode(frame).decode(), chunk, first_id + number))
    return requests


@reads
def read(frame: str | bytes) -> Iterable[Message]:
    raw = _frame.decode(frame)
    if raw.stream:
        topic = _topic(raw.stream)
        if type(topic) is Topic:
            if not raw.data:
                raise Unreadable("a stream without data")
            return (Data(topic, frame),)
        assert not isinstance(topic, Topic)
        return (topic,)
    if raw.event == _SHUTDOWN:
        return (_closing(),)
    if raw.error is not None:
        return (_rejected(raw.error.code, raw.error.msg, raw.id),)
    if raw.code is not None:
        return (_rejected(raw.code, raw.msg, raw.id),)
    if raw.result:
        return (Accepted(),)
    raise Unreadable("neither a stream nor an answer")


@functools.lru_cache(maxsize=4096)
def _topic(stream: str) -> Topic | Ignored | PlannedClose:
    """Return the topic of a stream that we use, or what its frames are instead."""
    name, _, kind = stream.partition("@")
    if name == f"!{_SHUTDOWN}":
        return _closing()
    channel = _CHANNELS.get(kind)
    if channel is not None and name and not name.startswith("!"):
        return Topic(channel, name)
    family = kind.partition("@")[0].partition("_")[0]
    return Ignored(family if family in _UNUSED else "other stream")


def _closing() -> PlannedClose:
    return PlannedClose("the venue announced a shutdown of this server")


def _rejected(code: int, message: str, request_id: int | str | None) -> Rejected:
    named = _NAMED_STREAM.search(message)
    return Rejected(
        reason=f"{message[:200]} ({code})",
        symbol=named[1] if named else None,
        request_id=request_id if isinstance(request_id, int) else None,
    )


@reads
def parse_touch(frame: str | bytes) -> Iterable[Quote]:
    raw = _book_ticker(frame).data
    bid, ask = known_price(raw.bid), known_price(raw.ask)
    return (Quote(bid, positive(raw.bid_size), ask, positive(raw.ask_size), raw.update_id),)


def usual_touch() -> Callable[[bytes], Quote]:
    """Make a reader of touches that reads only the numbers which differ from those of the touch before.

    Nine of ten touches change one size. Prices that are those before need no comparing with each other either.
    """
    last_bid: str | None  # as it was written, likewise the others
    last_bid_size: str | None
    last_ask: str | None
    last_ask_size: str | None
    last_bid = last_bid_size = last_ask = last_ask_size = None
    bid = bid_size = ask = ask_size = Decimal(0)

    def read_touch(frame: bytes) -> Quote:
        nonlocal last_bid, last_bid_size, last_ask, last_ask_size, bid, bid_size, ask, ask_size
        raw = _book_ticker(frame).data
        if raw.bid != last_bid or raw.ask != last_ask:
            last_bid = None  # until both are known to be good
            bid, ask = known_price(raw.bid), known_price(raw.ask)
            if bid >= ask:
                raise Unreadable("crossed")
            last_bid, last_ask = raw.bid, raw.ask
        if (text := raw.bid_size) != last_bid_size:
            bid_size = positive(text)
            last_bid_size = text
        if (text := raw.ask_size) != last_ask_size:
            ask_size = positive(text)
            last_ask_size = text
        return Quote(bid, bid_size, ask, ask_size, raw.update_id)

    return read_touch


@reads
def parse_depth(frame: str | bytes) -> Iterable[BookImage]:
    raw = _depth.decode(frame).data
    bids = best_first(_levels(raw.bids), side=Side.BUY)
    asks = best_first(_levels(raw.asks), side=Side.SELL)
    return (BookImage(bids, asks, sequence=raw.last_update_id),)


def _levels(levels: Iterable[_Level]) -> list[Level]:
    return [(positive(level.price), positive(level.size)) for level in levels]


@reads
def parse_trade(frame: str | bytes) -> Iterable[Trade]:
    return (read_trade(frame),)


def read_trade(frame: str | bytes) -> Trade:
    raw = _trade(frame).data
    number = raw.id
    side = _SELL if raw.buyer_is_maker else _BUY  # ours is the taker's
    return Trade(str(number), number, number, known_price(raw.price), known_size(raw.size), side, epoch_ns(raw.time))


BINANCE = Venue(
    name="binance",
    url="wss://stream.binance.com:443/stream",
    symbol=symbol,
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    read=read,
    parse={Channel.TOUCH: parse_touch, Channel.DEPTH: parse_depth, Channel.TRADES: parse_trade},
    usual={Channel.TOUCH: usual_touch, Channel.TRADES: lambda: read_trade},
    heads=(b'{"stream":"', b'"data":'),
    send_interval_s=0.25,  # five a second are allowed, and pongs count
    rotate_after_s=ROTATE_AFTER_S,
    streams_max=1024,
    silent_symbols=True,
)
