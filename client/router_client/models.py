"""What the router answers, as types. Members have the wire's names; amounts are exact Decimals.

Unknown members are ignored, so that a newer router is read too. Moments of orders are
`datetime`s in UTC; `timestamp`s of market data are seconds since the epoch.
"""

from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple

from msgspec import Struct, field

Side = Literal["buy", "sell"]
OrderType = Literal["limit", "market", "ioc"]
Interval = Literal["1s", "10s", "1m", "5m"]

__all__ = [
    "ApiKey",
    "ApiKeys",
    "Balance",
    "Balances",
    "BasicAccount",
    "BestTouch",
    "Book",
    "Books",
    "Candle",
    "Connected",
    "Deposited",
    "Disconnected",
    "Entry",
    "Ewma",
    "Fill",
    "FillPage",
    "Health",
    "Info",
    "Interval",
    "Kline",
    "Klines",
    "LedgerPage",
    "Level",
    "Notice",
    "Order",
    "OrderBook",
    "OrderPage",
    "OrderType",
    "OrderUpdate",
    "Quote",
    "RateLimit",
    "SeenTouch",
    "Side",
    "Slice",
    "SliceFill",
    "Status",
    "Subscribed",
    "Tokens",
    "TouchStatus",
    "Trade",
    "TradeGap",
    "TwapOrder",
    "VenueChange",
    "VenueStatus",
]

OPEN = "open"
ALL = "all"


class Tokens(Struct, frozen=True):
    """What a log-in answers."""

    access_token: str
    refresh_token: str = ""
    token_type: str = "bearer"  # noqa: S105 - the name of a scheme
    expires_in: int = 0  # seconds
    username: str = ""
    user_id: int | None = None


class Info(Struct, frozen=True):
    """What is served there."""

    assets: list[str]
    pairs: list[str]
    exchanges: list[str]
    kline_intervals: list[str] = []
    streams: list[str] = []
    order_types: list[str] = []
    paper: bool = True
    simulated: bool = False
    source: str = ""
    version: str = ""


# -- market data


class Level(NamedTuple):
    """A price and what is shown there; of a book over all exchanges also where."""

    price: Decimal
    quantity: Decimal
    exchange: str | None = None


class OrderBook(Struct, frozen=True):
    """Levels best first."""

    symbol: str
    exchange: str
    bids: list[Level]
    asks: list[Level]
    timestamp: float
    depth: int | None = None


class Book(Struct, frozen=True):
    """A book inside an image of all books."""

    bids: list[Level]
    asks: list[Level]


Books = dict[str, dict[str, Book]]  # exchange → symbol → book


class BestTouch(Struct, frozen=True):
    """The best bid and ask over the live exchanges, or of one; a side that nobody shows is None."""

    symbol: str
    exchange: str
    timestamp: float
    best_bid: Decimal | None = None
    best_bid_qty: Decimal | None = None
    best_bid_exchange: str | None = None
    best_ask: Decimal | None = None
    best_ask_qty: Decimal | None = None
    best_ask_exchange: str | None = None
    spread: Decimal | None = None


class Trade(Struct, frozen=True):
    """A public trade; `side` is the taker's."""

    symbol: str
    exchange: str
    trade_id: str
    price: Decimal
    quantity: Decimal
    side: Side
    timestamp: float


class Kline(Struct, frozen=True):
    """A candle of the stream; `start` and `end` in seconds. The running one comes again until `is_closed`."""

    symbol: str
    exchange: str
    interval: str
    start: int
    end: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    is_closed: bool
    partial: bool = False  # the router did not see all of it


class Candle(Struct, frozen=True):
    """A candle of the history; `timestamp` is its open time in seconds."""

    timestamp: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    is_closed: bool
    partial: bool = False


class Klines(Struct, frozen=True):
    """Candles, oldest first."""

    exchange: str
    symbol: str
    interval: str
    candles: list[Candle]


class Ewma(Struct, frozen=True):
    """An exponentially weighted average of the trade price; `half_life` in seconds."""

    symbol: str
    exchange: str
    half_life: float
    value: Decimal
    timestamp: float


class VenueStatus(Struct, frozen=True):
    """How an exchange's feed fares; ages in seconds."""

    state: str
    live: bool = False
    reason: str = ""
    last_frame_age: float | None = None
    last_data_age: float | None = None
    frames_per_second: float = 0.0
    reconnects: int = 0
    gaps: int = 0
    pairs: list[str] = []
    set_aside: list[str] = []  # symbols whose price strays too far from the other exchanges' to be believed


class TouchStatus(Struct, frozen=True):
    """A symbol's touch and its age in seconds."""

    best_bid: Decimal | None = None
    best_bid_qty: Decimal | None = None
    best_bid_exchange: str | None = None
    best_bid_age: float | None = None
    best_ask: Decimal | None = None
    best_ask_qty: Decimal | None = None
    best_ask_exchange: str | None = None
    best_ask_age: float | None = None
    spread: Decimal | None = None


class Status(Struct, frozen=True):
    """The state of the router."""

    source: str
    exchanges: dict[str, VenueStatus]
    symbols: dict[str, TouchStatus]
    timestamp: float = 0.0
    paper: bool = True
    simulated: bool = False
    version: str = ""
    counters: dict[str, int] = {}


class RateLimit(Struct, frozen=True):
    """What the last answer said of the sender's limit."""

    limit: int
    remaining: int
    reset_s: float  # until all of it is there again


class Health(Struct, frozen=True):
    """That a process answers, or is ready."""

    status: str
    version: str = ""
    source: str = ""


# -- the account


class Balance(Struct, frozen=True):
    """What an account has of an asset: total = available + reserved."""

    asset: str
    total: Decimal
    available: Decimal
    reserved: Decimal


class Balances(Struct, frozen=True):
    """Every asset's balance, sorted."""

    balances: list[Balance]

    def __getitem__(self, asset: str) -> Balance:
        """Return one asset's balance.

        Raises:
            KeyError: it is not traded there.
        """
        for balance in self.balances:
            if balance.asset == asset.upper():
                return balance
        raise KeyError(asset)


class Deposited(Struct, frozen=True):
    """What a deposit answers."""

    asset: str
    amount: Decimal
    new_balance: Decimal
    available: Decimal | None = None


class Quote(Struct, frozen=True):
    """A side of the touch as an execution saw it."""

    price: Decimal
    size: Decimal
    exchange: str
    age_ms: int | None = None


class SeenTouch(Struct, frozen=True):
    """What the market showed; a side that no live exchange had is None."""

    bid: Quote | None = None
    ask: Quote | None = None
    level: Quote | None = None  # of the book, that a slice of a TWAP order took


class Fill(Struct, frozen=True):
    """The receipt of an execution; `touch` is what the market showed, `rule` why it executed."""

    fill_id: str
    order: str
    side: Side
    price: Decimal
    quantity: Decimal
    exchange: str
    executed_at: datetime
    symbol: str = ""
    token_id: str = ""
    fee: Decimal = Decimal(0)
    fee_asset: str = ""
    liquidity: str = ""
    rule: str = ""
    touch: SeenTouch | None = None
    slice: int | None = None  # of a TWAP order, from 0


class Order(Struct, frozen=True, kw_only=True):
    """An order as it stands. `price` is the limit; of a filled market or ioc order what it cost."""

    id: str
    token_id: str
    symbol: str
    side: Side
    order_type: str
    status: str
    quantity: Decimal
    filled_quantity: Decimal = Decimal(0)
    price: Decimal | None = None
    execution_price: Decimal | None = None  # the average over its fills
    exchange: str | None = None  # that filled it; `multiple` where several did
    reason: str | None = None
    fills: list[Fill] = []
    user_id: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    executed_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self.status == OPEN

    @property
    def remaining(self) -> Decimal:
        """What is not filled."""
        return self.quantity - self.filled_quantity


class OrderPage(Struct, frozen=True):
    """Orders, newest first; `next_cursor` leads to the older ones."""

    orders: list[Order]
    next_cursor: str | None = None


class SliceFill(Struct, frozen=True, kw_only=True):
    """What a slice took of one level; the whole receipt is among the account's fills."""

    fill_id: str
    price: Decimal
    quantity: Decimal
    exchange: str


class Slice(Struct, frozen=True, kw_only=True):
    """What one slice (from 0) of a TWAP order executed: its average price, and where, `multiple` where on several."""

    slice: int
    scheduled_at: datetime | None = None
    executed_at: datetime | None = None
    quantity: Decimal = Decimal(0)
    price: Decimal | None = None
    exchange: str | None = None
    fills: list[SliceFill] = []


class TwapOrder(Struct, frozen=True, kw_only=True):
    """A parent order that executes in slices over time; order updates leave its `executions` out.

    `arrival_price` is the middle of the touch when it came, `market_twap` the same averaged over its
    life; the slippages say by how many basis points `average_price` is worse than each, below 0 that
    it is better. None where nothing was shown, or nothing has executed.
    """

    order_id: str
    token_id: str
    symbol: str
    side: Side
    status: str
    total_quantity: Decimal
    executed_quantity: Decimal
    duration_seconds: Decimal
    slices: int
    slices_executed: int
    percent_executed: Decimal
    is_completed: bool  # it has ended, whatever it executed
    exchange: str = ALL
    pair: str = ""
    message: str = ""
    reason: str | None = None
    average_price: Decimal | None = None
    limit_price: Decimal | None = None
    slices_missed: int = 0  # nobody was there to run them
    executions: list[Slice] = []
    arrival_price: Decimal | None = None
    market_twap: Decimal | None = None
    slippage_arrival_bps: Decimal | None = None
    slippage_twap_bps: Decimal | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        return self.status == OPEN

    @property
    def remaining(self) -> Decimal:
        """What is not executed."""
        return self.total_quantity - self.executed_quantity


class FillPage(Struct, frozen=True):
    """Receipts, newest first."""

    fills: list[Fill]
    next_cursor: str | None = None


class Entry(Struct, frozen=True, kw_only=True):
    """A change of a balance; `balance` is the total after it."""

    asset: str
    amount: Decimal
    kind: str = ""
    balance: Decimal | None = None
    fill_id: str | None = None
    created_at: datetime | None = None
    id: int | str | None = None


class LedgerPage(Struct, frozen=True):
    """Ledger entries, newest first."""

    entries: list[Entry]
    next_cursor: str | None = None


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key of the account. The secret `api_key` is there once, when it is made."""

    id: int | str | None = None
    name: str = ""
    starts_with: str = ""
    api_key: str | None = None
    created_at: datetime | None = None


class ApiKeys(Struct, frozen=True):
    """The account's keys, newest first."""

    api_keys: list[ApiKey]


class BasicAccount(Struct, frozen=True, kw_only=True):
    """An account without a name, with nothing but a key."""

    api_key: str
    client_type: str = ""
    username: str = ""
    user_id: int | None = None


# -- what the socket tells


class OrderUpdate(Struct, frozen=True):
    """An execution report: the order after it, and the fill that it tells of where it is one.

    `seq` rises by one per account; an iterator yields each number once and skips none.
    """

    seq: int
    order: Order
    fill: Fill | None = None
    twap: TwapOrder | None = None  # how far the order is, where it is a TWAP order


class VenueChange(Struct, frozen=True):
    """An exchange of your symbols went stale or came back."""

    exchange: str
    state: str
    reason: str = ""


class TradeGap(Struct, frozen=True):
    """Trades of an exchange are missing, from the first of these ids to the last."""

    exchange: str
    symbol: str
    from_id: int | str | None = None
    to_id: int | str | None = None


class Subscribed(Struct, frozen=True):
    """A stream that the router sends to this socket."""

    stream: str
    symbol: str
    exchange: str = ALL
    interval: str | None = None
    half_life: float | None = None
    depth: int | None = None


class Connected(Struct, frozen=True):
    """The socket is open; after a reconnect what it missed of trades is missing, and nothing of order updates."""

    reconnects: int
    message: str = ""


class Disconnected(Struct, frozen=True):
    """The socket went; it comes back by itself after `retry_in` seconds."""

    reason: str
    retry_in: float = field(default=0.0)


Notice = VenueChange | TradeGap | Connected | Disconnected
