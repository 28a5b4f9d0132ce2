"""A process with exchanges of its own on a database that others write too. The test holds the other end.

The market is empty: nothing executes but what a matcher asks for, at the market that it names.
"""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

START_S = 60.0
ANSWER_S = 60.0

Answer = tuple[str, Any]  # "accepted" or the refusal's code; and an order's id, or what else was returned


class Rival:
    """The test's end of such a process. Calls wait for their answer; `begin` and `end` are two halves of one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, dict(environment)), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, name: str, *arguments: Any) -> Any:
        self.begin(name, *arguments)
        return self.end()

    def begin(self, name: str, *arguments: Any) -> None:
        self._connection.send((name, arguments))

    def end(self) -> Any:
        if not self._connection.poll(START_S + ANSWER_S):
            raise AssertionError("a rival does not answer")
        found, value = self._connection.recv()
        if not found:
            raise AssertionError(value)
        return value

    def go(self) -> None:
        """Let the commands of `run` loose."""
        self._connection.send("go")

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone
            self._connection.send(("stop", ()))
        self._process.join(START_S)
        if self._process.exitcode is None:
            self._process.kill()


def _serve(connection: Connection, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "router_project.settings")
    import django

    django.setup()
    desk = _Desk(connection)
    while True:
        name, arguments = connection.recv()
        if name == "stop":
            desk.stop()
            return
        try:
            connection.send((True, getattr(desk, name)(*arguments)))
        except Exception as error:
            connection.send((False, repr(error)))


class _Desk:
    """What a test can ask for."""

    def __init__(self, connection: Connection) -> None:
        from core.account import Fees, Market
        from trading.exchange import Exchange

        self._connection = connection
        self.exchanges = [
            Exchange(
                lambda instrument, side: Market((), {}),
                takes_part=lambda instrument, venue: True,
                fees=Fees(1_000, 2_500),
            )
            for _ in range(2)
        ]

    def migrate(self) -> None:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)

    def user(self, name: str) -> int:
        from accounts.models import User

        return int(User.objects.create(username=name, password="!").pk)

    def run(self, commands: Sequence[Any], account_ids: Sequence[int]) -> tuple[list[Answer], list[str]]:
        """Give each command to an exchange, each from a thread of its own, all at once; watch the balances meanwhile.

        Returns the answers, and what was wrong at any moment.
        """
        futures: list[Future[Any] | None] = [None] * len(commands)
        barrier = threading.Barrier(len(commands) + 1)
        done = threading.Event()
        wrong: list[str] = []

        def submit(number: int) -> None:
            barrier.wait()
            futures[number] = self.exchanges[number % 2].submit(commands[number])

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(len(commands))]
        watcher = threading.Thread(target=_watch, args=(account_ids, done.is_set, wrong))
        for thread in (*threads, watcher):
            thread.start()
        self._connection.send((True, "ready"))
        assert self._connection.recv() == "go"
        barrier.wait()
        for thread in threads:
            thread.join()
        answers = [_answer(future) for future in futures if future is not None]
        done.set()
        watcher.join()
        return answers, wrong

    def orders(self, account_id: int) -> dict[str, tuple[str, int]]:
        from trading.models import Order

        rows = Order.objects.filter(account_id=account_id)
        return {row.id: (row.status, row.filled_quantity) for row in rows}

    def balances(self, account_id: int) -> dict[str, tuple[int, int]]:
        from trading.models import Balance

        return {row.asset: (row.total, row.held) for row in Balance.objects.filter(account_id=account_id)}

    def prove(self, names: Sequence[str] | None = None) -> None:
        """Prove the rows of these users, or of all."""
        from django.db import connection

        from tests.trading.proof import prove, read
        from trading.audit import verify
        from trading.fingerprint import snapshot
        from trading.models import Account

        connection.close()  # the server may have been killed since
        if hasattr(connection, "close_pool"):
            connection.close_pool()
        chosen = (
            None
            if names is None
            else list(Account.objects.filter(user__username__in=names).values_list("pk", flat=True))
        )
        with snapshot():  # TWAP orders may be running
            prove(read(chosen))
        assert verify(chosen) == []

    def stop(self) -> None:
        for exchange in self.exchanges:
            exchange.stop()


def _answer(future: "Future[Any]") -> Answer:
    from core.errors import DomainError
    from trading.exchange import Done

    try:
        result = future.result(ANSWER_S)
    except DomainError as refusal:
        order = refusal.details.get("order")
        return refusal.code, order["order_id"] if isinstance(order, dict) else None
    return "accepted", result.order.order_id if isinstance(result, Done) else result


def _watch(account_ids: Sequence[int], done: Callable[[], bool], wrong: list[str]) -> None:
    """Read balances and their entries in one statement, again and again: a reader must never see them differ."""
    from django.db import connection

    marks = ", ".join(["%s"] * len(account_ids))
    while not wrong:
        last = done()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT account_id, asset, total, held, (SELECT COALESCE(SUM(amount), 0) FROM trading_entry e"
                " WHERE e.account_id = b.account_id AND e.asset = b.asset), (SELECT COALESCE(SUM(held), 0)"
                " FROM trading_order o WHERE o.account_id = b.account_id AND o.side = 'buy')"
                f" FROM trading_balance b WHERE asset = 'USDT' AND account_id IN ({marks})",
                list(account_ids),
            )
            for account_id, asset, total, held, entries, orders in cursor.fetchall():
                if not (0 <= held <= total == entries and held == orders):
                    wrong.append(f"{account_id} {asset}: {total}, entries {entries}; held {held}, orders {orders}")
        if last:
            break
    connection.close()
