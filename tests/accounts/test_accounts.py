"""Registration, log-in and renewal as clients see them."""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import DataError, IntegrityError, OperationalError, connections, transaction
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from accounts import services
from router_project.passwords import Busy, Gate

User = get_user_model()

ALICE = {"username": "alice", "password": "password123"}
ANSWER = {"access_token", "refresh_token", "token", "token_type", "expires_in", "username", "user_id"}


def post(client: Client, path: str, body: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body)
    return client.post(path, data, content_type="application/json")


@pytest.mark.django_db
@pytest.mark.parametrize("prefix", ["", "/auth"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_user_registers_and_logs_in(client: Client, prefix: str, slash: str) -> None:
    registered = post(client, f"{prefix}/register{slash}", ALICE)
    assert registered.status_code == 201
    assert set(registered.json()) == ANSWER
    logged_in = post(client, f"{prefix}/login{slash}", ALICE)
    assert logged_in.status_code == 200
    answer = logged_in.json()
    assert set(answer) == ANSWER
    assert answer["token"] == answer["access_token"]
    assert (answer["token_type"], answer["expires_in"], answer["username"]) == ("bearer", 720 * 60, "alice")
    assert answer["user_id"] == registered.json()["user_id"]


@pytest.mark.django_db
def test_a_name_is_taken_in_every_case_and_logs_in_in_every_case(client: Client) -> None:
    post(client, "/register", ALICE)
    taken = post(client, "/register", {**ALICE, "username": "ALICE"})
    assert taken.status_code == 400
    assert taken.json()["code"] == "username_taken"
    assert isinstance(taken.json()["detail"], str)
    assert post(client, "/login", {**ALICE, "username": "aLiCe"}).json()["username"] == "alice"


@pytest.mark.django_db
def test_the_database_itself_refuses_the_same_name_in_another_case() -> None:
    User.objects.create_user("carol", "password123")
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user("Carol", "password123")


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["ab", "-ab", ".ab", "_ab", "a b", "a" * 33, "abc\n", "ａｂｃ", "ﬁfi", "аdmin", ""])
def test_the_database_itself_refuses_a_name_against_the_rule(name: str) -> None:
    with pytest.raises((IntegrityError, DataError)), transaction.atomic():
        User(username=name, password="!").save()
    assert not User.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "username",
    ["ab", "a" * 33, "-abc", ".abc", "_abc", "a b c", "abc\n", "abc\u0000", "a/b/c", "ａｂｃ", "ﬁfi", "аdmin", "",
     " abc", 123, True, None, ["abc"], {"a": 1}],
)  # fmt: skip
def test_a_username_against_the_rule_is_unprocessable(client: Client, username: Any) -> None:
    answer = post(client, "/register", {"username": username, "password": "password123"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "username"]
    assert not User.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("username", ["abc", "0ab", "a.b-c_D", "a" * 32, "A1.", "a--"])
def test_a_username_within_the_rule_is_taken(client: Client, username: str) -> None:
    assert post(client, "/register", {"username": username, "password": "password123"}).status_code == 201


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("password", "status"),
    [("abcd", 201), ("password123", 201), (" " * 4, 201), ("p" * 128, 201), ("\U0001f600" * 4, 201), ("abc", 422),
     ("p" * 129, 422), ("", 422), (1234, 422), (None, 422), (["abcd"], 422)],
)  # fmt: skip
def test_a_password_has_four_to_128_characters(client: Client, password: Any, status: int) -> None:
    assert post(client, "/register", {"username": "alice", "password": password}).status_code == status
    if status == 201:
        assert post(client, "/login", {"username": "alice", "password": password}).status_code == 200


@pytest.mark.django_db
def test_wrong_credentials_have_one_answer_whoever_is_meant(client: Client) -> None:
    User.objects.create_user("alice", "password123")
    User.objects.create_user("sleeper", "password123", is_active=False)
    User.objects.create_user("keyed", None)
    answers = [
        post(client, "/login", {"username": name, "password": password})
        for name, password in [
            ("alice", "wrong"), ("nobody", "password123"), ("sleeper", "password123"), ("sleeper", "wrong"),
            ("keyed", "password123"), ("аlice", "password123"), ("a" * 200, "x"),
        ]
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}


@pytest.mark.django_db
def test_every_refused_log_in_costs_one_hash(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from router_project import passwords

    User.objects.create_user("alice", "password123")
    User.objects.create_user("sleeper", "password123", is_active=False)
    post(client, "/login", ALICE)  # what the first log-in prepares is for all
    entered: list[None] = []

    class Counting(Gate):
        def enter(self) -> Any:
            entered.append(None)
            return super().enter()

    monkeypatch.setattr(passwords, "gate", Counting(2, 2))
    costs = []
    for name in ("alice", "nobody", "sleeper"):
        entered.clear()
        assert post(client, "/login", {"username": name, "password": "wrong"}).status_code == 401
        costs.append(len(entered))
    assert costs == [1, 1, 1]


@pytest.mark.django_db
def test_hashes_are_argon2_with_the_chosen_cost() -> None:
    assert User.objects.create_user("alice", "password123").password.startswith("argon2$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.django_db
def test_a_refresh_token_gives_a_new_access_token(client: Client) -> None:
    first = post(client, "/register", ALICE).json()
    second = post(client, "/token/refresh", {"refresh_token": first["refresh_token"]})
    assert second.status_code == 200
    assert set(second.json()) == ANSWER
    assert second.json()["access_token"] != first["access_token"]


@pytest.mark.django_db
@pytest.mark.parametrize("after", ["deleted", "inactive", "new password"])
def test_a_refresh_token_ends_with_its_user(client: Client, after: str) -> None:
    token = post(client, "/register", ALICE).json()["refresh_token"]
    user = User.objects.get()
    if after == "deleted":
        user.delete()
    elif after == "inactive":
        User.objects.update(is_active=False)
    else:
        user.set_password("another one")
        user.save()
    assert post(client, "/token/refresh", {"refresh_token": token}).status_code == 401


@pytest.mark.django_db
def test_an_access_token_refreshes_nothing(client: Client) -> None:
    token = post(client, "/register", ALICE).json()["access_token"]
    assert post(client, "/token/refresh", {"refresh_token": token}).status_code == 401


def test_the_gate_lets_so_many_in_and_so_many_wait() -> None:
    gate = Gate(1, 2)
    inside, leave = threading.Event(), threading.Event()

    def work() -> str:
        try:
            with gate.enter():
                inside.set()
                leave.wait(5)
                return "served"
        except Busy as busy:
            return busy.code

    with ThreadPoolExecutor(3) as pool:
        served = [pool.submit(work) for _ in range(3)]
        assert inside.wait(5)
        while gate._places._value:  # the others are on their way to the queue
            threading.Event().wait(0.001)
        with pytest.raises(Busy), gate.enter():
            pass
        leave.set()
        assert [future.result(5) for future in served] == ["served"] * 3
    with gate.enter():
        pass


@pytest.mark.django_db
def test_a_full_gate_is_a_503_with_retry_after(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from router_project import passwords

    full = Gate(1, 0)
    monkeypatch.setattr(passwords, "gate", full)
    with full.enter():
        answer = post(client, "/register", ALICE)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["code"] == "busy"
    assert not User.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_simultaneous_registrations_of_one_name_one_succeeds() -> None:
    def register(name: str) -> str:
        try:
            while True:
                with contextlib.suppress(OperationalError):  # an in-memory SQLite locks whole tables at once
                    services.register(username=name, password="password123")
                    return "made"
        except services.UsernameTaken:
            return "taken"
        finally:
            connections.close_all()

    names = ["racer", "Racer", "RACER", "racer"]
    with ThreadPoolExecutor(len(names)) as pool:
        results = sorted(pool.map(register, names))
    assert results == ["made", "taken", "taken", "taken"]
    assert User.objects.count() == 1


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)
BODIES = st.one_of(
    st.binary(max_size=100),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"username": JSON, "password": JSON, "refresh_token": JSON}).map(
        lambda value: json.dumps(value).encode()
    ),
)


class HostileBodies(TestCase):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(body=BODIES, path=st.sampled_from(["/register", "/login", "/token/refresh", "/auth/login/"]))
    def test_any_body_gets_a_json_answer_below_500(self, body: bytes, path: str) -> None:
        answer = post(self.client, path, body)
        assert answer.status_code < 500
        assert isinstance(answer.json(), dict)
        if answer.status_code >= 400:
            assert set(answer.json()) == {"detail", "message", "code"}
