"""What never reaches the log."""

import io
import json
import logging
from typing import Any

import pytest
import structlog

from router_project import logs

KEY = "sr_" + "aB3-_" * 8 + "xyz"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoxfQ.c2lnbmF0dXJl"


@pytest.fixture(params=["console", "json"])
def written(request: pytest.FixtureRequest) -> Any:
    """Return a stream that a handler of our format writes to, for the logger "secrets"."""
    config = logs.configure(request.param, "DEBUG")["formatters"]["structlog"]
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=config["foreign_pre_chain"], processors=config["processors"]
        )
    )
    logger = logging.getLogger("secrets")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    logger.propagate = False
    yield stream
    logger.removeHandler(handler)


def test_no_secret_is_logged(written: io.StringIO) -> None:
    plain, structured = logging.getLogger("secrets"), structlog.get_logger("secrets")
    plain.warning("GET /ws?token=%s HTTP/1.1", TOKEN)
    plain.warning("handshake of /ws?x=1&token=hunter2 failed")
    plain.warning("Authorization: Bearer %s", TOKEN)
    plain.warning("X-API-Key: %s", KEY)
    structured.warning("no such key", path=f"/api-keys/{KEY}", error=f"key '{KEY}' is none")
    structured.warning(
        "away", error="cannot connect to redis://router:hunter2@redis:6379/0 and postgres://hunter2@db/x"
    )
    structured.warning("a log-in", password="hunter2", access_token="hunter2", api_key="hunter2", path="/a?q=hunter2")
    try:
        raise ValueError(f"bad url /ws?token={TOKEN}")
    except ValueError:
        plain.exception("it failed")
        structured.exception("it failed again")
    text = written.getvalue()
    assert "hunter2" not in text
    assert KEY[:12] not in text
    assert "redis:6379/0" in text, "the address itself is worth knowing"
    assert TOKEN not in text
    assert "eyJ" not in text
    assert "it failed again" in text
    assert text.count("ValueError") >= 2


def test_json_logs_are_one_object_a_line() -> None:
    formatter = logs.configure("json", "INFO")["formatters"]["structlog"]
    record = logging.LogRecord("any", logging.INFO, "", 0, "two\nlines", (), None)
    line = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=formatter["foreign_pre_chain"], processors=formatter["processors"]
    ).format(record)
    assert "\n" not in line
    assert json.loads(line)["event"] == "two\nlines"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_requests_line_is_one_line_without_secrets(log_format: str) -> None:
    told = {"event": "request", "path": f"/orders/{TOKEN}\r\nevent=made up", "status": 404}
    record = logging.LogRecord("router.requests", logging.INFO, "", 0, told, (), None)  # type: ignore[arg-type]
    line = logs.RequestLine(log_format).format(record)
    assert "eyJ" not in line
    assert len(line.splitlines()) == 1
    assert "404" in line
    if log_format == "json":
        assert json.loads(line)["path"].endswith("\r\nevent=made up")
