"""Binance: recorded sessions to the digit, and frames of every kind that may arrive."""

import json
from collections import defaultdict
from decimal import Decimal

import pytest

from core.events import BookImage, Channel, Quote, Side, Trade
from marketdata.venue import Accepted, Data, Ignored, PlannedClose, Rejected, Topic, Unreadable
from marketdata.venues.binance import BINANCE
from tests.conftest import Frames
from tests.marketdata.replay import Replay as Run
from tests.marketdata.replay import exact, received_ns, replay

D = Decimal

SESSIONS = {
    "binance-spot-20210405-10sym": (
        *("AXS-BNB", "BTC-AUD", "BTCST-USDT", "DENT-USDT", "ETH-BRL"),
        *("MANA-USDT", "NEO-USDC", "QTUM-ETH", "RENBTC-ETH", "ZIL-USDT"),
    ),
    "binance-spot-20210417-10sym": (
        *("AAVEUP-USDT", "ADA-RUB", "BUSD-TRY", "GTO-BTC", "ONT-TRY"),
        *("PERL-BNB", "QSP-BTC", "STEEM-ETH", "SWRV-BUSD", "VET-ETH"),
    ),
    "binance-spot-20240808-btcusdt": ("BTC-USDT",),
}
UNUSED = {"depth@100ms": "ignored:depth", "aggTrade": "ignored:aggTrade", "kline_1m": "ignored:kline"}


@pytest.mark.parametrize("stem", SESSIONS)
def test_every_recorded_frame_is_understood_or_ignored_by_name(captures: Frames, stem: str) -> None:
    records = list(captures(stem))
    expected: dict[str, int] = defaultdict(int)
    for record in records:
        stream = json.loads(record["raw"])["stream"].partition("@")[2]
        if stream in UNUSED:
            expected[UNUSED[stream]] += 1

    run = replay(BINANCE, records, SESSIONS[stem])

    assert dict(run.session.counters) == dict(expected)
    assert run.market.disabled == {}


@pytest.mark.parametrize("stem", SESSIONS)
def test_the_touch_is_the_last_book_ticker_at_every_moment(captures: Frames, stem: str) -> None:
    instruments = SESSIONS[stem]
    names = {BINANCE.symbol(name): name for name in instruments}
    run = Run(BINANCE, instruments, now_ns=0)
    last_ids: dict[str, int] = {}
    tickers = 0

    for record in captures(stem):
        run.push(record["raw"], received_ns(record))
        frame = exact(record["raw"])
        symbol, _, stream = frame["stream"].partition("@")
        if stream != "bookTicker":
            continue
        tickers += 1
        data = frame["data"]
        assert data["u"] > last_ids.get(symbol, 0)
        last_ids[symbol] = data["u"]
        quote = Quote(*(D(data[key]) for key in "bBaA"), sequence=data["u"])
        assert run.sink.quotes[-1] == (names[symbol], quote)
        assert [str(n) for n in (quote.bid, quote.ask_size)] == [data["b"], data["A"]]

    assert len(run.sink.quotes) == tickers > 500


def test_every_trade_comes_out_once_and_to_the_digit(captures: Frames) -> None:
    records = list(captures("binance-spot-20240808-btcusdt"))
    expected = []
    for record in records:
        data = json.loads(record["raw"])["data"]
        if data.get("e") == "trade":
            taker = Side.SELL if data["m"] else Side.BUY
            expected.append((data["t"], data["p"], data["q"], taker, data["T"] * 1_000_000))

    run = replay(BINANCE, records, ["BTC-USDT"])

    trades = [trade for _, trade in run.sink.trades]
    assert [(t.last_id, format(t.price, "f"), format(t.size, "f"), t.side, t.venue_ns) for t in trades] == expected
    assert len(expected) == 19904
    assert run.sink.gaps == []


def recorded(captures: Frames, stream: str, key: str) -> Data:
    """Return the last recorded single frame of a stream whose data has the key."""
    frames = [r["raw"] for r in captures("examples-binance") if f'"stream":"{stream}"' in r["raw"] and key in r["raw"]]
    (data,) = BINANCE.read(frames[-1])
    assert isinstance(data, Data)
    return data


def test_single_recorded_frames_parse(captures: Frames) -> None:
    depth = recorded(captures, "ethusdt@depth20", '"lastUpdateId"')
    assert depth.topic == Topic(Channel.DEPTH, "ethusdt")
    assert list(BINANCE.parse[Channel.DEPTH](depth.payload)) == [
        BookImage(
            bids=((D("1782.00000000"), D("6.48300000")), (D("1781.95000000"), D("0.03000000"))),
            asks=((D("1782.01000000"), D("15.46080000")), (D("1782.02000000"), D("0.00780000"))),
            sequence=17044571457,
        )
    ]

    touch = recorded(captures, "ethusdt@bookTicker", '"u":68791858400')
    assert touch.topic == Topic(Channel.TOUCH, "ethusdt")
    assert list(BINANCE.parse[Channel.TOUCH](touch.payload)) == [
        Quote(D("3290.28"), D("65.9711"), D("3290.29"), D("3.0276"), sequence=68791858400)
    ]

    trade = recorded(captures, "ethusdt@trade", '"t":705291099')
    assert list(BINANCE.parse[Channel.TRADES](trade.payload)) == [
        Trade("705291099", 705291099, 705291099, D("4149.74"), D("0.4387"), Side.SELL, 1639351062243 * 1_000_000)
    ]


# -- frames of our own, in the venue's format


def stream(name: str, data: object) -> str:
    return json.dumps({"stream": name, "data": data})


TICKER = {"u": 400900217, "s": "BTCUSDT", "b": "60000.01000000", "B": "1.25", "a": "60000.02000000", "A": "0.80"}
TRADE = {"e": "trade", "E": 1672515782136, "s": "BTCUSDT", "t": 12345, "p": "60000.01", "q": "0.010"} | {
    "T": 1672515782134,
    "m": True,
    "M": True,
}
DEPTH = {"lastUpdateId": 160, "bids": [["60000.01", "1.25"], ["60000.00", "2"]], "asks": [["60000.02", "0.80"]]}


def parse(channel: Channel, data: object) -> list[object]:
    return list(BINANCE.parse[channel](stream("btcusdt@any", data)))


def test_a_book_ticker_is_a_quote_with_every_digit() -> None:
    (quote,) = parse(Channel.TOUCH, TICKER)

    assert quote == Quote(D("60000.01"), D("1.25"), D("60000.02"), D("0.8"), sequence=400900217)
    assert isinstance(quote, Quote)
    assert str(quote.bid) == "60000.01000000"


def test_depth_is_an_image() -> None:
    assert parse(Channel.DEPTH, DEPTH) == [
        BookImage(
            bids=((D("60000.01"), D("1.25")), (D("60000.00"), D(2))), asks=((D("60000.02"), D("0.80")),), sequence=160
        )
    ]


@pytest.mark.parametrize(("maker", "side"), [(True, Side.SELL), (False, Side.BUY)])
def test_a_trades_side_is_the_takers(maker: bool, side: Side) -> None:
    (trade,) = parse(Channel.TRADES, TRADE | {"m": maker})

    assert trade == Trade("12345", 12345, 12345, D("60000.01"), D("0.010"), side, 1672515782134 * 1_000_000)


def test_microseconds_are_told_from_milliseconds_by_their_digits() -> None:
    (trade,) = parse(Channel.TRADES, TRADE | {"T": 1672515782134567})

    assert isinstance(trade, Trade)
    assert trade.venue_ns == 1672515782134567 * 1000


@pytest.mark.parametrize(
    "change",
    [
        *({"b": number} for number in ("0", "-1", "NaN", "sNaN", "Infinity", "1e30", "1e-30", "", "1_000", " 1", "x")),
        *({"A": number} for number in ("0", "0.00000000", "-0.1", "nan", "9" * 40, 1.5, None, ["1"])),
        *({"u": number} for number in (-1, 2**63, "1", 1.5, None)),
        {"b": "0." + "1" * 50},
    ],
)
def test_a_quote_that_is_not_made_of_positive_numbers_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        parse(Channel.TOUCH, TICKER | change)


@pytest.mark.parametrize(
    "change",
    [{"p": "0"}, {"q": "0"}, {"t": -5}, {"T": 0}, {"T": 1672515782}, {"T": 10**18}, {"m": "true"}, {"m": None}],
)
def test_a_trade_of_impossible_values_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        parse(Channel.TRADES, TRADE | change)


@pytest.mark.parametrize(
    "change",
    [
        {"bids": [["1", "1"], ["2", "1"]]},
        {"asks": [["2", "1"], ["1", "1"]]},
        {"bids": [["2", "1"], ["2.0", "1"]]},
        {"bids": [["2", "0"]]},
        {"bids": [["2"]]},
        {"asks": None},
        {"lastUpdateId": None},
    ],
)
def test_an_image_with_levels_out_of_order_or_empty_levels_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        parse(Channel.DEPTH, DEPTH | change)


def test_data_frames_name_their_topic() -> None:
    topics = []
    for name in ("btcusdt@bookTicker", "btcusdt@depth20@100ms", "btcusdt@trade"):
        (message,) = BINANCE.read(stream(name, TICKER))
        assert isinstance(message, Data)
        topics.append(message.topic)

    assert topics == [Topic(channel, "btcusdt") for channel in (Channel.TOUCH, Channel.DEPTH, Channel.TRADES)]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("btcusdt@depth@100ms", "depth"),
        ("btcusdt@depth", "depth"),
        ("btcusdt@depth5@100ms", "depth5"),
        ("btcusdt@aggTrade", "aggTrade"),
        ("btcusdt@kline_1m", "kline"),
        ("btcusdt@blockTrade", "blockTrade"),
        ("btcusdt@ticker", "ticker"),
        ("!ticker@arr", "other stream"),
        ("!bookTicker", "other stream"),
        ("btcusdt@madeUpToday", "other stream"),
        ("@bookTicker", "bookTicker"),
    ],
)
def test_other_streams_are_ignored_under_a_bounded_set_of_names(name: str, what: str) -> None:
    assert list(BINANCE.read(stream(name, {"e": "x"}))) == [Ignored(what)]


@pytest.mark.parametrize(
    "frame",
    [
        {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1770123456789}},
        {"e": "serverShutdown", "E": 1770123456789},
    ],
)
def test_an_announced_shutdown_is_a_planned_close(frame: object) -> None:
    (message,) = BINANCE.read(json.dumps(frame))

    assert isinstance(message, PlannedClose)


@pytest.mark.parametrize("frame", ['{"result":null,"id":1}', '{"result":["btcusdt@trade"],"id":3}'])
def test_answers_are_acknowledgements(frame: str) -> None:
    assert list(BINANCE.read(frame)) == [Accepted()]


@pytest.mark.parametrize(
    "frame",
    [
        {"error": {"code": 2, "msg": "Invalid request: unknown stream foousdt@trade"}, "id": 7},
        {"code": 2, "msg": "Invalid request: unknown stream foousdt@trade", "id": 7},
    ],
)
def test_both_shapes_of_an_error_are_rejections(frame: object) -> None:
    assert list(BINANCE.read(json.dumps(frame))) == [
        Rejected("Invalid request: unknown stream foousdt@trade (2)", symbol="foousdt", request_id=7)
    ]


@pytest.mark.parametrize(
    "frame", ["", "{}", "[]", "null", "pong", '{"stream":"btcusdt@trade"}', '{"stream":1}', b"\xff"]
)
def test_what_is_no_frame_is_unreadable(frame: str | bytes) -> None:
    with pytest.raises(Unreadable):
        list(BINANCE.read(frame))


def test_subscriptions_go_out_in_chunks_with_rising_ids() -> None:
    topics = [Topic(channel, f"sym{n}usdt") for channel in Channel for n in range(50)]

    requests = BINANCE.subscribe(topics, 5)

    frames = [json.loads(request.frame) for request in requests]
    assert [len(frame["params"]) for frame in frames] == [100, 50]
    assert [frame["id"] for frame in frames] == [request.request_id for request in requests] == [5, 6]
    assert {frame["method"] for frame in frames} == {"SUBSCRIBE"}
    assert [topic for request in requests for topic in request.topics] == topics
    assert frames[0]["params"][0] == "sym0usdt@bookTicker"
    assert frames[0]["params"][50] == "sym0usdt@depth20@100ms"
    assert frames[1]["params"][0] == "sym0usdt@trade"
    assert json.loads(BINANCE.unsubscribe(topics[:1], 9)[0].frame) == {
        "method": "UNSUBSCRIBE",
        "params": ["sym0usdt@bookTicker"],
        "id": 9,
    }


def test_the_declaration_keeps_the_venues_limits() -> None:
    assert BINANCE.symbol("BTC-USDT") == "btcusdt"
    assert BINANCE.url == "wss://stream.binance.com:443/stream"
    assert BINANCE.send_interval_s >= 0.2
    assert BINANCE.rotate_after_s == 23 * 3600
    assert BINANCE.silent_symbols
    assert BINANCE.probe is None
    assert BINANCE.listing is None
