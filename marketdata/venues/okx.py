"""OKX v5 public: bbo-tbt, books5 and trades.

All three are self-contained: images and prints, no deltas. The touch and the depth carry a
sequence that rises, with jumps; after maintenance it may start lower with a later time.
"""

import functools
import re
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw, Struct, field

from core.events import BookImage, Channel, Level, Quote, Side, Trade
from marketdata.venue import (
    Accepted,
    Alive,
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
from marketdata.wire import Id, best_first, epoch_ns, known_price, positive, reads

ARGS_BYTES_MAX = 60_000  # of one request; the venue takes 64 KB
PING, PONG = "ping", "pong"
UPGRADE_NOTICE = "64008"  # "the connection will be closed for a service upgrade"

_NAMES = {Channel.TOUCH: "bbo-tbt", Channel.DEPTH: "books5", Channel.TRADES: "trades"}
_CHANNELS = {name: channel for channel, name in _NAMES.items()}
_UNUSED = frozenset(
    {
        "books",
        "books-elp",
        "books-l2-tbt",
        "books-rpi",
        "books50-l2-tbt",
        "funding-rate",
        "index-tickers",
        "instruments",
        "mark-price",
        "open-interest",
        "option-trades",
        "price-limit",
        "status",
        "tickers",
        "trades-all",
    }
)
_UNUSED_EVENTS = frozenset(("channel-conn-count", "channel-conn-count-error", "login", "notice"))
_NAMED_INSTRUMENT = re.compile(r"instId:\s*([A-Za-z0-9-]{1,40})", re.ASCII)
_DIGITS_MAX = 18


class _Arg(Struct):
    channel: str
    instrument: str = field(name="instId", default="")


class _Frame(Struct):
    arg: _Arg | None = None
    data: Raw = Raw()
    event: str = ""
    code: str = ""
    msg: str = ""
    id: str = ""


class _Level(Struct, array_like=True):
    price: str
    size: str  # what follows (a leftover and the number of orders) is not read


class _Book(Struct):
    bids: list[_Level]
    asks: list[_Level]
    time: str = field(name="ts")
    sequence: Id | None = field(name="seqId", default=None)


class _BookFrame(Struct):
    data: list[_Book]


class _Trade(Struct):
    id: str = field(name="tradeId")
    price: str = field(name="px")
    size: str = field(name="sz")
    side: Side  # the taker's
    time: str = field(name="ts")
    count: str = "1"


class _TradeFrame(Struct):
    data: list[_Trade]


_frame = msgspec.json.Decoder(_Frame)
_books = msgspec.json.Decoder(_BookFrame)
_trades = msgspec.json.Decoder(_TradeFrame)


def symbol(instrument: str) -> str:
    return instrument


def probe(_request_id: int) -> str:
    return PING


def subscribe(topics: Sequence[Topic], first_id: int) -> list[Request]:
    return _requests("subscribe", topics, first_id)


def unsubscribe(topics: Sequence[Topic], first_id: int) -> list[Request]:
    return _requests("unsubscribe", topics, first_id)


def _requests(operation: str, topics: Sequence[Topic], first_id: int) -> list[Request]:
    requests: list[Request] = []
    for chunk in _chunks(topics):
        request_id = first_id + len(requests)
        args = [{"channel": _NAMES[topic.channel], "instId": topic.symbol} for topic in chunk]
        frame = {"id": str(request_id), "op": operation, "args": args}
        requests.append(Request(msgspec.json.encode(frame).decode(), tuple(chunk), request_id))
    return requests


def _chunks(topics: Sequence[Topic]) -> list[list[Topic]]:
    chunks: list[list[Topic]] = []
    room = 0
    for topic in topics:
        size = len(f'{{"channel":"{_NAMES[topic.channel]}","instId":"{topic.symbol}"}},'.encode())
        if not chunks or size > room:
            chunks.append([])
            room = ARGS_BYTES_MAX
        chunks[-1].append(topic)
        room -= size
    return chunks


@reads
def read(frame: str | bytes) -> Iterable[Message]:
    if frame in (PONG, PONG.encode()):  # the one answer that is not JSON
        return (Alive(answer=True),)
    raw = _frame.decode(frame)
    if raw.event:
        return (_answer(raw),)
    if raw.arg is None:
        raise Unreadable("neither a channel nor an event")
    topic = _topic(raw.arg.channel, raw.arg.instrument)
    if topic is None:
        return (_ignored(raw.arg.channel),)
    if not raw.data:
        raise Unreadable("a channel without data")
    return (Data(topic, frame),)


@functools.lru_cache(maxsize=4096)
def _topic(channel: str, instrument: str) -> Topic | None:
    known = _CHANNELS.get(channel)
    return Topic(known, instrument) if known is not None and instrument else None


def _ignored(channel: str) -> Ignored:
    if channel in _UNUSED:
        return Ignored(channel)
    return Ignored("candle" if channel.startswith("candle") else "other channel")


def _answer(raw: _Frame) -> Message:
    topic = _topic(raw.arg.channel, raw.arg.instrument) if raw.arg else None
    if raw.event in ("subscribe", "unsubscribe"):
        return Accepted(topic)
    if raw.event == "notice" and raw.code == UPGRADE_NOTICE:
        return PlannedClose(raw.msg[:200] or "the venue announced a service upgrade")
    if raw.event == "error":
        named = _NAMED_INSTRUMENT.search(raw.msg)
        return Rejected(
            reason=f"{raw.msg[:200]} ({raw.code[:20]})",
            topic=topic,
            symbol=named[1].rstrip("-") if named and topic is None else None,
            request_id=_whole(raw.id) if _is_whole(raw.id) else None,
        )
    return Ignored(raw.event if raw.event in _UNUSED_EVENTS else "other event")


def _whole(text: str) -> int:
    """Read an id or time, which the venue writes as a string of digits."""
    if _is_whole(text):
        return int(text)
    raise Unreadable(f"not a whole number: {text[:40]!r}")


def _is_whole(text: str) -> bool:
    return len(text) <= _DIGITS_MAX and text.isascii() and text.isdigit()


@reads
def parse_touch(frame: str | bytes) -> Iterable[Quote]:
    return [_quote(raw) for raw in _books.decode(frame).data]


def _quote(raw: _Book) -> Quote:
    bid, bid_size = _best(raw.bids[0]) if raw.bids else (None, None)
    ask, ask_size = _best(raw.asks[0]) if raw.asks else (None, None)
    return Quote(bid, bid_size, ask, ask_size, sequence=raw.sequence, venue_ns=epoch_ns(_whole(raw.time)))


def _best(level: _Level) -> Level:
    return known_price(level.price), positive(level.size)


@reads
def parse_depth(frame: str | bytes) -> Iterable[BookImage]:
    return [_image(raw) for raw in _books.decode(frame).data]


def _image(raw: _Book) -> BookImage:
    bids = best_first([_level(level) for level in raw.bids], side=Side.BUY)
    asks = best_first([_level(level) for level in raw.asks], side=Side.SELL)
    return BookImage(bids, asks, sequence=raw.sequence, venue_ns=epoch_ns(_whole(raw.time)))


def _level(level: _Level) -> Level:
    return positive(level.price), positive(level.size)


@reads
def parse_trades(frame: str | bytes) -> Iterable[Trade]:
    return [_print(raw) for raw in _trades.decode(frame).data]


def _print(raw: _Trade) -> Trade:
    """Read a print, which stands for `count` matches of one taker at one price; its id is the last of theirs.

    Executions against hidden liquidity (source "1") are prints like any other, though they may
    lie inside the touch.
    """
    last_id, count = _whole(raw.id), _whole(raw.count)
    if not 1 <= count <= last_id + 1:
        raise Unreadable("a print of an impossible number of matches")
    return Trade(
        trade_id=raw.id,
        first_id=last_id - count + 1,
        last_id=last_id,
        price=known_price(raw.price),
        size=positive(raw.size),
        side=raw.side,
        venue_ns=epoch_ns(_whole(raw.time)),
    )


OKX = Venue(
    name="okx",
    url="wss://ws.okx.com:8443/ws/v5/public",
    symbol=symbol,
    subscribe=subscribe,
    unsubscribe=unsubscribe,
    read=read,
    parse={Channel.TOUCH: parse_touch, Channel.DEPTH: parse_depth, Channel.TRADES: parse_trades},
    heads=(b'{"arg":{', b'"data":'),
    probe=probe,
    send_interval_s=0.25,
    connect_interval_s=1.0,  # three a second are allowed
)
