"""One clock for all sockets of a process, and the check that their users still may."""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

import structlog
from channels.db import database_sync_to_async

from accounts.authentication import Identity, authenticate_token, revoked_among

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 1.0
REVOCATION_INTERVAL_S = 3.0  # a disabled or deleted user is cut off within this time and a little
DATABASE_THREADS = 4

P = ParamSpec("P")
R = TypeVar("R")

_executor = ThreadPoolExecutor(DATABASE_THREADS, thread_name_prefix="sockets")


def in_database(function: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """Make a function that reads the database awaitable: it runs in one of the sockets' own threads."""
    made: Callable[P, Awaitable[R]] = database_sync_to_async(function, thread_sensitive=False, executor=_executor)
    return made


authenticate = in_database(authenticate_token)
_revoked_among = in_database(revoked_among)


class Session(Protocol):
    """An open socket as the clock sees it."""

    identity: Identity | None

    async def check(self, now_s: float) -> None:
        """Once a second: hold the socket to its limits."""

    async def cut_off(self) -> None:
        """The user is no more, or may no more."""


class Sessions:
    """The open sockets of one event loop."""

    def __init__(self) -> None:
        self._open: set[Session] = set()
        self._clock: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, session: Session) -> None:
        self._open.add(session)
        if self._clock is None:
            self._clock = asyncio.create_task(self._tick(), name="sessions")

    def discard(self, session: Session) -> None:
        self._open.discard(session)
        if not self._open and self._clock is not None:
            self._clock.cancel()
            self._clock = None

    async def _tick(self) -> None:
        revocation_s = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now_s = time.monotonic()
            for session in tuple(self._open):
                try:
                    await session.check(now_s)
                except Exception:
                    log.exception("checking a socket failed")
            if now_s - revocation_s >= REVOCATION_INTERVAL_S:
                revocation_s = now_s
                try:
                    await self._cut_off_revoked()
                except Exception:
                    log.exception("sockets could not be checked against the accounts; trying again")

    async def _cut_off_revoked(self) -> None:
        identities = {session.identity for session in self._open if session.identity is not None}
        if not identities:
            return
        revoked = await _revoked_among(identities)
        for session in tuple(self._open):
            if session.identity in revoked:
                await session.cut_off()


_sessions: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Sessions]" = weakref.WeakKeyDictionary()


def current_sessions() -> Sessions:
    """Return the open sockets of this event loop."""
    return _sessions.setdefault(asyncio.get_running_loop(), Sessions())
