"""The schema is kept: whatever a generator makes of it, the answers are of those that it lists."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.end_to_end.conftest import PROFILES
from tests.running import ROOT, Router

EXAMPLES = os.environ.get("SCHEMA_EXAMPLES", "25")  # of each operation on each profile, of which there are two
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180 + 4 * int(EXAMPLES))]
# What is well-formed may still be refused, with 400, by the account or the market.
LEFT_OUT = "positive_data_acceptance"


async def check(url: str, token: str, seed: int) -> tuple[int, str]:
    """Ask every operation in many ways, and one after the other; return the status and what was not as described."""
    asked = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {token}", "--phases", "examples,coverage,fuzzing,stateful",
        "--checks", "all", "--exclude-checks", LEFT_OUT, "--max-examples", EXAMPLES, "--seed", str(seed), "--no-color",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = await asked.communicate()
    finally:
        if asked.returncode is None:
            asked.kill()
    return await asked.wait(), said.decode()


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


async def test_every_answer_is_of_those_that_the_schema_lists(router: Router, profile: str) -> None:
    status, said = await check(router.url, await router.register("schema"), SEED + PROFILES.index(profile))
    assert status == 0, said[-10_000:]
    found = re.search(r"Operations:\s+(\d+) selected", said)
    assert found is not None, said
    assert int(found[1]) > 25
