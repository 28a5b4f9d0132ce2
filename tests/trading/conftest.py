"""Fixtures of the trading tests."""

from collections.abc import Iterator

import pytest

from tests.trading.desk import Desk
from tests.trading.web import Person, served_by


@pytest.fixture
def desk(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """An exchange that the routes of this process use."""
    desk = Desk()
    with served_by(desk, monkeypatch):
        yield desk


@pytest.fixture
def alice(desk: Desk) -> Person:
    """A user with 100 000 USDT."""
    alice = Person("alice")
    alice.deposit("USDT", 100_000)
    return alice
