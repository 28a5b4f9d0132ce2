"""Reads: orders with their fills, fills, entries and balances of one account, newest first, page by page."""

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from django.db.models import Q, QuerySet
from msgspec import Struct

from core.account import Balance
from core.orders import Fill, Order
from trading import models
from trading.commands import is_token
from trading.exchange import Done, OrderNotFound
from trading.ledger import FILL_COLUMNS, ORDER_COLUMNS, read_fill, read_fills, read_order, read_twaps

T = TypeVar("T")


class Page(Struct, Generic[T], frozen=True):
    """Some rows; `next_cursor` asks for those that follow, None when there are none."""

    rows: Sequence[T]
    next_cursor: int | None


class Receipt(Struct, frozen=True):
    """A fill with its order."""

    order: Order
    fill: Fill


def order(*, account_id: int, token: str) -> Done:
    """Return the account's order with this token id, else the one with this id.

    Raises:
        OrderNotFound: it has none.
    """
    found: list[Order] = []
    if is_token(token):
        wanted = models.Order.objects.filter(Q(token_id=token) | Q(id=token), account_id=account_id)
        found = [read_order(row) for row in wanted.values_list(*ORDER_COLUMNS)]
    if not found:
        raise OrderNotFound("you have no order with this token_id or id")
    chosen = next((one for one in found if one.terms.token_id == token), found[0])
    read_twaps([chosen])
    return Done(chosen, tuple(read_fills([chosen.order_id]).get(chosen.order_id, ())))


def orders(
    *,
    account_id: int,
    limit: int,
    cursor: int | None = None,
    status: str | None = None,
    instrument: str | None = None,
) -> Page[Done]:
    """Return orders, the last to arrive first; TWAP orders without their fills. At most three queries."""
    rows = models.Order.objects.filter(account_id=account_id)
    if status is not None:
        rows = rows.filter(status=status)
    if instrument is not None:
        rows = rows.filter(instrument=instrument)
    page = _page(rows.values_list(*ORDER_COLUMNS, "number"), "number", limit, cursor)
    return Page(_with_fills([read_order(row[:-1]) for row in page.rows]), page.next_cursor)


def fills(
    *, account_id: int, limit: int, cursor: int | None = None, token: str | None = None, instrument: str | None = None
) -> Page[Receipt]:
    """Return receipts, the last first, maybe those of one order or instrument. At most three queries."""
    rows = models.Fill.objects.filter(account_id=account_id)
    if token is not None:
        rows = rows.filter(order_id=order(account_id=account_id, token=token).order.order_id)
    if instrument is not None:
        rows = rows.filter(order__instrument=instrument)
    page = _page(rows.values_list(*FILL_COLUMNS), "seq", limit, cursor)
    theirs = _orders_by_id(row[1] for row in page.rows)
    return Page([Receipt(theirs[row[1]], read_fill(row)) for row in page.rows], page.next_cursor)


def entries(
    *, account_id: int, limit: int, cursor: int | None = None, asset: str | None = None, kind: str | None = None
) -> Page[models.Entry]:
    """Return the ledger's entries, the last first."""
    rows = models.Entry.objects.filter(account_id=account_id)
    if asset is not None:
        rows = rows.filter(asset=asset)
    if kind is not None:
        rows = rows.filter(kind=kind)
    if cursor is not None:
        rows = rows.filter(id__lt=cursor)
    found = list(rows.order_by("-id")[: limit + 1])
    return Page(found[:limit], found[limit - 1].pk if len(found) > limit else None)


def balances(account_id: int) -> dict[str, Balance]:
    """Return what the account has of each asset that it ever had."""
    rows = models.Balance.objects.filter(account_id=account_id).values_list("asset", "total", "held")
    return {asset: Balance(total, held) for asset, total, held in rows}


def _page(rows: "QuerySet[Any, tuple[Any, ...]]", key: str, limit: int, cursor: int | None) -> Page[tuple[Any, ...]]:
    """Return rows below the cursor; `key` is their last column, unique within the account."""
    if cursor is not None:
        rows = rows.filter(**{f"{key}__lt": cursor})
    found = list(rows.order_by(f"-{key}")[: limit + 1])
    return Page(found[:limit], found[limit - 1][-1] if len(found) > limit else None)


def _with_fills(found: Sequence[Order]) -> list[Done]:
    read_twaps(found)
    made = read_fills([one.order_id for one in found if one.fill_count and one.twap is None])
    return [Done(one, tuple(made.get(one.order_id, ()))) for one in found]


def _orders_by_id(order_ids: Iterable[str]) -> dict[str, Order]:
    rows = models.Order.objects.filter(id__in=set(order_ids)).values_list(*ORDER_COLUMNS)
    return {made.order_id: made for made in map(read_order, rows)}
