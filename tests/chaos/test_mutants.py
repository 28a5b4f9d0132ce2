"""Planted bugs (`mutants/`): the fault suite must find each of them, in one kill of the embedded router."""

import re
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests import planted
from tests.planted import Run

PATCHES = planted.patches(Path(__file__).parent)
SAID = re.compile(r"^ +(lost|doubled|wrong): ", re.MULTILINE)  # not only that it took long

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Run]]]:
    folder = tmp_path_factory.mktemp("mutants")
    with planted.runs(PATCHES, folder, "tests.chaos", "--profile", "embedded", "--only", "router killed") as started:
        yield started


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_planted_bug_is_found(runs: dict[str, Future[Run]], patch: Path) -> None:
    done = planted.check_that_it_is_noticed(runs[patch.stem], patch)
    assert SAID.search(done.stdout), done.stdout
