"""What a program that uses the client sees of its types: checked by `make check`, never run.

Every call's answer is asserted, and no expression here may be of the type Any.
"""

from decimal import Decimal
from typing import assert_type

from router_client import (
    APIClient,
    AsyncAPIClient,
    Balances,
    BestTouch,
    Books,
    DuplicateTokenId,
    Fill,
    InvalidRequest,
    Kline,
    Klines,
    Notice,
    Order,
    OrderBook,
    OrderUpdate,
    Problem,
    RateLimit,
    RouterError,
    SeenTouch,
    Stream,
    Subscribed,
    SyncStream,
    TooManyRequests,
    Trade,
    TwapOrder,
    Unavailable,
)


def synchronous(client: APIClient) -> None:
    assert_type(client.balance(), Balances)
    assert_type(client.get_klines("BTCUSDT"), Klines)
    assert_type(client.get_orderbook("BTCUSDT").bids[0].price, Decimal)
    assert_type(client.place_order("BTCUSDT", "buy", "0.1"), Order)
    assert_type(client.place_twap("BTCUSDT", "buy", 1, duration_seconds=60, slices=6), TwapOrder)
    assert_type(client.rate_limit, RateLimit | None)
    for fill in client.iter_fills():
        assert_type(fill, Fill)
        assert_type(fill.touch, SeenTouch | None)
    with client.trades("BTCUSDT") as trades:
        assert_type(trades, SyncStream[Trade])
        assert_type(trades.next(1), Trade)
    with client.notices() as notices:
        assert_type(next(notices), Notice)


async def asynchronous(client: AsyncAPIClient) -> None:
    assert_type(await client.balance(), Balances)
    assert_type(await client.ws.submit_order("BTCUSDT", "buy", "0.1"), Order)
    assert_type(await client.ws.subscriptions(), list[Subscribed])
    assert_type(client.best_touch("BTCUSDT"), Stream[BestTouch])
    async for kline in client.klines("BTCUSDT"):
        assert_type(kline, Kline)
    async for book in client.orderbook("BTCUSDT"):
        assert_type(book, OrderBook)
    async for books in client.websocket_orderbook():
        assert_type(books, Books)
    async with client.order_updates() as updates:
        assert_type(await anext(updates), OrderUpdate)


def errors(client: APIClient) -> str:
    try:
        client.info()
    except DuplicateTokenId as error:
        assert_type(error.order, Order | None)
    except InvalidRequest as error:
        assert_type(error.problems, tuple[Problem, ...])
    except TooManyRequests as error:
        assert_type(error.retry_after, float)
    except Unavailable as error:
        assert_type(error.retry_after, float | None)
    except RouterError as error:
        assert_type(error.detail, object)
        return error.code
    return ""
