"""A day of trading with everything that clients, venues, matchers and restarts can do, beside an oracle.

A `Day` makes its moves by dice: a seeded `random.Random`, or Hypothesis's, which knows how to
find the smallest day that fails. After a move, `check` proves the rows (`proof.py`) and compares
them with what the oracle (`oracle.py`) says, to the unit.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from random import Random
from typing import Any

from django.db import IntegrityError, connection

from accounts.models import User
from core import strict_json
from core.account import Fees, Market, Offer
from core.errors import DomainError
from core.events import Side
from core.ids import new_uuid
from core.orders import SIMPLE_TYPES, OrderType, Terms
from tests.trading.desk import Desk
from tests.trading.oracle import SEEN_MAX_NS, Offers, Oracle, Parent, Refusal, Ticket
from tests.trading.proof import CAP, UNIT, Rows, coins, prove, read
from trading.commands import (
    Amend,
    Cancel,
    CancelAll,
    Command,
    Deposit,
    FillResting,
    Place,
    PlaceTwap,
    Reset,
    RunSlices,
)
from trading.exchange import Done, Witness
from trading.models import Fill

INSTRUMENTS = ("BTC-USDT", "ETH-BTC")  # BTC is the base of one and the quote of the other
ASSETS = ("BTC", "ETH", "USDT")
VENUES = ("binance", "okx", "kraken")
NAMES = ("ann", "bob")
FEES = (Fees(0, 0), Fees(1_000, 2_500), Fees(333, 77), Fees(100_000, 100_000))  # the last one: the largest allowed
RATE = 1_000_000  # hundredths of a basis point in one
TABLES = ("report", "entry", "fill", "twap", "order", "balance", "account")

BIG = 9 * 10**18 - 1  # the largest input
FULL = int(CAP / UNIT)  # the largest balance
MONEY = (10**12, 10**12, 10**12, 10**16, 10**9 + 7, 1, FULL)
AMOUNTS = (1, 3, 7, 33_333_333, 66_666_667, 10**8, 123_456_789, 10**8 + 1, 10**10, 10**12, FULL, FULL + 1, BIG)
PRICES = {"BTC-USDT": 5_000_000_033, "ETH-BTC": 7_000_001}  # where the market starts
ENDS = (1, 33_333_333, 10**8 + 1, 5 * 10**12 + 1, BIG)
SIZES = (0, 10**7, 10**8, 5 * 10**8, 10**11)
BEHIND = (1, 3, 1_000_003)  # units between the touch and what is shown behind it
MEANS = ((0, 0), (5_000_000_033 * 60_000_000, 60_000_000), (BIG * 7 * 86_400 * 10**6, 7 * 86_400 * 10**6))
SLICES = (1, 2, 3, 5, 7, 10, 9_999)
SIDES = tuple(Side)

Plan = tuple[Command, Callable[[], Any]]  # what is asked, and the oracle's answer to it


class Floor(Desk):
    """A desk whose receipts keep what was shown, and whose lost venues show nothing."""

    def __init__(self, fees: Fees, *, new_id: Callable[[], str] = new_uuid, witness: Witness | None = None) -> None:
        super().__init__(fees, new_id=new_id, witness=witness)
        self.behind: dict[tuple[str, Side], tuple[Offer, ...]] = {}  # the touch, best first

    def quoted(self, instrument: str, side: Side) -> Sequence[Offer]:
        """Return what was shown last, if only by lost venues."""
        return self.offers.get((instrument, side), ())

    def depth(self, instrument: str, side: Side, venue: str) -> Market:
        shown = (*self.offers.get((instrument, side), ()), *self.behind.get((instrument, side), ()))
        offers = tuple(one for one in shown if one.venue not in self.dead and venue in ("all", one.venue))
        return Market(offers, {"shown": [[one.price, one.size, one.venue] for one in offers]})

    def show_depth(self, instrument: str, side: Side, venue: str) -> Offers:
        offers = self.depth(instrument, side, venue).offers
        return [(coins(offer.price), coins(offer.size), offer.venue) for offer in offers]

    def market(self, instrument: str, side: Side) -> Market:
        offers = tuple(offer for offer in self.offers.get((instrument, side), ()) if offer.venue not in self.dead)
        return Market(offers, {"shown": [[offer.price, offer.size, offer.venue] for offer in offers]})

    def show(self, instrument: str, side: Side) -> Offers:
        return [(coins(offer.price), coins(offer.size), offer.venue) for offer in self.market(instrument, side).offers]


class Day:
    """Two accounts on an empty exchange, and the dice that say what happens."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.log: list[object] = []  # what was asked, and the answers
        self.accounts = self._new_accounts()
        self.fees = FEES[0]
        self.desk = Floor(self.fees)
        self.oracle = Oracle(Fraction(0), Fraction(0))
        self._tokens = 0
        self._sizes = 0
        self._statuses: dict[str, str] = {}
        self._written = True  # since the last comparison
        self._told = 0  # reports that were compared

    def _new_accounts(self) -> Sequence[int]:
        clear()
        return [User.objects.create(username=name, password="!").pk for name in NAMES]

    def open(self) -> None:
        self._start(self.dice.choice(FEES))
        for at, price in PRICES.items():
            for side in SIDES:
                self._quote(at, side, price)
        for account in self.accounts:
            for asset in ASSETS:
                self._run(self._deposit(account, asset, self.dice.choice(MONEY)))

    def moves(self) -> list[Callable[[], None]]:
        """Return what can happen now."""
        always = [
            self.restart, self.quote, self.lose_or_regain_venues, self.place, self.place_at_the_touch,
            self.place_one_that_rests, self.place_one_that_rests, self.take_the_displayed_size_twice,
            self.deposit_or_clean_up, self.many_at_once, self.match, self.place_a_twap, self.a_parent_s_life,
            self.a_transaction_that_fails,
        ]  # fmt: skip
        with_an_order = [
            self.quote_where_an_order_rests, self.reach_an_order, self.amend, self.amend, self.cancel,
            self.match_again, self.match_late, self.match_late,
        ]  # fmt: skip
        with_a_parent = [self.run_the_next_slice, self.run_the_next_slice, self.run_some_slices]
        return always + with_an_order * bool(self.resting) + with_a_parent * bool(self.parents)

    def check(self) -> None:
        if not self._written:
            return
        self._written = False
        rows = read()
        prove(rows)
        self._same_balances(rows)
        self._same_orders(rows)
        self._same_schedules(rows)
        self._same_reports(rows)
        self._value_is_conserved(rows)

    @property
    def resting(self) -> list[Ticket]:
        return [ticket for ticket in self.oracle.tickets if ticket.status == "open"]

    @property
    def parents(self) -> list[Ticket]:
        return [ticket for ticket in self.resting if ticket.parent is not None]

    # -- the surroundings

    def restart(self) -> None:
        """A new process over the same rows, perhaps with other fees."""
        self._start(self.dice.choice((self.fees, *FEES)))

    def quote(self) -> None:
        at, side = self.dice.choice(INSTRUMENTS), self.dice.choice(SIDES)
        self._quote(at, side, self._price(at, side))

    def quote_where_an_order_rests(self) -> None:
        """Show an order's very limit, or a price that is one unit short of it, or beyond it."""
        ticket = self.dice.choice(self.resting)
        self._quote_for(ticket, better=self.dice.choice((0, 0, 1, -1, 1_000_003)))

    def lose_or_regain_venues(self) -> None:
        self.desk.dead = self.dice.choice((set(), {"binance"}, set(), set(VENUES)))

    # -- what clients do

    def place(self) -> None:
        self._run(self._some_place())

    def place_at_the_touch(self) -> None:
        self._run(self._some_place(near=True))

    def place_one_that_rests(self) -> None:
        self._run(self._some_place(kind=OrderType.LIMIT, away=True))

    def take_the_displayed_size_twice(self) -> None:
        at, side = self.dice.choice(INSTRUMENTS), self.dice.choice(SIDES)
        account = self.dice.choice(self.accounts)
        offers = self.desk.market(at, side).offers
        if offers:
            quantity = max(1, sum(offer.size for offer in offers) * self.dice.choice((4, 8, 5)) // 8)
            for _ in range(2):
                self._run(self._place(account, at, side, OrderType.IOC, offers[0].price, quantity))

    def place_a_twap(self) -> None:
        self._run(self._some_twap())

    def a_parent_s_life(self) -> None:
        """A parent order within its limit, run to its end, or stopped; an ioc order beside it wants the same sizes."""
        at, side = self.dice.choice(INSTRUMENTS), self.dice.choice(SIDES)
        account, venue = self.dice.choice(self.accounts), self.dice.choice(("all", *VENUES))
        shown = self.desk.depth(at, side, venue).offers
        if not shown:
            return
        limit = self.dice.choice((shown[0].price, shown[-1].price, None))
        pace = self.dice.choice((1, 2, 3))
        known = len(self.oracle.tickets)
        quantity = max(1, sum(offer.size for offer in shown) * self.dice.choice((1, 3, 5)) // 4)
        self._run(self._place_twap(account, at, side, limit, quantity, venue, self.dice.choice((1, 2, 3, 7))))
        for ticket in self.oracle.tickets[known:]:
            parent = ticket.parent
            while ticket.status == "open" and parent is not None:
                self._run(self._slices(ticket, parent.past, parent.past + pace))
                if self.dice.randrange(4) == 3:
                    self._run(self._place(account, at, side, OrderType.IOC, shown[0].price, max(1, shown[0].size // 2)))
                if self.dice.randrange(8) == 7:
                    self._quote(at, side, self._price(at, side))

    def amend(self) -> None:
        self._run(self._some_amend())

    def cancel(self) -> None:
        self._run(self._some_cancel())

    def deposit_or_clean_up(self) -> None:
        kinds = (self._some_deposit, self._some_deposit, self._some_cancel_all, self._some_reset)
        self._run(self.dice.choice(kinds)())

    def many_at_once(self) -> None:
        """Several commands that share a transaction."""
        kinds = [self._some_place] * 5 + [self._some_deposit, self._some_cancel_all, self._some_reset]
        if self.resting:
            kinds += [self._some_amend, self._some_cancel, self._some_match] * 3
        if self.parents:
            kinds += [self._some_slices] * 5 + [self._some_twap]
        plans = [self.dice.choice(kinds)() for _ in range(self.dice.randint(2, 5))]
        if self.dice.randrange(3) == 2:
            plans.append(self.dice.choice(plans))  # a client that asks again before it was answered
        self._run(*plans)

    def a_transaction_that_fails(self) -> None:
        """Nothing of it happened, nor were sizes taken: what is asked again finds them all."""
        at, side = self.dice.choice(INSTRUMENTS), self.dice.choice(SIDES)
        account = self.dice.choice(self.accounts)
        offers = self.desk.market(at, side).offers
        plans = [self._some_slices()] if self.parents else []
        if offers:
            plans.append(self._place(account, at, side, OrderType.IOC, offers[0].price, max(1, offers[0].size // 2)))
        broken = Deposit(account, "USDT", -2 * FULL)  # no balance may be below 0: the database says so
        try:
            self.desk.exchange.apply([*(command for command, _ in plans), broken])
        except IntegrityError:
            self.log.append("a transaction failed")
        else:
            raise AssertionError("a balance is below 0")
        for plan in plans:
            self._run(plan)

    # -- what matchers do

    def run_the_next_slice(self) -> None:
        ticket = self.dice.choice(self.parents)
        assert ticket.parent is not None
        self._run(self._slices(ticket, ticket.parent.past, ticket.parent.past + 1))

    def run_some_slices(self) -> None:
        """Any slices, perhaps twice, as of two who both believe that they lead."""
        plans = [self._some_slices()] * self.dice.choice((1, 2))
        if self.dice.randrange(2):
            self._run(*plans)
        else:
            for plan in plans:
                self._run(plan)

    def match(self) -> None:
        """Fill all that today's touch crosses, in one transaction."""
        plans = []
        for ticket in self.resting:
            market = self.desk.market(ticket.instrument, Side(ticket.side))
            if market.offers:
                plans.append(self._match(ticket, market, self.desk.clock_ns))
        if plans:
            self._run(*plans)

    def reach_an_order(self) -> None:
        self.desk.dead = set()
        self._quote_for(self.dice.choice(self.resting), better=self.dice.choice((0, 1, 1_000_003)))
        self.match()

    def match_again(self) -> None:
        """What a second matcher may ask: any order, more than once."""
        plan = self._some_match()
        self._run(plan)
        self._run(plan)

    def match_late(self) -> None:
        """A matcher sees that an order is crossed; by the time it is written the market has moved on."""
        ticket = self.dice.choice(self.resting)
        at, side = ticket.instrument, Side(ticket.side)
        self.desk.dead = set()
        self._quote_for(ticket, better=0)
        market, seen_ns = self.desk.market(at, side), self.desk.clock_ns
        self.desk.clock_ns += self.dice.choice((SEEN_MAX_NS + 1, 0, SEEN_MAX_NS))
        self._quote(at, side, self._price(at, side))
        if self.dice.randrange(3) == 2:
            self.desk.dead = {offer.venue for offer in market.offers[:1]}
        for _ in range(self.dice.randint(1, 2)):
            self._run(self._match(ticket, market, seen_ns))

    # -- commands, each with the oracle's answer

    def _some_deposit(self) -> Plan:
        account, asset = self.dice.choice(self.accounts), self.dice.choice(ASSETS)
        room = int((CAP - self.oracle.total(account, asset)) / UNIT)
        return self._deposit(account, asset, max(1, self.dice.choice((*MONEY, *AMOUNTS, room, room + 1))))

    def _deposit(self, account: int, asset: str, amount: int) -> Plan:
        return Deposit(account, asset, amount), lambda: self.oracle.deposit(account, asset, coins(amount))

    def _some_place(self, *, kind: OrderType | None = None, near: bool = False, away: bool = False) -> Plan:
        account = self.dice.choice(self.accounts)
        at, side = self.dice.choice(INSTRUMENTS), self.dice.choice(SIDES)
        kind = kind or self.dice.choice((*SIMPLE_TYPES, OrderType.LIMIT))
        price: int | None = self._price(at, side, near=near, away=away)
        quantity = self._quantity(account, at, side, price or 1)
        if kind is OrderType.MARKET or (kind is OrderType.IOC and self.dice.randrange(4) == 3):
            price = None
        token = self._new_token()
        used = [ticket.token for ticket in self.oracle.of(account)]
        if used and self.dice.randrange(8) == 7:
            token = self.dice.choice(used)
        return self._place(account, at, side, kind, price, quantity, token=token)

    def _place(
        self, account: int, at: str, side: Side, kind: OrderType, price: int | None, quantity: int, *, token: str = ""
    ) -> Plan:
        token = token or self._new_token()
        limit = None if price is None else coins(price)

        def answer() -> Ticket:
            ticket = Ticket(account, token, at, side.value, kind.value, limit, coins(quantity))
            return self.oracle.place(ticket, self.desk.show(at, side))

        return Place(account, Terms(token, at, side, kind, price, quantity)), answer

    def _some_twap(self) -> Plan:
        account = self.dice.choice(self.accounts)
        at, side = self.dice.choice(INSTRUMENTS), self.dice.choice(SIDES)
        limit: int | None = self._price(at, side, near=self.dice.randrange(3) > 0)
        quantity = self.dice.choice((self._quantity(account, at, side, limit or 1), self.dice.randint(1, 9)))
        if self.dice.randrange(3) == 2:
            limit = None
        token: str | None = None
        if self.dice.randrange(3) == 2:
            token = self.dice.choice(["", *(ticket.token for ticket in self.oracle.of(account))])
        venue, slices = self.dice.choice(("all", "all", *VENUES)), self.dice.choice(SLICES)
        return self._place_twap(account, at, side, limit, quantity, venue, slices, token=token)

    def _place_twap(
        self,
        account: int,
        at: str,
        side: Side,
        limit: int | None,
        quantity: int,
        venue: str,
        slices: int,
        *,
        token: str | None = None,
    ) -> Plan:
        name = self._new_token() if token is None else token
        duration_s = self.dice.choice((1, 60, 7 * 86_400))
        wanted = None if limit is None else coins(limit)

        def answer() -> Ticket:
            ticket = Ticket(account, name, at, side.value, "twap", wanted, coins(quantity))
            depth = {side.value: self.desk.show_depth(at, side, venue) for side in SIDES}
            return self.oracle.place_twap(ticket, Parent(venue, duration_s, slices), depth)

        terms = Terms(name, at, side, OrderType.TWAP, limit, quantity)
        return PlaceTwap(account, terms, venue, duration_s, slices), answer

    def _some_slices(self) -> Plan:
        """The next slices, with or without some that are passed over; or some that are past, or that never come."""
        ticket = self.dice.choice(self.parents)
        assert ticket.parent is not None
        past, slices = ticket.parent.past, ticket.parent.slices
        last = self.dice.choice((past + 2, past + 1, slices, slices + 2, slices // 2, past, 1))
        end = max(1, last)
        first = self.dice.choice((past, min(past, end), max(0, end - 1), min(past + 1, end), end, 0))
        return self._slices(ticket, first, end)

    def _slices(self, ticket: Ticket, first: int, end: int) -> Plan:
        market = self.dice.choice(MEANS)

        def answer() -> Ticket | None:
            assert ticket.parent is not None
            shown = self.desk.show_depth(ticket.instrument, Side(ticket.side), ticket.parent.venue)
            return self.oracle.run_slices(ticket, first, end, market, shown)

        return RunSlices(ticket.account, ticket.order_id, first, end, *market), answer

    def _some_amend(self) -> Plan:
        ticket = self._ticket()
        account, token, side = ticket.account, self._name(ticket), Side(ticket.side)
        price = quantity = None
        if self.dice.randrange(2):
            price = self._price(ticket.instrument, side, near=self.dice.randrange(2) == 1)
        if self.dice.randrange(3):
            limit = price or int((ticket.limit or UNIT) / UNIT)
            quantity = self._quantity(account, ticket.instrument, side, limit, extra=ticket.held)
        new_limit, new_quantity = (None if value is None else coins(value) for value in (price, quantity))

        def answer() -> Ticket:
            shown = {side.value: self.desk.show(ticket.instrument, side) for side in SIDES}
            return self.oracle.amend(account, token, new_limit, new_quantity, shown)

        return Amend(account, token, price, quantity), answer

    def _some_cancel(self) -> Plan:
        ticket = self._ticket()
        account, token = ticket.account, self._name(ticket)
        if self.dice.randrange(4) == 3:
            account, token = self.dice.choice(self.accounts), ticket.order_id or token
        return Cancel(account, token), lambda: self.oracle.cancel(account, token)

    def _some_cancel_all(self) -> Plan:
        account, at = self.dice.choice(self.accounts), self.dice.choice((None, *INSTRUMENTS))
        return CancelAll(account, at), lambda: self.oracle.cancel_all(account, at)

    def _some_reset(self) -> Plan:
        account = self.dice.choice(self.accounts)
        start = {asset: self.dice.choice((*MONEY, FULL + 1)) for asset in ASSETS[: self.dice.randrange(4)]}
        wanted = {asset: coins(amount) for asset, amount in start.items()}
        return Reset(account, start), lambda: self.oracle.reset(account, wanted, ASSETS)

    def _some_match(self) -> Plan:
        ticket = self._ticket()
        return self._match(ticket, self.desk.market(ticket.instrument, Side(ticket.side)), self.desk.clock_ns)

    def _match(self, ticket: Ticket, market: Market, seen_ns: int) -> Plan:
        def answer() -> bool:
            now = self.desk.show(ticket.instrument, Side(ticket.side))
            shown: Offers = [(coins(offer.price), coins(offer.size), offer.venue) for offer in market.offers]
            lost = bool(shown) and not self.desk.takes_part(ticket.instrument, shown[0][2])
            old = self.desk.clock_ns - seen_ns > SEEN_MAX_NS
            return self.oracle.match(ticket, now if lost or old else shown)

        return FillResting(ticket.account, ticket.order_id, market, seen_ns), answer

    def _ticket(self) -> Ticket:
        """Any order, open ones preferred."""
        return self.dice.choice(self.resting if self.dice.randrange(8) else self.oracle.tickets)

    def _name(self, ticket: Ticket) -> str:
        return self.dice.choice((ticket.token, ticket.order_id) * 5 + ("nobody's",))

    def _new_token(self) -> str:
        self._tokens += 1
        return f"t{self._tokens}"

    def _price(self, at: str, side: Side, *, near: bool = False, away: bool = False) -> int:
        """Any price, biased to the touch and one unit either side of it; now and then the ends of the scale."""
        shown = self.desk.quoted(at, side)
        touch = shown[0].price if shown else PRICES[at]
        worse = -1 if side is Side.BUY else 1  # towards a limit that does not execute yet
        if away:
            choices = [touch + step * worse for step in (1, 1, 3, touch // 3)]
        elif near:
            choices = [touch - step * worse for step in (0, 0, 1, 3)]
        else:
            choices = [touch + step for step in (-3, -1, 0, 1, 3, touch // 3, -touch // 3)]
            choices.append(self.dice.choice(ENDS))
        return max(1, min(BIG, self.dice.choice(choices)))

    def _quantity(self, account: int, at: str, side: Side, price: int, *, extra: Fraction = Fraction(0)) -> int:
        """Any quantity, biased to parts of what the account can pay for, to all of it, and to one unit more."""
        base, _, quote = at.partition("-")
        free = int((self.oracle.free(account, quote if side is Side.BUY else base) + extra) / UNIT)
        most = free * 10**8 // price if side is Side.BUY else free
        likely = (most // 3, most // 7, most, most + 1, most // 2, most // 30)
        return max(1, min(BIG, self.dice.choice((*likely, *likely, self.dice.choice(AMOUNTS)))))

    def _quote(self, at: str, side: Side, price: int) -> None:
        """Show another price; no size is ever shown twice, so that each one is news."""
        price = max(1, min(BIG, price))
        offers = [Offer(price, self._size(), venue) for venue in VENUES[: self.dice.choice((3, 2, 1, 3, 2, 1, 0))]]
        behind = []
        for further in BEHIND[: self.dice.choice((3, 2, 0))]:
            worse = price + further if side is Side.BUY else price - further
            if offers and 1 <= worse <= BIG:
                behind.append(Offer(worse, self._size(), self.dice.choice(offers).venue))
        self.desk.offers[at, side], self.desk.behind[at, side] = tuple(offers), tuple(behind)
        self.log.append(f"{at}: a {side.value} order finds {offers}, and behind {behind}")

    def _size(self) -> int:
        self._sizes += 1
        return self.dice.choice(SIZES) + self._sizes

    def _quote_for(self, ticket: Ticket, *, better: int) -> None:
        assert ticket.limit is not None
        price = int(ticket.limit / UNIT) + (-better if ticket.buys else better)
        self._quote(ticket.instrument, Side(ticket.side), price)

    # -- both at once

    def _start(self, fees: Fees) -> None:
        self.fees = fees
        self.desk = self._new_desk(fees)
        self.log.append(f"a process starts, with {fees}")
        self.oracle.maker, self.oracle.taker = Fraction(fees.maker, RATE), Fraction(fees.taker, RATE)
        self.oracle.taken.clear()

    def _new_desk(self, fees: Fees) -> Floor:
        before, desk = self.desk, Floor(fees)
        desk.offers, desk.behind, desk.dead, desk.now = before.offers, before.behind, before.dead, before.now
        return desk

    def _run(self, *plans: Plan) -> list[Any]:
        """Give commands to the exchange, in one transaction, and to the oracle; compare the answers."""
        self._written = True
        results, after = self.desk.exchange.apply([command for command, _ in plans])
        after()
        self._compare(plans, results)
        return results

    def _said(self, command: Command, result: Any) -> None:
        self.log.append(f"{command} → {result!r}")

    def _compare(self, plans: Sequence[Plan], results: Sequence[Any]) -> None:
        assert len(results) == len(plans)
        for (command, answer), result in zip(plans, results, strict=True):
            try:
                wanted = answer()
            except Refusal as refusal:
                wanted = refusal
            self._said(command, result)
            code = result.code if isinstance(result, DomainError) else "accepted"
            assert code == getattr(wanted, "code", "accepted"), f"{command}: {result!r}, the oracle says {wanted!r}"
            if code == "duplicate_token_id":
                assert isinstance(command, Place | PlaceTwap)
                self._same_answer(result.details["order"], self.oracle.find(command.account_id, command.terms.token_id))
            elif isinstance(wanted, Ticket):
                assert isinstance(result, Done)
                wanted.order_id = wanted.order_id or result.order.order_id
                wanted.token = wanted.token or wanted.order_id
                assert result.order.order_id == wanted.order_id
                if wanted.parent is not None:
                    continue  # its receipts may be thousands: they are left out
                assert [coins(fill.quantity) for fill in result.fills][: len(wanted.fills)] == [
                    made.quantity for made in wanted.fills
                ], f"{command}: its answer lacks receipts"
            elif isinstance(wanted, list):
                assert {done.order.order_id for done in result} == {ticket.order_id for ticket in wanted}
            elif isinstance(command, RunSlices):
                assert result is None, f"{command}: {result}"
            elif isinstance(wanted, bool):
                assert result is wanted, f"{command}: {result}"

    # -- comparisons

    def _same_answer(self, told: dict[str, Any], ticket: Ticket) -> None:
        """Who repeats a token id, as when an answer was lost, is told all of the order as it is now."""
        found = [(receipt["price"], receipt["quantity"], receipt["exchange"]) for receipt in told["fills"]]
        receipts = ticket.fills if ticket.parent is None else []
        assert found == [(made.price, made.quantity, made.venue) for made in receipts]
        assert (told["status"], told["filled_quantity"]) == (ticket.status, ticket.filled)

    def _same_balances(self, rows: Rows) -> None:
        balances = {(row.account_id, row.asset): row for row in rows.balances}
        for account in self.accounts:
            nothing_open = not any(ticket.status == "open" for ticket in self.oracle.of(account))
            for asset in ASSETS:
                row = balances.pop((account, asset), None)
                found = (coins(row.total), coins(row.held)) if row else (Fraction(0), Fraction(0))
                wanted = (self.oracle.total(account, asset), self.oracle.reserved(account, asset))
                assert found == wanted, f"{account} {asset}: {found}, the oracle says {wanted}"
                assert not (nothing_open and found[1]), "money is reserved and nothing is open"
        assert not balances

    def _same_orders(self, rows: Rows) -> None:
        orders = {row.id: row for row in rows.orders}
        fills: dict[str, list[Fill]] = defaultdict(list)
        for fill in rows.fills:
            fills[fill.order_id].append(fill)
        assert set(orders) == {ticket.order_id for ticket in self.oracle.tickets}
        for ticket in self.oracle.tickets:
            row = orders[ticket.order_id]
            found = (
                row.account_id, row.token_id, row.instrument, row.side, row.order_type, row.status, row.reason,
                coins(row.quantity), None if row.price is None else coins(row.price), coins(row.held), coins(row.fee),
            )  # fmt: skip
            wanted = (
                ticket.account, ticket.token, ticket.instrument, ticket.side, ticket.kind, ticket.status,
                ticket.reason, ticket.quantity, ticket.limit, ticket.held, ticket.fee,
            )  # fmt: skip
            assert found == wanted, f"{found}, the oracle says {wanted}"
            receipts = [
                (coins(fill.price), coins(fill.quantity), fill.venue, fill.liquidity, fill.rule, fill.slice)
                for fill in fills[row.id]
            ]
            assert receipts == [
                (made.price, made.quantity, made.venue, made.liquidity, made.rule, made.slice) for made in ticket.fills
            ]
            for fill in fills[row.id]:
                assert f'"{fill.venue}"' in fill.touch, "the receipt shows another market than it was filled at"
                assert str(fill.price) in fill.touch
            before = self._statuses.get(row.id, "open")
            assert before in ("open", row.status), f"{before} became {row.status}"
            self._statuses[row.id] = row.status

    def _same_schedules(self, rows: Rows) -> None:
        found = {
            row.order_id: (
                row.venue, row.duration_s, row.slices, row.next_slice, row.missed,
                None if row.arrival_price is None else coins(row.arrival_price), (int(row.market_sum), row.market_us),
            )
            for row in rows.twaps
        }  # fmt: skip
        wanted = {
            ticket.order_id: (one.venue, one.duration_s, one.slices, one.past, one.missed, one.arrival, one.market)
            for ticket in self.oracle.tickets
            if (one := ticket.parent) is not None
        }
        assert found == wanted

    def _same_reports(self, rows: Rows) -> None:
        """Every execution is reported once, in order; and what was told is what was written."""
        tokens = {ticket.order_id: ticket.token for ticket in self.oracle.tickets}
        wanted: dict[int, list[tuple[str, bool]]] = defaultdict(list)
        for account, token, of_fill in self.oracle.told:
            wanted[account].append((token, of_fill))
        found: dict[int, list[tuple[str, bool]]] = defaultdict(list)
        written = []
        for report in rows.reports:
            body = strict_json.loads(report.body.encode())
            found[report.account_id].append((tokens[body["order"]["order_id"]], body["fill"] is not None))
            written.append((report.account_id, report.seq, report.body.encode()))
        assert found == wanted
        told = [report for outcome in self.desk.outcomes for report in outcome.reports]
        assert {(report.account_id, report.seq, report.body) for report in told} <= set(written)
        self._told += len(told)
        assert self._told == len(written), "a report was written and not told, or told twice"
        for outcome in self.desk.outcomes:
            assert all(order.is_open for order in outcome.rested)
            assert not any(order.is_open for order in outcome.ended)
        self.desk.outcomes.clear()

    def _value_is_conserved(self, rows: Rows) -> None:
        """Per asset: what accounts have came in, or was exchanged against the market, less fees."""
        for asset in ASSETS:
            have = sum(row.total for row in rows.balances if row.asset == asset)
            entries = [entry for entry in rows.entries if entry.asset == asset]
            assert have == sum(entry.amount for entry in entries)
            fees = sum(fill.fee for fill in rows.fills if fill.fee_asset == asset)
            assert -fees == sum(entry.amount for entry in entries if entry.kind == "fee")
            came_in = sum(coins(entry.amount) for entry in entries if entry.kind in ("deposit", "reset"))
            assert came_in == sum(self.oracle.came_in[account, asset] for account in self.accounts)


def clear() -> None:
    """Leave nothing of an earlier day."""
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DELETE FROM trading_{table}")
    User.objects.filter(username__in=NAMES).delete()
