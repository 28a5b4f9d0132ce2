"""What a client may say on /ws, as types; everything else is one `CommandError`."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct

from core import strict_json
from core.candles import INTERVALS
from core.errors import DomainError, Invalid, UnknownSymbol, UnknownVenue
from core.instruments import Catalogue
from marketdata.batches import ALL
from marketdata.frames import SINGULAR

STREAMS = tuple(SINGULAR)
PLURAL = {singular: stream for stream, singular in SINGULAR.items()}
DEFAULT_INTERVAL = "1m"
DEFAULT_HALF_LIFE = 30.0
DEFAULT_DEPTH = 10
DEPTH_MAX = 20
ID_LENGTH_MAX = 256

Scalar = str | int | Decimal | bool | None
_ABSENT = object()


class CommandError(DomainError):
    """One refused frame, told with a code, `details` of it and, where it had one, its `id`."""

    def __init__(self, code: str, message: str, *, reply_to: Any = _ABSENT, **details: object) -> None:
        super().__init__(message, **details)
        self.code = code
        self.reply_to = reply_to

    @property
    def has_id(self) -> bool:
        return self.reply_to is not _ABSENT


class Filter(Struct, frozen=True):
    """What a subscription selects. None is a wildcard, for `unsubscribe` only."""

    stream: str | None
    instrument: str | None
    symbol: str | None
    venue: str | None
    argument: float | None  # seconds of a candle, half-life, levels of a book
    singular: bool = False  # written with the older `data_type`: answered in kind


class Command(Struct, frozen=True):
    action: str
    body: Mapping[str, Any]
    has_id: bool
    id: Scalar

    def error(self, code: str, message: str) -> CommandError:
        return CommandError(code, message, reply_to=self.id if self.has_id else _ABSENT)

    def refusal(self, error: DomainError) -> CommandError:
        """Return what the client is told of a domain's refusal: the code and the members that REST gives it."""
        message, details = error.message, dict(error.details)
        if isinstance(error, Invalid):
            details["detail"] = [{"loc": list(error.loc), "msg": message, "type": error.kind}]
            place = ".".join(map(str, error.loc[1:]))
            message = f"{place}: {message}" if place else message
        return CommandError(error.code, message, reply_to=self.id if self.has_id else _ABSENT, **details)


def read_command(text: str) -> Command:
    """Read one text frame.

    Raises:
        CommandError: it is not a JSON object with an `action`, or its `id` is not a scalar.
    """
    try:
        body = strict_json.loads(text.encode("utf-8", "surrogatepass"))
    except DomainError as error:
        raise CommandError("bad_json", error.message) from None
    if not isinstance(body, dict):
        raise CommandError("bad_command", 'send a JSON object such as {"action":"ping"}')
    has_id = "id" in body
    command_id = body.get("id")
    if isinstance(command_id, list | dict) or (isinstance(command_id, str) and len(command_id) > ID_LENGTH_MAX):
        raise CommandError(
            "bad_command", f"id must be a string of up to {ID_LENGTH_MAX} characters, a number, true, false or null"
        )
    action = body.get("action")
    command = Command(action if isinstance(action, str) else "", body, has_id, command_id)
    if not isinstance(action, str):
        raise command.error("bad_command", "action is missing or not a string")
    return command


def read_filter(command: Command, catalogue: Catalogue, venues: tuple[str, ...], *, wildcards: bool = False) -> Filter:
    """Read what a subscribe or unsubscribe selects.

    Raises:
        CommandError: an unknown stream, symbol, exchange or interval, or a bad half-life or depth.
    """
    body = command.body
    stream, singular = _stream(command, wildcards=wildcards)
    instrument = symbol = None
    if body.get("symbol") is not None or not wildcards:
        try:
            found = catalogue.find(body.get("symbol"))
        except UnknownSymbol as error:
            raise command.error(error.code, error.message) from None
        instrument, symbol = found.name, found.symbol
    venue = body.get("exchange")
    if venue is None:
        venue = None if wildcards else ALL
    elif not isinstance(venue, str) or not venue.isascii() or venue.lower() not in (ALL, *venues):
        raise command.error(UnknownVenue.code, f"unknown exchange; choose one of {ALL}, {', '.join(venues)}")
    else:
        venue = venue.lower()
    return Filter(stream, instrument, symbol, venue, _argument(command, stream, wildcards=wildcards), singular)


def read_from_seq(command: Command, *, last_seq: int) -> int:
    """Read the number of the last report that a client has.

    Raises:
        CommandError: it is no whole number from 0 to the account's last one.
    """
    value = command.body.get("from_seq")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= last_seq:
        raise command.error(
            "bad_from_seq", f"from_seq must be a whole number from 0 to {last_seq}, the seq of your last order_update"
        )
    return value


def _stream(command: Command, *, wildcards: bool) -> tuple[str | None, bool]:
    body = command.body
    if "stream" in body or "data_type" not in body:
        name = body.get("stream")
        if name is None and wildcards:
            return None, False
        if isinstance(name, str) and (name in STREAMS or name in PLURAL):
            return PLURAL.get(name, name), False
    else:
        name = body["data_type"]
        if isinstance(name, str) and (name in STREAMS or name in PLURAL):
            return PLURAL.get(name, name), True
    raise command.error("unknown_stream", f"unknown stream; choose one of {', '.join(STREAMS)}")


def _argument(command: Command, stream: str | None, *, wildcards: bool) -> float | None:
    body = command.body
    if stream == "klines":
        interval = body.get("interval", None if wildcards else DEFAULT_INTERVAL)
        if interval is None and wildcards:
            return None
        if not isinstance(interval, str) or interval not in INTERVALS:
            raise command.error("unknown_interval", f"unknown interval; choose one of {', '.join(INTERVALS)}")
        return INTERVALS[interval]
    if stream == "ewma":
        half_life = body.get("half_life", None if wildcards else Decimal(DEFAULT_HALF_LIFE))
        if half_life is None and wildcards:
            return None
        return _half_life(command, half_life)
    if stream == "orderbook":
        depth = body.get("depth", None if wildcards else DEFAULT_DEPTH)
        if depth is None and wildcards:
            return None
        if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= DEPTH_MAX:
            raise command.error("bad_depth", f"depth must be a whole number from 1 to {DEPTH_MAX}")
        return depth
    return None


def _half_life(command: Command, half_life: object) -> float:
    if not isinstance(half_life, bool) and isinstance(half_life, int | Decimal):
        try:
            value = float(half_life)
        except OverflowError:
            value = math.inf
        if math.isfinite(value) and value > 0:
            return value
    raise command.error("bad_half_life", "half_life must be a finite number of seconds greater than 0")
