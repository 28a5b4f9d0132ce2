"""What an account was worth: from ledger entries and candles."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from router_client import Candle, Entry

from dashboard import equity
from dashboard.equity import Closes

HOUR = 3_600


def entry(at: int, asset: str, amount: int | str, kind: str = "fill") -> Entry:
    return Entry(asset=asset, amount=Decimal(amount), kind=kind, created_at=datetime.fromtimestamp(at, UTC))


def candle(start: int, opened: int, close: int) -> Candle:
    low, high = sorted((Decimal(opened), Decimal(close)))
    return Candle(start, Decimal(opened), high, low, Decimal(close), Decimal(1), 1, is_closed=True)


BOUGHT = [  # newest first: 1 000 in, 2 bought at 100
    entry(70, "BTC", 2),
    entry(70, "USDT", -200),
    entry(10, "USDT", 1_000, "deposit"),
]
TOTALS = {"USDT": Decimal(800), "BTC": Decimal(2)}
PRICES = {"BTC": Closes([candle(0, 90, 100), candle(60, 100, 110), candle(120, 110, 50)], 60)}


def test_the_past_is_priced_by_the_closes_that_were_known_then() -> None:
    points = equity.rebuild(BOUGHT, TOTALS, PRICES, now=200)

    assert [(point.at, point.value) for point in points] == [
        (10, 1_000),  # the deposit
        (60, 1_000),
        (70, 1_000),  # bought at 100, which is the last close
        (120, 1_020),
        (180, 900),
    ]


def test_candles_after_now_tell_nothing() -> None:
    assert [point.at for point in equity.rebuild(BOUGHT, TOTALS, PRICES, now=100)] == [10, 60, 70]


def test_a_ledger_without_its_beginning_starts_from_what_was_held() -> None:
    points = equity.rebuild(BOUGHT[:2], TOTALS, PRICES, now=100)

    assert [(point.at, point.value) for point in points] == [(70, 1_000)]


def test_what_was_paid_in_is_no_profit() -> None:
    more = [entry(130, "BTC", 1, "credit"), *BOUGHT]

    assert equity.paid_in(more, PRICES) == 1_000 + 110


def test_assets_without_a_price_are_named_and_count_nothing() -> None:
    held = {"USDT": Decimal(5), "DOGE": Decimal(7), "ADA": Decimal(0)}

    assert equity.worth(held, {"USDT": Decimal(1)}) == 5
    assert equity.unpriced(held, {"USDT": Decimal(1)}) == ["DOGE"]


def test_nobody_without_entries_has_a_past() -> None:
    assert equity.rebuild([], {}, {}, now=100) == []


@given(st.lists(st.tuples(st.integers(1, HOUR), st.integers(-(10**12), 10**12)), min_size=1, max_size=30))
def test_the_last_point_is_what_the_account_has(changes: list[tuple[int, int]]) -> None:
    entries = [entry(at, "USDT", Decimal(amount).scaleb(-8)) for at, amount in sorted(changes, reverse=True)]
    total = sum((one.amount for one in entries), Decimal(0))

    points = equity.rebuild(entries, {"USDT": total}, {}, now=2 * HOUR)

    assert points[-1].value == total
    assert [point.at for point in points] == sorted({at for at, _ in changes})
