"""Many histories: one seed after the other, in one process of several."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import tests.environment  # noqa: F401 - before Django reads it


@contextmanager
def database() -> Iterator[None]:
    """Set Django up, on an empty database in memory."""
    os.environ["DATABASE_URL"] = "sqlite:///:memory:"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "router_project.settings")
    import django

    django.setup()
    from django.db import connection

    connection.settings_dict["TEST"]["MIGRATE"] = False  # the tables as the models say, at once
    connection.creation.create_test_db(verbosity=0, serialize=False)
    yield
    connection.close()


@dataclass
class Tally:
    """What was run, over all processes."""

    histories: int = 0
    faulty: int = 0
    steps: int = 0
    failed: int = 0
    cpu_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def tell(self, passed_s: float) -> None:
        print(
            f"{self.histories} histories ({self.faulty} with faults) of {self.steps} steps in {passed_s:.1f} s",
            end=": ",
        )
        print(f"{self.histories / passed_s * 60:.0f} a minute, ", end="")
        print(f"{self.histories / self.cpu_s * 60:.0f} a minute of CPU, {self.failed} failed")
        for kind, times in self.faults.most_common():
            print(f"{times:>9} × {kind}")


def run_many(first: int, step: int, histories: int | None, seconds: float, failures_max: int) -> Tally:
    """Run every `step`th seed from the first on: so many, or for so long."""
    with database():
        from tests.simulation.history import run

        tally = Tally()
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        while tally.failed < failures_max and (
            tally.histories < histories if histories is not None else time.monotonic() - began_s < seconds
        ):
            result = run(first + step * tally.histories)
            tally.histories += 1
            tally.faults.update(result.faults)
            tally.faulty += bool(result.faults)
            tally.steps += result.steps
            if result.story:
                tally.failed += 1
                print(
                    f"seed {result.seed} failed: {result.story[0]}\n  python -m tests.simulation --seed {result.seed}"
                )
        tally.cpu_s = time.process_time() - began_cpu_s
        return tally
