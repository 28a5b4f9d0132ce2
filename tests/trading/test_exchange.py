import time
from decimal import Decimal

import pytest

from core.account import Balance, InsufficientFunds, NoMarket, NotOpen
from core.events import Side
from core.orders import OrderType, Status, Terms
from tests.trading.desk import BTC, Desk, units
from trading import models
from trading.commands import Amend, Cancel, FillResting, Place
from trading.exchange import DuplicateTokenId

pytestmark = pytest.mark.django_db(transaction=True)


def balances(account_id: int) -> dict[str, tuple[int, int]]:
    return {row.asset: (row.total, row.held) for row in models.Balance.objects.filter(account_id=account_id)}


def test_a_buy_under_the_ask_rests_and_fills_at_the_ask_that_reaches_it_with_the_surplus_back() -> None:
    desk = Desk()
    desk.quote(ask=[("50000", "1", "okx")])
    alice = desk.trader(USDT="100000")

    done = desk.order(alice, "buy", "1", "49999")
    assert done.order.status is Status.OPEN
    assert balances(alice)["USDT"] == (units(100000), units(49999))

    desk.quote(ask=[("49990", "0.1", "kraken")])
    assert desk.do(FillResting(alice, done.order.order_id, desk.market(BTC, Side.BUY), 0))
    assert balances(alice) == {"USDT": (units(50010), 0), "BTC": (units(1), 0)}
    order = models.Order.objects.get(id=done.order.order_id)
    assert (order.status, order.venue) == ("filled", "kraken")
    (fill,) = order.fills.all()
    assert (fill.price, fill.venue, fill.liquidity) == (units(49990), "kraken", "maker")
    assert [report.seq for report in models.Report.objects.all()] == [1]


def test_refusals_leave_no_trace_and_do_not_use_up_the_token() -> None:
    desk = Desk()
    alice = desk.trader(USDT="100")
    with pytest.raises(NoMarket):
        desk.order(alice, "buy", "1", kind="market", token="a")
    with pytest.raises(InsufficientFunds):
        desk.order(alice, "buy", "1", "101", token="a")
    assert balances(alice) == {"USDT": (units(100), 0)}
    assert not models.Order.objects.exists()
    desk.order(alice, "buy", "1", "100", token="a")
    with pytest.raises(DuplicateTokenId) as refused:
        desk.order(alice, "buy", "1", "1", token="a")
    assert refused.value.details["order"]["price"] == Decimal(100)


def test_an_order_that_is_repeated_within_its_transaction_is_answered_with_its_receipts() -> None:
    desk = Desk()
    alice = desk.trader(USDT="100")
    desk.quote(ask=[("50", "1", "okx")])
    place = Place(alice, Terms("a", BTC, Side.BUY, OrderType.MARKET, None, units("1")))
    done, refused = desk.do(place, place)
    assert isinstance(refused, DuplicateTokenId)
    (receipt,) = refused.details["order"]["fills"]
    assert receipt["fill_id"] == done.fills[0].fill_id


def test_an_ioc_takes_what_the_best_price_shows_and_cancels_the_rest() -> None:
    desk = Desk()
    alice = desk.trader(USDT="100000")
    desk.quote(ask=[("50000", "0.5", "okx"), ("50000", "0.25", "kraken")])
    done = desk.order(alice, "buy", "1", "50000", kind="ioc")
    assert done.order.status is Status.PARTIALLY_FILLED
    assert [(fill.venue, fill.quantity) for fill in done.fills] == [("okx", units("0.5")), ("kraken", units("0.25"))]
    assert done.order.venue == "multiple"
    assert balances(alice) == {"USDT": (units(62500), 0), "BTC": (units("0.75"), 0)}
    again = desk.order(alice, "buy", "1", "50000", kind="ioc")
    assert again.order.status is Status.CANCELLED, "the displayed size was taken"
    assert models.Report.objects.count() == 4


def test_amend_and_cancel() -> None:
    desk = Desk()
    alice = desk.trader(USDT="100")
    done = desk.order(alice, "buy", "1", "50", token="a")
    with pytest.raises(InsufficientFunds):
        desk.do(Amend(alice, "a", units(101), None))
    assert balances(alice)["USDT"] == (units(100), units(50))
    desk.do(Amend(alice, "a", units(25), units(4)))
    assert balances(alice)["USDT"] == (units(100), units(100))
    desk.quote(ask=[("20", "1", "okx")])
    amended = desk.do(Amend(alice, done.order.order_id, units(24), None))
    assert amended.order.status is Status.FILLED
    assert balances(alice) == {"USDT": (units(20), 0), "BTC": (units(4), 0)}
    with pytest.raises(NotOpen):
        desk.do(Cancel(alice, "a"))


def test_the_writer_answers_when_it_is_committed() -> None:
    desk = Desk()
    alice = desk.trader(USDT="100")
    from trading.commands import Deposit
    from trading.writer import wait

    futures = [desk.exchange.submit(Deposit(alice, "USDT", units(1))) for _ in range(500)]
    began = time.monotonic()
    results = [wait(future, 10) for future in futures]
    print(time.monotonic() - began)
    desk.exchange.stop()
    assert results[-1] == Balance(units(600), 0)
    assert models.Entry.objects.count() == 501
