"""Runs a recording again, in a database of its own, and tells whether the same ledger comes out."""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.db import Error, transaction

from marketdata.tape import Unusable
from trading import fingerprint, rerun, story
from trading.recording import read_lives
from trading.rerun import CONFIGURED, Differs, Done, Recording, Rerun

DIFFERENT, UNUSABLE = 1, 2
SHOWN_S = 0.1  # between two drawings of the progress
BAR = 30
LINE = 80


class Command(BaseCommand):
    help = (
        "Run a recording again through this release's code and print the hash of the ledger that comes out. Ends with"
        " 0; with 1 when something differs from what was recorded or expected; with 2 when the recording is unusable."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="what RECORDING, or --record, was")
        wanted = parser.add_mutually_exclusive_group()
        wanted.add_argument("--expect", metavar="HASH", help="the ledger's hash, as `manage.py ledger_hash` prints it")
        wanted.add_argument(
            "--against-database",
            action="store_true",
            help="compare with the configured database (which is only read), and show the first row that differs",
        )
        parser.add_argument(
            "--why",
            metavar="ID",
            nargs="+",
            default=(),
            help="tell the story of an order instead: its id, its token id, or the id of a fill",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["why"]:
            self._why(options["folder"], options["why"])
            return
        began_s = time.monotonic()
        try:
            with rerun.private_database():
                done, problem, code = self._run(options)
        except Unusable as error:
            done, problem, code = Done(), error.message, UNUSABLE
        seconds = round(time.monotonic() - began_s, 1)
        if options["json"]:
            told = {**msgspec.to_builtins(done), "problem": problem, "seconds": seconds}
            self.stdout.write(msgspec.json.encode(told).decode())
        else:
            self._tell(done, problem, seconds)
        if code:
            sys.exit(code)

    def _why(self, folder: Path, names: Sequence[str]) -> None:
        told = 0
        try:
            recorded = Recording(folder)
            for subject in chain.from_iterable(story.find(recorded, name) for name in names):
                if told:
                    self.stdout.write("─" * LINE)
                told += 1
                for line in story.tell(recorded, subject):
                    word = line.split(maxsplit=1)[0] if line.strip() else ""
                    styled = {"FILLED": self.style.SUCCESS, "NOT": self.style.WARNING, "REFUSED": self.style.ERROR}
                    self.stdout.write(styled.get(word, str)(line))
        except Unusable as error:
            raise CommandError(error.message, returncode=UNUSABLE) from error
        except (Differs, story.Nobody) as error:
            raise CommandError(str(error), returncode=DIFFERENT) from error

    def _run(self, options: dict[str, Any]) -> tuple[Done, str, int]:
        """Return what was done, and what was wrong."""
        recorded = Recording(options["folder"])
        if options["against_database"]:
            recorded.database_says(_lives(recorded.name))
        run = Rerun(recorded)
        progress = _Progress(self, recorded)
        try:
            run.begin()
            for what in recorded.happenings():
                run.take(what)
                progress.show()
        except Differs as difference:
            return run.done, str(difference), DIFFERENT
        finally:
            progress.clear()
        done = run.end()
        if options["against_database"] and (found := _first_difference()):
            return done, found, DIFFERENT
        if options["expect"] and options["expect"] != done.ledger_hash:
            return done, f"the ledger's hash is not the expected {options['expect']}", DIFFERENT
        if done.told < done.shown:
            return done, f"{done.shown - done.told:,} prices that orders were shown are not the venues'", DIFFERENT
        return done, "", 0

    def _tell(self, done: Done, problem: str, seconds: float) -> None:
        write, good = self.stdout.write, self.style.SUCCESS
        write(
            f"{done.transactions:,} transactions, {done.commands:,} commands ({done.refused:,} refused),"
            f" {done.fills:,} fills in {seconds} s"
        )
        if done.shown:
            write(
                f"{done.frames:,} frames of {done.connections:,} connections told {done.told:,} of the {done.shown:,}"
                f" prices that orders were shown, {done.latest_ms:g} ms late at most"
            )
        elif done.frames:
            write(f"{done.frames:,} frames of {done.connections:,} connections; no order was shown a price")
        else:
            write("no frames were recorded: what orders were shown is taken as it was")
        for line in done.unexplained:
            write(self.style.ERROR(line))
        for settled in done.settled:
            write(f"in doubt then, known now: {settled}")
        for doubtful in done.doubtful:
            write(self.style.WARNING(f"{doubtful} is in doubt: nobody knows whether it was committed; taken as not"))
        if done.ledger_hash:
            write(f"ledger {done.ledger_hash}")
        if problem:
            write(self.style.ERROR(problem))
        else:
            write(good("every transaction read and wrote what it did when it was recorded"))


class _Progress:
    """A bar for a person who waits."""

    def __init__(self, command: BaseCommand, recorded: Recording) -> None:
        self._out = command.stderr if command.stderr.isatty() else None
        self._readers = recorded.readers
        self._size = sum(reader.size for reader in self._readers) or 1
        self._shown_s = 0.0

    def show(self) -> None:
        if self._out is None or time.monotonic() - self._shown_s < SHOWN_S:
            return
        self._shown_s = time.monotonic()
        share = min(sum(reader.read for reader in self._readers) / self._size, 1.0)
        self._out.write(f"\r{'█' * round(share * BAR):<{BAR}} {share:4.0%}", str, ending="")
        self._out.flush()

    def clear(self) -> None:
        if self._out is not None and self._shown_s:
            self._out.write("\r" + " " * (BAR + 6) + "\r", str, ending="")


def _lives(name: str) -> dict[str, int]:
    """Return how far the configured database says that each life of a recording came."""
    try:
        with transaction.atomic(using=CONFIGURED):
            lives = read_lives(f"{name}/%", CONFIGURED)
    except Error as error:
        raise CommandError(f"the configured database cannot be read: {error}", returncode=UNUSABLE) from error
    return {life.partition("/")[2]: number for life, number in lives.items()}


def _first_difference() -> str:
    """Return where the configured database's ledger is another one; nothing where it is the same."""
    for here, there in zip_longest(fingerprint.rows(), fingerprint.rows(CONFIGURED)):
        if here != there:
            return f"the first row that differs:\n  rerun    {_shown(here)}\n  database {_shown(there)}"
    return ""


def _shown(row: fingerprint.Row | None) -> str:
    if row is None:
        return "ends here"
    name, values = row
    named = (f"{column}={value!r}" for column, value in zip(fingerprint.BY_NAME[name].columns, values, strict=True))
    return f"{name}: {' '.join(named)}"
