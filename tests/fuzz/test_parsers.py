"""Hypothesis at the venues' adapters: raw bytes, and real frames, damaged; `tests.fuzz.parsers` goes on for longer."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from core.events import Body, Channel
from marketdata.venue import Venue
from marketdata.venues import VENUES
from marketdata.venues.okx import OKX
from tests.conftest import NO_CAPTURES
from tests.fuzz.corpus import mutated
from tests.fuzz.parsers import recorded, seeds, simulated, survives

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
pytestmark = pytest.mark.timeout(120 + EXAMPLES)

venues = pytest.mark.parametrize("venue", VENUES.values(), ids=VENUES)


@st.composite
def histories(draw: st.DrawFn, good: list[bytes]) -> list[bytes]:
    """Some good frames, damaged ones and noise, in any order."""
    dice = random.Random(draw(st.integers(0, 2**32)))
    frames = draw(st.lists(st.one_of(st.sampled_from(good), st.binary(max_size=60)), min_size=1, max_size=8))
    return [mutated(frame, dice) if dice.random() < 0.7 else frame for frame in frames]


def test_an_adapter_that_raises_and_one_that_falls_silent_are_seen() -> None:
    def raising(payload: str | bytes) -> list[Body]:
        raise KeyError(payload)

    def silent(payload: str | bytes) -> list[Body]:
        return []

    for parse in (raising, silent):
        planted = structs.replace(OKX, parse={**OKX.parse, Channel.TRADES: parse})
        with pytest.raises((KeyError, AssertionError)):
            survives(planted, [])


@venues
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_a_venue_comes_back_from_whatever_it_said(venue: Venue, data: st.DataObject) -> None:
    survives(venue, data.draw(histories([frame.encode() for frame in seeds(venue.name)])))


@venues
@settings(max_examples=EXAMPLES, deadline=None)
@given(frames=st.lists(st.binary(max_size=400), max_size=6))
def test_raw_bytes_change_nothing(venue: Venue, frames: list[bytes]) -> None:
    survives(venue, frames)


@venues
def test_a_venue_comes_back_from_each_recorded_frame_twice(venue: Venue) -> None:
    frames = list(recorded(venue.name))
    if not frames:
        pytest.skip(NO_CAPTURES)
    for start in range(0, len(frames), 40):
        survives(venue, [frame for frame in frames[start : start + 40] for _ in range(2)])


@venues
async def test_a_venue_comes_back_from_damaged_frames_of_the_built_in_one(venue: Venue) -> None:
    good = [frame.encode() for frame in await simulated(venue.name)]
    survives(venue, good)
    for seed in range(EXAMPLES):
        dice = random.Random(seed)
        survives(venue, [mutated(frame, dice) for frame in dice.sample(good, 5)])
