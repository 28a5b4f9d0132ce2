"""Tells the other parts, after a commit, what was committed: execution reports and resting orders.

Messages only wake up: a layer may lose them, and whoever needs them all compares with the
database (`Report.seq`, the open orders).
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog
from channels.layers import get_channel_layer
from msgspec import Struct, msgpack

from core.events import Side
from core.orders import Order
from trading.ledger import Outcome

log = structlog.get_logger(__name__)

ORDERS_GROUP = "trading.orders"
TWAPS_GROUP = "trading.twaps"  # there is a new one


class Notice(Struct, frozen=True, array_like=True):
    """A limit order that rests (`price` set), or that has ended (None)."""

    order_id: str
    account_id: int
    instrument: str
    side: Side
    price: int | None


class AccountReports(Struct, frozen=True, array_like=True):
    """Execution reports of one account: number and body (JSON), rising by one."""

    account_id: int
    reports: list[tuple[int, bytes]]


_encoder = msgpack.Encoder()
_notices = msgpack.Decoder(list[Notice])
_reports = msgpack.Decoder(AccountReports)


def account_group(account_id: int) -> str:
    """Return the group of an account's execution reports: joined by processes that hold its sockets."""
    return f"trading.account.{account_id}"


def read_notices(message: dict[str, Any]) -> list[Notice]:
    return _notices.decode(message["body"])


def read_reports(message: dict[str, Any]) -> AccountReports:
    return _reports.decode(message["body"])


class Teller:
    """Sends what was committed through the layer, from the event loop; called in the writer's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._layer = get_channel_layer()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, outcome: Outcome) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._start, outcome)

    def _start(self, outcome: Outcome) -> None:
        task = self._loop.create_task(self._tell(outcome))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, outcome: Outcome) -> None:
        try:
            for reports in _by_account(outcome):
                body = _encoder.encode(reports)
                await self._layer.group_send(
                    account_group(reports.account_id), {"type": "trading.reports", "body": body}
                )
            notices = [_notice(order, order.price) for order in outcome.rested if order.twap is None]
            notices += [_notice(order, None) for order in outcome.ended if order.twap is None]
            if notices:
                message = {"type": "trading.orders", "body": _encoder.encode(notices)}
                await self._layer.group_send(ORDERS_GROUP, message)
            if any(order.twap is not None and order.version == 1 for order in outcome.rested):
                await self._layer.group_send(TWAPS_GROUP, {"type": "trading.twaps"})
        except Exception:
            log.exception("what was committed could not be told; readers find it in the database")


def _by_account(outcome: Outcome) -> Iterable[AccountReports]:
    accounts: dict[int, list[tuple[int, bytes]]] = {}
    for report in outcome.reports:
        accounts.setdefault(report.account_id, []).append((report.seq, report.body))
    return [AccountReports(account_id, reports) for account_id, reports in accounts.items()]


def _notice(order: Order, price: int | None) -> Notice:
    return Notice(order.order_id, order.account_id, order.terms.instrument, order.side, price)
