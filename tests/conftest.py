"""Fixtures shared by every test."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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
