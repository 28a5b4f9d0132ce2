"""What an account was worth over time, from its ledger and the candles. Pure.

Now and while the page is open an asset is worth the middle of its touch; in the past, the close
of the last candle over all exchanges that had ended by then.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct
from router_client import Candle, Entry

from dashboard.state import QUOTE

PAID_IN = frozenset({"deposit", "credit", "reset"})  # money that came or went without a trade


class Worth(Struct, frozen=True):
    """The value of an account at a moment, in the quote asset; `at` in seconds since the epoch."""

    at: float
    value: Decimal


class Closes:
    """The prices of one asset: the close of each candle, from its end on."""

    def __init__(self, candles: Iterable[Candle], interval_s: int) -> None:
        ordered = sorted((candle.timestamp + interval_s, candle.open, candle.close) for candle in candles)
        self.ends = [end for end, _, _ in ordered]
        self._closes = [close for _, _, close in ordered]
        self._first = ordered[0][1] if ordered else None  # the open of the first: before it, nothing is known

    def at(self, moment: float) -> Decimal | None:
        """Return the price at a moment; the earliest known one before any candle had ended; None without any."""
        number = bisect_right(self.ends, moment)
        return self._closes[number - 1] if number else self._first


def worth(totals: Mapping[str, Decimal], prices: Mapping[str, Decimal]) -> Decimal:
    """Return the value of balances in the quote asset; assets without a price count nothing."""
    return sum((total * prices[asset] for asset, total in totals.items() if asset in prices), Decimal(0))


def unpriced(totals: Mapping[str, Decimal], prices: Mapping[str, Decimal]) -> list[str]:
    """Return the assets that are held and have no price."""
    return sorted(asset for asset, total in totals.items() if total and asset not in prices)


def rebuild(
    entries: Sequence[Entry], totals: Mapping[str, Decimal], closes: Mapping[str, Closes], now: float
) -> list[Worth]:
    """Return the account's value at each of its ledger's entries and each candle's end since, oldest first.

    `entries` come newest first, as the ledger gives them; `totals` are the balances after the newest.
    Where the ledger is not there to its beginning, the value begins with what is there.
    """
    changes: dict[float, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    held = defaultdict(Decimal, totals)
    for entry in entries:
        if entry.created_at is not None:
            changes[entry.created_at.timestamp()][entry.asset] += entry.amount
            held[entry.asset] -= entry.amount
    if not changes:
        return []
    begin = min(changes)
    moments = {end for asset in closes.values() for end in asset.ends if begin < end <= now}
    points = []
    for moment in sorted(moments | set(changes)):
        for asset, amount in changes.get(moment, {}).items():
            held[asset] += amount
        prices = {asset: price for asset, known in closes.items() if (price := known.at(moment)) is not None}
        points.append(Worth(moment, worth(held, {**prices, QUOTE: Decimal(1)})))
    return points


def paid_in(entries: Iterable[Entry], closes: Mapping[str, Closes]) -> Decimal:
    """Return what was paid in, less what was taken out, each at the price of its moment."""
    total = Decimal(0)
    for entry in entries:
        if entry.kind in PAID_IN and entry.created_at is not None:
            known = closes.get(entry.asset)
            price = Decimal(1) if entry.asset == QUOTE else known.at(entry.created_at.timestamp()) if known else None
            total += entry.amount * (price or Decimal(0))
    return total
