"""The audit finds nothing in what the exchange wrote, and every single thing that is then changed behind its back."""

import asyncio
import threading
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from prometheus_client.registry import REGISTRY

from core.account import Fees
from core.events import Side
from core.orders import OrderType, Terms
from tests.trading.desk import BTC, Desk, units
from trading import audit
from trading.commands import Amend, Cancel, CancelAll, FillResting, PlaceTwap, Reset, RunSlices

pytestmark = pytest.mark.django_db(transaction=True)


def sql(text: str, *values: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text, values)
        assert cursor.rowcount, "the change changes something"


@pytest.fixture
def trader() -> int:
    """Alice after a day of everything, with fees; bob beside her."""
    desk = Desk(Fees(maker=1_33, taker=7_77))
    alice = desk.trader("alice", USDT="1000000.12345678", BTC="10")
    bob = desk.trader("bob", USDT="100000")
    desk.quote(
        bid=[("49999.99999999", "1", "okx")],
        ask=[("50000.00000001", "0.00000333", "kraken"), ("50000.00000001", "0.3333", "okx")],
    )
    desk.order(alice, "buy", "0.12345678", kind="market")
    desk.order(alice, "buy", "1", "50000.00000001", kind="ioc")  # partly filled, by two venues
    desk.order(alice, "sell", "0.7", kind="market")
    desk.order(alice, "buy", "0.1", "50001", kind="ioc")  # the displayed sizes are taken: nothing filled
    desk.order(bob, "buy", "0.00000001", "40000.00000001", token="dust")
    desk.order(alice, "buy", "0.33333333", "49000.33333333", token="amended")
    desk.do(Amend(alice, "amended", units("48999.12345679"), units("0.44444444")))
    desk.order(alice, "sell", "0.5", "51000", token="resting")
    crossed = desk.order(alice, "buy", "0.1", "49500.5", token="crossed")
    desk.quote(bid=[("49400", "1", "okx")], ask=[("49500", "1", "okx")])
    assert desk.do(FillResting(alice, crossed.order.order_id, desk.market(BTC, Side.BUY), 0))
    desk.order(alice, "buy", "0.2", "40000", token="cancelled")
    desk.do(Cancel(alice, "cancelled"))
    parents(desk, alice)
    return alice


def parents(desk: Desk, alice: int) -> None:
    """One that runs, and one that ended with a rest; the last slice of each that ran took two levels."""
    for token, ends in (("running", 3), ("ended", 4)):
        terms = Terms(token, BTC, Side.BUY, OrderType.TWAP, units("49600.00000007"), units("0.70000003"))
        order = desk.do(PlaceTwap(alice, terms, "all", 60, 4)).order
        for end in range(1, ends + 1):
            desk.quote(ask=[("49500.00000001", f"0.1{end}", "okx"), ("49600", f"0.02{end}", "kraken")])
            desk.do(RunSlices(alice, order.order_id, end - 1, end, 0, 0))


def test_nothing_is_wrong_with_what_the_exchange_wrote(trader: int) -> None:
    assert audit.verify() == []
    assert audit.verify([trader]) == []


def test_nothing_is_wrong_after_everything_was_cancelled_and_reset(trader: int) -> None:
    desk = Desk()
    desk.do(CancelAll(trader))
    assert audit.verify() == []
    desk.do(Reset(trader, {"USDT": 5}))
    assert audit.verify() == []


def test_long_histories_are_read_in_pages(trader: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 2)
    pauses: list[None] = []
    assert audit.verify(pause=lambda: pauses.append(None)) == []
    assert len(pauses) > 8


CHANGES: dict[str, tuple[str, str]] = {
    "more money than entries": (
        "balance", "UPDATE trading_balance SET total = total + 1 WHERE account_id = %s AND asset = 'BTC'"
    ),
    "a lost entry": (
        "entry", "DELETE FROM trading_entry WHERE id = (SELECT min(id) FROM trading_entry WHERE account_id = %s)"
    ),
    "a changed amount": (
        "entry",
        "UPDATE trading_entry SET amount = amount - 1"
        " WHERE id = (SELECT max(id) FROM trading_entry WHERE account_id = %s AND kind = 'fill')",
    ),
    "a changed running total": (
        "entry",
        "UPDATE trading_entry SET balance = balance + 1"
        " WHERE id = (SELECT max(id) FROM trading_entry WHERE account_id = %s AND asset = 'BTC')",
    ),
    "a hold that was not released": (
        "held", "UPDATE trading_balance SET held = held + 1 WHERE account_id = %s AND asset = 'USDT'"
    ),
    "an order that holds a unit too few": (
        "hold", "UPDATE trading_order SET held = held - 1 WHERE account_id = %s AND token_id = 'amended'"
    ),
    "an order and its balance that hold a unit too many": (
        "hold",
        "UPDATE trading_order SET held = held + 1 WHERE account_id = %s AND token_id = 'resting'",
    ),
    "a cancelled order that is open again": (
        "hold", "UPDATE trading_order SET status = 'open' WHERE account_id = %s AND token_id = 'cancelled'"
    ),
    "a filled order that counts as cancelled": (
        "status",
        "UPDATE trading_order SET status = 'cancelled', filled_quantity = filled_quantity - 1"
        " WHERE account_id = %s AND token_id = 'crossed'",
    ),
    "a notional that is one off": (
        "order",
        "UPDATE trading_order SET filled_notional = '1' WHERE account_id = %s AND token_id = 'crossed'",
    ),
    "a better fee": (
        "order", "UPDATE trading_order SET fee = fee - 1 WHERE account_id = %s AND token_id = 'crossed'"
    ),
    "a fill at another price": (
        "fill",
        "UPDATE trading_fill SET price = price + 100000000 WHERE seq = 1 AND account_id = %s",
    ),
    "a fill that is worse than the limit": (
        "fill",
        "UPDATE trading_order SET price = 1 WHERE account_id = %s AND token_id = 'crossed'",
    ),
    "a fill's money under another fill's name": (
        "fill",
        "UPDATE trading_entry SET reference = 'x'"
        " WHERE id = (SELECT min(id) FROM trading_entry WHERE account_id = %s AND kind = 'fill')",
    ),
    "a fill that is counted and not there": (
        "fills", "UPDATE trading_order SET fill_count = 2 WHERE account_id = %s AND token_id = 'crossed'"
    ),
    "money without a fill": (
        "entry",
        "INSERT INTO trading_entry (account_id, asset, amount, kind, reference, balance, created_at)"
        " SELECT account_id, 'SOL', 1, 'fill', 'nothing', 1, created_at FROM trading_entry"
        " WHERE id = (SELECT min(id) FROM trading_entry WHERE account_id = %s)",
    ),
    "a parent order without its schedule": (
        "schedule",
        "DELETE FROM trading_twap WHERE order_id = (SELECT id FROM trading_order WHERE account_id = %s"
        " AND token_id = 'running')",
    ),
    "a schedule of another kind of order": (
        "schedule", "UPDATE trading_order SET order_type = 'limit' WHERE account_id = %s AND token_id = 'ended'"
    ),
    "an open parent order whose slices are all past": (
        "schedule",
        "UPDATE trading_twap SET next_slice = slices WHERE order_id = (SELECT id FROM trading_order"
        " WHERE account_id = %s AND token_id = 'running')",
    ),
    "a rest that ended before the last slice": (
        "schedule",
        "UPDATE trading_twap SET next_slice = slices - 1 WHERE order_id = (SELECT id FROM trading_order"
        " WHERE account_id = %s AND token_id = 'ended')",
    ),
    "a fill of a slice that is to come": (
        "fill",
        "UPDATE trading_twap SET next_slice = 2 WHERE order_id = (SELECT id FROM trading_order"
        " WHERE account_id = %s AND token_id = 'running')",
    ),
    "slices that fall back": (
        "fill",
        "UPDATE trading_fill SET slice = 1 WHERE number = 1 AND order_id = (SELECT id FROM trading_order"
        " WHERE account_id = %s AND token_id = 'ended')",
    ),
    "more by a slice than was due": (
        "fill",
        "UPDATE trading_fill SET slice = slice - 1 WHERE slice > 0 AND order_id = (SELECT id FROM trading_order"
        " WHERE account_id = %s AND token_id = 'running')",
    ),
    "a fill of a parent order and of no slice": (
        "fill",
        "UPDATE trading_fill SET slice = NULL WHERE slice = 0 AND order_id = (SELECT id FROM trading_order"
        " WHERE account_id = %s AND token_id = 'running')",
    ),
    "a slice of an order that has none": (
        "fill",
        "UPDATE trading_fill SET slice = 0 WHERE order_id = (SELECT id FROM trading_order"
        " WHERE account_id = %s AND token_id = 'crossed')",
    ),
    "a lost report": ("reports", "DELETE FROM trading_report WHERE seq = 2 AND account_id = %s"),
    "a number without a report": ("reports", "UPDATE trading_account SET seq = seq + 1 WHERE user_id = %s"),
    "a report of something else": (
        "report", "UPDATE trading_report SET body = '{}' WHERE seq = 1 AND account_id = %s"
    ),
}  # fmt: skip
WORDS = {
    "a fill of a slice that is to come": "slice 2 came after 1, and 2 are past",
    "slices that fall back": "slice 0 came after 1, and 4 are past",
    "more by a slice than was due": "were filled by slice 0, 17500000 were due",
    "a fill of a parent order and of no slice": "a fill of a twap order, slice None",
    "a slice of an order that has none": "a fill of a limit order, slice 0",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_behind_the_ledger_is_found(trader: int, change: str) -> None:
    rule, statement = CHANGES[change]
    sql(statement, trader)
    findings = audit.verify()
    assert rule in {finding.rule for finding in findings}, findings
    assert {finding.account_id for finding in findings} == {trader}
    assert any(WORDS.get(change, "") in finding.detail for finding in findings), findings


def command(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("verify_ledger", *arguments, stdout=out, no_color=True)
    except SystemExit as exit_:
        return int(str(exit_.code)), out.getvalue()
    return 0, out.getvalue()


def test_the_command_says_that_all_is_well(trader: int) -> None:
    assert command() == (0, "2 accounts checked: balances, holds, orders, fills and reports all agree\n")
    code, said = command("--account", "ALICE")
    assert (code, said.partition(":")[0]) == (0, "1 account checked")


def test_the_command_names_what_is_wrong_and_fails(trader: int) -> None:
    sql("UPDATE trading_balance SET total = total + 7 WHERE account_id = %s AND asset = 'BTC'", trader)
    code, said = command()
    assert code == 1
    assert f"account {trader}: balance: BTC total is" in said
    assert command("--account", "bob")[0] == 0


def test_the_command_refuses_a_name_that_nobody_has() -> None:
    with pytest.raises(CommandError, match="'carol'"):
        command("--account", "carol")


async def test_the_auditor_counts_each_fault_once_and_tells_it(trader: int) -> None:
    def counted() -> float:
        return float(REGISTRY.get_sample_value("ledger_invariant_violations_total") or 0)

    before = counted()
    auditor = audit.Auditor()
    await auditor.start()
    assert (auditor.state()["violations"], counted()) == (0, before)
    assert auditor.state()["checked_at"] is not None
    await asyncio.to_thread(sql, "UPDATE trading_account SET seq = seq + 1 WHERE user_id = %s", trader)
    for _ in range(2):
        await auditor.start()
        assert (auditor.state()["violations"], counted()) == (1, before + 1)
    await auditor.stop()


async def test_a_start_does_not_wait_for_a_long_proof(trader: int, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    class Slow(audit.Auditor):
        def _pause(self) -> None:
            assert go_on.wait(10)
            super()._pause()

    monkeypatch.setattr(audit, "START_S", 0.0)
    auditor = Slow()
    await auditor.start()
    assert auditor.state() == {"violations": 0, "checked_at": None}
    go_on.set()
    await auditor.stop()
