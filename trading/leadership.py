"""Which matcher settles which instrument, while several run: one leads each, the others stand by.

On PostgreSQL a leader holds a session's advisory lock per instrument: they end with its
connection, however the process ends. Matchers may have shares of the instruments: each leads its
own while it lives and those of the others while they do not, and gives them back when asked. On
SQLite there is no sharing: a leader holds a lock on a file beside the database.
Settling is safe without (every write is guarded); the lock only keeps two matchers from doing
the same work.
"""

import fcntl
import threading
import time
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
PATIENCE_S = 5.0  # after its start a matcher leaves others' instruments alone: they may just be starting too
GIVEN_S = 3.0  # so long, what was given back is left to who asked for it
WANTED = "matcher_wants"  # the channel on which a matcher asks for its own: keys of locks, at most `ASKED_MAX` at once
ASKED_MAX = 300
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
    called in the thread after each change. `share` (number, of how many) is the part of the
    instruments that this one leads while all live.
    """

    def __init__(
        self, instruments: Iterable[str], changed: Callable[[], None], share: tuple[int, int] = (1, 1)
    ) -> None:
        self.held: frozenset[str] = frozenset()
        self._keys = {lock_key(instrument): instrument for instrument in instruments}
        number, of = share
        self._own = frozenset(list(self._keys.values())[number - 1 :: of])
        self._patient_until_s = time.monotonic() + (PATIENCE_S if of > 1 else 0)
        self._given_s: dict[str, float] = {}  # instrument → when it was given back
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
            session.execute(f"LISTEN {WANTED}")
            while not self._stopped.is_set():
                missing = [key for key, instrument in self._keys.items() if self._may_take(instrument)]
                # Asking even when nothing is missing proves that the session, and so its locks, are there.
                rows = session.execute(
                    "SELECT key FROM unnest(%s::bigint[]) AS key WHERE pg_try_advisory_lock(key)", [missing]
                ).fetchall()
                self._lead(self.held | {self._keys[key] for (key,) in rows})
                self._ask(session)
                # It ends early when the connection does; until it ends nothing else can be asked of the session.
                for asked in list(session.notifies(timeout=POLL_S)):
                    self._give(session, asked.payload)

    def _may_take(self, instrument: str) -> bool:
        if instrument in self.held:
            return False
        now_s = time.monotonic()
        given_s = self._given_s.get(instrument)
        others = now_s >= self._patient_until_s and (given_s is None or now_s - given_s >= GIVEN_S)
        return instrument in self._own or others

    def _ask(self, session: "psycopg.Connection[Any]") -> None:
        """Ask whoever leads instruments of our share to give them back."""
        lacking = [str(key) for key, instrument in self._keys.items() if instrument in self._own - self.held]
        if lacking:
            session.execute("SELECT pg_notify(%s, %s)", [WANTED, ",".join(lacking[:ASKED_MAX])])

    def _give(self, session: "psycopg.Connection[Any]", payload: str) -> None:
        """Give back what is another's share: first stop to lead it, then let go of its locks."""
        asked = {int(key) for key in payload.split(",") if key.lstrip("-").isdigit()}
        given = {key for key in asked if self._keys.get(key) in self.held - self._own}
        if given:
            names = {self._keys[key] for key in given}
            self._given_s |= dict.fromkeys(names, time.monotonic())
            self._lead(self.held - names)
            session.execute("SELECT pg_advisory_unlock(key) FROM unnest(%s::bigint[]) AS key", [list(given)])

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
