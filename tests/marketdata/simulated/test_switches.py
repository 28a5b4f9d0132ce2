"""Each fault that tests can ask of a venue, seen from a client's chair."""

import asyncio
import contextlib
import itertools
import json
import socket as sockets
from decimal import Decimal

import pytest
from websockets.exceptions import InvalidStatus

from marketdata.simulated import SimulatedVenue, SimulatedVenues, binance, clients, okx
from tests.marketdata.simulated.client import BTC, ETH, Client, Frame, client, depth_of, subscribe, touch_of, trade_ids
from tests.marketdata.simulated.conftest import VENUES
from tests.marketdata.simulated.test_kraken_side import Rebuilt, book_texts

every_venue = pytest.mark.parametrize("venue", VENUES)


@contextlib.asynccontextmanager
async def subscribed(market: SimulatedVenues, venue: str, *instruments: str):
    async with client(market, venue) as made:
        await subscribe(made, venue, *(instruments or (BTC,)))
        async with asyncio.timeout(5):
            await market[venue].connected()
        yield made


async def settled(market: SimulatedVenues, made: Client, venue: str) -> None:
    """Pause the market and read what was said before."""
    market[venue].pause_market()
    await made.rest(0.15)


def is_market_data(frame: Frame) -> bool:
    return touch_of(frame) is not None or depth_of(frame) is not None or bool(trade_ids(frame))


async def asked_for_life(made: Client, venue: str) -> None:
    """Ask as the venue wants to be asked, and wait for the answer."""
    if venue == "okx":
        await made.say("ping")
        while await made.text() != "pong":
            pass
    elif venue == "kraken":
        await made.say({"method": "ping", "req_id": 77})
        await made.until(lambda frame: frame.get("req_id") == 77)
    await asyncio.wait_for(await made.socket.ping(), 10)


# -- what the market shows


@every_venue
async def test_a_pinned_touch_is_told_at_once_and_stays(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        market[venue].quote(BTC, Decimal("100.02"), Decimal("1.5"), Decimal("100.1"), Decimal(2))
        pinned = (Decimal("100.02"), Decimal("100.1"))
        await made.until(lambda frame: touch_of(frame) == pinned)
        assert market[venue].touch(BTC) == (Decimal("100.02"), Decimal("1.5"), Decimal("100.1"), Decimal(2))
        later = await made.rest(0.3)
        assert all(touch_of(frame) in (None, pinned) for frame in later)
        assert not any(trade_ids(frame) for frame in later)
        market[venue].release(BTC)
        bid, ask = touch_of(await made.until(lambda frame: touch_of(frame) is not None)) or pinned
        assert bid < ask
        assert bid > 90_000


@pytest.mark.parametrize("venue", ["binance", "okx"])
async def test_a_pinned_touch_leads_the_depth(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        market[venue].quote(BTC, Decimal(100), Decimal(1), Decimal(101), Decimal(2))
        frame = await made.until(lambda frame: (depth_of(frame) or ([0], [0]))[0][0] == 100)
        bids, asks = depth_of(frame) or ([], [])
        assert (bids[0], asks[0]) == (100, 101)
        assert bids == sorted(set(bids), reverse=True)


async def test_a_pinned_touch_leads_krakens_book_with_a_right_checksum(market: SimulatedVenues) -> None:
    async with subscribed(market, "kraken") as made:
        rebuilt = Rebuilt(10)
        market["kraken"].quote(BTC, Decimal(100), Decimal(1), Decimal(101), Decimal(2))
        market["kraken"].quote(BTC, Decimal("99.5"), Decimal(1), Decimal(101), Decimal(3))
        while not rebuilt.asks or min(rebuilt.asks) != 101 or max(rebuilt.bids) != Decimal("99.5"):
            rebuilt.apply((await book_texts(made, 1))[0])
        assert rebuilt.asks[Decimal(101)][1] == "3.00000000"


async def test_a_price_finer_than_the_wire_and_a_size_of_nothing_are_refused(market: SimulatedVenues) -> None:
    with pytest.raises(ValueError, match="decimals"):
        market["kraken"].quote(BTC, Decimal("100.00001"), Decimal(1), Decimal(101), Decimal(1))
    with pytest.raises(ValueError, match="positive"):
        market["kraken"].quote(BTC, Decimal(100), Decimal(0), Decimal(101), Decimal(1))
    with pytest.raises(ValueError, match="side"):
        market["kraken"].trade(BTC, Decimal(100), Decimal(1), "up")  # type: ignore[arg-type]


@every_venue
async def test_one_trade_is_printed_on_request(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        await settled(market, made, venue)
        told = market[venue].trade(BTC, Decimal("123.45"), Decimal("0.5"), "sell")
        frame = await made.until(lambda frame: bool(trade_ids(frame)))
        assert trade_ids(frame) == [told]
        text = json.dumps(frame, default=str)
        assert "123.45" in text
        assert "sell" in text or frame["data"].get("m") is True
        sent = market[venue].trades[-1]
        assert (sent.instrument, sent.last_id, sent.price, sent.size, sent.side) == (
            BTC,
            told,
            Decimal("123.45"),
            Decimal("0.5"),
            "sell",
        )
        assert market[venue].trade(BTC, Decimal(1), Decimal(1), "buy") == told + 1


@every_venue
async def test_a_crossed_venue_is_crossed_in_touch_and_depth_until_released(
    market: SimulatedVenues, venue: str
) -> None:
    async with subscribed(market, venue) as made:
        market[venue].cross(BTC)

        def crossed(frame: Frame) -> bool:
            bid, ask = touch_of(frame) or (Decimal(0), Decimal(1))
            return bid >= ask

        await made.until(crossed)
        if venue != "kraken":
            bids, asks = depth_of(await made.until(lambda frame: depth_of(frame) is not None)) or ([], [])
            assert bids[0] >= asks[0]
        market[venue].release(BTC)
        await made.until(lambda frame: touch_of(frame) is not None and not crossed(frame))


@every_venue
async def test_a_paused_market_is_quiet_and_goes_on(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        await settled(market, made, venue)
        await asked_for_life(made, venue)
        market[venue].resume_market()
        await made.until(is_market_data)


async def test_a_higher_rate_brings_more_frames() -> None:
    async with SimulatedVenues((BTC,), venues=("okx",), rate=1.0) as market, subscribed(market, "okx"):

        async def touches(seconds: float) -> int:
            before = market["okx"].sent["touch"]
            await asyncio.sleep(seconds)  # a rate is frames in a time
            return market["okx"].sent["touch"] - before

        usual = await touches(1)
        market["okx"].set_rate(10)
        assert await touches(1) > 2 * usual


# -- silence


@every_venue
async def test_a_silent_venue_still_answers_pings(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        market[venue].stall(answering=True)
        await made.rest(0.15)
        await asked_for_life(made, venue)
        assert await made.is_silent(1.2)  # no heartbeat either
        market[venue].resume()
        await made.until(is_market_data)


@every_venue
async def test_a_half_open_venue_answers_nothing_at_all(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        market[venue].stall(answering=False)
        await made.rest(0.15)
        pong = await made.socket.ping()
        if venue == "okx":
            await made.say("ping")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.shield(pong)
        with pytest.raises(TimeoutError):  # nor does it complete a handshake
            async with asyncio.timeout(0.5), client(market, venue):
                pass
        market[venue].resume()
        async with asyncio.timeout(10):
            await pong
        await made.until(is_market_data)


@every_venue
async def test_a_request_during_silence_is_answered_after_it(market: SimulatedVenues, venue: str) -> None:
    market[venue].stall()
    async with client(market, venue) as made:
        await subscribe(made, venue, BTC)
        assert await made.is_silent(0.4)
        market[venue].resume()
        await made.until(is_market_data)


async def test_krakens_book_is_right_after_a_stall(market: SimulatedVenues) -> None:
    async with subscribed(market, "kraken") as made:
        rebuilt = Rebuilt(10)
        for text in await book_texts(made, 10):
            rebuilt.apply(text)
        market["kraken"].stall()
        await asyncio.sleep(0.3)  # the market moves meanwhile
        market["kraken"].resume()
        for text in await book_texts(made, 20):
            rebuilt.apply(text)


# -- broken connections


@every_venue
async def test_dropped_connections_end_with_going_away(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        assert market[venue].connections == 1
        market[venue].drop()
        assert await made.closed() == 1001
        async with asyncio.timeout(10):
            await market[venue].until(lambda: market[venue].connections == 0)
        assert not market[venue].listeners


@every_venue
async def test_aborted_connections_end_without_a_word(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        market[venue].abort()
        assert await made.closed() is None
        assert not market[venue].listeners


@pytest.mark.parametrize("status", [503, 403, 451, 429])
async def test_handshakes_are_refused_with_the_status_asked_for(market: SimulatedVenues, status: int) -> None:
    market["okx"].refuse(True, status=status)
    with pytest.raises(InvalidStatus) as refused:
        async with client(market, "okx"):
            pass
    assert refused.value.response.status_code == status
    assert market["okx"].handshakes_refused == 1
    market["okx"].refuse(False)
    async with client(market, "okx") as okx:
        await asked_for_life(okx, "okx")


async def test_an_unknown_path_is_not_found(market: SimulatedVenues) -> None:
    from websockets.asyncio.client import connect

    with pytest.raises(InvalidStatus) as refused:
        async with connect(market.urls["okx"] + "/other", proxy=None):
            pass
    assert refused.value.response.status_code == 404


@every_venue
async def test_a_planned_close_is_announced_and_only_old_connections_close(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as old:
        market[venue].announce_close(after_s=0.5)

        def announced(frame: Frame) -> bool:
            return (
                frame.get("stream") == "!serverShutdown"
                or frame.get("code") == "64008"
                or ("data" in frame and "upcoming_maintenance" in str(frame["data"]))
            )

        await old.until(announced)
        async with subscribed(market, venue) as new:
            assert await old.closed() == 1001
            await new.until(is_market_data)
            assert market[venue].connections == 1


async def test_a_client_that_does_not_read_is_cut_off(market: SimulatedVenues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "WRITE_BUFFER_MAX", 64 * 1024)
    async with subscribed(market, "okx") as good, client(market, "okx") as slow:
        await subscribe(slow, "okx", BTC)
        await slow.next()
        slow.socket.transport.pause_reading()
        slow.socket.transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        async with asyncio.timeout(20):
            while market["okx"].connections == 2:
                market["okx"].garbage(10)
                await asyncio.sleep(0)
        assert market["okx"].connections == 1
        await good.until(is_market_data)


async def test_a_venue_comes_back_on_its_address(market: SimulatedVenues) -> None:
    urls = market.urls
    async with subscribed(market, "binance") as made:
        await market.stop()
        assert await made.closed() == 1001
    with pytest.raises(ConnectionRefusedError):
        async with client(market, "binance"):
            pass
    await market.start()
    assert market.urls == urls
    async with subscribed(market, "binance") as made:
        await made.until(is_market_data)


async def test_binance_pings_and_keeps_who_answers(market: SimulatedVenues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binance, "PING_INTERVAL_S", 0.4)
    monkeypatch.setattr(binance, "PONG_DEADLINE_S", 3.0)
    async with subscribed(market, "binance") as deaf, client(market, "binance") as good:
        deaf.socket.transport.pause_reading()  # it sees no ping, so it sends no pong
        async with asyncio.timeout(15):
            await market["binance"].until(lambda: market["binance"].connections == 1)
        await good.say({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        assert await good.next() == {"result": [], "id": 1}
        deaf.socket.transport.resume_reading()
        assert await deaf.closed() == 1008


async def test_okx_cuts_a_connection_that_is_sent_nothing(
    market: SimulatedVenues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(okx, "IDLE_S", 2.0)
    async with client(market, "okx") as idle, subscribed(market, "okx") as busy:
        assert await idle.closed() == 4004
        await busy.until(is_market_data)


# -- bad data


@every_venue
async def test_garbage_is_unreadable_in_many_ways_and_the_data_goes_on(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        market[venue].garbage(11)
        kinds = set()
        while len(kinds) < 4:
            frame = await made.text()
            if isinstance(frame, bytes):
                kinds.add("binary")
            elif len(frame) > 500_000:
                kinds.add("huge")
            elif frame == "not JSON at all":
                kinds.add("not JSON")
            elif "NaN" in frame:
                kinds.add("NaN")
        await made.until(is_market_data)
        assert market[venue].sent["garbage"] == 11


async def test_one_checksum_is_wrong_and_the_next_right(market: SimulatedVenues) -> None:
    async with subscribed(market, "kraken") as made:
        rebuilt = Rebuilt(10)
        for text in await book_texts(made, 5):
            rebuilt.apply(text)
        market["kraken"].corrupt_checksum()
        wrong = 0
        for text in await book_texts(made, 30):
            try:
                rebuilt.apply(text)
            except AssertionError:
                wrong += 1
        assert wrong == 1
    for venue in ("binance", "okx"):
        with pytest.raises(ValueError, match="checksum"):
            market[venue].corrupt_checksum()


@every_venue
async def test_skipped_trades_are_a_jump_of_ids(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        await settled(market, made, venue)
        first = market[venue].trade(BTC, Decimal(100), Decimal(1), "buy")
        market[venue].skip_trades(7)
        second = market[venue].trade(BTC, Decimal(100), Decimal(1), "buy")
        assert second == first + 8
        frames = await made.take(2, lambda frame: bool(trade_ids(frame)))
        assert [number for frame in frames for number in trade_ids(frame)] == [first, second]


@every_venue
async def test_repeated_trades_are_the_same_frames_again(market: SimulatedVenues, venue: str) -> None:
    async with subscribed(market, venue) as made:
        await settled(market, made, venue)
        for number in range(3):
            market[venue].trade(BTC, Decimal(100 + number), Decimal(1), "buy")
        market[venue].repeat_trades(2)
        frames = await made.take(5, lambda frame: bool(trade_ids(frame)))
        assert frames[1:3] == frames[3:5]


async def test_the_engines_state_is_told_to_all_and_nothing_trades_meanwhile(market: SimulatedVenues) -> None:
    async with subscribed(market, "kraken") as made:
        market["kraken"].set_status("maintenance")
        status = await made.until(
            lambda frame: frame.get("channel") == "status" and frame["data"][0]["system"] != "online"
        )
        assert status["data"][0]["system"] == "maintenance"
        frames = await made.take(40)
        assert not any(trade_ids(frame) for frame in frames)
        async with client(market, "kraken") as late:
            assert (await late.next())["data"][0]["system"] == "maintenance"
        market["kraken"].set_status("online")
        await made.until(lambda frame: bool(trade_ids(frame)))
    with pytest.raises(ValueError, match="state"):
        market["kraken"].set_status("on holiday")
    for venue in ("binance", "okx"):
        with pytest.raises(ValueError, match="status"):
            market[venue].set_status("maintenance")


# -- the object itself


async def test_connected_waits_for_all_three_channels(market: SimulatedVenues) -> None:
    binance = market["binance"]
    async with client(market, "binance") as made:
        await made.say({"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker", "btcusdt@trade"], "id": 1})
        waiting = asyncio.create_task(binance.connected())
        await made.until(lambda frame: frame.get("id") == 1)
        assert not waiting.done()
        await made.say({"method": "SUBSCRIBE", "params": ["btcusdt@depth20@100ms"], "id": 2})
        async with asyncio.timeout(10):
            await waiting


async def test_all_sockets_hear_the_same(market: SimulatedVenues) -> None:
    async with subscribed(market, "okx", BTC) as first, subscribed(market, "okx", BTC) as second:
        heard = [await made.take(10, lambda frame: bool(trade_ids(frame))) for made in (first, second)]
        ids = [[number for frame in frames for number in trade_ids(frame)] for frames in heard]
        shared = set(ids[0]) & set(ids[1])
        assert shared
        assert all(a < b for one in ids for a, b in itertools.pairwise(one))
        assert market["okx"].connections == 2


async def test_the_last_touch_and_trades_are_exposed(market: SimulatedVenues) -> None:
    async with subscribed(market, "binance") as made:
        await settled(market, made, "binance")
        market["binance"].quote(ETH, Decimal("3000.1"), Decimal(4), Decimal("3000.2"), Decimal(5))
        assert market["binance"].touch(ETH) == (Decimal("3000.1"), Decimal(4), Decimal("3000.2"), Decimal(5))
    assert isinstance(market["binance"], SimulatedVenue)
    with pytest.raises(KeyError):
        market["bitmex"]


async def test_an_unknown_venue_is_refused() -> None:
    with pytest.raises(ValueError, match="bitmex"):
        SimulatedVenues((BTC,), venues=("bitmex",))


async def test_addresses_are_known_once_started() -> None:
    with pytest.raises(RuntimeError):
        _ = SimulatedVenues((BTC,)).urls
