"""Runs a recording again: the same commands, told the same, through the same code, into a ledger of its own.

Each life of a process that was recorded has an exchange here. Transactions run in the order in which they
locked their accounts; before each, what it reads must be what was read then, and after it, what it wrote must
have the digest of then: the first transaction that differs is named.
"""

import heapq
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connection, connections
from msgspec import Raw, Struct

from accounts.models import User
from core import strict_json
from core.account import Fees, Market, Offer
from core.errors import DomainError, Unavailable
from core.events import Side
from core.money import from_units, to_units
from marketdata.arrivals import moment_ns
from marketdata.batches import HEARTBEAT_LOST_S
from marketdata.retelling import Retelling, Told
from marketdata.tape import Reader, Unusable, names
from trading import fingerprint, ledger, recording
from trading.commands import Command, FillResting
from trading.exchange import SEEN_MAX_NS, Exchange
from trading.ledger import Ledger
from trading.market import size_units
from trading.recording import START, Became, Complete, Header, Opened, Sealed, Start, Transaction

ORDERS, FRAMES = ".orders", ".frames"
CONFIGURED = "configured"  # the database of the settings, while the default one is the rerun's own
NAME = "ledger.sqlite3"
ROWS_LOADED = 1_000  # at once
MARGIN_NS = 60 * 10**9  # a transaction may wait for so long between being shown a price and its end
UNEXPLAINED_MAX = 20  # that are told one by one
_COMMANDS = {kind.__name__: kind for kind in Command.__args__}


class Differs(Exception):
    """Something is not what was recorded."""


class Life(NamedTuple):
    """A process that was recorded, and where its files are."""

    header: Header
    orders: Reader
    frames: Reader | None


class Entry(Struct):
    """A transaction and what became of it; `doubtful`: the process was never told."""

    life: Life
    line: Transaction | Opened
    committed: bool | None
    doubtful: bool

    def __str__(self) -> str:
        return f"transaction {self.line.number} of {self.life.header.life}"


class Heard(NamedTuple):
    """A line of what the venues sent; None: nothing follows in this life."""

    life: Life
    line: bytes | None


class Recording:
    """A folder that was recorded into.

    Raises:
        Unusable: something of it is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = names(folder)
        if START not in found:
            raise Unusable(f"{folder} holds no recording: there is no {START}.0001.rec")
        self._start = Reader(folder, START)
        first = next(iter(self._start), None)
        start = None if first is None else recording.decode_start(first)
        if not isinstance(start, Start):
            raise Unusable(f"{self._start.parts[0]} does not begin a recording")
        if start.format != recording.FORMAT:
            raise Unusable(f"{folder} holds format {start.format}, this release reads {recording.FORMAT}")
        self.name = start.recording
        self.lives: list[Life] = []
        self._told: list[tuple[str, int, dict[str, int]]] = []  # boot, when, how far each life had come
        for name in found:
            if name.endswith(ORDERS):
                self._take(folder, name.removesuffix(ORDERS), found)
        for name in found:
            if name.endswith(FRAMES) and name.removesuffix(FRAMES) + ORDERS not in found:
                raise Unusable(f"{folder / name.removesuffix(FRAMES)}{ORDERS}.0001.rec is missing")
        boots: dict[str, int] = {}
        for life in self.lives:
            boots[life.header.boot] = min(life.header.wall_ns, boots.get(life.header.boot, life.header.wall_ns))
        self.boots = {boot: rank for rank, boot in enumerate(sorted(boots, key=boots.__getitem__))}

    @property
    def readers(self) -> list[Reader]:
        return [self._start, *(reader for life in self.lives for reader in (life.orders, life.frames) if reader)]

    def database_says(self, lives: Mapping[str, int]) -> None:
        """Take how far the database says that each life came; nothing of them is under way any more."""
        for boot in self.boots:
            self._told.append((boot, 2**63, dict(lives)))

    def start(self) -> Iterator[fingerprint.Row]:
        """Yield the rows that there were when the recording began."""
        count = 0
        for body in self._start:
            if body.startswith(b"["):
                name, values = msgspec.json.decode(body)
                count += 1
                yield name, tuple(values)
            elif isinstance(end := recording.decode_start(body), Complete) and end.rows == count:
                return
        raise Unusable(f"{self._start.parts[-1]}: the rows of the beginning are not all there")

    def happenings(self, *, frames: bool = True) -> Iterator["Entry | Heard"]:
        """Yield all transactions in the order in which they locked their accounts, and the frames between them."""
        for _, _, lives in self._told:
            for name in lives.keys() - {life.header.life for life in self.lives}:
                if lives[name]:
                    raise Unusable(f"{self._folder / name}{ORDERS}.0001.rec is missing: {lives[name]} transactions")
        streams = [self._of(life) for life in self.lives]
        streams += [_heard(life, life.frames) for life in self.lives if life.frames and frames]
        keyed = (
            ((self.boots[life.header.boot], at_ns, number, what) for life, at_ns, what in stream)
            for number, stream in enumerate(streams)
        )
        for _, _, _, what in heapq.merge(*keyed, key=lambda item: item[:3]):
            yield what

    def _take(self, folder: Path, name: str, found: Sequence[str]) -> None:
        orders = Reader(folder, name + ORDERS)
        first = next(iter(orders), None)
        if first is None:
            return  # it was killed before it did anything
        header = recording.decode(first)
        if not isinstance(header, Header) or header.life != name:
            raise Unusable(f"{orders.parts[0]} does not begin with its life")
        self.lives.append(Life(header, orders, Reader(folder, name + FRAMES) if name + FRAMES in found else None))
        self._told.append((header.boot, header.at_ns, header.lives))
        if (last := orders.last()) is not None and isinstance(seal := recording.decode(last), Sealed):
            self._told.append((header.boot, seal.at_ns, seal.lives))

    def _of(self, life: Life) -> Iterator[tuple[Life, int, "Entry | Heard"]]:
        """Yield the transactions of a life, each with its moment."""
        entry: Entry | None = None
        number = 0
        for body in life.orders:
            line = recording.decode(body)
            if isinstance(line, Transaction | Opened):
                if entry is not None:
                    yield life, entry.line.at_ns, entry
                number += 1
                if line.number != number:
                    raise Unusable(f"{life.orders.parts[0]}: transaction {number} is missing")
                entry = Entry(life, line, None, doubtful=False)
            elif isinstance(line, Became) and entry is not None:
                entry.committed = line.committed
                entry.doubtful = entry.doubtful or line.committed is None
        if entry is not None:
            if entry.committed is None:
                entry.committed, entry.doubtful = self._decide(entry), True
            yield life, entry.line.at_ns, entry
        for boot, _, lives in self._told:
            if boot == life.header.boot and lives.get(life.header.life, 0) > number:
                reached = lives[life.header.life]
                raise Unusable(f"{life.orders.parts[-1]} ends at transaction {number}; there were {reached}")

    def _decide(self, entry: Entry) -> bool | None:
        """Tell from what others read later whether a life's last transaction was committed; None: nobody read it."""
        header = entry.life.header
        until_ns = entry.line.until_ns if isinstance(entry.line, Transaction) else entry.line.at_ns
        for boot, at_ns, lives in self._told:
            later = self.boots[boot] > self.boots[header.boot] or (boot == header.boot and at_ns > until_ns)
            if later and header.life in lives:
                return lives[header.life] == entry.line.number
        return None


def _heard(life: Life, frames: Reader) -> Iterator[tuple[Life, int, Entry | Heard]]:
    at_ns = life.header.at_ns
    for line in frames:
        at_ns = moment_ns(line)
        yield life, at_ns, Heard(life, line)
    yield life, at_ns, Heard(life, None)


class Done(Struct):
    """What a rerun did."""

    transactions: int = 0
    commands: int = 0
    refused: int = 0
    fills: int = 0
    rolled_back: int = 0  # transactions that were not committed
    settled: list[str] = msgspec.field(default_factory=list)  # in doubt then, known now
    doubtful: list[str] = msgspec.field(default_factory=list)  # nobody knows; taken as not committed
    frames: int = 0
    connections: int = 0
    shown: int = 0  # prices and sizes that orders were shown
    told: int = 0  # of these, those that the venue's frames had told
    unexplained: list[str] = msgspec.field(default_factory=list)  # the first of the others
    latest_ms: float = 0.0  # by so much, at most, a price that was shown had been superseded already
    ledger_hash: str = ""


Seen = Callable[[Entry, Sequence[Command], Sequence[Any], Ledger], None]  # results, and the ledger as it is written


class Rerun:
    """Runs the transactions of a recording in the default database, which is empty and nobody else's."""

    def __init__(self, recorded: Recording, seen: Seen = lambda entry, asked, results, ledger: None) -> None:
        self.done = Done()
        self.market = Explained(recorded, self.done)
        self._recorded = recorded
        self._seen = seen
        self._stages: dict[str, _Stage] = {}
        self._active: dict[int, bool] = {}

    def begin(self) -> None:
        """Write the rows that there were when the recording began."""
        waiting: dict[str, list[tuple[Any, ...]]] = {}
        for name, values in self._recorded.start():
            if name == "account":
                self._meet(values[0])
            page = waiting.setdefault(name, [])
            page.append(values)
            if len(page) >= ROWS_LOADED:
                _load(name, page)
                page.clear()
        for name in (table.name for table in fingerprint.TABLES):
            _load(name, waiting.get(name, []))

    def take(self, what: Entry | Heard) -> None:
        """Run one transaction, or hear one frame.

        Raises:
            Differs: it does not find what was found then, or does something else.
        """
        if isinstance(what, Heard):
            self.market.hear(what)
        else:
            self._take(what)

    def _take(self, entry: Entry) -> None:
        """Run one transaction.

        Raises:
            Differs: it does not find what was found then, or does something else.
        """
        if entry.committed is None:
            self.done.doubtful.append(str(entry))
        elif entry.doubtful:
            self.done.settled.append(f"{entry} was {'' if entry.committed else 'not '}committed")
        if not entry.committed:
            self.done.rolled_back += entry.committed is False
            return
        if isinstance(entry.line, Opened):
            for user_id, created_at in entry.line.accounts:
                self._meet(user_id)
                _load("account", [(user_id, 0, created_at.isoformat())])
        else:
            life = entry.life.header
            stage = self._stages.get(life.life)
            if stage is None:
                stage = self._stages[life.life] = _Stage(life, self.market, self._seen, self.done)
            self._let_in(entry.line)
            stage.run(entry, entry.line)
        self.done.transactions += 1

    def end(self) -> Done:
        self.market.settle(None)
        self.done.ledger_hash = fingerprint.ledger_hash()
        return self.done

    def _meet(self, user_id: int) -> None:
        if user_id not in self._active:
            User.objects.create(pk=user_id, username=f"user-{user_id}", password="!")  # noqa: S106 - nobody logs in here
            self._active[user_id] = True

    def _let_in(self, line: Transaction) -> None:
        """Let those trade who were let then: a user may be disabled and enabled again."""
        for _, raw in line.commands:
            account_id = _AccountOf.decode(raw).account_id
            active = account_id in line.accounts
            if self._active.get(account_id, active) != active:
                User.objects.filter(pk=account_id).update(is_active=active)
                self._active[account_id] = active


class _Stage:
    """An exchange that is told what it was told, and the witness of what it does."""

    def __init__(self, life: Header, market: "Explained", seen: Seen, done: Done) -> None:
        self._market = market
        self._seen = seen
        self._done = done
        self._answers: deque[tuple[str, list[Any], Raw, str]] = deque()
        self._now = datetime.min.replace(tzinfo=UTC)
        self._exchange = Exchange(
            _silent,
            takes_part=_silent,
            depth_of=_silent,
            fees=Fees(maker=life.maker_fee, taker=life.taker_fee),
            collar_bps=life.collar_bps,
            now=lambda: self._now,
            clock_ns=_silent,
            new_id=_silent,
            witness=self,
        )

    def run(self, entry: Entry, line: Transaction) -> None:
        self._entry, self._line, self._now = entry, line, line.now
        self._answers = deque(line.answers)
        asked = [read_command(name, raw) for name, raw in line.commands]
        try:
            self._exchange.apply(asked)
        except Differs as difference:
            raise Differs(f"{entry}: {difference}") from None
        except Exception as error:
            raise Differs(f"{entry} was committed, and fails now: {type(error).__name__}: {error}") from error
        if entry.doubtful:
            self._exchange.forget_sizes()  # as the process did, which was told of an error

    def heard(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return partial(self._answer, name)

    def open(self, account_ids: Sequence[int]) -> None:
        """Who has no account here had none then."""

    def locked(self, ledger: Ledger) -> None:
        found, recorded = ledger.as_read(), self._line.accounts
        for account_id in recorded:
            if account_id not in found:
                raise Differs(f"account {account_id} was there; how it was opened is not recorded")
            if found[account_id] != recorded[account_id]:
                raise Differs(_changed(account_id, recorded[account_id], found[account_id]))

    def written(self, ledger: Ledger, asked: Sequence[Command], results: Sequence[Any], now: datetime) -> None:
        if self._answers:
            raise Differs(f"it did not ask for the {self._answers[0][0]} that was asked for then")
        if recording.digest(ledger) != self._line.digest:
            raise Differs(f"it writes other rows than then ({', '.join(name for name, _ in self._line.commands)})")
        self._done.commands += len(asked)
        self._done.refused += sum(isinstance(result, DomainError) for result in results)
        self._done.fills += sum(len(account.changes.fills) for account in ledger.accounts.values())
        self._market.ask(self._entry, self._line, asked, ledger)
        self._seen(self._entry, asked, results, ledger)

    def committed(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...

    def _answer(self, name: str, *arguments: Any) -> Any:
        if not self._answers:
            raise Differs(f"it asks for the {name} {arguments}, and did not then")
        was, asked, raw, refusal = self._answers.popleft()
        if was != name or asked != list(arguments):
            raise Differs(f"it asks for the {name} {arguments}, then it asked for the {was} {asked}")
        if refusal:
            raise Unavailable(refusal)
        return read_market(raw) if name in ("market", "depth") else msgspec.json.decode(raw)


class Question(NamedTuple):
    """A market that an order was shown, at some moment from `since_ns` to `at_ns`: had the venues told it?"""

    since_ns: int
    at_ns: int
    entry: Entry
    instrument: str
    side: Side
    depth: bool
    market: Market


class Explained:
    """Compares what orders were shown with what the venues' frames had told by then."""

    def __init__(self, recorded: Recording, done: Done) -> None:
        self.answered: list[Callable[[Question, Offer, Told | None], None]] = []  # called with each offer
        self.quoted: list[Callable[[str, str, Told], None]] = []  # called with each venue's quote of an instrument
        self.retellings: dict[str, Retelling] = {}
        self._done = done
        self._recorded = any(life.frames is not None for life in recorded.lives)
        self._open: list[tuple[int, int, Question]] = []  # a heap: when it was asked, and which it is
        self._asked = 0

    def hear(self, heard: Heard) -> None:
        life = heard.life.header
        retelling = self.retellings.get(life.life)
        if retelling is None:
            retelling = self.retellings[life.life] = Retelling(
                life.instruments, stale_after_s=life.stale_after_s, kept_ns=_limit_ns(life) + MARGIN_NS
            )
            retelling.listeners = self.quoted
        if heard.line is None:
            retelling.ended()
            return
        self.settle(moment_ns(heard.line))
        frames, connections = retelling.frames, retelling.connections
        retelling.tell(heard.line)
        self._done.frames += retelling.frames - frames
        self._done.connections += retelling.connections - connections

    def ask(self, entry: Entry, line: Transaction, asked: Sequence[Command], ledger: Ledger) -> None:
        """Take note of all that a transaction was shown."""
        for name, arguments, raw, refusal in line.answers:
            if name in ("market", "depth") and not refusal:
                instrument, side = arguments[:2]
                # A process that was frozen, or waited for its database, was shown it long before the end.
                moments = line.at_ns, line.until_ns
                self._ask(moments, entry, instrument, Side(side), name == "depth", read_market(raw))
        for command in asked:
            if isinstance(command, FillResting) and line.at_ns - command.seen_ns <= SEEN_MAX_NS:
                order = ledger.order(command.order_id)
                if order is not None:
                    moments = command.seen_ns, command.seen_ns
                    self._ask(moments, entry, order.terms.instrument, order.side, False, command.market)

    def settle(self, until_ns: int | None) -> None:
        """Answer what was asked before a moment, or all."""
        while self._open and (until_ns is None or self._open[0][0] < until_ns):
            self._answer(heapq.heappop(self._open)[2])

    def _ask(
        self, moments: tuple[int, int], entry: Entry, instrument: str, side: Side, depth: bool, market: Market
    ) -> None:
        self._asked += 1
        question = Question(*moments, entry, instrument, side, depth, market)
        heapq.heappush(self._open, (question.at_ns, self._asked, question))

    def _answer(self, question: Question) -> None:
        for offer in question.market.offers:
            told, ago_ns = self._told(question, offer)
            for listener in self.answered:
                listener(question, offer, told)
            if not self._recorded:
                continue
            self._done.shown += 1
            limit_ns = _limit_ns(question.entry.life.header)
            if told is not None and ago_ns <= limit_ns:
                self._done.told += 1
                self._done.latest_ms = max(self._done.latest_ms, round(ago_ns / 1e6, 3))
            elif len(self._done.unexplained) < UNEXPLAINED_MAX:
                shown = f"{question.instrument} {from_units(offer.price):f} × {from_units(offer.size):f}"
                why = (
                    f"the venue had not told that in the {limit_ns / 1e9:.0f} s before"
                    if told is None
                    else f"the venue had told something else {ago_ns / 1e9:.1f} s before"
                )
                self._done.unexplained.append(f"{question.entry} was shown {shown} of {offer.venue}: {why}")

    def _told(self, question: Question, offer: Offer) -> tuple[Told | None, int]:
        """Return what told an offer, and how long ago it had been superseded."""
        found = [
            told
            for retelling in self.retellings.values()
            if (
                told := retelling.told(
                    offer.venue, question.instrument, question.side, as_units, (offer.price, offer.size),
                    at_ns=question.at_ns, depth=question.depth,
                )
            )
        ]  # fmt: skip
        if not found:
            return None, 0
        ages = [max(question.since_ns - told.until_ns, 0) if told.until_ns is not None else 0 for told in found]
        place = ages.index(min(ages))
        return found[place], ages[place]


def as_units(price: Decimal, size: Decimal) -> tuple[int, int] | None:
    """Return a price and a size as orders are shown them."""
    try:
        return to_units(price), size_units(size)
    except ValueError:
        return None


def _limit_ns(life: Header) -> int:
    """Return how old what is shown may be: a venue that is silent for so long is not live any more."""
    return int((life.stale_after_s + HEARTBEAT_LOST_S) * 1e9)


class _AccountId(Struct):
    account_id: int


_AccountOf = msgspec.json.Decoder(_AccountId)


class _Market(Struct):
    offers: tuple[Offer, ...]
    touch: Raw


class _FillResting(Struct):
    account_id: int
    order_id: str
    market: Raw
    seen_ns: int


def read_command(name: str, raw: Raw) -> Command:
    if name == FillResting.__name__:
        fields = msgspec.json.decode(raw, type=_FillResting)
        return FillResting(fields.account_id, fields.order_id, read_market(fields.market), fields.seen_ns)
    command: Command = msgspec.json.decode(raw, type=_COMMANDS[name])
    return command


def read_market(raw: Raw) -> Market:
    """Return a market; the numbers of its receipt are exact."""
    fields = msgspec.json.decode(raw, type=_Market)
    return Market(fields.offers, strict_json.loads(bytes(fields.touch)))


@contextmanager
def private_database() -> Iterator[None]:
    """Make the default database an empty one that ends with this; the settings' own is at hand as `CONFIGURED`."""
    given = connections.settings[DEFAULT_DB_ALIAS]
    kept = connections[DEFAULT_DB_ALIAS]
    with tempfile.TemporaryDirectory(prefix="rerun-") as folder:
        options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=OFF;PRAGMA synchronous=OFF"}
        connections.settings[CONFIGURED] = given
        connections.settings[DEFAULT_DB_ALIAS] = {
            **given, "ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/{NAME}", "OPTIONS": options,
            "CONN_MAX_AGE": None,
        }  # fmt: skip
        connections[CONFIGURED] = kept
        del connections[DEFAULT_DB_ALIAS]
        ledger.forget_moments()
        try:
            _make_tables(Path(folder) / NAME)
            yield
        finally:
            connection.close()
            connections.settings[DEFAULT_DB_ALIAS] = given
            connections[DEFAULT_DB_ALIAS] = kept
            del connections[CONFIGURED]
            del connections.settings[CONFIGURED]
            ledger.forget_moments()


_empty: list[bytes] = []  # a database with its tables: whoever reruns much makes them once


def _make_tables(path: Path) -> None:
    if _empty:
        path.write_bytes(_empty[0])
        return
    call_command("migrate", interactive=False, verbosity=0)
    connection.close()
    _empty.append(path.read_bytes())


def _load(name: str, page: Sequence[tuple[Any, ...]]) -> None:
    """Write rows as they were read."""
    table = fingerprint.BY_NAME[name]
    adapted = connection.ops.adapt_datetimefield_value
    marks = ", ".join(["%s"] * len(table.columns))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO trading_{name} ({', '.join(table.columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING",  # noqa: S608
            [
                tuple(
                    adapted(fingerprint.moment(value)) if place in table.moments and value is not None else value
                    for place, value in enumerate(values)
                )
                for values in page
            ],
        )


def _changed(account_id: int, then: Any, now: Any) -> str:
    """Say what of an account is not as it was read then."""
    if then[0] != now[0]:
        what = f"its last report was number {then[0]}, here it is {now[0]}"
    else:
        asset = next(asset for asset in (*then[1], *now[1]) if then[1].get(asset) != now[1].get(asset))
        what = f"its {asset} (total, held) was {then[1].get(asset)}, here it is {now[1].get(asset)}, in units"
    return f"account {account_id} was changed by something that is not recorded: {what}"


def _silent(*_arguments: Any) -> Any:
    raise AssertionError("the witness answers")
