"""Ids are well-formed, and nobody has one twice: not even a process and its fork."""

import os
from uuid import RFC_4122, UUID

from core.ids import new_uuid, new_word

COUNT = 2_000


def test_uuids_are_random_ones_in_their_usual_form() -> None:
    made = [new_uuid() for _ in range(COUNT)]
    assert all(str(UUID(one)) == one and UUID(one).version == 4 and UUID(one).variant == RFC_4122 for one in made)
    assert {one[19] for one in made} == set("89ab")
    assert len(set(made)) == COUNT


def test_words_have_32_digits() -> None:
    made = {new_word() for _ in range(COUNT)}
    assert len(made) == COUNT
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in made)


def test_a_forked_process_makes_others() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, new_word().encode())
        os._exit(0)
    os.waitpid(child, 0)
    mine = new_word()
    assert os.read(reading, 32).decode() != mine
    os.close(reading)
    os.close(writing)
