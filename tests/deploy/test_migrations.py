"""Every migration can run while the release before it still serves: docs/upgrades.md says what that allows."""

from collections.abc import Iterator

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import models
from django.db.migrations import AddField, Migration, operations
from django.db.migrations.loader import MigrationLoader
from django.db.models import NOT_PROVIDED

OURS = ("accounts", "marketdata", "trading")
ADDS_ONLY = (
    operations.CreateModel,
    operations.AddIndex,
    operations.AlterModelOptions,
    operations.AlterModelManagers,
    operations.RunPython,
    AddIndexConcurrently,
)
WITH_A_STOP: dict[tuple[str, str], str] = {}  # migration → why it needs that everything is stopped


def problems(migration: Migration) -> Iterator[str]:
    """Yield what the release before would stumble over."""
    made = {op.name_lower for op in migration.operations if isinstance(op, operations.CreateModel)}
    for op in migration.operations:
        if getattr(op, "model_name_lower", None) in made:
            continue  # of a table that only the new release knows
        if isinstance(op, AddField):
            field = op.field
            if not (field.null or field.db_default is not NOT_PROVIDED or field.many_to_many):
                yield f"{op.describe()}: the old release does not give it; make it null or give it a db_default"
        elif not isinstance(op, ADDS_ONLY):
            yield f"{op.describe()}: the old release may still need what it changes"


def ours() -> list[Migration]:
    loader = MigrationLoader(None)
    return [migration for (app, _), migration in sorted(loader.disk_migrations.items()) if app in OURS]


@pytest.mark.parametrize("migration", ours(), ids=str)
def test_a_migration_only_adds(migration: Migration) -> None:
    found = list(problems(migration))
    if (migration.app_label, migration.name) in WITH_A_STOP:
        assert found, "it needs no stop: take it off the list"
        return
    assert found == []


def test_the_list_names_migrations_that_there_are() -> None:
    assert set(WITH_A_STOP) <= {(migration.app_label, migration.name) for migration in ours()}


@pytest.mark.parametrize(
    ("operation", "fits"),
    [
        (AddField("order", "note", models.TextField(null=True)), True),
        (AddField("order", "note", models.TextField(db_default="")), True),
        (AddField("order", "note", models.TextField(default="")), False),
        (operations.RemoveField("order", "price"), False),
        (operations.RenameField("order", "price", "limit"), False),
        (operations.AlterField("order", "price", models.TextField()), False),
        (operations.DeleteModel("order"), False),
        (operations.RenameModel("order", "trade"), False),
        (operations.AddConstraint("order", models.UniqueConstraint(fields=("price",), name="one")), False),
        (operations.RunSQL("ALTER TABLE trading_order DROP COLUMN price"), False),
        (operations.CreateModel("note", [("id", models.BigAutoField(primary_key=True))]), True),
    ],
    ids=lambda value: value.describe() if not isinstance(value, bool) else "",
)
def test_what_breaks_the_release_before_is_found(operation: operations.base.Operation, fits: bool) -> None:
    migration = type("Migration", (Migration,), {"operations": [operation]})("planted", "trading")
    assert (list(problems(migration)) == []) == fits
