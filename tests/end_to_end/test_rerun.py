"""What a running router recorded, on each profile: run again, compared, forged, and asked for an order's story.

The kills of `test_kill.py` are proved by a rerun too.
"""

import asyncio
import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import pytest_asyncio

from marketdata.simulated import SimulatedVenues
from tests.end_to_end.conftest import environment_of, roles_of
from tests.end_to_end.test_orders_ws import Trader
from tests.end_to_end.test_trading_matcher import ASK, BID, INSTRUMENT, SYMBOL, calm, touch_is
from tests.running import ROOT, Message, Router, rerun

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

TWAP_S = 6
SETTLE_S = 30.0


class Recorded:
    """A recording of a router that has stopped, and the orders of its one trader by what they were to show."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self.orders: dict[str, Message] = {}
        self.hash = ""
        self.stories: dict[str, str] = {}

    async def why(self, name: str) -> str:
        """Return an order's story; all are told at the first call."""
        if not self.stories:
            fill_id = self.orders["crossed"]["fills"][0]["fill_id"]
            names = (fill_id, *self.orders, self.orders["far"]["id"])
            told = await _manage(self.environment, "rerun", str(self.folder), "--why", *names)
            self.stories = dict(zip(names, told.split("─" * 80), strict=True))
        return self.stories[name]

    def copy(self, folder: Path) -> Path:
        return shutil.copytree(self.folder, folder / "copy")


async def _manage(environment: dict[str, str], *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", *arguments, cwd=ROOT, env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode()


async def _trade(router: Router, market: SimulatedVenues, orders: dict[str, Message]) -> None:
    name = f"r{uuid.uuid4().hex[:12]}"
    trader = Trader(router, name, await router.register(name))
    await touch_is(router, trader.token, ASK)
    for asset, amount in (("USDT", 1_000_000), ("BTC", 10)):
        (await trader.rest("POST", "/deposit", {"asset": asset, "amount": amount})).raise_for_status()

    async def place(what: str, **body: Any) -> None:
        orders[what] = (await trader.rest("POST", "/orders", {"token_id": what, "symbol": SYMBOL, **body})).json()

    await place("crossed", side="buy", price=str(ASK + 10), quantity="0.5")
    await place("market", side="sell", order_type="market", quantity="0.25")
    await place("ioc", side="buy", order_type="ioc", price=str(ASK), quantity="5")
    await place("refused", side="buy", price=str(BID), quantity="1000")
    await place("far", side="buy", price=str(BID - 500), quantity="1")
    await place("resting", side="buy", price=str(BID - 100), quantity="1")
    parent = {"symbol": SYMBOL, "side": "buy", "total_quantity": "1", "duration_seconds": TWAP_S, "slices": 4}
    orders["parent"] = (await trader.rest("POST", "/orders/twap", {**parent, "token_id": "parent"})).json()
    market["okx"].quote(INSTRUMENT, BID - 200, Decimal(1), BID - 120, Decimal(3))

    async with asyncio.timeout(SETTLE_S):
        for what in ("resting", "parent"):
            while orders[what]["status"] == "open":
                await asyncio.sleep(0.1)
                orders[what] = (await trader.rest("GET", f"/orders/{what}")).json()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorded(
    profile: str, market: SimulatedVenues, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Recorded]:
    folder = tmp_path_factory.mktemp(profile)
    with environment_of(profile, folder) as environment:
        environment |= {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
        environment |= {"RATE_LIMITS": "off", "VENUE_STALE_AFTER_S": "30", "TAKER_FEE_BPS": "10", "MAKER_FEE_BPS": "2"}
        recorded = Recorded(environment, folder / "recording")
        calm(market)
        router = Router({**environment, "RECORDING": str(recorded.folder)}, roles=roles_of(profile))
        await router.start()
        try:
            await _trade(router, market, recorded.orders)
        finally:
            await router.stop()
        recorded.hash = (await _manage(environment, "ledger_hash")).strip()
        yield recorded


async def test_a_rerun_ends_with_the_ledger_of_the_database(recorded: Recorded) -> None:
    found = await rerun(recorded.folder, recorded.environment)

    assert found["exit_code"] == 0, found
    assert found["ledger_hash"] == recorded.hash
    assert (found["unexplained"], found["doubtful"], found["settled"]) == ([], [], [])
    assert found["told"] == found["shown"] > 10
    assert found["frames"] > 20
    assert found["fills"] >= 5
    assert found["refused"] == 1


async def test_a_rerun_needs_nothing_but_the_recording(recorded: Recorded, tmp_path: Path) -> None:
    """Not the database, not the settings, and no order that Python gives its sets."""
    elsewhere = {"PYTHONHASHSEED": "7", "DATABASE_URL": f"sqlite:///{tmp_path}/none.sqlite3", "TAKER_FEE_BPS": "77"}

    found = await rerun(recorded.copy(tmp_path), elsewhere, "--expect", recorded.hash)

    assert found["exit_code"] == 0, found
    assert not (tmp_path / "none.sqlite3").exists()


async def test_a_row_that_was_changed_in_the_database_is_shown(recorded: Recorded) -> None:
    change = "from trading.models import Order; Order.objects.filter(token_id='far').update(price={})"
    await _manage(recorded.environment, "shell", "-c", change.format(1))
    try:
        found = await rerun(recorded.folder, recorded.environment)
    finally:
        await _manage(recorded.environment, "shell", "-c", change.format(int(BID - 500) * 10**8))

    assert found["exit_code"] == 1
    assert "price=1 " in found["problem"], found["problem"]
    assert "token_id='far'" in found["problem"]


async def test_a_price_that_no_frame_told_is_found(recorded: Recorded, tmp_path: Path) -> None:
    """OKX's frames are forged: it never showed the size at which the market order sold."""
    folder = recorded.copy(tmp_path)
    assert sum(_forge(path, '"49990","1"', '"49990","7"') for path in folder.glob("*.frames.*"))

    found = await rerun(folder, recorded.environment, "--expect", recorded.hash)

    assert found["exit_code"] == 1
    assert found["ledger_hash"] == recorded.hash
    assert "was shown BTC-USDT 49990 × 1 of okx: the venue had not told that" in found["unexplained"][0]


async def test_a_lost_file_makes_it_unusable(recorded: Recorded, tmp_path: Path) -> None:
    folder = recorded.copy(tmp_path)
    max(folder.glob("*.orders.0001.rec"), key=lambda path: path.stat().st_size).unlink()

    found = await rerun(folder, recorded.environment)

    assert found["exit_code"] == 2
    assert "0001.rec is missing" in found["problem"]


async def test_no_secret_is_recorded(recorded: Recorded) -> None:
    for path in recorded.folder.iterdir():
        text = path.read_bytes()
        assert not any(secret in text for secret in (b"password", b"eyJ", b"Bearer", b"argon2"))
        assert path.name == ".lock" or path.stat().st_mode & 0o077 == 0


# -- the stories


async def test_why_an_order_was_filled_at_once(recorded: Recorded) -> None:
    story = await recorded.why(recorded.orders["crossed"]["fills"][0]["fill_id"])

    assert "limit buy of 0.5 BTC-USDT, limit 50010, token id 'crossed'" in story
    assert "FILLED 0.5 at 50000 on okx as taker" in story
    assert "okx      50000 × " in story
    assert '"asks":[["50000"' in story, "the frame itself"
    assert "fee 0.0005 BTC: 10 basis points" in story
    assert "USDT: 1000000 (0 held)  →  975000 (0 held)" in story


async def test_why_an_order_was_filled_later(recorded: Recorded) -> None:
    story = await recorded.why("resting")

    assert "NOT FILLED: the best ask 50000 is above its limit 49890; it rests" in story
    assert "FILLED 1 at 49870 on okx as maker" in story
    assert "a resting order executes whole, at the touch that crosses its limit" in story


async def test_why_an_order_was_not_filled(recorded: Recorded) -> None:
    story = await recorded.why(recorded.orders["far"]["id"])

    assert "NOT FILLED: the best ask 50000 is above its limit 49490; it rests" in story
    assert "In the end: open, 0 of 1 filled" in story
    assert "the nearest ask was 49870 × 3 of okx" in story


async def test_why_an_order_was_filled_in_part(recorded: Recorded) -> None:
    story = await recorded.why("ioc")

    assert "ENDED partially_filled" in story
    assert "nothing more was shown within its limit that this account had not taken already" in story


async def test_why_an_order_was_refused(recorded: Recorded) -> None:
    story = await recorded.why("refused")

    assert "REFUSED (insufficient_funds): insufficient USDT: this needs 49990000" in story
    assert "It was never accepted" in story


async def test_what_the_slices_of_a_parent_found(recorded: Recorded) -> None:
    story = await recorded.why("parent")

    assert f"in 4 slices over {TWAP_S} s, on all" in story
    assert story.count("rule twap_slice") >= 4
    assert "In the end: filled, 1 of 1 filled" in story


async def test_an_order_that_nobody_knows(recorded: Recorded) -> None:
    told = await _manage(recorded.environment, "rerun", str(recorded.folder), "--why", "nothing")

    assert "the recording knows no order, token id or fill 'nothing'" in told


def _forge(path: Path, old: str, new: str) -> int:
    """Change a recording, checksums included; return how many lines."""
    lines = [line.split(b" ", 1)[1] for line in path.read_bytes().splitlines()]
    changed = [line.replace(old.encode(), new.encode()) for line in lines]
    path.write_bytes(b"".join(b"%08x %b\n" % (crc32(line), line) for line in changed))
    return sum(line != other for line, other in zip(lines, changed, strict=True))
