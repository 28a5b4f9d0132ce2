from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.candles import GRACE_NS, INTERVALS, JUMP_MAX_S, Candle, CandleSeries, trade_time_ns

NS = 1_000_000_000
T0 = 1_700_000_100  # a multiple of five minutes
assert T0 % 300 == 0

Print = tuple[Decimal, Decimal, int]  # price, size, time

PRICES = st.integers(1, 20).map(lambda ticks: Decimal(ticks) / 4)
SIZES = st.integers(1, 10**12).map(lambda units: Decimal(units).scaleb(-8))
TRADES = st.lists(st.tuples(PRICES, SIZES, st.integers(0, 700 * NS)), max_size=80)


def replay(trades: Sequence[Print], *, until_s: int) -> list[Candle]:
    """Feed trades in the order of their times and let the clock tick every quarter of a second."""
    series = CandleSeries()
    series.advance(T0 * NS + GRACE_NS)
    closed: list[Candle] = []
    waiting = list(trades)
    for quarter in range(4 * (until_s - T0) + 1):
        now_ns = T0 * NS + quarter * NS // 4
        while waiting and waiting[0][2] < now_ns:
            assert series.add(*waiting.pop(0))
        closed += series.advance(now_ns)
    return closed


def straight(trades: Sequence[Print], interval: int, until_s: int) -> list[tuple[object, ...]]:
    """Compute an interval's candles from the trades alone."""
    if not trades:
        return []
    candles: list[tuple[object, ...]] = []
    first = trades[0][2] // NS // interval * interval
    close = trades[0][0]
    for start in range(first, until_s - interval + 1, interval):
        inside = [(price, size) for price, size, time in trades if start * NS <= time < (start + interval) * NS]
        prices = [price for price, _ in inside] or [close]
        # A window that begins with a flat second opens at the close before it.
        flat_first = start != first and not any(start * NS <= time < (start + 1) * NS for *_, time in trades)
        if flat_first:
            prices.insert(0, close)
        volume = sum((size for _, size in inside), Decimal(0))
        candles.append((start, prices[0], max(prices), min(prices), prices[-1], volume, len(inside)))
        close = prices[-1]
    return candles


def shape(candle: Candle) -> tuple[object, ...]:
    return (candle.open_time, candle.open, candle.high, candle.low, candle.close, candle.volume, candle.trades)


@given(TRADES)
def test_every_interval_equals_the_candles_computed_straight_from_the_trades(times) -> None:
    trades = [(price, size, T0 * NS + time) for price, size, time in sorted(times, key=lambda trade: trade[2])]
    until_s = T0 + 900

    closed = replay(trades, until_s=until_s + 1)

    for interval in INTERVALS.values():
        mine = [shape(candle) for candle in closed if candle.interval == interval and candle.open_time < until_s]
        assert mine == straight(trades, interval, until_s)
    assert not [candle for candle in closed if candle.partial and candle.open_time > T0 + 300]


@given(TRADES, st.integers(0, 720 * 4))
def test_the_running_candle_is_what_would_close_if_nothing_more_came(times, quarter) -> None:
    now_ns = T0 * NS + quarter * NS // 4
    trades = [
        (price, size, T0 * NS + time)
        for price, size, time in sorted(times, key=lambda trade: trade[2])
        if T0 * NS + time < now_ns
    ]
    series = CandleSeries()
    for trade in trades:
        series.add(*trade)
    for second in range(T0, now_ns // NS):
        series.advance(second * NS)
    series.advance(now_ns)

    running = {candle.interval: candle for candle in series.current(now_ns)}

    for interval in INTERVALS.values():
        start = now_ns // NS // interval * interval
        then = CandleSeries()
        for trade in trades:
            then.add(*trade)
        ended = [
            candle
            for second in range(T0, start + interval + 1)
            for candle in then.advance(second * NS + GRACE_NS)
            if candle.interval == interval and candle.open_time == start
        ]
        assert [shape(candle) for candle in ended] == ([shape(running[interval])] if interval in running else [])
        assert not any(candle.closed for candle in running.values())


def test_a_trade_within_the_grace_counts_and_a_later_one_is_refused() -> None:
    series = CandleSeries()
    series.advance(T0 * NS + GRACE_NS)
    series.add(Decimal(5), Decimal(1), T0 * NS)
    assert series.advance((T0 + 1) * NS + GRACE_NS - 1) == []
    assert series.add(Decimal(6), Decimal(1), T0 * NS + NS - 1)
    (candle,) = series.advance((T0 + 1) * NS + GRACE_NS)
    assert (candle.close, candle.trades) == (Decimal(6), 2)
    assert not series.add(Decimal(7), Decimal(1), T0 * NS + NS - 1)


def test_there_is_no_candle_before_the_first_trade_and_a_flat_one_in_every_quiet_second_after_it() -> None:
    series = CandleSeries()
    assert series.advance(T0 * NS) == []
    assert series.advance((T0 + 3) * NS) == []
    assert series.current((T0 + 3) * NS) == []
    series.add(Decimal(5), Decimal(1), (T0 + 3) * NS)
    closed = series.advance((T0 + 6) * NS + GRACE_NS)
    assert [(candle.open_time - T0, candle.volume, candle.trades) for candle in closed] == [
        (3, Decimal(1), 1), (4, Decimal(0), 0), (5, Decimal(0), 0),
    ]  # fmt: skip
    assert {candle.close for candle in closed} == {Decimal(5)}


def test_seconds_that_were_not_observed_are_partial_and_so_is_every_candle_over_them() -> None:
    series = CandleSeries()
    series.advance(T0 * NS + GRACE_NS)
    series.add(Decimal(5), Decimal(1), T0 * NS)
    series.advance((T0 + 2) * NS + GRACE_NS)
    series.observe(False)
    series.advance((T0 + 4) * NS + GRACE_NS)
    series.observe(True)
    closed = series.advance((T0 + 20) * NS + GRACE_NS)
    seconds = {candle.open_time - T0: candle.partial for candle in closed if candle.interval == 1}
    assert [second for second, partial in seconds.items() if partial] == [4]
    tens = {candle.open_time - T0: candle.partial for candle in closed if candle.interval == 10}
    assert tens == {0: True, 10: False}


def test_the_second_in_which_observing_began_again_is_partial_although_earlier_ones_are_still_open() -> None:
    series = CandleSeries()
    series.advance(T0 * NS + GRACE_NS)
    series.add(Decimal(5), Decimal(1), T0 * NS)
    series.advance((T0 + 3) * NS)
    series.observe(False)
    series.observe(True, (T0 + 4) * NS + GRACE_NS // 2)  # the second before is closed later than that
    (running,) = [candle for candle in series.current((T0 + 4) * NS + GRACE_NS // 2) if candle.interval == 1]
    assert running.partial
    closed = series.advance((T0 + 8) * NS + GRACE_NS)
    assert [candle.open_time - T0 for candle in closed if candle.interval == 1 and candle.partial] == [2, 3, 4]


def test_the_second_of_the_start_is_partial_although_the_one_before_is_still_open() -> None:
    series = CandleSeries()
    series.add(Decimal(5), Decimal(1), T0 * NS)
    series.advance(T0 * NS + GRACE_NS // 2)
    closed = series.advance((T0 + 3) * NS + GRACE_NS)
    assert [(candle.open_time - T0, candle.partial) for candle in closed if candle.interval == 1] == [
        (0, True), (1, False), (2, False),
    ]  # fmt: skip


def test_a_restart_goes_on_with_the_open_candles_and_marks_them_partial() -> None:
    before = CandleSeries()
    before.advance(T0 * NS + GRACE_NS)
    before.add(Decimal(5), Decimal(1), T0 * NS)
    stored = [candle for candle in before.advance((T0 + 95) * NS + GRACE_NS) if candle.interval == 1]

    after = CandleSeries()
    missed = after.restore(stored, (T0 + 130) * NS)
    after.advance((T0 + 130) * NS + GRACE_NS)
    after.add(Decimal(7), Decimal(2), (T0 + 140) * NS)
    closed = after.advance((T0 + 200) * NS) + after.advance((T0 + 300) * NS + GRACE_NS)

    assert [(candle.interval, candle.open_time - T0, candle.partial) for candle in missed] == [
        (10, 90, True), (60, 60, True),
    ]  # fmt: skip
    (five,) = [candle for candle in closed if candle.interval == 300]
    assert (five.open, five.high, five.volume, five.trades, five.partial) == (
        Decimal(5),
        Decimal(7),
        Decimal(3),
        2,
        True,
    )
    minutes = {candle.open_time - T0: candle.partial for candle in closed if candle.interval == 60}
    assert minutes == {120: True, 180: False, 240: False}


@pytest.mark.parametrize("jump_s", [-3600, 3600, 10**9])
def test_a_clock_that_is_set_makes_no_candles_of_the_time_between(jump_s) -> None:
    series = CandleSeries()
    series.advance(T0 * NS + GRACE_NS)
    series.add(Decimal(5), Decimal(1), T0 * NS)
    series.advance((T0 + 1) * NS + GRACE_NS)
    assert abs(jump_s) > JUMP_MAX_S

    closed = series.advance((T0 + jump_s) * NS + GRACE_NS)
    assert len(closed) <= 1 + len(INTERVALS)
    assert series.add(Decimal(6), Decimal(1), (T0 + jump_s) * NS)
    assert [candle.close for candle in series.advance((T0 + jump_s + 1) * NS + GRACE_NS) if candle.interval == 1] == [
        Decimal(6)
    ]


def test_sums_of_sizes_lose_no_digit() -> None:
    series = CandleSeries()
    series.advance(T0 * NS + GRACE_NS)
    sizes = [Decimal("12345678901234567890.12345678"), Decimal("0.000000000001")]
    for size in sizes:
        series.add(Decimal(5), size, T0 * NS)
    (candle,) = series.advance((T0 + 1) * NS + GRACE_NS)
    assert str(candle.volume) == "12345678901234567890.123456780001"


def test_a_venue_time_far_from_ours_is_not_believed() -> None:
    assert trade_time_ns(venue_ns=10 * NS, received_ns=12 * NS) == 10 * NS
    assert trade_time_ns(venue_ns=12 * NS, received_ns=10 * NS) == 12 * NS
    assert trade_time_ns(venue_ns=10 * NS, received_ns=12 * NS + 1) == 12 * NS + 1
    assert trade_time_ns(venue_ns=12 * NS + 1, received_ns=10 * NS) == 10 * NS
