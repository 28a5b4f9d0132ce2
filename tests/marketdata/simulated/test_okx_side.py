"""OKX's protocol, from the client's chair."""

import itertools
from decimal import Decimal

from marketdata.simulated import SimulatedVenues
from marketdata.simulated.maker import Touch
from tests.marketdata.simulated.client import BTC, ETH, Client, Frame, client, depth_of, subscribe, touch_of, trade_ids


def is_channel(frame: Frame, channel: str) -> bool:
    return "data" in frame and frame["arg"]["channel"] == channel


async def ask(okx: Client, channel: str, **more: str) -> None:
    await okx.say({"id": "a1", "op": "subscribe", "args": [{"channel": channel, **more}]})


async def test_each_argument_is_acknowledged_with_the_request_and_connection(market: SimulatedVenues) -> None:
    market["okx"].pause_market()
    async with client(market, "okx") as okx:
        await subscribe(okx, "okx", BTC)
        frames = await okx.take(5)
        acks = [frame for frame in frames if "event" in frame]
        assert [ack["arg"]["channel"] for ack in acks] == ["bbo-tbt", "books5", "trades"]
        assert all(ack["event"] == "subscribe" and ack["id"] == "1" and ack["connId"] for ack in acks)
        await okx.say({"op": "unsubscribe", "args": [{"channel": "trades", "instId": BTC}]})
        gone = await okx.next()
        assert (gone["event"], gone["arg"]["channel"]) == ("unsubscribe", "trades")
        assert "id" not in gone


async def test_touch_and_books5_begin_with_a_snapshot(market: SimulatedVenues) -> None:
    market["okx"].pause_market()
    async with client(market, "okx") as okx:
        await subscribe(okx, "okx", BTC)
        frames = await okx.take(5)
        data = [frame for frame in frames if "data" in frame]
        assert [frame["arg"]["channel"] for frame in data] == ["bbo-tbt", "books5"]
        assert await okx.is_silent(0.3)
        await ask(okx, "bbo-tbt", instId=BTC)  # asking again brings another
        again = (await okx.take(2))[1]
        assert touch_of(again) == touch_of(data[0])


async def test_text_pings_are_answered(market: SimulatedVenues) -> None:
    async with client(market, "okx") as okx:
        await okx.say("ping")
        assert await okx.text() == "pong"


async def test_an_instrument_that_is_not_carried_is_an_error_without_arg(market: SimulatedVenues) -> None:
    market["okx"].pause_market()
    async with client(market, "okx") as okx:
        await subscribe(okx, "okx", "SOL-USDT", BTC)
        errors = await okx.take(3)
        assert all(error["event"] == "error" and error["code"] == "60018" for error in errors)
        assert all("SOL-USDT" in error["msg"] and "arg" not in error and error["id"] == "1" for error in errors)
        assert (await okx.next())["arg"]["instId"] == BTC  # the others of the request are served


async def test_a_malformed_request_is_an_error_and_not_the_end(market: SimulatedVenues) -> None:
    async with client(market, "okx") as okx:
        for request in ("no JSON", "[]", '{"op":"subscribe"}', '{"op":"subscribe","args":[],"id":"' + "x" * 33 + '"}'):
            await okx.say(request)
            assert (await okx.next())["event"] == "error"
        await okx.say("ping")
        assert await okx.text() == "pong"


async def test_frames_have_the_venues_shape(market: SimulatedVenues) -> None:
    async with client(market, "okx") as okx:
        await subscribe(okx, "okx", BTC)
        touch = await okx.until(lambda frame: is_channel(frame, "bbo-tbt"))
        depth = await okx.until(lambda frame: is_channel(frame, "books5"))
        trade = await okx.until(lambda frame: is_channel(frame, "trades"))
    book = touch["data"][0]
    assert set(book) == {"asks", "bids", "ts", "seqId"}
    assert len(book["asks"]) == len(book["bids"]) == 1
    assert all(isinstance(text, str) for text in book["asks"][0])
    assert len(book["asks"][0]) == 4
    assert book["asks"][0][2] == "0"
    assert set(depth["data"][0]) == {"asks", "bids", "instId", "ts", "seqId"}
    assert len(depth["data"][0]["asks"]) == 5
    assert set(trade["data"][0]) == {"instId", "tradeId", "px", "sz", "side", "ts", "count", "source", "seqId"}
    assert trade["data"][0]["side"] in ("buy", "sell")
    assert len(trade["data"][0]["ts"]) == 13


async def test_sequences_rise_and_images_are_sorted(market: SimulatedVenues) -> None:
    async with client(market, "okx") as okx:
        await subscribe(okx, "okx", BTC)
        touches = await okx.take(40, lambda frame: is_channel(frame, "bbo-tbt"))
        images = await okx.take(20, lambda frame: is_channel(frame, "books5"))
    for frames in (touches, images):
        assert all(a["data"][0]["seqId"] < b["data"][0]["seqId"] for a, b in itertools.pairwise(frames))
    for frame in touches:
        bid, ask_price = touch_of(frame) or (Decimal(0), Decimal(0))
        assert bid < ask_price
    for frame in images:
        bids, asks = depth_of(frame) or ([], [])
        assert bids == sorted(set(bids), reverse=True)
        assert asks == sorted(set(asks))


async def test_aggregated_prints_follow_each_other_without_a_gap(market: SimulatedVenues) -> None:
    async with client(market, "okx") as okx:
        await subscribe(okx, "okx", BTC)
        frames = await okx.take(40, lambda frame: is_channel(frame, "trades"))
    ids = [number for frame in frames for number in trade_ids(frame)]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert any(int(frame["data"][0]["count"]) > 1 for frame in frames)


async def test_the_long_book_chains_its_sequences_and_never_crosses(market: SimulatedVenues) -> None:
    async with client(market, "okx") as okx:
        await ask(okx, "books", instId=BTC)
        frames = await okx.take(60, lambda frame: is_channel(frame, "books"))
    assert frames[0]["action"] == "snapshot"
    assert frames[0]["data"][0]["prevSeqId"] == -1
    assert {frame["action"] for frame in frames[1:]} == {"update"}
    bids: dict[Decimal, Decimal] = {}
    asks: dict[Decimal, Decimal] = {}
    last = None
    for frame in frames:
        book = frame["data"][0]
        assert book["checksum"] == 0
        assert last is None or book["prevSeqId"] == last
        last = book["seqId"]
        for side, levels in ((bids, book["bids"]), (asks, book["asks"])):
            for price, size, _, _ in levels:
                side[Decimal(price)] = Decimal(size)
                if not Decimal(size):
                    del side[Decimal(price)]
        assert max(bids) < min(asks)
    truth = market["okx"].makers[BTC]
    assert len(bids) == len(truth.bids.keys)


async def test_a_second_subscriber_gets_its_own_snapshot_and_the_first_none(market: SimulatedVenues) -> None:
    async with client(market, "okx") as first, client(market, "okx") as second:
        await ask(first, "books", instId=ETH)
        await first.until(lambda frame: is_channel(frame, "books"))
        await ask(second, "books", instId=ETH)
        frames = await second.take(10, lambda frame: is_channel(frame, "books"))
        assert [frame["action"] for frame in frames[:2]] == ["snapshot", "update"]
        updates = await first.take(10, lambda frame: is_channel(frame, "books"))
        assert {frame["action"] for frame in updates} == {"update"}
    for seen in (frames, updates):
        data = [frame["data"][0] for frame in seen]
        assert all(a["seqId"] == b["prevSeqId"] for a, b in itertools.pairwise(data))


async def test_the_instrument_list_names_what_is_carried(market: SimulatedVenues) -> None:
    async with client(market, "okx") as okx:
        await ask(okx, "instruments", instType="SPOT")
        listing = await okx.until(lambda frame: is_channel(frame, "instruments"))
    assert {pair["instId"] for pair in listing["data"]} == {BTC, ETH}
    assert all(pair["state"] == "live" and Decimal(pair["tickSz"]) > 0 for pair in listing["data"])


async def test_a_snapshot_for_one_brings_the_other_up_to_it_first(market: SimulatedVenues) -> None:
    async with client(market, "okx") as first, client(market, "okx") as second:
        await ask(first, "books", instId=BTC)
        await first.until(lambda frame: is_channel(frame, "books"))
        market["okx"].pause_market()
        await first.rest(0.2)
        maker = market["okx"].makers[BTC]
        maker.pin(Touch(100, 5, 200, 6))  # a change that nobody has been told of yet
        await ask(second, "books", instId=BTC)
        snapshot = await second.until(lambda frame: is_channel(frame, "books"))
        update = await first.until(lambda frame: is_channel(frame, "books"))
    assert (snapshot["action"], update["action"]) == ("snapshot", "update")
    assert snapshot["data"][0]["seqId"] == update["data"][0]["seqId"]
    assert ["1", "0.00000005"] in [level[:2] for level in update["data"][0]["bids"]]
