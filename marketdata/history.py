"""Closed candles in the database: written in batches, read in pages, kept for a while."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from django.db import transaction

from core.candles import INTERVALS, Candle
from core.errors import DomainError
from core.money import from_units, plain, to_units
from marketdata.models import Market, StoredCandle

WINDOW_S = max(INTERVALS.values())
RETENTION_S = {1: 6 * 3_600, 10: 3 * 86_400}  # longer intervals are kept for ever
PRUNE_ROWS_MAX = 20_000  # deleted in one transaction
WRITE_ROWS_MAX = 500

Row = tuple[str, str, Candle]  # venue or "all", instrument, closed candle


class WrongMarket(DomainError):
    """The database holds the orders and candles of another market."""

    code = "wrong_market"


def claim_market(source: str) -> None:
    """Bind this database to a market source for ever, or refuse.

    Raises:
        WrongMarket: it belongs to the other source; simulated prices must never fill a live order.
    """
    market, _ = Market.objects.get_or_create(id=Market.SINGLETON, defaults={"source": source})
    if market.source != source:
        raise WrongMarket(
            f"this database holds the {market.source} market, but the {source} market was asked for: "
            f"set MARKET_SOURCE={market.source}, or give the {source} market a database of its own (DATABASE_URL)"
        )


def store(rows: Iterable[Row]) -> int:
    """Write closed candles, all or none; one that is there already stays as it is. Return how many were offered."""
    stored = [
        StoredCandle(
            venue=venue,
            instrument=instrument,
            interval=candle.interval,
            open_time=candle.open_time,
            open=to_units(candle.open),
            high=to_units(candle.high),
            low=to_units(candle.low),
            close=to_units(candle.close),
            volume=format(plain(candle.volume), "f"),
            trades=candle.trades,
            partial=candle.partial,
        )
        for venue, instrument, candle in rows
    ]
    with transaction.atomic():
        StoredCandle.objects.bulk_create(stored, batch_size=WRITE_ROWS_MAX, ignore_conflicts=True)
    return len(stored)


def recent_seconds(venue: str, instrument: str, now_s: float) -> list[Candle]:
    """Return the newest stored 1 s candles: those of the longest interval around the last one, oldest first."""
    rows = StoredCandle.objects.filter(venue=venue, instrument=instrument, interval=1)
    last = rows.filter(open_time__lte=int(now_s)).order_by("-open_time").first()
    if last is None:
        return []
    start = last.open_time // WINDOW_S * WINDOW_S
    return [read(row) for row in rows.filter(open_time__gte=start, open_time__lte=last.open_time).order_by("open_time")]


def page(
    *, venue: str, instrument: str, interval: int, limit: int, start: int | None = None, end: int | None = None
) -> Sequence[Candle]:
    """Return up to `limit` closed candles, oldest first: the newest ones up to `end`, or the first from `start`.

    `start` and `end` are open times in seconds, both included.
    """
    rows = StoredCandle.objects.filter(venue=venue, instrument=instrument, interval=interval)
    if end is not None:
        rows = rows.filter(open_time__lte=end)
    if start is not None:
        return [read(row) for row in rows.filter(open_time__gte=start).order_by("open_time")[:limit]]
    return [read(row) for row in rows.order_by("-open_time")[:limit]][::-1]


def prune(now_s: float) -> int:
    """Delete candles past their interval's retention, a bounded number at a time; return how many."""
    deleted = 0
    for interval, kept_s in RETENTION_S.items():
        old = StoredCandle.objects.filter(interval=interval, open_time__lt=int(now_s - kept_s))
        deleted += StoredCandle.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:PRUNE_ROWS_MAX])).delete()[
            0
        ]
    return deleted


def read(row: StoredCandle) -> Candle:
    """Return a stored row as the candle that it was."""
    return Candle(
        interval=row.interval,
        open_time=row.open_time,
        open=from_units(row.open),
        high=from_units(row.high),
        low=from_units(row.low),
        close=from_units(row.close),
        volume=Decimal(row.volume),
        trades=row.trades,
        closed=True,
        partial=row.partial,
    )
