"""Bodies and paths that no client should send, over real sockets to real processes, on both profiles."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from tests.running import Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

ORDER = {"token_id": "n", "symbol": "BTCUSDT", "side": "buy", "price": 1, "quantity": 1}
MIB = 2**20
WRITES = [("POST", "/orders"), ("POST", "/deposit"), ("PUT", "/orders/x"), ("POST", "/account/reset")]


@pytest_asyncio.fixture(loop_scope="module")
async def http(router: Router) -> AsyncIterator[httpx.AsyncClient]:
    """A user with 1 000 USDT and an order named x."""
    token = await router.register("sender")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=router.url, headers=headers, timeout=20) as http:
        await http.post("/account/reset", json={"balances": {"USDT": 1_000}})
        await http.post("/orders", json={**ORDER, "token_id": "x"})  # the second time it is refused
        yield http


def refused(answer: httpx.Response, status: int) -> Any:
    assert answer.status_code == status, answer.text[:200]
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert {"detail", "message", "code"} <= set(body)
    return body


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_huge_deep_and_endless_bodies_are_refused_and_nothing_moves(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    before = (await http.get("/balance")).json()
    json_type = {"Content-Type": "application/json"}

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b" " * MIB

    bodies: list[tuple[Any, int]] = [
        (b"[" * 100_000, 413),
        (b"[" * 60_000, 400),
        (b'{"a":' * 10_000, 400),
        (b'{"token_id": "' + b"x" * 100_000 + b'"}', 413),
        (b'{"price": ' + b"9" * 5_000 + b"}", 400),
    ]
    for body, status in bodies:
        refused(await http.request(method, path, content=body, headers=json_type), status)
        assert (await http.get("/balance")).json() == before
    for huge in (b" " * (10 * MIB), endless()):
        with contextlib.suppress(httpx.TransportError):  # it may be cut off while it is still being sent
            refused(await http.request(method, path, content=huge, headers=json_type), 413)
        assert (await http.get("/balance")).json() == before


async def test_a_body_in_pieces_is_read_whole(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"asset": "US', b'DT", "amou', b'nt": 0.00000001}'):
            yield piece

    answer = await http.post("/deposit", content=pieces(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["amount"]) == (200, 1e-8)


async def test_forms_and_texts_are_not_read(http: httpx.AsyncClient) -> None:
    for method, path in WRITES:
        refused(await http.request(method, path, data={"asset": "USDT", "amount": "1"}), 415)
        refused(await http.request(method, path, files={"file": b"{}"}), 415)
        refused(await http.request(method, path, content="{}", headers={"Content-Type": "text/plain"}), 415)


@pytest.mark.parametrize(
    "target",
    ["/orders/%00", "/orders/a%00b", "/orders/%", "/orders/%zz", "/orders/%ff", "/orders/%ed%a0%80", "/orders/..",
     "/orders/%2e%2e", "/orders/.", "/orders/%2f", "/orders/a%2fb", "//orders", "/orders/x/y", "/orders/twap/x",
     "/orders/" + "a" * 20_000, "/orders/%0d%0aX: y", "/orders?cursor=%00", "/orders?limit=%ff", "/orders?symbol=%00",
     "/fills?order=%00", "/ledger?asset=%00", "/ledger?format=csv&asset=%00", "/account/reset/x", "/orders/\x7f"],
)  # fmt: skip
async def test_odd_targets_are_told_in_json(router: Router, http: httpx.AsyncClient, target: str) -> None:
    url = urlsplit(router.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        head = f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: {http.headers['Authorization']}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode("latin-1"))
        await writer.drain()
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
    head_part, _, body = answer.partition(b"\r\n\r\n")
    status = int(head_part.split()[1])
    assert 400 <= status < 500, head_part[:100]
    assert b"application/json" in head_part.lower()
    assert json.loads(body)["code"]


async def test_a_token_id_is_one_orders_however_many_ask_at_once(router: Router, http: httpx.AsyncClient) -> None:
    name = f"once-{router.url}".replace("/", "-")
    answers = await asyncio.gather(*(http.post("/orders", json={**ORDER, "token_id": name}) for _ in range(20)))
    made = [answer.json() for answer in answers if answer.status_code == 201]
    assert len(made) == 1
    for answer in answers:
        if answer.status_code != 201:
            body = refused(answer, 400)
            assert (body["code"], body["order"]["id"]) == ("duplicate_token_id", made[0]["id"])
    await http.delete(f"/orders/{made[0]['id']}")
    assert (await http.post("/orders", json={**ORDER, "token_id": name})).json()["order"]["status"] == "cancelled"
    other = {"Authorization": f"Bearer {await router.register('other')}"}
    await http.post("/deposit", json={"asset": "USDT", "amount": 1}, headers=other)
    assert (await http.post("/orders", json={**ORDER, "token_id": name}, headers=other)).status_code == 201
