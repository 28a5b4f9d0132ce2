"""What a venue tells us, normalised: the words that every other part speaks.

Prices and sizes are exact `Decimal`s as the venue wrote them (positive and finite);
`venue_ns` is the venue's own clock in nanoseconds since the epoch and is never trusted
for liveness. Sides of trades are the taker's.
"""

import enum
from decimal import Decimal

from msgspec import Struct


class Side(enum.StrEnum):
    BUY = "buy"
    SELL = "sell"


class Channel(enum.StrEnum):
    """The three kinds of market data that a feed subscribes to."""

    TOUCH = "touch"
    DEPTH = "depth"
    TRADES = "trades"


Level = tuple[Decimal, Decimal]  # price, size


class Quote(Struct, frozen=True, gc=False):
    """A venue's own best bid and ask; replaces the one before. An empty side is None."""

    bid: Decimal | None
    bid_size: Decimal | None
    ask: Decimal | None
    ask_size: Decimal | None
    sequence: int | None = None  # the venue's update id: rises within a connection, jumps are normal
    venue_ns: int | None = None

    @property
    def crossed(self) -> bool:
        """True when the venue's own book is locked or crossed, which no healthy venue shows."""
        return self.bid is not None and self.ask is not None and self.bid >= self.ask


class Trade(Struct, frozen=True, gc=False):
    """A public print.

    `first_id`..`last_id` is the range of venue ids it stands for (one id, unless the venue
    aggregates): ids rise by one per instrument, so a jump is a gap and a repeat a duplicate.
    `snapshot` marks history sent on subscription: it moves the duplicate watermark and
    is never a new trade.
    """

    trade_id: str
    first_id: int
    last_id: int
    price: Decimal
    size: Decimal
    side: Side
    venue_ns: int
    snapshot: bool = False


class BookImage(Struct, frozen=True, gc=False):
    """The best levels of a venue's book, best first; replaces the image before."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    sequence: int | None = None
    venue_ns: int | None = None


class BookDelta(Struct, frozen=True):
    """Changes of levels in the order the venue wrote them; size 0 deletes.

    `snapshot` replaces the whole book. `checksum` is of the book after this message.
    """

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    checksum: int | None
    snapshot: bool = False
    venue_ns: int | None = None


Body = Quote | Trade | BookImage | BookDelta
