"""The routes of an account, as a client uses them."""

import csv
import io
import re
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from django.core.management import call_command
from django.test import Client

from router_project.asgi import application
from tests.trading.desk import Desk
from tests.trading.web import PASSWORD, Person, aside
from trading import views

ORDER_FIELDS = {
    "id", "user_id", "token_id", "symbol", "side", "order_type", "price", "quantity", "filled_quantity", "filled_price",
    "execution_price", "exchange", "status", "reason", "fills", "created_at", "updated_at", "executed_at",
}  # fmt: skip
FILL_FIELDS = {
    "fill_id", "order", "side", "price", "quantity", "exchange", "fee", "fee_asset", "liquidity", "touch", "rule",
    "executed_at",
}  # fmt: skip
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ODD_TOKENS = [
    "a b",
    "100%",
    "%2e",
    "%2F",
    "?x=1",
    "a#b",
    "a;b",
    'a"b',
    "<b>",
    "a\\b",
    "...",
    "twap1",
    "~",
    "+",
    "a+b",
    "&",
]
SOMEBODYS = "11111111-2222-4333-8444-555555555555"


def quoted(desk: Desk) -> None:
    desk.quote(bid=[("49990", "2", "kraken")], ask=[("50000", "2", "okx")])


# -- money


def test_a_deposit_is_in_the_balance_at_once(alice: Person) -> None:
    answer = alice.ask("POST", "/deposit", {"asset": "usdt", "amount": "0.1"})
    assert answer.status == 200
    assert answer.json == {
        "status": "ok",
        "asset": "USDT",
        "amount": Decimal("0.1"),
        "deposited": Decimal("0.1"),
        "new_balance": Decimal("100000.1"),
        "new_total": Decimal("100000.1"),
        "available": Decimal("100000.1"),
    }
    balance = alice.get("/balance")
    assets = alice.get("/info")["assets"]
    assert [row["asset"] for row in balance["balances"]] == assets == sorted(assets)
    assert set(balance["total"]) == set(balance["available"]) == set(balance["reserved"]) == set(assets)
    assert balance["total"]["USDT"] == balance["available"]["USDT"] == Decimal("100000.1")
    assert {"asset": "BTC", "total": 0, "available": 0, "reserved": 0} in balance["balances"]


def test_a_deposit_of_an_asset_that_is_not_traded_here_is_refused(alice: Person) -> None:
    alice.ask("POST", "/deposit", {"asset": "NOPE", "amount": 1}).refused(400, "unknown_asset")


def test_no_balance_grows_beyond_its_bound(alice: Person) -> None:
    alice.ask("POST", "/deposit", {"asset": "USDT", "amount": 46_000_000_000}).refused(400, "amount_too_large")
    assert alice.totals() == {"USDT": (100_000, 0)}


# -- orders


def test_an_order_rests_is_amended_and_cancelled_and_gives_back_what_it_held(alice: Person) -> None:
    placed = alice.place("a", "buy", 0.5, "49000.5")
    assert placed.status == 201
    order = placed.json
    assert set(order) >= ORDER_FIELDS
    assert (order["token_id"], order["symbol"], order["side"], order["order_type"]) == ("a", "BTCUSDT", "buy", "limit")
    assert (order["price"], order["quantity"], order["filled_quantity"]) == (Decimal("49000.5"), Decimal("0.5"), 0)
    assert (order["status"], order["exchange"], order["fills"], order["executed_at"]) == ("open", None, [], None)
    assert INSTANT.fullmatch(order["created_at"])
    assert alice.totals() == {"USDT": (100_000, Decimal("24500.25"))}
    assert alice.get("/orders/a") == alice.get(f"/orders/{order['id']}") == order

    amended = alice.ask("PUT", "/orders/a", {"price": 40_000})
    assert (amended.status, amended["price"], amended["quantity"]) == (200, 40_000, Decimal("0.5"))
    assert alice.totals() == {"USDT": (100_000, 20_000)}
    amended = alice.ask("PUT", f"/orders/{order['id']}", {"quantity": "2"})
    assert (amended.status, amended["price"], amended["quantity"]) == (200, 40_000, 2)

    ended = alice.ask("DELETE", "/orders/a")
    assert (ended.status, ended["status"], ended["reason"]) == (200, "cancelled", "by_client")
    assert alice.totals() == {"USDT": (100_000, 0)}
    for method, body in (("DELETE", None), ("PUT", {"price": 1})):
        alice.ask(method, "/orders/a", body).refused(400, "order_not_open")


def test_a_crossed_order_is_answered_filled_with_its_receipt(desk: Desk, alice: Person) -> None:
    quoted(desk)
    order = alice.place("a", "buy", 1, 51_000).json
    assert (order["status"], order["exchange"], order["execution_price"]) == ("filled", "okx", 50_000)
    assert order["price"] == 51_000, "the limit, as it was given"
    (fill,) = order["fills"]
    assert set(fill) >= FILL_FIELDS
    assert (fill["price"], fill["quantity"], fill["exchange"], fill["liquidity"]) == (50_000, 1, "okx", "taker")
    assert alice.totals() == {"USDT": (50_000, 0), "BTC": (1, 0)}
    alice.ask("DELETE", "/orders/a").refused(400, "order_not_open")

    sold = alice.place("b", "sell", 1, order_type="market").json
    assert (sold["status"], sold["price"], sold["execution_price"]) == ("filled", 49_990, 49_990)
    part = alice.place("c", "buy", 1.99, 50_000, order_type="ioc").json
    assert (part["status"], part["filled_quantity"], part["reason"]) == ("filled", Decimal("1.99"), None)


def test_an_ioc_without_a_price_is_a_market_order_whose_rest_is_cancelled(desk: Desk, alice: Person) -> None:
    desk.quote(ask=[("1000", "0.25", "okx")])
    order = alice.place("a", "buy", 1, order_type="ioc").json
    assert (order["status"], order["filled_quantity"], order["reason"]) == (
        "partially_filled",
        Decimal("0.25"),
        "ioc_rest",
    )


def test_a_market_order_without_a_live_venue_is_refused_and_a_limit_order_rests(alice: Person) -> None:
    for kind in ("market", "ioc"):
        alice.place("a", "buy", 1, order_type=kind).refused(400, "no_market")
    assert alice.place("a", "buy", 1, 1).status == 201


def test_a_token_id_is_used_once_for_ever_and_its_order_comes_with_the_refusal(alice: Person) -> None:
    order = alice.place("a", "buy", 1, 100).json
    assert alice.place("a", "sell", 5, 7).refused(400, "duplicate_token_id")["order"] == order
    alice.ask("DELETE", "/orders/a")
    assert alice.place("a", "buy", 1, 100).refused(400, "duplicate_token_id")["order"]["status"] == "cancelled"
    bob = Person("bob")
    bob.deposit("USDT", 100)
    assert bob.place("a", "buy", 1, 100).status == 201


def test_missing_funds_are_told_as_numbers_and_the_token_id_stays_free(alice: Person) -> None:
    told = alice.place("a", "buy", 2, "50000.5").refused(400, "insufficient_funds")
    assert (told["asset"], told["needed"], told["available"]) == ("USDT", 100_001, 100_000)
    assert alice.place("a", "buy", 2, 50_000).status == 201


def test_an_amendment_that_is_refused_leaves_the_order_as_it_was(alice: Person) -> None:
    order = alice.place("a", "buy", 1, 100).json
    for body in ({}, {"price": 100}, {"price": "100.0", "quantity": 1}, {"price": None}):
        alice.ask("PUT", "/orders/a", body).refused(400, "nothing_to_change")
    alice.ask("PUT", "/orders/a", {"price": 100_001}).refused(400, "insufficient_funds")
    assert alice.get("/orders/a") == order


def test_an_amendment_that_crosses_executes_at_once(desk: Desk, alice: Person) -> None:
    quoted(desk)
    alice.place("a", "buy", 1, 100)
    amended = alice.ask("PUT", "/orders/a", {"price": 50_000})
    assert (amended.status, amended["status"], amended["execution_price"]) == (200, "filled", 50_000)


@pytest.mark.parametrize("token", ODD_TOKENS)
def test_any_printable_token_id_is_a_path(alice: Person, token: str) -> None:
    order = alice.place(token, "buy", 1, 1).json
    assert order["token_id"] == token
    path = f"/orders/{quote(token, safe='')}"
    assert alice.get(path) == order
    assert alice.ask("PUT", path, {"price": 2})["price"] == 2
    assert alice.ask("DELETE", path)["status"] == "cancelled"


@pytest.mark.parametrize(
    "path",
    ["missing", "%00", "%0a", "a%00", "%20", "%ff", "%C3%A9", "a%2Fb", "..%2F..", "a" * 129, "a" * 5_000,
     "%F0%9F%92%A9", SOMEBODYS],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_order_that_cannot_be_is_not_found(alice: Person, method: str, path: str) -> None:
    answer = alice.ask(method, f"/orders/{path}", {"price": 1} if method == "PUT" else None)
    assert answer.status == 404
    assert answer["code"] in ("order_not_found", "not_found")


def test_what_is_anothers_is_not_found(desk: Desk, alice: Person) -> None:
    quoted(desk)
    order = alice.place("a", "buy", 1, 50_000).json
    bob = Person("bob")
    for name in ("a", order["id"]):
        for method, body in (("GET", None), ("PUT", {"price": 1}), ("DELETE", None)):
            bob.ask(method, f"/orders/{name}", body).refused(404, "order_not_found")
        bob.ask("GET", f"/fills?order={name}").refused(404, "order_not_found")
    assert bob.get("/orders") == {"orders": [], "next_cursor": None}
    assert bob.get("/fills") == {"fills": [], "next_cursor": None}
    assert bob.get("/ledger") == {"entries": [], "next_cursor": None}
    assert bob.ask("DELETE", "/orders").json == {"cancelled": 0, "orders": []}


# -- lists


def test_orders_are_listed_newest_first_page_by_page(alice: Person) -> None:
    for number in range(7):
        alice.place(f"t{number}", "buy", 1, 1 + number, symbol="BTCUSDT" if number % 2 else "ETH/USDT")
    alice.ask("DELETE", "/orders/t6")
    pages: list[list[str]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = alice.get(f"/orders?limit=3&cursor={cursor}")
        pages.append([order["token_id"] for order in page["orders"]])
        cursor = page["next_cursor"]
        assert cursor is None or isinstance(cursor, str)
    assert pages == [["t6", "t5", "t4"], ["t3", "t2", "t1"], ["t0"]]
    assert alice.get("/orders?limit=7")["next_cursor"] is None

    def listed(query: str) -> list[str]:
        return [order["token_id"] for order in alice.get(f"/orders?{query}")["orders"]]

    assert listed("status=cancelled") == ["t6"]
    assert listed("status=open&symbol=eth-usdt") == ["t4", "t2", "t0"]
    assert listed("symbol=BTCUSDT&limit=1") == ["t5"]
    assert listed("status=filled") == []


@pytest.mark.parametrize(
    "query",
    ["status=new", "limit=0", "limit=1001", "limit=-1", "limit=1e1", "limit=%EF%BC%91", "limit=1_0", "cursor=x",
     "cursor=-1", "cursor=0", "cursor=9999999999999999999", "cursor=%00", "status=%00", "symbol=%00"],
)  # fmt: skip
def test_a_wrong_query_is_told_with_its_place(alice: Person, query: str) -> None:
    error = alice.ask("GET", f"/orders?{query}").refused(422, "invalid")
    assert error["detail"][0]["loc"] == ["query", query.partition("=")[0]]


def test_unknown_symbols_and_assets_are_refused(alice: Person) -> None:
    for path in ("/orders?symbol=NOPE", "/orders?symbol=B%20T", "/fills?symbol=NOPE"):
        alice.ask("GET", path).refused(400, "unknown_symbol")
    alice.ask("GET", "/ledger?asset=NOPE").refused(400, "unknown_asset")
    alice.ask("GET", "/ledger?kind=nope").refused(422, "invalid")
    alice.ask("GET", "/ledger?format=xml").refused(422, "invalid")


def test_a_list_costs_the_same_queries_whatever_its_length(
    desk: Desk, alice: Person, django_assert_num_queries: Any
) -> None:
    quoted(desk)
    for number in range(20):
        alice.place(f"t{number}", "buy", "0.01", 50_000)
    user = 1
    with django_assert_num_queries(user + 2):
        assert len(alice.get("/orders")["orders"]) == 20
    with django_assert_num_queries(user + 2):
        assert len(alice.get("/fills")["fills"]) == 20
    with django_assert_num_queries(user + 1):
        assert len(alice.get("/ledger")["entries"]) == 41
    with django_assert_num_queries(user + 1):
        alice.get("/balance")


def test_fills_are_listed_with_their_orders_names(desk: Desk, alice: Person) -> None:
    quoted(desk)
    first = alice.place("a", "buy", "0.5", 50_000).json
    alice.place("b", "sell", "0.5", 49_000)
    page = alice.get("/fills?limit=1")
    assert [fill["token_id"] for fill in page["fills"]] == ["b"]
    rest = alice.get(f"/fills?cursor={page['next_cursor']}")
    assert rest == {"fills": first["fills"], "next_cursor": None}
    assert alice.get("/fills?order=a") == alice.get(f"/fills?order={first['id']}") == rest
    assert alice.get("/fills?symbol=ETHUSDT")["fills"] == []


def test_the_ledgers_entries_add_up_to_the_balances(desk: Desk, alice: Person) -> None:
    quoted(desk)
    alice.place("a", "buy", "0.12345678", "50000")
    alice.place("b", "sell", "0.02345678", "49000")
    entries = alice.get("/ledger")["entries"]
    sums: dict[str, Decimal] = {}
    for entry in entries:
        sums[entry["asset"]] = sums.get(entry["asset"], Decimal(0)) + entry["amount"]
    assert sums == {asset: total for asset, (total, _) in alice.totals().items()}
    assert [entry["kind"] for entry in entries] == ["fill", "fill", "fill", "fill", "deposit"]
    assert entries[-1]["fill_id"] is None
    assert {entry["fill_id"] for entry in entries[:-1]} == {fill["fill_id"] for fill in alice.get("/fills")["fills"]}
    assert [entry["asset"] for entry in alice.get("/ledger?asset=btc")["entries"]] == ["BTC", "BTC"]
    assert len(alice.get("/ledger?kind=deposit")["entries"]) == 1


async def download(path: str, token: str, accept: str = "*/*") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", "Accept": accept}
    transport = httpx.ASGITransport(app=application)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.get(path, headers=headers)


@pytest.mark.parametrize("accept", ["*/*", "text/csv", "text/html,application/xhtml+xml"])
async def test_the_ledger_and_the_fills_are_downloaded_as_tables(
    desk: Desk, alice: Person, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    monkeypatch.setattr(views, "CSV_ROWS", 2)  # so that it takes several reads
    quoted(desk)
    for number in range(3):
        await aside(alice.place, f"t{number}", "buy", "0.00000001", 50_000)
    for path in ("ledger", "fills"):
        page = await aside(alice.get, f"/{path}")
        expected = page["entries" if path == "ledger" else "fills"]
        answer = await download(f"/{path}?format=csv", alice.token, accept)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        name = re.fullmatch(r'attachment; filename="(.+)"', answer.headers["Content-Disposition"])
        assert name
        assert re.fullmatch(path + r"-alice-\d{4}-\d\d-\d\d\.csv", name[1])
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert len(rows) == len(expected)
        for row, entry in zip(rows, expected, strict=True):
            for column, text in row.items():
                value = entry[column]
                shown = format(value, "f") if isinstance(value, Decimal) else str(value)
                assert text == ("" if value is None else shown)
        assert len((await download(f"/{path}?format=csv&limit=2", alice.token)).text.splitlines()) == 3
    assert "0.00000001" in answer.text
    refused = await download("/fills?format=csv&order=nope", alice.token, accept)
    assert (refused.status_code, refused.headers["Content-Type"]) == (404, "application/json")


# -- cancel all, reset


def test_all_orders_are_cancelled_or_those_of_a_symbol(alice: Person) -> None:
    for token, symbol in (("a", "BTCUSDT"), ("b", "ETHUSDT"), ("c", "ETHUSDT")):
        alice.place(token, "buy", 1, 10, symbol=symbol)
    ended = alice.ask("DELETE", "/orders?symbol=eth/usdt").json
    assert ended["cancelled"] == 2
    assert {(order["token_id"], order["status"]) for order in ended["orders"]} == {
        ("b", "cancelled"),
        ("c", "cancelled"),
    }
    assert alice.get("/orders/a")["status"] == "open"
    assert alice.ask("DELETE", "/orders").json["cancelled"] == 1
    assert alice.totals() == {"USDT": (100_000, 0)}


@pytest.mark.parametrize(
    "path",
    ["/orders/", "/orders//", "/orders/%20", "/orders?symbol=", "/orders?symbol=NOPE", "/orders?symbols=ETHUSDT",
     "/orders?status=open", "/orders?symbol=%00", "/orders?symbol=%20"],
)  # fmt: skip
def test_a_slip_never_cancels_everything(alice: Person, path: str) -> None:
    alice.place("a", "buy", 1, 10)
    assert alice.ask("DELETE", path).status in (400, 404, 422)
    assert alice.get("/orders/a")["status"] == "open"


@pytest.mark.parametrize(
    ("body", "expected"),
    [(None, {}), ({}, {}), ({"balances": {}}, {}),
     ({"balances": {"usdt": 1000, "BTC": "0.5"}}, {"USDT": (1000, 0), "BTC": (Decimal("0.5"), 0)})],
)  # fmt: skip
def test_a_reset_cancels_everything_and_keeps_history(
    desk: Desk, alice: Person, body: Any, expected: dict[str, Any]
) -> None:
    quoted(desk)
    alice.place("filled", "buy", 1, 50_000)
    alice.place("open", "buy", 1, 10)
    answer = alice.ask("POST", "/account/reset", body)
    assert answer.status == 200
    assert answer["status"] == "ok"
    assert alice.totals() == expected
    assert {key: answer[key] for key in ("balances", "total", "available", "reserved")} == alice.get("/balance")
    ended = alice.get("/orders/open")
    assert (ended["status"], ended["reason"]) == ("cancelled", "account_reset")
    assert alice.get("/orders/filled")["status"] == "filled"
    alice.place("open", "buy", 1, 10).refused(400, "duplicate_token_id")
    assert len(alice.get("/fills")["fills"]) == 1


@pytest.mark.parametrize("balances", [{"NOPE": 1}, {"USDT": 1, "NOPE": 1}, {"USDT": 80_000_000_000}])
def test_a_reset_that_is_refused_changes_nothing(alice: Person, balances: Any) -> None:
    alice.place("a", "buy", 1, 10)
    before = alice.get("/balance")
    assert alice.ask("POST", "/account/reset", {"balances": balances}).status == 400
    assert alice.get("/balance") == before
    assert alice.get("/orders/a")["status"] == "open"


# -- for people


@pytest.mark.parametrize(
    "path", ["/deposit", "/balance", "/orders", "/orders/a", "/fills", "/ledger", "/account/reset"]
)
def test_nothing_is_for_strangers(client: Client, transactional_db: None, path: str) -> None:
    methods = {"/deposit": "POST", "/account/reset": "POST"}
    response = client.generic(methods.get(path, "GET"), path, b"{}", "application/json")
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_browser_places_an_order_with_the_raw_form(alice: Person) -> None:
    browser = Client(enforce_csrf_checks=True)
    page = browser.get("/session/login?next=/orders")
    csrf = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.content.decode())
    assert csrf
    form = {"username": "alice", "password": PASSWORD, "csrfmiddlewaretoken": csrf[1], "next": "/orders"}
    assert browser.post("/session/login", form).headers["Location"] == "/orders"

    page = browser.get("/orders", HTTP_ACCEPT="text/html")
    text = page.content.decode()
    assert page.status_code == 200
    assert "my-order-1" in text, "the form begins with an example"
    # What the page's script sends: the text as it is, and the token in a header.
    sent = b'{"token_id": "web-1", "symbol": "BTCUSDT", "side": "buy", "price": 10.10, "quantity": 1}'
    refused = browser.post("/orders", sent, content_type="application/json", HTTP_ACCEPT="text/html")
    assert refused.status_code == 403
    made = browser.post(
        "/orders",
        sent,
        content_type="application/json",
        HTTP_ACCEPT="text/html",
        HTTP_X_CSRFTOKEN=browser.cookies["csrftoken"].value,
    )
    assert made.status_code == 201
    assert "web-1" in made.content.decode()
    assert alice.get("/orders/web-1")["price"] == Decimal("10.1")
    for path in ("/orders/web-1", "/balance", "/fills", "/ledger", "/deposit", "/account/reset", "/orders/nope"):
        shown = browser.get(path, HTTP_ACCEPT="text/html")
        assert shown.headers["Content-Type"] == "text/html; charset=utf-8", path
        assert shown.status_code in (200, 404, 405)


def test_the_schema_is_valid_and_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json")
    assert '"/orders/{token}"' in capsys.readouterr().out
