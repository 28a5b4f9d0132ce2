import itertools
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ewma import Ewma

NS = 1_000_000_000
PRICES = st.decimals(min_value="0.00000001", max_value="100000", places=8)
GAPS = st.integers(0, 1000 * NS)


@given(st.lists(st.tuples(PRICES, GAPS), min_size=1, max_size=40), st.floats(0.01, 10_000))
def test_the_average_equals_the_closed_formula(trades, half_life) -> None:
    """Each price weighs what its own step gave it, times what all later steps left of it."""
    ewma = Ewma(half_life)
    time_ns = 1_700_000_000 * NS
    times = []
    for price, gap in trades:
        time_ns += gap
        times.append(time_ns)
        ewma.update(price, time_ns)

    kept = [0.0] + [2 ** (-(later - earlier) / NS / half_life) for earlier, later in itertools.pairwise(times)]
    expected = math.fsum(
        float(price) * (1 - kept[index]) * math.prod(kept[index + 1 :]) for index, (price, _) in enumerate(trades)
    )
    assert ewma.value == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(PRICES, st.lists(GAPS, max_size=20), st.floats(1e-300, 1e300))
def test_a_constant_price_is_its_own_average(price, gaps, half_life) -> None:
    ewma = Ewma(half_life)
    time_ns = 0
    for gap in gaps:
        time_ns += gap
        ewma.update(price, time_ns)
    assert ewma.update(price, time_ns) == pytest.approx(float(price), rel=1e-12)


def test_after_one_half_life_the_old_value_weighs_one_half() -> None:
    ewma = Ewma(30)
    ewma.update(Decimal(100), 0)
    assert ewma.update(Decimal(200), 30 * NS) == pytest.approx(150)


def test_a_trade_from_before_the_last_one_changes_nothing() -> None:
    ewma = Ewma(30)
    ewma.update(Decimal(100), 10 * NS)
    assert ewma.update(Decimal(200), 9 * NS) == 100
    assert ewma.update(Decimal(200), 40 * NS) == pytest.approx(150)
