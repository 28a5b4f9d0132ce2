"""The synchronous client against a running router: every route, every error."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from router_client import (
    APIClient,
    ConnectionFailed,
    DuplicateTokenId,
    InvalidRequest,
    NotFound,
    Refused,
    Retries,
    StreamClosed,
    Unauthorized,
)

from tests.client.conftest import MONEY, PASSWORD
from tests.running import Router


def test_a_user_registers_logs_in_and_refreshes(router: Router, name: str) -> None:
    with APIClient(router.url) as client:
        made = client.register(name, PASSWORD)
        assert made.username == name
        first = client.session.token

        assert client.refresh()
        assert client.session.token != first
        with pytest.raises(Refused) as refused:
            client.register(name, PASSWORD)
        assert refused.value.code == "username_taken"

    with APIClient(router.url) as client, pytest.raises(Unauthorized):
        client.login(name, "wrong-password")


def test_name_and_password_alone_are_enough(client: APIClient, name: str, router: Router) -> None:
    with APIClient(router.url, username=name, password=PASSWORD) as again:
        assert again.balance()["USDT"].total == MONEY


def test_an_expired_token_is_renewed_without_a_word(client: APIClient, name: str, router: Router) -> None:
    refresh_token = client.session.refresh_token

    with APIClient(router.url, token="not-a-token", refresh_token=refresh_token) as again:
        assert again.balance()["USDT"].total == MONEY


def test_many_threads_share_one_client(client: APIClient, name: str, router: Router) -> None:
    with APIClient(router.url, username=name, password=PASSWORD) as shared, ThreadPoolExecutor(8) as pool:
        balances = list(pool.map(lambda _: shared.balance()["USDT"].total, range(40)))

        assert set(balances) == {MONEY}
        assert shared.session.version == 1  # one of them logged in, the others waited


def test_an_api_key_stands_for_its_user_until_it_is_revoked(client: APIClient, router: Router) -> None:
    made = client.create_api_key("for a bot")

    with APIClient(router.url, api_key=made.api_key) as bot:
        assert bot.balance()["USDT"].total == MONEY
        assert [key.name for key in client.api_keys()] == ["for a bot"]
        assert made.id is not None
        client.delete_api_key(made.id)
        with pytest.raises(Unauthorized):
            bot.balance()


def test_an_account_may_be_nothing_but_a_key(router: Router) -> None:
    with APIClient(router.url) as client:
        made = client.register_basic()

        assert made.api_key
        assert client.deposit("USDT", 5).new_balance == 5


def test_the_market_can_be_asked(client: APIClient) -> None:
    info = client.info()
    book = client.get_orderbook("btc-usdt", depth=3)
    okx = client.get_orderbook("BTCUSDT", "okx", depth=3)

    assert info.paper
    assert info.pairs == ["BTCUSDT", "ETHUSDT"]
    assert client.exchanges() == info.exchanges == ["binance", "okx", "kraken"]
    assert client.pairs("okx") == info.pairs
    assert len(book.bids) == 3
    assert {level.exchange for level in book.bids} <= set(info.exchanges)
    assert all(level.exchange is None for level in okx.bids)
    assert isinstance(okx.bids[0].price, Decimal)
    assert client.status().exchanges["okx"].live
    assert client.health().status == "ok"
    assert client.ready().status == "ready"
    assert "# HELP" in client.metrics()


def test_candles_can_be_asked_by_time(client: APIClient) -> None:
    now = datetime.now(UTC)
    with client.klines("BTCUSDT", interval="1s") as running:
        next(one for one in running if one.is_closed)

    found = client.get_klines("BTCUSDT", interval="1s", limit=5, start=now - timedelta(hours=1), end=now)
    none = client.get_klines("BTCUSDT", interval="1s", end=Decimal("1000000000.5"))

    assert 1 <= len(found.candles) <= 5
    assert found.candles[0].low <= found.candles[0].high
    assert none.candles == []


def test_money_is_exact(client: APIClient) -> None:
    amounts = ["0.1", "0.00000001", "12345678.87654321"]

    for amount in amounts:
        assert client.deposit("BTC", amount).amount == Decimal(amount)

    assert client.balance()["BTC"].total == sum(map(Decimal, amounts))
    assert client.deposit("ETH", 0.1).new_balance == Decimal("0.1")


def test_an_order_lives_through_its_states(client: APIClient) -> None:
    resting = client.place_order("BTCUSDT", "buy", "0.01", "1000.5", token_id="my first")

    assert resting.is_open
    assert resting.price == Decimal("1000.5")
    assert client.balance()["USDT"].reserved == Decimal("10.005")
    assert client.order("my first") == resting
    assert client.orders(status="open").orders == [resting]
    changed = client.amend_order("my first", quantity="0.02")
    assert (changed.price, changed.quantity) == (resting.price, Decimal("0.02"))
    ended = client.cancel_order("my first")
    assert ended.status == "cancelled"
    with pytest.raises(Refused) as refused:
        client.cancel_order("my first")
    assert refused.value.code == "order_not_open"
    assert client.balance()["USDT"].reserved == 0


def test_a_market_order_comes_with_its_receipt(client: APIClient) -> None:
    order = client.place_order("BTCUSDT", "buy", "0.01", order_type="market")

    assert order.status == "filled"
    assert order.remaining == 0
    (fill,) = order.fills
    assert fill.price == order.execution_price
    assert client.fills().fills == [fill]
    assert list(client.iter_fills(order=order.token_id)) == [fill]
    spent = [entry.amount for entry in client.iter_ledger(asset="USDT", kind="fill")]
    assert spent == [-(fill.price * fill.quantity).quantize(Decimal("1E-8"))]
    assert fill.fill_id in client.fills_csv()
    assert "deposit" in client.ledger_csv()


def test_pages_follow_each_other(client: APIClient) -> None:
    tokens = [client.place_order("BTCUSDT", "buy", 1, 1).token_id for _ in range(5)]

    page = client.orders(limit=2)
    rest = client.orders(limit=2, cursor=page.next_cursor)

    assert [order.token_id for order in (*page.orders, *rest.orders)] == tokens[:0:-1]
    assert [order.token_id for order in client.iter_orders()] == tokens[::-1]
    assert len(client.cancel_all("BTC/USDT")) == 5
    assert client.cancel_all() == []


def test_a_used_token_id_comes_with_its_order(client: APIClient) -> None:
    first = client.place_order("BTCUSDT", "buy", 1, 1, token_id="once")

    with pytest.raises(DuplicateTokenId) as refused:
        client.place_order("BTCUSDT", "buy", 2, 1, token_id="once")

    assert refused.value.order == first


def test_refusals_are_types(client: APIClient, router: Router) -> None:
    with pytest.raises(Refused) as refused:
        client.place_order("BTCUSDT", "buy", 1_000_000, 1_000)
    assert refused.value.code == "insufficient_funds"
    with pytest.raises(Refused) as refused:
        client.place_order("NOPEUSDT", "buy", 1, 1)
    assert refused.value.code == "unknown_symbol"
    with pytest.raises(InvalidRequest) as invalid:
        client.place_order("BTCUSDT", "hold", 1, 1)
    assert invalid.value.problems[0].loc == ["body", "side"]
    with pytest.raises(NotFound):
        client.order("nobody/has this")
    with APIClient(router.url) as nobody, pytest.raises(Unauthorized):
        nobody.balance()


def test_what_is_no_number_does_not_leave_the_house(client: APIClient) -> None:
    for wrong in ("abc", "NaN", float("inf"), ""):
        with pytest.raises(ValueError, match="amount"):
            client.deposit("USDT", wrong)
    with pytest.raises(TypeError):
        client.deposit("USDT", True)


def test_an_order_without_a_name_is_not_all_orders(client: APIClient) -> None:
    client.place_order("BTCUSDT", "buy", 1, 1)

    for name in ("", ".", ".."):
        with pytest.raises(ValueError, match="called"):
            client.cancel_order(name)

    assert len(client.orders(status="open").orders) == 1


def test_an_account_starts_again(client: APIClient) -> None:
    client.place_order("BTCUSDT", "buy", 1, 1)

    balances = client.reset_account({"USDT": "12.5"})

    assert balances["USDT"].available == Decimal("12.5")
    assert client.orders(status="open").orders == []


def test_nobody_there_is_told_after_a_few_tries() -> None:
    with APIClient("http://127.0.0.1:9", retries=Retries(attempts=2, first_s=0.01)) as client:
        with pytest.raises(ConnectionFailed):
            client.info()
        with pytest.raises(ConnectionFailed):
            next(client.best_touch("BTCUSDT"))


def test_synchronous_streams_yield(client: APIClient) -> None:
    with client.best_touch("BTCUSDT") as touches, client.order_updates() as updates:
        touch = next(touches)
        order = client.place_order("BTCUSDT", "buy", "0.01", order_type="market")
        update = updates.next(5)

    assert touch.symbol == "BTCUSDT"
    assert (update.seq, update.order.token_id) == (1, order.token_id)
    with pytest.raises(TimeoutError), client.order_updates() as updates:
        updates.next(0.05)
    assert next(iter(client.websocket_orderbook("okx"))).keys() == {"okx"}


def test_a_closed_client_ends_its_iterators(router: Router) -> None:
    client = APIClient(router.url, retries=Retries(attempts=1))
    images = client.websocket_orderbook()
    next(images)

    client.close()

    assert list(images) == []
    with pytest.raises(StreamClosed):
        client.best_touch("BTCUSDT")


async def test_the_client_knows_nothing_of_the_server() -> None:
    """Nothing but its declared packages is imported, so that it can live anywhere."""
    code = (
        "import sys; import router_client, router_client.cli; "
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('core', 'marketdata', 'trading', 'accounts', 'gateway', 'router_project', 'django')])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)

    out, _ = await process.communicate()

    assert out.decode().strip() == "[]"
