"""What other parts ask of market data.

The hub belongs to one event loop. Its coroutines are awaited there; `klines` is for threads.
"""

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings

from core.candles import Candle
from core.errors import Refused, Unavailable, UnknownVenue
from core.instruments import Instrument
from core.touch import Best
from marketdata import history, metrics
from marketdata.batches import ALL
from marketdata.hub import NO_FEEDS, Hub, book_of_all, book_of_venue

_NS = 1_000_000_000
_LATE_S = 5  # a running candle this far past its end belongs to feeds that are gone

_hubs: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub]" = weakref.WeakKeyDictionary()
_process_hub: list[Hub] = []
status_parts: dict[str, Callable[[], Any]] = {}  # what others have to say in `/status`, by name


async def current_hub() -> Hub:
    """Return this process's hub, started; one per event loop."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub(get_channel_layer(), settings.CATALOGUE.instruments, settings.VENUES)
        await hub.start()
        _process_hub.append(hub)
    return hub


def process_hub() -> Hub | None:
    """Return the hub that was started last in this process, for threads that look at its touches only."""
    return _process_hub[-1] if _process_hub else None


async def stop_hub() -> None:
    """Stop this loop's hub, if it has one."""
    hub = _hubs.pop(asyncio.get_running_loop(), None)
    if hub is not None:
        _process_hub.remove(hub)
        await hub.stop()


class NotCarried(Refused):
    """The venue does not list this instrument."""

    code = "not_carried"


def find_venue(text: str) -> str:
    """Return the configured venue, or "all", that a client means.

    Raises:
        UnknownVenue: it is neither.
    """
    name = text.lower()
    if not text.isascii() or name not in (ALL, *settings.VENUES):  # the Kelvin sign is a k to lower()
        raise UnknownVenue(f"unknown exchange; choose one of {ALL}, {', '.join(settings.VENUES)}")
    return name


async def pairs(venue: str) -> list[str]:
    """Return the symbols that a venue really carries.

    Raises:
        Unavailable: its feed has not told yet.
    """
    instruments = {instrument.name: instrument.symbol for instrument in settings.CATALOGUE.instruments}
    if venue == ALL:
        return list(instruments.values())
    status = (await current_hub()).statuses.get(venue)
    if status is None:
        raise Unavailable(f"the feed of {venue} has not said yet what it carries", retry_after=1)
    return [instruments[name] for name in status.instruments if name in instruments]


async def order_book(instrument: Instrument, venue: str, depth: int) -> msgspec.Raw:
    """Return a book as JSON, best levels first; empty while the venue is not live.

    Raises:
        NotCarried: the venue does not list the instrument.
    """
    hub = await current_hub()
    _require_carried(hub, instrument, venue)
    books = await hub.books(instrument.name)
    if venue != ALL and venue in books:
        return msgspec.Raw(book_of_venue(instrument.symbol, books[venue], depth).encode())
    chosen = hub.of_all(instrument.name, books) if venue == ALL else {}
    text = book_of_all(instrument.symbol, chosen, depth, time.time_ns())
    return msgspec.Raw(text.replace(f'"exchange":"{ALL}"', f'"exchange":"{venue}"', 1).encode())


def klines(
    instrument: Instrument, venue: str, *, interval: int, limit: int, start: int | None = None, end: int | None = None
) -> Sequence[Candle]:
    """Return stored candles, oldest first, and the running one last when the range reaches it.

    `start` and `end` are open times in seconds, both included.

    Raises:
        NotCarried: the venue does not list the instrument.
    """
    running = async_to_sync(_running_candle)(instrument, venue, interval)
    candles = list(
        history.page(venue=venue, instrument=instrument.name, interval=interval, limit=limit, start=start, end=end)
    )
    if running is None or (end is not None and running.open_time > end):
        return candles
    if start is not None and (running.open_time < start or len(candles) == limit):
        return candles
    if candles and candles[-1].open_time >= running.open_time:
        return candles
    return [*candles, running][-limit:]


async def status() -> dict[str, Any]:
    """Return the state of the market data: its source, each venue, each touch."""
    hub = await current_hub()
    return {
        "paper": True,
        "source": hub.source or settings.MARKET_SOURCE,
        "source_requested": settings.MARKET_SOURCE_REQUESTED,
        "simulated": (hub.source or settings.MARKET_SOURCE) == "simulated",
        "version": settings.VERSION,
        "timestamp": round(time.time(), 6),
        "exchanges": {venue: _venue_state(hub, venue) for venue in hub.venues},
        "symbols": {
            instrument.symbol: _touch_state(hub, name, time.time_ns()) for name, instrument in hub.instruments.items()
        },
        "counters": dict(hub.counters),
        **{name: part() for name, part in status_parts.items()},
    }


async def feeds_problem() -> str | None:
    """Return why this process has no market data at all, None when feeds are heard."""
    hub = await current_hub()
    if not hub.statuses:
        return NO_FEEDS
    return NO_FEEDS if all(status.reason == NO_FEEDS for status in hub.statuses.values()) else None


async def metrics_text() -> bytes:
    """Return this process's metrics in Prometheus' text format."""
    hub = await current_hub()
    ages = {}
    now_ns = time.time_ns()
    for name, instrument in hub.instruments.items():
        touch = hub.touch(name)
        for side, best in (("bid", touch.bid), ("ask", touch.ask)):
            if best is not None:
                ages[instrument.symbol, side] = _age_s(best, now_ns)
    asides = {
        (venue, instrument.symbol): (venue in board.aside, board.times_aside[venue])
        for instrument, board in ((instrument, hub.board(name)) for name, instrument in hub.instruments.items())
        for venue in hub.venues
    }
    return metrics.text(list(hub.statuses.values()), dict(hub.counters), ages, asides)


async def _running_candle(instrument: Instrument, venue: str, interval: int) -> Candle | None:
    hub = await current_hub()
    _require_carried(hub, instrument, venue)
    candle = await hub.candle(instrument.name, venue, interval)
    if candle is None or candle.open_time + candle.interval + _LATE_S < time.time():
        return None
    return candle


def _require_carried(hub: Hub, instrument: Instrument, venue: str) -> None:
    status = hub.statuses.get(venue)
    if status is not None and instrument.name in status.disabled:
        raise NotCarried(f"{venue} does not carry {instrument.symbol}: {status.disabled[instrument.name]}")


def _venue_state(hub: Hub, venue: str) -> dict[str, Any]:
    status = hub.statuses.get(venue)
    if status is None:
        return {"state": "unknown", "reason": NO_FEEDS, "live": False}
    symbols = {name: instrument.symbol for name, instrument in hub.instruments.items()}
    return {
        "state": status.state,
        "reason": status.reason,
        "live": hub.is_live(venue),
        "last_frame_age": _rounded(status.last_frame_age_s),
        "last_data_age": _rounded(status.last_data_age_s),
        "frames_per_second": round(status.frames_per_s, 1),
        "reconnects": status.counters.get("reconnects", 0),
        "gaps": status.counters.get("gaps", 0),
        "pairs": [symbols[name] for name in status.instruments if name in symbols],
        "set_aside": [symbols[name] for name in hub.set_aside(venue)],
        "not_carried": {symbols[name]: why for name, why in status.disabled.items() if name in symbols},
        "counters": status.counters,
    }


def _touch_state(hub: Hub, name: str, now_ns: int) -> dict[str, Any]:
    touch = hub.touch(name)
    state: dict[str, Any] = {}
    for side, best in (("bid", touch.bid), ("ask", touch.ask)):
        state |= {
            f"best_{side}": best and best.price,
            f"best_{side}_qty": best and best.size,
            f"best_{side}_exchange": best and best.venue,
            f"best_{side}_age": best and _age_s(best, now_ns),
        }
    state["spread"] = touch.ask.price - touch.bid.price if touch.bid and touch.ask else None
    return state


def _age_s(best: Best, now_ns: int) -> float:
    return round(max(now_ns - best.received_ns, 0) / _NS, 3)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
