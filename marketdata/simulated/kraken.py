"""Kraken's v2 channels, spoken from the venue's side: JSON numbers and checksummed deltas."""

import time
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any
from zlib import crc32

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
    strings,
    timestamp,
)
from marketdata.simulated.maker import SIZE_DECIMALS, Maker

FIRST_CONNECTION_ID = 13_834_774_380_200_032_777  # beyond 2^63, as the venue's are
HEARTBEAT_S = 1.0  # without another frame
IDLE_S = 60.0
CHECKSUM_LEVELS = 10
DEPTHS = (10, 25, 100, 500, 1000)
HISTORY = 50  # trades in a snapshot
REWRITE_CHANCE = 0.02  # a frame names a price twice; the later entry counts
DECOYS = (("BTC/USD", 1), ("ETH/EUR", 2), ("MINA/GBP", 4))  # listed, not served here
SYSTEMS = ("online", "cancel_only", "maintenance", "post_only")


class Kraken:
    path = "/v2"
    depth_steps = 1
    touch_prices_only = True
    messages_per_s_max: int | None = None

    def __init__(self, makers: Makers, listeners: Listeners, clock_ns: Clock = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self.system = "online"
        self._corrupt_next = False
        self._makers = makers
        self._listeners = listeners
        self._instruments = {instrument.replace("-", "/"): instrument for instrument in makers}
        self._windows: dict[Topic, tuple[dict[int, int], dict[int, int]]] = {}
        self._history: dict[str, list[SentTrade]] = {instrument: [] for instrument in makers}
        self._random = Random("kraken")  # noqa: S311 # nosec B311 # which frames repeat a price

    def greet(self, socket: Socket) -> None:
        socket.send("status", self._status(FIRST_CONNECTION_ID + socket.number))

    def is_ping(self, frame: str) -> bool:
        try:
            return dictionary(json.decode(frame)).get("method") == "ping"
        except (DecodeError, RecursionError):
            return False

    def take(self, socket: Socket, frame: str) -> None:
        now = timestamp(self._clock_ns())
        try:
            request = dictionary(json.decode(frame))
        except (DecodeError, RecursionError):
            request = {}
        method = request.get("method")
        if method == "ping":
            self._reply(socket, "pong", {"method": "pong"}, request, now)
        elif method in ("subscribe", "unsubscribe"):
            self._change(socket, method, request, now)
        else:
            answer = {"error": "Unsupported event", "method": str(method)[:40], "success": False}
            self._reply(socket, "error", answer, request, now)

    def _change(self, socket: Socket, method: str, request: Mapping[str, Any], now: str) -> None:
        params = dictionary(request.get("params"))
        channel = params.get("channel")
        if channel == "instrument":
            result = {
                "channel": channel,
                "snapshot": True,
                "warnings": ["tick_size is deprecated, use price_increment"],
            }
            self._reply(socket, "ack", {"method": method, "result": result, "success": True}, request, now)
            if method == "subscribe":
                socket.subscribe(Topic(INSTRUMENTS, ""))
                socket.send("snapshot", self._instrument_list())
            return
        symbols = strings(params.get("symbol"))
        told = _options(channel, params)
        if symbols is None or told is None:
            answer = {"error": "Event(s) not found", "method": method, "success": False}
            self._reply(socket, "error", answer, request, now)
            return
        for symbol in symbols:
            instrument = self._instruments.get(symbol)
            if instrument is None:
                answer = {"error": f"Currency pair not supported {symbol}", "method": method, "success": False}
                self._reply(socket, "error", {**answer, "symbol": symbol}, request, now)
                continue
            result = {"channel": channel, **told, "symbol": symbol}
            self._reply(socket, "ack", {"method": method, "result": result, "success": True}, request, now)
            topic = _topic(instrument, told, channel)
            if method == "unsubscribe":
                socket.unsubscribe(topic)
            else:
                socket.subscribe(topic)
                if told.get("snapshot", True):
                    self._snapshot(socket, topic)

    def _reply(
        self, socket: Socket, kind: str, answer: Mapping[str, object], request: Mapping[str, Any], now: str
    ) -> None:
        echo = {"req_id": request["req_id"]} if "req_id" in request else {}
        times = {"time_in": now, "time_out": timestamp(self._clock_ns())}
        socket.send(kind, json.encode({**answer, **times, **echo}).decode())

    def _snapshot(self, socket: Socket, topic: Topic) -> None:
        maker, now_ns = self._makers[topic.instrument], self._clock_ns()
        if topic.kind == TOUCH:
            socket.send("snapshot", self._ticker(maker, "snapshot", now_ns))
        elif topic.kind == TRADES:
            socket.send("snapshot", _trades("snapshot", self._history[topic.instrument][-HISTORY:]))
        else:
            depth = int(topic.variant)
            bids, asks = maker.bids.levels(depth), maker.asks.levels(depth)
            self._windows[topic] = (dict(bids), dict(asks))
            socket.send("snapshot", _book(maker, "snapshot", bids, asks, checksum(bids, asks), now_ns))

    def touch(self, maker: Maker, now_ns: int) -> Frames:
        topic = Topic(TOUCH, maker.instrument, "bbo")
        if topic in self._listeners:
            yield topic, self._ticker(maker, "update", now_ns)

    def depth(self, maker: Maker, now_ns: int) -> Frames:
        for depth in DEPTHS:
            topic = Topic(DEPTH, maker.instrument, str(depth))
            if topic not in self._listeners:
                continue
            before_bids, before_asks = self._windows.get(topic, ({}, {}))
            bids, asks = maker.bids.levels(depth), maker.asks.levels(depth)
            self._windows[topic] = (dict(bids), dict(asks))
            bid_changes = list(changes(before_bids, bids, depth, best_is_high=True, silent_fall=True))
            ask_changes = list(changes(before_asks, asks, depth, best_is_high=False, silent_fall=True))
            if not bid_changes and not ask_changes:
                continue  # it happened below this window
            if bid_changes and self._random.random() < REWRITE_CHANCE:
                price, size = bid_changes[-1]
                bid_changes.insert(0, (price, size + 1))
            code = checksum(bids, asks)
            if self._corrupt_next:
                self._corrupt_next, code = False, code ^ 1
            yield topic, _book(maker, "update", bid_changes, ask_changes, code, now_ns)

    def trades(self, trades: Sequence[SentTrade]) -> Frames:
        if not trades:
            return
        maker = trades[0].maker
        history = self._history[maker.instrument]
        history.extend(trade for trade in trades if not history or trade.last_id > history[-1].last_id)
        del history[:-HISTORY]
        topic = Topic(TRADES, maker.instrument)
        if topic in self._listeners:
            yield topic, _trades("update", trades)
        if Topic(TOUCH, maker.instrument, "trades") in self._listeners:
            ticker = self._ticker(maker, "update", trades[-1].venue_ns)
            yield Topic(TOUCH, maker.instrument, "trades"), ticker

    def tick(self, socket: Socket) -> None:
        if socket.topics and socket.idle_s() >= HEARTBEAT_S:
            socket.send("heartbeat", '{"channel":"heartbeat"}')
        elif socket.idle_s() > IDLE_S:
            socket.close(1001, "idle")

    def status(self, system: str) -> str:
        if system not in SYSTEMS:
            raise ValueError(f"not a state of Kraken's engine: {system} (one of {', '.join(SYSTEMS)})")
        self.system = system
        return self._status(FIRST_CONNECTION_ID)

    def corrupt_checksum(self) -> None:
        self._corrupt_next = True

    def farewell(self) -> str:
        start = timestamp(self._clock_ns())
        plan = f'[{{"expected_start_utc":"{start}","phase":"final_warning_30s","recommended_action":"reconnect"}}]'
        return self._status(FIRST_CONNECTION_ID, f',"upcoming_maintenance":{plan}')

    def _status(self, connection_id: int, more: str = "") -> str:
        return (
            f'{{"channel":"status","type":"update","data":[{{"version":"2.0.10","system":"{self.system}",'
            f'"api_version":"v2","connection_id":{connection_id}{more}}}]}}'
        )

    def _ticker(self, maker: Maker, kind: str, now_ns: int) -> str:
        touch, decimals = maker.touch, maker.price_decimals
        history = self._history[maker.instrument]
        last = fixed(history[-1].print.price if history else touch.bid, decimals)
        day = fixed(maker.usual_price, decimals)
        volume = fixed(maker.usual_size * 1000, SIZE_DECIMALS)
        return (
            f'{{"channel":"ticker","type":"{kind}","data":[{{"symbol":"{_symbol(maker)}",'
            f'"bid":{fixed(touch.bid, decimals)},"bid_qty":{fixed(touch.bid_size, SIZE_DECIMALS)},'
            f'"ask":{fixed(touch.ask, decimals)},"ask_qty":{fixed(touch.ask_size, SIZE_DECIMALS)},'
            f'"last":{last},"volume":{volume},"vwap":{day},"low":{day},"high":{day},'
            f'"change":0,"change_pct":0.00,"timestamp":"{timestamp(now_ns)}"}}]}}'
        )

    def garbage(self) -> Sequence[str | bytes]:
        symbol = next(iter(self._instruments), "BTC/USDT")

        def data(channel: str, body: str, kind: str = "update") -> str:
            return f'{{"channel":"{channel}","type":"{kind}","data":[{body}]}}'

        return (
            "not JSON at all",
            '{"channel":"tick',
            data("ticker", f'{{"symbol":"{symbol}","bid":"x","bid_qty":[],"ask":null,"ask_qty":true}}'),
            data("ticker", f'{{"symbol":"{symbol}","bid":NaN,"bid_qty":1,"ask":Infinity,"ask_qty":1}}'),
            data("ticker", f'{{"symbol":"{symbol}","bid":-5.0,"bid_qty":-1.0,"ask":-4.0,"ask_qty":1.0}}'),
            data("ticker", "null"),
            data("book", f'{{"symbol":"{symbol}","bids":[{{"price":-1,"qty":1}}],"asks":7,"checksum":"x"}}'),
            data("trade", f'{{"symbol":"{symbol}","side":"up","price":1e999999999,"qty":0,"trade_id":"x"}}'),
            "[" * 5_000,
            data("ticker", f'{{"symbol":"{symbol}","bid":{"9" * 1_000_000}}}'),
            b"\xff\xfe\x00",
        )

    def _instrument_list(self) -> str:
        listed = [_pair(_symbol(maker), maker.price_decimals, maker.tick) for maker in self._makers.values()]
        pairs = ",".join([*listed, *(_pair(symbol, decimals, 1) for symbol, decimals in DECOYS)])
        return f'{{"channel":"instrument","type":"snapshot","data":{{"assets":[],"pairs":[{pairs}]}}}}'


def checksum(bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]) -> int:
    """Return the CRC-32 of the best ten levels; whole ticks are the digits without point and leading zeros."""
    levels = (*list(asks)[:CHECKSUM_LEVELS], *list(bids)[:CHECKSUM_LEVELS])
    return crc32("".join(f"{price}{size}" for price, size in levels).encode())


def _options(channel: object, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the options that tell one subscription of a channel from another, None for what there is not."""
    if channel == "ticker" and params.get("event_trigger", "trades") in ("bbo", "trades"):
        snapshot = params.get("snapshot", True)
        return {"event_trigger": params.get("event_trigger", "trades"), "snapshot": snapshot is True}
    if channel == "book" and params.get("depth", 10) in DEPTHS:
        return {"depth": params.get("depth", 10), "snapshot": params.get("snapshot", True) is True}
    if channel == "trade":
        return {"snapshot": params.get("snapshot", False) is True}
    return None


def _topic(instrument: str, options: Mapping[str, Any], channel: object) -> Topic:
    if channel == "ticker":
        return Topic(TOUCH, instrument, options["event_trigger"])
    return Topic(DEPTH, instrument, str(options["depth"])) if channel == "book" else Topic(TRADES, instrument)


def _symbol(maker: Maker) -> str:
    return maker.instrument.replace("-", "/")


def _levels(maker: Maker, levels: Iterable[tuple[int, int]]) -> str:
    return ",".join(
        f'{{"price":{fixed(price, maker.price_decimals)},"qty":{fixed(size, SIZE_DECIMALS)}}}' for price, size in levels
    )


def _book(
    maker: Maker,
    kind: str,
    bids: Iterable[tuple[int, int]],
    asks: Iterable[tuple[int, int]],
    code: int,
    now_ns: int,
) -> str:
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{_symbol(maker)}","bids":[{_levels(maker, bids)}],'
        f'"asks":[{_levels(maker, asks)}],"checksum":{code},"timestamp":"{timestamp(now_ns)}"}}]}}'
    )


def _trades(kind: str, trades: Iterable[SentTrade]) -> str:
    told = ",".join(
        f'{{"symbol":"{_symbol(trade.maker)}","side":"{trade.side}",'
        f'"price":{fixed(trade.print.price, trade.maker.price_decimals)},"qty":{fixed(size, SIZE_DECIMALS)},'
        f'"ord_type":"market","trade_id":{trade.first_id + number},"timestamp":"{timestamp(trade.venue_ns)}"}}'
        for trade in trades
        for number, size in enumerate(trade.sizes)
    )
    return f'{{"channel":"trade","type":"{kind}","data":[{told}]}}'


def _pair(symbol: str, decimals: int, tick: int) -> str:
    base, _, quote = symbol.partition("/")
    increment = fixed(tick, decimals)
    return (
        f'{{"symbol":"{symbol}","base":"{base}","quote":"{quote}","status":"online",'
        f'"qty_precision":{SIZE_DECIMALS},"qty_increment":{fixed(1, SIZE_DECIMALS)},"price_precision":{decimals},'
        f'"cost_precision":5,"marginable":false,"has_index":true,"cost_min":0.50,"tick_size":{increment},'
        f'"price_increment":{increment},"qty_min":0.00005000}}'
    )
