"""A part of the router is killed under load: what was answered is there, what was not is whole or absent.

A short run of `tests/end_to_end/kill.py`, which says how to make longer ones and to kill the databases.
"""

from pathlib import Path

import pytest

from tests.end_to_end.kill import trial

pytestmark = pytest.mark.timeout(240)


async def test_the_embedded_router_loses_nothing_when_it_is_killed(tmp_path: Path) -> None:
    async with trial("embedded", tmp_path, seed=3) as made:
        for _ in range(4):
            await made.kill("router")
        assert sum(len(customer.orders) for customer in made.customers) > 50, "there was hardly any load"


async def test_the_production_profile_loses_nothing_when_a_part_of_it_is_killed(tmp_path: Path) -> None:
    async with trial("production", tmp_path, seed=4) as made:
        for part in ("web", "matcher", "feeds", "web"):
            await made.kill(part)
        assert sum(len(customer.orders) for customer in made.customers) > 50, "there was hardly any load"
