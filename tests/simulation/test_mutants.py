"""Planted bugs (`mutants/` here, some of the trading's): the simulation must notice each one."""

import re
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests import planted
from tests.planted import Run

TRADING = Path(__file__).parents[1] / "trading" / "mutants"
OF_TRADING = ("hold_rounded_down", "slice_run_twice")
PATCHES = [*planted.patches(Path(__file__).parent), *(TRADING / f"{name}.patch" for name in OF_TRADING)]
HISTORIES = 150

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Future[Run]]]]:
    folder = tmp_path_factory.mktemp("mutants")
    arguments = ("--histories", str(HISTORIES), "--failures", "1", "--processes", "1")
    with planted.runs(PATCHES, folder, "tests.simulation", *arguments) as started:
        yield folder, started


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_planted_bug_is_noticed(runs: tuple[Path, dict[str, Future[Run]]], patch: Path) -> None:
    planted.check_that_it_is_noticed(runs[1][patch.stem], patch)


def test_the_seed_that_failed_shows_the_violation_again(runs: tuple[Path, dict[str, Future[Run]]]) -> None:
    folder, started = runs
    patch = PATCHES[-1]
    noticed = planted.check_that_it_is_noticed(started[patch.stem], patch).stdout
    found = re.search(r"seed (\d+) failed: (.*)", noticed)
    assert found is not None, noticed
    again = planted.run_with(patch, folder / patch.stem, "tests.simulation", "--seed", found[1])
    assert again.returncode == 1
    assert found[2] in again.stdout
    assert "the last events:" in again.stdout
