"""The socket under seeded sequences, the corpus as frames, and broken framing; on both profiles."""

import os

import pytest

from tests.fuzz.requests import PROFILES, running
from tests.fuzz.socket import Broken, Frame, Siege, check_answers, documented_codes
from tests.running import Router

SEQUENCES = int(os.environ.get("FUZZ_SEQUENCES", "30"))
FRAMES = int(os.environ.get("FUZZ_FRAMES", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))

pytestmark = pytest.mark.timeout(180 + SEQUENCES + FRAMES // 20)


def test_the_codes_are_read_from_the_documentation() -> None:
    assert {"bad_json", "unknown_symbol", "insufficient_funds", "rate_limited"} <= documented_codes()


@pytest.mark.parametrize("answers", [[], [{"id": 1}, {"id": 1}], [{"id": 2}], [{"id": 1.0}], [{"id": True}], [{}]])
def test_an_answer_that_is_missing_doubled_or_anothers_is_seen(answers: list[dict[str, object]]) -> None:
    with pytest.raises(Broken):
        check_answers([Frame("{}", 1, has_id=True)], answers)


@pytest.mark.parametrize("profile", PROFILES)
async def test_each_frame_is_answered_once_and_the_money_is_right(profile: str) -> None:
    async with running(profile) as router:
        siege = await Siege.lay(router)
        await siege.raw()
        await siege.break_frames(FRAMES, SEED)
        await siege.run(range(SEED, SEED + SEQUENCES))
        await siege.audit()
        failures = [*siege.tally.failures, *faults(router)]
        assert not failures, "\n".join(failures)
    assert siege.tally.commands >= FRAMES


def faults(router: Router) -> list[str]:
    """Return what the processes logged as wrong."""
    return [fault for process in router.processes for fault in process.faults]
