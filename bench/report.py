"""Rows of a run, printed as a plain table and kept as JSON."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, structs

RESULTS = Path(__file__).parent / "results"
HEADINGS = ("measured", "value", "target", "", "note")


class Row(Struct, frozen=True):
    """One line of the table. `met` is None where there is no target or nothing was measured."""

    group: str
    what: str
    value: float | None
    unit: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""


class Context(Struct, frozen=True):
    """Where a run took place: absolute figures mean something only beside it."""

    machine: str
    cores: int
    load: float  # of the machine before the run, one minute's average
    python: str
    commit: str
    started_at: str
    quick: bool


def at_most(group: str, what: str, value: float, unit: str, limit: float, *, note: str = "") -> Row:
    """Return a row whose value must not exceed a limit."""
    return Row(group, what, value, unit, f"≤ {_figure(limit)}{_joined(unit)}", value <= limit, note)


def at_least(group: str, what: str, value: float, unit: str, limit: float, *, note: str = "") -> Row:
    return Row(group, what, value, unit, f"≥ {_figure(limit)}{_joined(unit)}", value >= limit, note)


def skipped(group: str, why: str) -> Row:
    return Row(group, "skipped", None, note=why)


def failed(group: str, what: str, error: Exception) -> Row:
    """Return the row of a measurement that did not come about; what the error says goes to stderr too."""
    print(f"\n{what}: {error}", file=sys.stderr)
    return Row(group, what, None, met=False, note=str(error).partition("\n")[0])


def context(*, quick: bool) -> Context:
    return Context(
        machine=f"{_processor()}, {platform.system()} {platform.release()}",
        cores=os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        commit=_commit(),
        started_at=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        quick=quick,
    )


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out in columns, a blank line between groups."""
    cells = [(HEADINGS, "")] + [(_cells(row), row.group) for row in rows]
    widths = [max(len(line[column]) for line, _ in cells) for column in range(len(HEADINGS) - 1)]
    lines: list[str] = []
    group = ""
    for line, its_group in cells:
        if its_group != group:
            group = its_group
            lines.extend(("", group.upper()))
        what, value, target, mark, note = line
        text = f"  {what:<{widths[0]}}  {value:>{widths[1]}}  {target:<{widths[2]}}  {mark:<{widths[3]}}  {note}"
        lines.append(text.rstrip())
    return "\n".join(lines)


def save(run: Context, rows: Sequence[Row]) -> Path:
    """Write the run as JSON and return where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{run.commit}.json"
    content = {**structs.asdict(run), "rows": [structs.asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def heading(run: Context) -> str:
    short = " (quick: too short to compare)" if run.quick else ""
    return (
        f"commit {run.commit}, {run.started_at}{short}\n"
        f"{run.machine}, {run.cores} cores, load {run.load} before the run, Python {run.python}"
    )


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    value = "–" if row.value is None else f"{_figure(row.value)}{_joined(row.unit)}"
    mark = "" if row.met is None else "✓" if row.met else "✗"
    return (row.what, value, row.target, mark, row.note)


def _joined(unit: str) -> str:
    return f" {unit}" if unit else ""


def _figure(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parent,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()
