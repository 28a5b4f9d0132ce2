"""Run histories from the command line: one seed, or as many as there is time for.

    python -m tests.simulation --seed 7
    python -m tests.simulation --minutes 10 --first 1000

Returns 1 when an invariant was violated; what is printed names the seed.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tests.environment  # noqa: F401 - before Django reads it

FAILURES = 5


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


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this history, and tell its hash")
    parser.add_argument("--minutes", type=float, help="run one seed after the other for so long")
    parser.add_argument("--histories", type=int, help="run so many seeds")
    parser.add_argument("--failures", type=int, default=FAILURES, help="stop after so many that failed")
    parser.add_argument("--first", type=int, default=1, help="the seed to start from")
    chosen = parser.parse_args(arguments)
    with database():
        if chosen.seed is not None:
            return run_one(chosen.seed)
        return run_many(
            chosen.first,
            histories=chosen.histories,
            seconds=60 * (chosen.minutes or 0),
            failures_max=chosen.failures,
        )


def run_one(seed: int) -> int:
    from tests.simulation.history import run

    result = run(seed)
    print(f"seed {seed}: {result.steps} steps, {result.faults.total()} faults, hash {result.digest}")
    for line in result.story:
        print(f"  {line}")
    return 1 if result.story else 0


def run_many(first: int, *, histories: int | None, seconds: float, failures_max: int) -> int:
    """Run one seed after the other: so many, or for so long."""
    from tests.simulation.history import run

    faults: Counter[str] = Counter()
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    seed, faulty, steps, failed = first, 0, 0, 0
    while failed < failures_max and (
        seed - first < histories if histories is not None else time.monotonic() - began_s < seconds
    ):
        result = run(seed)
        seed += 1
        faults.update(result.faults)
        faulty += bool(result.faults)
        steps += result.steps
        if result.story:
            failed += 1
            print(f"seed {result.seed} failed: {result.story[0]}\n  python -m tests.simulation --seed {result.seed}")
    passed_s, cpu_s, count = time.monotonic() - began_s, time.process_time() - began_cpu_s, seed - first
    print(f"{count} histories ({faulty} with faults) of {steps} steps in {passed_s:.1f} s", end=": ")
    print(f"{count / passed_s * 60:.0f} a minute, {count / cpu_s * 60:.0f} a minute of CPU, {failed} failed")
    for kind, times in faults.most_common():
        print(f"{times:>9} × {kind}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
