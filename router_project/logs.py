"""What is logged and how; no query string, token or password ever is."""

import logging
import re
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

HIDDEN = "…"
_SECRET_KEYS = re.compile(r"token|password|secret|authorization|api_?key|cookie", re.IGNORECASE)
_QUERY = re.compile(r"(?<=[^\s?\"'])\?[^\s\"'<>?]*=[^\s\"'<>]*")
_JWT = re.compile(r"\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?")
_API_KEY = re.compile(r"\bsr_[\w-]{20,}")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@\"']+@")  # of a URL: user and password
_TEXT_MAX = 8_000
_SAFE_KEYS = frozenset({"event", "level", "logger", "timestamp"})


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Hide query strings, tokens and passwords in an event's words and values."""
    for key, value in event.items():
        if key not in _SAFE_KEYS and _SECRET_KEYS.search(key):
            event[key] = HIDDEN
        elif isinstance(value, str):
            event[key] = without_secrets(value)
    return event


def without_secrets(text: str) -> str:
    """Return the text, cut to a bound, without query strings, tokens, API keys and the passwords of URLs."""
    text = _QUERY.sub("?" + HIDDEN, text[:_TEXT_MAX])
    for secret in (_JWT, _API_KEY, _CREDENTIALS):
        text = secret.sub(HIDDEN, text)
    return text


def _words(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Drop the log record's own objects: a request's repr shows its query string."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


class RequestLine(logging.Formatter):
    """Writes the line of a request, given as a mapping: one for each request, so a tenth of what the others cost."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._json = log_format == "json"

    def format(self, record: logging.LogRecord) -> str:
        told = record.msg
        assert isinstance(told, dict)
        line = {**told, "path": without_secrets(told["path"])}
        if self._json:
            head = {"logger": record.name, "level": "info", "timestamp": f"{_utc(record.created)}Z"}
            return msgspec.json.encode({**line, **head}).decode()
        return " ".join((f"{_utc(record.created)}Z", *(f"{name}={value!r}" for name, value in line.items())))


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def configure(log_format: str, level: str) -> dict[str, Any]:
    """Set structlog up and return Django's LOGGING: everything to stderr, as lines for people or JSON."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    if log_format == "json":
        last: list[Any] = [redact, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
    else:
        last = [redact, structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structlog": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [_words, structlog.processors.format_exc_info, *last],
            },
            "request": {"()": RequestLine, "log_format": log_format},
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "structlog"},
            "requests": {"class": "logging.StreamHandler", "formatter": "request"},
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django": {"handlers": [], "level": level, "propagate": True},
            "router.requests": {"handlers": ["requests"], "level": "INFO", "propagate": False},
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            "django.request": {"level": "ERROR"},  # a refused request is the client's news, not ours
            "django.security": {"level": "CRITICAL"},  # any scanner can cause these
            "daphne": {"level": "WARNING"},
            "uvicorn": {"handlers": [], "level": "WARNING", "propagate": True},
            "websockets": {"level": "WARNING"},
            "asyncio": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},  # of tests and tools; a line for each of their requests
        },
    }
