"""What the profile records while a part of it hangs, run again."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from marketdata.simulated import SimulatedVenues
from tests.deploy.conftest import Profile, require_nginx
from tests.end_to_end.conftest import environment_of
from tests.end_to_end.test_orders_ws import market_order
from tests.end_to_end.test_trading_matcher import ASK, calm, new_trader, show, touch_is
from tests.running import ANSWER_S, rerun

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

STALE_AFTER_S = 1
HELD_S = 6.0  # longer than any price may be shown that its venue has superseded
MOVES_S = 0.1


async def test_an_order_is_explained_by_what_it_was_shown_however_long_its_commit_took(
    market: SimulatedVenues, tmp_path: Path
) -> None:
    require_nginx()
    with environment_of("production", tmp_path) as environment:
        urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        environment |= {**urls, "VENUE_STALE_AFTER_S": str(STALE_AFTER_S)}
        router = Profile(environment, "--record", str(tmp_path / "recording"), webs=1)
        await router.start()
        try:
            calm(market)
            trader = await new_trader(router)
            await touch_is(router, trader.token, ASK)
            async with await psycopg.AsyncConnection.connect(environment["DATABASE_URL"], autocommit=True) as looking:
                async with await psycopg.AsyncConnection.connect(environment["DATABASE_URL"]) as holding:
                    await holding.execute("LOCK TABLE trading_recordedlife IN SHARE MODE")
                    order = market_order()
                    asking = asyncio.create_task(trader.rest("POST", "/orders", order))
                    async with asyncio.timeout(ANSWER_S):
                        while not await _waits(looking):  # noqa: ASYNC110 - of the database
                            await asyncio.sleep(0.02)
                    for number in range(int(HELD_S / MOVES_S)):
                        show(market, "okx", ASK + 10 + number)
                        await asyncio.sleep(MOVES_S)
                await asking
            async with asyncio.timeout(ANSWER_S):
                while (await trader.rest("GET", f"/orders/{order['token_id']}")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            found = (await trader.rest("GET", f"/orders/{order['token_id']}")).json()
            assert [fill["price"] for fill in found["fills"]] == [ASK]
        finally:
            await router.stop()
        told = await rerun(tmp_path / "recording", environment)
    assert (told["unexplained"], told["exit_code"]) == ([], 0), told


async def _waits(database: psycopg.AsyncConnection) -> bool:
    """Tell whether an order waits for its number in the recording."""
    found = await database.execute(
        "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'trading_recordedlife'::regclass"
    )
    return await found.fetchone() is not None
