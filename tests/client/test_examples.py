"""Each example runs by itself against a running router and ends with 0."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, Router

pytestmark = pytest.mark.timeout(90)


def run(router: Router, name: str, *arguments: str) -> str:
    command = [sys.executable, f"examples/{name}.py", "--url", router.url, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_full_tour_sees_everything(router: Router) -> None:
    shown = run(router, "full_tour")

    assert shown.endswith("all of it worked\n")
    assert shown.count("refused, as it should") == 3


def test_the_orders_end_as_they_should(router: Router) -> None:
    assert "market order: buy 0.1 BTCUSDT" in run(router, "orders")


def test_every_stream_is_shown(router: Router) -> None:
    shown = run(router, "streams", "--seconds", "5")

    assert {line.split()[0] for line in shown.splitlines()} >= {"touch", "trade", "kline", "ewma", "book", "all"}


def test_trades_are_recorded(router: Router, tmp_path: Path) -> None:
    run(router, "record_trades", "--seconds", "5", "--file", str(tmp_path / "trades.csv"), "BTCUSDT", "ETHUSDT")

    with (tmp_path / "trades.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["symbol"] for row in rows} == {"BTCUSDT", "ETHUSDT"}
    trades = [(row["exchange"], row["symbol"], row["trade_id"]) for row in rows]
    assert len(set(trades)) == len(trades)


def test_the_follower_ends_in_time_without_a_position(router: Router) -> None:
    assert "result:" in run(router, "follower", "--seconds", "3", "--edge-bps", "0")


def test_a_twap_order_is_shown_slice_by_slice(router: Router) -> None:
    shown = run(router, "twap", "--seconds", "2", "--slices", "4")

    assert shown.count("slice ") >= 4
    assert "filled: 0.06 of 0.06 at" in shown
    assert "the market over its time:" in shown


def test_every_example_is_run() -> None:
    """One test for each file, by its name."""
    text = Path(__file__).read_text()
    for example in (ROOT / "examples").glob("*.py"):
        assert f'run(router, "{example.stem}"' in text, example


def test_a_router_that_is_not_there_is_told() -> None:
    command = [sys.executable, "examples/full_tour.py", "--url", "http://127.0.0.1:9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
