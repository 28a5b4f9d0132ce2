"""Tokens: whom they speak for, and everything that is none."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounts import services
from accounts.authentication import authenticate_token, revoked_among
from core.errors import Unauthorized

User = get_user_model()

pytestmark = pytest.mark.django_db
KEY = settings.SIMPLE_JWT["SIGNING_KEY"]


@pytest.fixture
def session() -> services.Session:
    return services.register(username="alice", password="password123")


def claims_of(session: services.Session, **changes: Any) -> dict[str, Any]:
    claims = jwt.decode(session.access_token, options={"verify_signature": False})
    return {name: value for name, value in {**claims, **changes}.items() if value is not ...}


def signed(claims: dict[str, Any], key: str = KEY, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


def by_hand(session: services.Session, key: str = KEY, **header: Any) -> str:
    """Write a token with whatever header, where the library would refuse to; signed by HMAC-SHA-256 all the same."""
    parts = [{"alg": "HS256", "typ": "JWT", **header}, claims_of(session)]
    head = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = hmac.new(key.encode(), head, hashlib.sha256).digest()
    return (head + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def unsigned(session: services.Session, algorithm: str) -> str:
    return by_hand(session, alg=algorithm).rpartition(".")[0] + "."


def public(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


RSA_KEY = rsa.generate_private_key(65537, 2048)
JWK = {"kty": "oct", "k": base64.urlsafe_b64encode(b"k" * 40).decode()}


def test_a_token_speaks_for_its_user_until_it_ends(session: services.Session) -> None:
    identity = authenticate_token(session.access_token)
    assert (identity.user_id, identity.username, identity.tier) == (session.user.pk, "alice", "BASIC")
    assert abs(identity.expires_at - time.time() - settings.ACCESS_TOKEN_MINUTES * 60) < 5


def test_a_token_signed_by_us_with_the_same_claims_is_good(session: services.Session) -> None:
    """The control of the forgeries below: only what each of them changes makes it bad."""
    assert authenticate_token(signed(claims_of(session))).username == "alice"
    assert authenticate_token(by_hand(session)).username == "alice"


FORGERIES: dict[str, Callable[[services.Session], str]] = {
    "nothing": lambda s: "",
    "garbage": lambda s: "garbage",
    "dots": lambda s: "a.b.c",
    "10 kB": lambda s: "x" * 10_000,
    "10 kB of a token": lambda s: signed(claims_of(s, padding="x" * 10_000)),
    "lone surrogate": lambda s: s.access_token + "\ud800",
    "not ASCII": lambda s: "é" + s.access_token,
    "NUL": lambda s: s.access_token + "\x00",
    "tampered": lambda s: s.access_token[:-4] + ("AAAA" if s.access_token[-4:] != "AAAA" else "BBBB"),
    "no signature": lambda s: s.access_token.rpartition(".")[0] + ".",
    "alg none": lambda s: jwt.encode(claims_of(s), None, algorithm="none"),
    **{f"alg {name}": lambda s, name=name: unsigned(s, name) for name in ("none", "None", "NONE", "nOnE", "", "HS256")},
    "alg none but signed": lambda s: by_hand(s, alg="none"),
    "alg HS256 in small letters": lambda s: by_hand(s, alg="hs256"),
    "alg null": lambda s: by_hand(s, alg=None),
    "alg list": lambda s: by_hand(s, alg=["HS256"]),
    "RS256": lambda s: jwt.encode(claims_of(s), RSA_KEY, algorithm="RS256"),
    "PS256": lambda s: jwt.encode(claims_of(s), RSA_KEY, algorithm="PS256"),
    "ES256": lambda s: jwt.encode(claims_of(s), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
    "EdDSA": lambda s: jwt.encode(claims_of(s), ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA"),
    "RS256 signed with our own key": lambda s: by_hand(s, alg="RS256"),
    "HS256 signed with a public key": lambda s: by_hand(s, key=public(RSA_KEY)),
    "HS256 signed with nothing": lambda s: by_hand(s, key=""),
    "a key in the header": lambda s: by_hand(s, key="k" * 40, jwk=JWK),
    "a key's address in the header": lambda s: by_hand(s, key="k" * 40, jku="https://evil.example/jwks.json", kid="1"),
    "a key's file in the header": lambda s: by_hand(s, key="", kid="../../../../dev/null"),
    "critical extensions": lambda s: by_hand(s, crit=["exp2"], exp2=1),
    "foreign key": lambda s: signed(claims_of(s), "k" * 40),
    "the secret key itself": lambda s: signed(claims_of(s), settings.SECRET_KEY),
    "HS384": lambda s: signed(claims_of(s), algorithm="HS384"),
    "HS512": lambda s: signed(claims_of(s), algorithm="HS512"),
    "refresh token": lambda s: s.refresh_token,
    "expired": lambda s: signed(claims_of(s, exp=int(time.time()) - 1)),
    "no exp": lambda s: signed(claims_of(s, exp=...)),
    "exp beyond a year": lambda s: signed(claims_of(s, exp=2**40)),
    "exp beyond a word": lambda s: signed(claims_of(s, exp=10**400)),
    "exp text": lambda s: signed(claims_of(s, exp="soon")),
    "exp digits": lambda s: signed(claims_of(s, exp=str(int(time.time()) + 100))),
    "exp fraction": lambda s: signed(claims_of(s, exp=time.time() + 100.5)),
    "exp infinite": lambda s: signed(claims_of(s, exp=float("inf"))),
    "exp NaN": lambda s: signed(claims_of(s, exp=float("nan"))),
    "exp list": lambda s: signed(claims_of(s, exp=[1])),
    "not before tomorrow": lambda s: signed(claims_of(s, nbf=int(time.time()) + 86_400)),
    "issued tomorrow": lambda s: signed(claims_of(s, iat=int(time.time()) + 86_400)),
    "no type": lambda s: signed(claims_of(s, token_type=...)),
    "other type": lambda s: signed(claims_of(s, token_type="sliding")),
    "no id": lambda s: signed(claims_of(s, jti=...)),
    "no issuer": lambda s: signed(claims_of(s, iss=...)),
    "other issuer": lambda s: signed(claims_of(s, iss="evil")),
    "no audience": lambda s: signed(claims_of(s, aud=...)),
    "other audience": lambda s: signed(claims_of(s, aud="evil")),
    "no user": lambda s: signed(claims_of(s, user_id=...)),
    "user text": lambda s: signed(claims_of(s, user_id="abc")),
    "user digits": lambda s: signed(claims_of(s, user_id=str(s.user.pk))),
    "user list": lambda s: signed(claims_of(s, user_id=[s.user.pk])),
    "user null": lambda s: signed(claims_of(s, user_id=None)),
    "user true": lambda s: signed(claims_of(s, user_id=True)),
    "user fraction": lambda s: signed(claims_of(s, user_id=s.user.pk + 0.0)),
    "user negative": lambda s: signed(claims_of(s, user_id=-1)),
    "user beyond a word": lambda s: signed(claims_of(s, user_id=2**70)),
    "unknown user": lambda s: signed(claims_of(s, user_id=s.user.pk + 999)),
    "no key": lambda s: signed(claims_of(s, key=...)),
    "other key": lambda s: signed(claims_of(s, key="0" * 32)),
    "key list": lambda s: signed(claims_of(s, key=[])),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_unauthorized_everywhere(session: services.Session, client: Client, name: str) -> None:
    token = FORGERIES[name](session)
    with pytest.raises(Unauthorized):
        authenticate_token(token)
    if token.isascii() and "\x00" not in token:
        answer = client.get("/status", HTTP_AUTHORIZATION=f"Bearer {token}")
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["code"] == "unauthorized"


@pytest.mark.parametrize("after", ["deleted", "inactive", "new password"])
def test_a_token_ends_with_its_user_at_once(session: services.Session, after: str) -> None:
    identity = authenticate_token(session.access_token)
    other = authenticate_token(services.register(username="bob", password="password123").access_token)
    assert revoked_among([identity, other]) == []
    if after == "deleted":
        User.objects.filter(username="alice").delete()
    elif after == "inactive":
        User.objects.filter(username="alice").update(is_active=False)
    else:
        user = User.objects.get(username="alice")
        user.set_password("another one")
        user.save()
    with pytest.raises(Unauthorized):
        authenticate_token(session.access_token)
    assert revoked_among([identity, other]) == [identity]


def test_checking_many_identities_is_one_query(django_assert_num_queries: Any) -> None:
    identities = [
        authenticate_token(services.register(username=f"user{number}", password="password123").access_token)
        for number in range(5)
    ]
    with django_assert_num_queries(1):
        assert revoked_among(identities) == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_word_bearer_is_taken_in_any_case(session: services.Session, client: Client, scheme: str) -> None:
    assert client.get("/status", HTTP_AUTHORIZATION=f"{scheme} {session.access_token}").status_code == 200


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer a b", "bearer\t"])
def test_bearer_without_a_token_is_unauthorized(client: Client, header: str) -> None:
    assert client.get("/status", HTTP_AUTHORIZATION=header).status_code == 401


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.text(max_size=200))
def test_no_text_is_a_token_by_chance(raw: str) -> None:
    with pytest.raises(Unauthorized):
        authenticate_token(raw)
