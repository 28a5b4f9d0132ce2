"""Guessing passwords: every way in counts, tells the same and takes the same work."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from accounts.limits import FAILED_LOGINS_A_PAIR, REGISTRATIONS_AN_ADDRESS, current_limits
from accounts.models import User
from router_project import passwords
from router_project.passwords import Gate

pytestmark = pytest.mark.django_db

RIGHT, WRONG = "password123", "wrong"
FORMS = ("/session/login", "/admin/login/")
Door = Callable[[str, str], Any]


@pytest.fixture
def limited(settings: LazySettings) -> Iterator[None]:
    settings.RATE_LIMITS = True
    current_limits.cache_clear()
    yield
    current_limits.cache_clear()


def door(client: Client, path: str, **extra: Any) -> Door:
    """Return what tries a name and a password at a way in."""

    def knock(username: str, password: str) -> Any:
        body = {"username": username, "password": password}
        return client.post(path, body, **extra, **({} if path in FORMS else {"content_type": "application/json"}))

    return knock


def is_in(client: Client) -> bool:
    return "sessionid" in client.cookies


@pytest.mark.parametrize("path", FORMS)
def test_a_guesser_at_a_form_is_turned_away_at_every_way_in(limited: None, path: str) -> None:
    User.objects.create_superuser("alice", RIGHT)
    client = Client()
    knock = door(client, path)
    for _ in range(FAILED_LOGINS_A_PAIR):
        assert "too many" not in knock("Alice", WRONG).content.decode()
    assert "too many failed log-ins; try again in" in knock("alice", RIGHT).content.decode()
    assert not is_in(client)
    for other in FORMS:
        door(client, other)("ALICE", RIGHT)
        assert not is_in(client), other
    assert door(client, "/login")("alice", RIGHT).status_code == 429
    elsewhere = Client(REMOTE_ADDR="9.9.9.9")
    door(elsewhere, path)("alice", RIGHT)
    assert is_in(elsewhere), "the owner, from elsewhere"


def test_guesses_over_rest_count_at_the_forms(limited: None) -> None:
    User.objects.create_superuser("alice", RIGHT)
    client = Client()
    for _ in range(FAILED_LOGINS_A_PAIR):
        assert door(client, "/login")("alice", WRONG).status_code == 401
    for path in FORMS:
        door(client, path)("alice", RIGHT)
        assert not is_in(client), path


def test_a_name_that_nobody_has_is_locked_like_any_other(limited: None) -> None:
    User.objects.create_user("alice", RIGHT)
    stories = []
    for name in ("alice", "nobody"):
        knock = door(Client(), "/login")
        answers = [knock(name, WRONG) for _ in range(FAILED_LOGINS_A_PAIR + 1)]
        stories.append(
            [(answer.status_code, answer.json()["code"], answer.json()["message"][:20]) for answer in answers]
        )
    assert stories[0] == stories[1]
    assert stories[0][-1][0] == 429


@pytest.mark.parametrize("path", FORMS)
def test_a_form_says_the_same_and_works_the_same_whoever_is_meant(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    User.objects.create_user("alice", RIGHT, is_staff=True)
    User.objects.create_user("sleeper", RIGHT, is_staff=True, is_active=False)
    User.objects.create_user("keyed", None, is_staff=True)
    hashes: list[None] = []

    class Counting(Gate):
        def enter(self) -> Any:
            hashes.append(None)
            return super().enter()

    monkeypatch.setattr(passwords, "gate", Counting(2, 2))
    told = set()
    for name, password in (
        ("alice", WRONG),
        ("nobody", WRONG),
        ("sleeper", WRONG),
        ("sleeper", RIGHT),
        ("keyed", WRONG),
    ):
        client = Client()
        hashes.clear()
        (error,) = door(client, path)(name, password).context["form"].non_field_errors()
        assert len(hashes) == 1, name
        assert not is_in(client)
        told.add(error)
    assert len(told) == 1


def test_an_address_makes_so_many_users_and_no_more(limited: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has limits of their own: without an end to it nobody would have any."""
    monkeypatch.setattr("accounts.limits.REGISTRATIONS_AN_ADDRESS", 5)
    assert REGISTRATIONS_AN_ADDRESS >= 100, "a class behind one address still fits"
    client = Client()
    register = door(client, "/register")
    answers = [client.generic("POST", "/register?client_type=basic_client").status_code for _ in range(2)]
    answers += [register("alice", RIGHT).status_code for _ in range(2)]  # the second time the name is taken
    answers.append(door(client, "/auth/register")("bob", RIGHT).status_code)
    assert answers == [201, 201, 201, 400, 201]
    for path in ("/register", "/auth/register", "/register?client_type=basic_client"):
        refused = client.generic("POST", path) if "?" in path else door(client, path)("carol", RIGHT)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 3500 < int(refused.headers["Retry-After"]) <= 3600
    assert User.objects.count() == 4
    elsewhere = Client(REMOTE_ADDR="9.9.9.9")
    assert door(elsewhere, "/register")("carol", RIGHT).status_code == 201
