"""What crosses processes: batches of market data as bytes, and the names of their groups.

One touch batch per flush goes to every web process and matcher; instrument batches (trades,
candles, books) go only to processes that asked for the instrument. Both are numbered per
publisher, so that a receiver sees a loss. Feeds of some venues only tell what those traded in each
second, from which the consolidator makes the candles over all venues.
"""

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from core.candles import Candle, Second
from core.events import Level, Side

ALL = "all"  # the venue filter that means every venue

TOUCH_GROUP = "market.touch"
REQUEST_GROUP = "market.requests"
SECONDS_GROUP = "market.seconds"
HEARTBEAT_S = 1.0
HEARTBEAT_LOST_S = 3.0  # without a heartbeat for so long, all touches are stale
INTEREST_S = 30.0  # an instrument is published for so long after it was last asked for
INTEREST_REPEAT_S = 10.0


def instrument_group(instrument: str) -> str:
    """Return the group that carries an instrument's trades, candles and books."""
    return f"market.instrument.{instrument}"


class QuoteSlot(Struct, frozen=True, array_like=True):
    """A venue's best bid and ask of one instrument; both sides None empties the slot."""

    venue: str
    instrument: str
    bid: Decimal | None
    bid_size: Decimal | None
    ask: Decimal | None
    ask_size: Decimal | None
    sequence: int | None
    received_ns: int  # wall clock of the feed


class VenueStatus(Struct, frozen=True, array_like=True):
    """One venue as the feeds see it; ages are in seconds at the time of sending."""

    venue: str
    state: str
    reason: str
    instruments: tuple[str, ...]  # what it really carries
    disabled: dict[str, str]  # instrument → why it is not carried
    last_frame_age_s: float | None
    last_data_age_s: float | None
    frames_per_s: float
    counters: dict[str, int]


class TradePrint(Struct, frozen=True, array_like=True):
    venue: str
    trade_id: str
    first_id: int
    last_id: int
    price: Decimal
    size: Decimal
    side: Side
    time_ns: int  # the trade's time in our time base (see core.candles.trade_time_ns)
    venue_ns: int


class CandleUpdate(Struct, frozen=True, array_like=True):
    venue: str  # or "all"
    candle: Candle


class BookUpdate(Struct, frozen=True, array_like=True):
    venue: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    received_ns: int


class Gap(Struct, frozen=True, array_like=True):
    """Trades of a venue that we never received: ids `from_id`..`to_id`."""

    venue: str
    from_id: int
    to_id: int


class TouchBatch(Struct, frozen=True, array_like=True):
    publisher: str
    sequence: int
    heartbeat: bool  # carries every slot and every status
    source: str  # "live" or "simulated"
    quotes: list[QuoteSlot]
    statuses: list[VenueStatus]
    sent_s: float | None = None  # on the publisher's monotonic clock


class InstrumentBatch(Struct, frozen=True, array_like=True):
    publisher: str
    instrument: str
    sequence: int
    trades: list[TradePrint]
    candles: list[CandleUpdate]
    books: list[BookUpdate]
    gaps: list[Gap]


class VenueSeconds(Struct, frozen=True, array_like=True):
    """What one venue traded in each of the seconds that a batch is about."""

    venue: str
    observed: bool  # trades could arrive all the time since the batch before
    seconds: list[tuple[str, Second]]  # instrument, what traded; the newest word on each counts


class SecondsBatch(Struct, frozen=True, array_like=True):
    """Seconds `since` to `closed_before` are told completely, later ones as far as they have gone."""

    publisher: str
    since: int
    closed_before: int
    venues: list[VenueSeconds]


_encoder = msgspec.msgpack.Encoder()
_touch = msgspec.msgpack.Decoder(TouchBatch)
_instrument = msgspec.msgpack.Decoder(InstrumentBatch)
_seconds = msgspec.msgpack.Decoder(SecondsBatch)


def touch_message(batch: TouchBatch) -> dict[str, Any]:
    return {"type": "market.touch", "body": _encoder.encode(batch)}


def instrument_message(batch: InstrumentBatch) -> dict[str, Any]:
    return {"type": "market.instrument", "body": _encoder.encode(batch)}


def seconds_message(batch: SecondsBatch) -> dict[str, Any]:
    return {"type": "market.seconds", "body": _encoder.encode(batch)}


def read_seconds(message: dict[str, Any]) -> SecondsBatch:
    return _seconds.decode(message["body"])


def interest_message(instrument: str) -> dict[str, Any]:
    """Ask the feeds to publish an instrument for the next `INTEREST_S`, starting with its present state."""
    return {"type": "market.interest", "instrument": instrument}


def read_message(message: dict[str, Any]) -> TouchBatch | InstrumentBatch | None:
    """Decode a layer message of this module; None for any other."""
    if message["type"] == "market.touch":
        return _touch.decode(message["body"])
    if message["type"] == "market.instrument":
        return _instrument.decode(message["body"])
    return None
