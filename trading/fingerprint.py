"""The ledger as lines of text, in an order that every database gives them, and the hash of these lines.

Row numbers that a database gives are left out: what they order is what the lines are ordered by. So the same
history has the same hash on SQLite and on PostgreSQL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from django.db import DEFAULT_DB_ALIAS, connections

from trading.ledger import FILL_COLUMNS, ORDER_COLUMNS, TWAP_COLUMNS, read_moment

FETCHED = 1_000  # rows at once


class Table(NamedTuple):
    """A table of the ledger: what is read of it, in which order."""

    name: str
    columns: tuple[str, ...]
    order: str  # c: where names are compared by their bytes

    @property
    def moments(self) -> frozenset[int]:
        return frozenset(place for place, column in enumerate(self.columns) if column.endswith("_at"))


TABLES = (
    Table("account", ("user_id", "seq", "created_at"), "t.user_id"),
    Table("balance", ("account_id", "asset", "total", "held"), "t.account_id, {c:t.asset}"),
    Table("order", ORDER_COLUMNS, "t.account_id, t.number"),
    Table("twap", TWAP_COLUMNS, "o.account_id, o.number"),
    Table("fill", FILL_COLUMNS, "t.account_id, t.seq"),
    Table(
        "entry",
        ("account_id", "asset", "amount", "kind", "reference", "balance", "created_at"),
        "t.account_id, t.id",
    ),
    Table("report", ("account_id", "seq", "body", "created_at"), "t.account_id, t.seq"),
)
BY_NAME = {table.name: table for table in TABLES}

Row = tuple[str, tuple[Any, ...]]  # the table's name, and its columns


def rows(alias: str = DEFAULT_DB_ALIAS) -> Iterator[Row]:
    """Yield the rows of the ledger as they are at one moment; times are text."""
    with snapshot(alias):
        for table in TABLES:
            moments = table.moments
            for values in _select(alias, table):
                yield (
                    table.name,
                    tuple(
                        None if value is None else read_moment(value).isoformat() if place in moments else value
                        for place, value in enumerate(values)
                    )
                    if moments
                    else tuple(values),
                )


def line(row: Row) -> bytes:
    """Return a row as the text that is hashed."""
    return msgspec.json.encode(row)


def ledger_hash(alias: str = DEFAULT_DB_ALIAS) -> str:
    """Return the hash of the whole ledger: SHA-256 over the lines of its rows, each with its end."""
    digest = sha256()
    for row in rows(alias):
        digest.update(line(row) + b"\n")
    return digest.hexdigest()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@contextmanager
def snapshot(alias: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Read one moment's rows, without a lock: Django's own transactions are writers' on SQLite."""
    connection = connections[alias]
    if connection.in_atomic_block:
        yield
        return
    repeatable = " ISOLATION LEVEL REPEATABLE READ READ ONLY" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(f"BEGIN{repeatable}")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")


def _select(alias: str, table: Table) -> Iterator[tuple[Any, ...]]:
    postgres = connections[alias].vendor == "postgresql"
    order = table.order.replace("{c:t.asset}", 't.asset COLLATE "C"' if postgres else "t.asset")
    columns = ", ".join(f"t.{column}" for column in table.columns)
    parents = " JOIN trading_order o ON o.id = t.order_id" if table.name == "twap" else ""
    sql = f"SELECT {columns} FROM trading_{table.name} t{parents} ORDER BY {order}"  # noqa: S608 - our own words
    with connections[alias].cursor() as cursor:
        if postgres:  # whose rows would else all come at once
            cursor.execute(f"DECLARE ledger_rows CURSOR FOR {sql}")
            while True:
                cursor.execute(f"FETCH {FETCHED} FROM ledger_rows")
                if not (page := cursor.fetchall()):
                    break
                yield from page
            cursor.execute("CLOSE ledger_rows")
        else:
            cursor.execute(sql)
            while page := cursor.fetchmany(FETCHED):
                yield from page
