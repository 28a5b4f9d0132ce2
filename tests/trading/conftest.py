"""Fixtures of the trading tests."""

from collections.abc import Iterator

import pytest

from marketdata import hub
from tests.trading.desk import Desk
from tests.trading.web import Person, served_by


@pytest.fixture(autouse=True)
def feeds_that_need_not_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds of these tests speak when a test lets them: on a busy machine that may take a while."""
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 600.0)
    monkeypatch.setattr(hub, "LATE_S", 600.0)


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
