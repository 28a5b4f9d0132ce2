"""The prices behind the simulated venues: one seeded path per instrument, the same for every venue.

A path is a model, not money: it is a float here and becomes whole ticks in `maker.py`. It
depends on the seed and the instrument alone, never on the clock or on who listens.
"""

import hashlib
import math
from collections import deque
from random import Random

STEP_S = 0.05  # of the market's own time
SECONDS_PER_YEAR = 365 * 86_400
HISTORY_STEPS = 64  # kept for venues that lag and for the momentum of the flow
MOMENTUM_STEPS = 10

REFERENCE_PRICES = {
    "BTC": 95_000.0,
    "ETH": 3_300.0,
    "SOL": 190.0,
    "XRP": 1.4,
    "DOGE": 0.38,
    "ADA": 0.9,
    "LTC": 90.0,
    "LINK": 15.0,
    "AVAX": 38.0,
    "DOT": 7.0,
    "USD": 1.0,
    "USDT": 1.0,
    "USDC": 1.0,
    "EUR": 1.1,
}
VOLATILITIES = {"BTC": 0.40, "ETH": 0.50}  # a year, in calm times
VOLATILITY_OTHERS = 0.60
COMMON_SHARE = 0.6  # correlation of an instrument's moves with the market's
BURST_STARTS = STEP_S / 60  # chance in a step: about one burst a minute
BURST_ENDS = STEP_S / 5
BURST_VOLATILITY = 3.0  # times the calm one
JUMP_STARTS = STEP_S / 150
JUMP_SIZE = 0.0006
REVERSION = 8e-6 * STEP_S  # to the reference price; keeps a week's run within a few percent


def reference_price(instrument: str, seed: int) -> float:
    """Return the price that an instrument ("BTC-USDT") starts from and reverts to."""
    base, _, quote = instrument.partition("-")
    return _value(base, seed) / _value(quote, seed)


def _value(asset: str, seed: int) -> float:
    known = REFERENCE_PRICES.get(asset)
    if known is not None:
        return known
    digest = hashlib.sha256(f"{seed}:{asset}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return math.exp(math.log(0.05) + share * math.log(500 / 0.05))


class PricePath:
    """The fair price of one instrument, in steps of `STEP_S`: diffusion, bursts, jumps, reversion."""

    def __init__(self, instrument: str, seed: int) -> None:
        self.reference = reference_price(instrument, seed)
        self._own = Random(f"path:{seed}:{instrument}")  # noqa: S311 # nosec B311 # a model, not a secret
        self._market = Random(f"market:{seed}")  # noqa: S311 # nosec B311 # every path replays the same market
        year = VOLATILITIES.get(instrument.partition("-")[0], VOLATILITY_OTHERS)
        self._step_deviation = year * math.sqrt(STEP_S / SECONDS_PER_YEAR)
        self._drift = 0.0  # logarithm of price / reference
        self._bursting = False
        self._history = deque([self.reference], maxlen=HISTORY_STEPS)

    def advance(self) -> None:
        """Move one step."""
        draw = self._market.random()
        self._bursting = draw >= BURST_ENDS if self._bursting else draw < BURST_STARTS
        common = self._market.gauss(0.0, 1.0)
        jump = self._market.gauss(0.0, JUMP_SIZE) if self._market.random() < JUMP_STARTS else 0.0
        own = self._own.gauss(0.0, 1.0)
        move = COMMON_SHARE * common + math.sqrt(1 - COMMON_SHARE**2) * own
        deviation = self._step_deviation * (BURST_VOLATILITY if self._bursting else 1.0)
        self._drift += deviation * move + jump - REVERSION * self._drift
        self._history.append(self.reference * math.exp(self._drift))

    def mid(self, lag_steps: int = 0) -> float:
        """Return the fair price as it was some steps ago."""
        return self._history[max(-1 - lag_steps, -len(self._history))]

    def momentum(self) -> float:
        """Return the newest moves in standard deviations, for a flow that follows them."""
        past = self.mid(MOMENTUM_STEPS)
        return math.log(self.mid() / past) / (self._step_deviation * math.sqrt(MOMENTUM_STEPS))
