"""Reads that must not wait for the writer: a thread with a lasting connection, one query for all who ask."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

from django.db import DatabaseError, InterfaceError, connection

from accounts.services import EXPIRED_TOKEN, holds
from core.account import Balance
from core.errors import Unauthorized

_BALANCES_OF = (
    "SELECT u.id, u.is_active, u.password, b.asset, b.total, b.held FROM accounts_user u"
    " LEFT JOIN trading_balance b ON b.account_id = u.id WHERE u.id IN"
)

_executor = ThreadPoolExecutor(1, thread_name_prefix="trading-reader")


async def balances(account_id: int, key: str) -> dict[str, Balance]:
    """Return an account's balances for the bearer of a token with this `key`.

    Raises:
        Unauthorized: the user is gone or disabled, or has another password since.
    """
    loop = asyncio.get_running_loop()
    batches = _batches.get(loop)
    if batches is None:
        batches = _batches[loop] = _Batches(loop)
    rows = await batches.ask(account_id)
    if not rows or not holds(key, password=rows[0].password, is_active=rows[0].is_active):
        raise Unauthorized(EXPIRED_TOKEN)
    return {row.asset: Balance(row.total, row.held) for row in rows if row.asset is not None}


class _Row(NamedTuple):
    account_id: int
    is_active: bool
    password: str
    asset: str | None  # None: the user never had anything
    total: int
    held: int


class _Batches:
    """The balances asked for in one event loop: what comes while a query is under way shares the next one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, list[asyncio.Future[list[_Row]]]] = {}
        self._busy = False

    def ask(self, account_id: int) -> "asyncio.Future[list[_Row]]":
        waiter: asyncio.Future[list[_Row]] = self._loop.create_future()
        self._waiting.setdefault(account_id, []).append(waiter)
        if not self._busy:
            self._start()
        return waiter

    def _start(self) -> None:
        taken, self._waiting = self._waiting, {}
        query = self._loop.run_in_executor(_executor, _read, list(taken))
        self._busy = True
        query.add_done_callback(partial(self._settle, taken))

    def _settle(
        self,
        taken: "dict[int, list[asyncio.Future[list[_Row]]]]",
        query: "asyncio.Future[dict[int, list[_Row]]]",
    ) -> None:
        self._busy = False
        if self._waiting:
            self._start()
        error = asyncio.CancelledError() if query.cancelled() else query.exception()
        for account_id, waiters in taken.items():
            for waiter in waiters:
                if waiter.done():  # whoever asked has gone
                    continue
                if error is not None:
                    waiter.set_exception(error)
                else:
                    waiter.set_result(query.result().get(account_id, []))


_batches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Batches] = WeakKeyDictionary()


def _read(account_ids: Sequence[int]) -> dict[int, list[_Row]]:
    try:
        return _read_balances(account_ids)
    except (DatabaseError, InterfaceError):
        connection.close()  # the next read begins anew
        raise


def _read_balances(account_ids: Sequence[int]) -> dict[int, list[_Row]]:
    found: dict[int, list[_Row]] = {}
    with connection.cursor() as cursor:
        cursor.execute(f"{_BALANCES_OF} ({', '.join(['%s'] * len(account_ids))})", account_ids)
        for row in map(_Row._make, cursor.fetchall()):
            found.setdefault(row.account_id, []).append(row)
    return found
