import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from core.candles import Candle
from core.events import Side
from core.instruments import parse_instrument
from core.touch import EMPTY
from marketdata import batches, hub
from marketdata.batches import (
    REQUEST_GROUP,
    TOUCH_GROUP,
    BookUpdate,
    CandleUpdate,
    Gap,
    InstrumentBatch,
    QuoteSlot,
    TouchBatch,
    TradePrint,
    VenueStatus,
    instrument_group,
    instrument_message,
    touch_message,
)
from marketdata.hub import Hub
from marketdata.layer import InProcessLayer
from tests.marketdata.rig import Recorder

BTC = "BTC-USDT"
NS = 1_000_000_000
ONE = Decimal(1)


class Feeds:
    """The feeds' side of the layer, spoken by hand."""

    def __init__(self, layer: InProcessLayer, publisher: str = "feeds-1") -> None:
        self.layer = layer
        self.publisher = publisher
        self.sequence = 0
        self.batches = 0
        self.requests = ""

    async def listen(self) -> None:
        self.requests = await self.layer.new_channel()
        await self.layer.group_add(REQUEST_GROUP, self.requests)

    async def touch(self, *quotes: QuoteSlot, states: dict[str, str] | None = None, heartbeat: bool = False) -> None:
        self.sequence += 1
        statuses = [status(venue, state) for venue, state in (states or {}).items()]
        batch = TouchBatch(self.publisher, self.sequence, heartbeat, "simulated", list(quotes), statuses)
        await self.layer.group_send(TOUCH_GROUP, touch_message(batch))

    async def instrument(self, **news: list[Any]) -> None:
        self.batches += 1
        whole = {"trades": [], "candles": [], "books": [], "gaps": []} | news
        batch = InstrumentBatch(self.publisher, BTC, self.batches, **whole)
        await self.layer.group_send(instrument_group(BTC), instrument_message(batch))


def status(venue: str, state: str) -> VenueStatus:
    return VenueStatus(venue, state, "", (BTC,), {}, 0.0, 0.0, 1.0, {})


def slot(venue: str, bid: int, ask: int) -> QuoteSlot:
    return QuoteSlot(venue, BTC, Decimal(bid), ONE, Decimal(ask), ONE, None, time.time_ns())


def trade(number: int, price: int = 100, venue: str = "okx", time_ns: int = NS) -> TradePrint:
    return TradePrint(venue, str(number), number, number, Decimal(price), ONE, Side.BUY, time_ns, time_ns)


@pytest.fixture
async def feeds() -> Feeds:
    feeds = Feeds(InProcessLayer(capacity=1000))
    await feeds.listen()
    return feeds


@pytest.fixture
async def running(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 600.0)  # feeds beat when a test lets them
    running = Hub(feeds.layer, [parse_instrument(BTC)], ("binance", "okx"))
    await running.start()
    await running.listening.wait()
    yield running
    await running.stop()


async def subscribe(running: Hub, feeds: Feeds, *key: Any) -> Recorder:
    """Subscribe as a socket does, the feeds answering the hub's request."""
    told = Recorder()
    waking = asyncio.create_task(running.awaken(key[0], BTC))
    if key[0] != "best_touch" and not running.knows(BTC):
        assert (await feeds.layer.receive(feeds.requests))["instrument"] == BTC
        await feeds.instrument(books=[BookUpdate("okx", ((ONE, ONE),), ((ONE + 1, ONE),), NS)])
    await waking
    for frame in running.join(told, running.topic_key(*key)):
        told.push(frame, None)
    return told


async def test_without_a_heartbeat_every_venue_is_stale_and_its_subscribers_know(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 0.2)
    told = await subscribe(running, feeds, "best_touch", BTC, "all")
    await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True)
    await told.until(lambda message: message["type"] == "best_touch" and message["data"]["best_bid"] == 100)

    stale = await told.until(lambda message: message["type"] == "venue" and message["state"] == "stale")

    assert stale["exchange"] == "okx"
    assert running.touch(BTC) == EMPTY
    await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True)
    await told.until(
        lambda message: message["type"] == "best_touch" and message["data"]["best_bid"] == 100, after=len(told.messages)
    )


async def test_feeds_that_come_back_are_live_from_their_first_word_on(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 0.2)
    told = await subscribe(running, feeds, "best_touch", BTC, "all")
    await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True)
    await told.until(lambda message: message["type"] == "venue" and message["state"] == "stale")

    again = Feeds(feeds.layer, "feeds-2")
    await again.touch(slot("okx", 90, 91), states={"okx": "live"})  # before they beat
    await told.until(lambda message: message["type"] == "best_touch" and message["data"]["best_bid"] == 90)
    running._watch_heartbeats(time.monotonic())

    assert running.is_live("okx")


async def test_who_wants_an_instrument_waits_for_the_feeds_of_every_venue(running: Hub, feeds: Feeds) -> None:
    others = Feeds(feeds.layer, "feeds-2")
    told = await subscribe(running, feeds, "best_touch", BTC, "binance")
    await feeds.touch(states={"okx": "live"}, heartbeat=True)
    await others.touch(slot("binance", 99, 102), states={"binance": "live"}, heartbeat=True)
    await told.until(lambda message: message["type"] == "best_touch" and message["data"]["best_bid"] == 99)
    reading = asyncio.create_task(running.books(BTC))
    assert (await feeds.layer.receive(feeds.requests))["instrument"] == BTC

    await feeds.instrument(books=[BookUpdate("okx", ((ONE, ONE),), ((ONE + 1, ONE),), NS)])
    await others.instrument(books=[BookUpdate("binance", ((ONE, ONE),), ((ONE + 1, ONE),), NS)])

    assert set(await reading) == {"okx", "binance"}


async def test_trades_that_the_layer_lost_are_told_as_a_gap_and_counted(running: Hub, feeds: Feeds) -> None:
    told = await subscribe(running, feeds, "trades", BTC, "all")
    await feeds.instrument(trades=[trade(1), trade(2)])
    feeds.batches += 1  # a batch that never arrives
    await feeds.instrument(trades=[trade(6)])

    gap = await told.until(lambda message: message["type"] == "gap")
    await told.until(lambda message: message["type"] == "trades" and message["data"]["trade_id"] == "6")

    assert (gap["exchange"], gap["from_id"], gap["to_id"]) == ("okx", 3, 5)
    assert running.counters["batches_lost"] == 1
    assert running.counters["trades_lost_by_layer"] == 3


async def test_feeds_that_start_anew_are_asked_for_what_is_wanted_at_once(running: Hub, feeds: Feeds) -> None:
    await subscribe(running, feeds, "trades", BTC, "all")
    others = Feeds(feeds.layer, "feeds-2")
    await others.listen()
    await others.touch(states={"okx": "live"}, heartbeat=True)
    async with asyncio.timeout(2):
        assert (await feeds.layer.receive(others.requests))["instrument"] == BTC


async def test_a_hub_that_the_layer_forgot_joins_again(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "REJOIN_S", 0.1)
    await feeds.touch(states={"okx": "live"}, heartbeat=True)
    feeds.layer._groups.clear()
    told = await subscribe(running, feeds, "best_touch", BTC, "okx")
    async with asyncio.timeout(5):
        while running.touch(BTC, "okx") == EMPTY:
            await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True)
            await asyncio.sleep(0.05)
    await told.until(lambda message: message["type"] == "best_touch" and message["data"]["best_ask"] == 101)


async def test_each_average_begins_with_the_first_trade_after_its_subscription(running: Hub, feeds: Feeds) -> None:
    first = await subscribe(running, feeds, "ewma", BTC, "all", 10.0)
    await feeds.instrument(trades=[trade(1, price=100, time_ns=1 * NS)])
    await first.until(lambda message: message["type"] == "ewma")
    second = await subscribe(running, feeds, "ewma", BTC, "all", 10.0)
    assert second.messages == []
    await feeds.instrument(trades=[trade(2, price=200, time_ns=11 * NS)])

    assert (await second.until(lambda message: message["type"] == "ewma"))["data"]["value"] == 200
    moved = await first.until(lambda message: message["data"]["value"] != 100)
    assert moved["data"]["value"] == 150


async def test_nothing_of_an_instrument_is_asked_for_until_somebody_wants_it(running: Hub, feeds: Feeds) -> None:
    await subscribe(running, feeds, "best_touch", BTC, "all")
    await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2 * hub.WATCH_INTERVAL_S):
            await feeds.layer.receive(feeds.requests)
    assert not running.knows(BTC)


async def test_a_venues_stream_tells_of_that_venue_alone(running: Hub, feeds: Feeds) -> None:
    told = await subscribe(running, feeds, "trades", BTC, "binance")
    candles = await subscribe(running, feeds, "klines", BTC, "binance", 1)
    candle = Candle(1, 60, ONE, ONE, ONE, ONE, ONE, 1, closed=True)
    await feeds.instrument(
        trades=[trade(1, venue="okx"), trade(7, venue="binance")],
        candles=[CandleUpdate("okx", candle), CandleUpdate(batches.ALL, candle), CandleUpdate("binance", candle)],
    )
    await told.until(lambda message: message["data"]["trade_id"] == "7")
    await candles.until(lambda message: message["data"]["is_closed"])
    assert [message["data"]["exchange"] for message in told.messages + candles.messages] == ["binance", "binance"]


async def test_a_heartbeat_empties_what_it_does_not_tell_once(running: Hub, feeds: Feeds) -> None:
    """A venue that came back while a batch was lost has fresh quotes of some instruments only."""
    told = await subscribe(running, feeds, "best_touch", BTC, "all")
    await feeds.touch(slot("okx", 100, 101), slot("binance", 99, 102), states={"okx": "live", "binance": "live"})
    await told.until(lambda message: (message.get("data") or {}).get("best_bid_exchange") == "okx")
    await feeds.touch(slot("binance", 99, 102), states={"okx": "live", "binance": "live"}, heartbeat=True)
    await told.until(lambda message: (message.get("data") or {}).get("best_bid_exchange") == "binance")
    assert running.touch(BTC, "okx").bid is None
    count = len(told.messages)
    await feeds.touch(slot("binance", 99, 102), states={"okx": "live", "binance": "live"}, heartbeat=True)
    await asyncio.sleep(0.05)
    assert len(told.messages) == count


async def test_a_message_that_cannot_be_read_does_not_make_the_hub_change_its_channel(
    feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "RETRY_S", 0.01)

    class Spoiled(InProcessLayer):
        async def receive(self, channel: str) -> dict[str, Any]:
            message = await super().receive(channel)
            if message["type"] == "spoiled":
                raise ValueError("not what this layer writes")
            return message

    feeds.layer = Spoiled(capacity=1000)
    listener = Hub(feeds.layer, [parse_instrument(BTC)], ("binance", "okx"))
    await listener.start()
    await listener.listening.wait()
    channels = set(feeds.layer._groups[TOUCH_GROUP])
    await feeds.layer.group_send(TOUCH_GROUP, {"type": "spoiled"})
    await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True)
    changed = asyncio.Event()
    listener.touch_listeners.append(lambda _instrument: changed.set())
    async with asyncio.timeout(2):
        await changed.wait()
    assert feeds.layer._groups[TOUCH_GROUP] == channels
    await listener.stop()


async def test_a_gap_between_two_trades_of_one_batch_is_told_once(running: Hub, feeds: Feeds) -> None:
    told = await subscribe(running, feeds, "trades", BTC, "all")
    await feeds.instrument(trades=[trade(1)])
    await feeds.instrument(trades=[trade(2), trade(6)], gaps=[Gap("okx", 3, 5)])
    await told.until(lambda message: (message.get("data") or {}).get("trade_id") == "6")
    assert [message["from_id"] for message in told.messages if message["type"] == "gap"] == [3]
    assert running.counters["trades_lost_by_layer"] == 0


async def test_a_hub_stops_also_in_the_moment_in_which_something_is_wanted(feeds: Feeds) -> None:
    listener = Hub(feeds.layer, [parse_instrument(BTC)], ("okx",))
    await listener.start()
    await listener.listening.wait()
    for _ in range(5):  # the loops have begun to wait
        await asyncio.sleep(0)
    listener.join(Recorder(), listener.topic_key("trades", BTC, "all"))
    async with asyncio.timeout(2):
        await listener.stop()
