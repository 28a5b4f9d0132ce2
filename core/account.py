"""One trading account: balances, open orders, and what each command does to them.

State in, answer out: commands check everything before they change anything, so that a refusal
leaves no trace. What changed is collected in `changes`, for whoever keeps the account.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct, field, structs

from core.errors import Refused
from core.events import Side
from core.money import UNITS, from_units
from core.orders import Fill, Liquidity, Order, OrderType, Status, Terms, amount, crosses, fee_of, hold
from core.twap import Twap

BALANCE_MAX = 46_000_000_000 * UNITS  # of one asset, and of an order's notional
TWAP_RULE = "twap_slice"


class InsufficientFunds(Refused):
    code = "insufficient_funds"


class AmountTooLarge(Refused):
    code = "amount_too_large"


class NoMarket(Refused):
    code = "no_market"


class NotOpen(Refused):
    code = "order_not_open"


class NothingToChange(Refused):
    code = "nothing_to_change"


class NotAmendable(Refused):
    code = "order_not_amendable"


class Balance(Struct):
    """What an account has of an asset; `held` of it is reserved by open orders."""

    total: int = 0
    held: int = 0

    @property
    def free(self) -> int:
        return self.total - self.held


class Entry(Struct, frozen=True):
    """A change of a balance's total. `reference` is a fill's id, or empty."""

    asset: str
    amount: int
    kind: str  # deposit, fill, fee, reset, credit
    reference: str
    balance: int  # the total after it


class Offer(Struct, frozen=True):
    """What an order would execute against now: a venue's best opposite price and the size shown there."""

    price: int
    size: int
    venue: str


class Market(Struct, frozen=True):
    """The market as an order finds it. No offers: no live venue.

    Offers are at the best price alone, the shown one first; for slices all that is shown, best first.
    """

    offers: tuple[Offer, ...]
    touch: Mapping[str, Any]  # for the receipt


class Fees(Struct, frozen=True):
    """In hundredths of a basis point of what a fill receives."""

    maker: int = 0
    taker: int = 0


class Changes(Struct):
    """What commands did, in order; the keeper writes it down and starts anew."""

    entries: list[Entry] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)  # new or changed
    created: set[str] = field(default_factory=set)
    fills: list[tuple[Order, Fill]] = field(default_factory=list)
    balances: set[str] = field(default_factory=set)  # assets
    reports: list[tuple[Order, Fill | None]] = field(default_factory=list)  # executions to tell, in order


class Account:
    """An account between being read and being written back. Time and ids come from outside."""

    def __init__(
        self,
        account_id: int,
        balances: dict[str, Balance],
        *,
        fees: Fees,
        new_id: Callable[[], str],
    ) -> None:
        self.account_id = account_id
        self.balances = balances
        self.changes = Changes()
        self._fees = fees
        self._new_id = new_id

    # -- money

    def balance(self, asset: str) -> Balance:
        return self.balances.setdefault(asset, Balance())

    def deposit(self, asset: str, amount: int, *, kind: str = "deposit") -> Balance:
        """Add money.

        Raises:
            AmountTooLarge: the balance would be larger than any balance may be.
        """
        balance = self.balance(asset)
        check_balance(asset, balance.total + amount)
        self._move(asset, amount, kind)
        return balance

    def zero(self, asset: str) -> None:
        """Take a balance to nothing; nothing of it may be held."""
        balance = self.balance(asset)
        assert balance.held == 0
        if balance.total:
            self._move(asset, -balance.total, "reset")

    # -- orders

    def place(self, terms: Terms, market: Market, *, now: datetime) -> Order:
        """Execute what can be executed now; let a limit order rest, cancel what is left of the others.

        Raises:
            InsufficientFunds: the free balance does not cover what the order may cost.
            AmountTooLarge: its notional, or what it would receive, exceeds every balance.
            NoMarket: a market or ioc order without a live venue to execute against.
        """
        best = market.offers[0] if market.offers else None
        if best is None and terms.order_type is not OrderType.LIMIT:
            raise NoMarket("no venue is live for this symbol now; nothing was executed, try again later")
        price = terms.price
        if price is None:
            assert best is not None
            price = best.price
        self._check_size(terms, price)
        needed = hold(terms.side, price=price, leaves=terms.quantity)
        asset = held_asset(terms)
        self._require(asset, needed)
        order = self._new_order(terms, terms.price, now)
        plan = self._plan(order, price, market)
        self._check_receives(order, plan)
        self._accept(order, needed)
        for offer, quantity in plan:
            self._fill(order, offer, quantity, price, Liquidity.TAKER, market, now, rule=_rule(terms))
        if terms.order_type is OrderType.IOC and order.is_open:
            self._end_early(order, now, "ioc_rest")
        return order

    def place_twap(self, terms: Terms, twap: Twap, *, limit: int, now: datetime) -> Order:
        """Take a parent order; its slices execute from now on. Without a token id its id is that too.

        Raises:
            InsufficientFunds, AmountTooLarge: as for other orders, at its limit.
        """
        self._check_size(terms, limit)
        needed = hold(terms.side, price=limit, leaves=terms.quantity)
        self._require(held_asset(terms), needed)
        order = self._new_order(terms, limit, now, twap)
        self._accept(order, needed)
        return order

    def observe(self, order: Order, *, market_sum: int, market_us: int) -> None:
        """Keep the market's mean price over a running parent's life, as totals so far."""
        if order.twap is not None and order.is_open:
            order.twap.market_sum, order.twap.market_us = market_sum, market_us
            self._note(order)

    def run_slices(self, order: Order, first: int, end: int, market: Market, *, now: datetime) -> bool:
        """Execute the slices first … end − 1 against what is shown, up to the limit; return whether anything was new.

        Slices that are past already are not run again; those before `first` are passed over. After
        the last one the order ends, filled or not.
        """
        twap = order.twap
        if twap is None or order.price is None or not order.is_open or twap.next_slice >= end:
            return False
        end = min(end, twap.slices)
        first = min(max(first, twap.next_slice), end)
        wanted = order.schedule.share(first, end, filled=order.filled_quantity)
        twap.missed += first - twap.next_slice
        twap.next_slice = end
        self._revise(order, now)
        plan = self._within(order, order.price, wanted, market)
        try:
            self._check_receives(order, plan)
        except AmountTooLarge:
            self._end_early(order, now, AmountTooLarge.code)
            return True
        for offer, quantity in plan:
            level = {"price": from_units(offer.price), "size": from_units(offer.size), "exchange": offer.venue}
            shown = Market(market.offers, {**market.touch, "level": level})
            self._fill(order, offer, quantity, order.price, Liquidity.TAKER, shown, now, rule=TWAP_RULE, slice=end - 1)
        if end == twap.slices and order.is_open:
            self._end_early(order, now, "twap_rest")
        elif wanted and not plan:
            self.changes.reports.append((order, None))  # it moved on, and got nothing
        return True

    def amend(self, order: Order, *, price: int | None, quantity: int | None, market: Market, now: datetime) -> Order:
        """Change an open order's price or quantity; one that crosses now executes at once.

        Raises:
            NotOpen, NotAmendable, NothingToChange, InsufficientFunds, AmountTooLarge: the order stays as it was.
        """
        self._require_open(order)
        if order.twap is not None:
            raise NotAmendable("a TWAP order cannot be changed while it runs; cancel it and place another")
        assert order.price is not None
        new_price = order.price if price is None else price
        new_quantity = order.quantity if quantity is None else quantity
        if (new_price, new_quantity) == (order.price, order.quantity):
            raise NothingToChange("give a price or a quantity that differs from the order's")
        if new_quantity <= order.filled_quantity:
            raise NothingToChange("the quantity must exceed what is filled already; cancel the order instead")
        terms = order.terms
        if new_price * new_quantity > BALANCE_MAX * UNITS or new_quantity > BALANCE_MAX:
            raise AmountTooLarge(f"no order may be worth more than {BALANCE_MAX // UNITS}")
        leaves = new_quantity - order.filled_quantity
        needed = hold(terms.side, price=new_price, leaves=leaves, filled_notional=order.filled_notional)
        self._require(held_asset(terms), needed - order.held)
        best = market.offers[0] if market.offers else None
        executes = best is not None and crosses(terms.side, price=new_price, best=best.price)
        if executes and best is not None:
            self._check_receives(order, [(best, leaves)])
        self._note(order)
        order.price, order.quantity = new_price, new_quantity
        order.updated_at = now
        order.version += 1
        self._hold(order, needed)
        if executes and best is not None:
            self._fill(order, best, leaves, new_price, Liquidity.TAKER, market, now, rule="amended_and_crossed")
        return order

    def cancel(self, order: Order, *, now: datetime, reason: str = "by_client") -> Order:
        """End an open order and release what it held.

        Raises:
            NotOpen: it has ended already.
        """
        self._require_open(order)
        self._end(order, now, reason)
        return order

    def fill_resting(self, order: Order, market: Market, *, now: datetime) -> bool:
        """Execute a resting order whole at the touch, if it is open and still crossed; return whether it ended."""
        if not order.is_open or order.price is None or not market.offers:
            return False
        best = market.offers[0]
        if not crosses(order.side, price=order.price, best=best.price):
            return False
        self._note(order)
        try:
            self._check_receives(order, [(best, order.leaves)])
        except AmountTooLarge:
            self._end_early(order, now, AmountTooLarge.code)
            return True
        self._fill(order, best, order.leaves, order.price, Liquidity.MAKER, market, now, rule="resting_limit_crossed")
        return True

    # -- the steps

    def _new_order(self, terms: Terms, limit: int | None, now: datetime, twap: Twap | None = None) -> Order:
        order_id = self._new_id()
        return Order(
            order_id=order_id,
            account_id=self.account_id,
            terms=terms if terms.token_id else structs.replace(terms, token_id=order_id),
            price=limit,
            quantity=terms.quantity,
            status=Status.OPEN,
            created_at=now,
            updated_at=now,
            twap=twap,
        )

    def _accept(self, order: Order, needed: int) -> None:
        """From here on nothing may refuse the order."""
        self.changes.created.add(order.order_id)
        self._note(order)
        self._hold(order, needed)

    def _plan(self, order: Order, price: int, market: Market) -> list[tuple[Offer, int]]:
        """Decide what executes now, without executing it."""
        best = market.offers[0] if market.offers else None
        if best is None or not crosses(order.side, price=price, best=best.price):
            return []
        if order.terms.order_type is not OrderType.IOC:
            return [(best, order.quantity)]  # whole, at the touch, whatever size is shown
        return self._within(order, price, order.quantity, market)

    def _within(self, order: Order, price: int, leaves: int, market: Market) -> list[tuple[Offer, int]]:
        """Take offers up to a price, best first, each up to its size."""
        plan: list[tuple[Offer, int]] = []
        for offer in market.offers:
            quantity = min(leaves, offer.size)
            if quantity > 0 and crosses(order.side, price=price, best=offer.price):
                plan.append((offer, quantity))
                leaves -= quantity
        return plan

    def _fill(
        self,
        order: Order,
        offer: Offer,
        quantity: int,
        limit: int,
        liquidity: Liquidity,
        market: Market,
        now: datetime,
        *,
        rule: str,
        slice: int | None = None,
    ) -> None:
        side, terms = order.side, order.terms
        base, _, quote = terms.instrument.partition("-")
        before = order.filled_notional
        after = before + offer.price * quantity
        money = amount(side, after) - amount(side, before)
        bps = self._fees.maker if liquidity is Liquidity.MAKER else self._fees.taker
        received_asset = base if side is Side.BUY else quote
        # Also cumulative, at this fill's rate: another rate than before charges nothing afterwards.
        earlier = order.filled_quantity if side is Side.BUY else amount(side, before)
        received = quantity if side is Side.BUY else money
        fee = fee_of(earlier + received, bps) - fee_of(earlier, bps)
        fill_id = self._new_id()
        order.fill_count += 1
        order.filled_quantity += quantity
        order.filled_notional = after
        order.fee += fee
        order.executed_at = order.updated_at = now
        order.version += 1
        order.venue = offer.venue if order.venue in (None, offer.venue) else "multiple"
        # Release before paying: nobody may see more held than there is.
        left = hold(side, price=limit, leaves=order.leaves, filled_notional=after) if order.leaves else 0
        self._hold(order, left)
        if side is Side.BUY:
            self._move(quote, -money, "fill", fill_id)
            self._move(base, quantity, "fill", fill_id)
        else:
            self._move(base, -quantity, "fill", fill_id)
            self._move(quote, money, "fill", fill_id)
        self._move(received_asset, -fee, "fee", fill_id)
        if not order.leaves:
            order.status = Status.FILLED
        fill = Fill(
            fill_id=fill_id,
            number=order.fill_count,
            price=offer.price,
            quantity=quantity,
            venue=offer.venue,
            fee=fee,
            fee_asset=received_asset,
            liquidity=liquidity,
            touch=market.touch,
            rule=rule,
            executed_at=now,
            slice=slice,
        )
        self.changes.fills.append((order, fill))
        self.changes.reports.append((order, fill))

    def _end(self, order: Order, now: datetime, reason: str) -> None:
        self._hold(order, 0)
        order.status = Status.PARTIALLY_FILLED if order.filled_quantity else Status.CANCELLED
        order.reason = reason
        self._revise(order, now)

    def _end_early(self, order: Order, now: datetime, reason: str) -> None:
        """End what the exchange itself ends, and tell it."""
        self._end(order, now, reason)
        self.changes.reports.append((order, None))

    def _revise(self, order: Order, now: datetime) -> None:
        self._note(order)
        order.updated_at = now
        order.version += 1

    def _hold(self, order: Order, needed: int) -> None:
        asset = held_asset(order.terms)
        self.balance(asset).held += needed - order.held
        order.held = needed
        self.changes.balances.add(asset)

    def _move(self, asset: str, change: int, kind: str, reference: str = "") -> None:
        if change:
            balance = self.balance(asset)
            balance.total += change
            self.changes.balances.add(asset)
            self.changes.entries.append(Entry(asset, change, kind, reference, balance.total))

    def _note(self, order: Order) -> None:
        self.changes.orders[order.order_id] = order

    # -- the refusals

    def _check_size(self, terms: Terms, price: int) -> None:
        if terms.quantity > BALANCE_MAX or price * terms.quantity > BALANCE_MAX * UNITS:
            raise AmountTooLarge(f"no order may be worth more than {BALANCE_MAX // UNITS}")

    def _check_receives(self, order: Order, plan: list[tuple[Offer, int]]) -> None:
        base, _, quote = order.terms.instrument.partition("-")
        if order.side is Side.BUY:
            asset, received = base, sum(quantity for _, quantity in plan)
        else:
            before, more = order.filled_notional, sum(offer.price * quantity for offer, quantity in plan)
            asset, received = quote, amount(Side.SELL, before + more) - amount(Side.SELL, before)
        check_balance(asset, self.balance(asset).total + received)

    def _require(self, asset: str, needed: int) -> None:
        free = self.balance(asset).free
        if needed > free:
            raise InsufficientFunds(
                f"insufficient {asset}: this needs {from_units(needed):f}, {from_units(max(free, 0)):f} are available",
                asset=asset,
                needed=from_units(needed),
                available=from_units(max(free, 0)),
            )

    def _require_open(self, order: Order) -> None:
        if not order.is_open:
            raise NotOpen(f"the order is {order.status.value} and cannot be changed")


def check_balance(asset: str, total: int) -> None:
    """Check a total before it is made.

    Raises:
        AmountTooLarge: no balance may be so large.
    """
    if total > BALANCE_MAX:
        raise AmountTooLarge(f"no balance may exceed {BALANCE_MAX // UNITS} {asset}")


def held_asset(terms: Terms) -> str:
    """Return the asset that an order holds: the quote for a buy, the base for a sell."""
    base, _, quote = terms.instrument.partition("-")
    return quote if terms.side is Side.BUY else base


def _rule(terms: Terms) -> str:
    return {
        OrderType.LIMIT: "limit_crossed_on_arrival",
        OrderType.MARKET: "market_at_touch",
        OrderType.IOC: "ioc_at_touch",
    }[terms.order_type]
