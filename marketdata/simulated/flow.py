"""The market's own time: every path and every maker, moved in a fixed order.

`Flow` is the deterministic part: the same seed yields the same changes in the same order,
however fast they are asked for. Makers take turns within a step, so that the venues' frames
spread over it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from marketdata.simulated.maker import Maker, Print
from marketdata.simulated.prices import STEP_S, PricePath

PHASES = 5  # turns within a step
PHASE_S = STEP_S / PHASES


class Change(NamedTuple):
    """One maker's step: its trades, and that its book may have moved."""

    maker: Maker
    prints: list[Print]
    step: int


class Flow:
    """All makers of the given venues and instruments."""

    def __init__(
        self, instruments: Sequence[str], venues: Sequence[str], seed: int, missing: Mapping[str, Collection[str]]
    ) -> None:
        self.step = 0
        self.rates = dict.fromkeys(venues, 1.0)  # of a venue's updates; its trades and sizes, not the price path
        self.paused: set[str] = set()
        self._phase = 0
        self._paths = {instrument: PricePath(instrument, seed) for instrument in instruments}
        self.makers: dict[str, dict[str, Maker]] = {
            venue: {
                instrument: Maker(venue, instrument, path, seed)
                for instrument, path in self._paths.items()
                if instrument not in missing.get(venue, ())
            }
            for venue in venues
        }
        everyone = [maker for makers in self.makers.values() for maker in makers.values()]
        self._turns = [everyone[phase::PHASES] for phase in range(PHASES)]
        self._credits = dict.fromkeys(everyone, 0.0)  # steps that a rate grants each

    def advance(self) -> Iterator[Change]:
        """Move one phase (`PHASE_S` of the market's time) and yield what it changed."""
        if self._phase == 0:
            self.step += 1
            for path in self._paths.values():
                path.advance()
        turn, self._phase = self._turns[self._phase], (self._phase + 1) % PHASES
        for maker in turn:
            if not maker.pinned and maker.venue not in self.paused:
                yield from self._move(maker)

    def _move(self, maker: Maker) -> Iterator[Change]:
        credit = self._credits[maker] + self.rates[maker.venue]
        steps = int(credit)
        self._credits[maker] = credit - steps
        for number in range(steps):
            before = maker.version
            prints = maker.step() if number == 0 else maker.extra_step()
            if prints or maker.version != before or self.step % 2 == 0:
                yield Change(maker, prints, self.step)
