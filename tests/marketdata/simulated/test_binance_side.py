"""Binance's protocol, from the client's chair."""

import asyncio
import itertools
import json
import re
from decimal import Decimal

from marketdata.simulated import SimulatedVenues
from tests.marketdata.simulated.client import BTC, ETH, client, depth_of, subscribe, touch_of, trade_ids

EIGHT_DECIMALS = re.compile(r"\d+\.\d{8}")


async def test_control_requests_are_answered_with_their_ids(market: SimulatedVenues) -> None:
    market["binance"].pause_market()
    async with client(market, "binance") as binance:
        await binance.say({"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker", "btcusdt@trade"], "id": 7})
        assert await binance.next() == {"result": None, "id": 7}
        await binance.say({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": "seven"})
        assert await binance.next() == {"result": None, "id": "seven"}
        await binance.say({"method": "LIST_SUBSCRIPTIONS", "id": 9})
        assert await binance.next() == {"result": ["btcusdt@bookTicker"], "id": 9}


async def test_an_unreadable_request_is_an_error_and_not_the_end(market: SimulatedVenues) -> None:
    market["binance"].pause_market()
    async with client(market, "binance") as binance:
        for request in ("no JSON", "[1]", '{"method":"BREW","id":3}', '{"method":"SUBSCRIBE","params":[1],"id":4}'):
            await binance.say(request)
            answer = await binance.next()
            assert answer["error"]["code"] == 2
            await asyncio.sleep(0.25)  # the venue's budget
        await binance.say({"method": "SUBSCRIBE", "params": [], "id": 5})
        assert await binance.next() == {"result": None, "id": 5}


async def test_an_unknown_stream_is_acknowledged_and_silent(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        await binance.say({"method": "SUBSCRIBE", "params": ["solusdt@bookTicker", "nonsense"], "id": 1})
        assert await binance.next() == {"result": None, "id": 1}
        assert await binance.is_silent(0.5)


async def test_there_is_no_snapshot_of_the_touch(market: SimulatedVenues) -> None:
    market["binance"].pause_market()
    async with client(market, "binance") as binance:
        await subscribe(binance, "binance", BTC)
        assert await binance.next() == {"result": None, "id": 1}
        assert await binance.is_silent(0.3)


async def test_frames_have_the_venues_shape(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        await subscribe(binance, "binance", BTC)
        touch = await binance.until(lambda frame: touch_of(frame) is not None)
        depth = await binance.until(lambda frame: depth_of(frame) is not None)
        trade = await binance.until(lambda frame: bool(trade_ids(frame)))
    assert touch["stream"] == "btcusdt@bookTicker"
    assert set(touch["data"]) == {"u", "s", "b", "B", "a", "A"}
    assert touch["data"]["s"] == "BTCUSDT"
    assert all(EIGHT_DECIMALS.fullmatch(touch["data"][field]) for field in "bBaA")
    assert depth["stream"] == "btcusdt@depth20@100ms"
    assert set(depth["data"]) == {"lastUpdateId", "bids", "asks"}
    assert len(depth["data"]["bids"]) == len(depth["data"]["asks"]) == 20
    assert all(EIGHT_DECIMALS.fullmatch(text) for level in depth["data"]["asks"] for text in level)
    assert trade["stream"] == "btcusdt@trade"
    assert set(trade["data"]) == {"e", "E", "s", "t", "p", "q", "T", "m", "M"}
    assert isinstance(trade["data"]["m"], bool)
    assert EIGHT_DECIMALS.fullmatch(trade["data"]["p"])


async def test_update_ids_rise_and_books_are_sorted(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        await subscribe(binance, "binance", BTC)
        touches = await binance.take(50, lambda frame: touch_of(frame) is not None)
        depths = await binance.take(20, lambda frame: depth_of(frame) is not None)
    assert all(a["data"]["u"] < b["data"]["u"] for a, b in itertools.pairwise(touches))
    assert all(a["data"]["lastUpdateId"] < b["data"]["lastUpdateId"] for a, b in itertools.pairwise(depths))
    for frame in touches:
        bid, ask = touch_of(frame) or (Decimal(0), Decimal(0))
        assert bid < ask
    for frame in depths:
        bids, asks = depth_of(frame) or ([], [])
        assert bids == sorted(set(bids), reverse=True)
        assert asks == sorted(set(asks))
        assert bids[0] < asks[0]


async def test_a_depth_frame_agrees_with_the_touch_of_its_update(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        await subscribe(binance, "binance", BTC)
        touches: dict[Decimal, tuple[Decimal, Decimal] | None] = {}
        matched = 0
        while matched < 10:
            frame = await binance.next()
            if touch_of(frame):
                touches[frame["data"]["u"]] = touch_of(frame)
            elif (depth := depth_of(frame)) and frame["data"]["lastUpdateId"] in touches:
                assert touches[frame["data"]["lastUpdateId"]] == (depth[0][0], depth[1][0])
                matched += 1


async def test_trade_ids_rise_by_one(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        await subscribe(binance, "binance", BTC)
        frames = await binance.take(40, lambda frame: bool(trade_ids(frame)))
    ids = [number for frame in frames for number in trade_ids(frame)]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_other_depths_are_their_own_streams(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        await binance.say({"method": "SUBSCRIBE", "params": ["ethusdt@depth5@100ms"], "id": 1})
        frame = await binance.until(lambda frame: "stream" in frame)
    assert frame["stream"] == "ethusdt@depth5@100ms"
    assert len(frame["data"]["bids"]) == 5


async def test_an_unsubscribed_stream_falls_silent_and_others_go_on(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        await subscribe(binance, "binance", BTC, ETH)
        streams = [f"btcusdt@{suffix}" for suffix in ("bookTicker", "depth20@100ms", "trade")]
        await binance.say({"method": "UNSUBSCRIBE", "params": streams, "id": 2})
        await binance.until(lambda frame: frame.get("id") == 2)
        frames = await binance.take(30)
    assert {frame["stream"].partition("@")[0] for frame in frames} == {"ethusdt"}


async def test_more_than_five_messages_a_second_end_the_connection(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        for number in range(6):
            await binance.socket.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        assert await binance.closed() == 1008


async def test_pings_count_as_messages_too(market: SimulatedVenues) -> None:
    async with client(market, "binance") as binance:
        for _ in range(6):
            await binance.socket.ping()
        assert await binance.closed() == 1008
