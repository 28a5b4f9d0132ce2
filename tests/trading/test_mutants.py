"""Planted bugs: the machine must notice each one.

Every patch in `mutants/` breaks one promise; its first line says which. It is applied to a copy
of the code, and the state machine runs there. Where a patch no longer applies, the code that it
breaks has changed: plant the bug anew.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATCHES = sorted((Path(__file__).parent / "mutants").glob("*.patch"))
COPIED = ("core", "trading", "accounts", "marketdata", "gateway", "router_project", "tests", "pyproject.toml")
TESTS = "tests/trading/test_machine.py -k many_days"
DAYS = 40
AT_ONCE = 2
RUN_S = 100
FAILED, PASSED = 1, 0  # pytest's exit codes: others say that it could not run

Run = subprocess.CompletedProcess[str]


def run_with(patch: Path | None, folder: Path) -> Run:
    """Run the machine on a copy of the code, with a bug planted or as it is."""
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.sqlite3*", "captures"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    if patch is not None:
        subprocess.run(["git", "apply", "-C1", str(patch)], cwd=folder, check=True, capture_output=True, text=True)
    environment = {key: value for key, value in os.environ.items() if key != "TEST_DATABASE"}
    environment |= {"MACHINE_DAYS": str(DAYS), "HYPOTHESIS_PROFILE": "ci"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS.split()],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_S,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Run]]]:
    """Start all runs, a few at a time; each test waits for its own."""
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(run_with, patch, folder / name)
            for name, patch in [("as_it_is", None), *[(patch.stem, patch) for patch in PATCHES]]
        }
        pool.shutdown(cancel_futures=True)


def test_without_a_planted_bug_the_machine_passes(runs: dict[str, Future[Run]]) -> None:
    run = runs["as_it_is"].result()
    assert run.returncode == PASSED, run.stdout + run.stderr


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_planted_bug_is_noticed(runs: dict[str, Future[Run]], patch: Path) -> None:
    try:
        run = runs[patch.stem].result()
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{patch.name} no longer applies: plant the bug anew\n{error.stderr}")
    story = patch.read_text().splitlines()[0]
    assert run.returncode == FAILED, f"nobody noticed: {story}\n{run.stdout[-2000:]}{run.stderr[-2000:]}"


def test_there_are_bugs_to_notice() -> None:
    assert len(PATCHES) >= 30
