"""Breaks a running router in every way of the list, again and again, and prints what it lost.

`python -m tests.chaos --trials 3` does each fault three times on both profiles; `--minutes 120`
goes round and round for so long; `--only killed` picks faults by their names. It ends
with 1 unless nothing was lost, doubled or wrong and every recovery took less than five seconds.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

import tests.environment  # noqa: F401 - the router's processes inherit it
from tests.chaos.faults import FAULTS
from tests.chaos.scorecard import Scorecard
from tests.chaos.system import system
from tests.chaos.trial import Fault, Unable, bench

TRIALS_A_SYSTEM = 40  # then a new router on a new database
PROFILES = ("embedded", "production")
WIDTH = 150  # where no terminal says another
console = Console(width=None if sys.stdout.isatty() else WIDTH)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1, help="of each fault")
    parser.add_argument("--minutes", type=float, help="go round for so long instead")
    parser.add_argument("--profile", choices=PROFILES, action="append", help="default: both")
    parser.add_argument("--only", default="", help="a regular expression of the faults' names")
    parser.add_argument("--logs", action="store_true", help="show the router's log of trials that found something")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the scorecard there, as JSON and, beside it, as Markdown")
    arguments = parser.parse_args()
    card = Scorecard()
    with contextlib.suppress(KeyboardInterrupt):  # whoever has seen enough still gets the scorecard
        asyncio.run(_run(arguments, card))
    console.print(card.table())
    for problem in card.wrong:
        console.print(problem, style="red", markup=False)
    if arguments.output:
        arguments.output.write_text(json.dumps(card.rows(), indent=1))
        arguments.output.with_suffix(".md").write_text(card.markdown())
    return 0 if card.clean else 1


async def _run(arguments: argparse.Namespace, card: Scorecard) -> None:
    until_s = time.monotonic() + arguments.minutes * 60 if arguments.minutes else None
    profiles = arguments.profile or PROFILES
    rounds = itertools.count() if until_s else range(arguments.trials)
    for number in rounds:
        for profile in profiles:
            for own in ("", "clock"):
                faults = [
                    fault
                    for fault in FAULTS
                    if fault.own == own and profile in fault.profiles and re.search(arguments.only, fault.name)
                ]
                for part in _parts(faults):
                    try:
                        await _with_a_system(card, profile, own, part, arguments.seed + number, until_s, arguments.logs)
                    except Exception:
                        card.note(profile, traceback.format_exc())
                        console.print_exception()
        if until_s and time.monotonic() > until_s:
            break


def _parts(faults: list[Fault]) -> Iterator[list[Fault]]:
    for start in range(0, len(faults), TRIALS_A_SYSTEM):
        yield faults[start : start + TRIALS_A_SYSTEM]


async def _with_a_system(
    card: Scorecard, profile: str, own: str, faults: list[Fault], seed: int, until_s: float | None, logs: bool
) -> None:
    if until_s and time.monotonic() > until_s:
        return
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        async with system(profile, Path(folder), seed=seed, own=own) as router, bench(router) as made:
            for fault in faults:
                if until_s and time.monotonic() > until_s:
                    break
                try:
                    result = await made.trial(fault, seed=seed * 1000 + zlib.crc32(fault.name.encode()) % 1000)
                except Unable as reason:
                    console.print(f"{profile}: {fault.name}: left out: {reason}")
                    continue
                card.add(result)
                console.print(card.line(result), highlight=False)
                for text in (*result.findings.texts, *(() if result.clean else result.road)):
                    console.print(f"    {text}", highlight=False, style="red")
                if not result.clean and logs:
                    console.print("\n".join(router.tails()), highlight=False, markup=False)
            card.note(profile, await made.prove_all())
    again = router.rerun
    console.print(
        f"{profile}: {again['transactions']} transactions run again from the recording: ledger"
        f" {again['ledger_hash'][:16]}…; {again['told']} prices were shown, told by {again['frames']} frames",
        highlight=False,
    )
    card.note(profile, "\n".join((again["problem"], *again["unexplained"])) if again["problem"] else "")


if __name__ == "__main__":
    sys.exit(main())
