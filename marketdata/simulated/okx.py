"""OKX's public v5 channels, spoken from the venue's side."""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from msgspec import DecodeError, json

from marketdata.simulated.dialect import (
    DEPTH,
    INSTRUMENTS,
    TOUCH,
    TRADES,
    Clock,
    Frames,
    Listeners,
    Makers,
    SentTrade,
    Socket,
    Topic,
    changes,
    dictionary,
    fixed,
    milliseconds,
    trimmed,
)
from marketdata.simulated.maker import LEVELS, SIZE_DECIMALS, Maker

FIRST_SEQUENCE = 80_000_000_000
IDLE_S = 30.0  # without a push the connection is cut
REQUESTS_MAX = 480  # of subscriptions on a connection, an hour
ID_LENGTH_MAX = 32

_TOPICS = {"bbo-tbt": (TOUCH, ""), "books5": (DEPTH, "books5"), "books": (DEPTH, "books"), "trades": (TRADES, "")}


class Okx:
    path = "/ws/v5/public"
    depth_steps = 2
    touch_prices_only = False
    messages_per_s_max: int | None = None
    system = "online"

    def __init__(self, makers: Makers, listeners: Listeners, clock_ns: Clock = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._makers = makers
        self._listeners = listeners
        self._requests: defaultdict[int, int] = defaultdict(int)
        self._published: dict[str, tuple[int, dict[int, int], dict[int, int]]] = {}  # of `books`: seqId, bids, asks

    def greet(self, socket: Socket) -> None:
        pass

    def is_ping(self, frame: str) -> bool:
        return frame == "ping"

    def take(self, socket: Socket, frame: str) -> None:
        if frame == "ping":
            socket.send("pong", "pong")
            return
        try:
            request = dictionary(json.decode(frame))
        except (DecodeError, RecursionError):
            request = {}
        op, args, request_id = request.get("op"), request.get("args"), request.get("id")
        if op not in ("subscribe", "unsubscribe") or not isinstance(args, list):
            self._refuse(socket, None, "60012", f"Invalid request: {frame[:200]}")
            return
        if request_id is not None and not (isinstance(request_id, str) and 0 < len(request_id) <= ID_LENGTH_MAX):
            self._refuse(socket, None, "60033", "The parameter id has an invalid format")
            return
        self._requests[socket.number] += 1
        if self._requests[socket.number] > REQUESTS_MAX:
            self._refuse(socket, request_id, "60014", "Requests too frequent")
            return
        for arg in args:
            self._change(socket, op, dictionary(arg), request_id)

    def _change(self, socket: Socket, op: str, arg: dict[str, Any], request_id: str | None) -> None:
        topic = self._topic(arg)
        if topic is None:
            told = ",".join(f"{name}:{value}" for name, value in arg.items())
            reason = f"Wrong URL or {told} doesn't exist. Please use the correct URL, channel and parameters"
            self._refuse(socket, request_id, "60018", f"{reason} referring to API document.")
            return
        answer = {"id": request_id, "event": op, "arg": arg, "connId": _connection_id(socket)}
        socket.send("ack", json.encode({name: value for name, value in answer.items() if value is not None}).decode())
        if op == "unsubscribe":
            socket.unsubscribe(topic)
            return
        socket.subscribe(topic)
        self._snapshot(socket, topic)

    def _refuse(self, socket: Socket, request_id: str | None, code: str, message: str) -> None:
        answer = {"id": request_id, "event": "error", "code": code, "msg": message, "connId": _connection_id(socket)}
        socket.send("error", json.encode({name: value for name, value in answer.items() if value is not None}).decode())

    def _topic(self, arg: dict[str, Any]) -> Topic | None:
        channel, instrument = arg.get("channel"), arg.get("instId")
        if channel == "instruments" and arg.get("instType") == "SPOT":
            return Topic(INSTRUMENTS, "")
        if (
            isinstance(channel, str)
            and channel in _TOPICS
            and isinstance(instrument, str)
            and instrument in self._makers
        ):
            kind, variant = _TOPICS[channel]
            return Topic(kind, instrument, variant)
        return None

    def _snapshot(self, socket: Socket, topic: Topic) -> None:
        """Send what a new subscriber is sent first, to it alone."""
        now_ns = self._clock_ns()
        if topic.kind == INSTRUMENTS:
            socket.send("snapshot", self._instrument_list())
        elif topic.kind != TRADES:
            maker = self._makers[topic.instrument]
            if topic.kind == TOUCH:
                socket.send("snapshot", _bbo(maker, now_ns))
            elif topic.variant == "books5":
                socket.send("snapshot", _books5(maker, now_ns))
            else:
                bids, asks = maker.bids.levels(), maker.asks.levels()
                self._published[topic.instrument] = (_sequence(maker), dict(bids), dict(asks))
                socket.send("snapshot", _books(maker, "snapshot", bids, asks, -1, now_ns))

    def touch(self, maker: Maker, now_ns: int) -> Frames:
        topic = Topic(TOUCH, maker.instrument)
        if topic in self._listeners:
            yield topic, _bbo(maker, now_ns)

    def depth(self, maker: Maker, now_ns: int) -> Frames:
        books, books5 = Topic(DEPTH, maker.instrument, "books"), Topic(DEPTH, maker.instrument, "books5")
        if books in self._listeners:
            previous, bids, asks = self._published[maker.instrument]
            now_bids, now_asks = maker.bids.levels(), maker.asks.levels()
            self._published[maker.instrument] = (_sequence(maker), dict(now_bids), dict(now_asks))
            bid_changes = list(changes(bids, now_bids, LEVELS, best_is_high=True, silent_fall=False))
            ask_changes = list(changes(asks, now_asks, LEVELS, best_is_high=False, silent_fall=False))
            yield books, _books(maker, "update", bid_changes, ask_changes, previous, now_ns)
        if books5 in self._listeners:
            yield books5, _books5(maker, now_ns)

    def trades(self, trades: Sequence[SentTrade]) -> Frames:
        for trade in trades:
            topic = Topic(TRADES, trade.instrument)
            if topic in self._listeners:
                maker = trade.maker
                yield (
                    topic,
                    f'{{"arg":{{"channel":"trades","instId":"{topic.instrument}"}},"data":[{{'
                    f'"instId":"{topic.instrument}","tradeId":"{trade.last_id}",'
                    f'"px":"{trimmed(trade.print.price, maker.price_decimals)}",'
                    f'"sz":"{trimmed(trade.print.size, SIZE_DECIMALS)}","side":"{trade.side}",'
                    f'"ts":"{milliseconds(trade.venue_ns)}","count":"{trade.last_id - trade.first_id + 1}",'
                    f'"source":"0","seqId":{_sequence(maker)}}}]}}',
                )

    def tick(self, socket: Socket) -> None:
        if socket.idle_s() > IDLE_S:
            socket.close(4004, "No data received in 30s.")

    def status(self, system: str) -> str:
        raise ValueError("OKX's engine status is not simulated")

    def corrupt_checksum(self) -> None:
        raise ValueError("OKX's wire has no checksum")

    def farewell(self) -> str:
        notice = "The connection will soon be closed for a service upgrade. Please reconnect."
        return f'{{"event":"notice","code":"64008","msg":"{notice}","connId":"a4d3ae55"}}'

    def garbage(self) -> Sequence[str | bytes]:
        instrument = next(iter(self._makers), "BTC-USDT")

        def bbo(data: str) -> str:
            return f'{{"arg":{{"channel":"bbo-tbt","instId":"{instrument}"}},"data":{data}}}'

        return (
            "not JSON at all",
            '{"arg":{"channel":"bbo-t',
            bbo('[{"asks":"x","bids":7,"ts":null,"seqId":"y"}]'),
            bbo('[{"asks":[["NaN","1","0","1"]],"bids":[["Infinity","1","0","1"]],"ts":"1","seqId":1}]'),
            bbo('[{"asks":[["-5","1","0","1"]],"bids":[["-6","-1","0","1"]],"ts":"1","seqId":1}]'),
            bbo("null"),
            f'{{"arg":{{"channel":"books5","instId":"{instrument}"}},"data":[{{"asks":[[]],"bids":[[1]],"ts":"1"}}]}}',
            f'{{"arg":{{"channel":"trades","instId":"{instrument}"}},'
            '"data":[{"tradeId":"x","px":"1e999999999","sz":"","side":"up","ts":"","count":"-4"}]}',
            "[" * 5_000,
            bbo('"' + "9" * 1_000_000 + '"'),
            b"\xff\xfe\x00",
        )

    def _instrument_list(self) -> str:
        pairs = ",".join(
            f'{{"instType":"SPOT","instId":"{maker.instrument}","baseCcy":"{maker.instrument.partition("-")[0]}",'
            f'"quoteCcy":"{maker.instrument.partition("-")[2]}","tickSz":"{fixed(maker.tick, maker.price_decimals)}",'
            f'"lotSz":"{fixed(1, SIZE_DECIMALS)}","minSz":"{fixed(1, SIZE_DECIMALS)}","state":"live","expTime":""}}'
            for maker in self._makers.values()
        )
        return f'{{"arg":{{"channel":"instruments","instType":"SPOT"}},"data":[{pairs}]}}'


def _connection_id(socket: Socket) -> str:
    return f"{0xA4D30000 + socket.number:08x}"


def _sequence(maker: Maker) -> int:
    return FIRST_SEQUENCE + maker.version


def _levels(maker: Maker, levels: Sequence[tuple[int, int]]) -> str:
    return ",".join(
        f'["{trimmed(price, maker.price_decimals)}","{trimmed(size, SIZE_DECIMALS)}","0","{_orders(size)}"]'
        for price, size in levels
    )


def _orders(size: int) -> int:
    """Return how many orders make a level's size: any plausible number."""
    return 1 + size % 7 if size else 0


def _bbo(maker: Maker, now_ns: int) -> str:
    return (
        f'{{"arg":{{"channel":"bbo-tbt","instId":"{maker.instrument}"}},"data":[{{'
        f'"asks":[{_levels(maker, maker.asks.levels(1))}],"bids":[{_levels(maker, maker.bids.levels(1))}],'
        f'"ts":"{milliseconds(now_ns)}","seqId":{_sequence(maker)}}}]}}'
    )


def _books5(maker: Maker, now_ns: int) -> str:
    return (
        f'{{"arg":{{"channel":"books5","instId":"{maker.instrument}"}},"data":[{{'
        f'"asks":[{_levels(maker, maker.asks.levels(5))}],"bids":[{_levels(maker, maker.bids.levels(5))}],'
        f'"instId":"{maker.instrument}","ts":"{milliseconds(now_ns)}","seqId":{_sequence(maker)}}}]}}'
    )


def _books(
    maker: Maker,
    action: str,
    bids: Sequence[tuple[int, int]],
    asks: Sequence[tuple[int, int]],
    previous: int,
    now_ns: int,
) -> str:
    return (
        f'{{"arg":{{"channel":"books","instId":"{maker.instrument}"}},"action":"{action}","data":[{{'
        f'"asks":[{_levels(maker, asks)}],"bids":[{_levels(maker, bids)}],"ts":"{milliseconds(now_ns)}",'
        f'"checksum":0,"prevSeqId":{previous},"seqId":{_sequence(maker)}}}]}}'
    )
