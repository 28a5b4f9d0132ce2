"""TWAP orders through the client: placed once, followed slice by slice, stopped."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import pytest_asyncio
from router_client import APIClient, AsyncAPIClient, DuplicateTokenId, InvalidRequest, NotFound, OrderUpdate, Refused

from tests.client.conftest import MONEY, PASSWORD
from tests.client.relay import Relay
from tests.running import Router

pytestmark = pytest.mark.timeout(60)

LONG = {"duration_seconds": 600, "slices": 600}  # one slice a second, longer than any test


@pytest_asyncio.fixture
async def relayed(router: Router, name: str) -> AsyncIterator[tuple[Relay, AsyncAPIClient]]:
    """A trader whose answers may be lost on the way."""
    async with Relay(router.url).running() as relay, AsyncAPIClient(relay.url) as client:
        await client.register(name, PASSWORD)
        await client.deposit("USDT", MONEY)
        yield relay, client


async def test_an_order_is_followed_slice_by_slice_to_its_report(trader: AsyncAPIClient) -> None:
    seen: list[OrderUpdate] = []
    async with trader.order_updates() as updates:
        placed = await trader.place_twap(
            "btc-usdt", "buy", "0.05", duration_seconds=2, slices=4, exchange="okx", token_id="mine"
        )
        async for update in updates:
            seen.append(update)
            if update.twap is not None and update.twap.is_completed:
                break
    done = await trader.twap("mine")

    assert placed.is_open
    assert placed.message
    assert (placed.token_id, placed.symbol, placed.pair, placed.exchange) == ("mine", "BTCUSDT", "BTCUSDT", "okx")
    assert placed.limit_price is not None, "it found one itself"
    assert [update.seq for update in seen] == list(range(1, len(seen) + 1))
    shown = [update.twap.percent_executed for update in seen if update.twap is not None]
    assert len(shown) == len(seen)
    assert shown == sorted(shown)
    assert (done.status, done.executed_quantity, done.remaining) == ("filled", Decimal("0.05"), 0)
    assert (done.slices_executed, done.percent_executed, done.is_completed) == (4, 100, True)
    assert sum(one.quantity for one in done.executions) == done.total_quantity
    assert {one.exchange for one in done.executions} == {"okx"}
    assert [fill.fill_id for one in done.executions for fill in one.fills] == [
        update.fill.fill_id for update in seen if update.fill is not None
    ]
    assert all(update.order.token_id == "mine" for update in seen)
    assert done.arrival_price is not None
    assert done.market_twap is not None
    assert done.average_price is not None
    worse = (done.average_price - done.arrival_price) / done.arrival_price * 10_000
    assert done.slippage_arrival_bps == pytest.approx(worse, abs=Decimal("0.001"))
    assert done.slippage_twap_bps is not None
    assert done.starts_at is not None
    assert done.ends_at is not None
    assert (done.ends_at - done.starts_at).total_seconds() == 2
    assert await trader.twap(done.order_id) == done


async def test_its_receipts_say_their_slice_and_the_level_they_took(trader: AsyncAPIClient) -> None:
    async with trader.order_updates() as updates:
        placed = await trader.place_twap("BTCUSDT", "buy", "0.01", duration_seconds=4, slices=2)
        async for update in updates:
            if update.twap is not None and update.twap.is_completed:
                break
    fills = [fill async for fill in trader.iter_fills(order=placed.token_id)]

    assert {fill.slice for fill in fills} == {0, 1}
    for fill in fills:
        assert fill.touch is not None
        assert fill.touch.level is not None
        assert fill.touch.level.price == fill.price


def test_it_is_stopped_and_what_it_did_stays(client: APIClient) -> None:
    with client.order_updates() as updates:
        placed = client.place_twap("BTCUSDT", "buy", "0.6", **LONG)
        first = updates.next(10)
    stopped = client.stop_twap(placed.order_id)

    assert first.twap is not None
    assert first.twap.slices_executed >= 1
    assert (stopped.status, stopped.reason, stopped.is_completed) == ("partially_filled", "by_client", True)
    assert 0 < stopped.executed_quantity < stopped.total_quantity
    assert client.balance()["USDT"].reserved == 0
    with pytest.raises(Refused) as refused:
        client.stop_twap(placed.order_id)
    assert refused.value.code == "order_not_open"


def test_it_is_an_order_among_the_others(client: APIClient) -> None:
    placed = client.place_twap("BTCUSDT", "buy", "0.6", limit_price=1, **LONG)

    order = client.order(placed.token_id)
    assert (order.order_type, order.quantity, order.price) == ("twap", Decimal("0.6"), 1)
    assert [one.token_id for one in client.iter_orders(status="open")] == [placed.token_id]
    with pytest.raises(Refused) as refused:
        client.amend_order(placed.token_id, quantity=1)
    assert refused.value.code == "order_not_amendable"
    assert client.cancel_order(placed.token_id).status == "cancelled"
    assert client.twap(placed.token_id).reason == "by_client"


def test_refusals_are_those_of_orders(client: APIClient) -> None:
    first = client.place_twap("BTCUSDT", "buy", "0.1", limit_price=1, token_id="once", **LONG)
    with pytest.raises(DuplicateTokenId) as used:
        client.place_twap("BTCUSDT", "buy", "0.1", limit_price=1, token_id="once", **LONG)
    assert used.value.order is not None
    assert used.value.order.id == first.order_id
    with pytest.raises(Refused) as refused:
        client.place_twap("BTCUSDT", "buy", 1_000_000, limit_price=1_000, **LONG)
    assert refused.value.code == "insufficient_funds"
    with pytest.raises(InvalidRequest) as invalid:
        client.place_twap("BTCUSDT", "buy", 1, duration_seconds=0, slices=1)
    assert invalid.value.problems[0].loc == ["body", "duration_seconds"]
    with pytest.raises(NotFound):
        client.twap("nobody has this")


async def test_an_order_whose_answer_is_lost_is_placed_once(relayed: tuple[Relay, AsyncAPIClient]) -> None:
    relay, client = relayed
    relay.lose_answers = 1

    placed = await client.place_twap("BTCUSDT", "buy", "0.6", limit_price=1, **LONG)

    assert relay.lose_answers == 0
    assert [order.token_id async for order in client.iter_orders()] == [placed.token_id]


async def test_a_stop_whose_answer_is_lost_is_known(relayed: tuple[Relay, AsyncAPIClient]) -> None:
    relay, client = relayed
    placed = await client.place_twap("BTCUSDT", "buy", "0.6", limit_price=1, **LONG)
    relay.lose_answers = 1

    stopped = await client.stop_twap(placed.order_id)

    assert relay.lose_answers == 0
    assert stopped.status == "cancelled"
