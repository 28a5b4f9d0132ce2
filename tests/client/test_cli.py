"""The command `router` against a running router: what it writes, and how it exits."""

import contextlib
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from router_client.cli import (
    EXIT_CREDENTIALS,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    main,
)

from tests.client.conftest import PASSWORD
from tests.running import Router

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUTER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("ROUTER_PASSWORD", PASSWORD)
    return tmp_path / "config"


@pytest.fixture
def run(router: Router, folder: Path) -> Run:
    """Run `router …` as nobody."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--url", router.url, *arguments])

    return run


@pytest.fixture
def trader(run: Run, name: str) -> Run:
    """Run `router …` as a user with money."""
    assert run("register", name).exit_code == 0
    assert run("deposit", "USDT", "100000").exit_code == 0
    return run


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_float=Decimal)


def test_the_market_needs_no_account(run: Run) -> None:
    assert "okx" in run("status").stdout
    assert "BTCUSDT" in run("info").stdout
    assert read(run("-o", "json", "info"))["paper"] is True


def test_the_token_is_kept_for_the_next_command_and_for_its_owner_only(run: Run, folder: Path, name: str) -> None:
    assert run("register", name).exit_code == 0

    file = folder / "credentials.json"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600  # noqa: PTH116
    assert PASSWORD not in file.read_text()
    assert run("balance").exit_code == 0
    assert run("logout").exit_code == 0
    assert run("balance").exit_code == EXIT_CREDENTIALS
    assert run("login", name).exit_code == 0
    assert run("balance").exit_code == 0


def test_an_old_token_is_renewed_and_the_new_one_kept(trader: Run, folder: Path, router: Router) -> None:
    file = folder / "credentials.json"
    kept = json.loads(file.read_text())
    kept[router.url]["access_token"] = "old"
    file.write_text(json.dumps(kept))

    assert trader("balance").exit_code == 0

    assert json.loads(file.read_text())[router.url]["access_token"] != "old"


def test_a_broken_file_of_credentials_is_nobody(run: Run, folder: Path) -> None:
    folder.mkdir()
    (folder / "credentials.json").write_text("{")

    assert run("balance").exit_code == EXIT_CREDENTIALS


def test_orders_from_the_command_line(trader: Run) -> None:
    bought = read(trader("-o", "json", "order", "buy", "BTCUSDT", "0.01"))
    resting = read(trader("-o", "json", "order", "buy", "btc/usdt", "0.01", "1000.5", "--token-id", "mine"))
    amended = read(trader("-o", "json", "amend", "mine", "--price", "1001"))

    assert bought["status"] == "filled"
    assert resting["price"] == Decimal("1000.5")
    assert amended["price"] == 1001
    assert "mine" in trader("orders", "--status", "open").stdout
    assert "cancelled" in trader("cancel", "mine").stdout
    assert "nothing was open" in trader("cancel", "--all").stdout
    assert bought["token_id"] in trader("fills").stdout
    assert bought["token_id"] in trader("fills", "--csv").stdout
    assert read(trader("-o", "json", "balance"))["balances"]
    assert "BTC" in trader("balance").stdout


def test_refusals_have_a_line_and_an_exit_code(trader: Run) -> None:
    refused = trader("order", "buy", "BTCUSDT", "1000", "1000000")
    assert (refused.exit_code, "insufficient_funds" in refused.stderr) == (EXIT_REFUSED, True)
    assert trader("cancel", "nobody has this").exit_code == EXIT_REFUSED
    assert trader("order", "buy", "BTCUSDT", "abc").exit_code == EXIT_USAGE
    assert trader("cancel").exit_code == EXIT_USAGE
    told = trader("-o", "json", "cancel", "nobody has this")
    assert json.loads(told.stderr)["code"] == "order_not_found"


def test_nobody_there_has_an_exit_code_of_its_own(folder: Path) -> None:
    result = CliRunner().invoke(main, ["--url", "http://127.0.0.1:9", "info"])

    assert result.exit_code == EXIT_UNREACHABLE
    assert "cannot be reached" in result.stderr


def test_watching_shows_touch_and_trades(trader: Run) -> None:
    lines = trader("-o", "json", "watch", "BTCUSDT", "--seconds", "5").stdout.splitlines()
    board = trader("watch", "BTCUSDT", "--seconds", "4").stdout

    assert {json.loads(line)["type"] for line in lines} == {"BestTouch", "Trade"}
    assert "spread" in board
    assert trader("watch", "NOPEUSDT", "--seconds", "1").exit_code == EXIT_REFUSED


TWAP = ("twap", "buy", "BTCUSDT", "0.06")
LONG = ("--seconds", "600", "--slices", "600")


def test_a_twap_order_is_watched_to_its_end(trader: Run) -> None:
    watched = trader(*TWAP, "--seconds", "6", "--slices", "3", "--token-id", "mine")

    assert watched.exit_code == 0, watched.output
    assert "3/3 slices" in watched.stderr, "the bar"
    assert "mine: filled, 0.06 of 0.06 BTCUSDT" in watched.stdout
    assert "the market over its time" in watched.stdout
    shown = read(trader("-o", "json", "show", "mine"))
    assert (shown["is_completed"], len(shown["executions"])) == (True, 3)
    assert trader("show", "mine").stdout == watched.stdout


def test_a_twap_order_as_json_is_nothing_but_json(trader: Run) -> None:
    done = trader("-o", "json", *TWAP, "--seconds", "1", "--slices", "2")

    assert read(done)["executed_quantity"] == Decimal("0.06")
    assert done.stderr == ""


def test_a_twap_order_may_be_left_to_itself_and_stopped(trader: Run) -> None:
    started = read(trader("-o", "json", *TWAP, *LONG, "--no-wait", "--token-id", "mine"))

    assert started["status"] == "open"
    assert "open" in trader("show", "mine").stdout
    assert "partially_filled" in trader("cancel", "mine").stdout
    assert trader("show", "nobody has this").exit_code == EXIT_REFUSED
    assert "BTCUSDT" in trader("show", read(trader("-o", "json", "order", "buy", "BTCUSDT", "0.01"))["token_id"]).stdout


@contextlib.contextmanager
def watching(router: Router, trader: Run, token_id: str, stdin: int) -> Iterator[subprocess.Popen[str]]:
    """Watch a long TWAP order in a process of its own, from its second slice on."""
    command = [sys.executable, "-m", "router_client.cli", "--url", router.url, *TWAP, *LONG, "--token-id", token_id]
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end_s = time.monotonic() + 20
        while "slices_executed" not in (found := trader("-o", "json", "show", token_id).stdout) or (
            json.loads(found)["slices_executed"] < 2
        ):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end_s
        yield process


def test_an_interrupt_leaves_the_order_running_where_nobody_can_be_asked(trader: Run, router: Router) -> None:
    with watching(router, trader, "left", subprocess.DEVNULL) as process:
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=10)

    assert process.returncode == EXIT_INTERRUPTED
    assert "router cancel left" in told
    assert read(trader("-o", "json", "show", "left"))["status"] == "open"


@pytest.mark.parametrize(("answer", "status", "code"), [("y", "partially_filled", 0), ("n", "open", EXIT_INTERRUPTED)])
def test_an_interrupt_asks_a_person(trader: Run, router: Router, answer: str, status: str, code: int) -> None:
    person, terminal = pty.openpty()
    try:
        with watching(router, trader, "asked", terminal) as process:
            os.write(person, f"{answer}\n".encode())
            process.send_signal(signal.SIGINT)
            shown, told = process.communicate(timeout=10)
    finally:
        os.close(person)
        os.close(terminal)

    assert process.returncode == code, told
    assert "Stop the order?" in told
    assert (status in shown) == (code == 0)
    assert read(trader("-o", "json", "show", "asked"))["status"] == status
