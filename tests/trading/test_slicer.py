"""The slices of TWAP orders on the real database, with books, clocks and leaders that the test holds in its hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection

from accounts.models import User
from core.account import Fees
from core.events import Side
from core.orders import OrderType, Terms
from marketdata.batches import BookUpdate, QuoteSlot
from tests.trading.desk import BTC, units
from tests.trading.floor import (
    WAIT_S,
    Clock,
    Floor,
    database_in_a_file,
    eventually,
    fills,
    proved,
    read,
    stored,
    unreadable,
)
from trading import models, publish, slicer
from trading.clock import ScheduleClock
from trading.commands import Cancel, Deposit, Place, PlaceTwap
from trading.exchange import Exchange
from trading.leadership import Leadership
from trading.market import depth
from trading.slicer import Slicer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]

Levels = Sequence[tuple[str, str]]  # price and size, best first

DEEP = "1000"
SLICE_S = 10  # between two slices of most orders here


@pytest.fixture
def alice(transactional_db: None, tmp_path: Path) -> Any:
    with database_in_a_file(tmp_path):
        yield int(User.objects.create(username="alice", password="!").pk)


class Pit(Floor):
    """The floor with books, and a clock of its own; `lead` says who leads where no locks do."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.slicers: list[Slicer] = []
        super().__init__()

    def new_exchange(self) -> Exchange:
        exchange = Exchange(
            self.market_of,
            takes_part=self.hub.takes_part,
            fees=Fees(),
            depth_of=lambda instrument, side, venue: depth(self.hub, instrument, side, venue, now_ns=time.time_ns()),
            collar_bps=500,
            told=publish.Teller(asyncio.get_running_loop()),
            now=self.clock.wall,
        )
        self.exchanges.append(exchange)
        return exchange

    async def open(self) -> None:
        await super().open()
        self.hub.keep(BTC)
        await eventually(lambda: self.hub._interests[BTC].joined)
        await self.feeds.instrument(books=[])
        await eventually(lambda: self.hub.knows(BTC))

    def leader(self) -> Leadership:
        """Return one who believes to lead, whatever others do."""
        leadership = Leadership(self.hub.instruments, lambda: None)
        leadership.held = frozenset(self.hub.instruments)
        return leadership

    def slicer(
        self,
        leadership: Leadership | None = None,
        *,
        exchange: Exchange | None = None,
        clock: ScheduleClock | None = None,
    ) -> Slicer:
        """Start one."""
        clock = clock or self.clock.schedule()
        made = Slicer(self.hub, exchange or self.exchange, self.layer, leadership or self.leader(), now=clock)
        self.slicers.append(made)
        self.tasks.append(asyncio.create_task(made.run()))
        return made

    async def pass_(self, seconds: float) -> None:
        """Let time pass, once nothing is under way: what is done by then waits for its next time."""
        await eventually(lambda: not any(one.busy for made in self.slicers for one in made._parents.values()))
        self.clock.pass_(seconds)

    async def show(self, venue: str, *, asks: Levels = (), bids: Levels = ()) -> None:
        """Let a venue show these levels, the first of each as its touch, and wait until the hub knows."""
        ask, bid = ([(Decimal(price), Decimal(size)) for price, size in levels] for levels in (asks, bids))
        touch = [*(bid[0] if bid else (None, None)), *(ask[0] if ask else (None, None))]
        await self.feeds.touch(QuoteSlot(venue, BTC, *touch, None, time.time_ns()))
        await self.feeds.instrument(books=[BookUpdate(venue, tuple(bid), tuple(ask), time.time_ns())])

        def known() -> bool:
            shown, book = self.hub.touch(BTC, venue), self.hub.shown_books(BTC).get(venue)
            best = (shown.ask and (shown.ask.price, shown.ask.size), shown.bid and (shown.bid.price, shown.bid.size))
            return (
                best == (ask[0] if ask else None, bid[0] if bid else None)
                and book is not None
                and [tuple(level) for level in book.asks] == ask
                and [tuple(level) for level in book.bids] == bid
            )

        await eventually(known)

    async def twap(
        self, account: int, quantity: str, *, slices: int = 10, duration_s: int = 100, limit: str | None = "200",
        venue: str = "all", side: Side = Side.BUY, exchange: Exchange | None = None,
    ) -> str:  # fmt: skip
        self._tokens += 1
        price = None if limit is None else units(limit)
        terms = Terms(f"t-{self._tokens}", BTC, side, OrderType.TWAP, price, units(quantity))
        done = await self.do(PlaceTwap(account, terms, venue, duration_s, slices), exchange)
        return str(done.order.order_id)

    async def looked(self, running: Slicer) -> None:
        """Have it look at the clock."""
        off = running._now() - self.clock.wall()
        running._told.set()
        await eventually(lambda: running._now._stretches[-1].off == off)

    async def past(self, order_id: str, number: int) -> models.Twap:
        """Wait until this many slices are past."""
        async with asyncio.timeout(10):
            while (twap := await read(models.Twap.objects.get, order_id=order_id)).next_slice < number:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert twap.next_slice == number
        return twap

    async def step(self, order_id: str, number: int) -> models.Twap:
        """Let it be the time of slice `number` (from 0), and wait until it is past."""
        await self.pass_(SLICE_S)
        return await self.past(order_id, number + 1)


@pytest.fixture
async def pit(alice: int) -> AsyncIterator[Pit]:
    pit = Pit()
    await pit.open()
    await pit.do(Deposit(alice, "USDT", units(100_000)))
    yield pit
    await pit.close()


async def made(account: int) -> list[tuple[int | None, str, str, str]]:
    """Return the fills: slice, price, quantity, venue."""
    return [
        (fill.slice, f"{Decimal(fill.price).scaleb(-8).normalize():f}",
         f"{Decimal(fill.quantity).scaleb(-8).normalize():f}", fill.venue)
        for fill in await fills(account)
    ]  # fmt: skip


async def ended(order_id: str) -> models.Order:
    async with asyncio.timeout(20):
        while (order := await stored(order_id)).status == "open":  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return order


# -- what is shown


async def test_ten_slices_fill_at_exactly_the_prices_that_are_shown_then(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    running = pit.slicer()
    order_id = await pit.twap(alice, "1", limit=None)
    await pit.past(order_id, 1)
    for number in range(1, 10):
        await pit.show("okx", asks=[(f"10{number % 5}.{number}", DEEP)])
        await pit.step(order_id, number)
    prices = ["100", *(f"10{number % 5}.{number}" for number in range(1, 10))]
    assert await made(alice) == [(number, price, "0.1", "okx") for number, price in enumerate(prices)]
    order = await stored(order_id)
    assert (order.status, order.held, order.price) == ("filled", 0, units(105))
    await eventually(lambda: len(running) == 0)
    assert await proved() == []


async def test_nothing_runs_before_its_time(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "1")
    await pit.past(order_id, 1)
    await pit.pass_(SLICE_S - 0.001)
    other = await pit.twap(alice, "1")  # its first slice is run: time enough for the other's second
    await pit.past(other, 1)
    await pit.past(order_id, 1)
    await pit.pass_(0.001)
    await pit.past(order_id, 2)


async def test_levels_are_taken_one_after_the_other_over_all_venues(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", "0.02"), ("103", "0.03")])
    await pit.show("kraken", asks=[("101", "0.01"), ("102", "0.01"), ("104", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "1")
    await pit.past(order_id, 1)
    assert await made(alice) == [
        (0, "100", "0.02", "okx"), (0, "101", "0.01", "kraken"), (0, "102", "0.01", "kraken"),
        (0, "103", "0.03", "okx"), (0, "104", "0.03", "kraken"),
    ]  # fmt: skip
    assert (await stored(order_id)).venue == "multiple"


async def test_a_sell_takes_the_bids_from_the_highest_down(pit: Pit, alice: int) -> None:
    await pit.do(Deposit(alice, "BTC", units(1)))
    await pit.show("okx", bids=[("100", "0.06"), ("98", DEEP)])
    await pit.show("binance", bids=[("99", "0.02"), ("97", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "1", side=Side.SELL, limit="98")
    await pit.past(order_id, 1)
    assert await made(alice) == [
        (0, "100", "0.06", "okx"), (0, "99", "0.02", "binance"), (0, "98", "0.02", "okx"),
    ]  # fmt: skip


async def test_an_order_for_one_exchange_takes_nothing_of_a_better_one(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    await pit.show("kraken", asks=[("110", "0.04"), ("111", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "1", venue="kraken", limit=None)
    await pit.past(order_id, 1)
    assert await made(alice) == [(0, "110", "0.04", "kraken"), (0, "111", "0.06", "kraken")]
    assert (await stored(order_id)).price == units("115.5"), "5 % worse than its exchange's touch"


async def test_the_limit_holds_and_what_it_leaves_is_spread_over_the_slices_that_follow(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", "0.05"), ("100.00000001", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "1", limit="100")
    await pit.past(order_id, 1)
    await pit.show("okx", asks=[("100.00000001", DEEP)])
    await pit.step(order_id, 1)
    await pit.show("okx", asks=[("99", DEEP)])
    for number in range(2, 10):
        await pit.step(order_id, number)
    quantities = [Decimal(quantity) for _, _, quantity, _ in await made(alice)]
    assert quantities[0] == Decimal("0.05")
    assert quantities[1:] == [Decimal("0.11875")] * 8, "0.1 each, and an eighth of the 0.15 that were left"
    assert (await stored(order_id)).status == "filled"
    assert await proved() == []


async def test_a_displayed_size_is_taken_once_until_the_venue_shows_another(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", "0.15"), ("101", "0.01")])
    pit.slicer()
    order_id = await pit.twap(alice, "1")
    await pit.past(order_id, 1)
    for number in (1, 2):
        await pit.step(order_id, number)
    assert await made(alice) == [
        (0, "100", "0.1", "okx"), (1, "100", "0.05", "okx"), (1, "101", "0.01", "okx"),
    ]  # fmt: skip
    await pit.show("okx", asks=[("100", "0.16"), ("101", "0.01")])
    await pit.step(order_id, 3)
    assert (await made(alice))[3:] == [(3, "100", "0.12", "okx")], (
        "its tenth, and a seventh of the 0.14 that are behind"
    )
    ioc = Terms("ioc", BTC, Side.BUY, OrderType.IOC, units(101), units(1))
    done = await pit.do(Place(alice, ioc))
    assert done.order.filled_quantity == units("0.04"), "an ioc order finds what the slices left of it"
    assert await proved() == []


async def test_levels_that_the_touch_has_passed_are_gone(pit: Pit) -> None:
    await pit.show("okx", asks=[("100", "1"), ("101", "2"), ("102", "3")], bids=[("99", "1"), ("98", "2")])
    slot = (Decimal("97"), Decimal(7), Decimal("101"), Decimal("0.5"))
    await pit.feeds.touch(QuoteSlot("okx", BTC, *slot, None, time.time_ns()))
    await eventually(lambda: (ask := pit.hub.touch(BTC).ask) is not None and ask.price == 101)
    for side, wanted in ((Side.BUY, [("101", "0.5"), ("102", "3")]), (Side.SELL, [("97", "7")])):
        offers = depth(pit.hub, BTC, side, "okx", now_ns=0).offers
        assert [(one.price, one.size) for one in offers] == [(units(price), units(size)) for price, size in wanted]
        assert depth(pit.hub, BTC, side, "kraken", now_ns=0).offers == ()


async def test_what_a_tiny_order_has_no_lots_for_is_no_slice_of_it(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "0.00000003")
    await pit.past(order_id, 1)
    for number in range(1, 10):
        await pit.step(order_id, number)
    assert [number for number, *_ in await made(alice)] == [3, 6, 9]
    assert (await stored(order_id)).status == "filled"


# -- its end


async def test_what_is_left_after_the_last_slice_is_cancelled(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", "0.03")])
    running = pit.slicer()
    order_id = await pit.twap(alice, "1", slices=3, duration_s=30)
    await pit.past(order_id, 1)
    for number in (1, 2):
        await pit.step(order_id, number)
    order = await stored(order_id)
    assert (order.status, order.reason, order.held) == ("partially_filled", "twap_rest", 0)
    assert order.filled_quantity == units("0.03")
    balance = await read(models.Balance.objects.get, account_id=alice, asset="USDT")
    assert (balance.total, balance.held) == (units(100_000 - 3), 0)
    await eventually(lambda: len(running) == 0)
    reports = await read(lambda: [row.seq for row in models.Report.objects.filter(account_id=alice).order_by("seq")])
    assert reports == [1, 2, 3], "a fill, a slice that got nothing, and the end"
    assert await proved() == []


async def test_a_cancelled_order_does_nothing_more(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    running = pit.slicer()
    order_id = await pit.twap(alice, "1")
    await pit.past(order_id, 1)
    await pit.do(Cancel(alice, order_id))
    await pit.pass_(5 * SLICE_S)
    await eventually(lambda: len(running) == 0)
    order = await stored(order_id)
    assert (order.status, order.reason, order.filled_quantity) == ("partially_filled", "by_client", units("0.1"))
    assert len(await made(alice)) == 1


async def test_a_disabled_user_s_order_waits_and_goes_on_where_it_should_be(
    pit: Pit, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    running = pit.slicer()
    order_id = await pit.twap(alice, "1")
    await pit.past(order_id, 1)
    await read(User.objects.filter(pk=alice).update, is_active=False)
    await read(models.Order.objects.filter(id=order_id).update, updated_at=datetime(2026, 1, 1, tzinfo=UTC))
    await pit.pass_(2 * SLICE_S)
    await eventually(lambda: len(running) == 0)
    assert len(await made(alice)) == 1
    await read(User.objects.filter(pk=alice).update, is_active=True)
    monkeypatch.setattr(slicer, "COMPARE_S", 0.0)
    twap = await pit.past(order_id, 3)
    assert twap.missed == 1
    for number in range(3, 10):
        await pit.step(order_id, number)
    assert (await stored(order_id)).status == "filled"


async def test_a_lost_venue_gives_nothing_and_is_made_up_for_evenly_when_it_is_back(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    await pit.show("kraken", asks=[("100", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "1", venue="kraken")
    await pit.past(order_id, 1)
    await pit.feeds.touch(states={"kraken": "stale"})
    await eventually(lambda: not pit.hub.is_live("kraken"))
    for number in range(1, 6):
        await pit.step(order_id, number)
    assert len(await made(alice)) == 1
    await pit.feeds.touch(states={"kraken": "live"})
    await pit.show("kraken", asks=[("101", DEEP)])
    for number in range(6, 10):
        twap = await pit.step(order_id, number)
    assert twap.missed == 0, "they were run, and got nothing"
    assert (await made(alice))[1:] == [(number, "101", "0.225", "kraken") for number in range(6, 10)]
    assert (await stored(order_id)).status == "filled"


# -- restarts, leaders and clocks


async def test_a_new_process_goes_on_in_the_middle_with_the_same_total(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "1")
    await pit.past(order_id, 1)
    await pit.step(order_id, 1)
    await pit.stop()
    await pit.pass_(3 * SLICE_S + 3)  # slices 2, 3 and 4: the last of them is run, late
    pit.slicer(exchange=pit.new_exchange())
    twap = await pit.past(order_id, 5)
    assert twap.missed == 2
    await pit.pass_(-3)
    for number in range(5, 10):
        await pit.step(order_id, number)
    found = await made(alice)
    assert [number for number, *_ in found] == [0, 1, 4, 5, 6, 7, 8, 9]
    assert sum(Decimal(quantity) for _, _, quantity, _ in found) == 1
    assert max(Decimal(quantity) for _, _, quantity, _ in found) < Decimal("0.14"), "no burst"
    assert (await stored(order_id)).status == "filled"
    assert await proved() == []


async def test_a_process_that_starts_long_after_the_end_executes_nothing_and_ends_it(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    pit.slicer()
    order_id = await pit.twap(alice, "1")
    await pit.past(order_id, 1)
    await pit.stop()
    await pit.pass_(3_600)
    pit.slicer(exchange=pit.new_exchange())
    order = await ended(order_id)
    assert (order.status, order.reason, order.held) == ("partially_filled", "twap_rest", 0)
    assert len(await made(alice)) == 1
    assert (await pit.past(order_id, 10)).missed == 9


async def test_a_process_that_starts_waits_for_its_market(pit: Pit, alice: int) -> None:
    """Else the last slice of an order would find nothing, and end it."""
    await pit.show("okx", asks=[("100", DEEP)])
    order_id = await pit.twap(alice, "1", slices=1)
    await pit.feeds.touch(states=dict.fromkeys(("binance", "okx", "kraken"), "syncing"))
    await eventually(lambda: not pit.hub.is_live("okx"))
    started = pit.slicer()
    await eventually(lambda: len(started) == 1)
    await pit.feeds.touch(states=dict.fromkeys(("binance", "okx", "kraken"), "live"))
    await pit.show("okx", asks=[("101", DEEP)])
    assert (await ended(order_id)).status == "filled"


async def test_a_process_that_starts_does_not_wait_for_ever(
    pit: Pit, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slicer, "MARKET_S", 0.3)
    await pit.feeds.touch(states={"kraken": "stale"})
    await eventually(lambda: not pit.hub.is_live("kraken"))
    await pit.show("okx", asks=[("100", DEEP)])
    pit.slicer()
    assert (await ended(await pit.twap(alice, "1", slices=1))).status == "filled"


async def test_two_that_both_believe_to_lead_run_no_slice_twice(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    for exchange in (pit.exchange, pit.new_exchange()):
        pit.slicer(exchange=exchange)
    orders = [await pit.twap(alice, "1") for _ in range(20)]
    for order_id in orders:
        await pit.past(order_id, 1)
    for number in range(1, 10):
        await pit.pass_(SLICE_S)
        for order_id in orders:
            await pit.past(order_id, number + 1)
    found = await fills(alice)
    assert len(found) == len({(fill.order_id, fill.slice) for fill in found}) == 200
    assert {fill.quantity for fill in found} == {units("0.1")}
    assert all(exchange._writer.commands > 100 for exchange in pit.exchanges), "both tried"
    assert await proved() == []


async def test_the_next_leader_takes_over_in_the_middle(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    leaders = [Leadership(pit.hub.instruments, lambda: None) for _ in range(2)]
    try:
        leaders[0].start()
        await eventually(lambda: bool(leaders[0].held))
        leaders[1].start()
        first = pit.slicer(leaders[0])
        second = pit.slicer(leaders[1], exchange=pit.new_exchange())
        order_id = await pit.twap(alice, "1")
        await pit.past(order_id, 1)
        await pit.step(order_id, 1)
        assert (len(first), len(second)) == (1, 0)
        await asyncio.to_thread(leaders[0].stop)
        await eventually(lambda: (len(first), len(second)) == (0, 1))
        for number in range(2, 10):
            await pit.step(order_id, number)
        assert [(number, quantity) for number, _, quantity, _ in await made(alice)] == [
            (number, "0.1") for number in range(10)
        ]
        assert first._exchange._writer.commands < 8, "it stopped"
        assert await proved() == []
    finally:
        for one in leaders:
            await asyncio.to_thread(one.stop)


@pytest.mark.parametrize("jump_s", [3_600.0, -3_600.0, 7.0, -7.0])
async def test_jumps_of_the_wall_clock_move_no_slice(pit: Pit, alice: int, jump_s: float) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    running = pit.slicer()
    before = await pit.twap(alice, "1")
    await pit.past(before, 1)
    await pit.pass_(0)
    pit.clock.jump(jump_s)
    after = await pit.twap(alice, "1")
    await pit.past(after, 1)
    await pit.past(before, 1)
    for number in range(1, 10):
        await pit.pass_(SLICE_S)
        for order_id in (before, after):
            assert (await pit.past(order_id, number + 1)).missed == 0
    await eventually(lambda: len(running) == 0)
    assert {fill.quantity for fill in await fills(alice)} == {units("0.1")}


@pytest.mark.parametrize("jump_s", [3_600.0, -3_600.0, 86_400.0, -86_400.0])
@pytest.mark.parametrize("back", [False, True])
async def test_an_order_that_is_read_after_the_clock_jumped_starts_at_once(
    pit: Pit, alice: int, jump_s: float, back: bool
) -> None:
    """Its row was stamped before a jump, or between one and the jump back, and is found after it."""
    await pit.show("okx", asks=[("100", DEEP)])
    leadership = pit.leader()
    running = pit.slicer(leadership)
    await pit.looked(running)
    if back:
        pit.clock.jump(jump_s)
        await pit.looked(running)
    leadership.held = frozenset()  # what is placed now is not taken
    order_id = await pit.twap(alice, "1")
    pit.clock.jump(-jump_s if back else jump_s)
    leadership.held = frozenset(pit.hub.instruments)
    await pit.past(order_id, 1)
    assert running._parents[order_id].schedule.started_at == running._now()
    for number in range(1, 10):
        await pit.pass_(SLICE_S)
        assert (await pit.past(order_id, number + 1)).missed == 0
    await eventually(lambda: len(running) == 0)


async def test_an_order_of_a_time_in_which_nothing_could_be_read_is_found_at_once(pit: Pit, alice: int) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    running = pit.slicer()
    await pit.looked(running)
    silent = pit.new_exchange()
    silent.told = lambda outcome: None
    with unreadable(slicer, "_orders") as tried:
        assert await asyncio.to_thread(tried.wait, WAIT_S)
        order_id = await pit.twap(alice, "1", exchange=silent)
        pit.clock.pass_(15)
    await pit.past(order_id, 2)  # both that are due by now


@pytest.mark.parametrize("left", [True, False], ids=["led by nobody for a while", "led again at once"])
async def test_orders_are_read_again_after_a_change_of_leaders_in_which_nothing_could_be_read(
    pit: Pit, alice: int, left: bool
) -> None:
    await pit.show("okx", asks=[("100", DEEP)])
    leadership = pit.leader()
    running = pit.slicer(leadership)
    order_id = await pit.twap(alice, "1", slices=3, duration_s=300)
    await pit.past(order_id, 1)
    await pit.pass_(20)
    await eventually(lambda: running._read_at == running._now())  # no sweep looks so far back any more
    with unreadable(slicer, "_orders") as tried:
        leadership.held = frozenset()
        await eventually(lambda: len(running) == 0)
        if left:
            tried.clear()
        leadership.held = frozenset(pit.hub.instruments)
        assert await asyncio.to_thread(tried.wait, WAIT_S)
    await eventually(lambda: len(running) == 1)
    await pit.pass_(80)
    await pit.past(order_id, 2)


async def test_ten_thousand_slices_in_a_second_are_done_exactly(
    pit: Pit, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.twap.LATE", timedelta(minutes=1))  # a busy machine may take longer
    await pit.show("okx", asks=[("100", DEEP)])
    pit.clock.wall = lambda: datetime.now(UTC)  # type: ignore[method-assign]
    for exchange in pit.exchanges:
        exchange._now = pit.clock.wall
    pit.slicer(clock=ScheduleClock())
    order_id = await pit.twap(alice, "1.00000007", slices=10_000, duration_s=1)
    order = await ended(order_id)
    assert (order.status, order.filled_quantity, order.held) == ("filled", units("1.00000007"), 0)
    found = await fills(alice)
    assert sum(fill.quantity for fill in found) == units("1.00000007")
    assert len({fill.slice for fill in found}) == len(found) > 1
    assert max(fill.slice or 0 for fill in found) == 9_999
    assert await proved() == []


async def test_slices_are_tried_again_when_the_database_was_away(pit: Pit, alice: int) -> None:
    """A transaction that could not be written has taken nothing: not money, not a slice, not a displayed size."""
    await pit.show("okx", asks=[("100", "0.1")])

    class Down(Exchange):
        down = True
        failed = 0

        def apply(self, commands: Any) -> Any:
            with connection.execute_wrapper(self._execute):
                return super().apply(commands)

        def _execute(self, execute: Any, sql: str, *rest: Any) -> Any:
            if self.down and sql.startswith("INSERT INTO trading_report"):  # of the last rows: the others are undone
                self.failed += 1
                raise OperationalError("the database is away")
            return execute(sql, *rest)

    ill = Down(
        pit.exchange._market_of, takes_part=pit.hub.takes_part, fees=Fees(), depth_of=pit.exchange._depth_of,
        now=pit.clock.wall,
    )  # fmt: skip
    pit.exchanges.append(ill)
    pit.slicer(exchange=ill)
    order_id = await pit.twap(alice, "1")
    for times in (1, 2):
        await eventually(lambda times=times: ill.failed == times)
        assert await made(alice) == []
        if times == 2:
            ill.down = False
        await pit.pass_(slicer.RETRY_S)
    await pit.past(order_id, 1)
    assert await made(alice) == [(0, "100", "0.1", "okx")]
