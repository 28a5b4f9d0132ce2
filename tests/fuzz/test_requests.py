"""The hostile corpus against every address, on both profiles at once: one keeps one core busy.

FUZZ_BODIES, FUZZ_REST and FUZZ_SEED make longer and other runs; `python -m tests.fuzz.requests` goes on from there.
"""

import asyncio
import os
from collections import Counter

import pytest

from tests.fuzz import corpus
from tests.fuzz.requests import PROFILES, Answer, Request, Tally, attack, brief, complaint, operations, running
from tests.fuzz.test_sockets import faults

BODIES = int(os.environ.get("FUZZ_BODIES", "150"))  # of each address, in each profile
SEED = int(os.environ.get("FUZZ_SEED", "1"))
JSON_TYPE = {"content-type": "application/json"}
ERROR = b'{"detail": "no", "message": "no", "code": "no"}'
REQUESTS_MIN = 10_000  # of both together
BODIES_MIN = 300

pytestmark = pytest.mark.timeout(600)


def test_the_corpus_is_large_and_each_piece_has_its_name() -> None:
    for valid in ({}, {"amount": 1}, corpus.ORDER):
        bodies = corpus.bodies(valid)
        assert len(bodies) >= BODIES_MIN
        assert len({body[1:] for body in bodies}) == len(bodies)
        assert max(Counter(body.name for body in bodies).values()) == 1


@pytest.mark.parametrize(
    ("status", "headers", "body", "took_s", "why"),
    [
        (500, JSON_TYPE, ERROR, 0.1, "500"),
        (503, {**JSON_TYPE, "retry-after": "1"}, ERROR, 0.1, "503"),
        (422, JSON_TYPE, ERROR, 2.1, "took"),
        (404, {"content-type": "text/html"}, b"<h1>Not Found</h1>", 0.1, "not JSON"),
        (404, JSON_TYPE, b'{"detail": "no"}', 0.1, "contract"),
        (200, JSON_TYPE, b'{"price": NaN}', 0.1, "not JSON"),
        (401, JSON_TYPE, ERROR, 0.1, "WWW-Authenticate"),
        (422, JSON_TYPE, ERROR, 0.1, None),
    ],
)
def test_what_is_wrong_with_an_answer_is_seen(
    status: int, headers: dict[str, str], body: bytes, took_s: float, why: str | None
) -> None:
    found = complaint(Request("any", "GET", "/orders"), Answer(status, headers, body), took_s)
    assert found is None if why is None else why in (found or "")


async def test_nothing_hostile_is_answered_by_a_fault_or_moves_anything() -> None:
    tallies = await asyncio.gather(*(attacked(profile) for profile in PROFILES))
    failures = [failure for tally in tallies for failure in tally.failures]
    assert not failures, "\n".join(failures)
    assert sum(tally.requests for tally in tallies) >= REQUESTS_MIN
    assert all(tally.looks > 100 for tally in tallies)


async def attacked(profile: str) -> Tally:
    """Attack a router, and see that its market still comes to a socket that was open all the time."""
    async with running(profile) as router, router.client(await router.register()) as bystander:
        await bystander.send(action="subscribe", stream="best_touch", symbol="BTCUSDT")
        part = PROFILES.index(profile)
        found = await operations(router.url)
        tally = await attack(router, brief(found, seed=SEED, part=part, parts=len(PROFILES), bodies=BODIES))
        assert (await bystander.ask(action="ping"))["type"] == "pong"
        await bystander.send(action="subscribe", stream="trades", symbol="ETHUSDT")
        await bystander.until(lambda message: message["type"] == "trades")
        tally.failures += faults(router)
        return tally
