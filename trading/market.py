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

MS = 1_000_000


def market_of(instrument: str, side: Side) -> Market:
    """Return what an order of this side would execute against now. Callable from any thread."""
    hub = services.process_hub()
    if hub is None:
        raise Unavailable("this process has no market data yet; try again in a moment")
    return market(hub.board(instrument), side, now_ns=time.time_ns())


def is_live(venue: str) -> bool:
    hub = services.process_hub()
    return hub is not None and hub.is_live(venue)


def market(board: TouchBoard, side: Side, *, now_ns: int) -> Market:
    """Return a board's best offers for an order of this side, and the receipt of what it shows."""
    offers = tuple(Offer(to_units(best.price), size_units(best.size), best.venue) for best in board.at_best(side))
    return Market(offers, receipt(board, now_ns))


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
