"""Who is to be set aside, by fractions and from scratch at each step; only who was is remembered."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from statistics import median

from core.touch import OUTLIER_SHARE

VENUES_MIN = 3
SHARE = Fraction(OUTLIER_SHARE)

Said = Mapping[str, tuple[Decimal | None, Decimal | None]]  # venue → its bid and ask


class Outliers:
    def __init__(self) -> None:
        self.aside: set[str] = set()

    def judge(self, said: Said) -> None:
        """Call after each change, with what every live venue says."""
        quotes = {venue: sides for venue, sides in said.items() if sides != (None, None)}
        if not quotes:
            self.aside = set()
            return
        middle = median(Fraction(price) for sides in quotes.values() for price in _both(*sides))
        self.aside &= _strays(quotes, middle, SHARE / 2)
        if self.aside == set(quotes):
            self.aside = set()
        believed = [sides for venue, sides in quotes.items() if venue not in self.aside]
        bids, asks = (
            [Fraction(price) for price in shown if price is not None] for shown in zip(*believed, strict=True)
        )
        if len(quotes) >= VENUES_MIN and bids and asks and max(bids) > min(asks) * (1 + SHARE):
            aside = self.aside | _strays(quotes, middle, SHARE)
            if aside != set(quotes):
                self.aside = aside


def _both(bid: Decimal | None, ask: Decimal | None) -> list[Decimal]:
    found = [price for price in (bid, ask) if price is not None]
    return found * (3 - len(found))


def _strays(quotes: Said, middle: Fraction, share: Fraction) -> set[str]:
    return {
        venue
        for venue, (bid, ask) in quotes.items()
        if (bid is not None and Fraction(bid) > middle * (1 + share))
        or (ask is not None and middle > Fraction(ask) * (1 + share))
    }
