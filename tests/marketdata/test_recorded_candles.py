"""Candles of recorded sessions against the venue's own, and against the trades read a second way."""

from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from typing import Any

from core.candles import INTERVALS, Candle, CandleSeries
from marketdata.feed import NS
from marketdata.venues import VENUES
from tests.conftest import Frames
from tests.marketdata.replay import exact, received_ns, replay

MS = 1_000_000


def series_of(times: list[tuple[int, Decimal, Decimal, int]]) -> list[Candle]:
    """Feed trades (received, price, size, time) at their receive times, the clock ticking four times a second."""
    series = CandleSeries()
    now_ns = times[0][0]
    closed = list(series.advance(now_ns))
    for received, price, size, time_ns in times:
        while now_ns + NS // 4 <= received:
            now_ns += NS // 4
            closed += series.advance(now_ns)
        assert series.add(price, size, time_ns)
    for _ in range(4 * 3):
        now_ns += NS // 4
        closed += series.advance(now_ns)
    return closed


def test_candles_of_a_recorded_session_equal_those_of_its_trades_read_by_hand(captures: Frames) -> None:
    """The recorder's clock was 1.27 s slow: trades carry times of its future, and still land in their own second."""
    records = [record for record in captures("binance-spot-20240808-btcusdt") if "@trade" in record["raw"][:40]]
    sink = replay(VENUES["binance"], records, ["BTC-USDT"]).sink
    received = [received_ns(record) for record in records]
    assert len(sink.trades) == len(records)
    closed = series_of(
        [
            (at or 0, trade.price, trade.size, time_ns)
            for at, (_, trade), time_ns in zip(received, sink.trades, sink.trade_times, strict=True)
        ]
    )

    raw = [exact(record["raw"])["data"] for record in records]
    for interval in INTERVALS.values():
        by_hand = {
            start: (
                prices[0],
                max(prices),
                min(prices),
                prices[-1],
                sum((Decimal(trade["q"]) for trade in trades), Decimal(0)),
                len(trades),
            )
            for start, trades, prices in _windows(raw, interval)
        }
        ours = {candle.open_time: candle for candle in closed if candle.interval == interval}
        ended = {start: values for start, values in by_hand.items() if start in ours}
        assert len(ended) >= len(by_hand) - 2, "only the last window may still be open"
        assert len(ended) >= 600 // interval - 1
        for start, values in ended.items():
            candle = ours[start]
            whole = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.trades)
            if interval > 1 and candle.open != values[0]:  # it began with a second in which nothing traded
                assert candle.open == ours[start - interval].close
                continue
            assert whole == values
        for start, candle in ours.items():
            if start not in by_hand:
                assert (candle.volume, candle.trades) == (0, 0)


def _windows(raw: list[dict[str, Any]], interval: int) -> Iterator[tuple[int, list[dict[str, Any]], list[Decimal]]]:
    def start(trade: dict[str, Any]) -> int:
        return int(trade["T"]) // 1000 // interval * interval

    for opened, trades in groupby(sorted(raw, key=start), key=start):
        group = list(trades)
        yield opened, group, [Decimal(trade["p"]) for trade in group]


def test_candles_equal_the_venues_own_klines_wherever_all_trades_of_one_were_recorded(captures: Frames) -> None:
    """No kline was recorded to its close: open ones are compared, over the aggregated trades of the session."""
    messages = [exact(record["raw"]) for record in captures("binance-spot-20210417-10sym")]
    trades = [message["data"] for message in messages if message["stream"].endswith("@aggTrade")]
    compared = 0
    for kline in (message["data"]["k"] for message in messages if "@kline" in message["stream"]):
        inside = [trade for trade in trades if trade["s"] == kline["s"] and kline["f"] <= trade["f"] <= kline["L"]]
        if sum(trade["l"] - trade["f"] + 1 for trade in inside) != kline["n"]:
            continue  # some of its trades came before the recording
        series = CandleSeries()
        for trade in inside:
            assert series.add(Decimal(trade["p"]), Decimal(trade["q"]), int(trade["T"]) * MS)
        (ours,) = [
            candle for candle in series.current(int(kline["T"]) * MS) if candle.interval == INTERVALS[kline["i"]]
        ]
        assert ours.open_time == kline["t"] // 1000
        theirs = tuple(Decimal(kline[name]) for name in ("o", "h", "l", "c", "v"))
        assert (ours.open, ours.high, ours.low, ours.close, ours.volume) == theirs
        compared += 1
    assert compared >= 5
