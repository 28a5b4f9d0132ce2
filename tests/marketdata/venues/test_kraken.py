"""Kraken v2: recorded books under their checksums, and frames of every kind that may arrive."""

import json
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from core.events import BookDelta, Channel, Quote, Side, Trade
from marketdata.venue import (
    Accepted,
    Alive,
    Data,
    EngineStatus,
    Ignored,
    Listed,
    Listing,
    Rejected,
    Topic,
    Unreadable,
    Venue,
)
from marketdata.venues.kraken import KRAKEN
from tests.conftest import Frames
from tests.marketdata.replay import Replay, exact, kraken_instruments, replay

D = Decimal

# Each session's depth, pair, and the decimals of price and size that its digits show.
SESSIONS = {
    "kraken-v2-20230730-btcusd-d10": (10, "BTC-USD", {"BTC_USD": (1, 8)}),
    "kraken-v2-20260816-minagbp-d25": (25, "MINA-GBP", {"MINA_GBP": (4, 8)}),
}


def of_depth(depth: int) -> Venue:
    return structs.replace(KRAKEN, book_depth=depth)


def decimals_shown(record: dict[str, Any]) -> set[tuple[int, int]]:
    """Return how many decimals the prices and sizes of a book frame are written with."""
    frame = json.loads(record["raw"], parse_float=str, parse_int=str)
    if frame.get("channel") != "book":
        return set()
    levels = [level for side in ("bids", "asks") for level in frame["data"][0][side]]
    return {(len(level["price"].partition(".")[2]), len(level["qty"].partition(".")[2])) for level in levels}


@pytest.mark.parametrize("stem", SESSIONS)
def test_the_precisions_of_these_tests_are_those_of_the_recorded_digits(captures: Frames, stem: str) -> None:
    shown = set().union(*(decimals_shown(record) for record in captures(stem)))

    assert shown == set(SESSIONS[stem][2].values())


@pytest.mark.parametrize("stem", SESSIONS)
def test_every_recorded_book_passes_its_checksum(captures: Frames, stem: str) -> None:
    depth, instrument, precisions = SESSIONS[stem]
    records = list(captures(stem))
    books = [exact(r["raw"]) for r in records if '"channel":"book"' in r["raw"] and '"data"' in r["raw"]]

    run = replay(of_depth(depth), records, [instrument], kraken_instruments(**precisions))

    assert dict(run.session.counters) == {}
    assert not any("unsubscribe" in frame for frame in run.sent())
    events = Replay(of_depth(depth), [instrument])
    events.push(kraken_instruments(**precisions))
    images = [e.body for record in records for e in events.push(record["raw"]) if hasattr(e, "body")]
    assert len(images) == len(books) > 25
    for image in images:
        assert 0 < len(image.bids) <= min(depth, 20)
        assert image.bids[0][0] < image.asks[0][0]


@pytest.mark.parametrize("stem", SESSIONS)
def test_one_changed_digit_fails_the_checksum_and_asks_for_a_new_snapshot(captures: Frames, stem: str) -> None:
    depth, instrument, precisions = SESSIONS[stem]
    records = list(captures(stem))
    snapshot = next(i for i, record in enumerate(records) if '"type":"snapshot"' in record["raw"])
    failed = 0
    for place in range(10):
        frame = json.loads(records[snapshot]["raw"], parse_float=Number, parse_int=Number)
        for side in ("bids", "asks"):
            level = frame["data"][0][side][place]
            digits = level["qty"]
            level["qty"] = Number(digits[:-1] + str((int(digits[-1]) + 1) % 10))
            run = Replay(of_depth(depth), [instrument])
            run.push(kraken_instruments(**precisions))
            run.sent()

            run.push(write(frame))

            assert run.session.counters["BadChecksum"] == 1
            assert [json.loads(sent)["method"] for sent in run.sent()] == ["unsubscribe", "subscribe"]
            level["qty"] = digits
            failed += 1
    assert failed == 20


class Number(str):
    """A JSON number with its digits as they were written."""


def write(value: Any) -> str:
    """Write JSON without touching the digits of numbers."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value)


def data_of(captures: Frames, start: str) -> Data:
    raw = next(record["raw"] for record in captures("examples-kraken") if record["raw"].startswith(start))
    (data,) = KRAKEN.read(raw)
    assert isinstance(data, Data)
    return data


def test_single_recorded_frames_parse(captures: Frames) -> None:
    ticker = data_of(captures, '{"channel":"ticker","type":"update"')
    assert ticker.topic == Topic(Channel.TOUCH, "BTC/USD")
    assert list(KRAKEN.parse[Channel.TOUCH](ticker.payload)) == [
        Quote(D("65843.7"), D("12.31628629"), D("65843.8"), D("0.31232000"))
    ]

    update = data_of(captures, '{"channel":"trade","type":"update"')
    first = next(iter(KRAKEN.parse[Channel.TRADES](update.payload)))
    time_ns = 1716813791798009000
    assert first == Trade(
        "70635299", 70635299, 70635299, D("68500.0"), D("0.01044926"), Side.BUY, time_ns, snapshot=False
    )

    history = data_of(captures, '{"channel":"trade","type":"snapshot"')
    assert all(isinstance(t, Trade) and t.snapshot for t in KRAKEN.parse[Channel.TRADES](history.payload))


def test_a_recorded_instrument_list_is_complete(captures: Frames) -> None:
    raw = next(r["raw"] for r in captures("examples-kraken") if r["raw"].startswith('{"channel":"instrument"'))

    (listing,) = KRAKEN.read(raw)

    expected = [
        Listed(pair["symbol"], pair["price_precision"], pair["qty_precision"], online=pair["status"] == "online")
        for pair in json.loads(raw)["data"]["pairs"]
    ]
    assert listing == Listing(tuple(expected), complete=True)
    assert expected


def test_every_recorded_single_frame_is_read_or_refused(captures: Frames) -> None:
    for record in captures("examples-kraken"):
        second_version = '"channel":' in record["raw"] or '"method":' in record["raw"]
        try:
            for message in KRAKEN.read(record["raw"]):
                if isinstance(message, Data):
                    assert list(KRAKEN.parse[message.topic.channel](message.payload))
        except Unreadable:
            assert not second_version
        else:
            assert second_version


# -- frames of our own, in the venue's format


def frame(channel: str, kind: str, *items: str) -> str:
    """Write a frame whose elements are given as text, so that numbers keep their digits."""
    return f'{{"channel":"{channel}","type":"{kind}","data":[{",".join(items)}]}}'


def ticker(**change: str) -> str:
    fields = {"symbol": '"BTC/USDT"', "bid": "60000.0", "bid_qty": "0.50000000", "ask": "60000.1"} | {
        "ask_qty": "0.20000000",
        "last": "60000.0",
        "timestamp": '"2026-09-10T10:00:00.123456Z"',
    }
    return "{" + ",".join(f'"{key}":{value}' for key, value in (fields | change).items()) + "}"


def trade(**change: str) -> str:
    fields = {"symbol": '"BTC/USDT"', "side": '"sell"', "price": "60000.0", "qty": "0.00044780"} | {
        "ord_type": '"market"',
        "trade_id": "109118758",
        "timestamp": '"2026-09-10T10:00:00.123456Z"',
    }
    return "{" + ",".join(f'"{key}":{value}' for key, value in (fields | change).items()) + "}"


def book(**change: str) -> str:
    fields = {"symbol": '"BTC/USDT"', "bids": '[{"price":60000.0,"qty":0.50000000}]'} | {
        "asks": '[{"price":60000.1,"qty":0.00000000}]',
        "checksum": "3310070434",
        "timestamp": '"2026-09-10T10:00:00.123456Z"',
    }
    return "{" + ",".join(f'"{key}":{value}' for key, value in (fields | change).items()) + "}"


TEN_O_CLOCK_NS = 1789034400_123456000


def parse(raw: str) -> list[object]:
    bodies: list[object] = []
    for message in KRAKEN.read(raw):
        assert isinstance(message, Data)
        bodies.extend(KRAKEN.parse[message.topic.channel](message.payload))
    return bodies


def test_json_numbers_keep_every_digit() -> None:
    (quote,) = parse(frame("ticker", "update", ticker(bid="60000.123456789012345678", ask="60001")))

    assert isinstance(quote, Quote)
    assert (str(quote.bid), str(quote.bid_size)) == ("60000.123456789012345678", "0.50000000")
    assert quote.ask == D(60001)
    assert quote.venue_ns == TEN_O_CLOCK_NS


def test_a_book_frame_is_a_delta_whose_zero_sizes_delete() -> None:
    assert parse(frame("book", "update", book())) == [
        BookDelta(((D("60000.0"), D("0.5")),), ((D("60000.1"), D(0)),), 3310070434, venue_ns=TEN_O_CLOCK_NS)
    ]
    (first,) = parse(frame("book", "snapshot", book()))
    assert isinstance(first, BookDelta)
    assert first.snapshot


@pytest.mark.parametrize("kind", ["update", "snapshot"])
def test_a_trades_side_is_the_takers_and_history_is_marked(kind: str) -> None:
    assert parse(frame("trade", kind, trade())) == [
        Trade(
            *("109118758", 109118758, 109118758, D("60000.0"), D("0.00044780"), Side.SELL, TEN_O_CLOCK_NS),
            snapshot=kind == "snapshot",
        )
    ]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-08-16T23:37:05.723653Z", 1786923425_723653000),
        ("2026-08-16T23:37:05.318303322Z", 1786923425_318303322),
        ("2026-08-16T23:37:05Z", 1786923425_000000000),
        ("1970-01-01T00:00:00.5Z", 500000000),
    ],
)
def test_times_are_exact_to_the_nanosecond(text: str, ns: int) -> None:
    (print_,) = parse(frame("trade", "update", trade(timestamp=f'"{text}"')))

    assert isinstance(print_, Trade)
    assert print_.venue_ns == ns


def test_a_frame_of_several_symbols_is_split_by_symbol() -> None:
    raw = frame(
        "trade", "update", trade(), trade(symbol='"ETH/USDT"', price="3000.10", trade_id="7"), trade(trade_id="9")
    )

    messages = list(KRAKEN.read(raw))

    topics = [message.topic.symbol for message in messages if isinstance(message, Data)]
    assert topics == ["BTC/USDT", "ETH/USDT", "BTC/USDT"]
    assert [str(t.price) for t in parse(raw) if isinstance(t, Trade)] == ["60000.0", "3000.10", "60000.0"]


BAD_NUMBERS = ("0", "-1", '"NaN"', '"Infinity"', "1e40", "1e-40", "1e999999999999", "null", "[]", "0." + "1" * 60)


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_numbers_that_are_not_positive_and_finite_are_refused(number: str) -> None:
    with pytest.raises(Unreadable):
        parse(frame("ticker", "update", ticker(bid=number)))
    with pytest.raises(Unreadable):
        parse(frame("trade", "update", trade(qty=number)))
    with pytest.raises(Unreadable):
        parse(frame("book", "update", book(bids=f'[{{"price":{number},"qty":1}}]')))
    if number != "0":
        with pytest.raises(Unreadable):
            parse(frame("book", "update", book(bids=f'[{{"price":1,"qty":{number}}}]')))


@pytest.mark.parametrize(
    "raw",
    [
        frame("trade", "rumour", trade()),
        frame("trade", "update", trade(side='"both"')),
        frame("trade", "update", trade(trade_id="-1")),
        frame("trade", "update", trade(timestamp='"yesterday"')),
        frame("trade", "update", trade(timestamp='"2026-13-45T00:00:00Z"')),
        frame("trade", "update", trade(timestamp='"2026-09-10T10:00:00+02:00"')),
        frame("book", "update", book(checksum="-1")),
        frame("book", "update", book(checksum="4294967296")),
        frame("book", "update", book(checksum="null")),
        frame("book", "update"),
        frame("ticker", "update", ticker(symbol='""')),
        '{"channel":"ticker","type":"update","data":{"symbol":"BTC/USDT"}}',
        '{"channel":"ticker"}',
        '{"channel":"instrument","type":"snapshot","data":[]}',
        '{"channel":"status","type":"update","data":[]}',
        '{"channel":"status","type":"update","data":[{"symbol":"x"}]}',
        *("", "{}", "[]", "null", "pong"),
    ],
)
def test_frames_that_do_not_say_what_they_promise_are_unreadable(raw: str) -> None:
    with pytest.raises(Unreadable):
        parse(raw)


def test_heartbeats_and_pongs_are_signs_of_life() -> None:
    assert list(KRAKEN.read('{"channel":"heartbeat"}')) == [Alive()]
    assert list(KRAKEN.read('{"method":"pong","req_id":3,"time_in":"x","time_out":"y"}')) == [Alive(answer=True)]
    assert KRAKEN.probe is not None
    assert json.loads(KRAKEN.probe(3)) == {"method": "ping", "req_id": 3}


@pytest.mark.parametrize("system", ["cancel_only", "post_only", "maintenance", "something new"])
def test_an_engine_that_does_not_match_is_offline(system: str) -> None:
    raw = (
        f'{{"channel":"status","type":"update","data":[{{"system":"{system}","connection_id":13834774380200032777}}]}}'
    )

    assert list(KRAKEN.read(raw)) == [EngineStatus(online=False, reason=f"the venue's engine is in {system}")]


def test_an_engine_that_matches_is_online() -> None:
    raw = '{"channel":"status","type":"update","data":[{"system":"online","upcoming_maintenance":[]}]}'

    assert list(KRAKEN.read(raw)) == [EngineStatus(online=True, reason="")]


def test_an_instrument_list_says_what_is_online_and_how_precise() -> None:
    pairs = [
        {"symbol": "BTC/USDT", "status": "online", "price_precision": 1, "qty_precision": 8, "tick_size": 0.1},
        {"symbol": "ETH/USDT", "status": "cancel_only", "price_precision": 2, "qty_precision": 8},
        {"symbol": "ODD/USDT", "status": "online", "price_precision": 10**9, "qty_precision": 8},
        {"symbol": "BAD/USDT", "status": "online", "price_precision": 1, "qty_precision": -1},
    ]
    expected = (Listed("BTC/USDT", 1, 8, online=True), Listed("ETH/USDT", 2, 8, online=False))

    for kind in ("snapshot", "update"):
        raw = json.dumps({"channel": "instrument", "type": kind, "data": {"assets": [{"id": "BTC"}], "pairs": pairs}})
        assert list(KRAKEN.read(raw)) == [Listing(expected, complete=kind == "snapshot")]


def test_refusals_name_their_symbol() -> None:
    refused = {"error": "Currency pair not supported FOO/USDT", "method": "subscribe", "success": False} | {
        "symbol": "FOO/USDT",
        "req_id": 4,
    }

    assert list(KRAKEN.read(json.dumps(refused))) == [
        Rejected("Currency pair not supported FOO/USDT", None, "FOO/USDT", 4)
    ]
    assert list(KRAKEN.read(json.dumps(refused | {"method": "unsubscribe"}))) == [Ignored("refused unsubscription")]


def test_acknowledgements_name_their_topic() -> None:
    result = {"channel": "book", "depth": 25, "snapshot": True, "symbol": "BTC/USDT", "warnings": ["old"]}
    answer = {"method": "subscribe", "result": result, "success": True, "req_id": 1}

    assert list(KRAKEN.read(json.dumps(answer))) == [Accepted(Topic(Channel.DEPTH, "BTC/USDT"))]
    assert list(KRAKEN.read(json.dumps(answer | {"result": {"channel": "instrument"}}))) == [Accepted()]


@pytest.mark.parametrize(("channel", "what"), [("ohlc", "ohlc"), ("level3", "level3"), ("made up", "other channel")])
def test_other_channels_are_ignored_under_a_bounded_set_of_names(channel: str, what: str) -> None:
    assert list(KRAKEN.read(frame(channel, "update", "{}"))) == [Ignored(what)]


def test_subscriptions_ask_for_what_the_parsers_need() -> None:
    topics = [Topic(channel, name) for channel in Channel for name in ("BTC/USDT", "ETH/USDT")]

    requests = KRAKEN.subscribe(topics, 3)

    frames = [json.loads(request.frame) for request in requests]
    symbols = ["BTC/USDT", "ETH/USDT"]
    assert [frame["params"] for frame in frames] == [
        {"channel": "ticker", "symbol": symbols, "event_trigger": "bbo", "snapshot": True},
        {"channel": "book", "symbol": symbols, "depth": 25, "snapshot": True},
        {"channel": "trade", "symbol": symbols, "snapshot": False},
    ]
    assert [frame["req_id"] for frame in frames] == [request.request_id for request in requests] == [3, 4, 5]
    assert [topic for request in requests for topic in request.topics] == topics


def test_unsubscriptions_repeat_what_tells_subscriptions_apart() -> None:
    topics = [Topic(channel, "BTC/USDT") for channel in Channel]

    frames = [json.loads(request.frame) for request in KRAKEN.unsubscribe(topics, 1)]

    assert [frame["method"] for frame in frames] == ["unsubscribe"] * 3
    assert [frame["params"] for frame in frames] == [
        {"channel": "ticker", "symbol": ["BTC/USDT"], "event_trigger": "bbo"},
        {"channel": "book", "symbol": ["BTC/USDT"], "depth": 25},
        {"channel": "trade", "symbol": ["BTC/USDT"]},
    ]


def test_the_declaration_asks_for_the_instrument_list_first() -> None:
    assert KRAKEN.symbol("BTC-USDT") == "BTC/USDT"
    assert KRAKEN.listing is not None
    request = KRAKEN.listing(1)
    assert json.loads(request.frame)["params"] == {"channel": "instrument", "snapshot": True}
    assert (KRAKEN.book_depth, KRAKEN.depth_sizes_touch) == (25, True)
