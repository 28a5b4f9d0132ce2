"""Price levels of one instrument at one venue, kept by deltas and proved by checksums.

The rules are Kraken's (WebSocket v2): apply a message, cut each side to the subscribed depth,
then compare the CRC-32 of the ten best levels a side.
"""

import zlib
from bisect import bisect_left
from decimal import Decimal

from core.events import BookDelta, BookImage, Level

CHECKSUM_LEVELS = 10  # a side, whatever the depth


class BookError(ValueError):
    """The book is not what the venue says it is: only a new snapshot can repair it."""


class BadChecksum(BookError):
    """The levels differ from the venue's: a message was lost or damaged."""


class CrossedBook(BookError):
    """A bid is not below the best ask."""


class Book:
    """The best `depth` levels a side; the decimals are those that the checksum pads to."""

    def __init__(self, depth: int, price_decimals: int, size_decimals: int) -> None:
        self.depth = depth
        self._bids = _Side(price_decimals, size_decimals)
        self._asks = _Side(price_decimals, size_decimals)
        self._synced = False
        self._venue_ns: int | None = None

    def apply(self, delta: BookDelta) -> None:
        """Apply one message. After an error the book is empty and refuses deltas until a snapshot.

        Raises:
            BookError: a delta came before any snapshot.
            BadChecksum: the checksum of the result is not the message's.
            CrossedBook: the result is locked or crossed.
        """
        if delta.snapshot:
            self._clear()
            self._synced = True
        elif not self._synced:
            raise BookError("a delta without a snapshot before it")
        for price, size in delta.bids:
            self._bids.set(price, size)
        for price, size in delta.asks:
            self._asks.set(price, size)
        # Venues send no deletions for levels that fall out of the window.
        self._bids.keep_highest(self.depth)
        self._asks.keep_lowest(self.depth)
        self._venue_ns = delta.venue_ns
        if delta.checksum is not None and delta.checksum != (found := self.checksum()):
            self._clear()
            raise BadChecksum(f"checksum {found}, the venue says {delta.checksum}")
        bid, ask = self.best()
        if bid is not None and ask is not None and bid[0] >= ask[0]:
            self._clear()
            raise CrossedBook(f"bid {bid[0]} is not below ask {ask[0]}")

    def top(self, levels: int) -> BookImage:
        """Return the best levels a side, best first."""
        bids, asks = self._bids.levels, self._asks.levels
        return BookImage(tuple(bids[: -levels - 1 : -1]), tuple(asks[:levels]), venue_ns=self._venue_ns)

    def best(self) -> tuple[Level | None, Level | None]:
        """Return the best bid and ask; None for an empty side."""
        bids, asks = self._bids.levels, self._asks.levels
        return (bids[-1] if bids else None, asks[0] if asks else None)

    def checksum(self) -> int:
        """Return the CRC-32 of the ten best asks, then bids, as digits without point and leading zeros."""
        asks, bids = self._asks.digits[:CHECKSUM_LEVELS], self._bids.digits[: -CHECKSUM_LEVELS - 1 : -1]
        return zlib.crc32("".join(asks + bids).encode())

    def _clear(self) -> None:
        self._bids.clear()
        self._asks.clear()
        self._synced = False
        self._venue_ns = None


class _Side:
    """Levels in ascending order of price, in three lists that change together."""

    def __init__(self, price_decimals: int, size_decimals: int) -> None:
        self.levels: list[Level] = []
        self.digits: list[str] = []  # each level as the checksum reads it, written once
        self._prices: list[Decimal] = []
        self._price_decimals = price_decimals
        self._size_decimals = size_decimals

    def set(self, price: Decimal, size: Decimal) -> None:
        prices = self._prices
        place = bisect_left(prices, price)
        known = place < len(prices) and prices[place] == price
        if not size:
            if known:  # venues may delete a level that we never saw
                del prices[place], self.levels[place], self.digits[place]
            return
        digits = _digits(price, self._price_decimals) + _digits(size, self._size_decimals)
        if known:
            self.levels[place] = (price, size)
            self.digits[place] = digits
        else:
            prices.insert(place, price)
            self.levels.insert(place, (price, size))
            self.digits.insert(place, digits)

    def keep_highest(self, depth: int) -> None:
        surplus = len(self._prices) - depth
        if surplus > 0:
            del self._prices[:surplus], self.levels[:surplus], self.digits[:surplus]

    def keep_lowest(self, depth: int) -> None:
        if len(self._prices) > depth:
            del self._prices[depth:], self.levels[depth:], self.digits[depth:]

    def clear(self) -> None:
        for column in (self._prices, self.levels, self.digits):
            column.clear()


def _digits(value: Decimal, decimals: int) -> str:
    """Write 0.0286 with five decimals as "2860". More digits than `decimals` are all written:
    then the venue refined its precision after it told us.
    """
    text = str(value)
    if "E" in text:
        text = format(value, "f")
    whole, _, fraction = text.partition(".")
    return (whole + fraction.ljust(decimals, "0")).lstrip("0")
