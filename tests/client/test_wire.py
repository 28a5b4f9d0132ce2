"""Numbers and buffers: nothing rounds, nothing that matters is left out."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_client import wire
from router_client.buffers import Candles, Everything, Latest, Overflow
from router_client.models import Kline, Level

amounts = st.decimals(min_value=0, max_value=9 * 10**10, places=8)


@given(amounts)
def test_amounts_travel_exactly_both_ways(amount: Decimal) -> None:
    body = wire.encode({"amount": amount})

    assert json.loads(body, parse_float=Decimal, parse_int=Decimal)["amount"] == amount
    assert wire.decode(body, dict[str, Decimal])["amount"] == amount


@given(amounts)
def test_plain_digits_mean_the_same_number(amount: Decimal) -> None:
    text = wire.plain(amount)

    assert Decimal(text) == amount
    assert "E" not in text
    assert not (text.endswith("0") and "." in text)


@given(st.floats(min_value=0, max_value=10**10))
def test_a_float_stands_for_its_shortest_digits(value: float) -> None:
    assert str(wire.exact(value)) == repr(value) or wire.exact(value) == Decimal(repr(value))


@pytest.mark.parametrize("wrong", ["", "abc", "1,5", "nan", "Infinity", float("nan"), float("inf")])
def test_what_is_no_number_is_refused(wrong: str | float) -> None:
    with pytest.raises(ValueError, match="number"):
        wire.exact(wrong)


def test_numbers_without_a_type_are_exact_too() -> None:
    assert wire.decode(b'{"touch":{"price":0.1}}', dict[str, dict[str, Decimal]])["touch"]["price"] == Decimal("0.1")
    assert wire.decode(b"[[0.10,2]]", list[Level]) == [Level(Decimal("0.1"), Decimal(2))]


@given(st.lists(st.integers(), min_size=1))
def test_the_latest_replaces_what_waits(items: list[int]) -> None:
    buffer = Latest[int]()

    for item in items:
        buffer.put(item)

    assert len(buffer) == 1
    assert buffer.pop() == items[-1]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 20))
def test_everything_is_kept_in_order_or_the_loss_is_told(items: list[int], size_max: int) -> None:
    buffer = Everything[int](size_max)

    try:
        for item in items:
            buffer.put(item)
    except Overflow:
        assert len(items) > size_max
        items = items[:size_max]

    assert [buffer.pop() for _ in range(len(buffer))] == items


def kline(start: int, trades: int, *, is_closed: bool) -> Kline:
    one = Decimal(1)
    return Kline("BTCUSDT", "all", "1s", start, start + 1, one, one, one, one, one, trades, is_closed)


@given(st.lists(st.integers(0, 3), max_size=40), st.data())
def test_no_closed_candle_is_left_out_for_a_newer_one(updates: list[int], data: st.DataObject) -> None:
    """Whenever the reader reads, it sees each candle's last state, once closed, in order."""
    buffer = Candles(1_000)
    seen: list[Kline] = []

    for start, count in enumerate(updates):
        for trades in range(count):
            buffer.put(kline(start, trades, is_closed=False))
        buffer.put(kline(start, count, is_closed=True))
        if data.draw(st.booleans()):
            seen += [buffer.pop() for _ in range(len(buffer))]
    seen += [buffer.pop() for _ in range(len(buffer))]

    assert [one.start for one in seen if one.is_closed] == list(range(len(updates)))
