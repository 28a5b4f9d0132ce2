import asyncio
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection

from accounts import services
from accounts.limits import current_limits
from accounts.models import User
from router_project.throttle import Throttle, counted_as

pytestmark = pytest.mark.django_db(transaction=True)


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def throttle(settings: LazySettings) -> Iterator[Throttle]:
    settings.RATE_LIMITS = True
    settings.RATE_REQUESTS_A_MINUTE = {"ANONYMOUS": 3, "BASIC": 5, "PREMIUM": 50}
    settings.RATE_ORDER_ACTIONS_A_SECOND = {"ANONYMOUS": 1, "BASIC": 2, "PREMIUM": 20}
    settings.TRUSTED_PROXIES = frozenset({"10.0.0.1"})
    current_limits.cache_clear()
    yield Throttle(app)
    current_limits.cache_clear()


async def ask(
    throttle: Throttle, path: str = "/info", method: str = "GET", peer: str = "1.2.3.4", **headers: str
) -> Any:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs, "client": (peer, 1)}
    await throttle(scope, None, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def test_every_answer_tells_what_is_left_and_the_one_too_many_when_to_come_back(throttle: Throttle) -> None:
    for left in (2, 1, 0):
        status, headers = await ask(throttle)
        assert (status, headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == (200, "3", str(left))
        assert headers["x-app"] == "yes"
    status, headers = await ask(throttle)
    assert status == 429
    assert 1 <= int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-remaining"] == "0"
    assert (await ask(throttle, peer="1.2.3.5"))[0] == 200
    assert (await ask(throttle, path="/health"))[0] == 200


async def test_a_proxys_word_counts_only_when_it_is_trusted(throttle: Throttle) -> None:
    statuses = [(await ask(throttle, x_forwarded_for=f"9.9.9.{number}"))[0] for number in range(6)]
    assert statuses == [200] * 3 + [429] * 3
    trusted = [(await ask(throttle, peer="10.0.0.1", x_forwarded_for=f"9.9.9.{number}"))[0] for number in range(6)]
    assert trusted == [200] * 6
    spoofed = [
        (await ask(throttle, peer="10.0.0.1", x_forwarded_for=f"{number}.1.1.1, 8.8.8.8"))[0] for number in range(6)
    ]
    assert spoofed == [200] * 3 + [429] * 3, "the hop that the proxy saw counts, not what the client wrote before it"


@pytest.mark.parametrize("credential", ["token", "key"])
async def test_a_user_has_the_limits_of_their_tier_wherever_they_come_from(throttle: Throttle, credential: str) -> None:
    name = f"u{uuid.uuid4().hex[:8]}"
    made = await asyncio.to_thread(services.register, username=name, password="password123")
    if credential == "token":
        headers = {"authorization": f"Bearer {made.access_token}"}
    else:
        key = await asyncio.to_thread(services.make_key, user_id=made.user.pk)
        headers = {"x_api_key": key.raw}
    statuses = [(await ask(throttle, peer=f"1.1.1.{number}", **headers))[0] for number in range(7)]
    assert statuses == [200] * 5 + [429] * 2
    await User.objects.filter(pk=made.user.pk).aupdate(tier="PREMIUM")
    throttle._known.clear()
    assert (await ask(throttle, **headers))[1]["x-ratelimit-limit"] == "50"


async def test_a_made_up_token_counts_for_its_address(throttle: Throttle) -> None:
    statuses = [(await ask(throttle, authorization=f"Bearer made.up.{number}"))[0] for number in range(5)]
    assert statuses == [200] * 3 + [429] * 2


async def test_all_keys_and_tokens_of_a_user_share_one_count(throttle: Throttle) -> None:
    made = await asyncio.to_thread(services.register, username="dave", password="password123")
    keys = [await asyncio.to_thread(services.make_key, user_id=made.user.pk) for _ in range(3)]
    again = await asyncio.to_thread(services.login, username="dave", password="password123")
    credentials = [{"x_api_key": key.raw} for key in keys]
    credentials += [{"authorization": f"Bearer {one.access_token}"} for one in (made, again)]
    statuses = [(await ask(throttle, **headers))[0] for headers in credentials * 2]
    assert statuses == [200] * 5 + [429] * 5


async def test_who_is_counted_is_who_is_served(throttle: Throttle) -> None:
    """Another credential beside the one that REST framework takes counts for nothing, wherever it stands."""
    erin, other = [
        await asyncio.to_thread(services.register, username=name, password="password123") for name in ("erin", "other")
    ]
    foreign = (await asyncio.to_thread(services.make_key, user_id=other.user.pk)).raw
    own = (await asyncio.to_thread(services.make_key, user_id=erin.user.pk)).raw
    token = f"Bearer {erin.access_token}"
    spoofs = [
        {"x_api_key": foreign, "authorization": token},
        {"x_api_key": "", "authorization": token},
        {"x_token_id": "sr_madeup", "authorization": token},
        {"x_token_id": foreign, "x_api_key": own},
        {"authorization": "Basic ZXJpbjp4", "x_api_key": own},
    ]
    answers = [await ask(throttle, **headers) for headers in spoofs]
    assert [headers["x-ratelimit-remaining"] for _, headers in answers] == ["4", "3", "2", "1", "0"]
    assert (await ask(throttle, authorization=token))[0] == 429
    assert (await ask(throttle, x_api_key=foreign))[1]["x-ratelimit-remaining"] == "4", "not a hit was the other's"


async def test_an_ipv6_network_is_one_sender(throttle: Throttle) -> None:
    statuses = [(await ask(throttle, peer=f"2001:db8:1:2:{number:x}::{number:x}"))[0] for number in range(1, 6)]
    assert statuses == [200] * 3 + [429] * 2
    assert (await ask(throttle, peer="2001:db8:1:3::1"))[0] == 200, "a neighbour's network"
    behind = [
        (await ask(throttle, peer="10.0.0.1", x_forwarded_for=f"2001:db8:9:9::{number:x}"))[0] for number in range(5)
    ]
    assert behind == [200] * 3 + [429] * 2
    mapped = [(await ask(throttle, peer=peer))[0] for peer in ("::ffff:7.7.7.7", "7.7.7.7") * 2]
    assert mapped == [200] * 3 + [429]


@pytest.mark.parametrize(
    ("address", "counted"),
    [("9.9.9.9", "9.9.9.9"), ("::1", "::"), ("2001:db8::1", "2001:db8::"), ("fe80::1%eth0", "fe80::"),
     ("::ffff:9.9.9.9", "9.9.9.9"), ("unknown", "unknown"), ("a:b", "a:b"), ("", "")],
)  # fmt: skip
def test_what_an_address_is_counted_as(address: str, counted: str) -> None:
    assert counted_as(address) == counted


async def test_credentials_that_are_none_are_not_kept(throttle: Throttle) -> None:
    """They cost nobody's memory, and push nobody's good one out."""
    made = await asyncio.to_thread(services.register, username="frank", password="password123")
    await ask(throttle, authorization=f"Bearer {made.access_token}")
    for number in range(20):
        await ask(throttle, authorization=f"Bearer {number}" + "x" * 30_000)
        await ask(throttle, x_api_key=f"sr_{number}" + "x" * 30_000)
    assert list(throttle._known) == [made.access_token]


async def test_order_actions_have_a_limit_of_their_own(throttle: Throttle) -> None:
    made = await asyncio.to_thread(services.register, username="carol", password="password123")
    headers = {"authorization": f"Bearer {made.access_token}"}
    statuses = [(await ask(throttle, "/orders", "POST", **headers))[0] for _ in range(4)]
    assert statuses == [200, 200, 429, 429]


@pytest.mark.postgres
async def test_finding_the_senders_keeps_no_connection_of_the_pool(throttle: Throttle) -> None:
    threads = connection.settings_dict["OPTIONS"]["pool"]["max_size"] + 4  # as on a machine with many cores
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads))
    tokens = [await asyncio.to_thread(_new_token) for _ in range(3 * threads)]
    answers = await asyncio.gather(*(ask(throttle, authorization=f"Bearer {token}") for token in tokens))
    assert [status for status, _ in answers] == [200] * len(tokens)
    assert {headers["x-ratelimit-limit"] for _, headers in answers} == {"5"}


def _new_token() -> str:
    try:
        return services.register(username=f"u{uuid.uuid4().hex[:12]}", password="password123").access_token
    finally:
        connection.close()
