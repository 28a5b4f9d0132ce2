"""Fixtures shared by every test."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# In CI the examples are the same in every run: a failure is the change's, and can be run again.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("here", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "here"))

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = Path(os.environ.get("ROUTER_CAPTURES", ROOT.parent / "shared" / "captures"))

Frames = Callable[[str], Iterator[dict[str, Any]]]


@pytest.fixture(scope="session")
def captures() -> Frames:
    """Return a reader of recorded sessions: file stem → its inbound frames, as {"t", "raw", …}."""
    if not CAPTURES.is_dir():
        pytest.skip(f"the recorded venue sessions are not here ({CAPTURES}); set ROUTER_CAPTURES")

    def frames(stem: str) -> Iterator[dict[str, Any]]:
        with gzip.open(CAPTURES / f"{stem}.jsonl.gz", "rt") as lines:
            for line in lines:
                record = json.loads(line)
                if record["dir"] == "in" and "url" not in record:
                    yield record

    return frames
