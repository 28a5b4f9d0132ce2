"""Kraken's protocol, from the client's chair. The books are rebuilt and summed here, from the frames alone."""

import itertools
import json
import re
from decimal import Decimal
from typing import Any
from zlib import crc32

import pytest

from marketdata.simulated import SimulatedVenues
from tests.marketdata.simulated.client import Client, Frame, client, subscribe, trade_ids

BTC, ETH, SOL = "BTC/USDT", "ETH/USDT", "SOL/USDT"


def is_channel(frame: Frame, channel: str, kind: str = "") -> bool:
    return frame.get("channel") == channel and kind in ("", frame.get("type"))


class Rebuilt:
    """A book kept as the venue's guide says: numbers as they are printed, cut to depth, summed."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.bids: dict[Decimal, tuple[str, str]] = {}
        self.asks: dict[Decimal, tuple[str, str]] = {}

    def apply(self, text: str) -> None:
        frame: Frame = json.loads(text, parse_float=str, parse_int=str)
        book: dict[str, Any] = frame["data"][0]
        if frame["type"] == "snapshot":
            self.bids.clear()
            self.asks.clear()
        for side, levels in ((self.bids, book["bids"]), (self.asks, book["asks"])):
            for level in levels:
                price = Decimal(level["price"])
                side[price] = (level["price"], level["qty"])
                if not Decimal(level["qty"]):
                    del side[price]
        self.bids = {price: self.bids[price] for price in sorted(self.bids, reverse=True)[: self.depth]}
        self.asks = {price: self.asks[price] for price in sorted(self.asks)[: self.depth]}
        digits = "".join(
            text.replace(".", "").lstrip("0")
            for side in (self.asks, self.bids)
            for level in list(side.values())[:10]
            for text in level
        )
        assert crc32(digits.encode()) == int(book["checksum"])
        assert max(self.bids) < min(self.asks)


async def book_texts(kraken: Client, count: int, symbol: str = BTC) -> list[str]:
    texts: list[str] = []
    while len(texts) < count:
        text = await kraken.text()
        assert isinstance(text, str)
        if '"channel":"book","type"' in text and symbol in text:
            texts.append(text)
    return texts


async def test_the_engines_status_comes_first(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        status = await kraken.next()
    assert is_channel(status, "status", "update")
    assert status["data"][0]["system"] == "online"
    assert status["data"][0]["connection_id"] > 2**63


async def test_the_instrument_list_has_precisions_and_not_what_is_missing(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        await kraken.say({"method": "subscribe", "params": {"channel": "instrument", "snapshot": True}, "req_id": 1})
        ack = await kraken.until(lambda frame: frame.get("method") == "subscribe")
        listing = await kraken.until(lambda frame: is_channel(frame, "instrument", "snapshot"))
    assert ack["success"] is True
    pairs = {pair["symbol"]: pair for pair in listing["data"]["pairs"]}
    assert {BTC, ETH} < pairs.keys()  # and pairs that are not ours
    assert SOL not in pairs
    assert pairs[BTC]["price_precision"] >= 1
    assert pairs[BTC]["qty_precision"] == 8
    assert pairs[BTC]["status"] == "online"


async def test_each_symbol_is_acknowledged_alone(market: SimulatedVenues) -> None:
    market["kraken"].pause_market()
    async with client(market, "kraken") as kraken:
        params = {"channel": "ticker", "symbol": [BTC, SOL, ETH], "event_trigger": "bbo"}
        await kraken.say({"method": "subscribe", "params": params, "req_id": 5})
        answers = await kraken.take(3, lambda frame: frame.get("method") == "subscribe")
    good, bad, other = answers
    assert good["result"] == {"channel": "ticker", "event_trigger": "bbo", "snapshot": True, "symbol": BTC}
    assert all(answer["req_id"] == 5 and answer["time_in"].endswith("Z") for answer in answers)
    assert (bad["success"], bad["symbol"], "result" in bad) == (False, SOL, False)
    assert other["result"]["symbol"] == ETH


async def test_other_spellings_are_refused(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        for symbol in ("XBT/USDT", "BTCUSDT", "btc/usdt", "BTC-USDT"):
            await kraken.say({"method": "subscribe", "params": {"channel": "ticker", "symbol": [symbol]}})
            answer = await kraken.until(lambda frame: "success" in frame)
            assert (answer["success"], answer["symbol"]) == (False, symbol)
            assert "req_id" not in answer


async def test_a_malformed_request_is_an_error_and_not_the_end(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        for request in ("no JSON", "[]", '{"method":"brew"}', '{"method":"subscribe","params":{"channel":"book"}}'):
            await kraken.say(request)
            assert (await kraken.until(lambda frame: "success" in frame))["success"] is False
        await kraken.say({"method": "subscribe", "params": {"channel": "book", "symbol": [BTC], "depth": 7}})
        assert (await kraken.until(lambda frame: "success" in frame))["success"] is False
        await kraken.say({"method": "ping", "req_id": 8})
        pong = await kraken.until(lambda frame: frame.get("method") == "pong")
        assert pong["req_id"] == 8


async def test_the_ticker_begins_with_a_snapshot(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        await subscribe(kraken, "kraken", "BTC-USDT")
        first = await kraken.until(lambda frame: is_channel(frame, "ticker"))
        second = await kraken.until(lambda frame: is_channel(frame, "ticker"))
    assert (first["type"], second["type"]) == ("snapshot", "update")
    assert {"symbol", "bid", "bid_qty", "ask", "ask_qty", "last", "timestamp"} <= set(first["data"][0])
    assert first["data"][0]["bid"] < first["data"][0]["ask"]


async def test_the_ticker_speaks_of_prices_only(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        await subscribe(kraken, "kraken", "BTC-USDT")
        tickers = await kraken.take(30, lambda frame: is_channel(frame, "ticker"))
    prices = [(frame["data"][0]["bid"], frame["data"][0]["ask"]) for frame in tickers]
    assert all(a != b for a, b in itertools.pairwise(prices[1:]))


@pytest.mark.parametrize("depth", [10, 25, 100])
async def test_every_checksum_is_that_of_the_rebuilt_book(market: SimulatedVenues, depth: int) -> None:
    async with client(market, "kraken") as kraken:
        await kraken.say({"method": "subscribe", "params": {"channel": "book", "symbol": [BTC], "depth": depth}})
        rebuilt = Rebuilt(depth)
        texts = await book_texts(kraken, 150)
    for text in texts:
        rebuilt.apply(text)
    assert '"type":"snapshot"' in texts[0]
    assert all('"type":"update"' in text for text in texts[1:])


async def test_updates_delete_levels_and_refill_the_window_in_one_frame(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        await kraken.say({"method": "subscribe", "params": {"channel": "book", "symbol": [BTC], "depth": 10}})
        texts = await book_texts(kraken, 150)
    frames = [json.loads(text) for text in texts[1:]]
    sides = [side for frame in frames for side in (frame["data"][0]["bids"], frame["data"][0]["asks"])]
    assert any(any(not level["qty"] for level in side) and any(level["qty"] for level in side) for side in sides)


async def test_numbers_keep_their_trailing_zeros(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        await kraken.say({"method": "subscribe", "params": {"channel": "book", "symbol": [BTC], "depth": 25}})
        text = (await book_texts(kraken, 1))[0]
    sizes = re.findall(r'"qty":([^}]+)', text)
    prices = re.findall(r'"price":([^,]+)', text)
    assert len(sizes) == len(prices) == 50
    assert {len(size.partition(".")[2]) for size in sizes} == {8}
    assert {len(price.partition(".")[2]) for price in prices} == {market["kraken"].makers["BTC-USDT"].price_decimals}


async def test_a_second_subscriber_does_not_disturb_the_first(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as first, client(market, "kraken") as second:
        request = {"method": "subscribe", "params": {"channel": "book", "symbol": [BTC], "depth": 10}}
        await first.say(request)
        texts = await book_texts(first, 20)
        await second.say(request)
        others = await book_texts(second, 40)
        texts += await book_texts(first, 40)
    for one in (texts, others):
        rebuilt = Rebuilt(10)
        for text in one:
            rebuilt.apply(text)


async def test_resubscribing_brings_a_new_snapshot(market: SimulatedVenues) -> None:
    params = {"channel": "book", "symbol": [BTC], "depth": 10}
    async with client(market, "kraken") as kraken:
        await kraken.say({"method": "subscribe", "params": params})
        await book_texts(kraken, 5)
        await kraken.say({"method": "unsubscribe", "params": params, "req_id": 2})
        await kraken.until(lambda frame: frame.get("req_id") == 2)
        await kraken.say({"method": "subscribe", "params": params, "req_id": 3})
        rebuilt = Rebuilt(10)
        texts = await book_texts(kraken, 30)
    assert '"type":"snapshot"' in texts[0]
    for text in texts:
        rebuilt.apply(text)


async def test_trades_rise_by_one_and_history_is_marked(market: SimulatedVenues) -> None:
    async with client(market, "kraken") as kraken:
        params = {"channel": "trade", "symbol": [BTC], "snapshot": False}
        await kraken.say({"method": "subscribe", "params": params})
        frames = await kraken.take(10, lambda frame: is_channel(frame, "trade"))
        ids = [number for frame in frames for number in trade_ids(frame)]
        assert {frame["type"] for frame in frames} == {"update"}
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        await kraken.say({"method": "subscribe", "params": {**params, "snapshot": True}})
        history = await kraken.until(lambda frame: is_channel(frame, "trade", "snapshot"))
    assert {trade["trade_id"] for trade in history["data"]} >= set(ids[-3:])
    trade = history["data"][-1]
    assert set(trade) == {"symbol", "side", "price", "qty", "ord_type", "trade_id", "timestamp"}


async def test_a_quiet_connection_hears_heartbeats_once_subscribed(market: SimulatedVenues) -> None:
    market["kraken"].pause_market()
    async with client(market, "kraken") as kraken:
        assert is_channel(await kraken.next(), "status")
        assert await kraken.is_silent(1.3)
        await subscribe(kraken, "kraken", "BTC-USDT")
        beats = await kraken.take(2, lambda frame: is_channel(frame, "heartbeat"))
    assert beats == [{"channel": "heartbeat"}] * 2
