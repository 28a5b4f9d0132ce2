"""The touch of one instrument: the best bid and offer across the venues that are live.

Every side is attributed to one venue and shows that venue's own size. A touch that is locked
or crossed across venues is reported as it is: each venue's own quote is still good. Only one that
is crossed by more than `OUTLIER_SHARE` has a venue in it that tells a price which is none: whoever
strays so far from the middle of all venues is set aside until it is near again.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from decimal import Decimal
from operator import attrgetter
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

OUTLIER_SHARE = Decimal("0.05")  # honest prices are nearer to the middle of all venues than this
JUDGES_MIN = 3  # of two venues that disagree nobody can tell which one lies

_FAR = 1 + OUTLIER_SHARE
_NEAR = 1 + OUTLIER_SHARE / 2  # who was set aside must come as near as this, or it would go back and forth


class TouchBoard:
    """One quote slot per venue; `touch` is the best of the live ones that are not set aside.

    At equal prices the larger size is shown, then the one shown for longer, then the venues'
    configured order. Only `touch`, `in_play` and `at_best` may be read in other threads.
    """

    __slots__ = ("_aside", "_believed", "_live", "_rivals", "_slots", "_venues", "times_aside", "touch")

    def __init__(self, venues: Sequence[str]) -> None:
        self.touch = EMPTY
        self.times_aside: Counter[str] = Counter()  # how often each venue was set aside
        self._venues = tuple(venues)
        self._rivals = {venue: tuple(other for other in self._venues if other != venue) for venue in self._venues}
        self._slots: dict[str, Touch] = dict.fromkeys(self._venues, EMPTY)  # what takes part
        self._aside: dict[str, Touch] = {}  # what those say that do not
        self._live: set[str] = set()
        self._believed: Set[str] = self._live  # nobody, while each quote must be weighed against the others

    def quote(self, venue: str, quote: QuoteLike, received_ns: int) -> bool:
        """Replace a venue's quote and return whether the touch changed.

        A quote of a venue that is not live is not taken: it must be told again once it is.
        """
        if venue not in self._believed:
            return venue in self._live and self._weigh(venue, quote, received_ns)
        before = self._slots[venue]
        bid, ask = old_bid, old_ask = before.bid, before.ask
        # Numbers that are the same objects need no comparing: nearly every quote repeats both prices and one size.
        if bid is None or bid.size is not quote.bid_size or bid.price is not quote.bid:
            bid = _side(bid, quote.bid, quote.bid_size, venue, received_ns)
        if ask is None or ask.size is not quote.ask_size or ask.price is not quote.ask:
            ask = _side(ask, quote.ask, quote.ask_size, venue, received_ns)
        if bid is old_bid and ask is old_ask:
            return False
        slot = Touch(bid, ask)
        rivals = self._rivals[venue]
        if not rivals:
            self._slots[venue] = self.touch = slot
            return True
        touch = self.touch
        best_bid = touch.bid if bid is old_bid else self._best_bid(bid, rivals)
        best_ask = touch.ask if ask is old_ask else self._best_ask(ask, rivals)
        if best_bid is touch.bid and best_ask is touch.ask:
            self._slots[venue] = slot
            return False
        if (
            best_bid is not None
            and best_ask is not None
            and best_bid.price > best_ask.price
            and best_bid.price > best_ask.price * _FAR
        ):
            return self._judge(venue, slot)  # before anybody sees it
        self._slots[venue] = slot
        self.touch = slot if best_bid is bid and best_ask is ask else Touch(best_bid, best_ask)
        return True

    def set_live(self, venue: str, live: bool) -> bool:
        """Let a venue in, empty until its next quote, or take it out; return whether the touch changed."""
        if live:
            self._live.add(venue)
            return False
        self._live.discard(venue)
        if self.venue_touch(venue) is EMPTY:
            return False
        if self._believed is not self._live:
            return self._judge(venue, EMPTY)
        self._slots[venue] = EMPTY
        return self._look()

    def venue_touch(self, venue: str) -> Touch:
        """Return the venue's own best bid and ask, set aside or not; the same object while they do not change."""
        return self._aside[venue] if venue in self._aside else self._slots[venue]

    def in_play(self, venue: str) -> Touch:
        """Return what of the venue's own best bid and ask takes part: nothing while it is set aside."""
        return self._slots[venue]

    @property
    def aside(self) -> Collection[str]:
        """Return the venues that are set aside."""
        return self._aside.keys()

    @property
    def is_disputed(self) -> bool:
        """True while venues contradict each other, and nobody can tell who is right."""
        return self._believed is not self._live and not self._aside

    def at_best(self, side: Side) -> list[Best]:
        """Return the venues' quotes at the best price that an order of this side would take, the shown one first."""
        bests = [slot.ask if side is Side.BUY else slot.bid for slot in self._slots.values()]
        best = self.touch.ask if side is Side.BUY else self.touch.bid
        if best is None:
            return []
        rivals = (other for other in bests if other is not None and other.venue != best.venue)
        return [best, *sorted((other for other in rivals if other.price == best.price), key=self._rank)]

    def _look(self) -> bool:
        """Make the touch the best of the slots; return whether it changed."""
        bid, ask = self._best_bid(None, self._venues), self._best_ask(None, self._venues)
        if bid is self.touch.bid and ask is self.touch.ask:
            return False
        self.touch = Touch(bid, ask)
        return True

    def _weigh(self, venue: str, quote: QuoteLike, received_ns: int) -> bool:
        """Replace a venue's quote while some are doubted; return whether the touch changed."""
        before = self.venue_touch(venue)
        bid = _side(before.bid, quote.bid, quote.bid_size, venue, received_ns)
        ask = _side(before.ask, quote.ask, quote.ask_size, venue, received_ns)
        if bid is before.bid and ask is before.ask:
            return False
        return self._judge(venue, Touch(bid, ask))

    def _judge(self, venue: str, said: Touch) -> bool:
        """Take what a venue says, decide anew who is set aside, and return whether the touch changed.

        Who says nothing is not set aside, nor is anybody when all would be.
        """
        told = {**self._slots, **self._aside, venue: said}
        quoting = {name: quote for name, quote in told.items() if quote.bid is not None or quote.ask is not None}
        aside: dict[str, Touch] = {}
        if quoting:
            middle = _middle(quoting.values())
            aside = _straying({name: quoting[name] for name in self._aside if name in quoting}, middle, _NEAR)
            if len(aside) == len(quoting):
                aside = {}
            believed = [quote for name, quote in quoting.items() if name not in aside]
            if len(quoting) >= JUDGES_MIN and _is_torn(*_bests(believed)):
                strays = aside | _straying(quoting, middle, _FAR)
                aside = strays if len(strays) < len(quoting) else aside
        self.times_aside.update(aside.keys() - self._aside.keys())
        self._slots = {name: EMPTY if name in aside else quote for name, quote in told.items()}
        self._aside = aside
        changed = self._look()
        torn = _is_torn(self.touch.bid, self.touch.ask)
        self._believed = frozenset() if aside or torn else self._live
        return changed

    def _best_bid(self, best: Best | None, rivals: Sequence[str]) -> Best | None:
        slots = self._slots
        for venue in rivals:
            bid = slots[venue].bid
            if bid is None:
                continue
            if best is None or bid.price > best.price or (bid.price == best.price and self._outranks(bid, best)):
                best = bid
        return best

    def _best_ask(self, best: Best | None, rivals: Sequence[str]) -> Best | None:
        slots = self._slots
        for venue in rivals:
            ask = slots[venue].ask
            if ask is None:
                continue
            if best is None or ask.price < best.price or (ask.price == best.price and self._outranks(ask, best)):
                best = ask
        return best

    def _outranks(self, one: Best, other: Best) -> bool:
        """True when, at the same price, `one` is to be shown rather than `other`."""
        return self._rank(one) < self._rank(other)

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


def _middle(quotes: Iterable[Touch]) -> Decimal:
    """Return the median of all bids and asks, which no minority of the venues can move beyond the others' prices.

    A side that is not shown counts as the other one, so that every venue has as much to say.
    """
    pairs = ((quote.bid or quote.ask, quote.ask or quote.bid) for quote in quotes)
    prices = sorted(side.price for pair in pairs for side in pair if side is not None)
    half = len(prices) // 2
    return (prices[half - 1] + prices[half]) / 2


def _bests(quotes: Collection[Touch]) -> tuple[Best | None, Best | None]:
    bids = [quote.bid for quote in quotes if quote.bid is not None]
    asks = [quote.ask for quote in quotes if quote.ask is not None]
    price = attrgetter("price")
    return max(bids, key=price, default=None), min(asks, key=price, default=None)


def _straying(quotes: Mapping[str, Touch], middle: Decimal, factor: Decimal) -> dict[str, Touch]:
    """Return the venues that bid, or ask, on the wrong side of the middle, and by more than this factor.

    A bid far below the middle and an ask far above it are poor offers, not lies: they never are the best.
    """
    return {
        venue: quote
        for venue, quote in quotes.items()
        if (quote.bid is not None and quote.bid.price > middle * factor)
        or (quote.ask is not None and quote.ask.price * factor < middle)
    }


def _is_torn(bid: Best | None, ask: Best | None) -> bool:
    """True when a touch is crossed by more than honest venues ever differ."""
    return bid is not None and ask is not None and bid.price > ask.price * _FAR
