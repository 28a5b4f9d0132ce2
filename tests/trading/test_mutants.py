"""Planted bugs (`mutants/`, `tests/planted.py`): the machine must notice each one."""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests import planted
from tests.planted import Run

PATCHES = planted.patches(Path(__file__).parent)
TESTS = "-q -p no:cacheprovider tests/trading/test_machine.py -k many_days"
DAYS = 40


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Run]]]:
    folder = tmp_path_factory.mktemp("mutants")
    environment = {"MACHINE_DAYS": str(DAYS), "HYPOTHESIS_PROFILE": "ci"}
    with planted.runs(PATCHES, folder, "pytest", *TESTS.split(), **environment) as started:
        yield started


def test_without_a_planted_bug_the_machine_passes(runs: dict[str, Future[Run]]) -> None:
    run = runs[planted.AS_IT_IS].result()
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_planted_bug_is_noticed(runs: dict[str, Future[Run]], patch: Path) -> None:
    planted.check_that_it_is_noticed(runs[patch.stem], patch)


def test_there_are_bugs_to_notice() -> None:
    assert len(PATCHES) >= 30
