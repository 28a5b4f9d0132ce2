"""A person at the REST routes of an exchange whose market the test sets."""

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test import Client

from accounts import services as accounts
from core import strict_json
from tests.trading.desk import Desk
from trading import reader, services

T = TypeVar("T")

PASSWORD = "password123"


class Answer:
    """What was answered: its status, and its JSON with exact numbers."""

    def __init__(self, status: int, content: bytes, content_type: str) -> None:
        assert content_type == "application/json", content_type
        self.status = status
        self.json: Any = json.loads(content, parse_float=Decimal)

    def __getitem__(self, name: str) -> Any:
        return self.json[name]

    def refused(self, status: int, code: str) -> dict[str, Any]:
        """Check the error's shape, and return it."""
        body = self.json
        assert (self.status, body["code"]) == (status, code), body
        assert isinstance(body["message"], str)
        assert "\n" not in body["message"]
        assert body["message"]
        if status == 422:
            assert body["detail"]
            for item in body["detail"]:
                assert set(item) == {"loc", "msg", "type"}
        else:
            assert isinstance(body["detail"], str)
        return body


class Person:
    """Speaks to the documented views as one user."""

    def __init__(self, username: str, *, token: str | None = None) -> None:
        if token is None:
            session = accounts.register(username=username, password=PASSWORD)
            token, self.user = session.access_token, session.user
        self.username = username
        self.token = token
        self.http = Client(raise_request_exception=False)

    def ask(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Answer:
        data = body if isinstance(body, bytes) else b"" if body is None else strict_json.dumps(body)
        response = self.http.generic(method, path, data, content_type, HTTP_AUTHORIZATION=f"Bearer {self.token}")
        return Answer(response.status_code, response.content, response.headers["Content-Type"])

    def get(self, path: str, expect: int = 200) -> Any:
        answer = self.ask("GET", path)
        assert answer.status == expect, answer.json
        return answer.json

    def place(self, token_id: str, side: str, quantity: Any, price: Any = None, **more: Any) -> Answer:
        body = {"token_id": token_id, "symbol": "BTCUSDT", "side": side, "quantity": quantity, **more}
        return self.ask("POST", "/orders", body if price is None else {**body, "price": price})

    def deposit(self, asset: str, amount: Any) -> None:
        assert self.ask("POST", "/deposit", {"asset": asset, "amount": amount}).status == 200

    def totals(self) -> dict[str, tuple[Decimal, Decimal]]:
        """Return total and reserved of what there is."""
        body = self.get("/balance")
        rows = {row["asset"]: (row["total"], row["reserved"]) for row in body["balances"]}
        return {asset: pair for asset, pair in rows.items() if pair != (0, 0)}


async def aside(call: Callable[..., T], *args: Any, **options: Any) -> T:
    """Run something that uses the database from an async test, and leave no connection behind."""

    def run() -> T:
        try:
            return call(*args, **options)
        finally:
            connection.close()

    return await sync_to_async(run)()


@contextlib.contextmanager
def served_by(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the routes of this process use the desk's exchange, and readers that end with the test."""
    readers = ThreadPoolExecutor(1)
    monkeypatch.setattr(services, "_exchange", [desk.exchange])
    monkeypatch.setattr(reader, "_executor", readers)
    try:
        yield
    finally:
        readers.submit(lambda: connection.close()).result()  # the thread's own connection
        readers.shutdown()
        desk.exchange.stop()
