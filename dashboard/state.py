"""What the page shows, folded from what the streams bring. Bounded; read and written by two threads."""

import threading
from collections import deque
from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct
from router_client import Balances, BestTouch, Candle, Kline, Order, OrderBook, Status, Trade

TRADES_KEPT = 60
CANDLES_KEPT = 240
QUOTE = "USDT"  # what an account is valued in


class Watched(Struct, frozen=True):
    """What the page looks at."""

    symbol: str
    exchange: str
    interval: str


class Market:
    """One symbol at one exchange (or all): its touch, its book, its last trades and its candles."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.touch: BestTouch | None = None
        self.book: OrderBook | None = None
        self._lock = threading.Lock()
        self._trades: deque[Trade] = deque(maxlen=TRADES_KEPT)
        self._candles: dict[int, Candle] = {}

    def take_touch(self, touch: BestTouch) -> None:
        self.touch = touch

    def take_book(self, book: OrderBook) -> None:
        self.book = book

    def take_trade(self, trade: Trade) -> None:
        with self._lock:
            self._trades.appendleft(trade)

    def take_kline(self, kline: Kline) -> None:
        """Take a candle of the stream; it is newer than any other of the same time, unless that one is closed."""
        candle = Candle(
            timestamp=kline.start, open=kline.open, high=kline.high, low=kline.low, close=kline.close,
            volume=kline.volume, trades=kline.trades, is_closed=kline.is_closed, partial=kline.partial,
        )  # fmt: skip
        with self._lock:
            known = self._candles.get(candle.timestamp)
            if known is None or candle.is_closed or not known.is_closed:
                self._put(candle)

    def take_history(self, candles: Iterable[Candle]) -> None:
        """Take stored candles; where the stream told of the same one, the fuller of the two stays."""
        with self._lock:
            for candle in candles:
                known = self._candles.get(candle.timestamp)
                if known is None or candle.trades > known.trades or (candle.is_closed and not known.is_closed):
                    self._put(candle)

    @property
    def trades(self) -> list[Trade]:
        """The last trades, newest first."""
        with self._lock:
            return list(self._trades)

    @property
    def candles(self) -> list[Candle]:
        """The last candles, oldest first."""
        with self._lock:
            return [self._candles[start] for start in sorted(self._candles)]

    def _put(self, candle: Candle) -> None:
        self._candles[candle.timestamp] = candle
        while len(self._candles) > CANDLES_KEPT:
            del self._candles[min(self._candles)]


class Link(Struct, frozen=True):
    """Whether the router is there, and since when it is so; `since` in monotonic seconds."""

    connected: bool
    since: float
    reason: str = ""


class Account(Struct, frozen=True):
    """The account as it was last read; orders newest first. A running TWAP order is none of the open orders."""

    balances: Balances
    open_orders: list[Order]
    history: list[Order]


def assets_of(symbol: str, assets: Iterable[str]) -> tuple[str, str]:
    """Return base and quote asset of a symbol."""
    known = set(assets)
    for cut in range(len(symbol) - 1, 0, -1):
        if symbol[:cut] in known and symbol[cut:] in known:
            return symbol[:cut], symbol[cut:]
    return symbol.removesuffix(QUOTE), QUOTE


def middle(bid: Decimal | None, ask: Decimal | None) -> Decimal | None:
    """Return the middle of the touch; where one side is missing, the other."""
    if bid is None or ask is None:
        return bid if ask is None else ask
    return (bid + ask) / 2


def marks(status: Status | None) -> dict[str, Decimal]:
    """Return what one of each asset is worth now: the middle of its touch against the quote asset."""
    prices = {QUOTE: Decimal(1)}
    for symbol, touch in (status.symbols if status else {}).items():
        mid = middle(touch.best_bid, touch.best_ask)
        if symbol.endswith(QUOTE) and mid is not None:
            prices[symbol.removesuffix(QUOTE)] = mid
    return prices
