"""A bounded run of the fault suite, on both profiles: nothing is lost, doubled or wrong, and all works again soon.

`make chaos` shows how to make longer ones; `tests/chaos/faults.py` says what each fault does.
"""

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests import services
from tests.chaos.faults import FAULTS
from tests.chaos.scorecard import Scorecard
from tests.chaos.system import system
from tests.chaos.trial import RECOVERY_S, Bench, Fault, Unable, bench
from tests.deploy.conftest import require_nginx

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SEED = 1


@asynccontextmanager
async def running(profile: str, own: str, folder: Path) -> AsyncIterator[Bench]:
    """Run a router until all trials are over, then prove its rows, and run it again from its recording."""
    if profile == "production":
        for service in ("postgres", "redis"):
            services.require(service)  # servers of our own are made from the same programs
        require_nginx()
    async with system(profile, folder, seed=SEED, own=own) as router, bench(router) as made:
        yield made
        assert await made.prove_all() == ""
    assert router.rerun["problem"] == "", router.rerun


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """The router that all trials of a kind are done to; the one of the kind before has ended."""
    profile, own = request.param
    async with running(profile, own, tmp_path_factory.mktemp(profile)) as made:
        yield made


KINDS = [(profile, own) for profile in ("embedded", "production") for own in ("", "clock")]
TRIALS = [
    pytest.param(kind, fault, id=f"{kind[0]}: {fault.name}")
    for kind in KINDS
    for fault in FAULTS
    if kind[0] in fault.profiles and kind[1] == fault.own
]


@pytest.mark.parametrize(("made", "fault"), TRIALS, indirect=["made"])
async def test_nothing_is_lost(made: Bench, fault: Fault, scorecard: Scorecard) -> None:
    for trial in range(fault.ci):
        try:
            result = await made.trial(fault, seed=SEED * 1000 + zlib.crc32(fault.name.encode()) % 1000 + trial)
        except Unable as reason:
            if services.REQUIRED:
                raise
            pytest.skip(str(reason))
        scorecard.add(result)
        assert result.answered > 0, "there was no load"
        assert not result.findings.texts, (result.seed, result.findings.texts, *made.system.tails())
        assert result.recovery_s is not None, result.road
        assert result.recovery_s < RECOVERY_S, (result.seed, result.road, *made.system.tails())
