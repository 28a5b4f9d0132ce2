"""What no client should send: each is answered with the contract's error, and nothing moves.

Two roads lead to an order and to a balance: the short one that bots take, and Django's, which
every other route takes. `road` says which; their answers are the same.
"""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import jwt
import pytest
from django.conf import settings

from accounts import services as accounts
from accounts.models import User
from router_project.asgi import application
from tests.trading.desk import Desk
from tests.trading.web import Answer, Person, aside

ROADS = {"short": {}, "django": {"Cookie": "a=b"}}  # whoever has a cookie may be a browser: Django's

ORDER = {"token_id": "n", "symbol": "BTCUSDT", "side": "buy", "order_type": "limit", "price": "10", "quantity": "1"}
TWAP = {"token_id": "n", "symbol": "BTCUSDT", "side": "buy", "total_quantity": "1", "duration_seconds": 60, "slices": 6}

# As JSON text, with the status that it gets wherever an amount is expected.
AMOUNTS: list[tuple[str, int]] = [
    *((literal, 400) for literal in ("NaN", "Infinity", "-Infinity", "9" * 5_000, "0." + "1" * 5_000, "1e-9999",
                                     "1e99999999999999999999", "01", "1.", ".5", "+1", "0x10", "1_000", "--1")),
    *((literal, 422) for literal in ("1e400", "-1e400", "1e308", "1e-300", "true", "false", "[1]", "[]", "{}", "-0",
                                     "0", "0.0", "-1", "-0.00000001", "0.000000001", "0.000000005", "9e10",
                                     "90000000000", "89999999999.999999995", "99999999999999999999")),
    *((json.dumps(text), 422) for text in ("NaN", "Infinity", "-Infinity", "nan", "inf", "1e400", "1e308", "1e-300",
                                           "abc", "", " ", "1_000", " 12 ", "12 ", "\t1", "1\n", "１２", "٣", "²", "-0",
                                           "0", "0.0", "-1", "+1", ".5", "5.", "1e", "e1", "1,000", "1 000", "0x10",
                                           "0.000000001", "1.123456789", "0.1234567890123456789", "9e10",
                                           "90000000000", "1" * 41, "1" * 60_000, "\x00", "1\x00", "true", "null")),
    ('"\\ud800"', 400),
    ('"\\udc00\\ud800"', 400),
    ('"' + "1" * 100_000 + '"', 413),
]  # fmt: skip


def with_literal(name: str, **more: str) -> str:
    """Return the order as JSON, with a place for a value of this name."""
    return json.dumps({**ORDER, **more, name: "HERE"}).replace('"HERE"', "%s")


# Where an amount is expected: method, path, body around it, its place.
PLACES: dict[str, tuple[str, str, str, list[str]]] = {
    "price": ("POST", "/orders", with_literal("price"), ["price"]),
    "quantity": ("POST", "/orders", with_literal("quantity"), ["quantity"]),
    "market": ("POST", "/orders", with_literal("price", order_type="market"), ["price"]),
    "ioc": ("POST", "/orders", with_literal("price", order_type="ioc"), ["price"]),
    "deposit": ("POST", "/deposit", '{"asset": "USDT", "amount": %s}', ["amount"]),
    "amended price": ("PUT", "/orders/x", '{"price": %s}', ["price"]),
    "amended quantity": ("PUT", "/orders/x", '{"quantity": %s, "price": 12}', ["quantity"]),
    "twap quantity": (
        "POST",
        "/orders/twap",
        json.dumps({**TWAP, "total_quantity": 0}).replace("0,", "%s,", 1),
        ["total_quantity"],
    ),
    "twap limit": ("POST", "/orders/twap", json.dumps(TWAP)[:-1] + ', "limit_price": %s}', ["limit_price"]),
    "start": ("POST", "/account/reset", '{"balances": {"BTC": 1, "USDT": %s}}', ["balances", "USDT"]),
}


class Road:
    """Sends raw requests as one user, and sees whether anything moved."""

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self._http = http
        self.token = token
        self._before: Any = None

    async def send(
        self, method: str, path: str, body: bytes | str = b"", *, content_type: str | None = "application/json",
        token: str | None = None, **headers: str,
    ) -> Answer:  # fmt: skip
        content = body.encode() if isinstance(body, str) else body
        sent = {"Authorization": f"Bearer {token or self.token}", **headers}
        if content_type is not None:
            sent["Content-Type"] = content_type
        response = await self._http.request(method, path, content=content, headers=sent)
        if response.status_code == 401:
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        return Answer(response.status_code, response.content, response.headers["Content-Type"])

    async def balances(self) -> Any:
        """Return all balances: an order that came, changed or went would show in what is reserved."""
        answer = await self.send("GET", "/balance")
        assert answer.status == 200
        return answer.json

    async def refuses(
        self, status: int, code: str, method: str, path: str, body: bytes | str, place: list[str] | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        """Send, check the refusal, and that balances are as they were; return the error."""
        if self._before is None:
            self._before = await self.balances()
        error = (await self.send(method, path, body, **options)).refused(status, code)
        if place is not None and status == 422:
            assert [item["loc"] for item in error["detail"]] == [["body", *place]]
        assert await self.balances() == self._before, "nothing may move"
        return error


@pytest.fixture(params=ROADS)
async def road(request: pytest.FixtureRequest, desk: Desk, alice: Person) -> AsyncIterator[Road]:
    """Alice with an order named x, on each road."""
    desk.quote(bid=[("20", "1", "okx")], ask=[("30", "1", "okx")])
    await aside(alice.place, "x", "buy", 1, 10)
    transport = httpx.ASGITransport(app=application)  # type: ignore[arg-type]
    headers = ROADS[request.param]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
        yield Road(http, alice.token)


def code_of(status: int) -> str:
    return {400: "malformed", 413: "too_large", 415: "unsupported_media_type", 422: "invalid"}[status]


@pytest.mark.parametrize("place", PLACES)
async def test_what_is_no_amount_is_refused_by_its_name(road: Road, place: str) -> None:
    method, path, around, loc = PLACES[place]
    for literal, status in AMOUNTS:
        await road.refuses(status, code_of(status), method, path, around % literal, loc)
    if "amended" not in place and place not in ("market", "ioc", "twap limit"):
        error = await road.refuses(422, "invalid", method, path, around % "null", loc)
        assert error["detail"][0]["type"] == "missing"


async def test_two_numbers_that_are_each_too_large_are_refused(road: Road) -> None:
    body = with_literal("price").replace('"1"', "1e308") % "1e308"
    await road.refuses(422, "invalid", "POST", "/orders", body, ["price"])
    body = json.dumps({**ORDER, "price": 8e10, "quantity": 8e10})
    await road.refuses(400, "amount_too_large", "POST", "/orders", body)
    await road.refuses(400, "amount_too_large", "PUT", "/orders/x", '{"price": 8e10, "quantity": 8e10}')


@pytest.mark.parametrize(
    ("literal", "taken"),
    [
        ("0.12345678501234567890", "0.12345679"),
        ("0.123456785", "0.12345678"),
        ("0.123456775", "0.12345678"),
        ("0.10000000000000000555", "0.1"),
        ("0.0000000050000001", "0.00000001"),
        ("1e-8", "0.00000001"),
        ("1.50E1", "15"),
        ('"1e-8"', "0.00000001"),
        ('"2.50"', "2.5"),
        ('"0.100000000000"', "0.1"),
        ('"007"', "7"),
    ],
)
async def test_a_number_is_taken_as_near_as_the_smallest_unit_allows(road: Road, literal: str, taken: str) -> None:
    answer = await road.send("POST", "/orders", with_literal("quantity") % literal)
    assert answer.status == 201
    assert answer["quantity"] == Decimal(taken)


def twap(**fields: Any) -> str:
    """Return a parent order as JSON; a field that is "%s" is a place for a literal."""
    return json.dumps({**TWAP, **fields}).replace('"%s"', "%s")


# As JSON text, with the status that it gets where a number of seconds or of slices is expected.
WHOLE_NUMBERS: list[tuple[str, int]] = [
    *((literal, 400) for literal in ("NaN", "-Infinity", "Infinity", "9" * 5_000, "01", "+1", "0x10", "1_0")),
    *((literal, 422) for literal in ("0", "-0", "-1", "0.5", "1.5", "60.0000001", "1e400", "1e308", "1e-300", "604801",
                                     "99999999999999999999", "true", "false", "null", "[6]", "[]", "{}")),
    *((json.dumps(text), 422) for text in ("", " ", "0", "-1", "+1", "1.5", "60.0", "1e3", " 60", "60 ", "6_0", "６",
                                           "٣", "²", "abc", "NaN", "Infinity", "1e400", "0x10", "9" * 10, "9" * 5_000,
                                           "6\x00", "true", "null")),
    ('"\\ud800"', 400),
]  # fmt: skip


@pytest.mark.parametrize("name", ["duration_seconds", "slices"])
async def test_durations_and_slices_are_whole_numbers_within_their_bounds(road: Road, name: str) -> None:
    around = twap(**{name: "%s"})
    for literal, status in WHOLE_NUMBERS:
        await road.refuses(status, code_of(status), "POST", "/orders/twap", around % literal, [name])
    await road.refuses(422, "invalid", "POST", "/orders/twap", twap(slices=10_001), ["slices"])
    without = {field: value for field, value in TWAP.items() if field != name}
    error = await road.refuses(422, "invalid", "POST", "/orders/twap", json.dumps(without), [name])
    assert error["detail"][0]["type"] == "missing"


async def test_a_parent_order_names_one_symbol_and_an_exchange_that_is_served(road: Road) -> None:
    async def refused(status: int, code: str, body: str, place: str | None = None) -> None:
        await road.refuses(status, code, "POST", "/orders/twap", body, None if place is None else [place])

    for literal in ('"bybit"', '""', '" okx"', '"okx\\u0000"', '"ALL "', "1", "true", "[]", '["okx"]', "{}",
                    '"\\u212araken"', '"' + "a" * 10_000 + '"'):  # fmt: skip
        await refused(422, "invalid", twap(exchange="%s") % literal, "exchange")
    for name in ("symbol", "pair"):
        for text in ("NOPE", "", "BTC", "btcuſdt", "A" * 10_000, "../BTCUSDT"):
            await refused(400, "unknown_symbol", twap(**{"symbol": None, name: text}))
        for literal in ("1", "true", "[]", "{}"):
            await refused(422, "invalid", twap(**{"symbol": None, name: "%s"}) % literal, name)
    for literal in ('"ETHUSDT"', "1", "true", "[]", '["BTCUSDT"]'):
        await refused(422, "invalid", twap(pair="%s") % literal, "pair")
    await refused(400, "unknown_symbol", twap(pair="NOPE"))
    await refused(422, "invalid", twap(symbol=None), "symbol")
    for literal in ('"BUY"', '"hold"', '""', "1", "true", "[]", "null"):
        await refused(422, "invalid", twap(side="%s") % literal, "side")
    for literal in BAD_TOKENS[:-1]:  # the last one, null, is no name: the order's id will do
        await refused(422, "invalid", twap(token_id="%s") % literal, "token_id")
    await refused(400, "amount_too_large", twap(total_quantity=8e10, limit_price=8e10))
    await refused(400, "insufficient_funds", twap(total_quantity=10**6))
    await refused(400, "duplicate_token_id", twap(token_id="x"))


async def test_a_parent_order_takes_the_spellings_of_the_contract(road: Road) -> None:
    for fields in (
        {"symbol": None, "pair": "btc/usdt", "exchange": None},
        {"symbol": "BTC-USDT", "pair": "BTCUSDT", "exchange": "ALL", "slices": "6", "duration_seconds": 60.0},
        {"symbol": "xbtusdt", "exchange": "OKX", "token_id": None, "limit_price": None, "unknown": [1]},
    ):
        answer = await road.send("POST", "/orders/twap", twap(**{"token_id": None, **fields}))
        assert answer.status == 200, answer.json
        found = (answer["symbol"], answer["slices"], answer["duration_seconds"], answer["token_id"] == answer["id"])
        assert found == ("BTCUSDT", 6, 60, True)


BAD_TOKENS = [
    '""', '" "', '"  "', '"a "', '" a"',
    "123", "1.5", "true", "[]", "{}", '["a"]', '"a/b"', '"/"', '"."', '".."', '"twap"',
    '"é"', '"日本"', '"\\u0000"', '"a\\u0000b"', '"a\\nb"', '"a\\tb"', '"\\u007f"', '"\\u202eabc"', '"\\ud83d\\ude00"',
    '"' + "a" * 129 + '"', '"' + "a" * 10_240 + '"', "null",
]  # fmt: skip


async def test_what_is_no_token_id_is_refused(road: Road) -> None:
    around = with_literal("token_id")
    for literal in BAD_TOKENS:
        await road.refuses(422, "invalid", "POST", "/orders", around % literal, ["token_id"])
    for literal in ('"\\ud800"', '"a\\udfffb"', '"\\ud800\\ud800"'):
        await road.refuses(400, "malformed", "POST", "/orders", around % literal)
    missing = {name: value for name, value in ORDER.items() if name != "token_id"}
    error = await road.refuses(422, "invalid", "POST", "/orders", json.dumps(missing), ["token_id"])
    assert error["detail"][0]["type"] == "missing"
    await road.refuses(400, "malformed", "POST", "/orders", (around % '"X"').encode().replace(b"X", b"\xff"))


async def test_a_token_id_is_not_used_up_by_refusals(road: Road) -> None:
    for wrong in ({"price": "x"}, {"symbol": "NOPE"}, {"quantity": 10**9}, {"side": "hold"}):
        assert (await road.send("POST", "/orders", json.dumps({**ORDER, **wrong}))).status in (400, 422)
    assert (await road.send("POST", "/orders", json.dumps(ORDER))).status == 201
    again = await road.send("POST", "/orders", json.dumps(ORDER))
    assert again.refused(400, "duplicate_token_id")["order"]["token_id"] == "n"


async def test_symbols_are_known_by_their_spellings_alone(road: Road) -> None:
    around = with_literal("symbol")
    for text in ("NOPE", "", "BTC", "USDTBTC", "BTC USDT", " BTCUSDT", "BTC--USDT", "ＢＴＣUSDT", "BTC_USDT", "B\x00TC",
                 "btcuſdt", "A" * 10_000, "../BTCUSDT"):  # fmt: skip
        await road.refuses(400, "unknown_symbol", "POST", "/orders", around % json.dumps(text))
    for literal in ("1", "true", "[]", '["BTCUSDT"]', "{}", "null"):
        await road.refuses(422, "invalid", "POST", "/orders", around % literal, ["symbol"])
    for number, text in enumerate(("btcusdt", "BTC/USDT", "btc-usdt", "XBTUSDT", "Xbt/Usdt")):
        body = json.dumps({**ORDER, "symbol": text, "token_id": f"s{number}"})
        assert (await road.send("POST", "/orders", body))["symbol"] == "BTCUSDT"


async def test_sides_and_types_are_words_of_a_list(road: Road) -> None:
    for name in ("side", "order_type"):
        around = with_literal(name)
        for literal in ('"BUY"', '"Limit"', '"hold"', '"stop"', '""', '" buy"', '"b\\u0000uy"', "1", "true", "[]"):
            await road.refuses(422, "invalid", "POST", "/orders", around % literal, [name])
    await road.refuses(422, "invalid", "POST", "/orders", json.dumps({**ORDER, "side": None}), ["side"])
    bare = {name: ORDER[name] for name in ("token_id", "symbol", "side", "price", "quantity")}
    assert (await road.send("POST", "/orders", json.dumps({**bare, "order_type": None})))["order_type"] == "limit"


BODIES: list[tuple[bytes, int]] = [
    *((body, 400) for body in (
        b"", b" ", b"{", b"}", b"{}{}", b"{} x", b"{'a': 1}", b'{"a": 1,}', b"{a: 1}", b"// {}", b"\x00", b"\xff",
        b"{\x00}",
        b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b'{"a": "\n"}', b"[" * 1_000, b'{"a":' * 1_000, b"[" * 60_000,
        b'{"a":' * 17 + b"1" + b"}" * 17, b"[" * 17 + b"]" * 17, b'{"a": 1, "a": 1}', b'{"price": 1, "\\u0070rice": 2}',
        b'{"x": {"a": 1, "a": 2}}', b'{"\\ud800": 1}', b'{"a": NaN}', b'{"a": -Infinity}', b"username=a&password=b",
    )),
    *((body, 422) for body in (b"[]", b"[{}]", b"1", b"1.5", b'"x"', b"null", b"true", b"{}", b'{"a": 1}', b'{"": 1}',
                               b'{"\\u0000": "\\u0000"}', b'{"a": "' + b"x" * 60_000 + b'"}')),
    *((body, 413) for body in (b"[" * 100_000, b'{"a": "' + b"x" * 100_000 + b'"}', b" " * 65_537)),
]  # fmt: skip


@pytest.mark.parametrize("path", ["/orders", "/orders/twap", "/deposit", "/orders/x", "/account/reset"])
async def test_what_is_no_order_is_refused_whole(road: Road, path: str) -> None:
    method = "PUT" if path == "/orders/x" else "POST"
    for body, status in BODIES:
        if path in ("/orders/x", "/account/reset") and (body.startswith(b'{"') or body in (b"{}", b"")) and (
            status == 422 or (body == b"" and path == "/account/reset")
        ):  # fmt: skip
            continue  # an object without a known name asks for no change, or for empty balances
        await road.refuses(status, code_of(status), method, path, body)


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "text/html",
     "application/xml",
     "application/json; charset=latin-1", "application/octet-stream", "application/jsonp", "x", None],
)  # fmt: skip
async def test_only_json_in_utf_8_is_read(road: Road, content_type: str | None) -> None:
    for method, path in (
        ("POST", "/orders"),
        ("POST", "/orders/twap"),
        ("POST", "/deposit"),
        ("PUT", "/orders/x"),
        ("POST", "/account/reset"),
    ):
        options = {"content_type": content_type}
        await road.refuses(415, "unsupported_media_type", method, path, json.dumps(ORDER), **options)
    answer = await road.send("POST", "/orders", json.dumps(ORDER), content_type='application/json; charset="UTF-8"')
    assert answer.status == 201


async def test_other_methods_are_refused(road: Road) -> None:
    for method, path in (("PUT", "/orders"), ("PATCH", "/orders/x"), ("POST", "/orders/x"), ("DELETE", "/balance"),
                         ("GET", "/deposit"), ("GET", "/account/reset"), ("POST", "/fills"), ("DELETE", "/ledger"),
                         ("TRACE", "/orders"), ("BREW", "/orders")):  # fmt: skip
        await road.refuses(405, "method_not_allowed", method, path, b"")


# -- who asks


def forged(token: str, *, signed_with: str | None = None, algorithm: str = "HS256", **changed: Any) -> str:
    """Return the token with other claims (None: without), another key or algorithm."""
    claims: dict[str, Any] = {**jwt.decode(token, options={"verify_signature": False}), **changed}
    key = settings.SIMPLE_JWT["SIGNING_KEY"] if signed_with is None else signed_with
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm)


async def test_only_tokens_of_ours_that_are_still_good_are_taken(road: Road, alice: Person) -> None:
    session = await aside(accounts.login, username="alice", password="password123")
    head, claims, signature = alice.token.split(".")
    bad = {
        "expired": forged(alice.token, exp=1),
        "alg none": forged(alice.token, algorithm="none", signed_with=""),
        "alg none, signed": f"{forged(alice.token, algorithm='none', signed_with='').rpartition('.')[0]}.{signature}",
        "another key": forged(alice.token, signed_with="x" * 64),
        "another algorithm": forged(alice.token, algorithm="HS512"),
        "without expiry": forged(alice.token, exp=None),
        "expiry as text": forged(alice.token, signed_with=None, exp="9999999999"),
        "for nobody": forged(alice.token, user_id=2**62),
        "for a word": forged(alice.token, user_id="1"),
        "for a list": forged(alice.token, user_id=[1]),
        "for a huge number": forged(alice.token, user_id=10**30),
        "without a user": forged(alice.token, user_id=None),
        "of another password": forged(alice.token, key="x" * 32),
        "without a password's word": forged(alice.token, key=None),
        "an empty password's word": forged(alice.token, key=""),
        "an odd password's word": forged(alice.token, key="é"),
        "a list as password's word": forged(alice.token, key=["x"]),
        "of another issuer": forged(alice.token, iss="x"),
        "refresh": session.refresh_token,
        "garbage": "garbage",
        "dots": "..",
        "long": "a" * 10_240,
        "cut": alice.token[:-1],
        "without a signature": f"{head}.{claims}.",
        "twice": f"{alice.token} {alice.token}",
    }
    for name, token in bad.items():
        for method, path, body in (("POST", "/orders", json.dumps(ORDER)), ("GET", "/balance", b""),
                                   ("GET", "/orders", b""), ("DELETE", "/orders", b""),
                                   ("POST", "/deposit", b'{"asset": "USDT", "amount": 1}')):  # fmt: skip
            answer = await road.send(method, path, body, token=token)
            assert (answer.status, answer["code"]) == (401, "unauthorized"), (name, path)
    assert (await road.balances())["total"]["USDT"] == 100_000


@pytest.mark.parametrize("end", ["disabled", "another password"])
async def test_a_token_ends_with_its_user(road: Road, alice: Person, end: str) -> None:
    def change() -> None:
        user = User.objects.get(username="alice")
        if end == "disabled":
            user.is_active = False
        else:
            user.set_password("another-password")
        user.save()

    assert (await road.send("GET", "/balance")).status == 200
    await aside(change)
    for method, path, body in (("POST", "/orders", json.dumps(ORDER)), ("GET", "/balance", b""),
                               ("DELETE", "/orders/x", b""), ("PUT", "/orders/x", b'{"price": 11}'),
                               ("POST", "/account/reset", b""), ("GET", "/ledger?format=csv", b"")):  # fmt: skip
        answer = await road.send(method, path, body)
        assert (answer.status, answer["code"]) == (401, "unauthorized"), path


async def test_a_deleted_users_token_opens_nothing(road: Road) -> None:
    carol = await aside(Person, "carol")
    await aside(carol.user.delete)
    for method, path, body in (("POST", "/orders", json.dumps(ORDER)), ("GET", "/balance", b""), ("GET", "/fills", b""),
                               ("POST", "/deposit", b'{"asset": "USDT", "amount": 1}')):  # fmt: skip
        assert (await road.send(method, path, body, token=carol.token)).refused(401, "unauthorized")
