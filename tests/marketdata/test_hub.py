import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

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
from marketdata.hub import Hub, _Delay
from marketdata.layer import InProcessLayer
from tests.marketdata.rig import Recorder

BTC = "BTC-USDT"
NS = 1_000_000_000
ONE = Decimal(1)
ELSEWHERE_S = 86_400.0  # the feeds' monotonic clock is another machine's


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

    async def touch(
        self,
        *quotes: QuoteSlot,
        states: dict[str, str] | None = None,
        heartbeat: bool = False,
        waited_s: float = 0.0,
    ) -> None:
        """Send a batch as if it had been under way for so long."""
        self.sequence += 1
        statuses = [status(venue, state) for venue, state in (states or {}).items()]
        sent_s = time.monotonic() - waited_s + ELSEWHERE_S
        batch = TouchBatch(self.publisher, self.sequence, heartbeat, "simulated", list(quotes), statuses, sent_s)
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


async def quoting(running: Hub, feeds: Feeds) -> Recorder:
    """Have OKX quote 100 at 101, and a socket hear of it."""
    told = await subscribe(running, feeds, "best_touch", BTC, "all")
    await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True)
    await told.until(lambda message: message["type"] == "best_touch" and message["data"]["best_bid"] == 100)
    return told


async def test_without_a_heartbeat_every_venue_is_stale_and_its_subscribers_know(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 0.2)
    told = await quoting(running, feeds)

    stale = await told.until(lambda message: message["type"] == "venue" and message["state"] == "stale")

    assert stale["exchange"] == "okx"
    assert running.touch(BTC) == EMPTY
    await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True)
    await told.until(
        lambda message: message["type"] == "best_touch" and message["data"]["best_bid"] == 100, after=len(told.messages)
    )


async def test_a_process_that_stood_still_knows_at_once_that_its_market_is_old(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await quoting(running, feeds)
    assert running.is_current()
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 0.2)

    time.sleep(0.3)  # noqa: ASYNC251 - nothing runs meanwhile, as when the process is frozen

    assert running.touch(BTC) != EMPTY  # an order that comes first still finds it
    assert not running.is_current()
    assert not running.takes_part(BTC, "okx")
    await feeds.touch(heartbeat=True, states={"okx": "live"})
    await told.until(lambda message: message["type"] == "venue" or running.is_current())


async def heard(running: Hub, feeds: Feeds) -> None:
    """Wait until the hub has taken all that was sent."""
    async with asyncio.timeout(10):
        while running._sequences.get(feeds.publisher) != feeds.sequence:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("waited_s", [2.5, 10.0], ids=lambda waited_s: f"{waited_s} s")
async def test_what_waited_while_a_process_stood_still_is_not_the_market_of_now(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch, waited_s: float
) -> None:
    told = await quoting(running, feeds)
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 3.0)
    assert running.is_current()
    running._beat_s -= 10  # it stood still

    await feeds.touch(slot("okx", 90, 91), states={"okx": "live"}, heartbeat=True, waited_s=waited_s)
    await feeds.touch(slot("okx", 92, 93), states={"okx": "live"}, waited_s=0.5)  # it does not tell the whole market
    await heard(running, feeds)
    assert not running.is_current()
    assert not running.takes_part(BTC, "okx")
    assert running.touch(BTC).bid == running.touch(BTC, "okx").bid
    assert running.touch(BTC).bid is not None
    assert running.touch(BTC).bid.price == 100  # what is old when it comes is not shown as new

    await feeds.touch(slot("okx", 95, 96), states={"okx": "live"}, heartbeat=True, waited_s=0.5)
    await told.until(lambda message: message["type"] == "best_touch" and message["data"]["best_bid"] == 95)
    assert running.takes_part(BTC, "okx")


async def test_the_old_word_of_feeds_that_are_no_more_brings_no_venue_back(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though others, which live, beat meanwhile."""
    others = Feeds(feeds.layer, "feeds-2")
    await quoting(running, feeds)
    await others.touch(slot("binance", 99, 102), states={"binance": "live"}, heartbeat=True)
    await heard(running, others)
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 3.0)
    running._heard_s["okx"] -= 12
    running._watch_heartbeats(time.monotonic())
    assert not running.is_live("okx")

    await feeds.touch(slot("okx", 100, 101), states={"okx": "live"}, heartbeat=True, waited_s=12.0)
    await others.touch(slot("binance", 99, 102), states={"binance": "live"}, heartbeat=True)
    await heard(running, feeds)
    await heard(running, others)

    assert running.takes_part(BTC, "binance")
    assert not running.takes_part(BTC, "okx")


async def test_what_waited_for_the_layer_is_not_the_market_of_now_however_long_it_waited(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "WATCH_INTERVAL_S", 0.001)
    await quoting(running, feeds)
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 3.0)
    for _ in range(2 * hub.LOOKS_KEPT):  # nothing comes
        await asyncio.sleep(0.002)
    running._beat_s -= 10
    await feeds.touch(slot("okx", 90, 91), states={"okx": "live"}, heartbeat=True, waited_s=10.0)
    await heard(running, feeds)
    assert not running.is_current()


async def test_feeds_whose_machine_stood_still_are_believed_again(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their clock, which did not go on meanwhile, is behind for ever: that says nothing of their batches."""
    monkeypatch.setattr(hub, "WATCH_INTERVAL_S", 0.01)
    await quoting(running, feeds)
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 3.0)
    running._beat_s -= 10
    await feeds.touch(slot("okx", 90, 91), states={"okx": "live"}, heartbeat=True, waited_s=600.0)
    await heard(running, feeds)
    assert not running.is_current()
    async with asyncio.timeout(10):
        while not running.is_current():
            await feeds.touch(slot("okx", 90, 91), states={"okx": "live"}, heartbeat=True, waited_s=600.0)
            await asyncio.sleep(0.01)
    assert running.takes_part(BTC, "okx")


def delays(under_way: Iterable[float]) -> Iterator[float]:
    """Return the delay of each batch, of two in a second, that was under way for so long."""
    delay = _Delay()
    for under_way_s in under_way:
        yield delay.take(under_way_s)
        delay.look()


def test_a_delay_that_grows_slowly_is_never_believed() -> None:
    """A process that can do 95 % of what comes falls behind by a second in twenty."""
    found = list(delays(ELSEWHERE_S + 0.05 * 0.5 * number for number in range(3_600)))
    late = [number for number, delay in enumerate(found) if delay > hub.LATE_S]
    assert late[0] <= 2 * 2.1 / 0.05  # from two seconds on
    assert late == list(range(late[0], len(found)))


def test_clocks_of_another_pace_are_no_delay() -> None:
    for pace in (9e-5, -9e-5):
        assert max(delays(pace * 0.5 * number for number in range(86_400))) < 0.1  # half a day; they part by 4 s


def test_a_burst_is_a_delay_while_it_lasts() -> None:
    found = list(delays([0.01] * 100 + [5.0] * 20 + [0.01] * 100))
    assert [round(delay, 1) for delay in found] == [0.0] * 100 + [5.0] * 20 + [0.0] * 100


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
    running._watch_heartbeats(running._batch_s)

    assert running.is_live("okx")


async def test_who_wants_an_instrument_waits_for_the_feeds_of_every_venue(
    running: Hub, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "FIRST_NEWS_S", 30.0)
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


async def test_a_book_that_the_layer_lost_is_asked_for(running: Hub, feeds: Feeds) -> None:
    await subscribe(running, feeds, "trades", BTC, "all")
    feeds.batches += 1  # with a book that did not change since
    await feeds.instrument(trades=[trade(1)])
    async with asyncio.timeout(hub.INTEREST_REPEAT_S / 2):
        assert (await feeds.layer.receive(feeds.requests))["instrument"] == BTC


async def test_feeds_that_start_anew_are_asked_for_what_is_wanted_at_once(running: Hub, feeds: Feeds) -> None:
    await subscribe(running, feeds, "trades", BTC, "all")
    others = Feeds(feeds.layer, "feeds-2")
    await others.listen()
    await others.touch(states={"okx": "live"}, heartbeat=True)
    async with asyncio.timeout(hub.INTEREST_REPEAT_S / 2):
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
    async with asyncio.timeout(10):
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
    async with asyncio.timeout(10):
        await listener.stop()


@pytest.fixture
async def of_three(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 600.0)
    monkeypatch.setattr(hub, "WATCH_INTERVAL_S", 600.0)  # a test looks itself
    made = Hub(feeds.layer, [parse_instrument(BTC)], ("binance", "okx", "kraken"))
    await made.start()
    await made.listening.wait()
    await feeds.touch(
        slot("binance", 100, 102), slot("okx", 101, 103), states=dict.fromkeys(("binance", "okx", "kraken"), "live")
    )
    yield made
    await made.stop()


async def test_a_price_that_strays_is_told_as_the_venues_own_and_as_nobody_elses(of_three: Hub, feeds: Feeds) -> None:
    own = await subscribe(of_three, feeds, "best_touch", BTC, "kraken")
    told = await subscribe(of_three, feeds, "best_touch", BTC, "all")
    books = await subscribe(of_three, feeds, "orderbook", BTC, "all", 5)
    levels = {
        venue: (((Decimal(bid), ONE),), ((Decimal(bid + 2), ONE),)) for venue, bid in (("okx", 101), ("kraken", 9))
    }
    await feeds.touch(slot("kraken", 9, 11))
    await own.until(lambda message: message["data"]["best_bid"] == 9)
    await feeds.instrument(books=[BookUpdate(venue, *sides, NS) for venue, sides in levels.items()])
    shown = await books.until(lambda message: message["data"]["bids"] == [[101, 1, "okx"]])

    assert shown["data"]["asks"] == [[103, 1, "okx"]]
    assert {message["data"]["best_ask"] for message in told.messages} <= {None, 102}
    assert of_three.set_aside("kraken") == [BTC]
    assert of_three.is_live("kraken")
    assert not of_three.takes_part(BTC, "kraken")
    await feeds.touch(slot("kraken", 100, 101))
    await told.until(lambda message: message["data"]["best_ask"] == 101)
    assert of_three.takes_part(BTC, "kraken")


async def test_each_time_that_a_venue_is_set_aside_is_logged_once(of_three: Hub, feeds: Feeds) -> None:
    own = await subscribe(of_three, feeds, "best_touch", BTC, "kraken")
    logged = []
    with capture_logs() as lines:
        for bid in (9, 10, 100, 900, 100, 101):
            await feeds.touch(slot("kraken", bid, bid + 2))
            await own.until(lambda message, bid=bid: message["data"]["best_bid"] == bid, after=len(own.messages) - 1)
            for _ in range(2):
                of_three._watch_prices()
            logged.append([(line["log_level"], line["venue"], line["bid"]) for line in lines])
            lines.clear()
    assert logged == [[("warning", "kraken", "9")], [], [], [("warning", "kraken", "900")], [], []]


async def test_a_dispute_that_nobody_can_decide_is_logged_once(of_three: Hub, feeds: Feeds) -> None:
    own = await subscribe(of_three, feeds, "best_touch", BTC, "okx")
    await feeds.touch(slot("okx", 150, 151))
    await own.until(lambda message: message["data"]["best_bid"] == 150)
    with capture_logs() as lines:
        for _ in range(2):
            of_three._watch_prices()
    assert [(line["log_level"], line["instrument"]) for line in lines] == [("warning", BTC)]
    assert of_three.set_aside("okx") == []
