"""Proves the ledger from its rows: what is stored for speed must follow from what was written down.

Each account is read in one snapshot, so that trading goes on meanwhile: no row is locked. Long
histories are read in pages; of an account's past only the orders that are partly filled are
remembered. Sums and series are checked in SQL, the arithmetic of fills with the core's.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog
from django.db import connection, connections
from msgspec import Struct

from core.events import Side
from core.orders import OrderType, amount, hold
from trading import metrics
from trading.fingerprint import snapshot

log = structlog.get_logger(__name__)

PAGE = 1_000  # rows read at once
SHARE = 0.05  # of one core, at most, beside the work: however long the history, it costs no more
START_S = 3.0  # that a start waits for the first proof; a longer one goes on beside the work
INTERVAL_S = 60.0
_HALF = 10**9  # sums are taken of the two halves of each number: SQLite's overflow where PostgreSQL's do not

Pause = Callable[[], None]


class Finding(Struct, frozen=True):
    """Something that must not be: which account, which rule, and the row with its numbers (units)."""

    account_id: int
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"account {self.account_id}: {self.rule}: {self.detail}"


def verify(account_ids: Sequence[int] | None = None, *, pause: Pause = lambda: None) -> list[Finding]:
    """Check these accounts, or all, and return what is wrong; `pause` is called after each page."""
    findings: list[Finding] = []
    for account_id in _all_accounts() if account_ids is None else account_ids:
        with snapshot():
            findings.extend(_Account(account_id, pause).findings())
        pause()
    return findings


class _Stopped(Exception):
    """The process ends; nobody waits for the proof any more."""


class Auditor:
    """Proves the whole ledger again and again, in a thread, with what was found last at hand.

    The first proof is as fast as it can be; the later ones, and the rest of a first one that
    takes longer than a start may, leave nearly all of a core to the exchange.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.checked_at: float | None = None  # when the last proof ended, seconds since the epoch
        self._known: set[Finding] = set()
        self._hurried = True
        self._worked_s = 0.0
        self._stopped = threading.Event()
        self._pass: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Prove the ledger once; return when it is done, or when a start should wait no longer."""
        self._pass = asyncio.ensure_future(asyncio.to_thread(self._prove))
        await asyncio.wait([self._pass], timeout=START_S)
        if not self._pass.done():
            log.info("the ledger is still being checked; starting meanwhile")
        self._hurried = False

    async def run(self, wanted: Callable[[], bool]) -> None:
        """Prove it every minute while that is wanted from this process, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            if wanted() and (self._pass is None or self._pass.done()):
                self._pass = asyncio.ensure_future(asyncio.to_thread(self._prove))

    async def stop(self) -> None:
        self._stopped.set()
        if self._pass is not None:
            await self._pass

    def state(self) -> dict[str, Any]:
        """Return what `/status` tells: how many things are wrong, and when that was last checked."""
        return {"violations": len(self.findings), "checked_at": self.checked_at}

    def _prove(self) -> None:
        self._worked_s = time.thread_time()
        try:
            self._found(verify(pause=self._pause))
        except _Stopped:
            return
        except Exception:
            log.exception("the ledger could not be checked; it is tried again")
        finally:
            connections.close_all()

    def _found(self, findings: list[Finding]) -> None:
        for finding in findings:
            if finding not in self._known:
                log.error("THE LEDGER IS WRONG", account=finding.account_id, rule=finding.rule, detail=finding.detail)
                metrics.VIOLATIONS.inc()
        self._known = set(findings)
        self.findings, self.checked_at = findings, time.time()

    def _pause(self) -> None:
        if self._hurried:
            self._worked_s = time.thread_time()
        else:
            self._stopped.wait((time.thread_time() - self._worked_s) * (1 / SHARE - 1))
            self._worked_s = time.thread_time()
        if self._stopped.is_set():
            raise _Stopped


_auditor: list[Auditor] = []


def auditor() -> Auditor:
    """Return this process's auditor."""
    if not _auditor:
        _auditor.append(Auditor())
    return _auditor[0]


class _Account:
    """The checks of one account; each yields what it finds."""

    def __init__(self, account_id: int, pause: Pause) -> None:
        self.account_id = account_id
        self._pause = pause

    def findings(self) -> Iterator[Finding]:
        for check in (self._entries, self._holds, self._orders, self._schedules, self._fills, self._reports):
            yield from check()

    # -- money

    def _entries(self) -> Iterator[Finding]:
        """A balance is the sum of its entries, and each entry says the total after it."""
        for asset, total, high, low in self._rows(
            "SELECT asset, coalesce(max(total), 0), coalesce(sum(high), 0), coalesce(sum(low), 0) FROM ("  # noqa: S608
            "SELECT asset, total, 0 AS high, 0 AS low FROM trading_balance WHERE account_id = %s UNION ALL"
            f" SELECT asset, NULL, amount / {_HALF}, amount %% {_HALF} FROM trading_entry WHERE account_id = %s"
            ") AS both_tables GROUP BY asset",
            2,
        ):
            entries = int(high) * _HALF + int(low)
            if total != entries:
                yield self._finding("balance", f"{asset} total is {total}, its entries say {entries}")
        for entry_id, asset, says, before, change in self._rows(
            "SELECT id, asset, balance, before, amount FROM ("
            "SELECT id, asset, balance, amount, lag(balance, 1, 0) OVER (PARTITION BY asset ORDER BY id) AS before"
            " FROM trading_entry WHERE account_id = %s) AS series WHERE balance - before <> amount OR balance < 0"
        ):
            yield self._finding("entry", f"{entry_id}: {asset} {before} and {change} make {says}")

    def _holds(self) -> Iterator[Finding]:
        """A balance holds what its open orders hold, and each order holds what it may still cost."""
        held: dict[str, int] = defaultdict(int)
        for row in self._pages("trading_order", _OPEN_COLUMNS, "status = 'open'", "number"):
            _, order_id, instrument, side_name, order_type, price, quantity, filled, notional, order_held = row
            side = Side(side_name)
            base, _, quote = instrument.partition("-")
            held[quote if side is Side.BUY else base] += order_held
            if price is None or filled >= quantity:
                yield self._finding("open order", f"{order_id} is an open {order_type} order with nothing to wait for")
                continue
            needed = hold(side, price=price, leaves=quantity - filled, filled_notional=int(notional))
            if order_held != needed:
                yield self._finding("hold", f"order {order_id} holds {order_held}, its rest may cost {needed}")
        for asset, total, kept in self._rows("SELECT asset, total, held FROM trading_balance WHERE account_id = %s"):
            orders_hold = held.pop(asset, 0)
            if kept != orders_hold:
                yield self._finding("held", f"{asset} held is {kept}, open orders hold {orders_hold}")
            if not 0 <= kept <= total:
                yield self._finding("held", f"{asset} held is {kept} of {total}")
        for asset, orders_hold in held.items():
            if orders_hold:
                yield self._finding("held", f"{asset} has no balance, open orders hold {orders_hold}")

    # -- orders and fills

    def _orders(self) -> Iterator[Finding]:
        """A status says what the numbers say."""
        for order_id, status, quantity, filled, fills, held in self._rows(
            "SELECT id, status, quantity, filled_quantity, fill_count, held FROM trading_order WHERE account_id = %s"
            " AND NOT (CASE status"
            " WHEN 'open' THEN filled_quantity < quantity"
            " WHEN 'filled' THEN filled_quantity = quantity AND held = 0"
            " WHEN 'partially_filled' THEN filled_quantity > 0 AND filled_quantity < quantity AND held = 0"
            " ELSE filled_quantity = 0 AND held = 0 END"
            " AND (fill_count > 0) = (filled_quantity > 0) AND (fill_count > 0) = (executed_at IS NOT NULL)"
            " AND (fill_count > 0) = (venue IS NOT NULL))"
        ):
            detail = f"{order_id} is {status} with {filled} of {quantity} filled in {fills} fills, holding {held}"
            yield self._finding("status", detail)
        for order_id, counted, stored in self._rows(
            "SELECT * FROM (SELECT o.id, o.fill_count, (SELECT count(*) FROM trading_fill f WHERE f.order_id = o.id)"
            " AS stored FROM trading_order o WHERE o.account_id = %s) AS counts WHERE fill_count <> stored"
        ):
            yield self._finding("fills", f"order {order_id} counts {counted} fills, {stored} are stored")

    def _schedules(self) -> Iterator[Finding]:
        """Parent orders, and they alone, have a schedule; while one is open there are slices to come."""
        for order_id, order_type, status, reason, past, slices in self._rows(
            "SELECT o.id, o.order_type, o.status, o.reason, t.next_slice, t.slices FROM trading_order o"
            " LEFT JOIN trading_twap t ON t.order_id = o.id WHERE o.account_id = %s AND ("
            "(o.order_type = 'twap') <> (t.order_id IS NOT NULL)"
            " OR (o.status = 'open' AND t.next_slice >= t.slices)"
            " OR (o.reason = 'twap_rest' AND t.next_slice < t.slices))"
        ):
            detail = f"{order_type} order {order_id} is {status} {reason} after {past} of {slices} slices"
            yield self._finding("schedule", " ".join(detail.split()))

    def _fills(self) -> Iterator[Finding]:
        """Every fill moved what the core says, once, and an order is the sum of its fills."""
        entries = self._fill_entries()
        entry = next(entries, None)
        orders: dict[str, _Filled] = {}
        for row in self._fill_rows():
            fill = _FillRow(*row)
            moved: list[tuple[str, str, int]] = []
            while entry is not None and entry[1] == fill.fill_id:
                moved.append(entry[2:])
                entry = next(entries, None)
            order = orders.setdefault(fill.order_id, _Filled())
            last_slice = order.slice
            expected = order.add(fill)
            if moved != expected:
                yield self._finding("fill", f"{fill.fill_id} of order {fill.order_id} moved {moved}, not {expected}")
            for fault in fill.faults(order, last_slice, self.account_id):
                yield self._finding("fill", f"{fill.fill_id} of order {fill.order_id}: {fault}")
            if order.fills >= fill.order_fills:
                del orders[fill.order_id]
                if (stored := fill.order_sums()) != order.sums():
                    yield self._finding("order", f"{fill.order_id} says {stored}, its fills {order.sums()}")
        if entry is not None:
            yield self._finding("entry", f"{entry[0]} belongs to {entry[1]!r}, which is no fill, or not the next one")

    def _reports(self) -> Iterator[Finding]:
        """Reports are numbered 1, 2, 3 … up to the account's number, and each fill is told in its own."""
        for last, count, low, high in self._rows(
            "SELECT a.seq, count(r.seq), coalesce(min(r.seq), 1), coalesce(max(r.seq), 0) FROM trading_account a"
            " LEFT JOIN trading_report r ON r.account_id = a.user_id WHERE a.user_id = %s GROUP BY a.seq"
        ):
            if not (low == 1 and last == count == high):
                yield self._finding("reports", f"{count} reports, numbered {low} to {high}, the account says {last}")
        find = "strpos(r.body, f.id)" if connection.vendor == "postgresql" else "instr(r.body, f.id)"
        for fill_id, seq in self._rows(
            "SELECT f.id, f.seq FROM trading_fill f LEFT JOIN trading_report r"  # noqa: S608 - our own words
            f" ON r.account_id = f.account_id AND r.seq = f.seq WHERE f.account_id = %s AND coalesce({find}, 0) = 0"
        ):
            yield self._finding("report", f"fill {fill_id} is not told by report {seq}")

    # -- reading

    def _fill_entries(self) -> Iterator[tuple[int, str, str, str, int]]:
        columns = "id, reference, kind, asset, amount"
        return self._pages("trading_entry", columns, "(kind IN ('fill', 'fee') OR reference <> '')", "id")

    def _fill_rows(self) -> Iterator[tuple[Any, ...]]:
        return self._pages(
            "trading_fill f JOIN trading_order o ON o.id = f.order_id LEFT JOIN trading_twap t ON t.order_id = o.id",
            ", ".join(_FILL_COLUMNS), "1 = 1", "f.seq", "f.",
        )  # fmt: skip

    def _pages(self, table: str, columns: str, where: str, key: str, owner: str = "") -> Iterator[Any]:
        """Read rows by a rising key, which is the first of the columns."""
        last = 0
        while True:
            rows = self._rows(
                f"SELECT {columns} FROM {table} WHERE {where} AND {owner}account_id = %s AND {key} > {last}"  # noqa: S608 - our own words
                f" ORDER BY {key} LIMIT {PAGE}"
            )
            yield from rows
            if len(rows) < PAGE:
                return
            last = rows[-1][0]
            self._pause()

    def _rows(self, sql: str, times: int = 1) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql, [self.account_id] * times)
            return list(cursor.fetchall())

    def _finding(self, rule: str, detail: str) -> Finding:
        return Finding(self.account_id, rule, detail)


_OPEN_COLUMNS = "number, id, instrument, side, order_type, price, quantity, filled_quantity, filled_notional, held"
_FILL_COLUMNS = (
    "f.seq", "f.id", "f.order_id", "f.number", "f.price", "f.quantity", "f.venue", "f.fee", "f.fee_asset",
    "o.account_id", "o.instrument", "o.side", "o.order_type", "o.price", "o.fill_count", "o.filled_quantity",
    "o.filled_notional", "o.fee", "o.quantity", "f.slice", "t.next_slice", "t.slices",
)  # fmt: skip


class _FillRow(Struct, frozen=True):
    """A fill beside its order."""

    seq: int
    fill_id: str
    order_id: str
    number: int
    price: int
    quantity: int
    venue: str
    fee: int
    fee_asset: str
    owner: int
    instrument: str
    side: str
    order_type: str
    limit: int | None
    order_fills: int
    order_quantity: int
    order_notional: str
    order_fee: int
    wanted: int
    slice: int | None
    next_slice: int | None
    slices: int | None

    def order_sums(self) -> tuple[int, int, int]:
        return self.order_quantity, int(self.order_notional), self.order_fee

    def faults(self, order: "_Filled", last_slice: int, account_id: int) -> Iterator[str]:
        """Compare it with its order as far as it was read, this fill included."""
        base, _, quote = self.instrument.partition("-")
        if self.number != order.fills:
            yield f"it is number {self.number}, {order.fills} was next"
        if self.owner != account_id:
            yield f"its order belongs to account {self.owner}"
        if self.fee_asset != (base if self.side == Side.BUY else quote):
            yield f"its fee is in {self.fee_asset}"
        if self.limit is not None and self.order_type in ("limit", "ioc", "twap"):
            worse = self.price > self.limit if self.side == Side.BUY else self.price < self.limit
            if worse:
                yield f"it was filled at {self.price}, its limit is {self.limit}"
        yield from self._slice_faults(order, last_slice)

    def _slice_faults(self, order: "_Filled", last_slice: int) -> Iterator[str]:
        if (self.slice is not None) != (self.order_type == OrderType.TWAP):
            yield f"a fill of a {self.order_type} order, slice {self.slice}"
        if self.slice is None or self.slices is None or self.next_slice is None:
            return
        if not last_slice <= self.slice < self.next_slice:
            yield f"slice {self.slice} came after {last_slice}, and {self.next_slice} are past"
        target = self.wanted * (self.slice + 1) // self.slices
        if order.quantity > target:
            yield f"{order.quantity} were filled by slice {self.slice}, {target} were due"


class _Filled:
    """An order as far as its fills were read."""

    __slots__ = ("fee", "fills", "notional", "quantity", "slice")

    def __init__(self) -> None:
        self.fills = self.quantity = self.notional = self.fee = self.slice = 0

    def add(self, fill: _FillRow) -> list[tuple[str, str, int]]:
        """Count a fill in; return the entries that it makes: kind, asset and amount."""
        side = Side(fill.side)
        base, _, quote = fill.instrument.partition("-")
        before = amount(side, self.notional)
        self.fills += 1
        self.quantity += fill.quantity
        self.notional += fill.price * fill.quantity
        self.fee += fill.fee
        self.slice = fill.slice or 0
        money = amount(side, self.notional) - before
        legs = [("fill", base, -fill.quantity), ("fill", quote, money)]
        if side is Side.BUY:
            legs = [("fill", quote, -money), ("fill", base, fill.quantity)]
        legs.append(("fee", fill.fee_asset, -fill.fee))
        return [leg for leg in legs if leg[2]]

    def sums(self) -> tuple[int, int, int]:
        return self.quantity, self.notional, self.fee


def _all_accounts() -> Iterator[int]:
    last = -1
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT user_id FROM trading_account WHERE user_id > %s ORDER BY user_id LIMIT %s", [last, PAGE]
            )
            ids = [row[0] for row in cursor.fetchall()]
        yield from ids
        if len(ids) < PAGE:
            return
        last = ids[-1]
