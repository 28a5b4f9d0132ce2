"""The public routes over the whole ASGI application, fed through the channel layer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from channels.layers import get_channel_layer
from django.conf import settings

from core.candles import Candle
from marketdata import history, hub, services
from marketdata.batches import (
    REQUEST_GROUP,
    TOUCH_GROUP,
    BookUpdate,
    CandleUpdate,
    InstrumentBatch,
    QuoteSlot,
    TouchBatch,
    VenueStatus,
    instrument_group,
    instrument_message,
    touch_message,
)
from router_project.asgi import application

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = tuple(instrument.name for instrument in settings.CATALOGUE.instruments)
BTC, DOT = "BTC-USDT", "DOT-USDT"
NOW_S = int(time.time())
MINUTE_S = NOW_S // 60 * 60 + 86_400  # of tomorrow: it does not pass while the tests run


def status(venue: str, state: str = "live", *, disabled: dict[str, str] | None = None) -> VenueStatus:
    carried = tuple(name for name in NAMES if name not in (disabled or {}))
    counters = {"gaps": 3, "reconnects": 2}
    return VenueStatus(
        venue, state, "" if state == "live" else "silent", carried, disabled or {}, 0.25, 0.5, 12.34, counters
    )


def quote(venue: str, bid: str, ask: str) -> QuoteSlot:
    return QuoteSlot(venue, BTC, Decimal(bid), Decimal("0.50"), Decimal(ask), Decimal("1.25"), 1, time.time_ns())


def book(venue: str, bid: str, ask: str) -> BookUpdate:
    tick = Decimal("0.1")
    bids = tuple((Decimal(bid) - tick * level, Decimal("0.10")) for level in range(20))
    asks = tuple((Decimal(ask) + tick * level, Decimal("1E+1")) for level in range(20))
    return BookUpdate(venue, bids, asks, time.time_ns())


def candle(open_time: int, *, interval: int = 60, closed: bool = True) -> Candle:
    price = Decimal("94999.90")
    return Candle(interval, open_time, price, price + 1, price - 1, price, Decimal("0.30"), 7, closed)


class Feeds:
    """Speaks as the role feeds does: heartbeats, and an instrument's state when it is asked for."""

    def __init__(self) -> None:
        self.layer = get_channel_layer()
        self.statuses = [status("binance"), status("okx", disabled={DOT: "not listed"}), status("kraken", "stale")]
        self.quotes = [quote("binance", "95000.10", "95000.30"), quote("okx", "95000.20", "95000.40")]
        self.books = [book("binance", "95000.10", "95000.30"), book("okx", "95000.20", "95000.40")]
        self.running: Candle | None = None
        self._sequence = 0

    async def beat(self) -> None:
        """Send a heartbeat and wait until the hub has it."""
        hub = await services.current_hub()
        heard = asyncio.Event()
        while not hub._channel:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0)
        hub.touch_listeners.append(lambda _instrument: heard.set())
        self._sequence += 1
        batch = TouchBatch("feeds", self._sequence, True, "simulated", self.quotes, self.statuses)
        await self.layer.group_send(TOUCH_GROUP, touch_message(batch))
        async with asyncio.timeout(5):
            await heard.wait()

    async def answer(self) -> None:
        channel = await self.layer.new_channel()
        await self.layer.group_add(REQUEST_GROUP, channel)
        while True:
            instrument = (await self.layer.receive(channel))["instrument"]
            candles = [CandleUpdate("all", self.running)] if self.running else []
            batch = InstrumentBatch("feeds", instrument, 1, [], candles, self.books if instrument == BTC else [], [])
            await self.layer.group_send(instrument_group(instrument), instrument_message(batch))


@pytest.fixture
async def feeds(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feeds]:
    monkeypatch.setattr(hub, "HEARTBEAT_LOST_S", 600.0)  # a test beats once
    feeds = Feeds()
    answering = asyncio.create_task(feeds.answer())
    yield feeds
    answering.cancel()
    await services.stop_hub()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=application)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    await services.stop_hub()


async def read(http: httpx.AsyncClient, path: str, expect: int = 200) -> Any:
    answer = await http.get(path)
    assert answer.status_code == expect, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return json.loads(answer.content, parse_float=Decimal)


async def test_info_names_what_is_served(http: httpx.AsyncClient, feeds: Feeds) -> None:
    await feeds.beat()
    info = await read(http, "/info")
    assert info["pairs"] == info["trading_pairs"] == [name.replace("-", "") for name in NAMES]
    assert info["assets"] == sorted(info["assets"])
    assert {"BTC", "USDT"} <= set(info["assets"])
    assert info["exchanges"] == ["binance", "okx", "kraken"]
    assert info["kline_intervals"] == ["1s", "10s", "1m", "5m"]
    assert info["order_types"] == ["limit", "market", "ioc"]
    assert set(info["streams"]) == {"best_touch", "trades", "klines", "ewma", "orderbook"}
    assert (info["paper"], info["source"], info["simulated"]) == (True, "simulated", True)


async def test_exchanges_and_what_they_carry(http: httpx.AsyncClient, feeds: Feeds) -> None:
    assert await read(http, "/exchanges") == ["binance", "okx", "kraken"]
    assert (await read(http, "/exchanges/okx/pairs", 503))["code"] == "unavailable"
    await feeds.beat()
    assert "DOTUSDT" in await read(http, "/exchanges/binance/pairs/")
    assert "DOTUSDT" not in await read(http, "/exchanges/OKX/pairs")
    assert (await read(http, "/exchanges/nyse/pairs", 400))["code"] == "unknown_exchange"


async def test_status_tells_each_venue_and_each_touch(http: httpx.AsyncClient, feeds: Feeds) -> None:
    await feeds.beat()
    told = await read(http, "/status")
    assert (told["paper"], told["source"], told["simulated"]) == (True, "simulated", True)
    okx = told["exchanges"]["okx"]
    assert (okx["state"], okx["live"], okx["reconnects"], okx["gaps"]) == ("live", True, 2, 3)
    assert (okx["last_frame_age"], okx["frames_per_second"]) == (Decimal("0.25"), Decimal("12.3"))
    assert okx["not_carried"] == {"DOTUSDT": "not listed"}
    assert (told["exchanges"]["kraken"]["state"], told["exchanges"]["kraken"]["live"]) == ("stale", False)
    touch = told["symbols"]["BTCUSDT"]
    assert (touch["best_bid"], touch["best_bid_exchange"]) == (Decimal("95000.2"), "okx")
    assert (touch["best_ask"], touch["best_ask_exchange"]) == (Decimal("95000.3"), "binance")
    assert (touch["best_ask_qty"], touch["spread"]) == (Decimal("1.25"), Decimal("0.1"))
    assert 0 <= touch["best_bid_age"] < 60
    assert told["symbols"]["ETHUSDT"]["best_bid"] is None


async def test_a_book_is_exact_and_as_deep_as_asked(http: httpx.AsyncClient, feeds: Feeds) -> None:
    await feeds.beat()
    answer = await http.get("/orderbook/binance/btc-usdt?depth=2")
    assert b'"bids":[[95000.1,0.1],[95000,0.1]],"asks":[[95000.3,10],[95000.4,10]]' in answer.content
    whole = await read(http, "/orderbook/binance/BTCUSDT/")
    assert (len(whole["bids"]), len(whole["asks"])) == (20, 20)
    assert (whole["exchange"], whole["symbol"]) == ("binance", "BTCUSDT")
    assert abs(float(whole["timestamp"]) - time.time()) < 60


async def test_the_book_of_all_names_each_levels_venue(http: httpx.AsyncClient, feeds: Feeds) -> None:
    await feeds.beat()
    told = await read(http, "/orderbook/all/BTC/USDT?depth=3")
    assert told["exchange"] == "all"
    assert told["bids"] == [
        [Decimal("95000.2"), Decimal("0.1"), "okx"],
        [Decimal("95000.1"), Decimal("0.1"), "binance"],
        [Decimal("95000.1"), Decimal("0.1"), "okx"],
    ]
    assert told["asks"][0] == [Decimal("95000.3"), 10, "binance"]


async def test_the_book_of_a_venue_that_is_not_live_is_empty(http: httpx.AsyncClient, feeds: Feeds) -> None:
    feeds.books.append(book("kraken", "95000", "95001"))
    await feeds.beat()
    told = await read(http, "/orderbook/kraken/BTCUSDT")
    assert (told["exchange"], told["bids"], told["asks"]) == ("kraken", [], [])
    assert "kraken" not in str(await read(http, "/orderbook/all/BTCUSDT"))


async def test_a_symbol_that_the_venue_does_not_carry_is_refused(http: httpx.AsyncClient, feeds: Feeds) -> None:
    await feeds.beat()
    for path in ("/orderbook/okx/DOTUSDT", "/klines/okx/DOTUSDT"):
        assert (await read(http, path, 400))["code"] == "not_carried"


@pytest.mark.parametrize(
    ("path", "status_code", "code"),
    [
        ("/orderbook/%E2%84%AAraken/BTCUSDT", 400, "unknown_exchange"),  # a Kelvin sign
        ("/orderbook/nyse/BTCUSDT", 400, "unknown_exchange"),
        ("/orderbook/okx/NOPE", 400, "unknown_symbol"),
        ("/orderbook/okx/%00", 400, "unknown_symbol"),
        ("/orderbook/okx/" + "B" * 3000, 400, "unknown_symbol"),
        ("/klines/nyse/BTCUSDT", 400, "unknown_exchange"),
        ("/klines/all/ＢＴＣUSDT", 400, "unknown_symbol"),
        *((f"/orderbook/okx/BTCUSDT?depth={depth}", 422, "invalid") for depth in ("0", "21", "-1", "1.5", "1_0", "１")),
        *((f"/klines/all/BTCUSDT?limit={limit}", 422, "invalid") for limit in ("0", "1001", "-5", "1e3", " 5", "+5")),
        *((f"/klines/all/BTCUSDT?interval={name}", 422, "invalid") for name in ("2m", "60", "1M", "%00")),
        *((f"/klines/all/BTCUSDT?{name}={value}", 422, "invalid") for name in ("start", "end") for value in
          ("-1", "soon", "NaN", "1e9", "9" * 30)),
        ("/klines/all", 404, "not_found"),
        ("/orderbook", 404, "not_found"),
    ],
)  # fmt: skip
async def test_what_is_not_understood_is_named(http: httpx.AsyncClient, path: str, status_code: int, code: str) -> None:
    error = await read(http, path, status_code)
    assert set(error) == {"detail", "message", "code"}
    assert error["code"] == code
    if status_code == 422:
        assert error["detail"][0]["loc"] == ["query", path.partition("?")[2].partition("=")[0]]


def times(told: dict[str, Any]) -> list[int]:
    return [(item["timestamp"] - MINUTE_S) // 60 for item in told["candles"]]


async def test_klines_are_stored_ones_and_then_the_running_one(http: httpx.AsyncClient, feeds: Feeds) -> None:
    rows = [("all", BTC, candle(MINUTE_S - 60 * back)) for back in range(5, 0, -1)]
    await asyncio.to_thread(history.store, rows)
    feeds.running = candle(MINUTE_S, closed=False)
    await feeds.beat()
    base = "/klines/all/BTCUSDT"

    told = await read(http, base)
    assert (told["exchange"], told["symbol"], told["interval"]) == ("all", "BTCUSDT", "1m")
    assert times(told) == [-5, -4, -3, -2, -1, 0]
    assert [item["is_closed"] for item in told["candles"]] == [True] * 5 + [False]
    assert told["candles"][0] == {
        "timestamp": MINUTE_S - 300, "open": Decimal("94999.9"), "high": Decimal("95000.9"),
        "low": Decimal("94998.9"), "close": Decimal("94999.9"), "volume": Decimal("0.3"), "trades": 7,
        "is_closed": True, "partial": False,
    }  # fmt: skip

    assert times(await read(http, f"{base}?limit=3&start=&end=")) == [-2, -1, 0]
    assert times(await read(http, f"{base}?limit=1")) == [0]
    assert times(await read(http, f"{base}?end={MINUTE_S - 120}.5")) == [-5, -4, -3, -2]
    assert times(await read(http, f"{base}?end={MINUTE_S - 120}&limit=2")) == [-3, -2]
    assert times(await read(http, f"{base}?start={MINUTE_S - 120}")) == [-2, -1, 0]
    assert times(await read(http, f"{base}?start={MINUTE_S - 119.5}")) == [-1, 0]
    assert times(await read(http, f"{base}?start={MINUTE_S - 240}&limit=2")) == [-4, -3], (
        "no hole before the running one"
    )
    assert times(await read(http, f"{base}?start={MINUTE_S + 600}")) == []
    assert times(await read(http, f"{base}?interval=5m")) == []
    assert times(await read(http, "/klines/binance/BTCUSDT")) == []


async def test_a_running_candle_of_feeds_that_are_gone_is_not_shown(http: httpx.AsyncClient, feeds: Feeds) -> None:
    feeds.running = candle(NOW_S // 60 * 60 - 300, closed=False)
    await feeds.beat()
    assert times(await read(http, "/klines/all/BTCUSDT")) == []


async def test_ready_says_what_is_missing(http: httpx.AsyncClient, feeds: Feeds) -> None:
    assert (await read(http, "/health"))["status"] == "ok"
    answer = await http.get("/ready")
    assert (answer.status_code, answer.headers["Retry-After"], answer.json()["code"]) == (503, "1", "not_ready")
    assert "feeds" in answer.json()["message"]
    await feeds.beat()
    assert (await read(http, "/ready"))["status"] == "ready"


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient, feeds: Feeds) -> None:
    await feeds.beat()
    answer = await http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'router_venue_state{state="live",venue="okx"} 1.0' in lines
    assert 'router_venue_state{state="stale",venue="kraken"} 1.0' in lines
    assert 'router_venue_events_total{event="gaps",venue="okx"} 3.0' in lines
    assert any(line.startswith('router_touch_age_seconds{side="bid",symbol="BTCUSDT"}') for line in lines)
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)


async def test_a_venue_whose_price_strays_is_told_and_is_not_in_what_is_told_of_all(
    http: httpx.AsyncClient, feeds: Feeds
) -> None:
    feeds.statuses[2] = status("kraken")
    feeds.quotes.append(quote("kraken", "45000", "45001"))
    feeds.books.append(book("kraken", "45000", "45001"))
    await feeds.beat()

    told = await read(http, "/status")
    assert {venue: state["set_aside"] for venue, state in told["exchanges"].items()} == {
        "binance": [], "okx": [], "kraken": ["BTCUSDT"],
    }  # fmt: skip
    assert told["exchanges"]["kraken"]["live"] is True
    assert told["symbols"]["BTCUSDT"]["best_ask"] == Decimal("95000.3")
    assert "kraken" not in str(await read(http, "/orderbook/all/BTCUSDT"))
    assert (await read(http, "/orderbook/kraken/BTCUSDT"))["asks"][0] == [45001, 10]
    lines = (await http.get("/metrics")).text.splitlines()
    assert 'router_venue_aside{symbol="BTCUSDT",venue="kraken"} 1.0' in lines
    assert 'router_venue_aside{symbol="ETHUSDT",venue="kraken"} 0.0' in lines
    assert 'router_venue_set_aside_total{symbol="BTCUSDT",venue="kraken"} 1.0' in lines
    assert 'router_venue_set_aside_total{symbol="BTCUSDT",venue="okx"} 0.0' in lines
