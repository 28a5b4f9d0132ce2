"""A venue across its connections: what is live, what is a duplicate, a gap, or history."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import BookImage, Quote, Side, Trade
from marketdata.feed import BEHIND_NS, NS, Disabled, MarketEvent, QuoteLost
from marketdata.market import (
    DATA_SILENCE_NS,
    HISTORIC_TRADE_NS,
    ID_RESET_NS,
    PROBE_AFTER_NS,
    REPRESENTABLE_AFTER_NS,
    USUAL_GAP_SAMPLES,
    State,
    VenueMarket,
)
from marketdata.venue import EngineStatus, PlannedClose
from tests.marketdata.replay import Recorder

D = Decimal
BTC, ETH = "BTC-USDT", "ETH-USDT"
MS = 10**6
WALL_NS = 1_700_000_000 * NS
STALE_AFTER_NS = 5 * NS
BACK_S = REPRESENTABLE_AFTER_NS / NS


class Bench:
    """A market under test with a clock: `at` sets the seconds since the connection was opened."""

    def __init__(self, *, connected: bool = True) -> None:
        self.sink = Recorder()
        self.market = VenueMarket("binance", [BTC, ETH], stale_after_s=5.0, sink=self.sink)
        self.start_ns = self.now_ns = 10**12
        if connected:
            self.market.connecting()
            self.market.connected(self.now_ns)

    def at(self, seconds: float) -> "Bench":
        self.now_ns = self.start_ns + round(seconds * NS)
        return self

    @property
    def wall_ns(self) -> int:
        return WALL_NS + self.now_ns - self.start_ns

    def frame(self) -> None:
        self.market.take((), now_ns=self.now_ns, wall_ns=self.wall_ns)

    def take(self, event: object) -> None:
        self.market.take((event,), now_ns=self.now_ns, wall_ns=self.wall_ns, frame=False)  # type: ignore[arg-type]

    def quote(
        self, bid: str = "100", ask: str = "101", *, bid_size: str = "1", sequence: int | None = None, **more: int
    ) -> None:
        self.frame()
        quote = Quote(D(bid), D(bid_size), D(ask), D(1), sequence=sequence, venue_ns=more.get("venue_ns"))
        self.take(MarketEvent(BTC, quote))

    def trade(
        self, last_id: int, *, first_id: int | None = None, age_ns: int = 0, price: str = "100", snapshot: bool = False
    ) -> None:
        self.frame()
        first = last_id if first_id is None else first_id
        body = Trade(str(last_id), first, last_id, D(price), D(1), Side.BUY, self.wall_ns - age_ns, snapshot=snapshot)
        self.take(MarketEvent(BTC, body))

    def check(self) -> str | None:
        return self.market.check(self.now_ns)

    @property
    def told(self) -> list[int]:
        return [trade.last_id for _, trade in self.sink.trades]

    @property
    def bids(self) -> list[Decimal | None]:
        return [quote.bid if quote else None for _, quote in self.sink.quotes]

    @property
    def states(self) -> list[State]:
        return [state for state, _ in self.sink.states]


# -- states


def test_a_venue_is_live_from_its_first_fresh_quote() -> None:
    bench = Bench()
    assert bench.states == [State.CONNECTING, State.SYNCING]

    bench.trade(1)
    assert bench.market.state is State.SYNCING

    bench.quote()
    assert bench.states == [State.CONNECTING, State.SYNCING, State.LIVE]


def test_a_lost_connection_takes_the_quotes_along() -> None:
    bench = Bench()
    bench.quote(sequence=9)

    bench.market.lost("closed by the venue")

    assert bench.sink.states[-1] == (State.DOWN, "closed by the venue")
    bench.market.connecting()
    bench.market.connected(bench.now_ns)
    bench.quote(sequence=3)  # whatever the ids of the connection before
    assert bench.market.state is State.LIVE
    assert len(bench.sink.quotes) == 2


def test_books_are_passed_on_only_while_live() -> None:
    bench = Bench()
    image = BookImage((), ())
    bench.take(MarketEvent(BTC, image))
    assert bench.sink.books == []

    bench.quote()
    bench.take(MarketEvent(BTC, image))

    assert bench.sink.books == [(BTC, image)]


def test_a_lost_quote_leaves_at_once_and_only_once() -> None:
    bench = Bench()
    bench.quote()

    bench.take(QuoteLost(BTC, "crossed"))
    bench.take(QuoteLost(BTC, "crossed"))

    assert bench.bids == [D(100), None]
    assert bench.market.state is State.LIVE


def test_an_engine_that_stops_halts_the_venue_until_fresh_quotes_after_it_runs_again() -> None:
    bench = Bench()
    bench.quote()

    bench.take(EngineStatus(online=False, reason="maintenance"))
    bench.quote("102", "103")
    assert bench.sink.states[-1] == (State.HALTED, "maintenance")
    assert bench.bids == [D(100)]

    bench.take(EngineStatus(online=True, reason=""))
    assert bench.market.state is State.SYNCING
    bench.quote("104", "105")
    assert bench.states[-3:] == [State.HALTED, State.SYNCING, State.LIVE]


def test_a_halt_outlives_a_reconnection_and_is_no_silence() -> None:
    bench = Bench()
    bench.take(EngineStatus(online=False, reason="maintenance"))
    bench.market.lost("closed")
    bench.market.connected(bench.now_ns)

    assert (bench.market.state, bench.market.reason) == (State.HALTED, "maintenance")
    for second in range(120):
        bench.at(second).frame()
        assert bench.check() is None


def test_a_status_that_says_online_changes_nothing_on_a_venue_that_is() -> None:
    bench = Bench()
    bench.quote()

    bench.take(EngineStatus(online=True, reason=""))

    assert bench.market.state is State.LIVE


def test_a_venue_that_carries_nothing_is_disabled_and_comes_back_with_the_first_symbol() -> None:
    bench = Bench()
    bench.quote()
    bench.take(Disabled(BTC, "refused"))
    assert bench.market.carried == (ETH,)
    assert bench.bids[-1] is None

    bench.take(Disabled(ETH, "refused"))
    assert bench.market.state is State.DISABLED

    bench.take(Disabled(BTC, ""))
    assert bench.market.carried == (BTC,)
    assert bench.market.state is State.SYNCING


def test_a_new_connection_finds_out_anew_what_is_carried() -> None:
    bench = Bench()
    bench.take(Disabled(BTC, "refused"))
    bench.take(Disabled(ETH, "refused"))

    bench.market.replaced()

    assert bench.market.carried == (BTC, ETH)
    assert bench.market.state is State.SYNCING


def test_a_planned_close_is_remembered_until_another_connection_took_over() -> None:
    bench = Bench()
    bench.take(PlannedClose("shutdown"))
    assert bench.market.planned_close == "shutdown"

    bench.market.replaced()

    assert bench.market.planned_close is None


# -- liveness


def test_a_venue_is_probed_after_two_seconds_without_a_frame() -> None:
    bench = Bench()
    bench.frame()

    assert not bench.market.should_probe(bench.now_ns + PROBE_AFTER_NS - 1)
    assert bench.market.should_probe(bench.now_ns + PROBE_AFTER_NS)


def test_a_venue_is_probed_well_before_it_would_be_stale() -> None:
    market = VenueMarket("okx", [BTC], stale_after_s=1.0, sink=Recorder())
    market.connected(0)

    assert market.should_probe(NS // 2)
    assert market.check(NS // 2) is None


def test_no_frame_and_no_answer_is_stale_and_loses_the_quotes() -> None:
    bench = Bench()
    bench.quote()
    for second in (1, 2, 3, 4, 4.9):
        assert bench.at(second).check() is None

    reason = bench.at(5).check()

    assert reason == "no frame and no answer for 5.0 s"
    assert bench.market.state is State.STALE


def test_answers_to_probes_keep_a_quiet_venue_alive_until_its_data_stops_for_long() -> None:
    bench = Bench()
    bench.quote()
    for second in range(1, 30):
        bench.at(second)
        bench.market.answered(bench.now_ns)
        assert bench.check() is None
    assert bench.market.state is State.LIVE

    assert bench.at(DATA_SILENCE_NS / NS).check() == "no market data for 30 s"
    assert bench.market.state is State.STALE


def test_heartbeats_are_no_market_data() -> None:
    bench = Bench()
    bench.quote()
    for second in range(1, 30):
        bench.at(second).frame()
        assert bench.check() is None

    assert bench.at(30).check() is not None


def test_a_connection_that_never_brings_data_is_given_up() -> None:
    bench = Bench()
    for second in range(1, 30):
        bench.at(second).frame()
        assert bench.check() is None

    assert bench.at(30).check() == "no market data for 30 s"


@pytest.mark.parametrize(
    ("gap_s", "stale_s"),
    [
        (0.01, 5.0),  # many frames a second: VENUE_STALE_AFTER_S of silence is enough
        (1.0, 10.0),  # ten times its usual gap
        (2.9, 29.0),
    ],
)
def test_data_that_stops_in_an_unusual_way_is_stale_though_probes_are_answered(gap_s: float, stale_s: float) -> None:
    bench = Bench()
    end_s = gap_s * (USUAL_GAP_SAMPLES + 50)
    for number in range(USUAL_GAP_SAMPLES + 50):
        bench.at(gap_s * (number + 1)).quote(str(50 + number % 2))
        assert bench.check() is None

    silent_s = 0.0
    reason = None
    while reason is None:
        silent_s += 0.25
        bench.at(end_s + silent_s)
        bench.market.answered(bench.now_ns)
        reason = bench.check()

    assert silent_s == pytest.approx(stale_s, abs=0.3)
    assert "usually every" in reason


def test_a_few_frames_say_nothing_about_what_is_usual() -> None:
    bench = Bench()
    for number in range(USUAL_GAP_SAMPLES // 2):
        bench.at(0.01 * number).quote(str(50 + number % 2))

    for second in range(1, 25):
        bench.at(second).frame()
        assert bench.check() is None


def test_a_suspended_process_does_not_trust_what_it_then_reads() -> None:
    bench = Bench()
    bench.quote()
    bench.check()
    bench.at(STALE_AFTER_NS / NS + 1)
    bench.frame()  # frames of the time before are still in the socket

    assert bench.market.was_suspended(bench.now_ns)
    assert bench.check() == "this process was suspended"
    assert bench.market.state is State.STALE
    assert not bench.market.was_suspended(bench.now_ns)


def test_a_look_takes_the_quotes_of_before_a_suspension_back_and_leaves_the_rest_to_the_check() -> None:
    bench = Bench()
    bench.quote()
    bench.check()
    bench.market.look(bench.now_ns)
    assert bench.market.state is State.LIVE
    bench.at(STALE_AFTER_NS / NS + 1)
    bench.market.look(bench.now_ns)
    assert bench.market.state is State.STALE
    assert bench.market.was_suspended(bench.now_ns)  # so that what comes now is not read
    assert bench.check() == "this process was suspended"


@pytest.mark.parametrize("state", [State.DOWN, State.SYNCING, State.HALTED])
def test_a_look_changes_no_venue_that_is_out_anyway(state: State) -> None:
    bench = Bench()
    if state is State.HALTED:
        bench.take(EngineStatus(online=False, reason="maintenance"))
    elif state is State.DOWN:
        bench.market.lost("closed")
    bench.at(STALE_AFTER_NS / NS + 1)
    bench.market.look(bench.now_ns)
    assert bench.market.state is state


def test_events_told_late_by_a_replacement_do_not_turn_back_the_clock_of_data() -> None:
    bench = Bench()
    bench.at(10).quote()
    last_ns = bench.market.last_data_ns

    bench.at(4).quote("102", "103")

    assert bench.market.last_data_ns == last_ns


# -- quotes


def test_an_older_or_repeated_quote_is_not_news() -> None:
    bench = Bench()
    for sequence in (5, 4, 5, 6):
        bench.quote(str(90 + sequence), sequence=sequence)
    bench.quote("96", sequence=6)

    assert bench.bids == [D(95), D(96)]
    assert bench.market.counters["old_quotes"] == 3


def test_an_equal_sequence_with_other_sizes_is_a_correction() -> None:
    bench = Bench()
    bench.quote(sequence=5)

    bench.quote(sequence=5, bid_size="7")

    assert len(bench.sink.quotes) == 2


def test_a_lower_sequence_with_a_later_venue_time_is_a_reset() -> None:
    bench = Bench()
    bench.quote("90", sequence=500, venue_ns=1000)
    bench.quote("91", sequence=3, venue_ns=999)
    bench.quote("92", sequence=3, venue_ns=1001)

    assert bench.bids == [D(90), D(92)]


def test_quotes_that_stay_behind_one_are_followed_after_a_while() -> None:
    """One absurd id, without a time of the venue or with one to come, would be the touch for ever."""
    bench = Bench()
    behind_s = BEHIND_NS / NS
    bench.quote("90", sequence=2**62, venue_ns=bench.wall_ns * 2)
    bench.at(1).quote("91", sequence=7, venue_ns=bench.wall_ns)
    bench.at(1 + behind_s).quote("92", sequence=8, venue_ns=bench.wall_ns)
    assert bench.bids == [D(90)]
    bench.at(1.1 + behind_s).quote("93", sequence=9, venue_ns=bench.wall_ns)
    assert bench.bids == [D(90), D(93)]
    assert bench.market.counters["quote_id_resets"] == 1
    bench.at(20).quote("80", sequence=8)
    assert bench.bids == [D(90), D(93)], "the waiting begins anew"


def test_a_quote_that_is_repeated_for_long_is_no_news() -> None:
    bench = Bench()
    for second in range(20):
        bench.at(second).quote("90", sequence=5)
    assert bench.bids == [D(90)]


@pytest.mark.parametrize("price", ["0.000000001", "1.000000001", "0.123456789", "100000000000"])
def test_prices_that_money_cannot_express_take_their_instrument_out_of_the_market(price: str) -> None:
    bench = Bench()
    bench.quote("0.00000001", "200000")
    bench.quote(price, "90000000001")
    bench.quote("100", "200")
    bench.trade(1)

    assert bench.bids == [D("0.00000001"), None]
    assert bench.told == []
    assert bench.market.carried == (ETH,)
    assert bench.market.counters["too_fine"] == 1

    bench.market.connected(bench.now_ns)  # a new connection finds out for itself
    bench.quote("100.00000001", "200")
    assert bench.bids[-1] == D("100.00000001")
    assert bench.market.carried == (BTC, ETH)


@pytest.mark.parametrize("way", ["quote", "trade"])
def test_an_instrument_is_back_once_its_prices_can_be_kept_for_a_while(way: str) -> None:
    bench = Bench()
    bench.quote("100", "101")
    absurd = "100000000000.5"
    if way == "quote":
        bench.at(1).quote("100", absurd)
    else:
        bench.at(1).trade(1, price=absurd)
    assert bench.bids == [D(100), None]
    assert "too large" in bench.market.disabled[BTC]

    bench.at(2).quote("101", "102")  # from here on they can
    bench.at(2).trade(2)
    bench.at(2 + BACK_S - 0.001).quote("102", "103")
    assert bench.bids == [D(100), None]
    assert bench.told == []

    bench.at(2 + BACK_S).quote("103", "104")
    bench.trade(3)
    assert bench.bids == [D(100), None, D(103)]
    assert bench.told == [3]
    assert bench.market.carried == (BTC, ETH)
    assert bench.market.state is State.LIVE


def test_each_price_that_cannot_be_kept_begins_the_wait_again() -> None:
    bench = Bench()
    bench.quote("100", "101")
    for seconds in range(1, 60):
        price = "100.000000001" if seconds % 2 else "100"
        bench.at(seconds).quote(price, "101")
    assert bench.bids == [D(100), None]
    assert bench.market.counters["too_fine"] == 1


def test_a_lone_price_that_can_be_kept_now_and_then_says_nothing() -> None:
    bench = Bench()
    for number in range(1, 20):
        price = "100" if number % 3 == 0 else "100.000000001"
        bench.at(number * (BACK_S + 1)).quote(price, "101")
    assert bench.bids == []
    assert BTC in bench.market.disabled


def test_a_venue_all_of_whose_prices_were_absurd_is_live_again_with_the_first_that_is_believed() -> None:
    bench = Bench()
    for instrument in (BTC, ETH):
        bench.take(MarketEvent(instrument, Quote(D("0.000000001"), D(1), D(1), D(1))))
    assert bench.market.state is State.DISABLED
    for seconds in (1, 1 + BACK_S):
        bench.at(seconds).quote()
    assert bench.market.state is State.LIVE
    assert bench.market.carried == (BTC,)


def test_what_the_venue_itself_took_out_meanwhile_stays_out() -> None:
    bench = Bench()
    bench.quote("100", "100.000000001")
    bench.take(Disabled(BTC, "the venue does not trade it now"))
    for seconds in (1, 1 + BACK_S):
        bench.at(seconds).trade(round(seconds))
    assert bench.market.disabled == {BTC: "the venue does not trade it now"}


def test_a_price_that_was_fine_before_does_not_bring_back_an_instrument_that_is_out() -> None:
    bench = Bench()
    fine, too_fine = D("100"), D("100.000000001")
    trades = [Trade(str(n), n, n, fine, D(1), Side.BUY, bench.wall_ns) for n in (1, 2)]
    bench.quote("100", "101")
    bench.take(MarketEvent(BTC, trades[0]))
    bench.take(MarketEvent(BTC, Quote(too_fine, D(1), D(101), D(1))))

    bench.take(MarketEvent(BTC, trades[1]))
    bench.take(MarketEvent(BTC, Quote(fine, D(1), D(101), D(1))))

    assert bench.told == [1]
    assert bench.bids[-1] is None


# -- trades


def test_each_trade_is_told_once_also_across_connections() -> None:
    bench = Bench()
    for trade_id in (1, 2, 2, 1, 3):
        bench.trade(trade_id)
    bench.market.lost("closed")
    bench.market.connected(bench.now_ns)
    for trade_id in (2, 3, 4):
        bench.trade(trade_id)

    assert bench.told == [1, 2, 3, 4]
    assert bench.market.counters["duplicate_trades"] == 4
    assert bench.sink.gaps == []


def test_a_hole_in_the_ids_is_reported_with_its_ends() -> None:
    bench = Bench()
    bench.trade(10)
    bench.trade(14)
    bench.trade(20, first_id=15)
    bench.trade(30, first_id=25)

    assert bench.sink.gaps == [(BTC, 11, 13), (BTC, 21, 24)]
    assert bench.told == [10, 14, 20, 30]


def test_the_first_trade_ever_leaves_no_gap() -> None:
    bench = Bench()
    bench.trade(1_000_000)

    assert bench.sink.gaps == []


def test_history_sent_on_subscription_moves_the_watermark_and_is_never_told() -> None:
    bench = Bench()
    for trade_id in (5, 6, 7):
        bench.trade(trade_id, snapshot=True)
    for trade_id in (6, 7, 8):
        bench.trade(trade_id)

    assert bench.told == [8]
    assert bench.sink.gaps == []


def test_history_that_was_missed_between_connections_is_a_gap() -> None:
    bench = Bench()
    bench.trade(5)
    bench.market.connected(bench.now_ns)
    for trade_id in (4, 5, 6, 7):
        bench.trade(trade_id, snapshot=True)
    bench.trade(8)

    assert bench.told == [5, 8]
    assert bench.sink.gaps == [(BTC, 6, 6), (BTC, 7, 7)]


def test_only_the_first_print_of_a_connection_can_be_history() -> None:
    bench = Bench()
    bench.trade(5, age_ns=HISTORIC_TRADE_NS + 1)
    bench.trade(6, age_ns=HISTORIC_TRADE_NS + 1)
    assert bench.told == [6]

    bench.market.connected(bench.now_ns)
    bench.trade(7, age_ns=HISTORIC_TRADE_NS)
    bench.market.connected(bench.now_ns)
    bench.trade(8, age_ns=HISTORIC_TRADE_NS + 1)

    assert bench.told == [6, 7]
    assert bench.market.counters["historic_trades"] == 2


def test_a_venue_that_counts_anew_is_followed() -> None:
    bench = Bench()
    bench.trade(1_000_000)
    bench.at(59).trade(1)
    bench.at(ID_RESET_NS / NS).trade(2)
    bench.trade(3)

    assert bench.told == [1_000_000, 2, 3]
    assert bench.market.counters["trade_id_resets"] == 1
    assert bench.sink.gaps == []


def test_a_trade_of_a_time_to_come_does_not_silence_those_after_it() -> None:
    bench = Bench()
    bench.trade(2**62, age_ns=-(10**18))
    bench.at(1).trade(1)
    bench.at(ID_RESET_NS / NS + 1).trade(2)

    assert bench.told == [2**62, 2]


def test_a_trade_far_from_its_receipt_is_timed_by_its_receipt() -> None:
    bench = Bench()
    bench.trade(1, age_ns=100 * MS)
    bench.trade(2, age_ns=30 * NS)

    assert bench.sink.trade_times == [WALL_NS - 100 * MS, WALL_NS]
    assert bench.market.counters["trade_times_refused"] == 1


def test_trades_are_told_whatever_the_state() -> None:
    bench = Bench()
    bench.take(EngineStatus(online=False, reason="maintenance"))
    bench.trade(1)

    assert bench.told == [1]


@given(ids=st.lists(st.integers(0, 30), max_size=60), reconnect=st.sets(st.integers(0, 59)))
def test_any_order_of_ids_is_told_rising_and_with_every_hole_reported(ids: list[int], reconnect: set[int]) -> None:
    bench = Bench()
    for number, trade_id in enumerate(ids):
        if number in reconnect:
            bench.market.connected(bench.now_ns)
        bench.trade(trade_id)

    assert bench.told == sorted(set(bench.told))
    holes = {missed for _, start, end in bench.sink.gaps for missed in range(start, end + 1)}
    if ids:
        assert holes | set(bench.told) == set(range(ids[0], max(ids) + 1))
    assert not holes & set(bench.told)
