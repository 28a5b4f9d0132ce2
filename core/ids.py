"""Names that nobody else has. They are no secrets: whoever guesses one gains nothing.

The kernel's random numbers cost a system call each, and Python gives up the interpreter for it: where another thread
waits for that, an id costs a turn of both. The kernel seeds these, in each process anew.
"""

import os
import random

_random = random.Random()  # noqa: S311 # nosec B311 # not the module's own, which tests make repeat itself
os.register_at_fork(after_in_child=_random.seed)


def new_word() -> str:
    """Return 32 random hexadecimal digits."""
    return f"{_random.getrandbits(128):032x}"


def new_uuid() -> str:
    """Return a random UUID (version 4)."""
    word = new_word()
    return f"{word[:8]}-{word[8:12]}-4{word[13:16]}-{'89ab'[int(word[16], 16) % 4]}{word[17:20]}-{word[20:]}"
