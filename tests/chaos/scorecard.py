"""Fault × trials × lost × doubled × wrong × recovery time, for people and for machines."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from tests.chaos.trial import RECOVERY_S, Result

COLUMNS = ("fault", "profile", "trials", "answered", "unanswered", "lost", "doubled", "wrong", "recovery", "worst")


@dataclass
class Scorecard:
    results: list[Result] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # of no trial alone

    def add(self, result: Result) -> None:
        self.results.append(result)

    def note(self, profile: str, problem: str) -> None:
        """Take in what is wrong with a router's whole life, if anything is."""
        if problem:
            self.wrong.append(f"{profile}: {problem}")

    @property
    def clean(self) -> bool:
        return bool(self.results) and not self.wrong and all(result.clean for result in self.results)

    def line(self, result: Result) -> str:
        """Say in a line how a trial went."""
        recovery = "never" if result.recovery_s is None else f"{result.recovery_s:.1f} s"
        mark = "✓" if result.clean else "✗"
        return (
            f"{mark} {result.profile}: {result.fault}: {result.answered} answered, {result.unanswered} not; works again"
            f" after {recovery}; {result.seconds:.1f} s (seed {result.seed})"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a fault and profile, and one of all; times in seconds."""
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in self.results:
            groups.setdefault((result.fault, result.profile), []).append(result)
        rows = [_row(fault, profile, results) for (fault, profile), results in groups.items()]
        return [*rows, _row("all", "both", self.results)] if self.results else []

    def table(self) -> Table:
        table = Table(*COLUMNS, title="What was broken, and what was lost")
        for row in self.rows():
            bad = row["lost"] or row["doubled"] or row["wrong"] or row["worst"] is None or row["worst"] >= RECOVERY_S
            table.add_row(*(_text(row[name]) for name in COLUMNS), style="red" if bad else None)
        return table

    def markdown(self) -> str:
        lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [f"| {' | '.join(_text(row[name]) for name in COLUMNS)} |" for row in self.rows()]
        return "\n".join(lines) + "\n"


def _row(fault: str, profile: str, results: list[Result]) -> dict[str, Any]:
    recoveries = [result.recovery_s for result in results if result.recovery_s is not None]
    whole = len(recoveries) == len(results)
    return {
        "fault": fault,
        "profile": profile,
        "trials": len(results),
        "answered": sum(result.answered for result in results),
        "unanswered": sum(result.unanswered for result in results),
        **{kind: sum(result.findings.counts[kind] for result in results) for kind in ("lost", "doubled", "wrong")},
        "recovery": statistics.median(recoveries) if recoveries else None,
        "worst": max(recoveries) if whole and recoveries else None,
    }


def _text(value: Any) -> str:
    if value is None:
        return "never"
    return f"{value:.1f} s" if isinstance(value, float) else str(value)
