"""Run histories from the command line: one seed, or as many as there is time for.

    python -m tests.simulation --seed 7
    python -m tests.simulation --minutes 10 --first 1000

Returns 1 when an invariant was violated; what is printed names the seed.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.many import Tally, database, run_many

FAILURES = 5


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this history, and tell its hash")
    parser.add_argument("--minutes", type=float, default=0, help="run one seed after the other for so long")
    parser.add_argument("--histories", type=int, help="run so many seeds")
    parser.add_argument("--failures", type=int, default=FAILURES, help="stop after so many that failed")
    parser.add_argument("--first", type=int, default=1, help="the seed to start from")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="side by side (default: one a core)")
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        with database():
            return run_one(chosen.seed)
    share = None if chosen.histories is None else -(-chosen.histories // chosen.processes)
    began_s = time.monotonic()
    with ProcessPoolExecutor(chosen.processes, mp_context=get_context("spawn")) as pool:
        running = [
            pool.submit(run_many, chosen.first + number, chosen.processes, share, 60 * chosen.minutes, chosen.failures)
            for number in range(chosen.processes)
        ]
        tally = sum((one.result() for one in running), Tally())
    tally.tell(time.monotonic() - began_s)
    return 1 if tally.failed else 0


def run_one(seed: int) -> int:
    from tests.simulation.history import run

    result = run(seed)
    print(f"seed {seed}: {result.steps} steps, {result.faults.total()} faults, hash {result.digest}")
    for line in result.story:
        print(f"  {line}")
    return 1 if result.story else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
