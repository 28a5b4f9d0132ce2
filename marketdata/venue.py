"""What a venue declares: data and pure parse functions, no socket, clock or randomness.

A venue module turns raw frames into `Message`s (`read`) and market payloads into events
(`parse`). Everything that needs time or memory of earlier frames lives in `feed.py` and
`market.py`. Symbols here are the venue's own spelling.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from core.events import Body, Channel, Quote, Trade

Reader = Callable[[str | bytes], Iterable[Body]]
UsualReader = Callable[[bytes], Quote | Trade]


class Unreadable(ValueError):
    """A frame, or a part of one, that does not say what its channel promises."""


class Topic(Struct, frozen=True):
    channel: Channel
    symbol: str


class Data(Struct, frozen=True):
    """Market data of one topic, still encoded: the frame itself, or a part of one that is like a frame."""

    topic: Topic
    payload: str | bytes


class Accepted(Struct, frozen=True):
    """A subscription was acknowledged (which proves nothing on Binance)."""

    topic: Topic | None = None


class Rejected(Struct, frozen=True):
    """A subscription was refused. Told by topic or symbol, else by the request's id."""

    reason: str
    topic: Topic | None = None
    symbol: str | None = None
    request_id: int | None = None


class Alive(Struct, frozen=True):
    """A heartbeat, or the answer to a probe: proves the connection, not the data."""

    answer: bool = False


class PlannedClose(Struct, frozen=True):
    """The venue says that it will close this connection soon: open another first."""

    reason: str


class EngineStatus(Struct, frozen=True):
    """Whether the venue's matching engine runs; while it does not, its quotes mean nothing."""

    online: bool
    reason: str


class Listed(Struct, frozen=True):
    """One pair of the venue's instrument list."""

    symbol: str
    price_decimals: int
    size_decimals: int
    online: bool


class Listing(Struct, frozen=True):
    """The venue's instrument list (`complete`) or changes of it."""

    pairs: tuple[Listed, ...]
    complete: bool


class Ignored(Struct, frozen=True):
    """A frame of a known kind that the live feed does not use, counted under `what`."""

    what: str


Message = Data | Accepted | Rejected | Alive | PlannedClose | EngineStatus | Listing | Ignored


class Request(Struct, frozen=True):
    """One frame to send and the topics that it asks for; `request_id` is what an answer echoes."""

    frame: str
    topics: tuple[Topic, ...] = ()
    request_id: int | None = None


class Venue(Struct, frozen=True):
    """One venue, declared. See `marketdata/venues/` for the three that ship.

    - `symbol`: "BTC-USDT" → the venue's spelling in `Topic.symbol`.
    - `subscribe` / `unsubscribe`: topics and the first free request id → frames, each
      within the venue's limits; ids count up from there, one per request.
    - `read`: one text frame → messages; raises `Unreadable`.
    - `parse[channel]`: payload of `Data` → events, in order; raises `Unreadable`.
    - `usual[channel]`: makes a reader of one topic's own for what its frames nearly always are: one trade, or one quote
      with two sides that do not cross. It returns what `parse[channel]` tells, faster, because it may remember what it
      read before; of any other frame it raises a `ValueError` or `ArithmeticError`, and `parse[channel]` is asked.
    - `heads`: how a frame of market data begins, and what follows its topic. Frames that are
      the same so far have the same topic and are themselves the payload. None: read each in full.
    - `listing`: a frame that asks for the instrument list first (subscriptions wait for the
      answer), or None where the venue has none over its WebSocket.
    - `probe`: a text frame that asks "are you there" and is answered by `Alive(answer=True)`;
      None means a WebSocket ping.
    """

    name: str
    url: str
    symbol: Callable[[str], str]
    subscribe: Callable[[Sequence[Topic], int], list[Request]]
    unsubscribe: Callable[[Sequence[Topic], int], list[Request]]
    read: Callable[[str | bytes], Iterable[Message]]
    parse: Mapping[Channel, Reader]
    usual: Mapping[Channel, Callable[[], UsualReader]] = {}
    heads: tuple[bytes, bytes] | None = None
    listing: Callable[[int], Request] | None = None
    probe: Callable[[int], str] | None = None
    send_interval_s: float = 0.25  # between two frames of ours
    rotate_after_s: float | None = None  # open a fresh connection before the venue cuts the old one
    connect_interval_s: float = 1.0  # between two connection attempts, whatever the back-off says
    streams_max: int = 1024  # topics on one connection
    book_depth: int | None = None  # levels of a delta book kept and checked; None: images only
    silent_symbols: bool = False  # an unknown symbol is acknowledged and then silent
    depth_sizes_touch: bool = False  # the depth channel is as current as the touch: it may correct its sizes
    crossing_is_legal: bool = False  # pre-open auctions may cross
