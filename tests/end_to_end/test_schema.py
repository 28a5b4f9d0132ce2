"""The schema is kept: whatever a generator makes of it, the answers are of those that it lists."""

import asyncio
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.running import Router

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

EXAMPLES = 15  # of each operation, well-formed and not
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODES = schemathesis.GenerationMode


@pytest.fixture(scope="module")
def profile() -> str:
    return "embedded"


def check(url: str, token: str) -> tuple[int, list[str]]:
    """Ask every operation in many ways; return how many there are, and what was not as described."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    count = 0
    failures: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        count += 1
        for mode in (MODES.POSITIVE, MODES.NEGATIVE):

            @seeded(1)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.generate],
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def conforms(case: schemathesis.Case) -> None:
                case.call_and_validate(base_url=url, headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)

            try:
                conforms()
            except Unsatisfiable:
                assert mode is MODES.NEGATIVE, "only an operation that takes nothing cannot be asked wrongly"
            except FailureGroup as group:
                failures += [f"{operation.label}: {type(failure).__name__} {failure}" for failure in group.exceptions]
    return count, failures


def ask(url: str, token: str, method: str, path: str, **case: Any) -> Any:
    """Ask one thing and check the answer against the schema."""
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path][method]
    headers = {"Authorization": f"Bearer {token}"}
    answer = operation.Case(**case).call_and_validate(base_url=url, headers=headers, checks=CHECKS)
    return answer.status_code, answer.json()


def trade(url: str, token: str) -> None:
    """Go through an account's life, each answer checked against the schema."""
    order = {"symbol": "BTCUSDT", "side": "buy", "quantity": 0.001}
    assert ask(url, token, "POST", "/deposit", body={"asset": "USDT", "amount": 10**6})[0] == 200
    status, filled = ask(url, token, "POST", "/orders", body={**order, "token_id": "a", "order_type": "market"})
    assert (status, filled["status"]) == (201, "filled")
    assert ask(url, token, "POST", "/orders", body={**order, "token_id": "b", "order_type": "ioc"})[0] == 201
    status, resting = ask(url, token, "POST", "/orders", body={**order, "token_id": "cd", "price": 1})
    assert (status, resting["status"]) == (201, "open")
    assert ask(url, token, "POST", "/orders", body={**order, "token_id": "a", "price": 1})[0] == 400
    assert ask(url, token, "GET", "/orders/{token}", path_parameters={"token": "a"})[1] == filled
    assert ask(url, token, "PUT", "/orders/{token}", path_parameters={"token": "cd"}, body={"price": 2})[0] == 200
    status, listed = ask(url, token, "GET", "/orders", query={"limit": 2})
    assert (len(listed["orders"]), bool(listed["next_cursor"])) == (2, True)
    assert ask(url, token, "GET", "/fills", query={"order": "a"})[1]["fills"] == filled["fills"]
    assert len(ask(url, token, "GET", "/ledger")[1]["entries"]) >= 3
    assert ask(url, token, "GET", "/balance")[1]["reserved"]["USDT"] > 0
    assert ask(url, token, "DELETE", "/orders/{token}", path_parameters={"token": "cd"})[1]["status"] == "cancelled"
    assert ask(url, token, "DELETE", "/orders/{token}", path_parameters={"token": "cd"})[0] == 400
    assert ask(url, token, "DELETE", "/orders")[0] == 200
    assert ask(url, token, "POST", "/account/reset", body={"balances": {"BTC": "0.5"}})[0] == 200


async def test_an_accounts_life_is_as_the_schema_says(router: Router) -> None:
    token = await router.register("trader")
    async with router.client(token) as client:
        await client.send(action="subscribe", stream="best_touch", symbol="BTCUSDT")
        await client.until(lambda message: message["type"] == "best_touch" and message["data"]["best_ask"] is not None)
    await asyncio.to_thread(trade, router.url, token)


async def test_every_answer_is_of_those_that_the_schema_lists(router: Router) -> None:
    token = await router.register("schema")
    async with asyncio.timeout(60):
        count, failures = await asyncio.to_thread(check, router.url, token)
    assert failures == []
    assert count > 25
