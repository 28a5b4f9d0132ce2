"""OKX: recorded sessions to the digit, and frames of every kind that may arrive."""

import json
from collections import Counter
from decimal import Decimal

import pytest

from core.events import BookImage, Channel, Quote, Side, Trade
from marketdata.venue import Accepted, Alive, Data, Ignored, PlannedClose, Rejected, Topic, Unreadable
from marketdata.venues.okx import ARGS_BYTES_MAX, OKX
from tests.conftest import Frames
from tests.marketdata.replay import Replay, replay

D = Decimal

OPTIONS = (
    *("BTC-USD-220325-40000-C", "ETH-USD-220228-3000-C", "ETH-USD-220325-8800-P"),
    *("ETH-USD-220429-1900-P", "ETH-USD-220624-12000-P", "ETH-USD-220624-20000-C"),
)
SESSIONS = {
    "okx-v5-20220227-10inst": (*OPTIONS, "ELON-USDT", "PROPS-ETH", "UNI-USD-SWAP", "ZEN-USDT"),
    "okx-v5-20220513-3inst": ("BTC-USD-220527", "BTC-USDT", "UNI-USD-SWAP"),
}


@pytest.mark.parametrize("stem", SESSIONS)
def test_every_recorded_frame_is_understood_or_ignored_by_name(captures: Frames, stem: str) -> None:
    records = list(captures(stem))
    channels = Counter(
        frame["arg"]["channel"] for frame in (json.loads(r["raw"]) for r in records) if "event" not in frame
    )
    del channels["trades"]

    run = replay(OKX, records, SESSIONS[stem])

    assert dict(run.session.counters) == {f"ignored:{name}": count for name, count in channels.items()}


@pytest.mark.parametrize(
    ("stem", "count", "historic"), [("okx-v5-20220227-10inst", 13, 3), ("okx-v5-20220513-3inst", 74, 0)]
)
def test_every_trade_comes_out_once_and_to_the_digit(captures: Frames, stem: str, count: int, historic: int) -> None:
    """A subscription starts with the instrument's last trade; an old one is history, not news.

    One instrument trades finer than money is kept here and is refused whole.
    """
    records = list(captures(stem))
    expected, old, seen, began = [], 0, set(), set()
    for record in records:
        frame = json.loads(record["raw"])
        if "event" in frame or frame["arg"]["channel"] != "trades":
            continue
        for trade in frame["data"]:
            key = (trade["instId"], trade["tradeId"])
            if trade["instId"] == "ELON-USDT" or key in seen:
                continue
            seen.add(key)
            if trade["instId"] not in began and record["t"] - int(trade["ts"]) / 1000 > 60:
                old += 1
            else:
                expected.append((*key, trade["px"], trade["sz"], trade["side"], int(trade["ts"]) * 1_000_000))
            began.add(trade["instId"])

    run = replay(OKX, records, SESSIONS[stem])

    told = [
        (name, t.trade_id, format(t.price, "f"), format(t.size, "f"), t.side.value, t.venue_ns)
        for name, t in run.sink.trades
    ]
    assert told == expected
    assert (len(told), old) == (count, historic)
    assert run.market.counters["historic_trades"] == old
    assert run.sink.gaps == []
    assert set(run.market.disabled) == {"ELON-USDT"} & set(SESSIONS[stem])


def recorded(captures: Frames, channel: str, instrument: str) -> Data:
    """Return the first recorded single frame of a channel and instrument."""
    start = f'{{"arg":{{"channel":"{channel}","instId":"{instrument}"'
    raw = next(r["raw"] for r in captures("examples-okx") if r["raw"].startswith(start) and '"data"' in r["raw"])
    (data,) = OKX.read(raw)
    assert isinstance(data, Data)
    return data


def test_single_recorded_frames_parse(captures: Frames) -> None:
    touch = recorded(captures, "bbo-tbt", "LTC-USDC")
    assert touch.topic == Topic(Channel.TOUCH, "LTC-USDC")
    assert list(OKX.parse[Channel.TOUCH](touch.payload)) == [
        Quote(D("83.8"), D("11.93317"), D("83.81"), D("11.93175"), sequence=378617009, venue_ns=1765201257149 * 10**6)
    ]

    one_sided = recorded(captures, "bbo-tbt", "BTC-USD-220624-50000-C")
    assert list(OKX.parse[Channel.TOUCH](one_sided.payload)) == [
        Quote(None, None, D("0.0015"), D(8), venue_ns=1654033343415 * 10**6)
    ]

    depth = recorded(captures, "books5", "BTC-USDT")
    assert depth.topic == Topic(Channel.DEPTH, "BTC-USDT")
    (image,) = OKX.parse[Channel.DEPTH](depth.payload)
    assert isinstance(image, BookImage)
    assert (len(image.bids), len(image.asks)) == (5, 5)
    assert image.asks[0] == (D("30221.8"), D("0.00439"))
    assert image.bids[0] == (D("30221.7"), D("0.30608367"))

    trade = recorded(captures, "trades", "BTC-USDT")
    assert list(OKX.parse[Channel.TRADES](trade.payload)) == [
        Trade("314161276", 314161276, 314161276, D("43474.1"), D("0.00373695"), Side.BUY, 1646311839593 * 10**6)
    ]


def test_every_recorded_single_frame_is_read_or_refused(captures: Frames) -> None:
    parsed = 0
    for record in captures("examples-okx"):
        try:
            for message in OKX.read(record["raw"]):
                if isinstance(message, Data):
                    parsed += len(list(OKX.parse[message.topic.channel](message.payload)))
        except Unreadable:
            assert not record["raw"].startswith('{"arg":{"channel"')  # answers of other interfaces

    assert parsed == 26


# -- frames of our own, in the venue's format

BOOK = {"asks": [["60000.2", "0.8", "0", "3"]], "bids": [["60000.1", "1.2", "0", "5"]], "ts": "1670324386802"} | {
    "seqId": 363996337
}
TRADE = {"instId": "BTC-USDT", "tradeId": "130639474", "px": "60000.1", "sz": "0.12", "side": "buy"} | {
    "ts": "1630048897897",
    "count": "3",
    "source": "0",
    "seqId": 1234,
}


def push(channel: str, *data: object, instrument: str = "BTC-USDT") -> str:
    return json.dumps({"arg": {"channel": channel, "instId": instrument}, "data": data})


def parse(channel: Channel, *data: object) -> list[object]:
    return list(OKX.parse[channel](push("any", *data)))


def test_a_touch_is_a_quote_with_sequence_and_time() -> None:
    assert parse(Channel.TOUCH, BOOK) == [
        Quote(D("60000.1"), D("1.2"), D("60000.2"), D("0.8"), sequence=363996337, venue_ns=1670324386802 * 10**6)
    ]


def test_empty_sides_are_allowed() -> None:
    (quote,) = parse(Channel.TOUCH, BOOK | {"bids": [], "asks": []})
    (image,) = parse(Channel.DEPTH, BOOK | {"bids": []})

    assert isinstance(quote, Quote)
    assert (quote.bid, quote.bid_size, quote.ask, quote.ask_size) == (None, None, None, None)
    assert isinstance(image, BookImage)
    assert (image.bids, len(image.asks)) == ((), 1)


def test_an_aggregated_print_stands_for_the_ids_up_to_its_own() -> None:
    (trade,) = parse(Channel.TRADES, TRADE)

    assert isinstance(trade, Trade)
    assert (trade.trade_id, trade.first_id, trade.last_id) == ("130639474", 130639472, 130639474)


def test_consecutive_aggregated_prints_leave_no_gap_and_a_jump_does() -> None:

    run = Replay(OKX, ["BTC-USDT"], now_ns=1630048897897 * 10**6)
    run.push(push("trades", TRADE))
    run.push(push("trades", TRADE | {"tradeId": "130639476", "count": "2"}))
    assert run.sink.gaps == []

    run.push(push("trades", TRADE | {"tradeId": "130639480", "count": "2"}))

    assert run.sink.gaps == [("BTC-USDT", 130639477, 130639478)]
    assert len(run.sink.trades) == 3


def test_prints_against_hidden_liquidity_are_prints() -> None:
    (trade,) = parse(Channel.TRADES, TRADE | {"source": "1"})

    assert isinstance(trade, Trade)
    assert trade.side is Side.BUY


@pytest.mark.parametrize(
    "change",
    [
        *({"px": number} for number in ("0", "-1", "NaN", "Infinity", "1e40", "", "1_0")),
        *({"sz": number} for number in ("0", "-0.5", None, 3)),
        *({"count": number} for number in ("0", "-1", "999999999", "x", "")),
        *({"tradeId": number} for number in ("", "12a", "1" * 40, "-1", "１２", 5)),
        *({"ts": number} for number in ("", "0", "1630048897", "x")),
        *({"side": side} for side in ("", "BUY", None)),
    ],
)
def test_a_trade_of_impossible_values_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        parse(Channel.TRADES, TRADE | change)


@pytest.mark.parametrize(
    "change",
    [
        {"bids": [["60000.1", "0", "0", "1"]]},
        {"bids": [["0", "1", "0", "1"]]},
        {"asks": [["60000.2"]]},
        {"asks": [["60000.2", "1"], ["60000.1", "1"]]},
        {"bids": [["60000.2", "1"], ["60000.2", "1"]]},
        {"ts": "now"},
        {"seqId": "5"},
        {"bids": None},
    ],
)
def test_a_book_of_impossible_values_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        parse(Channel.DEPTH, BOOK | change)


@pytest.mark.parametrize("frame", ["pong", b"pong"])
def test_the_text_pong_answers_our_probe(frame: str | bytes) -> None:
    assert OKX.probe is not None
    assert OKX.probe(5) == "ping"
    assert list(OKX.read(frame)) == [Alive(answer=True)]


@pytest.mark.parametrize(
    ("channel", "what"),
    [
        ("books", "books"),
        ("books-l2-tbt", "books-l2-tbt"),
        ("tickers", "tickers"),
        ("candle1m", "candle"),
        ("made-up-today", "other channel"),
    ],
)
def test_other_channels_are_ignored_under_a_bounded_set_of_names(channel: str, what: str) -> None:
    assert list(OKX.read(push(channel, {}))) == [Ignored(what)]


@pytest.mark.parametrize("event", ["channel-conn-count", "channel-conn-count-error", "login"])
def test_accounting_events_are_ignored(event: str) -> None:
    frame = {"event": event, "channel": "trades", "connCount": "2", "connId": "abcd1234"}

    assert list(OKX.read(json.dumps(frame))) == [Ignored(event)]


def test_an_upgrade_notice_is_a_planned_close_and_other_notices_are_not() -> None:
    notice = {"event": "notice", "code": "64008", "msg": "The connection will soon be closed.", "connId": "a4d3ae55"}

    assert list(OKX.read(json.dumps(notice))) == [PlannedClose("The connection will soon be closed.")]
    assert list(OKX.read(json.dumps(notice | {"code": "60000"}))) == [Ignored("notice")]


def test_acknowledgements_name_their_topic() -> None:
    frame = {"id": "1", "event": "subscribe", "arg": {"channel": "trades", "instId": "BTC-USDT"}, "connId": "a4d3ae55"}

    assert list(OKX.read(json.dumps(frame))) == [Accepted(Topic(Channel.TRADES, "BTC-USDT"))]


ERROR = {"event": "error", "code": "60018", "connId": "a4d3ae55"}


@pytest.mark.parametrize(
    ("more", "rejection"),
    [
        (
            {"id": "12", "msg": "Wrong URL or channel:bbo-tbt,instId:FOO-USDT doesn't exist."},
            Rejected("Wrong URL or channel:bbo-tbt,instId:FOO-USDT doesn't exist. (60018)", None, "FOO-USDT", 12),
        ),
        (
            {"msg": "doesn't exist", "arg": {"channel": "trades", "instId": "FOO-USDT"}},
            Rejected("doesn't exist (60018)", Topic(Channel.TRADES, "FOO-USDT")),
        ),
        ({"id": "3", "msg": "bad"}, Rejected("bad (60018)", request_id=3)),
        ({"id": "not ours", "msg": "bad"}, Rejected("bad (60018)")),
    ],
)
def test_an_error_names_what_it_refuses_where_it_can(more: dict[str, object], rejection: Rejected) -> None:
    assert list(OKX.read(json.dumps(ERROR | more))) == [rejection]


@pytest.mark.parametrize(
    "frame", ["", "{}", "[]", "ping", '{"arg":{"channel":"trades","instId":"BTC-USDT"}}', '{"event":5}', b"\xff"]
)
def test_what_is_no_frame_is_unreadable(frame: str | bytes) -> None:
    with pytest.raises(Unreadable):
        list(OKX.read(frame))


def test_subscriptions_stay_below_the_venues_size_limit() -> None:
    topics = [Topic(channel, f"COIN{n:06d}-USDT") for channel in Channel for n in range(1000)]

    requests = OKX.subscribe(topics, 7)

    frames = [json.loads(request.frame) for request in requests]
    assert len(requests) > 1
    assert all(len(request.frame) <= ARGS_BYTES_MAX + 100 < 64 * 1024 for request in requests)
    assert [frame["id"] for frame in frames] == [str(request.request_id) for request in requests]
    assert [request.request_id for request in requests] == list(range(7, 7 + len(requests)))
    assert [topic for request in requests for topic in request.topics] == topics
    assert frames[0]["args"][0] == {"channel": "bbo-tbt", "instId": "COIN000000-USDT"}
    assert frames[-1]["args"][-1] == {"channel": "trades", "instId": "COIN000999-USDT"}
    assert json.loads(OKX.unsubscribe(topics[:1], 1)[0].frame)["op"] == "unsubscribe"


def test_the_declaration_keeps_the_venues_limits() -> None:
    assert OKX.symbol("BTC-USDT") == "BTC-USDT"
    assert OKX.url.endswith("/ws/v5/public")
    assert OKX.listing is None
