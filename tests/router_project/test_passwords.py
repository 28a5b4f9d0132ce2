"""What a hash leaves behind."""

import gc
import os
import sys
import threading
from pathlib import Path

import pytest
from django.contrib.auth.hashers import check_password, make_password

from router_project.passwords import NICENESS, NICENESS_MAX, Argon2

THREADS = 8
KEPT_MAX_MB = THREADS * Argon2.memory_cost / 1024 / 4


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and the allocator meant is glibc's")
def test_threads_that_hashed_keep_no_memory() -> None:
    encoded = make_password("password123")
    met = threading.Barrier(THREADS)

    def log_in() -> None:
        met.wait()
        assert check_password("password123", encoded)
        assert check_password("password123", encoded)  # the second one went to the heap that the first had grown
        met.wait()  # a thread that ends would take its heap along

    gc.collect()
    before_mb = resident_mb()
    threads = [threading.Thread(target=log_in) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert resident_mb() - before_mb < KEPT_MAX_MB


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
def test_hashes_let_everybody_else_go_first() -> None:
    assert check_password("password123", make_password("password123"))
    hashing = [thread for thread in threading.enumerate() if thread.name.startswith("hashing")]
    own = os.getpriority(os.PRIO_PROCESS, os.getpid())
    assert hashing
    for thread in hashing:
        assert os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) == min(own + NICENESS, NICENESS_MAX)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
