"""What the exchange should do, written a second time and as simply as possible.

Fractions of whole coins. Nothing is kept up to date: balances and holds are computed from what
came in and from the orders, whenever somebody asks.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

from tests.trading.proof import CAP, UNIT, down, up

Offers = list[tuple[Fraction, Fraction, str]]  # price, size shown, venue: at the best price; for slices all, best first
COLLAR = Fraction(5, 100)
HIGHEST = 9 * 10**10 - UNIT  # of a limit
SEEN_MAX_NS = 1_000_000_000


class Refusal(Exception):
    """The code that the exchange should refuse with."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Made:
    """One fill."""

    price: Fraction
    quantity: Fraction
    venue: str
    liquidity: str
    rule: str
    slice: int | None = None
    fee: Fraction = Fraction(0)


@dataclass
class Parent:
    """A parent order's schedule."""

    venue: str
    duration_s: int
    slices: int
    past: int = 0
    missed: int = 0
    arrival: Fraction | None = None
    market: tuple[int, int] = (0, 0)  # price × µs, and µs, as they were told


@dataclass
class Ticket:
    """One order."""

    account: int
    token: str
    instrument: str
    side: str
    kind: str
    limit: Fraction | None
    quantity: Fraction
    status: str = "open"
    reason: str = ""
    order_id: str = ""
    fills: list[Made] = field(default_factory=list)
    parent: Parent | None = None

    @property
    def buys(self) -> bool:
        return self.side == "buy"

    @property
    def pays_with(self) -> str:
        base, _, quote = self.instrument.partition("-")
        return quote if self.buys else base

    @property
    def gets(self) -> str:
        base, _, quote = self.instrument.partition("-")
        return base if self.buys else quote

    @property
    def filled(self) -> Fraction:
        return sum((made.quantity for made in self.fills), Fraction(0))

    @property
    def notional(self) -> Fraction:
        return sum((made.price * made.quantity for made in self.fills), Fraction(0))

    @property
    def paid(self) -> Fraction:
        return up(self.notional) if self.buys else self.filled

    @property
    def got(self) -> Fraction:
        return self.filled if self.buys else down(self.notional)

    @property
    def fee(self) -> Fraction:
        return sum((made.fee for made in self.fills), Fraction(0))

    @property
    def held(self) -> Fraction:
        if self.status != "open":
            return Fraction(0)
        assert self.limit is not None
        return self.need(self.limit, self.quantity)

    def need(self, limit: Fraction, quantity: Fraction) -> Fraction:
        """Return what the unfilled part may still cost."""
        leaves = quantity - self.filled
        return up(self.notional + limit * leaves) - up(self.notional) if self.buys else leaves

    def crossed_by(self, price: Fraction, limit: Fraction) -> bool:
        return price <= limit if self.buys else price >= limit


class Oracle:
    """Accounts and their orders. The market is given with each command."""

    def __init__(self, maker: Fraction, taker: Fraction) -> None:
        self.maker, self.taker = maker, taker
        self.came_in: dict[tuple[int, str], Fraction] = defaultdict(Fraction)
        self.tickets: list[Ticket] = []
        # Account, instrument, side, venue, price → displayed size, taken of it.
        self.taken: dict[tuple[int, str, str, str, Fraction], tuple[Fraction, Fraction]] = {}
        self.told: list[tuple[int, str, bool]] = []  # execution reports: account, token, whether of a fill

    # -- what there is

    def total(self, account: int, asset: str) -> Fraction:
        total = self.came_in[account, asset]
        for ticket in self.of(account):
            if ticket.pays_with == asset:
                total -= ticket.paid
            if ticket.gets == asset:
                total += ticket.got - ticket.fee
        return total

    def reserved(self, account: int, asset: str) -> Fraction:
        return sum((ticket.held for ticket in self.of(account) if ticket.pays_with == asset), Fraction(0))

    def free(self, account: int, asset: str) -> Fraction:
        return self.total(account, asset) - self.reserved(account, asset)

    def of(self, account: int) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.account == account]

    def find(self, account: int, token: str) -> Ticket:
        mine = self.of(account)
        for ticket in mine:
            if ticket.token == token:
                return ticket
        for ticket in mine:
            if ticket.order_id == token:
                return ticket
        raise Refusal("order_not_found")

    # -- what is asked

    def deposit(self, account: int, asset: str, amount: Fraction) -> None:
        if self.total(account, asset) + amount > CAP:
            raise Refusal("amount_too_large")
        self.came_in[account, asset] += amount

    def place(self, ticket: Ticket, offers: Offers) -> Ticket:
        if any(other.token == ticket.token for other in self.of(ticket.account)):
            raise Refusal("duplicate_token_id")
        if ticket.kind == "ioc":
            offers = self._left(ticket, offers)
        if not offers and ticket.kind != "limit":
            raise Refusal("no_market")
        limit = offers[0][0] if ticket.limit is None else ticket.limit
        self._check_worth(limit, ticket.quantity)
        if ticket.need(limit, ticket.quantity) > self.free(ticket.account, ticket.pays_with):
            raise Refusal("insufficient_funds")
        rule = {"limit": "limit_crossed_on_arrival", "market": "market_at_touch", "ioc": "ioc_at_touch"}[ticket.kind]
        fills: list[Made] = []
        if offers and ticket.crossed_by(offers[0][0], limit):
            if ticket.kind == "ioc":
                fills = self._from(offers, ticket, limit, ticket.quantity, rule)
            else:
                fills.append(Made(offers[0][0], ticket.quantity, offers[0][2], "taker", rule))
        self._check_receives(ticket, fills)
        self.tickets.append(ticket)
        if ticket.kind == "ioc":
            self._take(ticket, fills)
        self._execute(ticket, fills, self.taker)
        if ticket.kind == "ioc" and ticket.status == "open":
            self._end(ticket, "ioc_rest")
            self.told.append((ticket.account, ticket.token, False))
        return ticket

    def place_twap(self, ticket: Ticket, parent: Parent, depth: dict[str, Offers]) -> Ticket:
        """`depth` by side: what its venue shows, or all do."""
        if ticket.token and any(other.token == ticket.token for other in self.of(ticket.account)):
            raise Refusal("duplicate_token_id")
        if ticket.limit is None:
            if not depth[ticket.side]:
                raise Refusal("no_market")
            touch = depth[ticket.side][0][0]
            worse = min(HIGHEST, up(touch * (1 + COLLAR))) if ticket.buys else max(UNIT, down(touch * (1 - COLLAR)))
            ticket.limit = worse
        self._check_worth(ticket.limit, ticket.quantity)
        if ticket.need(ticket.limit, ticket.quantity) > self.free(ticket.account, ticket.pays_with):
            raise Refusal("insufficient_funds")
        if depth["buy"] and depth["sell"]:
            parent.arrival = down((depth["buy"][0][0] + depth["sell"][0][0]) / 2)
        ticket.parent = parent
        self.tickets.append(ticket)
        return ticket

    def run_slices(
        self, ticket: Ticket, first: int, end: int, market: tuple[int, int], offers: Offers
    ) -> Ticket | None:
        """Run those of the slices first … end − 1 that are to come; None when the order has ended already."""
        parent = ticket.parent
        if parent is None or ticket.status != "open":
            return None
        parent.market = market
        end = min(end, parent.slices)
        if end <= parent.past:
            return ticket
        assert ticket.limit is not None
        first = min(max(first, parent.past), end)
        parent.missed += first - parent.past
        parent.past = end
        wanted = Fraction(0)
        if first < end:
            due = [down(ticket.quantity * number / parent.slices) for number in (first, end)]
            behind = due[0] - ticket.filled
            wanted = due[1] - due[0] + down(behind * (end - first) / (parent.slices - first))
        fills = self._from(self._left(ticket, offers), ticket, ticket.limit, wanted, "twap_slice", end - 1)
        try:
            self._check_receives(ticket, fills)
        except Refusal as refusal:
            self._end(ticket, refusal.code)
            self.told.append((ticket.account, ticket.token, False))
            return ticket
        self._take(ticket, fills)
        self._execute(ticket, fills, self.taker)
        if end == parent.slices and ticket.status == "open":
            self._end(ticket, "twap_rest")
            self.told.append((ticket.account, ticket.token, False))
        elif wanted and not fills:
            self.told.append((ticket.account, ticket.token, False))
        return ticket

    def amend(
        self, account: int, token: str, limit: Fraction | None, quantity: Fraction | None, offers: dict[str, Offers]
    ) -> Ticket:
        """`offers` by side: which one counts is the order's."""
        ticket = self._open(account, token)
        if ticket.parent is not None:
            raise Refusal("order_not_amendable")
        assert ticket.limit is not None
        new_limit = ticket.limit if limit is None else limit
        new_quantity = ticket.quantity if quantity is None else quantity
        if (new_limit, new_quantity) == (ticket.limit, ticket.quantity) or new_quantity <= ticket.filled:
            raise Refusal("nothing_to_change")
        self._check_worth(new_limit, new_quantity)
        if ticket.need(new_limit, new_quantity) - ticket.held > self.free(account, ticket.pays_with):
            raise Refusal("insufficient_funds")
        fills = []
        for price, _, venue in offers[ticket.side][:1]:
            if ticket.crossed_by(price, new_limit):
                fills.append(Made(price, new_quantity - ticket.filled, venue, "taker", "amended_and_crossed"))
        self._check_receives(ticket, fills)
        ticket.limit, ticket.quantity = new_limit, new_quantity
        self._execute(ticket, fills, self.taker)
        return ticket

    def cancel(self, account: int, token: str) -> Ticket:
        ticket = self._open(account, token)
        self._end(ticket, "by_client")
        return ticket

    def cancel_all(self, account: int, instrument: str | None, reason: str = "by_client") -> list[Ticket]:
        chosen = [
            ticket for ticket in self.of(account) if ticket.status == "open" and instrument in (None, ticket.instrument)
        ]
        for ticket in chosen:
            self._end(ticket, reason)
        return chosen

    def reset(self, account: int, start: dict[str, Fraction], assets: tuple[str, ...]) -> None:
        if any(amount > CAP for amount in start.values()):
            raise Refusal("amount_too_large")
        self.cancel_all(account, None, "account_reset")
        for asset in assets:
            self.came_in[account, asset] += start.get(asset, Fraction(0)) - self.total(account, asset)

    def match(self, ticket: Ticket, offers: Offers) -> bool:
        """Fill a resting order at this market; return whether it ended."""
        if ticket.status != "open" or not offers or ticket.parent is not None:
            return False
        assert ticket.limit is not None
        price, _, venue = offers[0]
        if not ticket.crossed_by(price, ticket.limit):
            return False
        fills = [Made(price, ticket.quantity - ticket.filled, venue, "maker", "resting_limit_crossed")]
        try:
            self._check_receives(ticket, fills)
        except Refusal as refusal:
            self._end(ticket, refusal.code)
            self.told.append((ticket.account, ticket.token, False))
            return True
        self._execute(ticket, fills, self.maker)
        return True

    # -- steps

    def _open(self, account: int, token: str) -> Ticket:
        ticket = self.find(account, token)
        if ticket.status != "open":
            raise Refusal("order_not_open")
        return ticket

    def _left(self, ticket: Ticket, offers: Offers) -> Offers:
        left = []
        for price, size, venue in offers:
            shown, taken = self.taken.get(self._level(ticket, price, venue), (size, Fraction(0)))
            left.append((price, size - (taken if shown == size else 0), venue))
        self._shown = {(price, venue): size for price, size, venue in offers}
        return left

    def _take(self, ticket: Ticket, fills: list[Made]) -> None:
        for made in fills:
            key, size = self._level(ticket, made.price, made.venue), self._shown[made.price, made.venue]
            shown, taken = self.taken.get(key, (size, Fraction(0)))
            self.taken[key] = (size, made.quantity + (taken if shown == size else 0))

    def _level(self, ticket: Ticket, price: Fraction, venue: str) -> tuple[int, str, str, str, Fraction]:
        return ticket.account, ticket.instrument, ticket.side, venue, price

    def _from(
        self, offers: Offers, ticket: Ticket, limit: Fraction, wanted: Fraction, rule: str, number: int | None = None
    ) -> list[Made]:
        """Take offers in turn, each up to its size, none beyond the limit."""
        fills = []
        for price, size, venue in offers:
            part = min(wanted, size)
            if part > 0 and ticket.crossed_by(price, limit):
                fills.append(Made(price, part, venue, "taker", rule, number))
                wanted -= part
        return fills

    def _execute(self, ticket: Ticket, fills: list[Made], rate: Fraction) -> None:
        for made in fills:
            before = ticket.got
            ticket.fills.append(made)
            made.fee = up(ticket.got * rate) - up(before * rate)
            self.told.append((ticket.account, ticket.token, True))
        if ticket.filled == ticket.quantity:
            ticket.status = "filled"

    def _end(self, ticket: Ticket, reason: str) -> None:
        ticket.status = "partially_filled" if ticket.fills else "cancelled"
        ticket.reason = reason

    def _check_worth(self, limit: Fraction, quantity: Fraction) -> None:
        if quantity > CAP or limit * quantity > CAP:
            raise Refusal("amount_too_large")

    def _check_receives(self, ticket: Ticket, fills: list[Made]) -> None:
        notional = sum((made.price * made.quantity for made in fills), Fraction(0))
        quantity = sum((made.quantity for made in fills), Fraction(0))
        received = quantity if ticket.buys else down(ticket.notional + notional) - ticket.got
        if self.total(ticket.account, ticket.gets) + received > CAP:
            raise Refusal("amount_too_large")


def fraction(units: int | None) -> Fraction | None:
    return None if units is None else units * UNIT
