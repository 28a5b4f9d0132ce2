"""Group commit: one thread takes the commands that wait and gives them to one transaction.

SQLite has one writer anyway, and many commands share a sync to disk; on PostgreSQL the batch
saves round trips. A command's answer is given once its transaction is committed.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.utils import Error

from core.errors import DomainError, Unavailable

log = structlog.get_logger(__name__)

C = TypeVar("C")

WAITING_MAX = 10_000  # commands; beyond it the next ones are refused
BATCH_MAX = 256
STOP_S = 10.0
TRUSTED_S = 1.0  # how long a connection that just worked is taken for whole
# Who was answered together asks again together. A transaction of two costs nearly what one of sixteen does, so that the
# next one waits a moment for them; a command that comes alone never waits.
GATHER_S = 0.0005

Result = Any  # what a command returns, or the exception that refuses it
Apply = Callable[[Sequence[C]], "tuple[list[Result], Callable[[], None]]"]


class Busy(Unavailable):
    code = "busy"


class Writer(Generic[C]):
    """Runs `apply` on batches of commands, one transaction each, in a thread of its own.

    `apply` opens and commits the transaction itself and returns the results, one a command, and
    what to do once the answers are out.
    """

    def __init__(self, apply: Apply[C], *, name: str) -> None:
        self._apply = apply
        self._waiting: queue.SimpleQueue[tuple[C, Future[Result]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = False
        self._lock = threading.Lock()
        self._worked_s = -math.inf  # when the connection last did
        self._in_company = False  # the last batch held more than one command
        self.batches = 0
        self.commands = 0

    def submit(self, command: C) -> "Future[Result]":
        """Queue a command; the future gives its result, or raises its refusal.

        Raises:
            Busy: too many commands are waiting.
        """
        if not self._started:
            self._start()
        if self._waiting.qsize() >= WAITING_MAX:
            raise Busy("too many orders are waiting to be written; try again in a moment", retry_after=1)
        future: Future[Result] = Future()
        self._waiting.put((command, future))
        return future

    def stop(self) -> None:
        """Write what waits, then end the thread."""
        if self._started and self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(STOP_S)

    def _start(self) -> None:
        with self._lock:
            if not self._started:
                self._started = True
                self._thread.start()

    def _run(self) -> None:
        while True:
            batch, last = self._take()
            if batch:
                self._settle(batch)
            if last:
                connection.close()
                return

    def _take(self) -> tuple[list[tuple[C, "Future[Result]"]], bool]:
        """Wait for a command and return it with those that came meanwhile."""
        batch: list[tuple[C, Future[Result]]] = []
        item = self._waiting.get()
        if self._in_company and item is not None:
            time.sleep(GATHER_S)
        while item is not None:
            batch.append(item)
            if len(batch) >= BATCH_MAX:
                return batch, False
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _settle(self, batch: Sequence[tuple[C, "Future[Result]"]]) -> None:
        try:
            results, after = self._attempt([command for command, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, Unavailable):
                for item in batch:  # one of them spoils the others: find it
                    self._settle([item])
                return
            if not isinstance(error, DomainError):
                log.exception("a command failed", command=type(batch[0][0]).__name__)
            results, after = [error] * len(batch), _nothing
        self._in_company = len(batch) > 1
        self.batches += 1
        self.commands += len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        after()

    def _attempt(self, commands: Sequence[C]) -> "tuple[list[Result], Callable[[], None]]":
        """Apply; a connection that was lost while nothing was written is replaced first.

        It is kept from batch to batch: a new one costs SQLite a checkpoint and PostgreSQL a check.
        """
        try:
            if time.monotonic() - self._worked_s > TRUSTED_S and connection.connection and not connection.is_usable():
                connection.close()
            applied = self._apply(commands)
            self._worked_s = time.monotonic()
            return applied
        except (OperationalError, InterfaceError) as error:
            log.warning("the database did not take a batch", error=str(error), commands=len(commands))
            connection.close()
            raise Unavailable(
                "the database is not available; whether this was written is not known: ask before you repeat it",
                retry_after=1,
            ) from error
        except Error as error:
            if isinstance(error, DatabaseError):
                connection.close()
            raise


def _nothing() -> None:
    return


def wait(future: "Future[Result]", timeout_s: float) -> Result:
    """Return a command's result.

    Raises:
        Unavailable: it was not written in time; it may still be.
    """
    began_s = time.monotonic()
    try:
        return future.result(timeout_s)
    except TimeoutError:
        raise Unavailable(
            f"not written within {time.monotonic() - began_s:.0f} s; ask for the order before you repeat it",
            retry_after=1,
        ) from None
