"""Cuts the power of a running router, in images of its disk, and prints what would have been lost."""

import argparse
import asyncio
import logging
import math
import sys

from tests.power.experiment import LOAD_S, STARTED, experiment
from tests.power.recording import DATABASES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--load", type=float, default=LOAD_S, help="seconds of load (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of looking at images, then no more of them")
    parser.add_argument("--start", type=int, default=STARTED, help="images on which a router is started")
    parser.add_argument("--careless", help="a control: PRAGMA synchronous, or an option of PostgreSQL, as fsync=off")
    given = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    found = asyncio.run(
        experiment(
            given.database, images=given.images, seed=given.seed, careless=given.careless, started=given.start,
            load_s=given.load, look_s=given.minutes * 60,
        )
    )  # fmt: skip
    print(*found.faults, found, sep="\n")
    return int(bool(found.lost or found.doubled or found.wrong or found.corrupt))


if __name__ == "__main__":
    sys.exit(main())
