"""Reads the configuration: one variable, one check, one line for who wrote a wrong value."""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

TRUE = frozenset({"true", "on", "yes", "1"})
FALSE = frozenset({"false", "off", "no", "0"})
SECRET_LENGTH_MIN = 32  # bytes
POSTGRES_EXAMPLE = "postgres://user:password@host:5432/name"
# A pool that lost its server tries again ever more rarely, for so long; then each request makes it try at once.
RECONNECT_S = 2.0
# Whoever vanished with its machine is forgotten by the other side within some ten seconds (and not after two hours, as
# systems do by themselves): the server lets go of the rows that it had locked, a process looks for its server anew.
VANISHED = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
_SHOWN_MAX = 80

T = TypeVar("T")


class Environment:
    """The process's variables, completed by a `.env` file where there is one.

    Every method raises `ImproperlyConfigured`, naming the variable and what to write, for a value
    that it does not understand. An empty value counts as unset.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    @classmethod
    def load(cls, env_file: Path) -> "Environment":
        """Return the process's environment; what it sets wins over the file."""
        if env_file.is_file():
            environ.Env.read_env(env_file)
        return cls(os.environ)

    def text(self, name: str, default: str = "") -> str:
        return self._variables.get(name, "").strip() or default

    def flag(self, name: str, default: bool) -> bool:
        text = self.text(name).lower()
        if not text:
            return default
        if text not in TRUE | FALSE:
            _refuse(name, text, "true or false")
        return text in TRUE

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            _refuse(name, text, f"a whole number from {least} to {most}")
        return int(text)

    def decimal(self, name: str, default: str, *, least: str, most: str) -> Decimal:
        text = self.text(name, default)
        try:
            value = Decimal(text)
        except InvalidOperation:
            value = Decimal("NaN")
        if value.is_nan() or not text.isascii() or "_" in text or not Decimal(least) <= value <= Decimal(most):
            _refuse(name, text, f"a number from {least} to {most}")
        return value

    def choice(self, name: str, default: str, choices: Iterable[str]) -> str:
        text = self.text(name, default).lower()
        if text not in choices:
            _refuse(name, text, f"one of {', '.join(choices)}")
        return text

    def words(self, name: str, default: str = "") -> tuple[str, ...]:
        """Return the comma-separated words, each once."""
        return tuple(dict.fromkeys(word.strip() for word in self.text(name, default).split(",") if word.strip()))

    def url(self, name: str, default: str, schemes: Iterable[str]) -> str:
        text = self.text(name, default)
        if text:
            check_url(name, text, schemes)
        return text

    def parsed(self, name: str, default: str, parse: Callable[[tuple[str, ...]], T]) -> T:
        """Return what `parse` makes of the comma-separated words; its ValueError is the refusal."""
        try:
            return parse(self.words(name, default))
        except ValueError as error:
            raise ImproperlyConfigured(f"{name}: {error}") from None


def check_url(name: str, text: str, schemes: Iterable[str]) -> None:
    """Refuse what is no URL of one of the schemes. The value is not shown: it may hold a password."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ImproperlyConfigured(f"{name} is not a URL; write {' or '.join(f'{scheme}://…' for scheme in schemes)}")


def check_origins(origins: tuple[str, ...]) -> list[str]:
    """Return CORS origins, each scheme://host[:port].

    Raises:
        ValueError: one is something else, for example `*` or a URL with a path.
    """
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError(f"{origin!r} is not an origin; write for example https://app.example.com")
    return list(origins)


def database(url: str, base_dir: Path) -> dict[str, Any]:
    """Return Django's settings of the database that a URL names; relative SQLite paths start at `base_dir`.

    Raises:
        ImproperlyConfigured: it is neither SQLite nor PostgreSQL.
    """
    scheme = url.partition(":")[0]
    if scheme not in ("sqlite", "postgres", "postgresql"):
        raise ImproperlyConfigured(
            f"DATABASE_URL is not understood; write sqlite:///data/router.sqlite3 or {POSTGRES_EXAMPLE}"
        )
    try:
        config: dict[str, Any] = dict(environ.Env.db_url_config(url))
    except Exception:
        raise ImproperlyConfigured(f"DATABASE_URL cannot be read; write {POSTGRES_EXAMPLE}") from None
    if scheme == "sqlite":
        return _sqlite(config, base_dir)
    if not config.get("NAME"):
        raise ImproperlyConfigured(f"DATABASE_URL names no database; write {POSTGRES_EXAMPLE}")
    return _postgresql(config)


def _sqlite(config: dict[str, Any], base_dir: Path) -> dict[str, Any]:
    name = config["NAME"] or ":memory:"
    if name != ":memory:":
        path = base_dir / name  # an absolute name stays as it is
        _make_directory(path.parent, "DATABASE_URL")
        name = str(path)
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": name,
        "OPTIONS": {
            # Writers queue at BEGIN (a later lock upgrade fails at once, whatever the timeout),
            # and a commit is on the disk before it is acknowledged.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA foreign_keys=ON",
        },
    }


def _postgresql(config: dict[str, Any]) -> dict[str, Any]:
    pool = {"min_size": 2, "max_size": 10, "timeout": 3, "reconnect_timeout": RECONNECT_S}
    given = config.get("OPTIONS", {})
    ours = {name: value for name, value in VANISHED.items() if name not in given}
    servers = " ".join(f"-c tcp_{name.removeprefix('tcp_')}={value}" for name, value in VANISHED.items())
    options = {**ours, **given, "options": f"{servers} {given.get('options', '')}".strip(), "pool": pool}
    return {
        **config,
        "ENGINE": "django.db.backends.postgresql",
        "CONN_MAX_AGE": 0,  # the pool keeps the connections; one kept per thread would leak
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
    }


def secret_key(given: str, *, production: bool, kept_in: Path) -> str:
    """Return the secret key: as given, else for the embedded profile one made once and kept in a file.

    Raises:
        ImproperlyConfigured: production without a key, or with one that can be guessed.
    """
    advice = "; make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if production and not given:
        raise ImproperlyConfigured(f"SECRET_KEY is not set; on PostgreSQL nothing starts without one{advice}")
    if given and len(given.encode()) < SECRET_LENGTH_MIN:
        raise ImproperlyConfigured(f"SECRET_KEY is shorter than {SECRET_LENGTH_MIN} bytes{advice}")
    return given or _kept_secret(kept_in)


def derived_key(secret: str, purpose: str) -> str:
    """Return a key for one purpose that says nothing about the secret."""
    return hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def _kept_secret(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        kept = path.read_text().strip()
        if len(kept.encode()) < SECRET_LENGTH_MIN:
            raise ImproperlyConfigured(f"{path} holds no secret key; delete it, or set SECRET_KEY")
        return kept
    _make_directory(path.parent, "SECRET_KEY")
    mine = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    mine.touch(mode=0o600)
    mine.write_text(secrets.token_urlsafe(48))
    _sync(mine)  # before it has its name: a power loss would leave an empty file, with which nothing starts
    try:
        # Linking is atomic: of two processes that start together, both end up with the first one's key.
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)
        _sync(path.parent)
        return path.read_text().strip()
    finally:
        mine.unlink()


def _sync(path: Path) -> None:
    """Wait until what is in a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directory(path: Path, name: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"{path} cannot be made ({error.strerror}); set {name}") from None


def _refuse(name: str, text: str, expected: str) -> NoReturn:
    raise ImproperlyConfigured(f"{name}={text[:_SHOWN_MAX]!r}: write {expected}")
