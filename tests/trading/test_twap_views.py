"""TWAP orders over REST and in the admin, slice by slice."""

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from msgspec import structs

from accounts.models import User
from core.events import Side
from core.orders import OrderType, Terms
from tests.trading.desk import BTC, Desk, units
from tests.trading.web import Person
from trading import models
from trading.commands import PlaceTwap, RunSlices
from trading.exchange import TWAPS_RUNNING_MAX, TooManyTwaps

TEN = {"symbol": "BTCUSDT", "side": "buy", "total_quantity": 1, "duration_seconds": 100, "slices": 10}


@pytest.fixture
def book(desk: Desk) -> Desk:
    desk.quote(
        bid=[("99", "5", "okx"), ("98", "5", "binance")],
        ask=[("101", "0.04", "okx"), ("102", "0.05", "binance"), ("103", "9", "okx")],
    )
    return desk


def place(alice: Person, **more: Any) -> Any:
    answer = alice.ask("POST", "/orders/twap", {**TEN, **more})
    assert answer.status == 200, answer.json
    return answer.json


def run(desk: Desk, alice: Person, order_id: str, first: int, end: int, *, market: tuple[int, int] = (0, 0)) -> None:
    desk.do(RunSlices(alice.user.pk, order_id, first, end, *market))


def test_a_parent_order_is_answered_held_and_named_by_its_id(book: Desk, alice: Person) -> None:
    placed = place(alice)
    assert placed["order_id"] == placed["token_id"] == placed["id"]
    assert (placed["status"], placed["order_type"], placed["symbol"], placed["pair"]) == (
        "open", "twap", "BTCUSDT", "BTCUSDT",
    )  # fmt: skip
    assert placed["message"]
    assert placed["limit_price"] == Decimal("106.05")  # the touch, 5 % worse
    assert placed["arrival_price"] == 100
    assert (placed["exchange"], placed["executions"], placed["slices_executed"]) == ("all", [], 0)
    assert alice.totals()["USDT"] == (Decimal(100_000), Decimal("106.05"))


def test_each_slice_takes_what_is_shown_best_first_and_tells_it(book: Desk, alice: Person) -> None:
    placed = place(alice, token_id="mine", limit_price=102)
    run(book, alice, placed["order_id"], 0, 1, market=(units_us(100, 10), 10))
    run(book, alice, placed["order_id"], 1, 2, market=(units_us(100, 20), 20))  # nothing is left within its limit
    found = alice.get("/orders/mine")
    assert [one["slice"] for one in found["executions"]] == [0]
    execution = found["executions"][0]
    assert execution["quantity"] == Decimal("0.09")
    assert execution["exchange"] == "multiple"
    assert [(fill["price"], fill["quantity"], fill["exchange"]) for fill in execution["fills"]] == [
        (101, Decimal("0.04"), "okx"),
        (102, Decimal("0.05"), "binance"),
    ]
    assert execution["scheduled_at"] == found["starts_at"] == found["created_at"]
    assert (found["slices_executed"], found["percent_executed"], found["is_completed"]) == (2, 9, False)
    assert found["average_price"] == Decimal("101.55555556")
    assert found["market_twap"] == 100
    assert found["slippage_arrival_bps"] == found["slippage_twap_bps"] == Decimal("155.5556")
    receipts = alice.get("/fills?order=mine")["fills"]
    assert [receipt["slice"] for receipt in receipts] == [0, 0]
    assert receipts[1]["touch"]["level"] == {"price": 101, "size": Decimal("0.04"), "exchange": "okx"}
    assert "executions" not in alice.get("/orders")["orders"][0]


def units_us(price: int, us: int) -> int:
    return price * 10**8 * us


def test_it_is_stopped_and_what_it_did_stays(book: Desk, alice: Person) -> None:
    placed = place(alice, exchange="okx")
    run(book, alice, placed["order_id"], 0, 1)
    stopped = alice.ask("DELETE", f"/orders/{placed['order_id']}").json
    assert (stopped["status"], stopped["reason"], stopped["is_completed"]) == ("partially_filled", "by_client", True)
    assert stopped["executed_quantity"] == Decimal("0.1")
    assert stopped["executions"][0]["exchange"] == "okx"
    assert alice.totals()["USDT"][1] == 0
    run(book, alice, placed["order_id"], 1, 2)
    assert alice.get(f"/orders/{placed['order_id']}")["executed_quantity"] == Decimal("0.1")
    alice.ask("DELETE", f"/orders/{placed['order_id']}").refused(400, "order_not_open")


def test_it_cannot_be_amended(book: Desk, alice: Person) -> None:
    placed = place(alice)
    alice.ask("PUT", f"/orders/{placed['order_id']}", {"quantity": 2}).refused(400, "order_not_amendable")


def test_a_name_is_used_once_for_both_kinds_of_orders(book: Desk, alice: Person) -> None:
    place(alice, token_id="one")
    assert alice.ask("POST", "/orders/twap", {**TEN, "token_id": "one"}).refused(400, "duplicate_token_id")["order"]
    assert alice.place("one", "buy", 1, 50).refused(400, "duplicate_token_id")["order"]["slices"] == 10


def test_without_a_market_it_needs_a_limit(desk: Desk, alice: Person) -> None:
    alice.ask("POST", "/orders/twap", TEN).refused(400, "no_market")
    placed = place(alice, limit_price=50)
    assert (placed["arrival_price"], placed["market_twap"], placed["slippage_twap_bps"]) == (None, None, None)
    run(desk, alice, placed["order_id"], 0, 10)
    ended = alice.get(f"/orders/{placed['order_id']}")
    assert (ended["status"], ended["reason"], ended["percent_executed"]) == ("cancelled", "twap_rest", 0)


def test_more_than_there_is_is_refused(book: Desk, alice: Person) -> None:
    refused = alice.ask("POST", "/orders/twap", {**TEN, "limit_price": 100_001}).refused(400, "insufficient_funds")
    assert refused["needed"] == 100_001
    assert alice.get("/orders")["orders"] == []


def test_only_so_many_run_at_a_time(book: Desk, alice: Person) -> None:
    small = {**TEN, "total_quantity": "0.00000001"}
    running = [alice.ask("POST", "/orders/twap", small).json["order_id"] for _ in range(TWAPS_RUNNING_MAX)]
    alice.ask("POST", "/orders/twap", small).refused(400, "too_many_twaps")
    alice.ask("DELETE", f"/orders/{running[0]}")
    assert place(alice, total_quantity="0.00000001")["status"] == "open"
    terms = Terms("", BTC, Side.BUY, OrderType.TWAP, units("1"), 1)
    parents = [PlaceTwap(alice.user.pk, structs.replace(terms, token_id=f"t{n}"), "all", 10, 1) for n in range(2)]
    alice.ask("DELETE", f"/orders/{running[1]}")
    refused = [result for result in book.do(*parents) if isinstance(result, TooManyTwaps)]
    assert len(refused) == 1  # in one transaction too


def test_only_posts_go_to_the_route_of_twap_orders(alice: Person) -> None:
    for method in ("GET", "PUT", "DELETE"):
        alice.ask(method, "/orders/twap").refused(405, "method_not_allowed")


def test_the_other_route_knows_no_twap(book: Desk, alice: Person) -> None:
    alice.place("a", "buy", 1, 50, order_type="twap").refused(422, "invalid")


def test_the_admin_shows_how_far_it_is(book: Desk, alice: Person) -> None:
    placed = place(alice, token_id="shown")
    run(book, alice, placed["order_id"], 0, 1, market=(units_us(100, 10), 10))
    client = Client()
    client.force_login(User.objects.create_superuser("root", "password123"))
    page = client.get(f"/admin/trading/order/{models.Order.objects.get().pk}/change/").content.decode()
    for shown in ("shown", "next slice", "Market price", "100"):
        assert shown.lower() in page.lower()
