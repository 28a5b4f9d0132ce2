"""The exchange in the admin: looked at, operated through the services, never edited."""

import html
import re
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.http import HttpResponse
from django.test import Client

from accounts.models import User
from tests.trading.desk import Desk, units
from tests.trading.web import Person
from trading import models

MODELS = ("account", "balance", "order", "fill", "entry", "report")


@pytest.fixture
def admin(desk: Desk) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", "password123"))
    return client


@pytest.fixture
def bob(desk: Desk, alice: Person) -> Person:
    """Trades with 1 000 USDT: one order filled in part, one open; alice has traded too."""
    bob = Person("bob")
    bob.deposit("USDT", 1_000)
    desk.quote(ask=[("100", "0.12345678", "okx")])
    bob.place("filled", "buy", 1, 100, order_type="ioc")
    bob.place("open", "buy", 1, "50.5")
    alice.place("filled", "buy", 1, 100)
    return bob


def text(response: Any) -> str:
    assert isinstance(response, HttpResponse)
    assert response.status_code == 200
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def run(admin: Client, model: str, action: str, *keys: Any, **more: Any) -> Any:
    data = {"action": action, "_selected_action": [str(key) for key in keys], **more}
    return admin.post(f"/admin/trading/{model}/", data, follow=True)


@pytest.mark.parametrize("model", MODELS)
def test_every_list_and_page_is_shown_found_and_filtered_but_not_edited(admin: Client, bob: Person, model: str) -> None:
    path = f"/admin/trading/{model}/"
    assert "bob" in text(admin.get(path))
    found = text(admin.get(f"{path}?q=bob"))
    assert "bob" in found
    assert "alice" not in found
    row = getattr(models, model.title()).objects.last()
    page = admin.get(f"{path}{row.pk}/change/")
    assert "Save" not in text(page)
    assert re.search(r"\b\d{12,}\b", text(page)) is None, "units are shown as decimals"
    for refused in (f"{path}add/", f"{path}{row.pk}/delete/"):
        assert admin.post(refused, {"post": "yes"}).status_code == 403
    assert admin.post(f"{path}{row.pk}/change/", {"total": 1, "seq": 9}).status_code == 403


@pytest.mark.parametrize(
    "path",
    ["order/?status=open&side=buy&order_type=limit&instrument=BTC-USDT", "order/?q=filled&venue=okx",
     "fill/?venue=okx&liquidity=taker&q=filled", "entry/?kind=fill&asset=BTC", "balance/?asset=USDT",
     "account/?user__is_active__exact=1&user__tier__exact=BASIC"],
)  # fmt: skip
def test_lists_are_filtered(admin: Client, bob: Person, path: str) -> None:
    assert "bob" in text(admin.get(f"/admin/trading/{path}"))


def test_a_list_costs_the_same_queries_whatever_its_length(
    admin: Client, bob: Person, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        bob.place(f"t{number}", "buy", "0.1", 100)
    for model in MODELS:
        with django_assert_max_num_queries(12):
            admin.get(f"/admin/trading/{model}/")


def test_amounts_are_decimals(admin: Client, bob: Person) -> None:
    assert "0.12345678" in text(admin.get("/admin/trading/fill/?q=bob"))
    shown = text(admin.get("/admin/trading/balance/?q=bob&asset=USDT"))
    assert "987.654322" in shown
    assert "50.5" in shown
    order = models.Order.objects.get(token_id="filled", account__user__username="bob")
    assert "12.345678" in text(admin.get(f"/admin/trading/order/{order.pk}/change/"))
    account = text(admin.get(f"/admin/trading/account/{bob.user.pk}/change/"))
    assert "987.654322" in account


def test_an_operator_credits_an_account(admin: Client, bob: Person) -> None:
    asked = run(admin, "account", "credit", bob.user.pk)
    assert "bob" in text(asked)
    assert "asset" in asked.context["form"].fields
    for wrong in ("", "0", "-1", "NaN", "1_000", "0.000000001", "x"):
        again = run(admin, "account", "credit", bob.user.pk, confirmed="yes", asset="BTC", amount=wrong)
        assert again.context["form"].errors["amount"], wrong
    assert not models.Entry.objects.filter(kind="credit").exists()
    done = run(admin, "account", "credit", bob.user.pk, confirmed="yes", asset="BTC", amount="0.5")
    assert "Credited 0.5 BTC: 1" in text(done)
    entry = models.Entry.objects.get(kind="credit")
    assert (entry.account_id, entry.asset, entry.amount) == (bob.user.pk, "BTC", units("0.5"))
    assert bob.totals()["BTC"][0] == Decimal("0.62345678")
    assert LogEntry.objects.get().get_change_message() == "credited 0.5 BTC"


def test_a_credit_that_is_refused_is_told(admin: Client, bob: Person) -> None:
    done = run(admin, "account", "credit", bob.user.pk, confirmed="yes", asset="BTC", amount="80000000000")
    assert "no balance may exceed" in text(done)


def test_an_operator_cancels_orders(admin: Client, bob: Person) -> None:
    keys = models.Order.objects.filter(account_id=bob.user.pk).values_list("pk", flat=True)
    shown = text(run(admin, "order", "cancel", *keys))
    assert "Cancelled: 1" in shown
    assert "the order is partially_filled and cannot be changed" in shown
    order = bob.get("/orders/open")
    assert (order["status"], order["reason"]) == ("cancelled", "by_operator")
    assert bob.totals()["USDT"][1] == 0


def test_an_operator_resets_accounts_after_being_asked(admin: Client, alice: Person, bob: Person) -> None:
    keys = (alice.user.pk, bob.user.pk)
    before = bob.totals()
    asked = run(admin, "account", "reset", *keys)
    assert "2 accounts" in text(asked)
    assert bob.totals() == before
    run(admin, "account", "reset", *keys, confirmed="yes")
    assert bob.totals() == alice.totals() == {}
    assert bob.get("/orders/open")["reason"] == "account_reset"


def test_whoever_may_only_look_cannot_operate(desk: Desk, bob: Person) -> None:
    viewer = User.objects.create_user("viewer", "password123", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(viewer)
    assert "bob" in text(client.get("/admin/trading/account/"))
    before = bob.totals()
    run(client, "account", "reset", bob.user.pk, confirmed="yes")
    run(client, "account", "credit", bob.user.pk, confirmed="yes", asset="BTC", amount="1")
    run(client, "order", "cancel", *models.Order.objects.values_list("pk", flat=True))
    assert bob.totals() == before


def test_a_user_with_an_account_is_not_deleted(admin: Client, bob: Person) -> None:
    path = f"/admin/accounts/user/{bob.user.pk}/delete/"
    told = text(admin.get(path))
    assert "would require deleting the following protected related objects" in told
    assert "disable them instead" in told
    assert admin.post(path, {"post": "yes"}).status_code == 200
    data = {"action": "delete_selected", "_selected_action": [str(bob.user.pk)], "post": "yes"}
    admin.post("/admin/accounts/user/", data, follow=True)
    assert bob.get("/balance")["total"]["USDT"] > 0
    newcomer = Person("newcomer")
    admin.post(f"/admin/accounts/user/{newcomer.user.pk}/delete/", {"post": "yes"})
    assert not User.objects.filter(username="newcomer").exists()
    newcomer.ask("GET", "/balance").refused(401, "unauthorized")


def test_users_are_disabled_enabled_and_change_tiers(admin: Client, bob: Person) -> None:
    def act(action: str, *users: User) -> Any:
        data = {"action": action, "_selected_action": [str(user.pk) for user in users]}
        return admin.post("/admin/accounts/user/", data, follow=True)

    root = User.objects.get(username="root")
    assert "You cannot disable yourself" in text(act("disable", bob.user, root))
    bob.ask("GET", "/balance").refused(401, "unauthorized")
    bob.place("x", "buy", 1, 1).refused(401, "unauthorized")
    act("enable", bob.user)
    assert bob.ask("GET", "/balance").status == 200
    act("make_premium", bob.user)
    assert User.objects.get(pk=bob.user.pk).tier == "PREMIUM"
    act("make_basic", bob.user)
    assert User.objects.get(pk=bob.user.pk).tier == "BASIC"
    assert LogEntry.objects.filter(object_id=str(bob.user.pk)).count() == 4


def test_an_operator_is_told_what_a_disabled_users_account_refuses(admin: Client, bob: Person) -> None:
    User.objects.filter(pk=bob.user.pk).update(is_active=False)
    key = models.Order.objects.get(token_id="open").pk
    assert "the user is disabled; enable them first" in text(run(admin, "order", "cancel", key))
    assert models.Order.objects.get(pk=key).status == "open"
