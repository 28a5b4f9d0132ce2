"""A recording, run again, ends with the same ledger, byte for byte; what was changed, lost or left out is named."""

from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection

from accounts.models import User
from core import account
from core.account import Fees
from core.events import Side
from core.orders import OrderType, Terms
from marketdata import tape
from marketdata.tape import Unusable
from tests.trading.days import Day, Floor
from tests.trading.desk import BTC, Desk, units
from trading import fingerprint, models
from trading.commands import Amend, Cancel, Deposit, Place, PlaceTwap, Reset
from trading.ledger import open_accounts
from trading.recording import Recording
from trading.rerun import Differs, Done, Rerun, private_database
from trading.rerun import Recording as Recorded

pytestmark = pytest.mark.django_db(transaction=True)

COLLAR_BPS = 500  # of a desk
MOVES = 100


class Recorder:
    """Makes recorded desks: each is the life of a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lives: list[Recording] = []

    def life(self, fees: Fees | None = None) -> Recording:
        recording = Recording(self.folder, "web", fees=fees or Fees(), collar_bps=COLLAR_BPS)
        self.lives.append(recording)
        return recording

    def desk(self, fees: Fees | None = None) -> Desk:
        desk = Desk(fees, witness=self.life(fees).recorder)
        desk.quote(bid=[("99", "5", "okx")], ask=[("100", "5", "okx"), ("100", "2", "kraken")])
        return desk

    def orders(self, life: int = 0) -> Path:
        return self.folder / f"{self.lives[life].life}.orders.0001.rec"

    def rerun(self) -> Done:
        with private_database():
            recorded = Recorded(self.folder)
            run = Rerun(recorded)
            run.begin()
            for what in recorded.happenings():
                run.take(what)
            return run.end()

    def same(self) -> Done:
        done = self.rerun()
        assert done.ledger_hash == fingerprint.ledger_hash()
        return done


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "recording")


class RecordedDay(Day):
    """A day whose processes are recorded, each from its start."""

    def __init__(self, dice: Random, recorder: Recorder) -> None:
        super().__init__(dice)
        self._recorder = recorder

    def _new_desk(self, fees: Fees) -> Floor:
        before, desk = self.desk, Floor(fees, witness=self._recorder.life(fees).recorder)
        desk.offers, desk.behind, desk.dead, desk.now = before.offers, before.behind, before.dead, before.now
        return desk


@pytest.mark.parametrize("seed", range(6))
def test_whole_days_run_again_to_the_same_ledger(seed: int, recorder: Recorder) -> None:
    day = RecordedDay(Random(seed), recorder)
    day.open()
    for _ in range(MOVES):
        day.dice.choice(day.moves())()

    done = recorder.same()

    assert done.fills > 5
    assert done.refused > 0


def test_a_recording_starts_from_the_rows_that_there_are(recorder: Recorder) -> None:
    desk = Desk()
    desk.quote(bid=[("99", "5", "okx")], ask=[("100", "5", "okx")])
    alice = desk.trader(USDT="1000", BTC="3")
    desk.order(alice, "buy", "1", "100")
    resting = desk.order(alice, "sell", "1", "150")
    before = fingerprint.ledger_hash()
    recorded = recorder.desk()
    assert recorder.same().ledger_hash == before

    recorded.do(Amend(alice, resting.order.order_id, units("160"), None))
    recorded.do(Reset(alice, {"USDT": 5, "BTC": 3}))

    assert recorder.same().transactions == 2


def test_two_reruns_have_the_same_hash(recorder: Recorder) -> None:
    desk = recorder.desk()
    alice = desk.trader(USDT="1000")
    desk.order(alice, "buy", "1", "100")

    assert recorder.rerun().ledger_hash == recorder.rerun().ledger_hash


def test_each_process_has_the_sizes_that_it_knew(recorder: Recorder) -> None:
    """An ioc order takes a displayed size once a process: what one took, the next one does not know of."""
    first, second = recorder.desk(), recorder.desk()
    alice = first.trader(USDT="10000")
    for token, desk in (("a", first), ("b", second), ("c", first)):
        desk.order(alice, "buy", "6", "100", kind="ioc", token=token)

    done = recorder.same()

    assert [fill.quantity for fill in models.Fill.objects.order_by("seq")] == [units(q) for q in (5, 1, 5, 1, 1)]
    assert done.fills == 5


def test_a_disabled_user_is_refused_again(recorder: Recorder) -> None:
    desk = recorder.desk()
    alice = desk.trader(USDT="1000")
    User.objects.filter(pk=alice).update(is_active=False)
    assert desk.do(Deposit(alice, "USDT", 5), Deposit(alice, "USDT", 6))[0].code == "unauthorized"
    User.objects.filter(pk=alice).update(is_active=True)
    desk.do(Deposit(alice, "USDT", 7))

    assert recorder.same().refused == 2


def test_no_key_of_a_token_is_recorded(recorder: Recorder) -> None:
    desk = recorder.desk()
    alice = desk.trader(USDT="1000")
    good = User.objects.get(pk=alice).token_key
    terms = Terms("t", BTC, Side.BUY, OrderType.LIMIT, units("90"), units("1"))
    desk.do(Place(alice, terms, key=good), Cancel(alice, "t", key="wrong-and-secret"))

    recorder.same()

    recorded = recorder.orders().read_bytes()
    assert good.encode() not in recorded
    assert b"wrong-and-secret" not in recorded


# -- what became of a transaction


class _Commit:
    """Fails, or ends the process, at the commit or just after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
        self._patch, self._desk = monkeypatch, desk

    def fails(self, error: BaseException, *, after: bool, do: Callable[[], object]) -> None:
        commit = connection._commit

        def failing() -> None:
            if after:
                commit()
            else:
                connection._rollback()  # as a server does whose client is gone
            raise error

        with self._patch.context() as patch:
            patch.setattr(connection, "_commit", failing)
            with pytest.raises(type(error)):
                do()


class _Killed(BaseException):
    """The process ends here: nothing of it runs any more."""


@pytest.fixture
def desk(recorder: Recorder) -> Desk:
    return recorder.desk()


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> _Commit:
    return _Commit(monkeypatch, desk)


@pytest.mark.parametrize("after", [True, False])
def test_a_commit_that_nobody_heard_of_is_looked_up(
    after: bool, recorder: Recorder, desk: Desk, commit: _Commit
) -> None:
    alice = desk.trader(USDT="1000")
    commit.fails(OperationalError("gone"), after=after, do=lambda: desk.do(Deposit(alice, "USDT", 5)))
    desk.do(Deposit(alice, "USDT", 6))

    done = recorder.same()

    assert done.settled == [f"transaction 3 of {recorder.lives[0].life} was {'' if after else 'not '}committed"]


def test_a_transaction_whose_number_could_not_be_written_leaves_no_hole(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(USDT="1000")

    def gone(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE trading_recordedlife"):
            raise OperationalError("the server closed the connection")
        return execute(sql, *arguments)

    with connection.execute_wrapper(gone), pytest.raises(OperationalError):
        desk.do(Deposit(alice, "USDT", 5))
    desk.do(Deposit(alice, "USDT", 6))

    assert recorder.same().transactions == 3


@pytest.mark.parametrize("after", [True, False])
def test_the_last_transaction_of_a_process_that_was_killed_is_known_to_the_next(
    after: bool, recorder: Recorder, desk: Desk, commit: _Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = desk.trader(USDT="1000")
    monkeypatch.setattr(recorder.lives[0].recorder, "failed", lambda error: None)
    commit.fails(_Killed(), after=after, do=lambda: desk.do(Deposit(alice, "USDT", 5)))
    assert recorder.rerun().doubtful == [f"transaction 3 of {recorder.lives[0].life}"]

    recorder.desk().do(Deposit(alice, "USDT", 6))

    assert len(recorder.same().settled) == 1


def test_a_line_that_was_cut_off_by_a_kill_is_left_out(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(USDT="1000")
    before = fingerprint.ledger_hash()
    at = recorder.orders().stat().st_size
    desk.do(Deposit(alice, "USDT", 5))
    with recorder.orders().open("rb+") as file:
        file.truncate(at + 100)

    assert recorder.rerun().ledger_hash == before


def test_a_cut_line_in_the_middle_is_found(recorder: Recorder, desk: Desk) -> None:
    desk.trader(USDT="1000")
    lines = recorder.orders().read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:-20] + b"\n"
    recorder.orders().write_bytes(b"".join(lines))

    with pytest.raises(Unusable, match=r"orders\.0001\.rec, line 3: it is not what was written there"):
        recorder.rerun()


def test_code_that_decides_otherwise_is_found(recorder: Recorder, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order at the very touch: with another rule it would rest."""
    alice = desk.trader(USDT="1000")
    desk.order(alice, "buy", "1", "100")
    monkeypatch.setattr(account, "crosses", lambda side, *, price, best: False)

    with pytest.raises(Differs, match=r"transaction 3 of web-.*: it did not ask for the id that was asked for then"):
        recorder.rerun()


# -- what was changed or is missing


def _forge(path: Path, old: bytes, new: bytes) -> None:
    """Change a recording, checksums included."""
    lines = [line.split(b" ", 1)[1] for line in path.read_bytes().splitlines()]
    assert any(old in line for line in lines)
    changed = [line.replace(old, new) for line in lines]
    path.write_bytes(b"".join(b"%08x %b\n" % (crc32(line), line) for line in changed))


def test_a_command_that_was_changed_is_found(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(BTC="1000")
    desk.order(alice, "sell", "1", "150")  # holds the same, whatever its price
    _forge(recorder.orders(), b'"price":15000000000', b'"price":16000000000')

    with pytest.raises(Differs, match=r"transaction 3 of web-.*: it writes other rows than then \(Place\)"):
        recorder.rerun()


def test_a_market_that_was_changed_is_found(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(USDT="1000")
    desk.order(alice, "buy", "1", "100")
    _forge(recorder.orders(), b'"price":10000000000,"size"', b'"price":9900000000,"size"')

    with pytest.raises(Differs, match="it writes other rows"):
        recorder.rerun()


def test_what_changed_beside_the_recording_is_named(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(USDT="1000")
    Desk().do(Deposit(alice, "USDT", 50))
    desk.do(Deposit(alice, "USDT", 5))

    with pytest.raises(Differs, match=rf"account {alice} was changed by something that is not recorded: its USDT"):
        recorder.rerun()


def test_an_account_that_nobody_recorded_is_named(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader()
    open_accounts([alice])
    desk.do(Deposit(alice, "USDT", 5))

    with pytest.raises(Differs, match=rf"account {alice} was there; how it was opened is not recorded"):
        recorder.rerun()


def test_a_lost_file_is_named(recorder: Recorder, desk: Desk) -> None:
    desk.trader(USDT="1000")
    recorder.life()
    recorder.orders().unlink()

    with pytest.raises(Unusable, match=rf"{recorder.lives[0].life}\.orders\.0001\.rec is missing: 2 transactions"):
        recorder.rerun()


def test_a_lost_end_is_named(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(USDT="1000")
    whole = recorder.orders().read_bytes()
    desk.do(Deposit(alice, "USDT", 5))
    recorder.life()
    recorder.orders().write_bytes(whole)

    with pytest.raises(Unusable, match="ends at transaction 2; there were 3"):
        recorder.rerun()


def test_a_lost_part_is_named(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "PART_SIZE_MAX", 1_000)
    desk = recorder.desk()
    alice = desk.trader(USDT="1000")
    for _ in range(5):
        desk.do(Deposit(alice, "USDT", 5))
    assert recorder.same().transactions == 7
    recorder.orders().with_name(recorder.orders().name.replace("0001", "0002")).unlink()

    with pytest.raises(Unusable, match=r"0002\.rec is missing"):
        recorder.rerun()


def test_a_folder_without_a_recording_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="holds no recording"):
        Recorded(tmp_path)


def test_the_beginning_is_written_again_where_it_was_not_finished(recorder: Recorder) -> None:
    desk = Desk()
    alice = desk.trader(USDT="1000")
    recorder.life()
    start = recorder.folder / "start.0001.rec"
    start.write_bytes(start.read_bytes()[:-10])
    for path in recorder.folder.glob("web-*"):
        path.unlink()

    recorder.desk().do(Deposit(alice, "USDT", 5))

    recorder.same()


def test_trading_goes_on_where_a_recording_cannot_be_written(
    recorder: Recorder, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = desk.trader(USDT="1000")

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tape.os, "write", full)
        desk.do(Deposit(alice, "USDT", 5))
    desk.do(Deposit(alice, "USDT", 5))
    recorder.life()

    with pytest.raises(Unusable, match="ends at transaction 2; there were 3"):
        recorder.rerun()


# -- the commands


def _command(*arguments: str) -> tuple[int, str]:
    """Run a management command; return what it ends with, and what it prints."""
    out = StringIO()
    try:
        call_command(*arguments, stdout=out, no_color=True)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_a_person_is_told_what_was_run_again(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(USDT="1000")
    desk.order(alice, "buy", "1", "100")
    _, printed = _command("ledger_hash")

    code, told = _command("rerun", str(recorder.folder), "--against-database")

    assert code == 0
    assert "3 transactions, 2 commands (0 refused), 1 fills" in told
    assert "no frames were recorded: what orders were shown is taken as it was" in told
    assert f"ledger {printed.strip()}" in told


def test_the_first_row_that_differs_is_shown(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(USDT="1000")
    models.Entry.objects.filter(account_id=alice).update(kind="credit")

    code, told = _command("rerun", str(recorder.folder), "--against-database")

    assert code == 1
    assert "rerun    entry: account_id=" in told
    assert "kind='deposit'" in told.split("database entry")[0]
    assert "kind='credit'" in told.split("database entry")[1]


def test_another_hash_than_the_expected_one_is_told(recorder: Recorder, desk: Desk) -> None:
    code, told = _command("rerun", str(recorder.folder), "--expect", "0" * 64)

    assert (code, "the ledger's hash is not the expected 0000" in told) == (1, True)


def test_an_unusable_recording_ends_with_2(tmp_path: Path) -> None:
    code, told = _command("rerun", str(tmp_path), "--json")

    assert (code, "holds no recording" in told) == (2, True)


def test_a_story_without_frames_says_so(recorder: Recorder, desk: Desk) -> None:
    alice = desk.trader(USDT="1000")
    desk.quote(bid=[("99", "5", "okx")], ask=[("101", "5", "okx")])
    desk.order(alice, "buy", "1", "100", token="mine")
    desk.quote(bid=[("99", "5", "okx")], ask=[("100", "5", "okx")])
    placed = desk.do(Amend(alice, "mine", units("100.5"), None))

    code, told = _command("rerun", str(recorder.folder), "--why", placed.fills[0].fill_id)

    assert code == 0
    assert "limit buy of 1 BTC-USDT, limit 100, token id 'mine'" in told
    assert "okx      101 × 5\n       no recorded frame of the venue told that" in told
    assert "NOT FILLED: the best ask 101 is above its limit 100; it rests" in told
    assert "Its owner amends it: price 100.5" in told
    assert "FILLED 1 at 100 on okx as taker" in told
    assert "rule amended_and_crossed" in told
    assert "moved -100 USDT, +1 BTC" in told
    assert "In the end: filled, 1 of 1 filled in 1 fill" in told


# -- the hash


def test_the_hash_is_of_every_column(desk: Desk) -> None:
    alice = desk.trader(USDT="1000", BTC="1")
    desk.order(alice, "buy", "1", "100")
    seen = {fingerprint.ledger_hash()}
    changes = {
        "account": "created_at = '2020-01-01 00:00:00+00:00'",
        "balance": "held = held + 1",
        "order": "reason = 'x'",
        "fill": "rule = 'x'",
        "entry": "created_at = '2020-01-01 00:00:00+00:00'",
        "report": "body = '{}'",
    }
    for table, change in changes.items():
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE trading_{table} SET {change}")
        seen.add(fingerprint.ledger_hash())

    assert len(seen) == len(changes) + 1


def test_the_hash_is_the_same_on_every_database() -> None:
    """These rows have this hash: the tests say so on SQLite and on PostgreSQL."""
    numbers = count(1)
    desk = Desk(new_id=lambda: f"00000000-0000-4000-8000-{next(numbers):012}")
    desk.quote(bid=[("99", "5", "okx")], ask=[("100", "5", "okx")])
    User.objects.create(pk=77, username="seventy-seven", password="!")
    models.Account.objects.create(user_id=77)
    models.Account.objects.update(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    desk.do(Deposit(77, "USDT", units("1000")))
    desk.order(77, "buy", "1", "100", token="one")
    desk.do(PlaceTwap(77, Terms("two", BTC, Side.BUY, OrderType.TWAP, None, units("1")), "all", 60, 3))

    assert fingerprint.ledger_hash() == "590b9f1bdd47064599c3d079777f47b52c036fba6b82a3e3caca1546f6a3a914"
