"""The configuration: what is taken, and what is refused with one clear line."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured

from router_project.environment import Environment, database, derived_key, secret_key
from tests import services

ROOT = Path(__file__).resolve().parent.parent.parent
LONG_KEY = "k" * 40


def run(*code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` in a process of its own with these variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "manage.py", *code],
        cwd=ROOT,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PORT", "eighty", "from 0 to 65535"),
        ("PORT", "70000", "from 0 to 65535"),
        ("DEBUG", "maybe", "true or false"),
        ("MARKET_SOURCE", "real", "auto, live, simulated"),
        ("SYMBOLS", "BTCUSDT", "BASE-QUOTE"),
        ("SYMBOLS", "AB-CUSDT,ABC-USDT", "both be ABCUSDT"),
        ("VENUES", "binance,nyse", "nyse"),
        ("OKX_WS_URL", "https://okx.com", "wss://"),
        ("VENUE_STALE_AFTER_S", "NaN", "number"),
        ("VENUE_STALE_AFTER_S", "-1", "number"),
        ("ACCESS_TOKEN_MINUTES", "0", "whole number"),
        ("RATE_LIMITS", "some", "true or false"),
        ("TAKER_FEE_BPS", "1_0", "number"),
        ("CORS_ORIGINS", "*", "origin"),
        ("DATABASE_URL", "mysql://root@localhost/x", "postgres://"),
        ("REDIS_URL", "localhost:6379", "redis://"),
        ("SECRET_KEY", "short", "32 bytes"),
        ("LOG_FORMAT", "xml", "console, json"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_it(name: str, value: str, told: str) -> None:
    result = run("check", **{name: value})
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"configuration: {name}")
    assert told in result.stderr


def test_defaults_and_empty_values_pass_the_check() -> None:
    assert run("check", PORT="", SYMBOLS="", DATABASE_URL="", SECRET_KEY="").returncode == 0


def test_production_does_not_start_without_a_good_secret_key() -> None:
    url = "postgres://user:hunter2@localhost/db"
    for key, told in (("", "not set"), ("short", "shorter than 32 bytes")):
        result = run("check", DATABASE_URL=url, SECRET_KEY=key)
        assert result.returncode == 1
        assert result.stderr.startswith("configuration: SECRET_KEY")
        assert told in result.stderr
        assert "hunter2" not in result.stderr
    assert run("check", DATABASE_URL=url, SECRET_KEY=LONG_KEY).returncode == 0


def test_the_simulated_market_has_its_own_database() -> None:
    shown = "from django.conf import settings; print(settings.DATABASES['default']['NAME'])"
    assert run("shell", "-c", shown, MARKET_SOURCE="simulated").stdout.strip().endswith("/data/simulated.sqlite3")
    assert run("shell", "-c", shown, MARKET_SOURCE="live").stdout.strip().endswith("/data/router.sqlite3")
    given = run("shell", "-c", shown, MARKET_SOURCE="simulated", DATABASE_URL="sqlite:////nowhere/../tmp/x.sqlite3")
    assert given.stdout.strip().endswith("tmp/x.sqlite3")


def test_sqlite_waits_for_its_turn_and_syncs(tmp_path: Path) -> None:
    config = database("sqlite:///deep/er/router.sqlite3", tmp_path)
    assert config["NAME"] == str(tmp_path / "deep/er/router.sqlite3")
    assert (tmp_path / "deep/er").is_dir()
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "synchronous=FULL" in config["OPTIONS"]["init_command"]


def test_postgresql_gets_a_small_checked_pool(tmp_path: Path) -> None:
    config = database("postgres://user:p%40ss@db.example:5433/router", tmp_path)
    assert (config["HOST"], config["PORT"], config["NAME"], config["PASSWORD"]) == (
        "db.example",
        5433,
        "router",
        "p@ss",
    )
    assert config["OPTIONS"]["pool"] == {"min_size": 2, "max_size": 10, "timeout": 3, "reconnect_timeout": 2.0}
    assert config["CONN_HEALTH_CHECKS"]
    assert config["CONN_MAX_AGE"] == 0


def test_postgresql_and_its_clients_forget_each_other_when_one_vanishes(tmp_path: Path) -> None:
    services.require("postgres")
    config = database(f"{services.POSTGRES_URL}?options=-c%20work_mem%3D5MB&keepalives_idle=7", tmp_path)
    options = {name: value for name, value in config["OPTIONS"].items() if name != "pool"}
    with psycopg.connect(services.POSTGRES_URL, **options) as session:
        names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")
        servers = [session.execute(f"SHOW tcp_{name}").fetchone() for name in names]
        work_mem = session.execute("SHOW work_mem").fetchone()
        given = session.info.get_parameters()
    assert servers == [("5",), ("2",), ("3",), ("10000",)]
    assert (given["keepalives_interval"], given["keepalives_count"], given["tcp_user_timeout"]) == ("2", "3", "10000")
    assert (work_mem, given["keepalives_idle"]) == (("5MB",), "7")  # what the URL says is kept


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://a@b/c", "postgres://user:hunter2@host", "sqlite3://x"])
def test_another_database_is_refused_without_showing_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured) as refusal:
        database(url, tmp_path)
    assert "DATABASE_URL" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_a_made_key_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret_key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: secret_key("", production=False, kept_in=path), range(8)))
    assert len(keys) == 1, "processes that start together agree"
    assert len(keys.pop()) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_an_emptied_key_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret_key"
    path.write_text("")
    with pytest.raises(ImproperlyConfigured, match="holds no secret key"):
        secret_key("", production=False, kept_in=path)


def test_a_derived_key_says_nothing_about_others() -> None:
    keys = {derived_key(LONG_KEY, "a"), derived_key(LONG_KEY, "b"), derived_key(LONG_KEY + "x", "a"), LONG_KEY}
    assert len(keys) == 4


def test_words_are_split_and_kept_once() -> None:
    assert Environment({"NAMES": " a, b,,a "}).words("NAMES") == ("a", "b")
    assert Environment({"NAMES": "  "}).words("NAMES", "c") == ("c",)


def test_the_file_gives_way_to_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("ROUTER_TEST_A=file\nROUTER_TEST_B=file\n")
    monkeypatch.setenv("ROUTER_TEST_A", "process")
    monkeypatch.setenv("ROUTER_TEST_B", "")
    monkeypatch.delenv("ROUTER_TEST_B")
    env: Any = Environment.load(file)
    assert env.text("ROUTER_TEST_A") == "process"
    assert env.text("ROUTER_TEST_B") == "file"
    os.environ.pop("ROUTER_TEST_B")
