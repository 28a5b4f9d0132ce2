"""Nothing is violated in some seconds of histories; a seed is its history. SIMULATION_SECONDS and SIMULATION_FIRST
make longer and other runs; `python -m tests.simulation` does without the tests' frame.
"""

import os
import subprocess
import sys
import time

import pytest

from tests.planted import ROOT
from tests.simulation.history import run

SECONDS = float(os.environ.get("SIMULATION_SECONDS", "12"))
FIRST = int(os.environ.get("SIMULATION_FIRST", "1"))
SEED = 5

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(SECONDS + 240)]


def test_nothing_is_violated_whatever_goes_wrong() -> None:
    until_s, seed, faults = time.monotonic() + SECONDS, FIRST, 0
    while time.monotonic() < until_s:
        result = run(seed)
        assert not result.story, "\n".join((f"python -m tests.simulation --seed {seed}", *result.story))
        faults += result.faults.total()
        seed += 1
    assert faults > seed - FIRST, "hardly anything went wrong"


def test_a_seed_is_the_same_history_again_and_in_another_process() -> None:
    here = run(SEED)
    assert run(SEED) == here
    assert run(SEED + 1).digest != here.digest
    for hashes in ("1", "2"):  # the order of sets decides nothing
        there = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", str(SEED)],
            cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hashes}, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert there.returncode == 0, there.stdout + there.stderr
        assert here.digest in there.stdout
