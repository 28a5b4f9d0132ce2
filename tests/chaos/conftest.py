"""Prints the scorecard of the trials that were run, after the tests."""

from typing import Any

import pytest
from rich.console import Console

from tests.chaos.scorecard import Scorecard

WIDTH = 150
_KEY = pytest.StashKey[Scorecard]()


@pytest.fixture(scope="session")
def scorecard(request: pytest.FixtureRequest) -> Scorecard:
    card = Scorecard()
    request.config.stash[_KEY] = card
    return card


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    card = config.stash.get(_KEY, None)
    if card is not None and card.results:
        console = Console(width=WIDTH)
        with console.capture() as shown:
            console.print(card.table())
        terminalreporter.write(shown.get())
