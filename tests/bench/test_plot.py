"""The charts of the benches."""

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import plot

VALUES = st.lists(st.none() | st.floats(0, 1e7), min_size=1, max_size=30)


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_ticks_hold_both_ends_and_are_few(one: float, other: float) -> None:
    low, high = sorted((one, other))
    ticks = plot._ticks(low, high)

    assert ticks[0] <= low + 1e-6
    assert ticks[-1] >= high - 1e-6
    assert 2 <= len(ticks) <= plot.TICKS + 3


@given(VALUES)
def test_any_values_make_a_picture_inside_its_frame(values: list[float | None]) -> None:
    panels = [plot.Panel("a < b", " ms", [plot.Line("p99", values), plot.Line("p50", values)], limit=5)]
    root = ElementTree.fromstring(plot.svg("A & B", "<below>", [float(n) for n in range(len(values))], panels))

    height = float(root.attrib["height"])
    for line in root.findall("{*}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert plot.LEFT - 0.1 <= x <= plot.WIDTH - plot.RIGHT + 0.1
            assert 0 <= y <= height


def test_a_hole_in_the_values_splits_the_line() -> None:
    panel = plot.Panel("p99", " ms", [plot.Line("p99", [1.0, 2.0, None, 3.0, 4.0])])
    root = ElementTree.fromstring(plot.svg("", "", [0, 1, 2, 3, 4], [panel]))

    assert len(root.findall("{*}polyline")) == 2


@pytest.mark.parametrize(("low", "high", "ticks"), [(0, 5, [0, 2, 4, 6]), (0, 300, [0, 100, 200, 300])])
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert plot._ticks(low, high) == ticks
