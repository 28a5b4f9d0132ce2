"""What is said on the WebSockets, as an AsyncAPI 3 document."""

from functools import cache
from typing import Any

from django.conf import settings

from core.candles import INTERVALS
from core.events import Side
from core.orders import SIMPLE_TYPES
from marketdata.batches import ALL
from marketdata.frames import SINGULAR
from router_project import example_order

SUBSCRIPTIONS_MAX = 500
FRAME_SIZE_MAX_KIB = 64
DEPTH_MAX = 20
STRING = {"type": "string"}
NUMBER = {"type": "number"}
BOOLEAN = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
ANY_ID = {"description": "any JSON scalar; echoed in the answer"}
NULLABLE = {  # of an order
    **{name: {"type": ["number", "null"]} for name in ("price", "filled_price", "execution_price")},
    **{name: {"type": ["string", "null"]} for name in ("exchange", "reason", "executed_at")},
}
NOW = 1_700_000_000.123456


@cache
def document() -> dict[str, Any]:
    """Return the description of /ws, /ws/orderbook and /ws/orderbook/{exchange}."""
    said, heard = _client_messages(), _server_messages()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Simple Router: WebSocket",
            "version": settings.VERSION,
            "description": (
                "Market data of several venues, orders and their executions over one socket. Authenticate by "
                "`?token=` or an `Authorization: Bearer` header, or send `auth` first. Every bad frame gets one "
                f"`error`, and the socket stays open; frames over {FRAME_SIZE_MAX_KIB} KiB close it with 1009. "
                f"At most {SUBSCRIPTIONS_MAX} subscriptions a socket. Close codes: 1008 credentials, "
                "1012 the server restarts (come back), 1013 the client reads too slowly."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {
            "session": {
                "address": "/ws",
                "description": "one client's session",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in {**said, **heard}},
            },
            "books": {
                "address": "/ws/orderbook/{exchange}",
                "description": "public: ten levels of every book, once a second; without an exchange, of all",
                "parameters": {"exchange": {"enum": [*settings.VENUES]}},
                "messages": {"books": {"$ref": "#/components/messages/books"}},
            },
        },
        "operations": {
            "say": _operation("receive", "session", "What a client may say", said),
            "hear": _operation("send", "session", "What a client hears", heard),
            "books": _operation("send", "books", "Books of all symbols, once a second", ["books"]),
        },
        "components": {"messages": {**said, **heard, "books": _books()}},
    }


def _operation(action: str, channel: str, summary: str, names: Any) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _message(summary: str, properties: dict[str, Any], example: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "summary": summary,
        "payload": {"type": "object", "properties": properties, "required": required},
        "examples": [{"payload": example}],
    }


def _order_commands() -> dict[str, Any]:
    amount = {
        "type": ["number", "string"],
        "description": "greater than 0, below 9e10, exact to 8 decimals; a number or a plain numeric string",
    }
    token = {**STRING, "minLength": 1, "maxLength": 128, "description": "your name for the order, used once for ever"}
    named = {"token_id": {**token, "description": "the order's token_id, or its id"}, "order_id": STRING, "id": ANY_ID}
    return {
        "submit_order": _message(
            "Place an order; the fields are those of POST /orders.",
            {
                "action": {"const": "submit_order"},
                "token_id": token,
                "symbol": STRING,
                "side": {"enum": [side.value for side in Side]},
                "order_type": {"enum": [kind.value for kind in SIMPLE_TYPES], "default": "limit"},
                "price": {**amount, "description": "for limit; optional for ioc; ignored for market"},
                "quantity": amount,
                "id": ANY_ID,
            },
            {
                "action": "submit_order", "token_id": "my-order-1", "symbol": "BTCUSDT", "side": "buy",
                "price": 95000.5, "quantity": 0.01,
            },
            ["action", "token_id", "symbol", "side", "quantity"],
        ),
        "modify_order": _message(
            "Change an open order's price or quantity; one that crosses now executes at once.",
            {"action": {"const": "modify_order"}, **named, "price": amount, "quantity": amount},
            {"action": "modify_order", "token_id": "my-order-1", "price": 95001},
            ["action", "token_id"],
        ),
        "cancel_order": _message(
            "Cancel an open order.",
            {"action": {"const": "cancel_order"}, **named},
            {"action": "cancel_order", "token_id": "my-order-1"},
            ["action", "token_id"],
        ),
        "resume": _message(
            "Tell the executions after the last one that this client heard of, then go on live.",
            {"action": {"const": "resume"}, "from_seq": COUNT, "id": ANY_ID},
            {"action": "resume", "from_seq": 41},
            ["action", "from_seq"],
        ),
    }  # fmt: skip


def _order_answers() -> dict[str, Any]:
    def answer(kind: str, summary: str, order: dict[str, Any]) -> dict[str, Any]:
        return _message(
            summary,
            {"type": {"const": kind}, "order": _object(order), "id": ANY_ID},
            {"type": kind, "order": order},
            ["type", "order"],
        )

    update = example_order.update()
    return {
        "order_submitted": answer(
            "order_submitted",
            "The answer to submit_order, before any update of that order on this socket.",
            example_order.resting(),
        ),
        "order_modified": answer("order_modified", "The answer to modify_order.", example_order.resting()),
        "order_cancelled": answer("order_cancelled", "The answer to cancel_order.", example_order.cancelled()),
        "order_update": _message(
            "An execution: a fill, or what is left of an ioc and ends; of a TWAP order also a slice that got nothing. "
            "To every socket of the user, at most once each; seq rises by one per account.",
            {
                **_object(update)["properties"],
                "type": {"const": "order_update"},
                "seq": {**COUNT, "minimum": 1},
                "data": {
                    "type": "object",
                    "properties": {
                        "order": _object(update["data"]["order"]),
                        "fill": {**_object(update["data"]["fill"]), "type": ["object", "null"]},
                    },
                    "required": ["order", "fill"],
                },
            },
            update,
            list(update),
        ),
        "resumed": _message(
            "The answer to resume: the updates from_seq + 1 to last_seq follow, then live ones.",
            {"type": {"const": "resumed"}, "from_seq": COUNT, "last_seq": COUNT, "id": ANY_ID},
            {"type": "resumed", "from_seq": 41, "last_seq": 42},
            ["type", "from_seq", "last_seq"],
        ),
    }


def _object(example: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with the fields of an example."""
    kinds: dict[type, dict[str, Any]] = {str: STRING, list: {"type": "array"}, dict: {"type": "object"}}
    properties = {name: NULLABLE.get(name) or kinds.get(type(value), NUMBER) for name, value in example.items()}
    return {"type": "object", "properties": properties, "required": list(example)}


def _client_messages() -> dict[str, Any]:
    selection = {
        "stream": {"enum": list(SINGULAR)},
        "symbol": {**STRING, "description": "BTCUSDT, BTC-USDT or BTC/USDT, in any case"},
        "exchange": {"enum": [ALL, *settings.VENUES], "default": ALL},
        "interval": {"enum": list(INTERVALS), "default": "1m", "description": "for klines"},
        "half_life": {**NUMBER, "exclusiveMinimum": 0, "default": 30, "description": "seconds, for ewma"},
        "depth": {"type": "integer", "minimum": 1, "maximum": DEPTH_MAX, "default": 10, "description": "for orderbook"},
        "id": ANY_ID,
    }

    def action(name: str) -> dict[str, Any]:
        return {"action": {"const": name}}

    return {
        "auth": _message(
            "Authenticate this socket, or give it a fresh token.",
            {**action("auth"), "token": STRING, "id": ANY_ID},
            {"action": "auth", "token": "eyJ…"},
            ["action", "token"],
        ),
        "subscribe": _message(
            "Subscribe to a stream.",
            {**action("subscribe"), **selection},
            {"action": "subscribe", "stream": "klines", "symbol": "ETHUSDT", "interval": "1m", "exchange": "binance"},
            ["action", "stream", "symbol"],
        ),
        "unsubscribe": _message(
            "End subscriptions; missing fields are wildcards.",
            {**action("unsubscribe"), **selection},
            {"action": "unsubscribe", "stream": "trades"},
            ["action"],
        ),
        "list": _message(
            "List this socket's subscriptions.", {**action("list"), "id": ANY_ID}, {"action": "list"}, ["action"]
        ),
        "ping": _message(
            "Ask whether the server is there.",
            {**action("ping"), "id": ANY_ID},
            {"action": "ping", "id": 1},
            ["action"],
        ),
        **_order_commands(),
    }


def _server_messages() -> dict[str, Any]:
    symbol = {"symbol": STRING, "exchange": STRING}
    level = {"type": "array", "description": "[price, quantity], for `all` with the exchange as third"}
    return {
        "info": _message(
            "The greeting: who is authenticated, and whether the market is real.",
            {
                "type": {"const": "info"}, "status": STRING, "message": STRING, "auth_status": STRING,
                "username": {"type": ["string", "null"]},
                "last_seq": {"type": ["integer", "null"], "description": "of the account's last order_update"},
            },
            {
                "type": "info", "status": "ok", "message": "Simple Router, paper trading.",
                "auth_status": "authenticated", "username": "alice", "last_seq": 42, "source": "live", "paper": True,
            },
            ["type", "status", "message", "auth_status"],
        ),
        "authenticated": _message(
            "The answer to auth.",
            {"type": {"const": "auth"}, "status": STRING, "username": STRING},
            {"type": "auth", "status": "ok", "username": "alice"},
            ["type", "status", "username"],
        ),
        "subscribed": _message(
            "The answer to subscribe, always before the first data.",
            {"type": {"const": "subscribed"}, "stream": STRING, **symbol, "id": ANY_ID},
            {"type": "subscribed", "stream": "trades", "symbol": "BTCUSDT", "exchange": "all"},
            ["type", "stream", "symbol", "exchange"],
        ),
        "unsubscribed": _message(
            "The answer to unsubscribe.",
            {"type": {"const": "unsubscribed"}, "count": COUNT, "id": ANY_ID},
            {"type": "unsubscribed", "stream": "trades", "count": 3},
            ["type", "count"],
        ),
        "subscriptions": _message(
            "The answer to list.",
            {"type": {"const": "subscriptions"}, "subscriptions": {"type": "array"}},
            {
                "type": "subscriptions",
                "subscriptions": [{"stream": "trades", "symbol": "BTCUSDT", "exchange": "all"}],
            },
            ["type", "subscriptions"],
        ),
        "pong": _message(
            "The answer to ping.",
            {"type": {"const": "pong"}, "action": {"const": "pong"}, "timestamp": NUMBER, "id": ANY_ID},
            {"type": "pong", "action": "pong", "timestamp": NOW, "id": 1},
            ["type", "action"],
        ),
        "error": _message(
            "A refused frame. `detail` is there for code invalid, `token_id` for a refused order command, "
            "`order` for code duplicate_token_id.",
            {
                "type": {"const": "error"}, "code": STRING, "message": STRING, "id": ANY_ID, "token_id": STRING,
                "order": {"type": "object"}, "detail": {"type": "array"},
            },
            {"type": "error", "code": "unknown_symbol", "message": "unknown symbol 'NOPE'", "id": 7},
            ["type", "code", "message"],
        ),
        **_order_answers(),
        "venue": _message(
            "A venue went stale or came back.",
            {"type": {"const": "venue"}, "exchange": STRING, "state": STRING, "reason": STRING},
            {"type": "venue", "exchange": "okx", "state": "stale", "reason": "silent for 5.0 s"},
            ["type", "exchange", "state", "reason"],
        ),
        "gap": _message(
            "Trades of a venue that never came.",
            {"type": {"const": "gap"}, **symbol, "from_id": COUNT, "to_id": COUNT},
            {"type": "gap", "exchange": "binance", "symbol": "BTCUSDT", "from_id": 10, "to_id": 12},
            ["type", "exchange", "symbol", "from_id", "to_id"],
        ),
        "best_touch": _data(
            "best_touch",
            "The best bid and ask, when they change; a side without a live venue is null.",
            {
                "symbol": "BTCUSDT", "exchange": "all", "best_bid": 95000.1, "best_bid_qty": 0.5,
                "best_bid_exchange": "okx", "best_ask": 95000.2, "best_ask_qty": 1.25, "best_ask_exchange": "binance",
                "spread": 0.1, "bid_price": 95000.1, "bid_exchange": "okx", "ask_price": 95000.2,
                "ask_exchange": "binance", "timestamp": NOW,
            },
        ),
        "trades": _data(
            "trades",
            "Each public trade once, in order per venue; `side` is the taker's.",
            {
                "symbol": "BTCUSDT", "exchange": "binance", "trade_id": "4811162538", "price": 95000.2,
                "quantity": 0.01, "side": "buy", "timestamp": NOW,
            },
        ),
        "klines": _data(
            "klines",
            "The running candle every second, and each closed one once.",
            {
                "symbol": "ETHUSDT", "exchange": "binance", "interval": "1m", "start": 1_700_000_000 // 60 * 60,
                "end": 1_700_000_000 // 60 * 60 + 60, "open_time": 1_700_000_000 // 60 * 60,
                "close_time": 1_700_000_000 // 60 * 60 + 60, "open": 3300, "high": 3301.5, "low": 3299,
                "close": 3301, "volume": 12.5, "trades": 37, "is_closed": False, "partial": False,
            },
        ),
        "ewma": _data(
            "ewma",
            "The moving average of the trade price by half-life, from the first trade after the subscription.",
            {"symbol": "SOLUSDT", "exchange": "all", "half_life": 30, "value": 190.123, "timestamp": NOW},
        ),
        "orderbook": _data(
            "orderbook",
            "The best levels, at most ten times a second.",
            {
                "symbol": "BTCUSDT", "exchange": "all", "depth": 1, "bids": [[95000.1, 0.5, "okx"]],
                "asks": [[95000.2, 1.25, "binance"]], "timestamp": NOW,
            },
            {"bids": {"type": "array", "items": level}, "asks": {"type": "array", "items": level}},
        ),
    }  # fmt: skip


def _data(stream: str, summary: str, example: dict[str, Any], known: dict[str, Any] | None = None) -> dict[str, Any]:
    kinds = {bool: BOOLEAN, str: STRING, list: {"type": "array"}}
    properties = {name: (known or {}).get(name) or kinds.get(type(value), NUMBER) for name, value in example.items()}
    return _message(
        summary,
        {
            "type": {"const": stream},
            "topic": {**STRING, "description": "symbol, stream, interval in seconds, exchange where not all"},
            "timestamp": NUMBER,
            "data": {"type": "object", "properties": properties, "required": list(example)},
        },
        {"type": stream, "topic": _topic(stream, example), "timestamp": NOW, "data": example},
        ["type", "topic", "timestamp", "data"],
    )


def _topic(stream: str, example: dict[str, Any]) -> str:
    parts = [example["symbol"], stream]
    if stream == "klines":
        parts.append(str(INTERVALS[example["interval"]]))
    if example["exchange"] != ALL:
        parts.append(example["exchange"])
    return ".".join(parts)


def _books() -> dict[str, Any]:
    return {
        "summary": "exchange → symbol → its levels",
        "payload": {"type": "object", "additionalProperties": {"type": "object"}},
        "examples": [
            {"payload": {"okx": {"BTCUSDT": {"bids": [[95000.1, 0.5]], "asks": [[95000.2, 1.25]]}}}},
        ],
    }
