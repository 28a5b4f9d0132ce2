"""Whatever happens, in any order, the books are right: two drivers of the same days (`days.py`).

Hypothesis looks for a day that fails and makes it small; plain seeds see more different days in
the same time. MACHINE_EXAMPLES, MACHINE_DAYS, MACHINE_STEPS and MACHINE_SEED make longer and
other runs.
"""

import os
from random import Random

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.trading.days import Day, clear

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "40"))
DAYS = int(os.environ.get("MACHINE_DAYS", "40"))
STEPS = int(os.environ.get("MACHINE_STEPS", "40"))
SEED = int(os.environ.get("MACHINE_SEED", "0"))

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(0)]  # as long as they are asked to run

DICE = st.randoms(use_true_random=False)


class Trading(RuleBasedStateMachine):
    """One day a run; each step throws its own dice."""

    @initialize(dice=DICE)
    def open(self, dice: Random) -> None:
        self.day = Day(dice)
        self.day.open()

    @rule(dice=DICE)
    def move(self, dice: Random) -> None:
        said = len(self.day.log)
        self.day.dice = dice
        try:
            dice.choice(self.day.moves())()
        finally:
            for line in self.day.log[said:]:
                note(str(line))

    @invariant()
    def the_books_are_right(self) -> None:
        self.day.check()

    def teardown(self) -> None:
        clear()


def test_no_day_can_be_found_that_leaves_the_books_wrong() -> None:
    run_state_machine_as_test(
        Trading,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_books_are_right_after_every_step_of_many_days() -> None:
    for seed in range(SEED, SEED + DAYS):
        day = Day(Random(seed))
        try:
            day.open()
            for _ in range(STEPS):
                day.dice.choice(day.moves())()
                day.check()
        except Exception as error:
            raise AssertionError("\n".join([f"MACHINE_SEED={seed}", *map(str, day.log[-30:]), repr(error)])) from error
    clear()
