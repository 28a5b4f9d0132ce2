"""What is one user's is not another's: every operation of the schema is asked for it, in every way there is."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts import services as accounts
from accounts.models import User
from core import strict_json
from tests.trading.desk import Desk
from tests.trading.web import Person
from trading import models

METHODS = ("get", "post", "put", "delete")
PUBLIC = {
    "/register", "/login", "/auth/register", "/auth/login", "/token/refresh", "/info", "/exchanges",
    "/exchanges/{exchange}/pairs", "/klines/{exchange}/{symbol}", "/orderbook/{exchange}/{symbol}", "/status",
    "/metrics", "/health", "/ready",
}  # fmt: skip
ORDER = {"token_id": "bobs", "symbol": "BTCUSDT", "side": "buy", "price": 1, "quantity": 1}
# What an operation needs to be well-formed. A new one that takes a body has to be added here.
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/api-keys"): {"name": "bobs"},
    ("post", "/deposit"): {"asset": "USDT", "amount": 7},
    ("post", "/orders"): ORDER,
    ("post", "/orders/twap"): {
        "symbol": "BTCUSDT", "side": "buy", "total_quantity": 1, "duration_seconds": 60, "slices": 6, "limit_price": 1,
    },
    ("put", "/orders/{token}"): {"price": 2},
    ("post", "/account/reset"): {},
}  # fmt: skip

Operation = tuple[str, str]


@pytest.fixture
def operations(desk: Desk) -> list[Operation]:
    paths = Client().get("/openapi.json").json()["paths"]
    found = [(method, path) for path, item in paths.items() for method in METHODS if method in item]
    assert len(found) > 20
    return found


class Owner:
    """Alice, with something of everything, and the words by which it is known."""

    def __init__(self, desk: Desk, alice: Person) -> None:
        self.person = alice
        desk.quote(bid=[("99", "1", "okx")], ask=[("100", "1", "okx")])
        assert alice.place("alice-filled", "buy", "0.5", 100).status == 201
        assert alice.place("alice-open", "buy", "0.25", 50).status == 201
        twap = {**BODIES["post", "/orders/twap"], "token_id": "alice-twap"}
        assert alice.ask("POST", "/orders/twap", twap).status == 200
        self.key = accounts.make_key(user_id=alice.user.pk, name="alice-key")
        self.orders = [order["id"] for order in alice.get("/orders")["orders"]]
        fills = [fill["fill_id"] for fill in alice.get("/fills")["fills"]]
        assert fills
        assert len(self.orders) == 3
        tokens = ["alice-filled", "alice-open", "alice-twap"]
        self.ids = {"token": [*tokens, *self.orders], "key_id": [str(self.key.key.pk)]}
        self.words = [*tokens, *self.orders, *fills, "alice", self.key.raw, alice.token]

    def state(self) -> dict[str, Any]:
        """Return all that the owner can see, and the rows behind it."""
        paths = ("/balance", "/orders?limit=1000", "/fills?limit=1000", "/ledger?limit=1000", "/api-keys")
        rows = [
            list(model.objects.filter(account_id=self.person.user.pk).order_by("pk").values())
            for model in (models.Balance, models.Order, models.Entry, models.Fill, models.Report)
        ]
        user = User.objects.filter(pk=self.person.user.pk).values().get()
        return {path: self.person.get(path) for path in paths} | {"rows": rows, "user": user}


@pytest.fixture
def owner(desk: Desk, alice: Person) -> Owner:
    return Owner(desk, alice)


def addressed(path: str, ids: dict[str, list[str]]) -> Iterator[str]:
    """Yield the path with each of the ids in its place."""
    for name, known in ids.items():
        if f"{{{name}}}" in path:
            for one in known:
                yield from addressed(path.replace(f"{{{name}}}", one), ids)
            return
    yield path.format_map({"exchange": "all", "symbol": "BTCUSDT"})


def questions(owner: Owner) -> list[str]:
    """Return the queries that name another's things, or another user outright."""
    user_id = owner.person.user.pk
    orders = [f"?order={token}" for token in owner.ids["token"]]
    users = [f"?{name}={user_id}" for name in ("user", "user_id", "account", "account_id")]
    return ["", "?limit=1000", "?cursor=999999999", "?format=csv", *orders, *users, "?username=alice"]


async def whole(answer: Any) -> bytes:
    return b"".join([part async for part in answer.streaming_content]) if answer.streaming else answer.content


def test_no_operation_tells_or_touches_what_is_another_users(
    owner: Owner, desk: Desk, operations: list[Operation]
) -> None:
    bob = Person("bob")
    before = owner.state()
    asked = 0
    for method, path in operations:
        if path in PUBLIC:
            continue
        body = BODIES.get((method, path))
        assert body is not None or method in ("get", "delete"), f"say above what {method} {path} takes"
        if body is not None:  # whose it is, is not for the body to say
            body = {**body, "user_id": owner.person.user.pk, "account_id": owner.person.user.pk, "username": "alice"}
        for address in addressed(path, owner.ids):
            for query in questions(owner) if method in ("get", "delete") else [""]:
                content = b"" if body is None else strict_json.dumps(body)
                answer = bob.http.generic(
                    method.upper(),
                    address + query,
                    content,
                    "application/json",
                    HTTP_AUTHORIZATION=f"Bearer {bob.token}",
                )
                told = async_to_sync(whole)(answer)
                asked += 1
                said = [word for word in owner.words if word.encode() in told]
                assert said == [], (method, address + query, told)
                if "{" in path:
                    assert answer.status_code in (404, 422), (method, address, told)
    assert asked > 100
    assert owner.state() == before


def test_what_needs_a_user_is_closed_to_everybody_else(desk: Desk, operations: list[Operation]) -> None:
    """Each operation but those listed above answers 401, whatever it is asked and however well-formed."""
    nobody = Client()
    opened = set()
    for method, path in operations:
        (address,) = addressed(path, {"token": ["x"], "key_id": ["1"]})
        body = strict_json.dumps(BODIES.get((method, path), {}))
        answer = nobody.generic(method.upper(), address, body, "application/json")
        if answer.status_code == 401 and path not in ("/login", "/auth/login", "/token/refresh"):
            assert answer.json()["code"] == "unauthorized"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        else:
            opened.add(path)
    assert opened == PUBLIC


@pytest.mark.parametrize("who", ["nobody", "a user", "an operator without rights"])
def test_the_admin_shows_nothing_to_whom_it_is_not_for(owner: Owner, who: str) -> None:
    visitor = Client()
    user = User.objects.create_user("visitor", "password123", is_staff=who.startswith("an operator"))
    order = models.Order.objects.filter(account_id=owner.person.user.pk).first()
    assert order is not None
    ids = {"object_id": str(order.pk), "id": str(owner.person.user.pk), "app_label": "trading"}
    before = owner.state()
    addresses = list(admin_addresses(ids))
    assert len(addresses) > 40
    for address in addresses:
        if who != "nobody":
            visitor.force_login(user)  # one of the addresses logs out
        for answer in (visitor.get(address), visitor.post(address, {"post": "yes", "action": "reset", "confirmed": 1})):
            if answer.status_code == 200:
                assert address in ADMIN_OPEN or (who.startswith("an operator") and address in STAFF_OPEN), address
            else:
                assert answer.status_code in (302, 403, 404, 405), address
            assert not [word for word in owner.words if word.encode() in answer.content], address
    assert owner.state() == before


ADMIN_OPEN = {"/admin/login/", "/admin/jsi18n/", "/admin/logout/"}
STAFF_OPEN = {"/admin/", "/admin/password_change/", "/admin/password_change/done/"}


def admin_addresses(ids: dict[str, str]) -> Iterator[str]:
    def walk(patterns: Any, prefix: str) -> Iterator[str]:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, route)
            elif isinstance(pattern, URLPattern):
                yield route

    for route in walk(get_resolver().url_patterns, "/"):
        if route.startswith("/admin/"):
            for name, value in ids.items():
                for kind in ("path:", "int:", "str:", ""):
                    route = route.replace(f"<{kind}{name}>", value)
            if "(?P" not in route and "<" not in route:
                yield route


def test_an_operator_who_may_change_users_becomes_no_superuser(desk: Desk) -> None:
    operator = User.objects.create_user("operator", "password123", is_staff=True)
    operator.user_permissions.set(Permission.objects.filter(content_type__app_label="accounts"))
    root = User.objects.create_superuser("root", "password123")
    alice = User.objects.create_user("alice", "password123")
    browser = Client()
    browser.force_login(operator)

    def change(user: User, **fields: Any) -> int:
        data = {"username": user.username, "tier": "PREMIUM", "is_active": "on", **fields}
        return browser.post(f"/admin/accounts/user/{user.pk}/change/", data).status_code

    rights = {"is_staff": "on", "is_superuser": "on", "user_permissions": [Permission.objects.all()[0].pk]}
    assert change(alice, **rights) == 302
    assert change(operator, **rights) == 403
    assert change(root, username="mine") == 403
    password = {"usable_password": "true", "password1": "taken-over-1", "password2": "taken-over-1"}
    assert browser.post(f"/admin/accounts/user/{root.pk}/password/", password).status_code == 403
    assert browser.post(f"/admin/accounts/user/{root.pk}/delete/", {"post": "yes"}).status_code == 403
    for action in ("disable", "make_premium", "delete_selected"):
        data = {"action": action, "_selected_action": [str(root.pk)], "post": "yes"}
        browser.post("/admin/accounts/user/", data)
    alice.refresh_from_db()
    assert (alice.tier, alice.is_staff, alice.is_superuser) == ("PREMIUM", False, False)
    assert not alice.user_permissions.exists()
    for user in (operator, root):
        was = (user.username, user.password, user.tier, user.is_active, user.is_superuser)
        user.refresh_from_db()
        assert was == (user.username, user.password, user.tier, user.is_active, user.is_superuser)
    browser.force_login(root)
    assert change(alice, **rights) == 302
    alice.refresh_from_db()
    assert (alice.is_staff, alice.is_superuser) == (True, True)


def test_markup_in_names_is_shown_as_text(desk: Desk, alice: Person) -> None:
    name = "<img src=x onerror=alert(1)><script>alert(1)<\\script>"
    assert alice.place(name, "buy", 1, 10).status == 201
    browser = Client()
    browser.force_login(alice.user)
    root = Client()
    root.force_login(User.objects.create_superuser("root", "password123"))
    order = models.Order.objects.get(token_id=name)
    for who, address in (
        (browser, "/orders"),
        (browser, f"/orders/{order.id}"),
        (root, "/admin/trading/order/"),
        (root, f"/admin/trading/order/{order.pk}/change/"),
    ):
        page = who.get(address, HTTP_ACCEPT="text/html")
        assert page.status_code == 200
        text = page.content.decode()
        assert "&lt;img src=x" in text or "&lt;script&gt;" in text, address
        assert "<img src=x" not in text, address
        assert "<script>alert" not in text, address
    told = json.loads(browser.get(f"/orders/{order.id}", HTTP_ACCEPT="application/json").content)
    assert told["token_id"] == name
