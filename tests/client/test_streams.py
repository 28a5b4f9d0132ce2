"""The socket against a running router: every stream, and that no iterator holds up another."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal

import pytest
import pytest_asyncio
from router_client import (
    AsyncAPIClient,
    Connected,
    DuplicateTokenId,
    InvalidRequest,
    NotFound,
    Notice,
    Refused,
    SlowConsumer,
    Tokens,
    Unauthorized,
    async_client,
)

from tests.client.relay import Relay
from tests.running import Router

pytestmark = pytest.mark.timeout(60)


async def subscriptions(client: AsyncAPIClient) -> set[str]:
    """Return the streams that the router has for this client's socket."""
    return {made.stream for made in await client.ws.subscriptions()}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            pass


async def test_every_stream_yields_its_type(trader: AsyncAPIClient) -> None:
    touch = await anext(trader.best_touch("btc/usdt"))
    trade = await anext(trader.trades("BTCUSDT"))
    okx = await anext(trader.trades("BTCUSDT", "okx"))
    kline = await anext(trader.klines("BTCUSDT", interval="1s"))
    ewma = await anext(trader.ewma("BTCUSDT", half_life="2.5"))
    book = await anext(trader.orderbook("BTCUSDT", depth=3))
    books = await anext(trader.websocket_orderbook())

    assert touch.symbol == "BTCUSDT"
    assert isinstance(touch.best_bid, Decimal)
    assert isinstance(trade.price, Decimal)
    assert okx.exchange == "okx"
    assert kline.interval == "1s"
    assert ewma.half_life == 2.5
    assert len(book.bids) == 3
    assert books.keys() == {"binance", "okx", "kraken"}


async def test_iterators_of_different_arguments_do_not_mix(trader: AsyncAPIClient) -> None:
    streams = {depth: trader.orderbook("BTCUSDT", depth=depth) for depth in (1, 5)}
    averages = {life: trader.ewma("BTCUSDT", half_life=life) for life in (1, 60)}
    venues = {venue: trader.best_touch("BTCUSDT", venue) for venue in ("all", "okx", "kraken")}

    for depth, books in streams.items():
        assert [len((await anext(books)).asks) for _ in range(5)] == [depth] * 5
    for life, values in averages.items():
        assert [(await anext(values)).half_life for _ in range(3)] == [life] * 3
    for venue, touches in venues.items():
        assert [(await anext(touches)).exchange for _ in range(3)] == [venue] * 3


async def test_iterators_of_the_same_stream_share_a_subscription(trader: AsyncAPIClient) -> None:
    async with trader.best_touch("BTCUSDT") as one:
        await anext(one)
        async with trader.best_touch("btc-usdt") as other:
            assert (await anext(other)).symbol == "BTCUSDT"  # at once, though nothing changed
        assert (await anext(one)).symbol == "BTCUSDT"  # the other's end is not its own
        assert await subscriptions(trader) == {"best_touch"}

    assert await subscriptions(trader) == set()
    assert trader.ws.connections == 1


async def test_a_loop_that_is_left_ends_its_subscription(trader: AsyncAPIClient) -> None:
    async for _ in trader.trades("BTCUSDT"):
        break

    async def is_gone() -> bool:
        gc.collect()
        return await subscriptions(trader) == set()

    await until(is_gone)


async def test_a_slow_reader_sees_the_newest_touch_and_all_trades(trader: AsyncAPIClient) -> None:
    """One iterator is not read for a while: the others go on, and it misses no trade."""
    async with trader.trades("BTCUSDT") as slow, trader.best_touch("BTCUSDT") as touches:
        quick = trader.trades("BTCUSDT")
        seen = [await anext(quick) for _ in range(40)]
        late = [await anext(slow) for _ in range(30)]

        first = late.index(seen[0])
        assert late[first:] == seen[: len(late) - first]
        kept = await anext(touches)
        assert kept.timestamp >= seen[-1].timestamp - 5


async def test_who_falls_too_far_behind_is_told_and_the_others_go_on(
    trader: AsyncAPIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_client, "TRADES_MAX", 3)
    async with trader.trades("BTCUSDT") as slow:
        monkeypatch.undo()
        async with trader.trades("BTCUSDT") as quick:
            for _ in range(10):
                await anext(quick)

            assert len([await anext(slow) for _ in range(3)]) == 3
            with pytest.raises(SlowConsumer):
                await anext(slow)
            await anext(quick)


async def test_a_refused_subscription_is_its_iterators_error_alone(trader: AsyncAPIClient) -> None:
    async with trader.best_touch("BTCUSDT") as good:
        with pytest.raises(Refused) as refused:
            await anext(trader.best_touch("NOPEUSDT"))
        assert refused.value.code == "unknown_symbol"
        with pytest.raises(Refused):
            await anext(trader.klines("BTCUSDT", interval="7m"))
        with pytest.raises(Refused):
            await anext(trader.websocket_orderbook("nowhere"))

        await anext(good)


async def test_nobody_gets_no_streams(router: Router) -> None:
    async with AsyncAPIClient(router.url) as nobody:
        for stream in (nobody.best_touch("BTCUSDT"), nobody.order_updates()):
            with pytest.raises(Unauthorized):
                await anext(stream)
        assert await anext(nobody.websocket_orderbook("okx"))

    async with AsyncAPIClient(router.url, token="no token") as liar:
        for stream in (liar.best_touch("BTCUSDT"), liar.order_updates()):
            with pytest.raises(Unauthorized):
                await anext(stream)


async def test_an_api_key_opens_the_socket(trader: AsyncAPIClient, router: Router) -> None:
    key = (await trader.create_api_key()).api_key

    async with AsyncAPIClient(router.url, api_key=key) as bot, bot.order_updates() as updates:
        await bot.ws.submit_order("BTCUSDT", "buy", "0.01", order_type="market")
        assert (await anext(updates)).seq == 1


async def test_orders_over_the_socket(trader: AsyncAPIClient) -> None:
    resting = await trader.ws.submit_order("BTCUSDT", "buy", "0.01", "1000.5", token_id="by socket")
    changed = await trader.ws.modify_order("by socket", price=1001)
    ended = await trader.ws.cancel_order("by socket")

    assert resting.price == Decimal("1000.5")
    assert changed.price == 1001
    assert ended.status == "cancelled"
    assert await trader.order("by socket") == ended
    with pytest.raises(Refused) as refused:
        await trader.ws.cancel_order("by socket")
    assert refused.value.code == "order_not_open"
    with pytest.raises(DuplicateTokenId) as duplicate:
        await trader.ws.submit_order("BTCUSDT", "buy", 1, 1, token_id="by socket")
    assert duplicate.value.order == ended
    with pytest.raises(NotFound):
        await trader.ws.cancel_order("nobody has this")
    with pytest.raises(InvalidRequest):
        await trader.ws.submit_order("BTCUSDT", "hold", 1, 1)
    await trader.ws.ping()


async def test_many_commands_at_once_get_their_own_answers(trader: AsyncAPIClient) -> None:
    names = [f"order {number}" for number in range(50)]

    placed = await asyncio.gather(*(trader.ws.submit_order("BTCUSDT", "buy", 1, 1, token_id=name) for name in names))

    assert [order.token_id for order in placed] == names


async def test_every_iterator_of_order_updates_gets_each_once(trader: AsyncAPIClient) -> None:
    async with trader.order_updates() as early:
        for _ in range(3):
            await trader.place_order("BTCUSDT", "buy", "0.001", order_type="market")
        assert [(await anext(early)).seq for _ in range(3)] == [1, 2, 3]
        async with trader.order_updates() as late, trader.order_updates(from_seq=1) as history:
            await trader.place_order("BTCUSDT", "buy", "0.001", order_type="market")

            assert [(await anext(late)).seq] == [4]
            assert [(await anext(history)).seq for _ in range(3)] == [2, 3, 4]
            assert (await anext(early)).seq == 4


async def test_a_number_beyond_the_present_is_refused(trader: AsyncAPIClient) -> None:
    with pytest.raises(Refused):
        await anext(trader.order_updates(from_seq=99))


@pytest_asyncio.fixture
async def relay(router: Router) -> AsyncIterator[Relay]:
    async with Relay(router.url).running() as relay:
        yield relay


async def test_streams_go_on_after_the_connection_was_cut(relay: Relay, trader: AsyncAPIClient) -> None:
    told: list[Notice] = []
    session = trader.session
    async with (
        AsyncAPIClient(relay.url, session=session, on_notice=told.append) as client,
        client.best_touch("BTCUSDT") as touches,
        client.notices() as notices,
        client.order_updates() as updates,
    ):
        await anext(touches)
        relay.cut()
        await trader.place_order("BTCUSDT", "buy", "0.001", order_type="market")  # past the cut connection

        async for notice in notices:
            if isinstance(notice, Connected) and notice.reconnects:
                break
        assert (await anext(updates)).seq == 1
        before = client.ws.connections
        for _ in range(5):
            await anext(touches)

    assert before == 2
    assert [type(notice).__name__ for notice in told][:3] == ["Connected", "Disconnected", "Connected"]


@pytest.mark.parametrize("over", ["rest", "socket"])
async def test_an_order_whose_answer_is_lost_is_placed_once(relay: Relay, trader: AsyncAPIClient, over: str) -> None:
    async with AsyncAPIClient(relay.url, session=trader.session) as client:
        if over == "rest":
            relay.lose_answers = 2
            order = await client.place_order("BTCUSDT", "buy", "0.001", order_type="market")
        else:
            await client.ws.ping()
            relay.deaf = True
            placing = asyncio.create_task(client.ws.submit_order("BTCUSDT", "buy", "0.001", order_type="market"))

            async def is_there() -> bool:
                return bool((await trader.orders()).orders)

            await until(is_there)
            relay.deaf = False
            relay.cut()
            order = await placing

    assert [one.token_id for one in (await trader.orders()).orders] == [order.token_id]
    assert order.status == "filled"


async def test_a_closed_stream_ends(trader: AsyncAPIClient) -> None:
    updates = trader.order_updates()
    await updates.begin()

    await updates.aclose()

    assert [update async for update in updates] == []


async def test_a_callback_that_fails_harms_no_stream(router: Router, trader: AsyncAPIClient) -> None:
    def fail(notice: Notice) -> None:
        raise RuntimeError(str(notice))

    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    async with AsyncAPIClient(router.url, session=trader.session, on_notice=fail) as client:
        await anext(client.best_touch("BTCUSDT"))

    assert failures


async def test_a_token_is_renewed_while_streams_go_on(trader: AsyncAPIClient) -> None:
    """The router would close a socket whose token has ended; it is shown the new one on the same socket."""
    session = trader.session
    assert session.token is not None
    assert session.refresh_token is not None
    session.take(Tokens(session.token, session.refresh_token, expires_in=1))  # as far as the client knows
    version = session.version

    async for _ in trader.best_touch("BTCUSDT"):
        if session.version > version:
            break

    await trader.ws.ping()
    assert trader.ws.connections == 1
