"""Records what an exchange is asked and told, so that `manage.py rerun` can do it again.

A line holds one transaction: its commands, every answer that did not come from the database, what was read of
its accounts under their locks, and a digest of what it wrote. It is written before the commit; the line after
it says what became of it. Where a process was killed between the two, `RecordedLife` in the database knows.
"""

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, Error, InterfaceError, OperationalError, connection, connections, transaction
from msgspec import Raw, Struct, structs

from core.account import Fees
from core.errors import Unauthorized, Unavailable
from core.ids import new_word
from marketdata.tape import Reader, Tape, Unusable, boot_id, life_name, names
from trading import fingerprint, models
from trading.commands import Command
from trading.ledger import Ledger, open_accounts, read_moment

T = TypeVar("T")

log = structlog.get_logger(__name__)

FORMAT = 1
START = "start"
LOCK = ".lock"
ROWS_WRITTEN = 1_000  # at once

REVOKED = "revoked"  # in place of a token's key that was not good; good ones are left out
AsRead = dict[int, tuple[int, dict[str, tuple[int, int]]]]


class Opened(Struct, tag="opened", tag_field="what"):
    """Accounts that were made: user and moment."""

    number: int
    at_ns: int
    accounts: list[tuple[int, datetime]]


class Transaction(Struct, tag="transaction", tag_field="what"):
    """What one transaction of an exchange was given, and found. Clocks are the machine's monotonic one."""

    number: int  # of the process's, from 1
    at_ns: int  # when its accounts were locked: transactions that share an account are in this order
    until_ns: int  # when it was about to be committed
    now: datetime
    accounts: AsRead  # those that may trade, as they were read
    commands: list[tuple[str, Raw]]
    answers: list[tuple[str, list[Any], Raw, str]]  # what was asked: name and arguments; the answer, or a refusal
    digest: str  # of what it wrote


class Became(Struct, tag="became", tag_field="what", omit_defaults=True):
    """What became of a transaction; `committed` is None where nobody knows."""

    number: int
    committed: bool | None
    why: str = ""


class Header(Struct, tag="life", tag_field="what"):
    """The process that is recorded, and what its exchange was made with."""

    life: str
    role: str
    version: str
    boot: str  # of the machine: monotonic clocks can be compared within it
    wall_ns: int
    at_ns: int
    source: str
    instruments: list[str]
    venues: list[str]
    stale_after_s: float
    maker_fee: int
    taker_fee: int
    collar_bps: int
    lives: dict[str, int]  # how far the database says that each life of this recording came


class Sealed(Struct, tag="sealed", tag_field="what"):
    """The process stopped in order; nothing of it is missing."""

    number: int
    at_ns: int
    lives: dict[str, int]


class Start(Struct, tag="start", tag_field="what"):
    """A recording begins: the rows that were there follow, then `Complete`."""

    recording: str
    format: int


class Complete(Struct, tag="complete", tag_field="what"):
    rows: int


Line = Header | Transaction | Opened | Became | Sealed

encode = msgspec.json.Encoder(decimal_format="number").encode
decode = msgspec.json.Decoder(Line).decode
decode_start = msgspec.json.Decoder(Start | Complete).decode


class Recorder:
    """Records one exchange, from the thread that runs its transactions.

    A recording that cannot be written ends; trading goes on.
    """

    def __init__(self, tape: Tape, life: str) -> None:
        self._tape = tape
        self._life = life
        self._number = 0
        self._answers: list[tuple[str, tuple[Any, ...], Any, str]] = []
        self._accounts: AsRead = {}
        self._at_ns = 0
        self._pending = False  # the last transaction was written, and what became of it was not
        self._doubtful = False  # nobody knows what became of the last one
        self._broken = False

    # -- the exchange's witness

    def heard(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any) -> Any:
            try:
                answer = call(*arguments)
            except Unavailable as error:
                self._answers.append((name, arguments, None, error.message))
                raise
            self._answers.append((name, arguments, answer, ""))
            return answer

        return asked

    def open(self, account_ids: Sequence[int]) -> None:
        try:
            with transaction.atomic(durable=True):
                self._settle_doubt()
                open_accounts(account_ids)
                made = opened_at(account_ids)
                self._enter(lambda number: Opened(number, time.monotonic_ns(), sorted(made.items())))
            self.committed()
        except BaseException as error:
            self.failed(error)
            raise

    def locked(self, ledger: Ledger) -> None:
        self._at_ns = time.monotonic_ns()
        self._answers.clear()
        self._accounts = ledger.as_read()
        self._settle_doubt()

    def written(self, ledger: Ledger, commands: Sequence[Command], results: Sequence[Any], now: datetime) -> None:
        named = [
            (type(command).__name__, Raw(encode(_without_secret(command, result))))
            for command, result in zip(commands, results, strict=True)
        ]
        answers = [(name, list(asked), Raw(encode(answer)), refusal) for name, asked, answer, refusal in self._answers]
        self._enter(
            lambda number: Transaction(
                number, self._at_ns, time.monotonic_ns(), now, self._accounts, named, answers, digest(ledger)
            )
        )

    def committed(self) -> None:
        if self._pending:
            self._pending = False
            self._write(Became(self._number, True))

    def failed(self, error: BaseException) -> None:
        if not self._pending:
            return
        self._pending = False
        # A connection that is lost at the commit leaves open whether it was one; any other error ends it before.
        self._doubtful = isinstance(error, OperationalError | InterfaceError)
        self._write(Became(self._number, None if self._doubtful else False, f"{type(error).__name__}: {error}"))

    # -- the tape

    def seal(self, at_ns: int, lives: dict[str, int]) -> None:
        """Say that nothing follows."""
        self._write(Sealed(self._number, at_ns, lives))
        self._tape.close()

    def _enter(self, make: Callable[[int], Transaction | Opened]) -> None:
        """Number a transaction, in the database and on the tape; it is committed next.

        In this order: from the moment that the line tells on, whoever reads the number waits for the commit.
        """
        if self._broken:
            return
        number = self._number + 1
        with connection.cursor() as cursor:
            cursor.execute("UPDATE trading_recordedlife SET number = %s WHERE id = %s", [number, self._life])
        self._number = number  # not before: where the database is gone, the next transaction has it
        self._pending = True
        self._write(make(self._number))

    def _settle_doubt(self) -> None:
        """Find out what became of the transaction before, which nobody told."""
        if self._doubtful:
            reached = read_lives(self._life)[self._life]
            self._doubtful = False
            self._write(Became(self._number, reached == self._number))

    def _write(self, line: Line) -> None:
        if self._broken:
            return
        try:
            self._tape.write([encode(line)])
        except OSError as error:
            self._broken = True
            log.error("THE RECORDING ENDS: it cannot be written", error=str(error), life=self._life)


class Recording:
    """This process's part of a recording. Made before the process serves anybody, stopped after it served the last.

    Raises:
        Unusable: the folder cannot be written, or holds a recording of another format.
    """

    def __init__(self, folder: Path, role: str, *, fees: Fees, collar_bps: int) -> None:
        self.life = life_name(role)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # one begins after the other: the first of all tells what there is
                self.name = _started(folder)
                self._in_database = f"{self.name}/{self.life}"
                with transaction.atomic(durable=True):
                    at_ns = time.monotonic_ns()
                    lives = read_lives(f"{self.name}/%")
                    models.RecordedLife.objects.create(id=self._in_database)
                tape = Tape(folder, f"{self.life}.orders")
        except OSError as error:
            raise Unusable(f"nothing can be recorded in {folder}: {error.strerror}") from error
        self.recorder = Recorder(tape, self._in_database)
        header = Header(
            life=self.life,
            role=role,
            version=settings.VERSION,
            boot=boot_id(),
            wall_ns=time.time_ns(),
            at_ns=at_ns,
            source=settings.MARKET_SOURCE,
            instruments=[instrument.name for instrument in settings.CATALOGUE.instruments],
            venues=list(settings.VENUES),
            stale_after_s=settings.VENUE_STALE_AFTER_S,
            maker_fee=fees.maker,
            taker_fee=fees.taker,
            collar_bps=collar_bps,
            lives=_named(lives),
        )
        tape.write([encode(header)])

    def stop(self) -> None:
        """Say that nothing follows, and how far each process came."""
        try:
            with transaction.atomic(durable=True):
                at_ns = time.monotonic_ns()
                lives = read_lives(f"{self.name}/%")
        except Error as error:
            log.warning("the recording is not sealed: the database does not answer", error=str(error))
            return
        self.recorder.seal(at_ns, _named(lives))


def read_lives(pattern: str, alias: str = DEFAULT_DB_ALIAS) -> dict[str, int]:
    """Return how far lives came, once their transactions under way have ended: call it within one."""
    chosen = connections[alias]
    lock = " FOR UPDATE" if chosen.features.has_select_for_update else ""
    with chosen.cursor() as cursor:
        cursor.execute(f"SELECT id, number FROM trading_recordedlife WHERE id LIKE %s ORDER BY id{lock}", [pattern])  # noqa: S608
        return dict(cursor.fetchall())


def _named(lives: Mapping[str, int]) -> dict[str, int]:
    """Return lives by the names of their files."""
    return {life.partition("/")[2]: number for life, number in lives.items()}


def _started(folder: Path) -> str:
    """Return the name of the recording in a folder; begin one, with all rows that there are, where there is none."""
    if START in names(folder):
        name, complete = _read_start(folder)
        if complete:
            return name
        for part in Reader(folder, START).parts:  # whoever wrote it was killed before anybody was recorded
            part.unlink()
    tape, name, count = Tape(folder, START), new_word(), 0
    tape.write([encode(Start(name, FORMAT))])
    for page in _pages(fingerprint.rows(), ROWS_WRITTEN):
        tape.write(map(fingerprint.line, page))
        count += len(page)
    tape.write([encode(Complete(count))])
    tape.close()
    return name


def _read_start(folder: Path) -> tuple[str, bool]:
    reader = Reader(folder, START)
    lines = iter(reader)
    first, last = next(lines, None), reader.last()
    start = None if first is None else decode_start(first)
    if not isinstance(start, Start):
        return "", False
    if start.format != FORMAT:
        raise Unusable(f"{folder} holds a recording of format {start.format}, this release knows {FORMAT}")
    return start.recording, last is not None and last.startswith(b"{") and isinstance(decode_start(last), Complete)


def opened_at(account_ids: Sequence[int]) -> dict[int, datetime]:
    """Return when these accounts were made; those that are none are left out."""
    marks = ", ".join(["%s"] * len(account_ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT user_id, created_at FROM trading_account WHERE user_id IN ({marks})",  # noqa: S608
            list(account_ids),
        )
        return {user_id: read_moment(created_at) for user_id, created_at in cursor.fetchall()}


def digest(ledger: Ledger) -> str:
    """Return a short digest of all that a transaction changed."""
    changed = [
        (
            account.account_id,
            account.changes.entries,
            [account.changes.orders[order_id] for order_id in sorted(account.changes.orders)],
            [(order.order_id, fill) for order, fill in account.changes.fills],
            [(order.order_id, fill and fill.fill_id) for order, fill in account.changes.reports],
        )
        for account in (ledger.accounts[account_id] for account_id in sorted(ledger.accounts))
    ]
    return blake2b(encode(changed), digest_size=8).hexdigest()


def _without_secret(command: Command, result: Any) -> Command:
    key = getattr(command, "key", "")
    return structs.replace(command, key=REVOKED if isinstance(result, Unauthorized) else "") if key else command


def _pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while page := list(islice(rest, size)):
        yield page
