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

    __slots__ = ("_live", "_rivals", "_slots", "_venues", "touch")

    def __init__(self, venues: Sequence[str]) -> None:
        self.touch = EMPTY
        self._venues = tuple(venues)
        self._rivals = {venue: tuple(other for other in self._venues if other != venue) for venue in self._venues}
        self._slots: dict[str, Touch] = dict.fromkeys(self._venues, EMPTY)
        self._live: set[str] = set()

    def quote(self, venue: str, quote: QuoteLike, received_ns: int) -> bool:
        """Replace a venue's quote and return whether the touch changed.

        A quote of a venue that is not live is not taken: it must be told again once it is.
        """
        if venue not in self._live:
            return False
        before = self._slots[venue]
        bid, ask = old_bid, old_ask = before.bid, before.ask
        # Numbers that are the same objects need no comparing: nearly every quote repeats both prices and one size.
        if bid is None or bid.size is not quote.bid_size or bid.price is not quote.bid:
            bid = _side(bid, quote.bid, quote.bid_size, venue, received_ns)
        if ask is None or ask.size is not quote.ask_size or ask.price is not quote.ask:
            ask = _side(ask, quote.ask, quote.ask_size, venue, received_ns)
        if bid is old_bid and ask is old_ask:
            return False
        self._slots[venue] = slot = Touch(bid, ask)
        rivals = self._rivals[venue]
        if not rivals:
            self.touch = slot
            return True
        touch = self.touch
        best_bid = touch.bid if bid is old_bid else self._best_bid(bid, rivals)
        best_ask = touch.ask if ask is old_ask else self._best_ask(ask, rivals)
        if best_bid is touch.bid and best_ask is touch.ask:
            return False
        self.touch = slot if best_bid is bid and best_ask is ask else Touch(best_bid, best_ask)
        return True

    def set_live(self, venue: str, live: bool) -> bool:
        """Let a venue in, empty until its next quote, or take it out; return whether the touch changed."""
        if live:
            self._live.add(venue)
            return False
        self._live.discard(venue)
        if self._slots[venue] is EMPTY:
            return False
        self._slots[venue] = EMPTY
        bid, ask = self._best_bid(None, self._venues), self._best_ask(None, self._venues)
        if bid is self.touch.bid and ask is self.touch.ask:
            return False
        self.touch = Touch(bid, ask)
        return True

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

    def _best_bid(self, best: Best | None, rivals: Sequence[str]) -> Best | None:
        for venue in rivals:
            bid = self._slots[venue].bid
            if bid is not None and (best is None or bid.price > best.price or self._ties(bid, best)):
                best = bid
        return best

    def _best_ask(self, best: Best | None, rivals: Sequence[str]) -> Best | None:
        for venue in rivals:
            ask = self._slots[venue].ask
            if ask is not None and (best is None or ask.price < best.price or self._ties(ask, best)):
                best = ask
        return best

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
    if before is not None and (price is before.price or price == before.price) and size == before.size:
        return before
    return Best(price, size, venue, received_ns)
