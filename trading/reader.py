"""Reads that must not wait for the writer: a few threads, each with its own lasting connection."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, connection

from accounts.services import EXPIRED_TOKEN, holds
from core.account import Balance
from core.errors import Unauthorized

T = TypeVar("T")

THREADS = 2

_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="trading-reader")


async def read(call: Callable[..., T], *args: object) -> T:
    """Run a reading function in one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(_executor, _with_connection, call, *args)


def _with_connection(call: Callable[..., T], *args: object) -> T:
    try:
        return call(*args)
    except (DatabaseError, InterfaceError):
        connection.close()  # the next read begins anew
        raise


def balances(account_id: int, key: str) -> dict[str, Balance]:
    """Return an account's balances for the bearer of a token with this `key`. One query.

    Raises:
        Unauthorized: the user is gone or disabled, or has another password since.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT u.is_active, u.password, b.asset, b.total, b.held FROM accounts_user u"
            " LEFT JOIN trading_balance b ON b.account_id = u.id WHERE u.id = %s",
            [account_id],
        )
        rows = cursor.fetchall()
    if not rows or not holds(key, password=rows[0][1], is_active=bool(rows[0][0])):
        raise Unauthorized(EXPIRED_TOKEN)
    return {asset: Balance(total, held) for _, _, asset, total, held in rows if asset is not None}
