"""What stands between a user's browser and foreign web pages: CSRF, CORS, Host, cookies, headers."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.conf import LazySettings
from django.core.handlers.asgi import ASGIHandler
from django.test import Client

from accounts.models import User
from core import strict_json
from router_project.asgi import application
from router_project.middleware import CONTENT_POLICY
from router_project.throttle import Throttle
from tests.security.test_tenancy import BODIES, METHODS, PUBLIC
from tests.trading.desk import Desk
from tests.trading.web import Person
from trading import models

PAGES = ["/", "/docs", "/docs?script=", "/redoc", "/ws-docs", "/admin/login/", "/session/login", "/info"]
EVIL = "https://evil.example"
DESK = "https://desk.example"


@pytest.fixture
def browser(desk: Desk, alice: Person) -> Client:
    """Alice's browser, logged into a session by the form."""
    browser = Client(enforce_csrf_checks=True, headers={"accept": "text/html"})
    browser.get("/session/login")
    form = {"username": "alice", "password": "password123", "csrfmiddlewaretoken": browser.cookies["csrftoken"].value}
    assert browser.post("/session/login", form).status_code == 302
    return browser


def writes(client: Client) -> Iterator[tuple[str, str]]:
    """Yield every operation of the schema that changes something of a user's."""
    paths = client.get("/openapi.json", headers={"accept": "application/json"}).json()["paths"]
    for path, item in paths.items():
        for method in METHODS:
            if method in item and method != "get" and path not in PUBLIC:
                yield method, path


def test_a_session_changes_nothing_without_its_csrf_token(browser: Client, alice: Person) -> None:
    assert alice.place("resting", "buy", 1, 10).status == 201
    before = (alice.get("/balance"), alice.get("/orders"), alice.get("/ledger"))
    operations = list(writes(browser))
    assert len(operations) > 7
    for method, path in operations:
        address = path.replace("{token}", "resting").replace("{key_id}", "1")
        body = strict_json.dumps(BODIES.get((method, path), {}))
        for headers in ({}, {"origin": EVIL}, {"x-csrftoken": "a" * 64}):
            refused = browser.generic(method.upper(), address, body, "application/json", headers=headers)
            assert refused.status_code == 403, (method, path, headers)
    assert (alice.get("/balance"), alice.get("/orders"), alice.get("/ledger")) == before
    token = browser.cookies["csrftoken"].value
    body = strict_json.dumps({"asset": "USDT", "amount": 1})
    taken = browser.generic("POST", "/deposit", body, "application/json", headers={"x-csrftoken": token})
    assert taken.status_code == 200, "the control: with its token the same request is taken"


def test_a_form_of_a_foreign_page_is_not_read(browser: Client) -> None:
    """What a page can send without asking first is no JSON: even a right CSRF token would not make it one."""
    token = browser.cookies["csrftoken"].value
    for content_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"):
        sent = browser.generic("POST", "/deposit", b"{}", content_type, headers={"x-csrftoken": token})
        assert sent.status_code == 415, content_type


def test_a_log_in_leads_nowhere_else(desk: Desk, alice: Person) -> None:
    for target in (EVIL, "//evil.example", "https:evil.example", "javascript:alert(1)", "\\\\evil.example"):
        client = Client()
        form = {"username": "alice", "password": "password123", "next": target}
        answer = client.post("/session/login", form)
        assert (answer.status_code, answer.headers["Location"]) == (302, "/"), target


def test_a_session_gets_a_new_id_at_log_in_and_ends_with_its_user(browser: Client, alice: Person) -> None:
    planted = Client()
    planted.get("/admin/")
    session = planted.session
    session["planted"] = True
    session.save()
    before = session.session_key
    planted.post("/session/login", {"username": "alice", "password": "password123"})
    assert planted.session.session_key != before, "who planted a session does not share it after the log-in"
    asked: Any = {"headers": {"accept": "application/json"}}
    assert browser.get("/balance", **asked).status_code == 200
    user = User.objects.get(username="alice")
    user.set_password("another one")
    user.save()
    assert browser.get("/balance", **asked).status_code == 401
    browser.force_login(user)
    assert browser.get("/balance", **asked).status_code == 200
    User.objects.filter(username="alice").update(is_active=False)
    assert browser.get("/balance", **asked).status_code == 401


@pytest.mark.django_db
def test_cookies_are_kept_from_scripts_foreign_pages_and_plain_http(settings: LazySettings) -> None:
    User.objects.create_user("alice", "password123")
    for https in (False, True):
        settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = https
        client = Client()
        client.get("/session/login")
        client.post("/session/login", {"username": "alice", "password": "password123"})
        session, csrf = client.cookies["sessionid"], client.cookies["csrftoken"]
        assert session["httponly"]
        assert session["samesite"] == csrf["samesite"] == "Lax"
        assert (bool(session["secure"]), bool(csrf["secure"])) == (https, https)


@pytest.mark.django_db
def test_other_web_pages_may_read_us_only_where_they_are_named(client: Client, settings: LazySettings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [DESK]
    for origin in (EVIL, "null", f"{DESK}.evil.example", DESK.replace("https", "http"), f"{DESK}:444"):
        for method in ("GET", "OPTIONS"):
            headers = {"origin": origin, "access-control-request-method": "POST"}
            answer = client.generic(method, "/info", headers=headers)
            assert not [name for name in answer.headers if name.startswith("Access-Control-Allow")], origin
    asked = client.options("/orders", headers={"origin": DESK, "access-control-request-method": "POST"})
    assert asked.headers["Access-Control-Allow-Origin"] == DESK
    assert "authorization" in asked.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in asked.headers, "cookies are for our own pages"


@pytest.mark.django_db
@pytest.mark.parametrize("page", [*PAGES, "/nowhere", "/balance", "/static/router_project/home.js"])
@pytest.mark.parametrize("accept", ["text/html", "*/*"])
def test_every_answer_says_how_browsers_shall_treat_it(client: Client, page: str, accept: str) -> None:
    headers = client.get(page, headers={"accept": accept}).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Content-Security-Policy"] == CONTENT_POLICY
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    if not page.startswith("/static/"):
        assert "no-store" in headers["Cache-Control"]
    for rule in ("default-src 'self'", "frame-ancestors 'none'", "object-src 'none'", "base-uri 'none'"):
        assert rule in CONTENT_POLICY
    assert "script-src" not in CONTENT_POLICY, "scripts follow default-src: files of ours alone"


async def test_the_short_road_says_so_too(desk: Desk) -> None:
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get("/balance", headers={"Authorization": "Bearer none"})
    assert answer.status_code == 401
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.django_db
@pytest.mark.parametrize("https", [False, True])
async def test_https_is_remembered_by_browsers_and_its_forms_are_taken(settings: LazySettings, https: bool) -> None:
    """Behind a proxy that ends TLS every request arrives in plain HTTP; `HTTPS` says that it was none."""
    settings.HTTPS = settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = https
    settings.SECURE_HSTS_SECONDS = 31_536_000 if https else 0
    transport = httpx.ASGITransport(Throttle(ASGIHandler()))  # with middleware that was made with these settings
    origin = "https://localhost"
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        page = await http.get("/session/login")
        assert page.headers.get("Strict-Transport-Security") == ("max-age=31536000" if https else None)
        cookie = page.headers["Set-Cookie"]
        assert ("Secure" in cookie) == https
        token = cookie.partition("csrftoken=")[2].partition(";")[0]
        form = {"username": "nobody", "password": "password123", "csrfmiddlewaretoken": token}
        headers = {"Origin": origin, "Cookie": f"csrftoken={token}", "Referer": f"{origin}/session/login"}
        answer = await http.post("/session/login", data=form, headers=headers)
        assert answer.status_code == (200 if https else 403), (
            "a form of an https page comes from another origin than http"
        )


@pytest.mark.django_db
def test_what_a_host_header_says_is_never_repeated(client: Client) -> None:
    for host in ("evil.example", "localhost.evil.example", "localhost@evil.example", "evil.example:80", "[::2]", "a b"):
        for path in ("/", "/docs", "/admin/login/", "/openapi.json", "/session/login"):
            answer = client.get(path, headers={"host": host, "x-forwarded-host": host})
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_host"), host
            assert "evil" not in answer.content.decode()
    fine = client.get("/docs", headers={"x-forwarded-host": "evil.example"})
    assert fine.status_code == 200
    assert "evil" not in fine.content.decode()


def test_a_deposit_of_the_browsable_page_is_one(browser: Client) -> None:
    """The control of them all: a person's own page works, so that what was refused was refused for its reason."""
    token = browser.cookies["csrftoken"].value
    body = b'{"asset": "BTC", "amount": 1}'
    page = browser.generic("POST", "/deposit", body, "application/json", headers={"x-csrftoken": token})
    assert page.headers["Content-Type"].startswith("text/html")
    assert models.Entry.objects.filter(asset="BTC", kind="deposit").count() == 1
