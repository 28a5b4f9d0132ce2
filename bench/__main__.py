"""Runs the benches and prints one table: `python -m bench [--quick] [names…]`."""

import argparse
import importlib
import sys

from bench import report

BENCHES = (
    "feeds",
    "delivery",
    "latency",
    "embedded",
    "matching",
    "orders",
    "recording",
    "reaction",
    "sockets",
    "scale",
)
ON_REQUEST = ("soak",)  # too long to run with the others


def main() -> int:
    """Run what is asked for; return 1 when something that has a target missed it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    known = (*BENCHES, *ON_REQUEST)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(known)}; default all but soak")
    parser.add_argument(
        "--quick", action="store_true", help="short runs, to see that everything works; targets do not count"
    )
    parser.add_argument("--minutes", type=float, help="how long to soak; default an hour")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(known)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    run = report.context(quick=arguments.quick)
    rows: list[report.Row] = []
    for name in arguments.names or BENCHES:
        more = {"minutes": arguments.minutes} if name in ON_REQUEST else {}
        for row in importlib.import_module(f"bench.{name}").run(quick=arguments.quick, **more):
            rows.append(row)
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(report.heading(run))
    print(report.table(rows))
    print(f"\nkept as {report.save(run, rows).name} in bench/results")
    return int(not arguments.quick and any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
