"""The only writer of balances, orders, entries, fills and reports.

A `Ledger` lives within one transaction. It locks the accounts that the transaction is about, in
the order of their ids, reads what their commands need, and writes what the commands changed,
with a guard on each row: what was read must still be there. The statements are plain SQL
through Django's cursor, many rows each: the ORM costs six times as much.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from django.db import connection
from msgspec import Struct

from accounts.services import EXPIRED_TOKEN, holds
from core import strict_json
from core.account import Account, Balance, Fees
from core.errors import Unauthorized
from core.events import Side
from core.orders import Fill, Liquidity, Order, OrderType, Status, Terms
from core.twap import Twap
from trading import wire

ORDER_COLUMNS = (
    "id", "account_id", "token_id", "instrument", "side", "order_type", "asked_price", "price", "asked_quantity",
    "quantity", "filled_quantity", "filled_notional", "fill_count", "fee", "held", "venue", "status", "reason",
    "version", "created_at", "updated_at", "executed_at",
)  # fmt: skip
FILL_COLUMNS = (
    "id", "order_id", "account_id", "number", "price", "quantity", "venue", "fee", "fee_asset", "liquidity", "touch",
    "rule", "executed_at", "slice", "seq",
)  # fmt: skip
TWAP_COLUMNS = (
    "order_id", "venue", "duration_s", "slices", "next_slice", "missed", "arrival_price", "market_sum", "market_us",
)  # fmt: skip
ID_LENGTH = 36  # of a UUID


class Conflict(RuntimeError):
    """A row was not what this transaction had read: somebody wrote without the account's lock."""


class NotOpened(Exception):
    """These users have no account row yet: `open_accounts` makes it, and then all can be locked in one order."""

    def __init__(self, account_ids: Sequence[int]) -> None:
        super().__init__(account_ids)
        self.account_ids = account_ids


class Report(Struct, frozen=True):
    """An execution report, numbered; `body` is the message's data as JSON."""

    account_id: int
    seq: int
    body: bytes


class Outcome(Struct, frozen=True):
    """What a batch did, for those who are told after its commit."""

    reports: list[Report]
    rested: list[Order]  # now open: new, or with another price, or some slices further
    ended: list[Order]


class Ledger:
    """Accounts under lock in the current transaction, what was read of them, and what to write."""

    def __init__(self, *, fees: Fees, new_id: Callable[[], str]) -> None:
        self.accounts: dict[int, Account] = {}
        self.fills: dict[str, list[Fill]] = {}
        self._fees = fees
        self._new_id = new_id
        self._seqs: dict[int, int] = {}
        self._passwords: dict[int, str] = {}
        self._read_balances: dict[tuple[int, str], tuple[int, int]] = {}
        self._orders: dict[str, Order] = {}
        self._by_token: dict[tuple[int, str], Order] = {}
        self._read_versions: dict[str, int] = {}
        self._read_slices: dict[str, int] = {}

    # -- reading

    def lock(self, account_ids: Collection[int], *, opened: bool = False) -> None:
        """Lock accounts and read their balances. Users that may not trade are left out.

        Raises:
            NotOpened: some have no row yet. Not once `opened`: they are no users, and left out.
        """
        wanted = sorted(set(account_ids))
        found = self._lock(wanted)
        if len(found) < len(wanted) and not opened:
            raise NotOpened([account_id for account_id in wanted if account_id not in found])
        for account_id, (seq, active, password) in found.items():
            if active:
                self._seqs[account_id] = seq
                self._passwords[account_id] = password
                balances: dict[str, Balance] = {}
                self.accounts[account_id] = Account(account_id, balances, fees=self._fees, new_id=self._new_id)
        for account_id, asset, total, held in self._select(
            "SELECT account_id, asset, total, held FROM trading_balance WHERE account_id IN", list(self.accounts)
        ):
            self.accounts[account_id].balances[asset] = Balance(total, held)
            self._read_balances[account_id, asset] = (total, held)

    def account(self, account_id: int, key: str = "") -> Account:
        """Return a locked account, for the bearer of a token with this `key` ("": whom the caller knows).

        Raises:
            Unauthorized: its user is gone or disabled, or has another password since the token was made.
        """
        account = self.accounts.get(account_id)
        if account is None or (key and not holds(key, password=self._passwords[account_id], is_active=True)):
            raise Unauthorized(EXPIRED_TOKEN)
        return account

    def read_tokens(self, tokens: Iterable[tuple[int, str]]) -> None:
        """Read the orders that these accounts gave these token ids, or whose ids they are."""
        by_account: dict[int, list[str]] = {}
        for account_id, token in tokens:
            if account_id in self.accounts:
                by_account.setdefault(account_id, []).append(token)
        # One statement for all accounts; each of its branches finds its rows by an index.
        branches, values = [], []
        for account_id, names in by_account.items():
            marks = ", ".join(["%s"] * len(names))
            branches.append(f"account_id = %s AND token_id IN ({marks})")
            values += [account_id, *names]
        ids = [name for names in by_account.values() for name in names if len(name) == ID_LENGTH]
        if ids:
            accounts = ", ".join(["%s"] * len(by_account))
            branches.append(f"id IN ({', '.join(['%s'] * len(ids))}) AND account_id IN ({accounts})")
            values += [*ids, *by_account]
        if branches:
            self._read_orders(f"WHERE ({') OR ('.join(branches)})", values)

    def read_orders(self, order_ids: Collection[str]) -> None:
        if order_ids:
            self._read_orders(f"WHERE id IN ({', '.join(['%s'] * len(order_ids))})", list(order_ids))

    def read_open(self, account_id: int) -> None:
        """Read all open orders of an account."""
        self._read_orders("WHERE status = 'open' AND account_id = %s", [account_id])

    def order(self, order_id: str) -> Order | None:
        return self._orders.get(order_id)

    def by_token(self, account_id: int, token: str) -> Order | None:
        """Return the account's order of this token id, else the one with this id."""
        found = self._by_token.get((account_id, token))
        if found is None:
            other = self._orders.get(token)
            found = other if other is not None and other.account_id == account_id else None
        return found

    def open_orders(self, account_id: int) -> list[Order]:
        return [order for order in self._orders.values() if order.account_id == account_id and order.is_open]

    def running_twaps(self, account_id: int) -> int:
        """Count the account's open parent orders: those that are written, and those that are about to be."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM trading_order WHERE account_id = %s AND status = 'open' AND order_type = 'twap'",
                [account_id],
            )
            (written,) = cursor.fetchone()
        changes = self.accounts[account_id].changes
        return int(written) + sum(changes.orders[order_id].twap is not None for order_id in changes.created)

    def remember(self, order: Order) -> None:
        """Let later commands of this transaction find an order that an earlier one made."""
        self._orders[order.order_id] = order
        self._by_token[order.account_id, order.terms.token_id] = order

    def as_read(self) -> dict[int, tuple[int, dict[str, tuple[int, int]]]]:
        """Return what was read of the locked accounts: the last report's number, and each asset's total and held."""
        found: dict[int, tuple[int, dict[str, tuple[int, int]]]] = {
            account_id: (self._seqs[account_id], {}) for account_id in sorted(self.accounts)
        }
        for (account_id, asset), amounts in sorted(self._read_balances.items()):
            found[account_id][1][asset] = amounts
        return found

    # -- writing

    def write(self, now: datetime) -> list[Report]:
        """Write all changes; return the execution reports, each account's numbered on."""
        moment = _time(now)
        balances: list[tuple[Any, ...]] = []
        entries: list[tuple[Any, ...]] = []
        created: list[tuple[Any, ...]] = []
        changed: list[tuple[Any, ...]] = []
        fills: list[tuple[Any, ...]] = []
        parents: list[tuple[Any, ...]] = []
        progress: list[tuple[Any, ...]] = []
        reports: list[Report] = []
        for account in self.accounts.values():
            changes = account.changes
            for order, fill in changes.fills:
                self.fills.setdefault(order.order_id, []).append(fill)
            for asset in sorted(changes.balances):
                balance = account.balances[asset]
                before = self._read_balances.get((account.account_id, asset), (0, 0))
                balances.append((account.account_id, asset, balance.total, balance.held, *before))
            entries.extend(
                (account.account_id, entry.asset, entry.amount, entry.kind, entry.reference, entry.balance, moment)
                for entry in changes.entries
            )
            for order in changes.orders.values():
                twap, order_id = order.twap, order.order_id
                if order_id in changes.created:
                    created.append(_order_row(order))
                    if twap is not None:
                        parents.append(_twap_row(order_id, twap))
                    continue
                changed.append((*_changed_row(order), order_id, self._read_versions[order_id]))
                if twap is not None:
                    done = (twap.next_slice, twap.missed, str(twap.market_sum), twap.market_us)
                    progress.append((*done, order_id, self._read_slices[order_id]))
            seqs: dict[str, int] = {}
            for order, execution in changes.reports:
                self._seqs[account.account_id] += 1
                seq = self._seqs[account.account_id]
                if execution is not None:
                    seqs[execution.fill_id] = seq
                body = strict_json.dumps(wire.report(order, execution, self.fills.get(order.order_id, ())))
                reports.append(Report(account.account_id, seq, body))
            fills.extend(_fill_row(order, fill, seqs[fill.fill_id]) for order, fill in changes.fills)
        self._many(
            "INSERT INTO trading_balance (account_id, asset, total, held) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (account_id, asset) DO UPDATE SET total = excluded.total, held = excluded.held"
            " WHERE trading_balance.total = %s AND trading_balance.held = %s",
            balances,
            exactly=True,
        )
        self._insert("trading_order", ORDER_COLUMNS, created)
        self._many(
            "UPDATE trading_order SET price = %s, quantity = %s, filled_quantity = %s, filled_notional = %s,"
            " fill_count = %s, fee = %s, held = %s, venue = %s, status = %s, reason = %s, version = %s,"
            " updated_at = %s, executed_at = %s WHERE id = %s AND version = %s AND status = 'open'",
            changed,
            exactly=True,
        )
        self._insert("trading_twap", TWAP_COLUMNS, parents)
        self._many(
            "UPDATE trading_twap SET next_slice = %s, missed = %s, market_sum = %s, market_us = %s"
            " WHERE order_id = %s AND next_slice = %s",
            progress,
            exactly=True,
        )
        self._insert("trading_fill", FILL_COLUMNS, fills)
        self._insert(
            "trading_entry", ("account_id", "asset", "amount", "kind", "reference", "balance", "created_at"), entries
        )
        if reports:
            self._insert(
                "trading_report",
                ("account_id", "seq", "body", "created_at"),
                [(report.account_id, report.seq, report.body.decode(), moment) for report in reports],
            )
            told = {report.account_id for report in reports}
            self._many(
                "UPDATE trading_account SET seq = %s WHERE user_id = %s",
                [(self._seqs[account_id], account_id) for account_id in sorted(told)],
                exactly=True,
            )
        return reports

    # -- SQL

    def _lock(self, account_ids: Sequence[int]) -> dict[int, tuple[int, bool, str]]:
        lock = " FOR UPDATE OF a" if connection.features.has_select_for_update_of else ""
        rows = self._select(
            "SELECT a.user_id, a.seq, u.is_active, u.password FROM trading_account a"
            " JOIN accounts_user u ON u.id = a.user_id WHERE a.user_id IN",
            account_ids,
            f" ORDER BY a.user_id{lock}",
        )
        return {account_id: (seq, bool(active), password) for account_id, seq, active, password in rows}

    def _select(self, sql: str, values: Sequence[Any], rest: str = "") -> list[tuple[Any, ...]]:
        if not values:
            return []
        with connection.cursor() as cursor:
            cursor.execute(f"{sql} ({', '.join(['%s'] * len(values))}){rest}", list(values))
            return list(cursor.fetchall())

    def _read_orders(self, where: str, values: Sequence[Any]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(ORDER_COLUMNS)} FROM trading_order {where}", values)  # noqa: S608 - our own words
            orders = [read_order(row) for row in cursor.fetchall()]
        new = [order for order in orders if order.order_id not in self._orders]
        read_twaps(new)
        with_fills: list[str] = []
        for order in new:
            self._read_versions[order.order_id] = order.version
            self.remember(order)
            if order.twap is not None:
                self._read_slices[order.order_id] = order.twap.next_slice  # its fills may be thousands: left out
            elif order.fill_count:
                with_fills.append(order.order_id)
        for order_id, fills in read_fills(with_fills).items():
            self.fills[order_id] = fills

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        names = ", ".join(columns)
        if connection.vendor == "postgresql" and rows:
            # One statement, whatever the rows: it reads and plans each of many anew.
            objects = msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows]).decode()
            sql = f"INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(NULL::{table}, %s)"  # noqa: S608
            with connection.cursor() as cursor:
                cursor.execute(sql, [objects])
        else:
            marks = ", ".join(["%s"] * len(columns))
            self._many(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608 - our own words

    def _many(self, sql: str, rows: Sequence[tuple[Any, ...]], *, exactly: bool = False) -> None:
        if not rows:
            return
        with connection.cursor() as cursor:
            cursor.executemany(sql, rows)
            if exactly and cursor.rowcount != len(rows):
                raise Conflict(f"{len(rows)} rows to write, {cursor.rowcount} found as they were read: {sql[:60]}…")


def open_accounts(user_ids: Sequence[int]) -> None:
    """Make accounts that may be made elsewhere at this moment; commit before any of them is locked.

    A new row within the transaction that locks others would be waited for out of the locks' order.
    """
    with connection.cursor() as cursor:
        for user_id in sorted(user_ids):
            cursor.execute(
                "INSERT INTO trading_account (user_id, seq, created_at) SELECT id, 0, %s FROM accounts_user"
                " WHERE id = %s ON CONFLICT DO NOTHING",
                [_time(datetime.now(UTC)), user_id],
            )


def read_order(row: Sequence[Any]) -> Order:
    """Return an order from its columns, in the order of `ORDER_COLUMNS`."""
    (order_id, account_id, token_id, instrument, side, order_type, asked_price, price, asked_quantity, quantity,
     filled_quantity, filled_notional, fill_count, fee, held, venue, status, reason, version, created_at, updated_at,
     executed_at) = row  # fmt: skip
    return Order(
        order_id=order_id,
        account_id=account_id,
        terms=Terms(token_id, instrument, Side(side), OrderType(order_type), asked_price, asked_quantity),
        price=price,
        quantity=quantity,
        status=Status(status),
        created_at=read_moment(created_at),
        updated_at=read_moment(updated_at),
        filled_quantity=filled_quantity,
        filled_notional=int(filled_notional),
        fill_count=fill_count,
        fee=fee,
        held=held,
        reason=reason,
        version=version,
        executed_at=None if executed_at is None else read_moment(executed_at),
        venue=venue,
    )


def read_twaps(orders: Iterable[Order]) -> None:
    """Read what parent orders have beside their orders, into them."""
    parents = {order.order_id: order for order in orders if order.terms.order_type is OrderType.TWAP}
    if not parents:
        return
    marks = ", ".join(["%s"] * len(parents))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(TWAP_COLUMNS)} FROM trading_twap WHERE order_id IN ({marks})",  # noqa: S608
            list(parents),
        )
        for row in cursor.fetchall():
            order_id, venue, duration_s, slices, next_slice, missed, arrival_price, market_sum, market_us = row
            parents[order_id].twap = Twap(
                venue, duration_s, slices, next_slice, missed, arrival_price, int(market_sum), market_us
            )


def read_fills(order_ids: Sequence[str]) -> Mapping[str, list[Fill]]:
    """Return the fills of orders, first to last."""
    fills: dict[str, list[Fill]] = {}
    if not order_ids:
        return fills
    marks = ", ".join(["%s"] * len(order_ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(FILL_COLUMNS)} FROM trading_fill WHERE order_id IN ({marks}) ORDER BY order_id, number",  # noqa: S608
            list(order_ids),
        )
        for row in cursor.fetchall():
            fills.setdefault(row[1], []).append(read_fill(row))
    return fills


def read_fill(row: Sequence[Any]) -> Fill:
    """Return a fill from its columns, in the order of `FILL_COLUMNS`."""
    (fill_id, _, _, number, price, quantity, venue, fee, fee_asset, liquidity, touch, rule, executed_at,
     slice_number, _) = row  # fmt: skip
    return Fill(
        fill_id=fill_id,
        number=number,
        price=price,
        quantity=quantity,
        venue=venue,
        fee=fee,
        fee_asset=fee_asset,
        liquidity=Liquidity(liquidity),
        touch=strict_json.loads(touch.encode()),
        rule=rule,
        executed_at=read_moment(executed_at),
        slice=slice_number,
    )


def _order_row(order: Order) -> tuple[Any, ...]:
    terms = order.terms
    return (
        order.order_id, order.account_id, terms.token_id, terms.instrument, terms.side.value, terms.order_type.value,
        terms.price, order.price, terms.quantity, order.quantity, order.filled_quantity, str(order.filled_notional),
        order.fill_count, order.fee, order.held, order.venue, order.status.value, order.reason, order.version,
        _time(order.created_at), _time(order.updated_at), _time(order.executed_at),
    )  # fmt: skip


def _changed_row(order: Order) -> tuple[Any, ...]:
    return (
        order.price, order.quantity, order.filled_quantity, str(order.filled_notional), order.fill_count, order.fee,
        order.held, order.venue, order.status.value, order.reason, order.version, _time(order.updated_at),
        _time(order.executed_at),
    )  # fmt: skip


def _fill_row(order: Order, fill: Fill, seq: int) -> tuple[Any, ...]:
    return (
        fill.fill_id, order.order_id, order.account_id, fill.number, fill.price, fill.quantity, fill.venue, fill.fee,
        fill.fee_asset, fill.liquidity.value, strict_json.dumps(fill.touch).decode(), fill.rule,
        _time(fill.executed_at), fill.slice, seq,
    )  # fmt: skip


def _twap_row(order_id: str, twap: Twap) -> tuple[Any, ...]:
    return (
        order_id, twap.venue, twap.duration_s, twap.slices, twap.next_slice, twap.missed, twap.arrival_price,
        str(twap.market_sum), twap.market_us,
    )  # fmt: skip


def forget_moments() -> None:
    """Write moments anew: the database is another one from here on."""
    _time.cache_clear()


@lru_cache(maxsize=1_000)
def _time(moment: datetime | None) -> Any:
    """Write a moment as this database does; the rows of a transaction share one."""
    return None if moment is None else connection.ops.adapt_datetimefield_value(moment)


def read_moment(value: Any) -> datetime:
    """Read a moment: PostgreSQL gives one, SQLite one without its zone, or the text that Django wrote."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    assert isinstance(moment, datetime)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
