"""One instrument at one simulated venue: its book, its touch and its flow of trades, without a wire.

Prices are whole units of 10^-`price_decimals` and sizes of 10^-8, all `int`.
Nothing here knows the time: a maker moves in steps of `prices.STEP_S` and is a function
of its seed, except for what tests pin.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from marketdata.simulated.prices import STEP_S, PricePath, reference_price

SIZE_DECIMALS = 8
LEVELS = 40  # of a side; more than any window that is shown, so that levels re-enter it
TICKS_RELATIVE = 4  # digits of a price after its first, where a venue's table is silent
DECIMALS_MIN = 2  # of prices on the wire, although ticks may be coarser

FAIR_MEMORY = 0.97  # of a venue's deviation from the fair price, a step
TRADE_MEMORY = 0.96  # of the excitement that a trade leaves, a step
TRADE_EXCITES = 0.75  # expected further trades after each: bursts that always die out
SWEEP_CHANCE = 0.1  # a stale touch is hit before it moves
FLICKER_CHANCE = 0.25  # a step in which a size changes although the price does not
CHURN_TOUCH = 0.4  # of those changes, at the touch; the others deeper
EXTRA_STEP_CHANCE = 0.35  # of a touch change in the additional steps of a raised rate


class Profile(NamedTuple):
    """What makes a venue itself."""

    tick_decimals: dict[str, int]  # by base asset, against dollars
    lot_decimals: int  # of sizes, beyond a lot worth about a dollar
    lag_steps: int
    spread: float  # usual, relative to the price, of the most liquid instrument
    deviation: float  # of its fair price, relative
    trades_per_s: float
    touch_value: float  # usual size at the touch, in the quote currency
    activity: float


PROFILES = {
    "binance": Profile(
        {"BTC": 2, "ETH": 2, "SOL": 2, "XRP": 4, "DOGE": 5, "ADA": 4, "LTC": 2, "LINK": 3, "AVAX": 2, "DOT": 3},
        lot_decimals=0,
        lag_steps=0,
        spread=0.00003,
        deviation=0.000004,
        trades_per_s=0.5,
        touch_value=20_000,
        activity=1.0,
    ),
    "okx": Profile(
        {"BTC": 1, "ETH": 2, "SOL": 2, "XRP": 4, "DOGE": 5, "ADA": 4, "LTC": 2, "LINK": 3, "AVAX": 3, "DOT": 3},
        lot_decimals=2,
        lag_steps=0,
        spread=0.00004,
        deviation=0.000006,
        trades_per_s=0.3,
        touch_value=12_000,
        activity=0.9,
    ),
    "kraken": Profile(
        {"BTC": 1, "ETH": 2, "SOL": 2, "XRP": 5, "DOGE": 7, "ADA": 6, "LTC": 2, "LINK": 5, "AVAX": 2, "DOT": 4},
        lot_decimals=8,
        lag_steps=1,
        spread=0.00007,
        deviation=0.000010,
        trades_per_s=0.06,
        touch_value=5_000,
        activity=0.5,
    ),
}
LIQUIDITY = {"BTC": 1.0, "ETH": 0.8, "SOL": 0.7, "XRP": 0.7, "DOGE": 0.6}
LIQUIDITY_OTHERS = 0.5


class Touch(NamedTuple):
    bid: int
    bid_size: int
    ask: int
    ask_size: int


class Print(NamedTuple):
    """A trade: `taker_buys` tells the taker's side, `matches` how many resting orders it met."""

    price: int
    size: int
    taker_buys: bool
    matches: int = 1


class Ladder:
    """One side of a book, best level first. Keys grow away from the touch: prices for asks, negated for bids."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.sizes: dict[int, int] = {}

    @property
    def best(self) -> int:
        return self.sign * self.keys[0]

    @property
    def best_size(self) -> int:
        return self.sizes[self.keys[0]]

    def levels(self, count: int = LEVELS) -> list[tuple[int, int]]:
        """Return the best (price, size)s, best first."""
        return [(self.sign * key, self.sizes[key]) for key in self.keys[:count]]

    def put(self, price: int, size: int) -> None:
        """Set a level's size; zero removes it."""
        key = self.sign * price
        if size <= 0:
            if self.sizes.pop(key, None) is not None:
                self.keys.remove(key)
            return
        if key not in self.sizes:
            self.keys.insert(bisect_left(self.keys, key), key)
        self.sizes[key] = size

    def drop_better_than(self, price: int) -> None:
        count = bisect_left(self.keys, self.sign * price)
        for key in self.keys[:count]:
            del self.sizes[key]
        del self.keys[:count]

    def clear(self) -> None:
        self.keys.clear()
        self.sizes.clear()

    def cut(self) -> None:
        for key in self.keys[LEVELS:]:
            del self.sizes[key]
        del self.keys[LEVELS:]


class Maker:
    """Quotes and trades one instrument at one venue. Bid < ask always, unless pinned otherwise."""

    def __init__(self, venue: str, instrument: str, path: PricePath, seed: int) -> None:
        self.venue = venue
        self.instrument = instrument
        tick_decimals = _tick_decimals(venue, instrument, seed)
        self.price_decimals = max(tick_decimals, DECIMALS_MIN)
        self.tick = int(10 ** (self.price_decimals - tick_decimals))
        self.version = 0  # rises with every change of the book
        self.pinned = False
        self._profile = PROFILES[venue]
        self._path = path
        self._random = Random(f"maker:{seed}:{venue}:{instrument}")  # noqa: S311 # nosec B311 # a model, not a secret
        self._scale = int(10**self.price_decimals)
        self._liquidity = LIQUIDITY.get(instrument.partition("-")[0], LIQUIDITY_OTHERS)
        lot_decimals = round(math.log10(path.reference)) + self._profile.lot_decimals
        self._lot = int(10 ** (SIZE_DECIMALS - min(max(lot_decimals, 0), SIZE_DECIMALS)))
        self._spread = path.reference * self._scale * self._profile.spread / self._liquidity
        self.usual_price = round(path.reference * self._scale)
        self.usual_size = round(self._profile.touch_value * self._liquidity / path.reference * 10**SIZE_DECIMALS)
        self._deviation = 0.0
        self._excitement = 0.0
        self._trade_chance = self._profile.trades_per_s * self._liquidity * STEP_S
        self.bids, self.asks = Ladder(-1), Ladder(1)
        self._requote(self._fair())

    @property
    def touch(self) -> Touch:
        return Touch(self.bids.best, self.bids.best_size, self.asks.best, self.asks.best_size)

    def step(self) -> list[Print]:
        """Move one step after the path did; return the trades, which happen before the touch moves."""
        fair = self._fair()
        prints = list(self._trades())
        bid, ask = self.bids.best, self.asks.best
        if not bid < fair < ask or ask - bid > 3 * (self._spread + self.tick):
            if self._random.random() < SWEEP_CHANCE and not bid < fair < ask:
                prints.append(self._take(taker_buys=fair >= ask))
            self._requote(fair)
        elif self._random.random() < FLICKER_CHANCE * self._profile.activity:
            self._flicker()
        return prints

    def extra_step(self) -> list[Print]:
        """Move without the path: what a burst of messages adds."""
        prints = list(self._trades())
        if self._random.random() < EXTRA_STEP_CHANCE:
            self._resize(self.bids if self._random.random() < 0.5 else self.asks, 0)
        return prints

    def pin(self, touch: Touch) -> None:
        """Show exactly this touch, crossed or not, over levels that fit it, until `release`."""
        self.pinned = True
        for ladder, price, size in ((self.bids, touch.bid, touch.bid_size), (self.asks, touch.ask, touch.ask_size)):
            ladder.drop_better_than(price)
            ladder.put(price, size)
            self._fill(ladder)
        self.version += 1

    def release(self) -> None:
        """Quote the market's price again, over levels that fit it."""
        self.pinned = False
        for ladder in (self.bids, self.asks):
            ladder.clear()
        self._requote(self._fair())

    # -- parts of a step

    def _fair(self) -> float:
        """Return this venue's view of the price, in its units."""
        noise = self._random.gauss(0.0, self._profile.deviation * math.sqrt(1 - FAIR_MEMORY**2))
        self._deviation = FAIR_MEMORY * self._deviation + noise
        return self._path.mid(self._profile.lag_steps) * (1 + self._deviation) * self._scale

    def _trades(self) -> Iterator[Print]:
        chance = self._trade_chance + self._excitement
        self._excitement *= TRADE_MEMORY
        if self._random.random() >= chance:
            return
        buys = 0.5 + 0.4 * math.tanh(self._path.momentum())
        yield self._take(taker_buys=self._random.random() < buys)

    def _take(self, *, taker_buys: bool) -> Print:
        self._excitement += TRADE_EXCITES * (1 - TRADE_MEMORY)
        ladder = self.asks if taker_buys else self.bids
        price, shown = ladder.best, ladder.best_size
        size = min(self._size(0.15, 1.3), shown)
        ladder.put(price, shown - size or (self._lot if len(ladder.keys) == 1 else 0))  # a side is never empty
        self._fill(ladder)
        self.version += 1
        matches = 1 + min(int(self._random.expovariate(1.2)), size // self._lot - 1, 8)
        return Print(price, size, taker_buys, max(matches, 1))

    def _requote(self, fair: float) -> None:
        spread = self._spread * (0.6 + self._random.expovariate(2.5))
        bid = max(math.floor((fair - spread / 2) / self.tick), 1) * self.tick
        ask = max(math.ceil((fair + spread / 2) / self.tick) * self.tick, bid + self.tick)
        for ladder, price in ((self.bids, bid), (self.asks, ask)):
            ladder.drop_better_than(price)
            if ladder.sign * price not in ladder.sizes:
                ladder.put(price, self._size(1.0, 0.9))
            self._fill(ladder)
        self.version += 1

    def _flicker(self) -> None:
        ladder = self.bids if self._random.random() < 0.5 else self.asks
        if self._random.random() < CHURN_TOUCH:
            self._resize(ladder, 0)
            return
        index = self._random.randrange(1, min(len(ladder.keys), 24)) if len(ladder.keys) > 1 else 0
        if index and self._random.random() < 0.3:
            ladder.put(ladder.sign * ladder.keys[index], 0)  # a level deeper moves up
            self._fill(ladder)
            self.version += 1
        else:
            self._resize(ladder, index)

    def _resize(self, ladder: Ladder, index: int) -> None:
        ladder.put(ladder.sign * ladder.keys[index], self._size(1.0 if index == 0 else 1.5, 0.9))
        self.version += 1

    def _fill(self, ladder: Ladder) -> None:
        """Bring a side to its number of levels; near zero there may be fewer bids."""
        ladder.cut()
        while len(ladder.keys) < LEVELS:
            gap = 1 + int(self._random.expovariate(1.0) * self._spread * 0.4 / self.tick)
            key = ladder.keys[-1] + gap * self.tick
            if ladder.sign * key < 1:
                break
            ladder.put(ladder.sign * key, self._size(1.5, 0.9))

    def _size(self, share: float, spread: float) -> int:
        raw = self.usual_size * share * math.exp(self._random.gauss(0.0, spread))
        return max(int(raw) // self._lot, 1) * self._lot


def _tick_decimals(venue: str, instrument: str, seed: int) -> int:
    base, _, quote = instrument.partition("-")
    known = PROFILES[venue].tick_decimals.get(base) if quote in ("USD", "USDT", "USDC") else None
    if known is not None:
        return known
    magnitude = math.floor(math.log10(reference_price(instrument, seed)))
    return min(max(TICKS_RELATIVE - magnitude, 0), SIZE_DECIMALS)
