"""Every error, whatever the path and status, is the contract's JSON."""

import errno
import json
import logging
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import DataError, IntegrityError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import include, path
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core import errors
from router_project.errors import answer_for

User = get_user_model()


def _disk_full() -> OperationalError:
    return OperationalError("database or disk is full")


RAISED: dict[str, tuple[Any, int, str]] = {
    "refused": (errors.Refused("no"), 400, "refused"),
    "unknown": (errors.UnknownSymbol("no"), 400, "unknown_symbol"),
    "malformed": (errors.Malformed("no"), 400, "malformed"),
    "unauthorized": (errors.Unauthorized("no"), 401, "unauthorized"),
    "missing": (errors.NotFound("no"), 404, "not_found"),
    "large": (errors.TooLarge("no"), 413, "too_large"),
    "invalid": (errors.Invalid("no", loc=("body", "price")), 422, "invalid"),
    "unavailable": (errors.Unavailable("no", retry_after=7), 503, "unavailable"),
    "down": (OperationalError("connection refused"), 503, "unavailable"),
    "locked": (OperationalError("database is locked"), 503, "unavailable"),
    "full": (_disk_full(), 507, "storage_full"),
    "full file": (OSError(errno.ENOSPC, "No space left on device"), 507, "storage_full"),
    "data": (DataError("out of range"), 400, "refused"),
    "conflict": (IntegrityError("unique"), 409, "conflict"),
    "deep": (RecursionError(), 400, "malformed"),
    "bug": (ZeroDivisionError("secret words"), 500, "internal"),
}


class Raising(APIView):
    permission_classes = (AllowAny,)

    def get(self, _request: Request, name: str) -> Response:
        raise RAISED[name][0]


class Echo(APIView):
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user), "path": request.path})

    def post(self, request: Request) -> Response:
        return Response({"data": request.data})

    def delete(self, request: Request, name: str = "") -> Response:
        return Response({"deleted": name})


def plain(_request: HttpRequest, name: str) -> HttpResponse:
    raise RAISED[name][0]


urlpatterns = [
    path("raise/<str:name>", Raising.as_view()),
    path("plain/<str:name>", plain),
    path("things", Echo.as_view()),
    path("things/<str:name>", Echo.as_view()),
    path("", include("router_project.urls")),
]
handler400 = "router_project.errors.bad_request"
handler403 = "router_project.errors.permission_denied"
handler404 = "router_project.errors.not_found"
handler500 = "router_project.errors.server_error"

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


def error(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = json.loads(response.content)
    assert {"detail", "message", "code"} <= set(body)
    assert isinstance(body["message"], str)
    assert "\n" not in body["message"]
    assert body["code"] == code
    return body


@pytest.mark.parametrize("kind", ["raise", "plain"])
@pytest.mark.parametrize("name", RAISED)
def test_an_exception_has_its_status_and_its_shape(client: Client, kind: str, name: str) -> None:
    _, status, code = RAISED[name]
    response = client.get(f"/{kind}/{name}")
    body = error(response, status, code)
    assert ("Retry-After" in response.headers) == (status == 503)
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert "secret words" not in response.content.decode()
    if status == 422:
        assert body["detail"] == [{"loc": ["body", "price"], "msg": "no", "type": "value_error"}]
        assert body["message"] == "price: no"
    else:
        assert body["detail"] == body["message"]
    assert "retry_after" not in body


def test_a_hint_when_to_come_again_is_a_header(client: Client) -> None:
    assert client.get("/raise/unavailable").headers["Retry-After"] == "7"


def test_details_of_a_refusal_are_members_of_the_body() -> None:
    found = answer_for(errors.Refused("used twice", order={"token_id": "a"}))
    assert found is not None
    assert found.body["order"] == {"token_id": "a"}


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
@pytest.mark.parametrize(
    "url", ["/nowhere", "/nowhere/", "/a/b/c", "/static/none.css", "/%00", "/%ff%fe", "/a//b", "/..;/x"]
)
def test_an_unknown_address_is_not_found(client: Client, method: str, url: str) -> None:
    error(getattr(client, method)(url), 404, "not_found")


@pytest.mark.parametrize(
    "url", ["/login", "/info", "/token/refresh/", "/klines/all/BTCUSDT", "/health", "/", "/ws-docs", "/asyncapi.json"]
)
@pytest.mark.parametrize("accept", ["application/json", "*/*"])
def test_a_wrong_method_names_the_right_ones(client: Client, url: str, accept: str) -> None:
    response = client.patch(url, HTTP_ACCEPT=accept)
    error(response, 405, "method_not_allowed")
    assert response.headers["Allow"]


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "application/xml", "",
     "application/json; charset=latin-1", "application/json; charset=bogus", "json"],
)  # fmt: skip
def test_a_body_that_is_not_json_by_its_type_is_unsupported(client: Client, content_type: str) -> None:
    error(client.generic("POST", "/things", b'{"a":1}', content_type=content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=UTF-8", "Application/JSON"])
def test_json_is_read_exactly_and_written_exactly(client: Client, content_type: str) -> None:
    body = b'{"a":0.1,"b":12345678901234567.123456789,"c":1e3,"d":[],"e":null}'
    answer = client.generic("POST", "/things", body, content_type=content_type)
    assert answer.content == b'{"data":{"a":0.1,"b":12345678901234567.123456789,"c":1000,"d":[],"e":null}}'


@pytest.mark.parametrize("body", [b"{", b'{"a":1,"a":2}', b"[" * 1000, b"NaN", b"\xff", b'"\\ud800"'])
def test_a_malformed_body_is_a_bad_request(client: Client, body: bytes) -> None:
    error(client.generic("POST", "/things", body, content_type="application/json"), 400, "malformed")


def test_a_large_body_is_too_large(client: Client) -> None:
    body = b'"' + b"a" * 70_000 + b'"'
    error(client.generic("POST", "/things", body, content_type="application/json"), 413, "too_large")


def test_a_foreign_host_is_refused(client: Client) -> None:
    for url in ("/info", "/nowhere", "/admin/", "/"):
        error(client.get(url, HTTP_HOST="evil.example"), 400, "bad_host")


def test_an_unacceptable_format_is_told_in_json(client: Client) -> None:
    error(client.get("/things", HTTP_ACCEPT="application/xml"), 406, "not_acceptable")


def test_a_session_needs_its_csrf_token(client: Client) -> None:
    checked = Client(enforce_csrf_checks=True)
    checked.force_login(User.objects.create_user("alice", "password123"))
    response = checked.post("/things", b"{}", content_type="application/json")
    assert "CSRF" in error(response, 403, "forbidden")["message"]
    error(checked.post("/admin/login/", {"username": "a", "password": "b"}), 403, "csrf_failed")


@override_settings(DEBUG=True)
def test_debug_pages_are_for_browsers_only(client: Client) -> None:
    error(client.get("/nowhere", HTTP_ACCEPT="*/*"), 404, "not_found")
    error(client.get("/plain/bug"), 500, "internal")
    assert client.get("/nowhere", HTTP_ACCEPT="text/html").headers["Content-Type"].startswith("text/html")


def test_a_browser_sees_the_browsable_api_with_the_raw_form_only(client: Client) -> None:
    page = client.get("/things", HTTP_ACCEPT="text/html,*/*;q=0.1")
    assert page.status_code == 200
    text = page.content.decode()
    assert "<textarea" in text
    assert 'value="application/json"' in text
    assert "multipart/form-data" not in text
    assert "/session/login" in text
    failed = client.get("/raise/refused", HTTP_ACCEPT="text/html")
    assert failed.status_code == 400
    assert "refused" in failed.content.decode()


def test_a_user_logs_into_a_session_by_the_browsable_api() -> None:
    User.objects.create_user("alice", "password123")
    browser = Client()
    response = browser.post("/session/login", {"username": "ALICE", "password": "password123", "next": "/things"})
    assert (response.status_code, response.headers["Location"]) == (302, "/things")
    assert browser.get("/things").json()["user"] == "alice"


def test_a_trailing_slash_is_tolerated_but_an_empty_id_deletes_nothing(client: Client) -> None:
    assert client.get("/things/").json()["path"] == "/things"
    assert client.post("/things/", b"{}", content_type="application/json").json() == {"data": {}}
    assert client.delete("/things").json() == {"deleted": ""}
    assert client.delete("/things/a/").json() == {"deleted": "a"}
    error(client.delete("/things/"), 404, "not_found")
    error(client.get("/things//"), 404, "not_found")


def test_a_fault_of_ours_is_logged_and_an_expected_503_is_not(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    def faults() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "django.request"]

    for kind in ("raise", "plain"):
        client.get(f"/{kind}/unavailable")
        client.get(f"/{kind}/down?token=secret")
        assert faults() == []
    client.get("/raise/bug?token=secret")
    assert faults() == ["Internal Server Error: /raise/bug"]


@pytest.mark.django_db
def test_the_schemas_address_refuses_in_plain_json(client: Client) -> None:
    """Its renderer has a media type of its own, which no client of errors knows."""
    answer = client.post("/openapi.json", b"{}", "application/json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (405, "application/json")
    assert answer.json()["code"] == "method_not_allowed"
    assert "GET" in answer.headers["Allow"]


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_that_nobody_can_read_is_refused_in_json(client: Client, page: str) -> None:
    answer = client.get(page, headers={"accept": "image/png"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (406, "application/json")
    assert answer.json()["code"] == "not_acceptable"


@pytest.mark.django_db
@pytest.mark.parametrize("target", ["/info?" + "a=1&" * 300, "/admin/login/?" + "a=1&" * 300])
def test_a_clients_nonsense_is_no_fault_in_our_log(
    client: Client, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    assert client.get(target).json()["code"] == "bad_request"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
