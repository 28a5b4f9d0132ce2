"""Which matcher settles which instrument, while several run: one leads, the others stand by.

On PostgreSQL a leader holds a session's advisory lock per instrument: they end with its
connection, however the process ends. On SQLite it holds a lock on a file beside the database.
Settling is safe without (every write is guarded); the lock only keeps two matchers from doing
the same work.
"""

import fcntl
import threading
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import psycopg
import structlog
from django.db import connection

log = structlog.get_logger(__name__)

POLL_S = 0.5  # between two attempts to get what somebody else leads
RETRY_S = 0.5  # after the connection was lost
STOP_S = 2.0
LOCK_SUFFIX = ".matcher.lock"
# A leader that vanished with its machine is forgotten by the server, and the server by it, within some seconds.
_CLIENT_LIMITS = {
    "connect_timeout": 3, "keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2,
    "tcp_user_timeout": 3000,
}  # fmt: skip
_SERVER_LIMITS = (
    "SET tcp_keepalives_idle = 1", "SET tcp_keepalives_interval = 1", "SET tcp_keepalives_count = 2",
    "SET tcp_user_timeout = 3000", "SET statement_timeout = 3000",
)  # fmt: skip


class Leadership:
    """Holds, in a thread of its own, the locks of as many instruments as nobody else leads.

    `held` is read from any thread and is empty the moment the locks may be lost. `changed` is
    called in the thread after each change.
    """

    def __init__(self, instruments: Iterable[str], changed: Callable[[], None]) -> None:
        self.held: frozenset[str] = frozenset()
        self._keys = {lock_key(instrument): instrument for instrument in instruments}
        self._changed = changed
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="matcher-leadership", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Lead nothing any more, and let the others have it."""
        self.held = frozenset()
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        hold = self._hold_locks if connection.vendor == "postgresql" else self._hold_file
        while not self._stopped.is_set():
            try:
                hold()
            except (psycopg.Error, OSError) as error:
                log.warning("the matcher's locks are lost; it stops until it has them again", error=str(error).strip())
            except Exception:
                log.exception("holding the matcher's locks failed")
            self._lead(frozenset())
            self._stopped.wait(RETRY_S)

    def _lead(self, held: frozenset[str]) -> None:
        if self._stopped.is_set():
            held = frozenset()
        if held != self.held:
            self.held = held
            log.info("the matcher leads", instruments=len(held), of=len(self._keys))
            self._changed()

    # -- PostgreSQL

    def _hold_locks(self) -> None:
        with psycopg.connect(**_parameters(), autocommit=True) as session:
            for statement in _SERVER_LIMITS:
                session.execute(statement)
            while not self._stopped.is_set():
                missing = [key for key, instrument in self._keys.items() if instrument not in self.held]
                # Asking even when nothing is missing proves that the session, and so its locks, are there.
                rows = session.execute(
                    "SELECT key FROM unnest(%s::bigint[]) AS key WHERE pg_try_advisory_lock(key)", [missing]
                ).fetchall()
                self._lead(self.held | {self._keys[key] for (key,) in rows})
                for _ in session.notifies(timeout=POLL_S):  # nobody notifies: it ends early when the connection does
                    pass

    # -- SQLite

    def _hold_file(self) -> None:
        path = _lock_file()
        if path is None:
            self._lead(frozenset(self._keys.values()))
            self._stopped.wait()
            return
        with path.open("a") as file:
            while not self._stopped.is_set():
                if _locked(file):
                    self._lead(frozenset(self._keys.values()))
                    self._stopped.wait()
                self._stopped.wait(POLL_S)


def lock_key(instrument: str) -> int:
    """Return the instrument's key among the database's advisory locks: the same in every process."""
    return int.from_bytes(blake2b(f"matcher {instrument}".encode(), digest_size=8).digest(), signed=True)


def _parameters() -> dict[str, Any]:
    """Return how to reach the database without its pool: a lock's connection belongs to nobody else."""
    given = connection.get_connection_params()
    for django_s in ("cursor_factory", "context", "prepare_threshold", "pool"):
        given.pop(django_s, None)
    return {**given, **_CLIENT_LIMITS, "application_name": "router matcher"}


def _lock_file() -> Path | None:
    """Return the file to lock, None for a database in memory: it has no other process."""
    name = str(connection.settings_dict["NAME"])
    if ":memory:" in name or "mode=memory" in name:
        return None
    return Path(name + LOCK_SUFFIX)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
