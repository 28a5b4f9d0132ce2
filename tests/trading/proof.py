"""What must be true of the exchange's rows at any moment, re-proved from nothing but the rows.

Shares no arithmetic with the exchange: fractions of whole coins, rounded here. `prove` raises
an `AssertionError` that names the account and the rule.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from core.events import Side
from core.orders import hold
from trading import models

UNIT = Fraction(1, 10**8)
CAP = Fraction(46_000_000_000)
ENDED = {"filled", "partially_filled", "cancelled", "rejected"}
VENUES = {"binance", "okx", "kraken"}


def coins(units: int) -> Fraction:
    return units * UNIT


def up(value: Fraction) -> Fraction:
    return ceil(value / UNIT) * UNIT


def down(value: Fraction) -> Fraction:
    return floor(value / UNIT) * UNIT


@dataclass
class Rows:
    """Everything there is of some accounts, read once, each list in the order of writing."""

    accounts: list[models.Account]
    balances: list[models.Balance]
    orders: list[models.Order]
    fills: list[models.Fill]
    entries: list[models.Entry]
    reports: list[models.Report]
    twaps: list[models.Twap] = field(default_factory=list)


def read(account_ids: Collection[int] | None = None) -> Rows:
    """Read these accounts, or all. Meant for a moment when nobody writes."""
    chosen: dict[str, Any] = {} if account_ids is None else {"account_id__in": list(account_ids)}
    by_key = {} if account_ids is None else {"pk__in": list(account_ids)}
    by_order = {} if account_ids is None else {"order__account_id__in": list(account_ids)}
    return Rows(
        list(models.Account.objects.filter(**by_key).order_by("pk")),
        list(models.Balance.objects.filter(**chosen)),
        list(models.Order.objects.filter(**chosen).order_by("number")),
        list(models.Fill.objects.filter(**chosen).order_by("seq")),
        list(models.Entry.objects.filter(**chosen).order_by("id")),
        list(models.Report.objects.filter(**chosen).order_by("seq")),
        list(models.Twap.objects.filter(**by_order)),
    )


def prove(rows: Rows) -> None:
    """Check every rule, account by account."""
    parts = {account.pk: Rows([account], [], [], [], [], []) for account in rows.accounts}
    for name in ("balances", "orders", "fills", "entries", "reports"):
        for row in getattr(rows, name):
            getattr(parts[row.account_id], name).append(row)
    owners = {order.id: order.account_id for order in rows.orders}
    for twap in rows.twaps:
        parts[owners[twap.order_id]].twaps.append(twap)
    for part in parts.values():
        prove_account(part)


def prove_account(rows: Rows) -> None:
    (account,) = rows.accounts
    pk = account.pk
    balances = {row.asset: row for row in rows.balances}
    orders, fills, entries, reports = rows.orders, rows.fills, rows.entries, rows.reports

    sums: dict[str, int] = defaultdict(int)
    by_fill: dict[str, list[models.Entry]] = defaultdict(list)
    for entry in entries:
        sums[entry.asset] += entry.amount
        assert entry.balance == sums[entry.asset], f"{pk}: entry {entry.pk} says {entry.balance}, {sums[entry.asset]}"
        assert entry.balance >= 0, f"{pk}: {entry.asset} was below 0"
        assert (entry.kind in ("fill", "fee")) == bool(entry.reference), f"{pk}: entry {entry.pk} and its fill"
        if entry.reference:
            by_fill[entry.reference].append(entry)
        elif entry.kind == "deposit":
            assert entry.amount > 0
    held: dict[str, int] = defaultdict(int)
    for order in orders:
        held[_assets(order.instrument, order.side)[0]] += order.held
    for asset in {*balances, *sums}:
        row = balances.get(asset)
        total, reserved = (row.total, row.held) if row else (0, 0)
        assert total == sums[asset], f"{pk}: {asset} total {total}, its entries say {sums[asset]}"
        assert reserved == held[asset], f"{pk}: {asset} reserved {reserved}, its orders hold {held[asset]}"
        assert 0 <= reserved <= total <= CAP / UNIT, f"{pk}: {asset} {reserved} of {total}"
    assert set(held) <= set(balances), f"{pk}: an order holds what has no balance"

    fills_of: dict[str, list[models.Fill]] = defaultdict(list)
    for fill in fills:
        fills_of[fill.order_id].append(fill)
    assert set(by_fill) == {fill.id for fill in fills}, f"{pk}: entries and fills do not name each other"
    twaps = {twap.order_id: twap for twap in rows.twaps}
    for order in orders:
        made = sorted(fills_of.pop(order.id, []), key=lambda fill: fill.number)
        prove_order(order, made, by_fill)
        prove_slices(order, made, twaps.pop(order.id, None))
    assert not twaps, f"{pk}: a schedule of no order"
    assert not fills_of, f"{pk}: a fill of another account's order"

    assert [report.seq for report in reports] == list(range(1, len(reports) + 1)), f"{pk}: reports are not 1, 2, 3 …"
    assert account.seq == len(reports), f"{pk}: seq {account.seq} of {len(reports)} reports"
    told: dict[str, int] = {}
    known = {fill.id: fill for fill in fills}
    for report in reports:
        body = json.loads(report.body, parse_float=Decimal, parse_int=Decimal)
        if body["fill"] is not None:
            assert body["fill"]["fill_id"] not in told, f"{pk}: a fill was reported twice"
            told[body["fill"]["fill_id"]] = report.seq
            _same_receipt(body["fill"], known[body["fill"]["fill_id"]])
    assert told == {fill.id: fill.seq for fill in fills}, f"{pk}: fills and reports differ"


def prove_order(order: models.Order, fills: list[models.Fill], entries: dict[str, list[models.Entry]]) -> None:
    name = f"{order.account_id}: order {order.token_id}"
    paid_asset, got_asset = _assets(order.instrument, order.side)
    buys = order.side == "buy"
    assert [fill.number for fill in fills] == list(range(1, len(fills) + 1)), f"{name}: fills are not 1, 2, 3 …"
    assert order.fill_count == len(fills), name
    quantity = sum((coins(fill.quantity) for fill in fills), Fraction(0))
    notional = Fraction(0)
    fees = Fraction(0)
    for fill in fills:
        price = coins(fill.price)
        assert order.price is None or (price <= coins(order.price) if buys else price >= coins(order.price)), (
            f"{name}: filled at {fill.price}, its limit is {order.price}"
        )
        assert fill.venue in VENUES, f"{name}: venue {fill.venue}"
        before, notional = notional, notional + price * coins(fill.quantity)
        money = up(notional) - up(before) if buys else down(notional) - down(before)
        paid, got = (money, coins(fill.quantity)) if buys else (coins(fill.quantity), money)
        fees += coins(fill.fee)
        assert (fill.fee_asset, coins(fill.fee) <= got) == (got_asset, True), f"{name}: fee {fill.fee} of {got}"
        wanted = [("fill", paid_asset, -paid), ("fill", got_asset, got), ("fee", got_asset, -coins(fill.fee))]
        found = [(entry.kind, entry.asset, coins(entry.amount)) for entry in entries[fill.id]]
        assert found == [leg for leg in wanted if leg[2]], f"{name}: fill {fill.number} moved {found}, not {wanted}"
    assert coins(order.filled_quantity) == quantity <= coins(order.quantity), f"{name}: filled_quantity"
    assert Fraction(int(order.filled_notional), 10**16) == notional, f"{name}: filled_notional"
    assert coins(order.fee) == fees, f"{name}: its fee is not its fills'"
    venues = {fill.venue for fill in fills}
    assert order.venue == (None if not venues else venues.pop() if len(venues) == 1 else "multiple"), f"{name}: venue"
    if order.status == "open":
        leaves = coins(order.quantity) - quantity
        assert order.price is not None, f"{name}: rests without a limit"
        assert leaves > 0, f"{name}: open, and nothing left to fill"
        need = up(notional + coins(order.price) * leaves) - up(notional) if buys else leaves
        assert coins(order.held) == need, f"{name}: holds {coins(order.held)}, may cost {need}"
        assert order.held == hold(
            Side(order.side),
            price=order.price,
            leaves=order.quantity - order.filled_quantity,
            filled_notional=int(order.filled_notional),
        )
    else:
        assert order.status in ENDED, f"{name}: {order.status}"
        assert order.held == 0, f"{name}: has ended and holds {order.held}"
        whole = quantity == coins(order.quantity)
        legal = {"filled": whole, "partially_filled": not whole and quantity > 0, "cancelled": not quantity}
        assert legal.get(order.status, not quantity), f"{name}: {order.status} with {quantity} filled"
    if order.order_type not in ("limit", "twap"):
        assert order.status != "open", f"{name}: a {order.order_type} order rests"


def prove_slices(order: models.Order, fills: list[models.Fill], twap: models.Twap | None) -> None:
    """A parent order is never ahead of its schedule, and its fills say which slices they are, rising."""
    name = f"{order.account_id}: order {order.token_id}"
    assert (order.order_type == "twap") == (twap is not None), f"{name}: a {order.order_type} order's schedule"
    if twap is None:
        assert all(fill.slice is None for fill in fills), f"{name}: a slice of no parent order"
        return
    past, slices = twap.next_slice, twap.slices
    assert 0 <= twap.missed <= past <= slices, f"{name}: {twap.missed} missed of {past} of {slices}"
    assert order.status != "open" or past < slices, f"{name}: open, and no slice is left"
    assert order.reason != "twap_rest" or past == slices, f"{name}: its rest ended before its last slice"
    due = floor(Fraction(order.quantity) * past / slices)
    assert order.filled_quantity <= due, f"{name}: {order.filled_quantity} filled, {due} were due"
    last = -1
    for fill in fills:
        assert fill.slice is not None, f"{name}: fill {fill.number} is of no slice"
        assert last <= fill.slice < past, f"{name}: slice {fill.slice} after {last}, {past} are past"
        last = fill.slice
        assert (fill.rule, fill.liquidity) == ("twap_slice", "taker"), f"{name}: {fill.rule}"
        level = json.loads(fill.touch, parse_float=Decimal, parse_int=Decimal)["level"]
        assert (Fraction(level["price"]), level["exchange"]) == (coins(fill.price), fill.venue), f"{name}: {level}"
        assert Fraction(level["size"]) >= coins(fill.quantity), f"{name}: more than the level showed"
        assert twap.venue in ("all", fill.venue), f"{name}: filled by {fill.venue}, it asked for {twap.venue}"


def _assets(instrument: str, side: str) -> tuple[str, str]:
    """Return what an order pays with and what it gets."""
    base, _, quote = instrument.partition("-")
    return (quote, base) if side == "buy" else (base, quote)


def _same_receipt(told: dict[str, Any], fill: models.Fill) -> None:
    assert (
        told["order"], Fraction(told["price"]), Fraction(told["quantity"]), told["exchange"], Fraction(told["fee"]),
        told["fee_asset"], told["liquidity"], told["rule"],
    ) == (
        fill.order_id, coins(fill.price), coins(fill.quantity), fill.venue, coins(fill.fee),
        fill.fee_asset, fill.liquidity, fill.rule,
    ), f"{fill.account_id}: the report of fill {fill.id} tells something else"  # fmt: skip
