"""Bugs that are planted on purpose: something that should notice them runs on a copy of the code with one of them.

A bug is a patch that breaks one promise; its first line says which. Where a patch no longer applies, the code
that it breaks has changed: plant the bug anew.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "core",
    "trading",
    "accounts",
    "marketdata",
    "gateway",
    "router_project",
    "tests",
    "manage.py",
    "pyproject.toml",
)
AT_ONCE = 2
RUN_S = 250
AS_IT_IS = "as_it_is"

Run = subprocess.CompletedProcess[str]


def patches(folder: Path) -> list[Path]:
    return sorted((folder / "mutants").glob("*.patch"))


def run_with(patch: Path | None, folder: Path, module: str, *arguments: str, **environment: str) -> Run:
    """Run a module on a copy of the code, with a bug planted or as it is."""
    if not folder.exists():
        folder.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.sqlite3*", "captures"))
            else:
                shutil.copy2(ROOT / name, folder / name)
        if patch is not None:
            subprocess.run(["git", "apply", "-C1", str(patch)], cwd=folder, check=True, capture_output=True, text=True)
    inherited = {key: value for key, value in os.environ.items() if key != "TEST_DATABASE"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder, env=inherited | environment, capture_output=True, text=True, timeout=RUN_S,
    )  # fmt: skip


@contextmanager
def runs(
    planted: Sequence[Path], folder: Path, module: str, *arguments: str, **environment: str
) -> Iterator[dict[str, Future[Run]]]:
    """Run a module with each bug, and without any (`AS_IT_IS`), a few at a time: wait for what you want."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(run_with, patch, folder / name, module, *arguments, **environment)
            for name, patch in [(AS_IT_IS, None), *[(patch.stem, patch) for patch in planted]]
        }
        pool.shutdown(cancel_futures=True)


def check_that_it_is_noticed(run: Future[Run], patch: Path) -> Run:
    """Return a run that failed as it should: with 1. Other exit codes say that it could not run."""
    try:
        done = run.result()
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{patch.name} no longer applies: plant the bug anew\n{error.stderr}")
    story = patch.read_text().splitlines()[0]
    assert done.returncode == 1, f"nobody noticed: {story}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done
