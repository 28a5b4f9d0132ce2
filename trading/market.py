"""The market as orders find it: the live touch of this process, in units."""

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from core.account import BALANCE_MAX, Market, Offer
from core.errors import Unavailable
from core.events import Side
from core.money import DECIMALS, to_units
from core.touch import Best, TouchBoard
from marketdata import services
from marketdata.batches import ALL
from marketdata.hub import Hub

MS = 1_000_000


def market_of(instrument: str, side: Side) -> Market:
    """Return what an order of this side would execute against now. Callable from any thread."""
    hub = _hub()
    if not hub.is_current():
        return Market((), {})
    return market(hub.board(instrument), side, now_ns=time.time_ns())


def depth_of(instrument: str, side: Side, venue: str) -> Market:
    """Return all that a venue shows, or all venues, to an order of this side. Callable from any thread.

    Beyond the touch only what a book shows that came here: somebody must have asked the hub for it.
    """
    hub = _hub()
    if not hub.is_current():
        return Market((), {})
    return depth(hub, instrument, side, venue, now_ns=time.time_ns())


def _hub() -> Hub:
    hub = services.process_hub()
    if hub is None:
        raise Unavailable("this process has no market data yet; try again in a moment")
    return hub


def middle(hub: Hub, instrument: str, venue: str) -> int | None:
    """Return the middle of a venue's bid and ask, or of the touch, in units; None while a side is not shown.

    A venue that is set aside shows none.
    """
    board = hub.board(instrument)
    touch = board.touch if venue == ALL else board.in_play(venue)
    if touch.bid is None or touch.ask is None:
        return None
    bid, ask = _units(touch.bid.price), _units(touch.ask.price)
    return None if bid is None or ask is None else (bid + ask) // 2


def takes_part(instrument: str, venue: str) -> bool:
    """Return whether orders may execute at what the venue shows. Callable from any thread."""
    hub = services.process_hub()
    return hub is not None and hub.takes_part(instrument, venue)


def market(board: TouchBoard, side: Side, *, now_ns: int) -> Market:
    """Return a board's best offers for an order of this side, and the receipt of what it shows."""
    offers = tuple(Offer(to_units(best.price), size_units(best.size), best.venue) for best in board.at_best(side))
    return Market(offers, receipt(board, now_ns))


def depth(hub: Hub, instrument: str, side: Side, venue: str, *, now_ns: int) -> Market:
    """Return a hub's offers for an order of this side, best first, and the receipt of the touch.

    A venue's touch is newer than its book: levels that are not behind it are gone. One that is set aside
    offers nothing.
    """
    board, books, buys = hub.board(instrument), hub.shown_books(instrument), side is Side.BUY
    found: list[tuple[Decimal, int, Decimal, str]] = []
    for rank, name in enumerate(hub.venues):
        touch = board.in_play(name)
        best = touch.ask if buys else touch.bid
        if best is None or venue not in (ALL, name):
            continue
        found.append((best.price, rank, best.size, name))
        if name in books:
            levels = books[name].asks if buys else books[name].bids
            behind = [level for level in levels if (level[0] > best.price if buys else level[0] < best.price)]
            found.extend((price, rank, size, name) for price, size in behind)
    found.sort(key=lambda level: (level[0] if buys else -level[0], -level[2], level[1]))
    offers = [Offer(units, size_units(size), name) for price, _, size, name in found if (units := _units(price))]
    return Market(tuple(offers), receipt(board, now_ns))


def _units(price: Decimal) -> int | None:
    """Return a price in units; None for one that money cannot express."""
    try:
        return to_units(price)
    except ValueError:
        return None


def size_units(size: Decimal) -> int:
    """Return a displayed size in units, cut to what an order can take: venues show finer and larger ones."""
    return min(int(size.scaleb(DECIMALS)), BALANCE_MAX)


def receipt(board: TouchBoard, now_ns: int) -> Mapping[str, Any]:
    """Return bid and ask with their venues, sizes and ages, as a fill keeps them."""
    touch = board.touch
    return {"bid": _side(touch.bid, now_ns), "ask": _side(touch.ask, now_ns)}


def _side(best: Best | None, now_ns: int) -> Mapping[str, Any] | None:
    if best is None:
        return None
    return {
        "price": best.price,
        "size": best.size,
        "exchange": best.venue,
        "age_ms": max(0, now_ns - best.received_ns) // MS,
    }
