"""One connection as a state machine: subscriptions, refusals, books and what they do to quotes."""

import json
import zlib
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from core.book import Book
from core.events import Body, BookDelta, BookImage, Channel, Level, Quote, Trade
from marketdata.feed import (
    EMPTY_IMAGE,
    HEAD_BYTES_MAX,
    HEADS_MAX,
    NS,
    RESYNC_FORGET_NS,
    RESYNC_WAIT_MAX_NS,
    RESYNC_WAIT_NS,
    SILENT_SYMBOL_NS,
    Disabled,
    FeedSession,
    KeptImage,
    MarketEvent,
    QuoteLost,
)
from marketdata.venue import EngineStatus, PlannedClose
from marketdata.venues import VENUES
from marketdata.venues.binance import BINANCE
from marketdata.venues.kraken import KRAKEN
from marketdata.venues.okx import OKX
from tests.marketdata.replay import kraken_instruments

D = Decimal
BTC, ETH, FOO = "BTC-USDT", "ETH-USDT", "FOO-USDT"
MS = 1_670_324_386_802


class Connection:
    """A session under test: frames in, events out, and a clock that the test sets."""

    def __init__(self, name: str, *instruments: str) -> None:
        self.session = FeedSession(VENUES[name], instruments)
        self.now_ns = 10**9
        self.session.opened(self.now_ns)

    def receive(self, frame: str) -> list[Any]:
        return self.session.receive(frame, self.now_ns)

    def sent(self) -> list[dict[str, Any]]:
        frames = [json.loads(frame) for frame in self.session.outgoing]
        self.session.outgoing.clear()
        return frames


# -- frames in the venues' formats


def compact(frame: object) -> str:
    """Write JSON as the venues do, without blanks."""
    return json.dumps(frame, separators=(",", ":"))


def binance_touch(symbol: str = "btcusdt", bid: str = "100", ask: str = "101", update_id: int = 1) -> str:
    data = {"u": update_id, "s": symbol.upper(), "b": bid, "B": "1", "a": ask, "A": "1"}
    return compact({"stream": f"{symbol}@bookTicker", "data": data})


def okx(channel: str, *, instrument: str = BTC, **fields: Any) -> str:
    return compact({"arg": {"channel": channel, "instId": instrument}, "data": [fields]})


def okx_book(channel: str = "books5", *, bid: str = "100", ask: str = "101", sequence: int = 5, ms: int = MS) -> str:
    return okx(channel, bids=[[bid, "1", "0", "1"]], asks=[[ask, "1", "0", "1"]], ts=str(ms), seqId=sequence)


def kraken_touch(bid: str = "100.0", ask: str = "101.0", *, bid_size: str = "1.0", ask_size: str = "1.0") -> str:
    return (
        f'{{"channel":"ticker","type":"update","data":[{{"symbol":"BTC/USDT","bid":{bid},"bid_qty":{bid_size},'
        f'"ask":{ask},"ask_qty":{ask_size}}}]}}'
    )


class KrakenBook:
    """Writes book frames with the right checksum, or a wrong one."""

    def __init__(self) -> None:
        self.book = Book(25, 1, 8)

    def frame(
        self, bids: tuple[Level, ...] = (), asks: tuple[Level, ...] = (), *, snapshot: bool = False, wrong: int = 0
    ) -> str:
        self.book.apply(BookDelta(bids, asks, None, snapshot=snapshot))
        sides = {
            name: [{"price": float(price), "qty": float(size)} for price, size in side]
            for name, side in (("bids", bids), ("asks", asks))
        }
        data = {"symbol": "BTC/USDT", **sides, "checksum": self.book.checksum() ^ wrong}
        return json.dumps({"channel": "book", "type": "snapshot" if snapshot else "update", "data": [data]})

    def snapshot(self) -> str:
        return self.frame(((D("100.0"), D(1)),), ((D("101.0"), D(1)),), snapshot=True)


def kraken() -> tuple[Connection, KrakenBook]:
    connection = Connection("kraken", BTC)
    connection.receive(kraken_instruments(BTC_USDT=(1, 8)))
    connection.sent()
    return connection, KrakenBook()


EMPTY = MarketEvent(BTC, EMPTY_IMAGE)


# -- subscriptions


def test_a_venue_without_a_list_is_asked_for_everything_at_once() -> None:
    connection = Connection("binance", BTC, ETH)

    (frame,) = connection.sent()

    assert frame["params"] == [
        *("btcusdt@bookTicker", "ethusdt@bookTicker"),
        *("btcusdt@depth20@100ms", "ethusdt@depth20@100ms"),
        *("btcusdt@trade", "ethusdt@trade"),
    ]


def test_subscriptions_wait_for_the_instrument_list_and_leave_out_what_is_not_in_it() -> None:
    connection = Connection("kraken", BTC, FOO)
    assert [frame["params"]["channel"] for frame in connection.sent()] == ["instrument"]

    events = connection.receive(kraken_instruments(BTC_USDT=(1, 8), DOT_USDT=(4, 8)))

    assert events == [Disabled(FOO, "not in the venue's instrument list")]
    frames = connection.sent()
    assert [frame["params"]["channel"] for frame in frames] == ["ticker", "book", "trade"]
    assert all(frame["params"]["symbol"] == ["BTC/USDT"] for frame in frames)


def test_a_second_instrument_list_does_not_subscribe_again() -> None:
    connection, _ = kraken()

    connection.receive(kraken_instruments(BTC_USDT=(1, 8)))

    assert connection.sent() == []


def test_ids_of_requests_rise_across_all_kinds() -> None:
    connection = Connection("kraken", BTC)
    connection.receive(kraken_instruments(BTC_USDT=(1, 8)))
    probe = connection.session.probe()
    assert probe is not None

    ids = [frame["req_id"] for frame in connection.sent()] + [json.loads(probe)["req_id"]]

    assert ids == sorted(set(ids))


def test_a_session_is_ready_when_every_symbol_that_is_carried_has_sent_data() -> None:
    connection = Connection("binance", BTC, ETH, FOO)
    connection.receive(binance_touch("btcusdt"))
    connection.receive('{"error":{"code":2,"msg":"unknown stream foousdt@trade"},"id":1}')
    assert not connection.session.ready

    connection.receive(binance_touch("ethusdt"))

    assert connection.session.ready


# -- refusals: an unknown symbol is disabled, and never costs the connection


@pytest.mark.parametrize(
    ("venue", "refusal"),
    [
        ("binance", {"error": {"code": 2, "msg": "unknown stream foousdt@bookTicker"}, "id": 1}),
        ("okx", {"event": "error", "code": "60018", "msg": "channel:trades,instId:FOO-USDT doesn't exist"}),
        ("kraken", {"method": "subscribe", "success": False, "error": "not supported", "symbol": "FOO/USDT"}),
    ],
)
def test_a_refused_symbol_is_disabled_once_and_the_others_go_on(venue: str, refusal: object) -> None:
    connection = Connection(venue, BTC, FOO)

    events = [event for _ in range(3) for event in connection.receive(json.dumps(refusal))]

    assert [(type(event), event.instrument) for event in events] == [(Disabled, FOO)]
    assert set(connection.session.disabled) == {FOO}
    assert connection.session.counters["rejected"] == 3


def test_a_refusal_known_only_by_its_request_disables_the_requests_only_symbol() -> None:
    one, two = Connection("okx", FOO), Connection("okx", BTC, FOO)
    refusal = json.dumps({"event": "error", "code": "60018", "msg": "no", "id": "1"})

    assert one.receive(refusal) == [Disabled(FOO, "no (60018)")]
    assert two.receive(refusal) == []  # one of many: silence will tell which


def test_a_symbol_that_sends_data_is_not_disabled_by_a_refused_request() -> None:
    connection = Connection("okx", BTC)
    connection.receive(okx_book("bbo-tbt"))

    assert connection.receive('{"event":"error","code":"60014","msg":"too frequent, instId:BTC-USDT","id":"1"}') == []


def test_a_disabled_symbol_that_sends_data_after_all_is_enabled_again() -> None:
    connection = Connection("okx", BTC)
    connection.receive('{"event":"error","code":"60018","msg":"channel:trades,instId:BTC-USDT","id":"1"}')

    events = connection.receive(okx_book("bbo-tbt"))

    assert events[0] == Disabled(BTC, "")
    assert connection.session.disabled == {}


def test_a_symbol_that_stays_silent_while_others_speak_is_disabled_where_venues_acknowledge_anything() -> None:
    connection = Connection("binance", BTC, FOO)
    connection.receive(binance_touch())
    assert connection.session.advance(connection.now_ns + SILENT_SYMBOL_NS - 1) == []

    events = connection.session.advance(connection.now_ns + SILENT_SYMBOL_NS)

    assert [event.instrument for event in events if isinstance(event, Disabled)] == [FOO]
    assert connection.session.advance(connection.now_ns + 2 * SILENT_SYMBOL_NS) == []


@pytest.mark.parametrize("venue", ["binance", "okx"])
def test_silence_of_all_symbols_disables_none(venue: str) -> None:
    connection = Connection(venue, BTC, FOO)

    assert connection.session.advance(connection.now_ns + 10 * SILENT_SYMBOL_NS) == []


def test_a_pair_that_the_venue_stops_trading_loses_its_quote_until_it_trades_again() -> None:
    connection, _ = kraken()
    connection.receive(kraken_touch())
    halted = kraken_instruments(BTC_USDT=(1, 8)).replace('"online"', '"cancel_only"')

    events = connection.receive(halted)
    assert [type(event) for event in events] == [Disabled, QuoteLost]
    assert connection.receive(kraken_touch("100.5")) == []

    assert connection.receive(kraken_instruments(BTC_USDT=(1, 8))) == [Disabled(BTC, "")]
    assert [type(event.body) for event in connection.receive(kraken_touch("100.5"))] == [Quote]


def test_frames_of_symbols_that_nobody_asked_for_are_counted_and_ignored() -> None:
    connection = Connection("binance", BTC)

    assert connection.receive(binance_touch("dogeusdt")) == []
    assert connection.session.counters["ignored:foreign symbol"] == 1


def test_notices_and_statuses_are_passed_on() -> None:
    (closing,) = Connection("binance", BTC).receive('{"stream":"!serverShutdown","data":{"e":"serverShutdown"}}')
    (status,) = Connection("kraken", BTC).receive(
        '{"channel":"status","type":"update","data":[{"system":"maintenance"}]}'
    )

    assert isinstance(closing, PlannedClose)
    assert isinstance(status, EngineStatus)
    assert not status.online


def test_a_frame_that_cannot_be_read_is_counted_and_does_not_stop_the_next() -> None:
    connection = Connection("binance", BTC)

    assert connection.receive("not json") == []
    assert connection.session.counters["unreadable"] == 1
    assert len(connection.receive(binance_touch())) == 1


# -- quotes


@pytest.mark.parametrize("bid", ["101", "102"])
def test_a_locked_or_crossed_quote_is_lost_and_asked_for_again(bid: str) -> None:
    connection = Connection("binance", BTC)
    connection.receive(binance_touch())
    connection.sent()

    (event,) = connection.receive(binance_touch(bid=bid, update_id=2))

    assert isinstance(event, QuoteLost)
    assert [(frame["method"], frame["params"]) for frame in connection.sent()] == [
        ("UNSUBSCRIBE", ["btcusdt@bookTicker"]),
        ("SUBSCRIBE", ["btcusdt@bookTicker"]),
    ]
    assert connection.session.counters["crossed"] == 1


def test_an_unreadable_quote_is_lost_and_the_book_does_not_bring_it_back() -> None:
    connection, book = kraken()
    connection.receive(kraken_touch(bid_size="5"))

    (event,) = connection.receive(kraken_touch(bid="0"))
    events = connection.receive(book.snapshot())

    assert isinstance(event, QuoteLost)
    assert [type(event.body) for event in events] == [BookImage]


def test_the_checked_book_corrects_the_sizes_of_an_unchanged_touch() -> None:
    connection, book = kraken()
    connection.receive(kraken_touch(bid_size="5"))

    events = connection.receive(book.snapshot())
    again = connection.receive(book.frame(bids=((D("99.0"), D(1)),)))

    assert [type(event.body) for event in events] == [BookImage, Quote]
    assert (events[1].body.bid_size, events[1].body.ask_size) == (D(1), D(1))
    assert [type(event.body) for event in again] == [BookImage]


def test_the_book_never_changes_the_prices_of_the_touch() -> None:
    connection, book = kraken()
    connection.receive(kraken_touch(bid="99.9", bid_size="5"))

    assert [type(event.body) for event in connection.receive(book.snapshot())] == [BookImage]


# -- depth: books that the venue sends whole are kept as they came, and read when somebody wants them


def book(connection: Connection, frame: str) -> BookImage:
    """Hand over a book and read it."""
    (event,) = connection.receive(frame)
    assert isinstance(event.body, KeptImage)
    return event.body.read()


def binance_depth(bid: str = "100", ask: str = "101", *, update_id: int = 1) -> str:
    data = {"lastUpdateId": update_id, "bids": [[bid, "1"]], "asks": [[ask, "1"]]}
    return compact({"stream": "btcusdt@depth20@100ms", "data": data})


def test_a_book_is_read_when_it_is_asked_for_and_not_before() -> None:
    decoded = []

    def parse(frame: str | bytes) -> Iterable[Body]:
        decoded.append(frame)
        return BINANCE.parse[Channel.DEPTH](frame)

    watched = structs.replace(BINANCE, parse={**BINANCE.parse, Channel.DEPTH: parse})
    session = FeedSession(watched, [BTC])
    frames = [binance_depth(bid=str(bid), update_id=bid).encode() for bid in range(50, 100)]

    events = [event for frame in frames for event in session.receive(frame, NS)]
    assert len(events) == len(frames)
    assert decoded == []

    newest = events[-1]
    assert isinstance(newest, MarketEvent)
    assert isinstance(newest.body, KeptImage)
    assert newest.body.read() is newest.body.read()
    assert newest.body.read() == BookImage(((D(99), D(1)),), ((D(101), D(1)),), sequence=99)
    assert decoded == frames[-1:]


@pytest.mark.parametrize("frame", [binance_depth(bid="-1"), binance_depth()[:-9], binance_depth(bid="102")])
def test_a_bad_book_that_nobody_reads_costs_nothing_and_one_that_is_read_is_counted_once(frame: str) -> None:
    connection = Connection("binance", BTC)
    connection.receive(binance_depth())
    connection.sent()

    (event,) = connection.receive(frame)
    assert not connection.session.counters
    assert connection.sent() == []

    assert (event.body.read().bids, event.body.read().asks) == ((), ())
    assert sum(connection.session.counters[what] for what in ("unreadable", "crossed")) == 1
    assert [(request["method"], request["params"]) for request in connection.sent()] == [
        ("UNSUBSCRIBE", ["btcusdt@depth20@100ms"]),
        ("SUBSCRIBE", ["btcusdt@depth20@100ms"]),
    ]
    assert book(connection, binance_depth(update_id=2)).bids == ((D(100), D(1)),)


def test_a_book_read_late_does_not_stand_before_one_that_is_newer() -> None:
    connection = Connection("okx", BTC)
    (early,) = connection.receive(okx_book(bid="99", sequence=49))
    newer = book(connection, okx_book(bid="100", sequence=50))

    assert early.body.read() == newer


def test_an_older_image_is_ignored_unless_the_venues_clock_says_that_ids_were_reset() -> None:
    connection = Connection("okx", BTC)
    assert book(connection, okx_book(sequence=50)).sequence == 50

    assert book(connection, okx_book(sequence=49)).sequence == 50
    assert book(connection, okx_book(sequence=50)).sequence == 50
    assert book(connection, okx_book(sequence=3, ms=MS + 1)).sequence == 3
    assert book(connection, okx_book(sequence=4, ms=MS + 2)).sequence == 4


def test_images_that_stay_behind_one_are_followed_after_a_while() -> None:
    """One absurd id would be the book for ever."""
    session = FeedSession(BINANCE, [BTC])
    bids = []
    for seconds, bid, update_id in ((0, 99, 2**62), (1, 98, 7), (5, 97, 8), (5.1, 96, 9), (5.2, 95, 8)):
        (event,) = session.receive(binance_depth(bid=str(bid), update_id=update_id), round(seconds * NS))
        assert isinstance(event, MarketEvent)
        assert isinstance(event.body, KeptImage)
        bids.append(event.body.read().bids[0][0])

    assert bids == [99, 99, 99, 96, 96]


def test_a_crossed_image_is_empty_and_another_is_asked_for() -> None:
    connection = Connection("okx", BTC)
    connection.sent()

    image = book(connection, okx_book(bid="102"))

    assert (image.bids, image.asks) == ((), ())
    assert [frame["op"] for frame in connection.sent()] == ["unsubscribe", "subscribe"]


def test_an_unreadable_image_is_empty() -> None:
    connection = Connection("okx", BTC)
    book(connection, okx_book())

    assert book(connection, okx_book(bid="-1", sequence=6)) == EMPTY_IMAGE


# -- frames known by their heads


def test_frames_with_a_known_head_are_told_like_the_first_one() -> None:
    connection = Connection("binance", BTC, ETH)
    first = [connection.receive(binance_touch(symbol)) for symbol in ("btcusdt", "ethusdt")]
    again = [connection.receive(binance_touch(symbol)) for symbol in ("btcusdt", "ethusdt")]

    assert again == first
    assert [events[0].instrument for events in again] == [BTC, ETH]


def test_an_answer_that_begins_like_data_is_no_data() -> None:
    connection = Connection("okx", BTC)
    connection.receive(okx_book("bbo-tbt"))

    assert connection.receive('{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"event":"subscribe"}') == []
    assert not connection.session.counters


def test_the_heads_that_are_remembered_are_few_and_short_whatever_is_sent() -> None:
    session = FeedSession(BINANCE, [BTC])
    for number in range(HEADS_MAX + 100):
        spaces = " " * (number % 20)
        session.receive(f'{{"stream":"btcusdt@trade",{spaces}"x{number}":1,"data":{{}}}}', NS)
    session.receive('{"stream":"btcusdt@trade",' + " " * 10_000 + '"data":{}}', NS)

    assert len(session._heads) == HEADS_MAX
    assert max(map(len, session._heads)) < HEAD_BYTES_MAX


# -- deltas and resynchronisation


def test_deltas_become_images_of_the_best_levels() -> None:
    connection, book = kraken()
    connection.receive(book.snapshot())

    (event,) = connection.receive(book.frame(bids=((D("100.5"), D(2)),)))

    assert event == MarketEvent(BTC, BookImage(((D("100.5"), D(2)), (D("100.0"), D(1))), ((D("101.0"), D(1)),)))


def bad_checksum(book: KrakenBook) -> str:
    return book.frame(bids=((D("99.0"), D(1)),), wrong=1)


def crossing(_: KrakenBook) -> str:
    checksum = zlib.crc32(b"1010100000000" + b"1015100000000" + b"1000100000000")
    data = {"symbol": "BTC/USDT", "bids": [{"price": 101.5, "qty": 1}], "asks": [], "checksum": checksum}
    return json.dumps({"channel": "book", "type": "update", "data": [data]})


@pytest.mark.parametrize(("damaged", "error"), [(bad_checksum, "BadChecksum"), (crossing, "CrossedBook")])
def test_a_damaged_book_is_emptied_and_asked_for_once_however_many_deltas_follow(
    damaged: Callable[[KrakenBook], str], error: str
) -> None:
    connection, book = kraken()
    connection.receive(book.snapshot())

    assert connection.receive(damaged(book)) == [EMPTY]
    for _ in range(50):
        assert connection.receive(book.frame(bids=((D("98.0"), D(1)),))) == []

    assert [(frame["method"], frame["params"]["channel"]) for frame in connection.sent()] == [
        ("unsubscribe", "book"),
        ("subscribe", "book"),
    ]
    assert connection.session.counters == {error: 1, "resyncs": 1}
    assert len(connection.receive(book.snapshot())) == 1
    assert len(connection.receive(book.frame(bids=((D("99.5"), D(1)),)))) == 1


def test_a_delta_before_the_first_snapshot_asks_for_one() -> None:
    connection, book = kraken()
    book.snapshot()

    assert connection.receive(book.frame(bids=((D("99.0"), D(1)),))) == [EMPTY]
    assert connection.session.counters["BookError"] == 1
    assert len(connection.sent()) == 2


def test_a_snapshot_that_never_comes_is_asked_for_again_after_a_wait_that_doubles_up_to_a_limit() -> None:
    connection, book = kraken()
    connection.receive(book.snapshot())
    connection.receive(bad_checksum(book))
    connection.sent()
    start_ns, asked_ns = connection.now_ns, []

    while connection.now_ns - start_ns < 1500 * NS:
        connection.now_ns += NS
        connection.receive(book.frame(bids=((D("98.0"), D(1)),)))
        if connection.sent():
            asked_ns.append(connection.now_ns)

    waits = [later - earlier for earlier, later in zip([start_ns, *asked_ns], asked_ns, strict=False)]
    doubling = [RESYNC_WAIT_NS * 2**n for n in range(6)]
    assert waits[:6] == doubling
    assert waits[6:] == [RESYNC_WAIT_MAX_NS] * len(waits[6:])
    assert len(waits) > 7


def test_books_that_fail_again_and_again_are_not_asked_for_at_each_failure() -> None:
    connection, book = kraken()
    for _ in range(20):
        connection.receive(book.snapshot())
        connection.receive(bad_checksum(book))

    assert connection.session.counters["BadChecksum"] == 20
    assert connection.session.counters["resyncs"] == 1


def test_a_topic_that_was_healthy_for_long_starts_over_with_the_short_wait() -> None:
    connection, book = kraken()
    connection.receive(book.snapshot())
    connection.receive(bad_checksum(book))
    connection.receive(book.snapshot())
    connection.now_ns += RESYNC_FORGET_NS
    connection.receive(bad_checksum(book))
    connection.sent()

    connection.now_ns += RESYNC_WAIT_NS
    connection.receive(book.frame(bids=((D("98.0"), D(1)),)))

    assert len(connection.sent()) == 2


def test_a_changed_precision_makes_the_book_start_again() -> None:
    connection, book = kraken()
    connection.receive(book.snapshot())

    connection.receive(kraken_instruments(BTC_USDT=(2, 8)))

    assert connection.receive(book.frame(bids=((D("99.0"), D(1)),))) == [EMPTY]


def test_trades_of_a_snapshot_are_passed_on_as_history() -> None:
    connection, _ = kraken()
    trade = {
        "symbol": "BTC/USDT",
        "side": "buy",
        "price": 1,
        "qty": 1,
        "trade_id": 3,
        "timestamp": "2026-09-10T10:00:00Z",
    }

    (event,) = connection.receive(json.dumps({"channel": "trade", "type": "snapshot", "data": [trade]}))

    assert isinstance(event.body, Trade)
    assert event.body.snapshot


def test_probes_are_the_venues_own() -> None:
    assert FeedSession(BINANCE, [BTC]).probe() is None  # a WebSocket ping
    assert FeedSession(OKX, [BTC]).probe() == "ping"
    assert json.loads(FeedSession(KRAKEN, [BTC]).probe() or "") == {"method": "ping", "req_id": 1}
