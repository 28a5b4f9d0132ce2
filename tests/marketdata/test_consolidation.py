"""Candles over all venues, made from the seconds of feeds in several processes: as if one had heard every trade."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.candles import GRACE_NS, Candle, CandleSeries
from marketdata.batches import SecondsBatch, read_seconds, seconds_message
from marketdata.consolidation import LATE_S, Consolidation, Seconds

NS = 1_000_000_000
QUARTER = NS // 4
T0 = 1_700_000_100
BTC = "BTC-USDT"
VENUES = ("binance", "okx", "kraken")
END_S = 12

Print = tuple[str, Decimal, Decimal, int]  # venue, price, size, time

TRADES = st.lists(
    st.tuples(
        st.sampled_from(VENUES),
        st.integers(1, 20).map(lambda ticks: Decimal(ticks) / 4),
        st.integers(1, 10**12).map(lambda units: Decimal(units).scaleb(-8)),
        st.integers(NS, END_S * NS),
    ),
    max_size=60,
    unique_by=lambda trade: trade[3],
).map(lambda trades: sorted(trades, key=lambda trade: trade[3]))


class Process:
    """Feeds of some venues: trades in, a batch every quarter of a second."""

    def __init__(self, number: int, *venues: str, began_ns: int = T0 * NS) -> None:
        self.venues = venues
        self.series = {(venue, BTC): CandleSeries() for venue in venues}
        self.seconds = Seconds(f"publisher {number}", venues, began_ns)
        for venue in venues:
            self.seconds.observe(venue, True)

    def tick(self, now_ns: int) -> SecondsBatch:
        batch = self.seconds.batch(self.series, now_ns)
        for series in self.series.values():
            series.advance(now_ns)
        return read_seconds(seconds_message(batch))  # as it arrives elsewhere


def quarters() -> range:
    """Return the ticks' times: the one that closes a second is a moment after its grace."""
    return range(T0 * NS + GRACE_NS, (T0 + END_S + 2) * NS, QUARTER)


def consolidate(trades: list[Print], processes: list[Process], lost: set[int]) -> list[Candle]:
    """Run the processes' batches but the lost ones through the consolidator."""
    consolidation = Consolidation([BTC], VENUES)
    closed: list[Candle] = []
    waiting = list(trades)
    number = 0
    for now_ns in quarters():
        while waiting and T0 * NS + waiting[0][3] < now_ns:
            venue, price, size, time_ns = waiting.pop(0)
            at_ns = T0 * NS + time_ns
            for process in processes:
                if venue in process.venues:
                    assert process.series[venue, BTC].add(price, size, at_ns, at_ns)
        for process in processes:
            batch = process.tick(now_ns)
            number += 1
            if number not in lost:
                consolidation.take(batch)
            closed += _closed(consolidation, now_ns)
    return closed


def straight(trades: list[Print]) -> list[Candle]:
    """Return the candles of one series that hears every trade."""
    series, closed, waiting = CandleSeries(), [], list(trades)
    for now_ns in quarters():
        while waiting and T0 * NS + waiting[0][3] < now_ns:
            _, price, size, time_ns = waiting.pop(0)
            assert series.add(price, size, T0 * NS + time_ns)
        closed += series.advance(now_ns)
    return closed


def _closed(consolidation: Consolidation, now_ns: int) -> list[Candle]:
    return [candle for _, closed, _ in consolidation.advance(now_ns) for candle in closed]


def values(candles: list[Candle]) -> list[tuple[object, ...]]:
    return [
        (one.interval, one.open_time, one.open, one.high, one.low, one.close, one.volume, one.trades) for one in candles
    ]


def split() -> list[Process]:
    return [Process(number, venue) for number, venue in enumerate(VENUES)]


@given(TRADES)
def test_candles_of_split_feeds_equal_those_of_one_process(trades: list[Print]) -> None:
    expected = straight(trades)

    for processes in (split(), [Process(0, *VENUES)], [Process(0, "okx"), Process(1, "kraken", "binance")]):
        candles = consolidate(trades, processes, lost=set())
        assert values(candles) == values(expected)
        whole = [candle for candle in candles if candle.interval == 1 and candle.open_time > T0 + 2]
        assert not any(candle.partial for candle in whole)


@given(TRADES, st.integers(0, 3 * 4 * END_S))
def test_a_batch_that_the_layer_loses_changes_no_candle(trades: list[Print], lost: int) -> None:
    assert values(consolidate(trades, split(), lost={lost})) == values(straight(trades))


def test_a_second_waits_for_every_venue_and_not_for_ever() -> None:
    consolidation = Consolidation([BTC], VENUES)
    processes = split()
    now_ns = T0 * NS + GRACE_NS
    for tick in range(20):  # everyone is there for five seconds
        for process in processes:
            consolidation.take(process.tick(now_ns + tick * QUARTER))
        _closed(consolidation, now_ns + tick * QUARTER)
    processes[0].series["binance", BTC].add(Decimal(5), Decimal(1), (T0 + 5) * NS, 1)
    end_ns = (T0 + 6) * NS + GRACE_NS
    for process in processes[:2]:
        consolidation.take(process.tick(end_ns))
    assert _closed(consolidation, end_ns) == []

    late_ns = end_ns + LATE_S * NS
    for process in processes[:2]:
        consolidation.take(process.tick(late_ns))
    (candle,) = _closed(consolidation, late_ns)

    assert (candle.open_time, candle.open, candle.trades, candle.partial) == (T0 + 5, Decimal(5), 1, True)


def test_a_process_that_starts_again_adds_to_its_second_and_marks_it_partial() -> None:
    consolidation = Consolidation([BTC], ("okx",))
    process = Process(0, "okx")
    for now_ns in range(T0 * NS + GRACE_NS, (T0 + 5) * NS, QUARTER):
        if now_ns > (T0 + 4) * NS + GRACE_NS:
            process.series["okx", BTC].add(Decimal(5), Decimal(1), now_ns - 1, now_ns - 1)
        consolidation.take(process.tick(now_ns))
        _closed(consolidation, now_ns)
    again = Process(1, "okx", began_ns=(T0 + 4) * NS + 3 * QUARTER)
    again.series["okx", BTC].add(Decimal(7), Decimal(2), (T0 + 4) * NS + 3 * QUARTER, (T0 + 5) * NS)
    candles: list[Candle] = []
    for now_ns in range((T0 + 5) * NS + GRACE_NS, (T0 + 8) * NS, QUARTER):
        consolidation.take(again.tick(now_ns))
        candles += _closed(consolidation, now_ns)

    seconds = {candle.open_time - T0: candle for candle in candles if candle.interval == 1}
    assert (seconds[4].trades, seconds[4].volume, seconds[4].close, seconds[4].partial) == (3, 4, 7, True)
    assert not seconds[6].partial


def test_a_hole_that_is_told_late_makes_its_own_second_partial_too() -> None:
    """The process stood still from second 4 on; early in second 6, before 4 was closed, a venue came back."""
    consolidation = Consolidation([BTC], VENUES)
    process = Process(0, *VENUES)
    candles: list[Candle] = []
    late_ns = (T0 + 6) * NS + GRACE_NS // 2
    for now_ns in (*range(T0 * NS + GRACE_NS, (T0 + 4) * NS, QUARTER), *range(late_ns, (T0 + 10) * NS, QUARTER)):
        if now_ns == late_ns:
            process.seconds.observe("okx", False)
            process.seconds.observe("okx", True)
        process.series["binance", BTC].add(Decimal(1), Decimal(1), now_ns - 1, now_ns - 1)
        consolidation.take(process.tick(now_ns))
        candles += _closed(consolidation, now_ns)
    partial = [candle.open_time - T0 for candle in candles if candle.interval == 1 and candle.partial]
    assert partial[-3:] == [4, 5, 6]


def test_nothing_is_closed_before_any_feeds_spoke() -> None:
    assert list(Consolidation([BTC], VENUES).advance(T0 * NS)) == []


@pytest.mark.parametrize("observed_again", [True, False])
def test_seconds_in_which_a_venue_was_away_are_partial(observed_again: bool) -> None:
    consolidation = Consolidation([BTC], VENUES)
    processes = split()
    candles: list[Candle] = []
    for now_ns in quarters():
        if now_ns == (T0 + 4) * NS + GRACE_NS + QUARTER:
            processes[1].seconds.observe("okx", False)
            processes[1].seconds.observe("okx", observed_again)
        processes[0].series["binance", BTC].add(Decimal(1), Decimal(1), now_ns - 1, now_ns - 1)
        for process in processes:
            consolidation.take(process.tick(now_ns))
        candles += _closed(consolidation, now_ns)
    partial = {candle.open_time - T0 for candle in candles if candle.interval == 1 and candle.partial}

    assert 4 in partial
    assert not {2, 3} & partial
    assert (8 in partial) is not observed_again
