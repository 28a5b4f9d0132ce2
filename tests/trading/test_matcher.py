"""The matcher on the real database, with a touch and messages that the test sends itself."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import User
from core.account import Fees
from core.events import Side
from core.orders import OrderType, Terms
from core.touch import Best
from marketdata import hub
from marketdata.batches import QuoteSlot
from tests.trading.desk import BTC, ETH, units
from tests.trading.floor import (
    VENUES,
    WAIT_S,
    Clock,
    Floor,
    database_in_a_file,
    eventually,
    filled,
    fills,
    proved,
    read,
    stored,
    unreadable,
)
from trading import leadership, matcher, models, publish
from trading.commands import Amend, Cancel, CancelAll, Command, Deposit, FillResting, Place
from trading.exchange import Exchange
from trading.market import market
from trading.matcher import Matcher
from trading.writer import Busy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]

LONG_NS = 60 * 10**9  # what is no older was just seen


@pytest.fixture
def database(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    with database_in_a_file(tmp_path):
        yield


@pytest.fixture
def alice(database: None) -> int:
    return int(User.objects.create(username="alice", password="!").pk)


@pytest.fixture
async def floor(database: None) -> AsyncIterator[Floor]:
    floor = Floor()
    await floor.open()
    yield floor
    await floor.close()


async def settled(made: Matcher) -> None:
    """Wait until nothing is under way."""
    await eventually(lambda: not made._settling and not made._doubtful)


# -- one matcher


async def test_a_resting_buy_fills_at_the_ask_that_reaches_it_and_says_where(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    await floor.quote("okx", "49990", "50000")
    done = await floor.order(alice, "buy", "1", "49999")
    await eventually(lambda: len(made) == 1)
    await floor.quote("kraken", "49980", "49998.5")
    order = await filled(floor, done.order.order_id)
    (fill,) = await fills(alice)
    assert (fill.price, fill.venue, fill.liquidity, order.venue) == (units("49998.5"), "kraken", "maker", "kraken")
    assert '"exchange":"kraken"' in fill.touch
    assert len(made) == 0
    assert await proved() == []


async def test_a_resting_sell_fills_at_the_bid_that_reaches_it(floor: Floor, alice: int) -> None:
    await floor.matcher()
    await floor.do(Deposit(alice, "ETH", units(2)))
    await floor.quote("okx", "2999", "3001", at="ETH-USDT")
    done = await floor.order(alice, "sell", "2", "3000", at="ETH-USDT")
    await floor.quote("okx", "3000.5", "3001", at="ETH-USDT")
    await filled(floor, done.order.order_id)
    assert [(fill.price, fill.venue) for fill in await fills(alice)] == [(units("3000.5"), "okx")]


async def test_a_price_that_came_and_went_before_the_commit_still_counts(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trading.exchange.SEEN_MAX_NS", LONG_NS)
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    await floor.quote("okx", "49990", "50000")
    done = await floor.order(alice, "buy", "1", "49999")
    await eventually(lambda: len(made) == 1)
    await floor.quote("okx", "49990", "49999")
    await floor.quote("okx", "49990", "50000")
    await filled(floor, done.order.order_id)
    assert [fill.price for fill in await fills(alice)] == [units("49999")]


async def test_an_order_that_a_touch_passed_while_it_was_written_is_checked_when_it_is_told(
    floor: Floor, alice: int
) -> None:
    await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    done = await floor.order(alice, "buy", "1", "49999")
    assert done.order.is_open, "no venue quotes yet"
    board = floor.hub.board(BTC)
    # The touch reaches the matcher before the notice of the order does, so its change alone says nothing.
    board.quote("okx", QuoteSlot("okx", BTC, None, None, Decimal(49000), Decimal(1), None, 1), time.time_ns())
    await filled(floor, done.order.order_id)


async def test_what_a_stale_venue_showed_does_not_fill(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    await floor.quote("okx", "49990", "50000")
    await floor.feeds.touch(states={"kraken": "stale"})
    done = await floor.order(alice, "buy", "1", "49999")
    await eventually(lambda: len(made) == 1)
    await floor.quote("kraken", "49000", "49001")
    await floor.quote("okx", "49990", "50000.5")
    await eventually(lambda: ask_of(floor) == ("50000.5", "okx"))
    await settled(made)
    assert (await stored(done.order.order_id)).status == "open"
    await floor.feeds.touch(states={"okx": "stale", "binance": "stale"})
    await eventually(lambda: floor.hub.touch(BTC).ask is None)
    await floor.feeds.touch(states={"kraken": "live"})
    await floor.quote("kraken", "49000", "49001")
    await filled(floor, done.order.order_id)
    assert [(fill.price, fill.venue) for fill in await fills(alice)] == [(units("49001"), "kraken")]


async def test_a_market_of_a_time_without_heartbeats_fills_nothing(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the fill is written once the market of now is known again."""
    monkeypatch.setattr("marketdata.hub.HEARTBEAT_LOST_S", 3.0)
    live = dict.fromkeys(VENUES, "live")
    go_on = threading.Event()
    go_on.set()

    class Slow(Exchange):
        def apply(self, commands: Sequence[Command]) -> tuple[list[Any], Callable[[], None]]:
            go_on.wait(WAIT_S)
            return super().apply(commands)

    slow = Slow(floor.market_of, takes_part=floor.hub.takes_part, fees=Fees(), told=floor.exchange.told)
    floor.exchanges.append(slow)
    made = await floor.matcher(slow)
    await floor.do(Deposit(alice, "USDT", units(100000)))

    def quote(ask: str) -> QuoteSlot:
        return QuoteSlot("okx", BTC, None, None, Decimal(ask), Decimal(1), None, time.time_ns())

    await floor.feeds.touch(quote("50000"), states=live, heartbeat=True)
    await eventually(lambda: ask_of(floor) == ("50000", "okx"))
    done = await floor.order(alice, "buy", "1", "49999")
    await eventually(lambda: len(made) == 1)
    go_on.clear()
    floor.hub._beat_s -= 10
    await floor.feeds.touch(quote("49000"))
    await eventually(lambda: made._outstanding == 1)
    await floor.feeds.touch(quote("50000"), states=live, heartbeat=True)
    await eventually(lambda: ask_of(floor) == ("50000", "okx") and floor.hub.is_current())
    go_on.set()
    await settled(made)
    assert (await stored(done.order.order_id)).status == "open"
    await floor.feeds.touch(quote("49998"))
    await filled(floor, done.order.order_id)
    assert [fill.price for fill in await fills(alice)] == [units("49998")]


async def test_a_lie_fills_nothing_and_the_same_venues_true_price_does(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    await floor.quote("okx", "49990", "50000")
    await floor.quote("binance", "49991", "50001")
    done = await floor.order(alice, "buy", "1", "48900")
    await eventually(lambda: len(made) == 1)
    await floor.quote("kraken", "24990", "25000")
    await floor.quote("okx", "49990", "50000.5")
    await eventually(lambda: ask_of(floor) == ("50000.5", "okx"))
    await settled(made)
    assert (await stored(done.order.order_id)).status == "open"
    at_once = await floor.order(alice, "buy", "0.1", "60000")
    assert [(fill.price, fill.venue) for fill in at_once.fills] == [(units("50000.5"), "okx")]
    await floor.quote("kraken", "48890", "48900")
    await filled(floor, done.order.order_id)
    assert [(fill.price, fill.venue) for fill in await fills(alice)][-1] == (units("48900"), "kraken")


async def test_a_crossing_that_turns_out_to_be_a_lie_before_it_is_written_does_not_count(
    floor: Floor, alice: int
) -> None:
    await floor.do(Deposit(alice, "USDT", units(100000)))
    await floor.quote("kraken", "24990", "25000")
    await floor.quote("okx", "49990", "50000")  # of two nobody can tell who lies
    await eventually(lambda: floor.hub.board(BTC).is_disputed)
    seen = market(floor.hub.board(BTC), Side.BUY, now_ns=time.time_ns())
    assert seen.offers[0].venue == "kraken"
    await floor.quote("binance", "49991", "50001")
    await eventually(lambda: floor.hub.set_aside("kraken") == [BTC])
    done = await floor.order(alice, "buy", "1", "48000")

    assert not await floor.do(FillResting(alice, done.order.order_id, seen, time.monotonic_ns()))
    assert (await stored(done.order.order_id)).status == "open"


def ask_of(floor: Floor) -> tuple[str, str] | None:
    ask = floor.hub.touch(BTC).ask
    return None if ask is None else (str(ask.price), ask.venue)


async def test_amended_and_cancelled_orders_are_followed(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    await floor.quote("okx", "49990", "50000")
    moved = await floor.order(alice, "buy", "0.1", "49000")
    gone = await floor.order(alice, "buy", "0.1", "49000")
    await eventually(lambda: len(made) == 2)
    await floor.do(Amend(alice, moved.order.order_id, units("49500"), None))
    await floor.do(Cancel(alice, gone.order.order_id))
    await eventually(lambda: len(made) == 1)
    await floor.quote("okx", "49000", "49500")
    order = await filled(floor, moved.order.order_id)
    assert order.price == units("49500")
    await floor.quote("okx", "40000", "41000")
    await settled(made)
    assert (await stored(gone.order.order_id)).status == "cancelled"
    assert await proved() == []


async def test_more_orders_than_may_wait_at_once_all_fill_at_the_price_that_crossed_them(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trading.exchange.SEEN_MAX_NS", LONG_NS)
    monkeypatch.setattr(matcher, "OUTSTANDING_MAX", 7)
    monkeypatch.setattr(matcher, "CROSSED_AT_ONCE_MAX", 10)
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(1_000_000)))
    await floor.quote("okx", "49990", "50000")
    for number in range(64):
        await floor.order(alice, "buy", "0.001", str(49000 + number))
    await eventually(lambda: len(made) == 64)
    most = 0

    def watch(_instrument: str) -> None:
        nonlocal most
        most = max(most, made._outstanding)

    floor.hub.touch_listeners.append(watch)
    await floor.quote("okx", "48000", "49000")
    await floor.quote("okx", "49990", "50000")
    await eventually(lambda: len(made) == 0)
    await settled(made)
    made_fills = await fills(alice)
    assert len(made_fills) == 64
    assert {fill.price for fill in made_fills} == {units("49000")}
    assert 0 < most <= 7
    assert await proved() == []


async def test_orders_are_filled_best_price_first(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(1_000_000)))
    prices = ["100", "300", "200", "300"]
    orders = [(await floor.order(alice, "buy", "0.01", price)).order.order_id for price in prices]
    await eventually(lambda: len(made) == 4)
    await floor.quote("okx", "40", "50")
    for order_id in orders:
        await filled(floor, order_id)
    in_turn = [fill.order_id for fill in await fills(alice)]
    assert in_turn == [orders[1], orders[3], orders[2], orders[0]]


# -- what goes wrong


async def test_an_order_that_nobody_told_of_is_found_by_the_sweep(floor: Floor, alice: int) -> None:
    await floor.matcher()
    silent = floor.new_exchange()
    silent.told = lambda outcome: None
    await floor.do(Deposit(alice, "USDT", units(100000)))
    await floor.quote("okx", "49990", "50000")
    terms = Terms("quiet", BTC, Side.BUY, OrderType.LIMIT, units("49999"), units(1))
    done = await floor.do(Place(alice, terms), silent)
    await floor.quote("okx", "49990", "49999")
    await filled(floor, done.order.order_id)


@pytest.mark.parametrize("jump_s", [0.0, 3_600.0, -3_600.0])
async def test_an_order_of_a_time_in_which_nothing_could_be_read_is_found_by_the_next_sweep(
    floor: Floor, alice: int, jump_s: float
) -> None:
    """So it is after a process stood still for long, when more was told than its channel keeps."""
    clock = Clock()
    await floor.matcher(now=clock.schedule())
    silent = floor.new_exchange()
    silent.told, silent._now = lambda outcome: None, clock.wall
    await floor.do(Deposit(alice, "USDT", units(100000)))
    with unreadable(matcher, "_rows") as tried:
        assert await asyncio.to_thread(tried.wait, WAIT_S)
        terms = Terms("quiet", BTC, Side.BUY, OrderType.LIMIT, units("49999"), units(1))
        done = await floor.do(Place(alice, terms), silent)
        clock.pass_(15)
        clock.jump(jump_s)
        await floor.quote("okx", "49990", "49999")
    await filled(floor, done.order.order_id)


async def test_a_cancellation_that_nobody_told_of_is_found_by_the_comparison(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await floor.matcher()
    silent = floor.new_exchange()
    silent.told = lambda outcome: None
    await floor.do(Deposit(alice, "USDT", units(100000)))
    for _ in range(5):
        await floor.order(alice, "buy", "1", "10")
    await eventually(lambda: len(made) == 5)
    await floor.do(CancelAll(alice), silent)
    monkeypatch.setattr(matcher, "COMPARE_S", 0.0)
    await eventually(lambda: len(made) == 0)


async def test_a_cancelled_order_still_in_the_index_is_not_filled(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    silent = floor.new_exchange()
    silent.told = lambda outcome: None
    await floor.do(Deposit(alice, "USDT", units(100000)))
    done = await floor.order(alice, "buy", "1", "10")
    await eventually(lambda: len(made) == 1)
    await floor.do(Cancel(alice, done.order.order_id), silent)
    await floor.quote("okx", "8", "9")
    await eventually(lambda: len(made) == 0)
    await settled(made)
    assert await fills(alice) == []


async def test_orders_are_put_back_while_nothing_can_be_written_and_filled_later(floor: Floor, alice: int) -> None:
    class Down(Exchange):
        down = True

        def apply(self, commands: Any) -> Any:
            if self.down:
                from django.db import OperationalError

                raise OperationalError("the database is away")
            return super().apply(commands)

    ill = Down(floor.market_of, takes_part=floor.hub.takes_part, fees=Fees())
    floor.exchanges.append(ill)
    made = await floor.matcher(ill)
    await floor.do(Deposit(alice, "USDT", units(100000)))
    done = [await floor.order(alice, "buy", "0.1", "10") for _ in range(3)]
    await eventually(lambda: len(made) == 3)
    await floor.quote("okx", "8", "9")
    await eventually(lambda: made._retry_s > 0)
    await eventually(lambda: len(made) == 3)
    ill.down = False
    for one in done:
        await filled(floor, one.order.order_id)
    assert await proved() == []


async def test_an_order_in_doubt_that_cannot_be_looked_at_now_is_looked_at_later(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    done = await floor.order(alice, "buy", "0.1", "10")
    await eventually(lambda: len(made) == 1)
    failed, rows = threading.Event(), matcher._rows

    def away(sql: str, values: Sequence[Any]) -> Any:
        if "id IN" not in sql:
            return rows(sql, values)
        failed.set()
        raise OperationalError("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(matcher, "_rows", away)
        patched.setattr(matcher, "VISIBLE", timedelta(seconds=-10))  # it was placed long ago: no sweep finds it
        patched.setattr(hub, "HEARTBEAT_LOST_S", 9.0)
        floor.hub._beat_s -= 10  # nothing can be executed at this market
        await floor.quote("okx", "8", "9")
        assert await asyncio.to_thread(failed.wait, WAIT_S)
        patched.setattr(matcher, "_rows", rows)
        known = QuoteSlot("okx", BTC, Decimal(8), Decimal("0.5"), Decimal(9), Decimal("0.5"), None, time.time_ns())
        await floor.feeds.touch(known, states=dict.fromkeys(VENUES, "live"), heartbeat=True)
        await filled(floor, done.order.order_id)


async def test_more_orders_than_are_taken_at_once_are_all_filled_after_a_refusal(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Exchange):
        refusals = 1

        def submit(self, command: Command) -> Any:
            if isinstance(command, FillResting) and self.refusals:
                self.refusals -= 1
                raise Busy("too much waits")
            return super().submit(command)

    monkeypatch.setattr(matcher, "CROSSED_AT_ONCE_MAX", 2)
    full = Full(floor.market_of, takes_part=floor.hub.takes_part, fees=Fees())
    floor.exchanges.append(full)
    made = await floor.matcher(full)
    await floor.do(Deposit(alice, "USDT", units(100000)))
    done = [await floor.order(alice, "buy", "0.01", "10") for _ in range(5)]
    await eventually(lambda: len(made) == 5)
    await floor.quote("okx", "8", "9")
    for one in done:
        await filled(floor, one.order.order_id)
    assert full.refusals == 0


async def test_a_notice_that_cannot_be_read_leaves_no_channel_behind(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    await floor.order(alice, "buy", "0.1", "10")
    await eventually(lambda: len(made) == 1)
    channels = set(floor.layer._groups[publish.ORDERS_GROUP])
    for body in (b"", b"[1]", b"no notice"):
        await floor.layer.group_send(publish.ORDERS_GROUP, {"type": "orders.notices", "body": body})
    await floor.order(alice, "buy", "0.1", "10")
    await eventually(lambda: len(made) == 2)
    await eventually(lambda: not any(floor.layer._queues[channel].messages for channel in channels))
    assert set(floor.layer._groups[publish.ORDERS_GROUP]) == channels


async def test_only_limit_orders_are_filled_whole_by_a_touch(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    done = await floor.order(alice, "buy", "1", "10")
    await eventually(lambda: len(made) == 1)
    parent = models.Order.objects.filter(id=done.order.order_id)
    await read(parent.update, order_type="ioc")  # stands for any order that is open and no limit order
    await floor.quote("okx", "8", "9")
    await eventually(lambda: len(made) == 0)
    await settled(made)
    assert await fills(alice) == []


async def test_orders_of_a_disabled_user_do_not_keep_the_matcher_busy(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    done = await floor.order(alice, "buy", "1", "10")
    await eventually(lambda: len(made) == 1)
    await read(User.objects.filter(pk=alice).update, is_active=False)
    await floor.quote("okx", "8", "9")
    await eventually(lambda: len(made) == 0)
    await settled(made)
    before = floor.exchange._writer.batches
    for bid in ("7", "6", "5"):
        await floor.quote("okx", bid, "9")
    await eventually(lambda: floor.hub.touch(BTC).bid.price == 5)  # type: ignore[union-attr]
    assert floor.exchange._writer.batches == before
    assert (await stored(done.order.order_id)).status == "open"


async def test_prices_that_money_cannot_express_fill_nothing_and_stop_nothing(floor: Floor, alice: int) -> None:
    made = await floor.matcher()
    await floor.do(Deposit(alice, "USDT", units(100000)))
    done = await floor.order(alice, "buy", "1", "10")
    await eventually(lambda: len(made) == 1)
    for ask in ("9.123456789", "1e-30", "0.1e-400"):
        await floor.quote("okx", None, ask)
    await floor.quote("okx", "1e+30", None)
    await eventually(lambda: floor.hub.touch(BTC).bid is not None)
    assert (await stored(done.order.order_id)).status == "open"
    await floor.quote("okx", None, "9.12345678")
    await filled(floor, done.order.order_id)


@given(price=st.decimals(allow_nan=False, allow_infinity=False))
def test_a_best_price_is_units_or_nothing(price: Decimal) -> None:
    found = matcher._units(Best(price, Decimal(1), "okx", 0))
    assert found is None or Decimal(found).scaleb(-8) == price


# -- restarts, and several at once


async def test_a_new_matcher_knows_what_rested_before_it_and_fills_what_is_crossed_by_then(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matcher, "PAGE", 3)
    await floor.do(Deposit(alice, "USDT", units(100000)))
    orders = [(await floor.order(alice, "buy", "0.1", str(100 + number))).order.order_id for number in range(10)]
    await floor.quote("okx", "104", "105")
    await eventually(lambda: floor.hub.touch(BTC).ask is not None)
    made = await floor.matcher()
    for order_id in orders[5:]:
        await filled(floor, order_id)
    await settled(made)
    assert len(made) == 5
    await floor.stop()
    again = await floor.matcher()
    assert len(again) == 5
    assert [(await stored(order_id)).status for order_id in orders[:5]] == ["open"] * 5
    assert await proved() == []


async def test_one_of_two_matchers_leads_and_the_other_takes_over(floor: Floor, alice: int) -> None:
    first = await floor.matcher()
    second = await floor.matcher(floor.new_exchange(), leads=False)
    await floor.do(Deposit(alice, "USDT", units(100000)))
    one = await floor.order(alice, "buy", "0.1", "100")
    other = await floor.order(alice, "buy", "0.1", "50")
    await eventually(lambda: len(first) == len(second) == 2)
    await floor.quote("okx", "99", "100")
    await filled(floor, one.order.order_id)
    assert (len(first.leadership.held), second.leadership.held) == (2, frozenset())
    assert second._exchange._writer.commands == 0
    await eventually(lambda: len(second) == 1)
    await floor.stop(0)
    await eventually(lambda: len(second.leadership.held) == 2, within_s=5.0)
    await floor.quote("okx", "49", "50")
    await filled(floor, other.order.order_id)
    assert second._exchange._writer.commands == 1


@pytest.mark.postgres
async def test_matchers_share_the_instruments_and_stand_by_for_each_other(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "PATIENCE_S", 0.3)
    one, two = frozenset({BTC}), frozenset({ETH})
    first = await floor.matcher(leads=False, share=(1, 2))
    await eventually(lambda: first.leadership.held == one | two)  # nobody else came within its patience

    second = await floor.matcher(floor.new_exchange(), leads=False, share=(2, 2))
    await eventually(lambda: (first.leadership.held, second.leadership.held) == (one, two))
    await floor.do(Deposit(alice, "USDT", units(100000)))
    orders = [await floor.order(alice, "buy", "0.1", "100", at=instrument) for instrument in (BTC, ETH)]
    for instrument, made in zip((BTC, ETH), orders, strict=True):
        await floor.quote("okx", "99", "100", at=instrument)
        await filled(floor, made.order.order_id)
    assert second._exchange._writer.commands == 1, "each settles its own"

    await floor.stop(0)
    await eventually(lambda: second.leadership.held == one | two)
    again = await floor.matcher(floor.new_exchange(), leads=False, share=(1, 2))
    await eventually(lambda: (again.leadership.held, second.leadership.held) == (one, two))
    assert await proved() == []


async def test_two_that_both_believe_to_lead_fill_each_order_once(floor: Floor, alice: int) -> None:
    first = await floor.matcher()
    second = await floor.matcher(floor.new_exchange(), leads=False)
    second.leadership.held = frozenset(floor.hub.instruments)
    await floor.do(Deposit(alice, "USDT", units(1_000_000)))
    for number in range(200):
        await floor.order(alice, "buy", "0.01", str(100 + number))
    await eventually(lambda: len(first) == len(second) == 200)
    await floor.quote("okx", "99", "100")
    await eventually(lambda: len(first) == len(second) == 0)
    await settled(first)
    await settled(second)
    made = await fills(alice)
    assert len(made) == len({fill.order_id for fill in made}) == 200
    assert first._exchange._writer.commands > 200
    assert second._exchange._writer.commands == 200
    assert await proved() == []


@pytest.mark.postgres
async def test_a_leader_that_loses_its_connection_stops_at_once_and_leads_again(
    floor: Floor, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'router matcher'"
            )

    lost: list[bool] = []
    with monkeypatch.context() as patched:
        patched.setattr(leadership, "POLL_S", 5.0)  # so that noticing it by polling is told from noticing it at once
        made = await floor.matcher()
        changed = made.leadership._changed

        def watch() -> None:
            lost.append(not made.leadership.held)
            changed()

        made.leadership._changed = watch
        await read(cut)
        await eventually(lambda: lost[:1] == [True], within_s=leadership.POLL_S - 1)
    await eventually(lambda: lost == [True, False])


def test_the_keys_of_two_instruments_differ_and_stay() -> None:
    assert leadership.lock_key("BTC-USDT") != leadership.lock_key("ETH-USDT")
    assert leadership.lock_key("BTC-USDT") == -3285189730900177339, "old and new processes must agree"
