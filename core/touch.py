"""The touch of one instrument: the best bid and offer across the venues that are live.

Every side is attributed to one venue and shows that venue's own size. A touch that is locked
or crossed across venues is reported as it is: each venue's own quote is still good.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from core.events import Side


class QuoteLike(Protocol):
    """What the board reads of a quote: a price and a size a side, None where the side is empty."""

    @property
    def bid(self) -> Decimal | None: ...
    @property
    def bid_size(self) -> Decimal | None: ...
    @property
    def ask(self) -> Decimal | None: ...
    @property
    def ask_size(self) -> Decimal | None: ...


class Best(Struct, frozen=True, gc=False):
    """One side's best price, the size that its venue shows there, and since when (wall clock, ns)."""

    price: Decimal
    size: Decimal
    venue: str
    received_ns: int


class Touch(Struct, frozen=True, gc=False):
    bid: Best | None
    ask: Best | None


EMPTY = Touch(None, None)


class TouchBoard:
    """One quote slot per venue; `touch` is the best of the live ones.

    At equal prices the larger size is shown, then the one shown for longer, then the venues'
    configured order.
    """

    __slots__ = ("_live", "_slots", "_venues", "touch")

    def __init__(self, venues: Sequence[str]) -> None:
        self.touch = EMPTY
        self._venues = tuple(venues)
        self._slots: dict[str, Touch] = dict.fromkeys(self._venues, EMPTY)
        self._live: set[str] = set()

    def quote(self, venue: str, quote: QuoteLike, received_ns: int) -> bool:
        """Replace a venue's quote and return whether the touch changed.

        A quote of a venue that is not live is not taken: it must be told again once it is.
        """
        if venue not in self._live:
            return False
        before = self._slots[venue]
        bid = _side(before.bid, quote.bid, quote.bid_size, venue, received_ns)
        ask = _side(before.ask, quote.ask, quote.ask_size, venue, received_ns)
        if bid is before.bid and ask is before.ask:
            return False
        self._slots[venue] = Touch(bid, ask)
        return self._refresh()

    def set_live(self, venue: str, live: bool) -> bool:
        """Let a venue in, empty until its next quote, or take it out; return whether the touch changed."""
        if live:
            self._live.add(venue)
            return False
        self._live.discard(venue)
        if self._slots[venue] is EMPTY:
            return False
        self._slots[venue] = EMPTY
        return self._refresh()

    def venue_touch(self, venue: str) -> Touch:
        """Return the venue's own best bid and ask; the same object while they do not change."""
        return self._slots[venue]

    def at_best(self, side: Side) -> list[Best]:
        """Return the venues' quotes at the best price that an order of this side would take, the shown one first."""
        bests = [slot.ask if side is Side.BUY else slot.bid for slot in self._slots.values()]
        best = self.touch.ask if side is Side.BUY else self.touch.bid
        if best is None:
            return []
        others = [other for other in bests if other is not None and other is not best and other.price == best.price]
        return [best, *sorted(others, key=self._rank)]

    def _refresh(self) -> bool:
        bid: Best | None = None
        ask: Best | None = None
        for slot in self._slots.values():
            if slot.bid is not None and (bid is None or slot.bid.price > bid.price or self._ties(slot.bid, bid)):
                bid = slot.bid
            if slot.ask is not None and (ask is None or slot.ask.price < ask.price or self._ties(slot.ask, ask)):
                ask = slot.ask
        if bid is self.touch.bid and ask is self.touch.ask:
            return False
        self.touch = Touch(bid, ask)
        return True

    def _ties(self, one: Best, other: Best) -> bool:
        """True when, at the same price, `one` is to be shown rather than `other`."""
        return one.price == other.price and self._rank(one) < self._rank(other)

    def _rank(self, best: Best) -> tuple[Decimal, int, int]:
        return (-best.size, best.received_ns, self._venues.index(best.venue))


def _side(
    before: Best | None, price: Decimal | None, size: Decimal | None, venue: str, received_ns: int
) -> Best | None:
    if price is None or size is None:
        return None
    if before is not None and before.price == price and before.size == size:
        return before
    return Best(price, size, venue, received_ns)
