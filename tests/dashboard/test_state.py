"""What the streams bring, folded into what the page shows."""

from decimal import Decimal

from router_client import Candle, Kline, Status, TouchStatus, Trade

from dashboard.state import CANDLES_KEPT, TRADES_KEPT, Market, Watched, assets_of, marks, middle


def market() -> Market:
    return Market(Watched("BTCUSDT", "all", "1s"))


def kline(start: int, close: int, *, closed: bool = False, trades: int = 1) -> Kline:
    price = Decimal(close)
    return Kline(
        "BTCUSDT", "all", "1s", start, start + 1, price, price, price, price, Decimal(1), trades, is_closed=closed
    )  # fmt: skip


def candle(start: int, close: int, *, closed: bool = True, trades: int = 1) -> Candle:
    price = Decimal(close)
    return Candle(start, price, price, price, price, Decimal(1), trades, is_closed=closed)


def trade(number: int) -> Trade:
    return Trade("BTCUSDT", "okx", str(number), Decimal(100), Decimal(1), "buy", float(number))


def closes(of: Market) -> list[tuple[int, int]]:
    return [(one.timestamp, int(one.close)) for one in of.candles]


def test_the_running_candle_is_replaced_until_it_is_closed() -> None:
    shown = market()
    shown.take_kline(kline(10, 1))
    shown.take_kline(kline(10, 2))
    shown.take_kline(kline(10, 3, closed=True))
    shown.take_kline(kline(10, 4))  # late: the closed one is final

    assert closes(shown) == [(10, 3)]


def test_history_fills_what_the_stream_did_not_tell_and_takes_nothing_back() -> None:
    shown = market()
    shown.take_kline(kline(12, 5, trades=9))
    shown.take_history([candle(10, 1), candle(11, 2), candle(12, 4, closed=False, trades=3)])

    assert closes(shown) == [(10, 1), (11, 2), (12, 5)]


def test_a_stored_closed_candle_replaces_a_running_one() -> None:
    shown = market()
    shown.take_kline(kline(10, 1, trades=2))
    shown.take_history([candle(10, 7, trades=5)])

    assert closes(shown) == [(10, 7)]


def test_it_keeps_the_newest_and_no_more() -> None:
    shown = market()
    for number in range(2 * CANDLES_KEPT):
        shown.take_kline(kline(number, 1, closed=True))
    for number in range(2 * TRADES_KEPT):
        shown.take_trade(trade(number))

    assert [one.timestamp for one in shown.candles] == list(range(CANDLES_KEPT, 2 * CANDLES_KEPT))
    assert [int(one.trade_id) for one in shown.trades] == list(range(2 * TRADES_KEPT - 1, TRADES_KEPT - 1, -1))


def test_assets_are_found_in_a_symbol() -> None:
    assert assets_of("BTCUSDT", ["BTC", "USDT"]) == ("BTC", "USDT")
    assert assets_of("ETHBTC", ["BTC", "ETH", "USDT"]) == ("ETH", "BTC")


def test_an_asset_is_worth_the_middle_of_its_touch() -> None:
    touch = TouchStatus(best_bid=Decimal(99), best_ask=Decimal(101))
    empty = TouchStatus()
    status = Status("live", {}, {"BTCUSDT": touch, "ETHUSDT": empty, "ETHBTC": touch})

    assert marks(status) == {"USDT": 1, "BTC": 100}
    assert middle(None, Decimal(5)) == 5
    assert middle(None, None) is None
