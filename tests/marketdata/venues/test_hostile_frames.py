"""Whatever a venue sends, adapters raise `Unreadable` at most and a session nothing at all."""

import itertools
import json
import random
from collections.abc import Callable, Iterable

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct, field, structs

from core.events import Body, BookDelta, BookImage, Channel, Quote, Trade
from marketdata.venue import Data, Reader, Unreadable, UsualReader, Venue
from marketdata.venues import VENUES
from marketdata.venues.binance import BINANCE
from marketdata.wire import DECODING, Id, positive, reads
from tests.conftest import Frames
from tests.marketdata.replay import Replay, kraken_instruments

INSTRUMENT = "BTC-USDT"
MS = 1672515782134

SEEDS = {
    "binance": [
        '{"stream":"btcusdt@bookTicker","data":{"u":4,"s":"BTCUSDT","b":"60000.01","B":"1.25","a":"60000.02","A":"0.80"}}',
        '{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":160,"bids":[["60000.01","1.25"]],"asks":[["60000.02","1"]]}}',
        '{"stream":"btcusdt@trade","data":{"e":"trade","t":12345,"p":"60000.01","q":"0.010","T":1672515782134,"m":true}}',
        '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","U":157,"u":160,"b":[["60000.01","0"]],"a":[]}}',
        '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
        '{"result":null,"id":1}',
        '{"error":{"code":2,"msg":"Invalid request: btcusdt@trade"},"id":1}',
    ],
    "okx": [
        '{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[["60000.2","0.8","0","3"]],'
        '"bids":[["60000.1","1.2","0","5"]],"ts":"1670324386802","seqId":363996337}]}',
        '{"arg":{"channel":"books5","instId":"BTC-USDT"},"data":[{"asks":[],"bids":[["60000.1","1.2","0","5"]],'
        '"instId":"BTC-USDT","ts":"1670324386802","seqId":363996337}]}',
        '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"130639474",'
        '"px":"60000.1","sz":"0.12","side":"buy","ts":"1630048897897","count":"3"}]}',
        '{"id":"1","event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":"a4d3ae55"}',
        '{"id":"1","event":"error","code":"60018","msg":"channel:trades,instId:BTC-USDT doesn\'t exist"}',
        '{"event":"notice","code":"64008","msg":"Please reconnect.","connId":"a4d3ae55"}',
        "pong",
    ],
    "kraken": [
        '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USDT","bid":60000.0,"bid_qty":0.50000000,'
        '"ask":60000.1,"ask_qty":0.20000000,"timestamp":"2026-09-10T10:00:00.123456Z"}]}',
        '{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USDT","bids":[{"price":60000.0,"qty":0.5}],'
        '"asks":[{"price":60000.1,"qty":0.2}],"checksum":3310070434,"timestamp":"2026-09-10T10:00:00Z"}]}',
        '{"channel":"book","type":"update","data":[{"symbol":"BTC/USDT","bids":[{"price":60000.0,"qty":0}],"asks":[],'
        '"checksum":2114181697}]}',
        '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USDT","side":"sell","price":60000.0,'
        '"qty":0.00044780,"trade_id":109118758,"timestamp":"2026-09-10T10:00:00.123456Z"},'
        '{"symbol":"ETH/USDT","side":"buy","price":3000.0,"qty":1,"trade_id":5,"timestamp":"2026-09-10T10:00:00Z"}]}',
        kraken_instruments(BTC_USDT=(1, 8)),
        '{"channel":"status","type":"update","data":[{"system":"online","connection_id":13834774380200032777}]}',
        '{"channel":"heartbeat"}',
        '{"method":"pong","req_id":3}',
        '{"error":"Currency pair not supported","method":"subscribe","success":false,"symbol":"BTC/USDT","req_id":1}',
    ],
}

SCRAPS = (
    *('"', "{", "}", "[", "]", ",", ":", "null", "true", "NaN", "-Infinity", "1e999999999", "-0", "0", '"0"', "1e-400"),
    *("9" * 400, '"\\ud800"', "\\u0000", "\ud800", "é", "١", '"1_0"', '""', "{}", "[]", '"snapshot"', "[" * 5000, " "),
)

venues = pytest.mark.parametrize("venue", VENUES.values(), ids=VENUES)


@st.composite
def mutated(draw: st.DrawFn, seeds: list[str]) -> str:
    """Take a good frame and cut, repeat, overwrite or insert a few pieces."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        piece = draw(st.one_of(st.sampled_from(SCRAPS), st.text(max_size=4), st.just(text[start:end] * 2)))
        text = text[:start] + piece + text[end:]
    return text


def check(venue: Venue, frame: str | bytes) -> None:
    """Read and parse a frame, and let a session that already knows the market receive it."""
    try:
        for message in venue.read(frame):
            if isinstance(message, Data):
                for body in venue.parse[message.topic.channel](message.payload):
                    assert isinstance(body, Quote | Trade | BookImage | BookDelta)
    except Unreadable:
        pass
    run = Replay(venue, [INSTRUMENT], now_ns=MS * 10**6)
    for seed in (*SEEDS[venue.name], frame, *SEEDS[venue.name]):
        run.push(seed)


@venues
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutated_frames_never_raise_anything_but_unreadable(venue: Venue, data: st.DataObject) -> None:
    check(venue, data.draw(mutated(SEEDS[venue.name])))


@venues
@settings(max_examples=200, deadline=None)
@given(frame=st.one_of(st.binary(max_size=200), st.text(max_size=200)))
@example(frame=b"\xff\xfe")
@example(frame="\ud800")
@example(frame="[" * 100_000)
@example(frame='{"data":' * 50_000)
@example(frame=b'{"stream":"btcusdt@trade","data":' + b"[" * 100_000)
@example(frame="9" * 100_000)
@example(frame="")
def test_arbitrary_bytes_and_texts_never_raise_anything_but_unreadable(venue: Venue, frame: str | bytes) -> None:
    check(venue, frame)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@venues
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_value_in_any_place_never_raises_anything_but_unreadable(venue: Venue, data: st.DataObject) -> None:
    frames = [seed for seed in SEEDS[venue.name] if seed.startswith("{")]
    frame = json.loads(data.draw(st.sampled_from(frames)))
    path = data.draw(st.sampled_from(list(places(frame))))
    *way, last = path
    inner = frame
    for step in way:
        inner = inner[step]
    inner[last] = data.draw(JSON)

    check(venue, json.dumps(frame, separators=(",", ":")))


def places(value: object, path: tuple[str | int, ...] = ()) -> "itertools.chain[tuple[str | int, ...]]":
    """Return the path of every value inside a frame."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return itertools.chain.from_iterable(
        itertools.chain([(*path, key)], places(inner, (*path, key))) for key, inner in items
    )


# -- readers of what frames usually are


class Ticker(Struct):
    update_id: Id = field(name="u")
    bid: str = field(name="b")
    bid_size: str = field(name="B")
    ask: str = field(name="a")
    ask_size: str = field(name="A")


class TickerFrame(Struct):
    data: Ticker


@reads
def plainly(frame: bytes) -> list[Quote]:
    """Read each number of a touch of Binance, whatever came before."""
    raw = msgspec.json.decode(frame, type=TickerFrame).data
    bid, ask, bid_size, ask_size = map(positive, (raw.bid, raw.ask, raw.bid_size, raw.ask_size))
    return [Quote(bid, bid_size, ask, ask_size, raw.update_id)]


def told(read: Callable[[bytes], Iterable[Body]], frame: bytes) -> str:
    """Return what a reader makes of a frame, to the digit, or why it refuses it."""
    try:
        return repr(list(read(frame)))
    except Unreadable as error:
        return str(error)


def check_usual(usual: UsualReader, parse: Reader, frame: bytes) -> None:
    """A usual reader tells what the other does, and leaves it what cannot be read and what is crossed, nothing else."""
    try:
        body = usual(frame)
    except DECODING:
        try:
            (left,) = parse(frame)
        except Unreadable:
            return
        assert isinstance(left, Quote)
        assert left.crossed
    else:
        assert told(parse, frame) == repr([body])
        assert not (isinstance(body, Quote) and body.crossed)


NUMBERS = ("60000.01", "60000.010", "6000001e-2", "60000.02", "1.25", "0.80", "0.8", "0", "-1", "NaN", "Infinity", "")


@st.composite
def touches(draw: st.DrawFn) -> str:
    bid, bid_size, ask, ask_size = (draw(st.sampled_from(NUMBERS)) for _ in range(4))
    data = {"u": draw(st.integers(0, 9)), "s": "BTCUSDT", "b": bid, "B": bid_size, "a": ask, "A": ask_size}
    return json.dumps({"stream": "btcusdt@bookTicker", "data": data}, separators=(",", ":"))


@st.composite
def trades(draw: st.DrawFn) -> str:
    data = {"t": draw(st.integers(-1, 9)), "p": draw(st.sampled_from(NUMBERS)), "q": draw(st.sampled_from(NUMBERS))}
    data |= {"T": draw(st.sampled_from((MS, MS + 1, MS * 1000, MS * 10**6, 0))), "m": draw(st.booleans())}
    return json.dumps({"stream": "btcusdt@trade", "data": data}, separators=(",", ":"))


FRAMES = st.lists(st.one_of(touches(), trades(), mutated(SEEDS["binance"][:3]), st.sampled_from(SEEDS["binance"])))


@settings(max_examples=400, deadline=None)
@given(frames=FRAMES)
def test_usual_frames_are_read_the_same_whatever_was_read_before(frames: list[str]) -> None:
    usual = {channel: make() for channel, make in BINANCE.usual.items()}
    for frame in frames:
        encoded = frame.encode(errors="surrogatepass")
        for channel, reader in usual.items():
            check_usual(reader, BINANCE.parse[channel], encoded)
        assert told(BINANCE.parse[Channel.TOUCH], encoded) == told(plainly, encoded)


@settings(max_examples=400, deadline=None)
@given(frames=FRAMES)
def test_a_session_tells_the_same_without_usual_readers(frames: list[str]) -> None:
    one, other = (
        Replay(venue, [INSTRUMENT], now_ns=MS * 10**6) for venue in (BINANCE, structs.replace(BINANCE, usual={}))
    )
    for frame in (*SEEDS["binance"][:3], *frames):
        assert len(one.push(frame)) == len(other.push(frame))

    assert repr(one.sink) == repr(other.sink)
    assert one.sent() == other.sent()
    assert (one.session.counters, one.market.counters) == (other.session.counters, other.market.counters)


@pytest.mark.parametrize("stem", ["binance-spot-20240808-btcusdt", "binance-spot-20210405-10sym"])
def test_recorded_touches_are_read_the_same_also_with_damaged_ones_between(captures: Frames, stem: str) -> None:
    chance = random.Random(1)
    usual, parse = BINANCE.usual[Channel.TOUCH](), BINANCE.parse[Channel.TOUCH]
    frames = [record["raw"].encode() for record in captures(stem) if "@bookTicker" in record["raw"]]
    for frame in frames:
        if chance.random() < 0.2:
            at = chance.randrange(len(frame))
            damaged = frame[:at] + bytes([chance.randrange(256)]) + frame[at + chance.randrange(2) :]
            assert told(parse, damaged) == told(plainly, damaged)
            check_usual(usual, parse, damaged)
        assert [usual(frame)] == plainly(frame)

    assert len(frames) > 5000


@venues
def test_counters_stay_few_whatever_is_sent(venue: Venue) -> None:
    """What is counted is named by us, never by the venue: otherwise memory would grow with every new name."""
    chance = random.Random(1)
    run = Replay(venue, [INSTRUMENT])
    for number in range(2000):
        name = f"made-up-{number}"
        for frame in (
            {"stream": f"{name}@{name}", "data": {}},
            {"stream": f"{name}@trade", "data": {}},
            {"arg": {"channel": name, "instId": name}, "data": []},
            {"arg": {"channel": "trades", "instId": name}, "data": []},
            {"event": name},
            {"channel": name, "type": name, "data": [{"symbol": name}]},
            {"channel": "ticker", "type": name, "data": [{"symbol": name}]},
            {"method": name, "success": chance.random() < 0.5, "symbol": name, "error": name},
        ):
            run.push(json.dumps(frame, separators=(",", ":")))

    assert len(run.session.counters) < 10
    assert run.market.disabled == {}
