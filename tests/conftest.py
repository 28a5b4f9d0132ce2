"""Fixtures shared by every test."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import services

# In CI the examples are the same in every run: a failure is the change's, and can be run again.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("here", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "here"))

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = Path(os.environ.get("ROUTER_CAPTURES", ROOT.parent / "shared" / "captures"))

NO_CAPTURES = "the recorded venue sessions are not here"

Frames = Callable[[str], Iterator[dict[str, Any]]]


@pytest.fixture(scope="session")
def captures() -> Frames:
    """Return a reader of recorded sessions: file stem → its inbound frames, as {"t", "raw", …}."""
    if not CAPTURES.is_dir():
        pytest.skip(f"{NO_CAPTURES} ({CAPTURES}); set ROUTER_CAPTURES")

    def frames(stem: str) -> Iterator[dict[str, Any]]:
        with gzip.open(CAPTURES / f"{stem}.jsonl.gz", "rt") as lines:
            for line in lines:
                record = json.loads(line)
                if record["dir"] == "in" and "url" not in record:
                    yield record

    return frames


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "postgres: only PostgreSQL can do what is tested")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, on SQLite, what only PostgreSQL can do."""
    if os.environ.get("TEST_DATABASE") != "postgres":
        left_out = [item for item in items if item.get_closest_marker("postgres")]
        items[:] = [item for item in items if not item.get_closest_marker("postgres")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where the services are required a skipped test is a failure, unless it wanted the recorded sessions."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if services.REQUIRED and reporter is not None:
        skipped = [str(report.longrepr) for report in reporter.stats.get("skipped", ())]
        if any(NO_CAPTURES not in reason for reason in skipped):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
