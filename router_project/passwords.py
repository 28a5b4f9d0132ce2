"""Password hashing: Argon2 at a cost that a login flood cannot turn into an outage."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.hashers import Argon2PasswordHasher

from core.errors import Unavailable

WAITING_MAX = 20
RETRY_AFTER_S = 1
NICENESS, NICENESS_MAX = 3, 19  # of the threads that hash, on top of the process's own

M_MMAP_THRESHOLD = -3  # of glibc's mallopt
LARGE = 4 * 2**20  # bytes; blocks from this size on are given back to the system when they are freed


def give_back_large_blocks() -> None:
    """Have a hash's memory returned: by default glibc keeps 19 MiB for each thread that ever hashed."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries return it anyway
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGE)


give_back_large_blocks()


class Busy(Unavailable):
    """More log-ins at once than this machine hashes in good time."""

    code = "busy"


class Gate:
    """Lets `width` callers in at a time and `waiting_max` more wait; the others are turned away."""

    def __init__(self, width: int, waiting_max: int) -> None:
        self._places = threading.BoundedSemaphore(width + waiting_max)
        self._open = threading.BoundedSemaphore(width)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            Busy: so many wait already that this caller would not be served soon.
        """
        if not self._places.acquire(blocking=False):
            raise Busy("too many log-ins at this moment; try again in a second", retry_after=RETRY_AFTER_S)
        try:
            with self._open:
                yield
        finally:
            self._places.release()


gate = Gate(os.cpu_count() or 1, WAITING_MAX)


def _step_back() -> None:
    """Let this thread run when nobody else wants to: who guesses passwords must not slow down who trades."""
    if sys.platform == "linux":  # elsewhere the priority is a process's
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + NICENESS, NICENESS_MAX))


_threads = ThreadPoolExecutor(os.cpu_count() or 1, "hashing", initializer=_step_back)


class Argon2(Argon2PasswordHasher):
    """Argon2id with OWASP's parameters (19 MiB, two passes, one lane), at most one hash a core."""

    time_cost = 2
    memory_cost = 19_456
    parallelism = 1

    def encode(self, password: str, salt: str) -> Any:
        with gate.enter():
            return _threads.submit(super().encode, password, salt).result()

    def verify(self, password: str, encoded: str) -> bool:
        with gate.enter():
            return bool(_threads.submit(super().verify, password, encoded).result())
