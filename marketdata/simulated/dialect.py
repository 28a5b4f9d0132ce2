"""What the three venues' protocols have in common: the words between `venue.py` and each of them.

Nothing of the adapters is used here: this is the other side of the wire, and an error in
one must not hide in the other.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from marketdata.simulated.maker import SIZE_DECIMALS, Maker, Print

NS = 1_000_000_000

TOUCH, DEPTH, TRADES, INSTRUMENTS = "touch", "depth", "trades", "instruments"
KINDS = frozenset((TOUCH, DEPTH, TRADES))


class Topic(NamedTuple):
    """What a socket subscribes to; `variant` is the protocol's own (a depth, a trigger)."""

    kind: str
    instrument: str
    variant: str = ""


class SentTrade(NamedTuple):
    """A print with its ids and the venue's time."""

    maker: Maker
    print: Print
    first_id: int
    last_id: int
    venue_ns: int

    @property
    def instrument(self) -> str:
        return self.maker.instrument

    @property
    def price(self) -> Decimal:
        return Decimal(fixed(self.print.price, self.maker.price_decimals))

    @property
    def size(self) -> Decimal:
        return Decimal(fixed(self.print.size, SIZE_DECIMALS))

    @property
    def sizes(self) -> list[int]:
        """Return the trade's size divided among the orders that it met, one per id."""
        parts = self.last_id - self.first_id + 1
        share = max(self.print.size // parts, 1)
        return [*([share] * (parts - 1)), self.print.size - share * (parts - 1)]

    @property
    def side(self) -> str:
        """Return the taker's side."""
        return "buy" if self.print.taker_buys else "sell"


class Socket(Protocol):
    """One client's connection, as a protocol sees it."""

    number: int
    topics: set[Topic]

    def send(self, kind: str, frame: str | bytes) -> None: ...

    def subscribe(self, topic: Topic) -> None: ...

    def unsubscribe(self, topic: Topic) -> None: ...

    def ping(self) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def idle_s(self) -> float: ...

    def idle_ping_s(self) -> float: ...

    def unanswered_ping_s(self) -> float: ...


Frames = Iterator[tuple[Topic, str]]


class Dialect(Protocol):
    """One venue's protocol: frames for events, answers for requests. Encodes only what is listened to."""

    path: str
    depth_steps: int  # market steps between two depth frames of an instrument
    messages_per_s_max: int | None  # of a client, control frames included
    touch_prices_only: bool  # the touch is told when a price changes, not when only a size does
    system: str  # the engine's state, where the venue tells it

    def greet(self, socket: Socket) -> None:
        """Say what the venue says first; a request in the address is served too."""

    def take(self, socket: Socket, frame: str) -> None:
        """Answer a client's frame."""

    def is_ping(self, frame: str) -> bool:
        """True for the protocol's own question whether we are there."""

    def touch(self, maker: Maker, now_ns: int) -> Frames: ...

    def depth(self, maker: Maker, now_ns: int) -> Frames: ...

    def trades(self, trades: Sequence[SentTrade]) -> Frames: ...

    def tick(self, socket: Socket) -> None:
        """Send heartbeats and pings, and cut the idle; called some ten times a second."""

    def status(self, system: str) -> str:
        """Set the engine's state and return the frame that tells it; raises ValueError where there is none."""

    def corrupt_checksum(self) -> None:
        """Make the next delta's checksum wrong; raises ValueError where there is none."""

    def farewell(self) -> str:
        """Return the frame that announces a planned close."""

    def garbage(self) -> Sequence[str | bytes]:
        """Return frames that no client can read."""


class Listeners(Protocol):
    """Who listens to what: a mapping of topics with at least one socket."""

    def __contains__(self, topic: object) -> bool: ...


Makers = Mapping[str, Maker]
Clock = Callable[[], int]  # nanoseconds since the epoch


def fixed(units: int, decimals: int) -> str:
    """Write units of 10^-decimals with all their digits: 100000 at 8 is "0.00100000"."""
    if decimals == 0:
        return str(units)
    sign, digits = ("-", str(-units)) if units < 0 else ("", str(units))
    digits = digits.zfill(decimals + 1)
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


def trimmed(units: int, decimals: int) -> str:
    """Write units of 10^-decimals without trailing zeros: 100000 at 8 is "0.001"."""
    text = fixed(units, decimals)
    return text.rstrip("0").rstrip(".") if decimals else text


def to_units(value: Decimal, decimals: int) -> int:
    """Return a decimal as units of 10^-decimals.

    Raises:
        ValueError: the venue cannot write so fine a number.
    """
    units = Decimal(value).scaleb(decimals)
    if not units.is_finite() or units != units.to_integral_value():
        raise ValueError(f"{value} has more than {decimals} decimals")
    return int(units)


def milliseconds(now_ns: int) -> int:
    return now_ns // 1_000_000


def timestamp(now_ns: int) -> str:
    """Write a time as RFC 3339 with microseconds."""
    seconds, rest = divmod(now_ns, NS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def strings(value: object) -> list[str] | None:
    """Return a list of texts, or None when it is anything else."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def changes(
    before: Mapping[int, int], now: Sequence[tuple[int, int]], window: int, *, best_is_high: bool, silent_fall: bool
) -> Iterable[tuple[int, int]]:
    """Yield the (price, size) changes that turn one window of levels into another; size 0 deletes.

    With `silent_fall` a level that fell below a full window is not deleted: the client cuts.
    """
    worst = now[-1][0] if len(now) >= window and silent_fall else None
    kept = {price for price, _ in now}
    for price in before:
        if price not in kept and (worst is None or (price > worst) is best_is_high):
            yield price, 0
    for price, size in now:
        if before.get(price) != size:
            yield price, size
