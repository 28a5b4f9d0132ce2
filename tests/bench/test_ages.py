"""The histogram of ages, and the check that every client got every trade."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.ages import COARSE_S, FEWEST, FINE_S, Ages
from bench.clients import Received, holes

FINE_AGES = st.floats(0, 0.199)


def counted(ages_s: list[float]) -> Ages:
    ages = Ages()
    for age_s in ages_s:
        ages.add(age_s)
    return ages


def received(*ids: int, numbered: bool = True) -> Received:
    one = Received()
    for trade_id in ids:
        one.take(trade_id, numbered=numbered)
    return one


@given(st.lists(FINE_AGES, min_size=FEWEST, max_size=300), st.floats(0.01, 1))
def test_a_quantile_is_the_sorted_list_s_to_one_cell(ages_s: list[float], share: float) -> None:
    exact = min(age for age in ages_s if sum(other <= age for other in ages_s) >= share * len(ages_s))

    edges = FINE_S * 1.001  # which are not exact in binary
    assert counted(ages_s).quantile_s(share) == pytest.approx(exact, abs=edges)


@given(st.lists(FINE_AGES, max_size=200), st.lists(st.floats(0, 100), max_size=200))
def test_merged_windows_are_one_run(first: list[float], second: list[float]) -> None:
    merged = counted(first)
    merged.merge(counted(second))

    assert merged.latency() == counted(first + second).latency()


def test_old_ages_are_counted_coarsely_and_the_oldest_exactly() -> None:
    latency = counted([*[1.5] * 99, 700.25]).latency()

    assert latency is not None
    assert latency.p50 == pytest.approx(statistics.median([1500]), abs=COARSE_S * 1000)
    assert latency.max == 700_250


def test_too_few_ages_have_no_99th_percentile() -> None:
    assert counted([0.001] * (FEWEST - 1)).latency() is None


def test_clients_that_got_the_same_lost_nothing() -> None:
    assert holes([received(5, 6, 7), received(5, 6, 7)]) == 0


@pytest.mark.parametrize(
    ("ids", "lost"),
    [
        ((5, 7), 1),  # a hole
        ((6, 7), 1),  # the first
        ((5, 6), 1),  # the last
        ((5, 6, 6, 7), 1),  # twice
        ((5, 7, 6), 1),  # out of order
        ((), 3),
    ],
)
def test_a_client_that_lacks_a_trade_or_got_it_twice_is_seen(ids: tuple[int, ...], lost: int) -> None:
    assert holes([received(5, 6, 7), received(*ids)]) >= lost


def test_a_hole_that_all_have_shows_by_number() -> None:
    assert holes([received(5, 7), received(5, 7)]) == 2


def test_ids_that_are_not_numbered_by_one_are_compared_between_clients() -> None:
    assert holes([received(5, 9, numbered=False), received(5, 9, numbered=False)]) == 0
    assert holes([received(5, 9, numbered=False), received(5, 8, numbered=False)]) > 0
