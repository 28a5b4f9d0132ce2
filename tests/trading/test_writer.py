"""The writer's connection: kept while it works, replaced when it does not."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import connection
from django.db.backends.signals import connection_created

from trading import writer
from trading.writer import Writer, wait

pytestmark = pytest.mark.django_db(transaction=True)
ANSWER_S = 10.0


def run(commands: Sequence[str]) -> tuple[list[Any], Callable[[], None]]:
    """Run statements and give what each returns."""
    results = []
    with connection.cursor() as cursor:
        for statement in commands:
            cursor.execute(statement)
            results.append(cursor.fetchone())
    return results, lambda: None


@pytest.fixture
def opened() -> Any:
    """The threads that opened a connection, each as often as it did."""
    threads: list[str] = []

    def note(**_: Any) -> None:
        threads.append(threading.current_thread().name)

    connection_created.connect(note)
    yield threads
    connection_created.disconnect(note)


def test_the_connection_is_kept_from_batch_to_batch(opened: list[str]) -> None:
    statements: Writer[str] = Writer(run, name="kept")
    for _ in range(3):
        assert wait(statements.submit("SELECT 1"), ANSWER_S) == (1,)
    statements.stop()
    assert opened.count("kept") == 1
    assert statements.batches == 3


@pytest.mark.postgres
def test_a_connection_lost_while_nothing_was_written_is_replaced_unnoticed(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TRUSTED_S", 0.0)
    statements: Writer[str] = Writer(run, name="lost")
    (pid,) = wait(statements.submit("SELECT pg_backend_pid()"), ANSWER_S)
    run([f"SELECT pg_terminate_backend({pid}, 5000)"])
    assert wait(statements.submit("SELECT 1"), ANSWER_S) == (1,)
    statements.stop()
    assert opened.count("lost") == 2


def test_commands_in_company_wait_for_each_other_and_a_lone_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GATHER_S", 0.3)
    taken: list[list[str]] = []
    go_on = threading.Event()

    def keep(commands: Sequence[str]) -> tuple[list[Any], Callable[[], None]]:
        taken.append(list(commands))
        go_on.wait(ANSWER_S)
        return list(commands), lambda: None

    gathering: Writer[str] = Writer(keep, name="gathering")
    first = [gathering.submit(name) for name in ("alone", "second", "third")]
    go_on.set()
    assert [wait(each, ANSWER_S) for each in first] == ["alone", "second", "third"]
    later = [gathering.submit(name) for name in ("fourth", "fifth")]
    assert [wait(each, ANSWER_S) for each in later] == ["fourth", "fifth"]
    gathering.stop()
    assert taken[-1] == ["fourth", "fifth"]
    assert sum(map(len, taken)) == 5
