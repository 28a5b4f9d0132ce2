"""A short soak at a part of the load, with everything that the long one checks but the speed of this machine."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import soak
from bench.soak import Load, Window

LOAD = Load(duration_s=20, window_s=2, per_second=300, clients=40, traders=4)
GROWTH_MAX_MB = 15  # caches fill in the first seconds


def windows(*rss_mb: float, minutes: float = 60) -> list[Window]:
    step = minutes / (len(rss_mb) - 1)
    return [Window(number * step, 0, None, None, None, rss, 0, 0, 0, 0) for number, rss in enumerate(rss_mb)]


@pytest.mark.timeout(180)
async def test_nothing_grows_or_gets_lost_under_load(tmp_path: Path) -> None:
    soaked = await soak.soak(LOAD)
    soak.draw(soaked, tmp_path / "soak.svg")

    assert soaked.lost == 0
    assert soaked.closed == 0
    assert not soaked.orders.refused
    assert soaked.orders.report_holes == 0
    assert soaked.ledger == ""
    assert soaked.orders.commands > LOAD.traders * 10
    assert soaked.orders.reports > 0
    assert soaked.orders.twaps >= LOAD.traders
    assert len(soaked.windows) == LOAD.duration_s / LOAD.window_s
    assert sum(window.frames_per_s > 0 for window in soaked.windows) >= len(soaked.windows) - 1
    assert soaked.windows[-1].rss_mb - soaked.windows[1].rss_mb < GROWTH_MAX_MB
    picture = ElementTree.parse(tmp_path / "soak.svg").getroot()
    assert len(picture.findall("{*}polyline")) >= 5


def test_a_steady_growth_is_seen() -> None:
    some = windows(*[100 + number * 0.05 for number in range(31)], minutes=30)

    assert soak.growth_mb_per_h(some) == pytest.approx(3.0)
    assert soak.growth_mb_per_h(some) > soak.growth_max_mb_per_h(some)


def test_a_single_step_is_no_growth() -> None:
    assert soak.growth_mb_per_h(windows(*[100.0] * 5, *[104.0] * 26)) == 0.0


def test_a_saw_tooth_is_no_growth() -> None:
    assert abs(soak.growth_mb_per_h(windows(*[100.0 + number % 3 for number in range(31)]))) < 0.1


def test_a_short_run_s_limit_is_its_noise() -> None:
    assert soak.growth_max_mb_per_h(windows(100, 100, minutes=3)) == pytest.approx(soak.RSS_NOISE_MB * 20)
    assert soak.growth_max_mb_per_h(windows(100, 100, minutes=60)) == soak.RSS_GROWTH_MAX_MB_PER_H
