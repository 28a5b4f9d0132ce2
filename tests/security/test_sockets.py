"""Real processes and sockets: forged tokens on every road, one user's news kept from another, no secret in the log."""

import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from accounts import services
from accounts.models import User
from tests.accounts.test_authentication import FORGERIES, signed
from tests.end_to_end.conftest import environment_of
from tests.running import ANSWER_S, Client, Process, Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

PASSWORD = "password123"
HEADER_LENGTH_MAX = 8_000  # beyond it there is no handshake to begin with
ENDED_S = 5.0  # within which an open socket notices that its token ended; it looks each second


@pytest.fixture(scope="module")
def profile() -> str:
    return "embedded"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(router: Router) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=router.url, timeout=ANSWER_S) as http:
        yield http


async def new_user(http: httpx.AsyncClient, name: str = "") -> dict[str, Any]:
    body = {"username": name or f"u{uuid.uuid4().hex[:12]}", "password": PASSWORD}
    made: dict[str, Any] = (await http.post("/register", json=body)).raise_for_status().json()
    return made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def refused(router: Router, token: str | None = None, **options: Any) -> tuple[str, int | None]:
    """Open a socket with what was forged; return the error's code and the close code."""
    url = router.url.replace("http", "ws", 1) + "/ws"
    async with connect(url, close_timeout=2, **options) as socket:
        client = Client(socket)
        if token is not None:
            await client.send(action="auth", token=token)
        error = await client.until(lambda message: message["type"] == "error")  # a greeting may overtake it
        with pytest.raises(ConnectionClosed) as closed:
            await client.next()
    return str(error.get("code")), closed.value.rcvd.code if closed.value.rcvd else None


async def test_a_forged_token_opens_no_road(router: Router, http: httpx.AsyncClient) -> None:
    told = await new_user(http)
    session = services.Session(User(pk=told["user_id"]), told["access_token"], told["refresh_token"], 0)
    assert (await http.get("/balance", headers=bearer(session.access_token))).status_code == 200, "the control"
    order = {"token_id": "forged", "symbol": "BTCUSDT", "side": "buy", "price": 1, "quantity": 1}
    for name, forge in FORGERIES.items():
        token = forge(session)
        if not token or not token.isascii() or "\x00" in token:
            continue  # the client's library would not send it in a header
        headers = bearer(token)
        answers = [
            await http.get("/balance", headers=headers),
            await http.post("/orders", json=order, headers=headers),
            await http.get("/orders", headers=headers),
            await http.get("/balance", headers={"X-API-Key": token}),
            await http.get("/balance", headers={**headers, "Cookie": "a=b"}),
        ]
        assert [answer.status_code for answer in answers] == [401] * len(answers), name
        assert await refused(router, token) == ("unauthorized", 1008), name
        if len(token) < HEADER_LENGTH_MAX:
            assert await refused(router, additional_headers=headers) == ("unauthorized", 1008), name
    assert (await http.get("/orders", headers=bearer(session.access_token))).json()["orders"] == []


async def test_a_token_ends_on_open_sockets_and_where_it_was_good_before(
    router: Router, http: httpx.AsyncClient
) -> None:
    told = await new_user(http)
    claims = jwt.decode(told["access_token"], options={"verify_signature": False})
    ends_s = int(time.time()) + 6
    token = signed({**claims, "exp": ends_s})
    async with router.client(token) as client:
        assert (await client.next())["auth_status"] == "authenticated"
        for path in ("/balance", "/orders"):
            assert (await http.get(path, headers=bearer(token))).status_code == 200
        error = await client.next(timeout_s=20)
        assert error["code"] == "unauthorized"
        assert "expired" in error["message"]
        with pytest.raises(ConnectionClosed):
            await client.next()
    assert ends_s <= time.time() < ends_s + ENDED_S
    for path in ("/balance", "/orders"):
        assert (await http.get(path, headers=bearer(token))).status_code == 401


async def test_header_names_are_read_in_any_case_and_never_with_underscores(http: httpx.AsyncClient) -> None:
    rights = bearer((await new_user(http))["access_token"])
    key = (await http.post("/api-keys", json={}, headers=rights)).raise_for_status().json()["api_key"]
    for name, credential in (("AUTHORIZATION", rights["Authorization"]), ("x-aPi-KEY", key), ("X-TOKEN-ID", key)):
        assert (await http.get("/balance", headers={name: credential})).status_code == 200, name
    for name in ("X_API_Key", "x_api_key", "X_Token-ID", "HTTP_X_API_KEY", "HTTP_AUTHORIZATION"):
        assert (await http.get("/balance", headers={name: key})).status_code == 401, name


async def test_a_refresh_token_is_for_refreshing_alone(router: Router, http: httpx.AsyncClient) -> None:
    told = await new_user(http)
    assert jwt.decode(told["refresh_token"], options={"verify_signature": False})["token_type"] == "refresh"
    for path in ("/balance", "/orders", "/api-keys"):
        assert (await http.get(path, headers=bearer(told["refresh_token"]))).status_code == 401
    assert await refused(router, told["refresh_token"]) == ("unauthorized", 1008)
    access = {"refresh_token": told["access_token"]}
    assert (await http.post("/token/refresh", json=access)).status_code == 401


async def test_a_browsers_session_opens_no_socket(router: Router, http: httpx.AsyncClient) -> None:
    """Sockets go by tokens alone: a foreign page that could open one would find nobody logged in."""
    name = str((await new_user(http))["username"])
    async with httpx.AsyncClient(base_url=router.url) as browser:
        await browser.get("/session/login")
        form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert (await browser.post("/session/login", data=form)).status_code == 302
        assert (await browser.get("/balance")).status_code == 200
        cookie = {"Cookie": f"sessionid={browser.cookies['sessionid']}"}
    url = router.url.replace("http", "ws", 1) + "/ws"
    async with connect(url, additional_headers=cookie) as socket:
        client = Client(socket)
        assert (await client.next())["auth_status"] == "authentication required"
        assert (await client.ask(action="list"))["code"] == "unauthorized"


FOREIGN = (
    "https://evil.example", "null", "", "http://127.0.0.1.evil.example", "file://", "http://[", "//127.0.0.1@evil",
)  # fmt: skip


@pytest.mark.parametrize("path", ["/ws", "/ws/orderbook"])
@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_socket_of_a_foreign_page_is_refused(router: Router, path: str, origin: str) -> None:
    url = router.url.replace("http", "ws", 1) + path
    with pytest.raises(InvalidStatus, match="403"):
        async with connect(url, additional_headers={"Origin": origin}):
            pass


async def standing(http: httpx.AsyncClient, rights: dict[str, str]) -> list[Any]:
    """Return what a stranger could have changed of somebody's orders; what the market was meanwhile moves by itself."""
    told = ("id", "status", "price", "quantity", "filled_quantity")
    return [[order[name] for name in told] for order in (await http.get("/orders", headers=rights)).json()["orders"]]


async def test_nobody_hears_or_touches_what_is_another_users(router: Router, http: httpx.AsyncClient) -> None:
    alice, bob = await new_user(http), await new_user(http)
    rights = bearer(alice["access_token"])
    await http.post("/deposit", json={"asset": "USDT", "amount": 100_000}, headers=rights)
    resting = {"symbol": "BTCUSDT", "side": "buy", "price": 1, "quantity": 1}
    twap = {"token_id": "secret-twap", "symbol": "BTCUSDT", "side": "buy", "total_quantity": 1, "slices": 2,
            "duration_seconds": 600, "limit_price": 1}  # fmt: skip
    order = (await http.post("/orders", json={**resting, "token_id": "secret-order"}, headers=rights)).json()
    parent = (await http.post("/orders/twap", json=twap, headers=rights)).raise_for_status().json()
    async with router.client(bob["access_token"]) as mine, router.client(alice["access_token"]) as hers:
        before = await standing(http, rights)
        for name in ("secret-order", order["id"], "secret-twap", parent["order_id"]):
            for key in ("token_id", "order_id"):
                theirs = {key: name, "user_id": alice["user_id"], "account_id": alice["user_id"]}
                assert (await mine.ask(action="cancel_order", **theirs))["code"] == "order_not_found"
                assert (await mine.ask(action="modify_order", **theirs, price=2))["code"] == "order_not_found"
        theirs = {"user_id": alice["user_id"], "account_id": alice["user_id"], "username": alice["username"]}
        assert (await mine.ask(action="submit_order", **resting, **theirs, token_id="x"))[
            "code"
        ] == "insufficient_funds"
        assert (await mine.ask(action="resume", from_seq=0, **theirs))["last_seq"] == 0
        assert await standing(http, rights) == before
        await hers.send(action="subscribe", stream="best_touch", symbol="BTCUSDT")
        await hers.until(lambda message: message.get("data", {}).get("best_ask") is not None)
        bought = {
            "symbol": "BTCUSDT",
            "side": "buy",
            "order_type": "market",
            "quantity": "0.001",
            "token_id": "secret-buy",
        }
        assert (await http.post("/orders", json=bought, headers=rights)).status_code == 201
        await hers.until(lambda message: message["type"] == "order_update")
        assert (await mine.ask(action="ping"))["type"] == "pong"
        heard = [
            message for message in mine.messages if message["type"] == "order_update" or "secret-buy" in str(message)
        ]
        assert heard == []


async def test_no_secret_reaches_the_log(tmp_path: Path) -> None:
    """At its most talkative the log of a day with passwords, tokens, keys and cookies in it holds none of them."""
    with environment_of("embedded", tmp_path) as environment:
        process = Process("web", {**environment, "PORT": "0", "LOG_LEVEL": "debug", "LOG_REQUESTS": "true"})
        await process.start()
        try:
            url = str((await process.logged("listening"))["url"])
            secrets = await a_day(url)
        finally:
            await process.stop()
    text = "\n".join(process.log)
    assert "/orders" in text, "the day is in the log"
    assert [what for what, secret in secrets.items() if secret in text] == []


async def a_day(url: str) -> dict[str, str]:
    """Use every kind of secret in every place; return them by what they are."""
    password, wrong = f"right-{uuid.uuid4().hex}", f"wrong-{uuid.uuid4().hex}"
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_S) as http:
        told = (
            (await http.post("/register", json={"username": "alice", "password": password})).raise_for_status().json()
        )
        access, refresh = told["access_token"], told["refresh_token"]
        for body in ({"username": "alice", "password": wrong}, {"username": wrong, "password": [wrong]}):
            assert (await http.post("/login", json=body)).status_code in (401, 422)
        await http.post("/login", content=f'{{"password": "{wrong}"', headers={"Content-Type": "application/json"})
        key = (await http.post("/api-keys", json={}, headers=bearer(access))).raise_for_status().json()["api_key"]
        await http.post("/token/refresh", json={"refresh_token": refresh})
        for name in (access, refresh, key):
            for path in (f"/orders/{name}", f"/{name}", f"/info?token={name}", f"/balance?api_key={name}"):
                await http.get(path, headers=bearer(access))
                await http.get(path, headers={"X-API-Key": key, "X-Request-Id": "known"})
        await http.get("/session/login")
        csrf = http.cookies["csrftoken"]
        for guess in (wrong, password):
            form = {"username": "alice", "password": guess, "csrfmiddlewaretoken": csrf}
            await http.post("/session/login", data=form)
            await http.post("/session/login", data={**form, "csrfmiddlewaretoken": "bad"})  # refused, and told why
        session = http.cookies["sessionid"]
        assert (await http.get("/balance")).status_code == 200
    socket_url = url.replace("http", "ws", 1) + "/ws"
    for credential in (access, key, refresh, wrong):
        for target, headers in (
            (f"?token={credential}", {}),
            ("", bearer(credential)),
            ("", {"X-API-Key": credential}),
        ):
            async with connect(socket_url + target, additional_headers=headers) as socket:
                await Client(socket).next()
        async with connect(socket_url) as socket:
            client = Client(socket)
            await client.send(action="auth", token=credential)
            await client.send(action=credential, token=credential)
            await client.next()
    with pytest.raises(InvalidStatus):
        async with connect(f"{socket_url}?token={access}", additional_headers={"Origin": "https://evil.example"}):
            pass
    return {
        "password": password, "wrong password": wrong, "access token": access,
        "its signature": access.rpartition(".")[2],
        "refresh token": refresh, "API key": key, "session": session, "CSRF cookie": csrf,
    }  # fmt: skip
