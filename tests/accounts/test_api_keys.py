from typing import Any

import pytest
from django.test import Client

from accounts import authentication, services
from accounts.models import ApiKey, User
from core.errors import Unauthorized

pytestmark = pytest.mark.django_db


@pytest.fixture
def token(client: Client) -> str:
    body = {"username": "alice", "password": "password123"}
    return str(client.post("/register", body, content_type="application/json").json()["access_token"])


def ask(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return client.generic(method, path, body or "", content_type="application/json", headers=headers)


def test_a_key_is_shown_once_speaks_for_its_user_and_ends_when_revoked(client: Client, token: str) -> None:
    made = ask(client, "POST", "/api-keys", '{"name":"bot"}', authorization=f"Bearer {token}")
    assert made.status_code == 201
    raw = made.json()["api_key"]
    assert raw not in str(list(ApiKey.objects.values()))
    for header in ("X-API-Key", "X-Token-ID"):
        listed = ask(client, "GET", "/api-keys", **{header: raw})
        assert [key["name"] for key in listed.json()["api_keys"]] == ["bot"]
        assert raw not in listed.content.decode()
    key_id = made.json()["id"]
    assert ask(client, "DELETE", f"/api-keys/{key_id}", **{"X-API-Key": raw}).status_code == 200
    refused = ask(client, "GET", "/api-keys", **{"X-API-Key": raw})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert ask(client, "DELETE", f"/api-keys/{key_id}", authorization=f"Bearer {token}").status_code == 404


def test_a_key_needs_no_name_but_a_body_that_is_an_object_or_none(client: Client, token: str) -> None:
    for body, status in (("", 201), ("{}", 201), ("null", 422), ("[]", 422), ("0", 422), ('""', 422)):
        asked = ask(client, "POST", "/api-keys", body, authorization=f"Bearer {token}")
        assert asked.status_code == status, body
        assert status == 201 or asked.json()["detail"]


def test_a_key_of_another_user_is_not_found(client: Client, token: str) -> None:
    other = User.objects.create(username="bob", password="!")
    made = services.make_key(user_id=other.pk)
    assert ask(client, "DELETE", f"/api-keys/{made.key.pk}", authorization=f"Bearer {token}").status_code == 404


def test_an_account_can_come_with_a_key_and_no_body(client: Client) -> None:
    made = client.generic("POST", "/register?client_type=basic_client")
    assert made.status_code == 201
    told = made.json()
    assert told["client_type"] == "basic_client"
    assert authentication.authenticate_token(told["api_key"]).username == told["username"]
    assert client.generic("POST", "/register?client_type=king").status_code == 422
    for body in ("null", "[]", "0", '""', "false"):
        assert client.generic("POST", "/register?client_type=basic_client", body, "application/json").status_code == 422


@pytest.mark.parametrize("raw", ["sr_", "sr_nonsense", "sr_" + "x" * 10_000, "sr_\ud800", "sr_\x00", "SR_abc"])
def test_what_is_no_key_is_refused(raw: str) -> None:
    with pytest.raises(Unauthorized):
        authentication.authenticate_token(raw)


def test_revoked_and_disabled_keys_are_found_among_identities() -> None:
    users = [User.objects.create(username=name, password="!") for name in ("aaa", "bbb", "ccc")]
    made = [services.make_key(user_id=user.pk) for user in users]
    identities = [authentication.authenticate_token(key.raw) for key in made]
    assert authentication.revoked_among(identities) == []
    services.revoke_key(user_id=users[0].pk, key_id=made[0].key.pk)
    User.objects.filter(pk=users[1].pk).update(is_active=False)
    assert authentication.revoked_among(identities) == identities[:2]


def test_nobody_may_have_endless_keys() -> None:
    user = User.objects.create(username="alice", password="!")
    for _ in range(services.KEYS_MAX):
        last = services.make_key(user_id=user.pk)
    with pytest.raises(services.TooManyKeys):
        services.make_key(user_id=user.pk)
    services.revoke_key(user_id=user.pk, key_id=last.key.pk)
    services.make_key(user_id=user.pk)
