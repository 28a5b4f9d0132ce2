"""A short run of `tests/power/experiment.py`, which says what it does and how to make longer ones."""

import pytest

from tests import services
from tests.chaos.services import POSTGRES
from tests.deploy.conftest import require_nginx
from tests.power import strace
from tests.power.experiment import Score, experiment

TOLD_MIN = 20

pytestmark = pytest.mark.timeout(240)


def assert_nothing_was_lost(score: Score, images: int) -> None:
    print(score)
    assert (score.lost, score.doubled, score.wrong, score.corrupt) == (0, 0, 0, 0), "\n".join(
        [str(score), *score.faults]
    )
    assert score.trials == images
    assert score.told > TOLD_MIN, "there was hardly any load"
    assert score.syncs > TOLD_MIN, "there was hardly any load"


def require_postgres() -> None:
    if not any(POSTGRES.glob("*/bin/initdb")):
        if services.REQUIRED:
            pytest.fail("PostgreSQL's programs are not installed")
        pytest.skip("PostgreSQL's programs are not installed (apt-get install postgresql)")


async def test_the_embedded_router_loses_nothing_when_the_power_goes() -> None:
    strace.require()
    assert_nothing_was_lost(await experiment("sqlite", images=100, seed=5, started=2, load_s=3), 100)


async def test_the_production_profile_loses_nothing_when_the_power_goes() -> None:
    strace.require()
    services.require("redis")
    require_nginx()
    require_postgres()
    assert_nothing_was_lost(await experiment("postgres", images=6, seed=6, started=1, load_s=3), 6)


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_a_sqlite_that_does_not_wait_for_the_disk_is_found_out(synchronous: str) -> None:
    strace.require()
    score = await experiment("sqlite", images=30, seed=7, careless=synchronous, load_s=1)
    assert score.lost > 0, score
