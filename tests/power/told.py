"""What a router has told its clients, read from the bytes that it sent, and whether rows hold it.

Whatever tells of an order, a receipt, a deposit or a user counts: answers, refusals that show the order, lists, pushed
execution reports. It is told once the last byte of its message was given to the socket.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from core.money import to_units
from tests.power.strace import Said

if TYPE_CHECKING:
    from tests.trading.proof import Rows

TELLING = (b'"token_id"', b'"deposited"', b'"access_token"')
SERVED = b"HTTP/1."
UPGRADED = b"101"
WITHOUT_BODY = (b"204", b"304")
TEXT = 1

Json = Any


@dataclass
class Message:
    """A message that told of something, and where in the trace its last byte went out."""

    place: int
    body: Json


def messages(said: Iterable[Said]) -> list[Message]:
    """Return the messages that tell of something, in their order."""
    streams: dict[str, _Stream] = {}
    found = []
    for one in said:
        stream = streams.setdefault(one.connection, _Stream())
        telling = (body for body in stream.feed(one.data) if any(word in body for word in TELLING))
        found.extend(Message(one.begin, json.loads(body, parse_float=Decimal)) for body in telling)
    return found


class _Stream:
    """One side of a connection: HTTP answers, then perhaps WebSocket frames. Anything else is not looked at."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._served: bool | None = None  # whether this side answers
        self._upgraded = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._served is False:
            return
        self._waiting += data
        if self._served is None:
            if len(self._waiting) < len(SERVED):
                return
            self._served = self._waiting.startswith(SERVED)
            if not self._served:
                return
        while (body := self._frame() if self._upgraded else self._answer()) is not None:
            yield body

    def _answer(self) -> bytes | None:
        head, separator, _ = self._waiting.partition(b"\r\n\r\n")
        if not separator:
            return None
        status, *lines = bytes(head).split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        start = len(head) + len(separator)
        code = status.split()[1]
        if code == UPGRADED:
            self._upgraded = True
            return self._take(start, start)
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            end = self._waiting.find(b"0\r\n\r\n", start)
            return None if end < 0 else self._take(start, end + 5)  # its pieces, with their lengths: a page, or none
        return self._take(start, start + (0 if code in WITHOUT_BODY else int(headers[b"content-length"])))

    def _frame(self) -> bytes | None:
        if len(self._waiting) < 2:
            return None
        length, start = self._waiting[1], 2
        if length >= 126:
            start += 2 if length == 126 else 8
            length = int.from_bytes(self._waiting[2:start], "big")
        is_text = self._waiting[0] & 15 == TEXT
        frame = self._take(start, start + length)
        return frame if is_text or frame is None else b""

    def _take(self, start: int, end: int) -> bytes | None:
        if len(self._waiting) < end:
            return None
        taken = bytes(self._waiting[start:end])
        del self._waiting[:end]
        return taken


@dataclass
class Told:
    """All that was told until now: each order as it was told newest."""

    orders: dict[str, Json] = field(default_factory=dict)  # by id
    fills: dict[str, Json] = field(default_factory=dict)
    deposits: set[tuple[str, Decimal]] = field(default_factory=set)  # each of another amount
    users: set[str] = field(default_factory=set)

    def hear(self, body: Json) -> None:
        """Take in all that a message tells of."""
        if isinstance(body, list):
            for one in body:
                self.hear(one)
        elif isinstance(body, dict):
            if "created_at" in body and "filled_quantity" in body and "token_id" in body:
                known = self.orders.get(body["order_id"])
                if known is None or known["updated_at"] <= body["updated_at"]:
                    self.orders[body["order_id"]] = body
            if "fill_id" in body and "rule" in body:
                self.fills[body["fill_id"]] = body
            if "deposited" in body:
                self.deposits.add((body["asset"], Decimal(body["deposited"])))
            if "access_token" in body and "username" in body:
                self.users.add(body["username"])
            for one in body.values():
                if isinstance(one, dict | list):
                    self.hear(one)

    @property
    def nothing(self) -> bool:
        return not (self.users or self.orders or self.deposits)


@dataclass
class Faults:
    """What is not as it was told."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def compare(told: Told, rows: "Rows", users: Collection[str], asked: Collection[str]) -> Faults:
    """Hold rows against what was told; `asked` are the token ids of all orders that anybody may ever have got."""
    faults = Faults()
    faults.lost += [f"user {name}" for name in sorted(told.users - set(users))]

    deposits = Counter((entry.asset, entry.amount) for entry in rows.entries if entry.kind == "deposit")
    faults.lost += [f"deposit {one}" for one in sorted(told.deposits) if not deposits[one[0], to_units(one[1])]]
    faults.doubled += [f"deposit {one}" for one, times in deposits.items() if times > 1]

    orders = {order.id: order for order in rows.orders}
    tokens = Counter((order.account_id, order.token_id) for order in rows.orders)
    faults.doubled += [f"order {one}" for one, times in tokens.items() if times > 1]
    faults.wrong += [f"order {token}, from nowhere" for _, token in tokens if token not in asked]
    for order_id, body in told.orders.items():
        order = orders.get(order_id)
        if order is None or _moment(order.updated_at) < _moment(body["updated_at"]):
            faults.lost.append(f"order {body['token_id']}, {body['status']}")
        elif difference := _difference(order, body):
            faults.wrong.append(f"order {body['token_id']}: {difference}")

    fills = {fill.id: fill for fill in rows.fills}
    faults.doubled += [f"fill {one}" for one, times in Counter(fill.id for fill in rows.fills).items() if times > 1]
    for fill_id, body in told.fills.items():
        fill = fills.get(fill_id)
        if fill is None:
            faults.lost.append(f"fill {fill_id}")
        elif (receipt := _receipt(fill)) != (expected := tuple(body[name] for name in RECEIPT)):
            faults.wrong.append(f"fill {fill_id}: {receipt}, told {expected}")
    return faults


RECEIPT = ("order", "price", "quantity", "exchange", "fee", "fee_asset", "liquidity", "rule")


def _receipt(fill: Any) -> tuple[Any, ...]:
    return (
        fill.order_id, _coins(fill.price), _coins(fill.quantity), fill.venue, _coins(fill.fee), fill.fee_asset,
        fill.liquidity, fill.rule,
    )  # fmt: skip


def _difference(order: Any, body: Json) -> str | None:
    """Compare an order with how it was told: it is that, or something that came of it later."""
    mine = {
        "token_id": order.token_id, "user_id": order.account_id, "side": order.side, "order_type": order.order_type,
        "status": order.status, "quantity": _coins(order.quantity), "filled_quantity": _coins(order.filled_quantity),
    }  # fmt: skip
    if order.order_type == "limit":
        mine["price"] = _coins(order.price)
    if body["status"] == "open" and _moment(order.updated_at) > _moment(body["updated_at"]):
        for name in ("status", "quantity", "price"):  # what may have changed since
            mine.pop(name, None)
        if mine.pop("filled_quantity") < body["filled_quantity"]:
            return f"filled {_coins(order.filled_quantity)}, told {body['filled_quantity']}"
    told = {name: body[name] for name in mine}
    return None if mine == told else f"{mine}, told {told}"


def _coins(units: int) -> Decimal:
    return Decimal(units).scaleb(-8)


def _moment(value: str | datetime) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
