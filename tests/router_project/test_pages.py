"""The pages for people and the documents for machines, as production serves them."""

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from marketdata.frames import SINGULAR
from router_project.asyncapi import document

pytestmark = pytest.mark.django_db

User = get_user_model()
ASSET = re.compile(r"(?:src|href)=\"([^\"#]+)\"")
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc", "/ws-docs", "/admin/login/", "/session/login", "/login"])
def test_a_page_and_all_its_assets_come_from_here(client: Client, page: str) -> None:
    response = client.get(page, HTTP_ACCEPT="text/html")
    assert response.headers["Content-Type"].startswith("text/html")
    assets = [url for url in ASSET.findall(response.content.decode()) if not url.startswith("data:")]
    own = [url for url in assets if url.startswith("/static/")]
    assert own or page in ("/", "/ws-docs")
    for url in own:
        assert client.get(url).status_code == 200, url
    foreign = [url for url in assets if url.startswith(("http:", "https:", "//"))]
    assert [url for url in foreign if "django-rest-framework.org" not in url] == [], "pages need no internet"


def test_the_front_page_leads_on_and_tells_whether_the_market_is_real(client: Client) -> None:
    text = client.get("/").content.decode()
    for link in ("/docs", "/redoc", "/ws-docs", "/admin/"):
        assert f'href="{link}"' in text
    assert "BTCUSDT" in text


def test_the_admin_serves_its_user_pages(client: Client) -> None:
    client.force_login(User.objects.create_superuser("root1", "password123"))
    user = User.objects.create_user("alice", "password123")
    pages = ["/admin/", "/admin/accounts/user/", "/admin/accounts/user/add/", f"/admin/accounts/user/{user.pk}/change/",
             "/admin/marketdata/storedcandle/", "/admin/marketdata/market/"]  # fmt: skip
    for page in pages:
        assert client.get(page).status_code == 200, page
    made = client.post(
        "/admin/accounts/user/add/",
        {"username": "bob.1", "usable_password": "true", "password1": "password123", "password2": "password123"},
    )
    assert made.status_code == 302
    assert User.objects.get(username="bob.1").check_password("password123")


def _routes(patterns: Any, prefix: str = "/") -> list[tuple[str, Any]]:
    found = []
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            found += _routes(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            found.append((re.sub(r"<\w+:(\w+)>", r"{\1}", prefix + str(pattern.pattern)), pattern.callback))
    return found


def test_the_schema_is_the_same_however_it_is_asked_for(client: Client) -> None:
    """What a query adds ended in a header, and made a new document each time."""
    document = client.get("/openapi.json").content
    for query in ("?version=9", "?version=%0d%0aX-Y:%20z", "?lang=de", "?format=yaml"):
        answer = client.get(f"/openapi.json{query}", headers={"accept": "application/yaml"})
        assert (answer.status_code, answer.content) == (200, document), query


def test_the_schema_describes_every_route_of_ours(client: Client) -> None:
    schema = client.get("/openapi.json").json()
    assert schema["info"]["title"] == "Simple Router"
    assert schema["components"]["securitySchemes"]["bearer"] == {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
    }
    ours = [
        (path, callback)
        for path, callback in _routes(get_resolver().url_patterns)
        if hasattr(callback, "cls") and not callback.cls.__module__.startswith("drf_spectacular")
    ]
    assert len(ours) > 10
    for path, callback in ours:
        methods = METHODS & {name for name in dir(callback.cls) if name in METHODS}
        described = schema["paths"][path]
        assert methods <= set(described), path
        for method in methods:
            operation = described[method]
            assert operation["summary"]
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_the_socket_document_is_whole(client: Client) -> None:
    described = client.get("/asyncapi.json").json()
    assert described["asyncapi"] == "3.0.0"
    messages = described["components"]["messages"]
    assert set(SINGULAR) <= set(messages)
    for channel in described["channels"].values():
        for reference in channel["messages"].values():
            assert reference["$ref"].removeprefix("#/components/messages/") in messages
    for operation in described["operations"].values():
        channel = operation["channel"]["$ref"].removeprefix("#/channels/")
        for reference in operation["messages"]:
            _, _, name = reference["$ref"].partition(f"#/channels/{channel}/messages/")
            assert name in described["channels"][channel]["messages"]
    for name, message in messages.items():
        example = message["examples"][0]["payload"]
        assert set(message["payload"].get("required", ())) <= set(example), name


def test_data_examples_have_the_fields_that_the_hub_writes() -> None:
    from decimal import Decimal

    from core.strict_json import loads
    from core.touch import Best, Touch
    from marketdata import frames

    best = Best(Decimal(1), Decimal(1), "okx", 0)
    written = loads(frames.touch_data("BTCUSDT", "all", Touch(best, best), 0).encode())
    example = document()["components"]["messages"]["best_touch"]["examples"][0]["payload"]["data"]
    assert list(example) == list(written) or set(example) == set(written)


def test_security_headers_are_set(client: Client) -> None:
    headers = client.get("/").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc", "/ws-docs", "/asyncapi.json", "/openapi.json", "/health"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PROPFIND"])
def test_a_page_refuses_other_methods_in_json(client: Client, page: str, method: str) -> None:
    response = client.generic(method, page)
    assert response.status_code == 405
    assert response.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc", "/ws-docs", "/asyncapi.json", "/openapi.json"])
def test_a_page_survives_being_asked_for_its_options(client: Client, page: str) -> None:
    assert client.options(page).status_code in (200, 405)
