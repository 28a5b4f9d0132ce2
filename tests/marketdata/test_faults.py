"""What a venue can do to us, done by the simulated ones over real sockets."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from core.touch import EMPTY
from marketdata.batches import ALL
from marketdata.feed import NS
from marketdata.market import REPRESENTABLE_AFTER_NS, USUAL_GAP_SAMPLES
from tests.marketdata.rig import WAIT_S, Message, Rig, rig

BTC, ETH = "BTC-USDT", "ETH-USDT"
STALE_AFTER_S = 3.0  # longer than a busy machine lets the test wait
VENUES = ("binance", "okx", "kraken")
ONE = Decimal(1)


@pytest.fixture
async def running() -> AsyncIterator[Rig]:
    async with rig(BTC, ETH, stale_after_s=STALE_AFTER_S, rate=4) as made:
        for instrument in (BTC, ETH):
            await made.subscribe("trades", instrument)
        yield made


def left_live(messages: list[Message]) -> set[str]:
    return {message["exchange"] for message in messages if message["type"] == "venue" and message["state"] != "live"}


def is_trade(message: Message, venue: str, symbol: str) -> bool:
    data = message.get("data", {})
    return message["type"] == "trades" and (data["exchange"], data["symbol"]) == (venue, symbol)


async def quoted_again(running: Rig, venue: str, *, timeout_s: float = WAIT_S) -> None:
    """Wait until the venue's own quotes are in the hub again."""
    made = running.hub.topic_key("best_touch", BTC, venue)
    running.hub.join(running.told, made)
    after = running.mark()
    await running.told.until(
        lambda message: (
            message["type"] == "best_touch"
            and message["data"]["exchange"] == venue
            and message["data"]["best_bid"] is not None
        ),
        after=after if running.touch(BTC, venue) == EMPTY else 0,
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("answering", [True, False], ids=["silent stall", "half-open socket"])
async def test_a_silent_venue_leaves_the_touch_in_time_and_comes_back(
    running: Rig, venue: str, answering: bool
) -> None:
    while running.publisher.markets[venue].frames < 2 * USUAL_GAP_SAMPLES:  # it was busy: its silence means something
        await running.told.until(lambda message: message["type"] == "best_touch", after=running.mark())
    mark = running.mark()
    began_s = time.monotonic()
    running.market[venue].stall(answering=answering)

    told = await running.state(venue, "stale", after=mark, timeout_s=STALE_AFTER_S + 2)

    assert told["at"] - began_s <= STALE_AFTER_S + 2
    assert told["reason"]
    for instrument in (BTC, ETH):
        assert running.touch(instrument, venue) == EMPTY
        touch = running.touch(instrument)
        assert touch.bid is not None
        assert touch.ask is not None
        assert venue not in (touch.bid.venue, touch.ask.venue)
    mark = running.mark()
    running.market[venue].resume()
    await running.state(venue, "live", after=mark)
    await quoted_again(running, venue)
    assert left_live(running.told.messages) == {venue}


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("fault", ["drop", "abort"])
async def test_a_lost_connection_is_out_at_once_and_back_by_itself(running: Rig, venue: str, fault: str) -> None:
    mark = running.mark()
    getattr(running.market[venue], fault)()
    await running.state(venue, "down", after=mark)
    assert running.touch(BTC, venue) == EMPTY
    await running.state(venue, "live", after=mark)
    await quoted_again(running, venue)
    assert left_live(running.told.messages) == {venue}


async def test_a_venue_that_refuses_is_asked_again_and_the_others_go_on(running: Rig) -> None:
    okx = running.market["okx"]
    okx.refuse(True)
    mark = running.mark()
    okx.drop()
    await running.state("okx", "down", after=mark)
    touches = running.mark()
    await running.told.until(lambda message: message["type"] == "best_touch", after=touches)
    okx.refuse(False)
    await running.state("okx", "live", after=mark)
    assert left_live(running.told.messages) == {"okx"}


@pytest.mark.parametrize("venue", VENUES)
async def test_garbage_is_counted_and_nothing_else_happens(running: Rig, venue: str) -> None:
    before = running.publisher.markets[venue].frames
    running.market[venue].garbage(50)
    mark = running.mark()
    await running.told.until(
        lambda message: (
            message["type"] == "best_touch"
            and venue in (message["data"]["best_bid_exchange"], message["data"]["best_ask_exchange"])
        ),
        after=mark,
    )
    await quoted_again(running, venue)
    assert running.publisher.markets[venue].frames >= before
    assert not left_live(running.told.messages) - {venue}
    for message in running.told.messages:
        if message["type"] == "best_touch":
            for side in ("bid", "ask"):
                price = message["data"][f"best_{side}"]
                assert price is None or price > 0


async def test_a_wrong_checksum_takes_the_book_away_until_a_new_snapshot(running: Rig) -> None:
    def book(message: Message, *, empty: bool) -> bool:
        return message["type"] == "orderbook" and bool(message["data"]["bids"]) is not empty

    for instrument in (BTC, ETH):
        await running.subscribe("orderbook", instrument, "kraken", 10)
    await running.told.until(lambda message: book(message, empty=False))
    mark = running.mark()
    running.market["kraken"].corrupt_checksum()  # of the next book that moves, whichever it is
    emptied = await running.told.until(lambda message: book(message, empty=True), after=mark)
    symbol, mark = emptied["data"]["symbol"], running.told.messages.index(emptied)
    await running.told.until(
        lambda message: book(message, empty=False) and message["data"]["symbol"] == symbol, after=mark
    )
    assert not left_live(running.told.messages)


@pytest.mark.parametrize("venue", VENUES)
async def test_missing_trades_are_told_as_a_gap(running: Rig, venue: str) -> None:
    simulated = running.market[venue]
    simulated.pause_market()
    first = simulated.trade(BTC, Decimal(50_000), ONE, "buy")
    await running.told.until(
        lambda message: is_trade(message, venue, "BTCUSDT") and message["data"]["trade_id"] == str(first)
    )
    mark = running.mark()
    simulated.skip_trades(5)
    second = simulated.trade(BTC, Decimal(50_000), ONE, "sell")
    gap = await running.told.until(lambda message: message["type"] == "gap", after=mark)
    assert second == first + 6
    assert (gap["exchange"], gap["symbol"], gap["from_id"], gap["to_id"]) == (venue, "BTCUSDT", first + 1, second - 1)
    await running.told.until(
        lambda message: is_trade(message, venue, "BTCUSDT") and message["data"]["trade_id"] == str(second), after=mark
    )


@pytest.mark.parametrize("venue", VENUES)
async def test_trades_sent_again_are_told_once(running: Rig, venue: str) -> None:
    simulated = running.market[venue]
    simulated.pause_market()
    made = [simulated.trade(BTC, Decimal(50_000) + number, ONE, "buy") for number in range(5)]
    simulated.repeat_trades(5)
    made.append(simulated.trade(BTC, Decimal(50_100), ONE, "sell"))
    await running.told.until(
        lambda message: (
            message["type"] == "trades"
            and (message["data"]["exchange"], message["data"]["trade_id"]) == (venue, str(made[-1]))
        )
    )
    ids = [int(message["data"]["trade_id"]) for message in running.told.messages if is_trade(message, venue, "BTCUSDT")]
    assert ids == sorted(set(ids))
    assert set(made) <= set(ids)


@pytest.mark.parametrize("venue", VENUES)
async def test_a_venues_own_crossed_quote_is_out_and_its_next_good_one_in(running: Rig, venue: str) -> None:
    simulated = running.market[venue]
    key = running.hub.topic_key("best_touch", BTC, venue)
    running.hub.join(running.told, key)

    def own(message: Message) -> bool:
        return message["type"] == "best_touch" and message["data"]["exchange"] == venue

    await running.told.until(own)
    mark = running.mark()
    simulated.cross(BTC)
    await running.told.until(lambda message: own(message) and message["data"]["best_bid"] is None, after=mark)
    mark = running.mark()
    simulated.release(BTC)
    back = await running.told.until(
        lambda message: own(message) and message["data"]["best_bid"] is not None, after=mark
    )
    assert back["data"]["best_bid"] < back["data"]["best_ask"]
    assert not left_live(running.told.messages)


@pytest.mark.parametrize("venue", ["binance", "okx"])
async def test_a_planned_close_costs_not_a_moment_of_the_venue(running: Rig, venue: str) -> None:
    mark = running.mark()
    running.market[venue].announce_close()
    market = running.publisher.markets[venue]
    async with asyncio.timeout(15):
        while not market.counters["replacements"]:
            after = running.mark()
            await running.told.until(lambda message: message["type"] == "trades", after=after)
    await running.told.until(
        lambda message: message["type"] == "trades" and message["data"]["exchange"] == venue, after=running.mark()
    )
    messages = running.told.messages[mark:]
    assert venue not in left_live(messages)
    assert not [message for message in messages if message["type"] == "gap"]
    ids = [int(message["data"]["trade_id"]) for message in messages if is_trade(message, venue, "BTCUSDT")]
    assert all(later > earlier for earlier, later in itertools.pairwise(ids))


async def test_a_venue_whose_engine_halts_leaves_the_touch_until_it_is_online(running: Rig) -> None:
    mark = running.mark()
    running.market["kraken"].set_status("maintenance")
    await running.state("kraken", "halted", after=mark)
    assert running.touch(BTC, "kraken") == EMPTY
    running.market["kraken"].set_status("online")
    await running.state("kraken", "live", after=mark)
    assert left_live(running.told.messages) == {"kraken"}


async def test_symbols_that_a_venue_does_not_carry_are_disabled_and_the_rest_goes_on() -> None:
    missing = dict.fromkeys(("okx", "kraken"), (ETH,))
    async with rig(BTC, ETH, stale_after_s=STALE_AFTER_S, missing=missing) as running:
        for venue in ("okx", "kraken"):
            market = running.publisher.markets[venue]
            assert market.carried == (BTC,)
            assert ETH in market.disabled
        touch = running.touch(ETH)
        assert touch.bid is None or touch.bid.venue == "binance"
        assert not left_live(running.told.messages)


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("factor", ["0.001", "0.5", "1.5", "1000"])
async def test_a_venue_that_lies_about_its_price_moves_nothing_and_is_back_when_it_stops(
    running: Rig, venue: str, factor: str
) -> None:
    simulated, board = running.market[venue], running.hub.board(BTC)
    running.hub.join(running.told, running.hub.topic_key("best_touch", BTC, venue))
    true = simulated.touch(BTC).bid
    lie = (true * Decimal(factor)).quantize(ONE)

    def shown(message: Message, exchange: str) -> Message:
        data = message.get("data", {})
        return data if (data.get("exchange"), data.get("symbol")) == (exchange, "BTCUSDT") else {}

    mark = running.mark()
    simulated.quote(BTC, lie, ONE, lie + 1, ONE)
    await running.told.until(lambda message: shown(message, venue).get("best_bid") == lie, after=mark)
    told = running.mark()
    assert running.hub.set_aside(venue) == [BTC]
    for _ in range(10):
        await running.told.until(lambda message: bool(shown(message, ALL)), after=running.mark())
    assert board.times_aside == {venue: 1}
    touches = [data for message in running.told.messages[mark:] if (data := shown(message, ALL))]
    assert all(abs(data[f"best_{side}"] / true - 1) < Decimal("0.01") for data in touches for side in ("bid", "ask"))
    late = [data for message in running.told.messages[told:] if (data := shown(message, ALL))]
    assert venue not in {data[f"best_{side}_exchange"] for data in late for side in ("bid", "ask")}

    mark = running.mark()
    simulated.release(BTC)
    await running.told.until(
        lambda message: abs((shown(message, venue).get("best_bid") or 0) / true - 1) < Decimal("0.01"),
        after=mark,
    )
    assert running.hub.set_aside(venue) == []
    assert not left_live(running.told.messages)


@pytest.mark.parametrize("venue", VENUES)
async def test_a_price_that_nobody_can_keep_takes_its_instrument_out_until_it_is_over(running: Rig, venue: str) -> None:
    simulated, market = running.market[venue], running.publisher.markets[venue]
    running.hub.join(running.told, running.hub.topic_key("best_touch", BTC, venue))
    true = simulated.touch(BTC)
    mark = running.mark()
    simulated.quote(BTC, true.bid, ONE, Decimal(90_000_000_000), ONE)
    await running.told.until(lambda message: message["type"] == "best_touch" and empty(message, venue), after=mark)
    assert market.carried == (ETH,)
    assert running.touch(BTC, venue) == EMPTY
    simulated.release(BTC)
    await quoted_again(running, venue, timeout_s=2 * REPRESENTABLE_AFTER_NS / NS)
    assert market.carried == (BTC, ETH)
    assert not left_live(running.told.messages)


def empty(message: Message, venue: str) -> bool:
    return message["data"]["exchange"] == venue and message["data"]["best_bid"] is None


async def test_the_touch_shows_the_venue_that_really_quotes_it(running: Rig) -> None:
    for venue in VENUES:
        running.market[venue].pause_market()
    for venue, bid, ask in (
        ("binance", "100.01", "100.05"),
        ("okx", "100.02", "100.06"),
        ("kraken", "100.00", "100.04"),
    ):
        running.market[venue].quote(BTC, Decimal(bid), Decimal(2), Decimal(ask), Decimal(3))
    told = await running.told.until(
        lambda message: (
            message["type"] == "best_touch"
            and message["data"]["best_bid"] == Decimal("100.02")
            and message["data"]["best_ask"] == Decimal("100.04")
        )
    )
    data = told["data"]
    assert (data["best_bid_exchange"], data["best_ask_exchange"]) == ("okx", "kraken")
    assert (data["best_bid_qty"], data["best_ask_qty"]) == (2, 3)
    assert data["spread"] == Decimal("0.02")
