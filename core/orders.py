"""Order terms, states, and what an order costs: integer units of 10^-8, exact.

A notional is `price × quantity` in squared units, never rounded. Money moves by the rounded
*cumulative* notional of an order, up for buys and down for sells: a fill costs R(after) −
R(before), so that any number of partial fills costs what one whole fill would, to the unit.
"""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from core.events import Side
from core.money import UNITS
from core.twap import Schedule, Twap

BPS = 10_000


class OrderType(enum.StrEnum):
    LIMIT = "limit"
    MARKET = "market"
    IOC = "ioc"
    TWAP = "twap"  # a parent order: its slices execute


SIMPLE_TYPES = (OrderType.LIMIT, OrderType.MARKET, OrderType.IOC)


class Status(enum.StrEnum):
    OPEN = "open"
    FILLED = "filled"
    PARTIALLY_FILLED = "partially_filled"  # ended with a part filled
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class Liquidity(enum.StrEnum):
    MAKER = "maker"  # it rested before it was filled
    TAKER = "taker"


class Terms(Struct, frozen=True):
    """What a client asks for. `price` is the limit; None for a market order."""

    token_id: str
    instrument: str
    side: Side
    order_type: OrderType
    price: int | None
    quantity: int


class Fill(Struct, frozen=True):
    """One execution, and its receipt: `touch` is what the market showed, `rule` why it executed."""

    fill_id: str
    number: int  # of the order's fills, from 1
    price: int
    quantity: int
    venue: str
    fee: int
    fee_asset: str
    liquidity: Liquidity
    touch: Mapping[str, Any]
    rule: str
    executed_at: datetime
    slice: int | None = None  # of a parent order, from 0


class Order(Struct):
    """An order and its state. `filled_notional` is exact, in squared units; `held` is what it still reserves."""

    order_id: str
    account_id: int
    terms: Terms
    price: int | None  # the limit now: amending changes it
    quantity: int
    status: Status
    created_at: datetime
    updated_at: datetime
    filled_quantity: int = 0
    filled_notional: int = 0
    fill_count: int = 0
    fee: int = 0  # so far, in the asset that it receives
    held: int = 0
    reason: str = ""
    version: int = 1
    executed_at: datetime | None = None
    venue: str | None = None  # that filled it, "multiple" for several
    twap: Twap | None = None  # of a parent order

    @property
    def is_open(self) -> bool:
        return self.status is Status.OPEN

    @property
    def side(self) -> Side:
        return self.terms.side

    @property
    def leaves(self) -> int:
        return self.quantity - self.filled_quantity

    @property
    def schedule(self) -> Schedule:
        """A parent order's slices."""
        assert self.twap is not None
        return Schedule(self.created_at, self.twap.duration_s, self.twap.slices, self.quantity)

    @property
    def average_price(self) -> int | None:
        """The mean price of its fills, rounded half-even to the unit."""
        return mean(self.filled_notional, self.filled_quantity) if self.filled_quantity else None


def mean(notional: int, quantity: int) -> int:
    """Return the price at which a quantity makes a notional, rounded half-even to the unit."""
    whole, rest = divmod(notional, quantity)
    return whole + (2 * rest > quantity or (2 * rest == quantity and whole % 2 == 1))


def amount(side: Side, notional: int) -> int:
    """Return a notional as money: rounded up for buys and down for sells."""
    return -(-notional // UNITS) if side is Side.BUY else notional // UNITS


def hold(side: Side, *, price: int, leaves: int, filled_notional: int = 0) -> int:
    """Return what the rest of an order may still cost: quote units for a buy, base units for a sell.

    Tied to the cumulative notional: whatever prices up to the limit the rest is filled at, each
    fill costs at most what it releases.
    """
    if side is Side.SELL:
        return leaves
    return amount(side, filled_notional + price * leaves) - amount(side, filled_notional)


def fee_of(received: int, bps_hundredths: int) -> int:
    """Return the fee on all that an order received so far; `bps_hundredths` is in hundredths of a basis point."""
    return -(-received * bps_hundredths // (BPS * 100))


def crosses(side: Side, *, price: int, best: int) -> bool:
    """Tell whether an order with this limit executes against the best opposite price."""
    return best <= price if side is Side.BUY else best >= price
