"""What a trial found: something answered that is lost, something done twice, something that is wrong."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["lost", "doubled", "wrong"]
SHOWN_MAX = 20  # of a trial; the rest is counted


@dataclass
class Findings:
    counts: Counter[Kind] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)

    def add(self, kind: Kind, text: str) -> None:
        self.counts[kind] += 1
        if len(self.texts) < SHOWN_MAX:
            self.texts.append(f"{kind}: {text}")

    def check(self, holds: bool, kind: Kind, text: str) -> bool:
        """Note what does not hold; return whether it does."""
        if not holds:
            self.add(kind, text)
        return holds
