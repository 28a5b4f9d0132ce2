"""Binance's market streams, spoken from the venue's side: combined frames on /stream."""

import re
import time
from collections.abc import Sequence
from typing import Any

from msgspec import DecodeError, json

from marketdata.simulated.dialect import (
    DEPTH,
    TOUCH,
    TRADES,
    Clock,
    Frames,
    Listeners,
    Makers,
    SentTrade,
    Socket,
    Topic,
    dictionary,
    fixed,
    milliseconds,
    strings,
)
from marketdata.simulated.maker import SIZE_DECIMALS, Ladder, Maker

DECIMALS = 8  # of every price on this wire, whatever the tick
PING_INTERVAL_S = 20.0
PONG_DEADLINE_S = 60.0
STREAMS_MAX = 1024
FIRST_UPDATE_ID = 50_000_000_000

_STREAM = re.compile(r"([a-z0-9]{1,40})@(?:(bookTicker)|(trade)|depth(5|10|20)@100ms)", re.ASCII)


class Binance:
    path = "/stream"
    depth_steps = 2
    touch_prices_only = False
    messages_per_s_max: int | None = 5
    system = "online"

    def __init__(self, makers: Makers, listeners: Listeners, clock_ns: Clock = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._listeners = listeners
        self._instruments = {instrument.replace("-", "").lower(): instrument for instrument in makers}

    def greet(self, socket: Socket) -> None:
        pass

    def is_ping(self, frame: str) -> bool:
        return False  # clients ping on the WebSocket's own level

    def take(self, socket: Socket, frame: str) -> None:
        try:
            request = dictionary(json.decode(frame))
        except (DecodeError, RecursionError):
            request = {}
        method, request_id = request.get("method"), request.get("id")
        params = strings(request.get("params", []))
        if method in ("SUBSCRIBE", "UNSUBSCRIBE") and params is not None:
            self._change(socket, method, params, request_id)
        elif method == "LIST_SUBSCRIPTIONS":
            names = sorted(f"{self._symbol(topic)}@{_SUFFIX[topic.kind]}{topic.variant}" for topic in socket.topics)
            self._reply(socket, names, request_id)
        elif method == "SET_PROPERTY" and request.get("params") == ["combined", True]:
            self._reply(socket, None, request_id)
        else:
            error = {"error": {"code": 2, "msg": f"Invalid request: unknown method or parameters: {method!s:.40}"}}
            socket.send("error", json.encode({**error, "id": request_id}).decode())

    def _change(self, socket: Socket, method: str, params: Sequence[str], request_id: Any) -> None:
        for name in params:
            topic = self._topic(name)
            if topic is None:
                continue  # unknown streams are acknowledged like the others, and stay silent
            if method == "UNSUBSCRIBE":
                socket.unsubscribe(topic)
            elif len(socket.topics) < STREAMS_MAX:
                socket.subscribe(topic)
        self._reply(socket, None, request_id)

    def _reply(self, socket: Socket, result: object, request_id: object) -> None:
        socket.send("ack", json.encode({"result": result, "id": request_id}).decode())

    def _topic(self, name: str) -> Topic | None:
        found = _STREAM.fullmatch(name)
        instrument = self._instruments.get(found[1]) if found else None
        if found is None or instrument is None:
            return None
        if found[2]:
            return Topic(TOUCH, instrument)
        return Topic(TRADES, instrument) if found[3] else Topic(DEPTH, instrument, f"{found[4]}@100ms")

    def _symbol(self, topic: Topic) -> str:
        return topic.instrument.replace("-", "").lower()

    def touch(self, maker: Maker, now_ns: int) -> Frames:
        topic = Topic(TOUCH, maker.instrument)
        if topic in self._listeners:
            symbol = self._symbol(topic)
            touch = maker.touch
            yield (
                topic,
                f'{{"stream":"{symbol}@bookTicker","data":{{"u":{FIRST_UPDATE_ID + maker.version},'
                f'"s":"{symbol.upper()}","b":"{_price(maker, touch.bid)}","B":"{_size(touch.bid_size)}",'
                f'"a":"{_price(maker, touch.ask)}","A":"{_size(touch.ask_size)}"}}}}',
            )

    def depth(self, maker: Maker, now_ns: int) -> Frames:
        for count in (20, 10, 5):
            topic = Topic(DEPTH, maker.instrument, f"{count}@100ms")
            if topic in self._listeners:
                yield (
                    topic,
                    f'{{"stream":"{self._symbol(topic)}@depth{topic.variant}",'
                    f'"data":{{"lastUpdateId":{FIRST_UPDATE_ID + maker.version},'
                    f'"bids":[{_levels(maker, maker.bids, count)}],"asks":[{_levels(maker, maker.asks, count)}]}}}}',
                )

    def trades(self, trades: Sequence[SentTrade]) -> Frames:
        for trade in trades:
            topic = Topic(TRADES, trade.instrument)
            if topic not in self._listeners:
                continue
            symbol, maker = self._symbol(topic), trade.maker
            for number, size in enumerate(trade.sizes):  # one frame per match
                yield (
                    topic,
                    f'{{"stream":"{symbol}@trade","data":{{"e":"trade","E":{milliseconds(trade.venue_ns) + 1},'
                    f'"s":"{symbol.upper()}","t":{trade.first_id + number},"p":"{_price(maker, trade.print.price)}",'
                    f'"q":"{_size(size)}","T":{milliseconds(trade.venue_ns)},'
                    f'"m":{"false" if trade.print.taker_buys else "true"},"M":true}}}}',
                )

    def tick(self, socket: Socket) -> None:
        if socket.unanswered_ping_s() > PONG_DEADLINE_S:
            socket.close(1008, "Pong timeout")
        elif socket.idle_ping_s() > PING_INTERVAL_S:
            socket.ping()

    def status(self, system: str) -> str:
        raise ValueError("Binance's wire has no engine status")

    def corrupt_checksum(self) -> None:
        raise ValueError("Binance's wire has no checksum")

    def farewell(self) -> str:
        now_ms = milliseconds(self._clock_ns())
        return f'{{"stream":"!serverShutdown","data":{{"e":"serverShutdown","E":{now_ms}}}}}'

    def garbage(self) -> Sequence[str | bytes]:
        symbol = next(iter(self._instruments), "btcusdt")

        def quote(data: str) -> str:
            return f'{{"stream":"{symbol}@bookTicker","data":{data}}}'

        return (
            "not JSON at all",
            '{"stream":"' + symbol,
            quote('{"u":"one","s":7,"b":[],"B":{},"a":true,"A":null}'),
            quote('{"u":1,"b":"NaN","B":"1","a":"Infinity","A":"1"}'),
            quote('{"u":1,"b":"-1","B":"-1","a":"0","A":"1"}'),
            quote("null"),
            f'{{"stream":"{symbol}@depth20@100ms","data":{{"lastUpdateId":9,"bids":[["1"]],"asks":[[null,"x"]]}}}}',
            f'{{"stream":"{symbol}@trade","data":{{"e":"trade","t":-1,"p":"1e999999999","q":"NaN","T":"x","m":0}}}}',
            "[" * 5_000,
            quote('"' + "9" * 1_000_000 + '"'),
            b"\xff\xfe\x00",
        )


_SUFFIX = {TOUCH: "bookTicker", TRADES: "trade", DEPTH: "depth"}


def _price(maker: Maker, price: int) -> str:
    return fixed(price, maker.price_decimals) + _PADDING[maker.price_decimals]


def _size(size: int) -> str:
    return fixed(size, SIZE_DECIMALS)


_PADDING = [("." if decimals == 0 else "") + "0" * (DECIMALS - decimals) for decimals in range(DECIMALS + 1)]


def _levels(maker: Maker, ladder: Ladder, count: int) -> str:
    return ",".join(f'["{_price(maker, price)}","{_size(size)}"]' for price, size in ladder.levels(count))
