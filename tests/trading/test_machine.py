"""Anything that clients, venues and restarts can do, in any order, against a naive oracle.

After every step the rows prove themselves (`proof.py`) and are what the oracle (`oracle.py`)
says, to the unit. MACHINE_EXAMPLES and MACHINE_STEPS make longer runs.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from accounts.models import User
from core import strict_json
from core.account import Fees, Market, Offer
from core.errors import DomainError
from core.events import Side
from core.orders import OrderType, Terms
from tests.trading.desk import Desk
from tests.trading.oracle import SEEN_MAX_NS, Offers, Oracle, Refusal, Ticket
from tests.trading.proof import CAP, UNIT, Rows, coins, prove, read
from trading import models
from trading.commands import Amend, Cancel, CancelAll, Command, Deposit, FillResting, Place, Reset
from trading.exchange import Done

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "60"))
STEPS = int(os.environ.get("MACHINE_STEPS", "40"))
HUNT = os.environ.get("MACHINE_HUNT") == "1"  # only whether it fails: no search for a small example

INSTRUMENTS = ("BTC-USDT", "ETH-BTC")  # BTC is the base of one and the quote of the other
ASSETS = ("BTC", "ETH", "USDT")
VENUES = ("binance", "okx", "kraken")
NAMES = ("ann", "bob")
FEES = (Fees(0, 0), Fees(1_000, 2_500), Fees(333, 77), Fees(100_000, 100_000))  # the last one: the largest allowed
RATE = 1_000_000  # hundredths of a basis point in one
BIG = 9 * 10**18 - 1  # the largest input
TABLES = ("report", "entry", "fill", "order", "balance", "account")

ODD = st.sampled_from((1, 3, 7, 33_333_333, 66_666_667, 10**8, 123_456_789, 10**8 + 1, 10**10))
ANY_UNITS = st.one_of(ODD, st.integers(1, 10**12), st.integers(1, BIG))
MONEY = st.sampled_from((10**12, 10**12, 10**16, 10**9 + 7, 1, int(CAP / UNIT)))
PRICES = {"BTC-USDT": 5_000_000_033, "ETH-BTC": 7_000_001}  # where the market starts
ENDS = (1, 33_333_333, 10**8 + 1, 5 * 10**12 + 1, BIG)
SIZES = (0, 10**7, 10**8, 5 * 10**8, 10**11)

Plan = tuple[Command, Callable[[], Any]]  # what is asked, and the oracle's answer to it


class Floor(Desk):
    """A desk whose receipts keep what was shown, and whose lost venues show nothing."""

    def market(self, instrument: str, side: Side) -> Market:
        offers = tuple(offer for offer in self.offers.get((instrument, side), ()) if offer.venue not in self.dead)
        return Market(offers, {"shown": [[offer.price, offer.size, offer.venue] for offer in offers]})

    def show(self, instrument: str, side: Side) -> Offers:
        return [(coins(offer.price), coins(offer.size), offer.venue) for offer in self.market(instrument, side).offers]


class Trading(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        _empty()
        self.accounts = [User.objects.create(username=name, password="!").pk for name in NAMES]
        self.fees = FEES[0]
        self.desk = Floor(self.fees)
        self.oracle = Oracle(Fraction(0), Fraction(0))
        self.tokens = 0
        self.sizes = 0
        self.statuses: dict[str, str] = {}
        self.written = True  # since the last comparison
        self.checked = 0  # of the oracle's reports
        self.seen: list[tuple[str, Side, Market, int]] = []  # markets that a matcher saw

    @property
    def resting(self) -> list[Ticket]:
        return [ticket for ticket in self.oracle.tickets if ticket.status == "open"]

    # -- the surroundings

    @initialize(fees=st.sampled_from(FEES), money=st.tuples(MONEY, MONEY, MONEY), data=st.data())
    def open(self, fees: Fees, money: tuple[int, ...], data: st.DataObject) -> None:
        self._start(fees)
        for at, price in PRICES.items():
            for side in Side:
                self._quote(data, at, side, price)
        for account in self.accounts:
            for asset, amount in zip(ASSETS, money, strict=True):
                self._run(self._deposit(account, asset, amount))

    @rule(fees=st.none() | st.sampled_from(FEES))
    def restart(self, fees: Fees | None) -> None:
        """A new process over the same rows, perhaps with other fees."""
        self._start(self.fees if fees is None else fees)

    @rule(data=st.data(), at=st.sampled_from(INSTRUMENTS), side=st.sampled_from(Side))
    def quote(self, data: st.DataObject, at: str, side: Side) -> None:
        self._quote(data, at, side, self._price(data, at, side))

    @rule(data=st.data(), better=st.sampled_from((0, 1, 1_000_003)))
    @precondition(lambda self: self.resting)
    def reach_an_order(self, data: st.DataObject, better: int) -> None:
        self.quote_where_an_order_rests(data, better)
        self.desk.dead = set()
        self.match()

    @rule(data=st.data(), better=st.sampled_from((0, 0, 1, -1, 1_000_003)))
    @precondition(lambda self: self.resting)
    def quote_where_an_order_rests(self, data: st.DataObject, better: int) -> None:
        """Show an order's very limit, or a price that is one unit short of it, or beyond it."""
        ticket = data.draw(st.sampled_from(self.resting), label="resting")
        assert ticket.limit is not None
        price = int(ticket.limit / UNIT) + (-better if ticket.buys else better)
        self._quote(data, ticket.instrument, Side(ticket.side), max(1, min(BIG, price)))

    @rule(data=st.data())
    def lose_or_regain_venues(self, data: st.DataObject) -> None:
        self.desk.dead = data.draw(st.sampled_from((set(), {"binance"}, set(), set(VENUES))), label="dead")

    @rule(at=st.sampled_from(INSTRUMENTS), side=st.sampled_from(Side))
    def see(self, at: str, side: Side) -> None:
        """Let a matcher see this market; it may tell much later."""
        self.seen.append((at, side, self.desk.market(at, side), self.desk.clock_ns))

    @rule(ns=st.sampled_from((1, SEEN_MAX_NS // 2, SEEN_MAX_NS, SEEN_MAX_NS + 1)))
    def pass_time(self, ns: int) -> None:
        self.desk.clock_ns += ns

    # -- what clients do

    @rule(data=st.data())
    def place(self, data: st.DataObject) -> None:
        self._run(self._some_place(data))

    @rule(data=st.data(), kind=st.sampled_from(OrderType))
    def place_at_the_touch(self, data: st.DataObject, kind: OrderType) -> None:
        self._run(self._some_place(data, kind=kind, near=True))

    @rule(data=st.data())
    def place_one_that_rests(self, data: st.DataObject) -> None:
        self._run(self._some_place(data, kind=OrderType.LIMIT, away=True))

    @rule(data=st.data())
    @precondition(lambda self: self.resting)
    def amend(self, data: st.DataObject) -> None:
        self._run(self._some_amend(data))

    @rule(data=st.data())
    @precondition(lambda self: self.resting)
    def cancel(self, data: st.DataObject) -> None:
        self._run(self._some_cancel(data))

    @rule(data=st.data(), at=st.sampled_from(INSTRUMENTS), side=st.sampled_from(Side))
    def take_the_displayed_size_twice(self, data: st.DataObject, at: str, side: Side) -> None:
        account = data.draw(st.sampled_from(self.accounts), label="account")
        offers = self.desk.market(at, side).offers
        if offers:
            quantity = sum(offer.size for offer in offers) * data.draw(st.sampled_from((4, 8, 5)), label="eighths") // 8
            for _ in range(2):
                self._run(self._place(account, at, side, OrderType.IOC, offers[0].price, max(1, min(BIG, quantity))))

    @rule(data=st.data())
    def deposit_or_clean_up(self, data: st.DataObject) -> None:
        kinds = (self._some_deposit, self._some_deposit, self._some_cancel_all, self._some_reset)
        self._run(data.draw(st.sampled_from(kinds))(data))

    @rule(data=st.data())
    def many_at_once(self, data: st.DataObject) -> None:
        """Several commands that share a transaction."""
        kinds = [self._some_place] * 5
        if self.resting:
            kinds += [self._some_amend, self._some_cancel, self._some_match] * 3
        kinds += [self._some_deposit, self._some_cancel_all, self._some_reset]
        chosen = data.draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=5), label="kinds")
        self._run(*[kind(data) for kind in chosen])

    # -- what the matcher does

    @rule()
    def match(self) -> None:
        """Fill all that today's touch crosses, in one transaction."""
        plans = []
        for ticket in self.oracle.tickets:
            market = self.desk.market(ticket.instrument, Side(ticket.side))
            if ticket.status == "open" and market.offers:
                plans.append(self._match(ticket, market, self.desk.clock_ns))
        if plans:
            self._run(*plans)

    @rule(data=st.data())
    @precondition(lambda self: self.resting)
    def match_one(self, data: st.DataObject) -> None:
        """What a second matcher, or a slow one, may ask: any order, at a market of any age."""
        self._run(self._some_match(data))

    @rule(
        data=st.data(),
        late_ns=st.sampled_from((0, SEEN_MAX_NS, SEEN_MAX_NS + 1)),
        lost=st.booleans(),
        twice=st.booleans(),
    )
    @precondition(lambda self: self.resting)
    def match_late(self, data: st.DataObject, late_ns: int, lost: bool, twice: bool) -> None:
        """A matcher sees that an order is crossed; before it is written, the market moves on."""
        ticket = data.draw(st.sampled_from(self.resting), label="resting")
        at, side = ticket.instrument, Side(ticket.side)
        assert ticket.limit is not None
        self.desk.dead = set()
        self._quote(data, at, side, int(ticket.limit / UNIT))
        market, seen_ns = self.desk.market(at, side), self.desk.clock_ns
        self.desk.clock_ns += late_ns
        self._quote(data, at, side, self._price(data, at, side))
        if lost:
            self.desk.dead = {offer.venue for offer in market.offers[:1]}
        self._run(*[self._match(ticket, market, seen_ns)] * (1 + twice))

    # -- what must hold

    @invariant()
    def rows_prove_themselves_and_are_what_the_oracle_says(self) -> None:
        if not self.written:
            return
        self.written = False
        rows = read()
        prove(rows)
        self._same_balances(rows)
        self._same_orders(rows)
        self._same_reports(rows)
        self._value_is_conserved(rows)

    def teardown(self) -> None:
        _empty()

    # -- commands, each with the oracle's answer

    def _some_deposit(self, data: st.DataObject) -> Plan:
        account, asset = data.draw(st.sampled_from(self.accounts)), data.draw(st.sampled_from(ASSETS))
        room = int((CAP - self.oracle.total(account, asset)) / UNIT)
        amount = data.draw(st.one_of(ANY_UNITS, st.sampled_from((room, room + 1))), label="amount")
        return self._deposit(account, asset, max(1, amount))

    def _deposit(self, account: int, asset: str, amount: int) -> Plan:
        return Deposit(account, asset, amount), lambda: self.oracle.deposit(account, asset, coins(amount))

    def _some_place(
        self, data: st.DataObject, *, kind: OrderType | None = None, near: bool = False, away: bool = False
    ) -> Plan:
        account = data.draw(st.sampled_from(self.accounts), label="account")
        at, side = data.draw(st.sampled_from(INSTRUMENTS)), data.draw(st.sampled_from(Side))
        kind = kind or data.draw(st.sampled_from((*OrderType, OrderType.LIMIT)), label="kind")
        price: int | None = self._price(data, at, side, near=near, away=away)
        if kind is OrderType.MARKET or (kind is OrderType.IOC and data.draw(st.integers(0, 3), label="limit") == 3):
            price = None
        asks = self.desk.offers.get((at, side), ())
        quantity = self._quantity(data, account, at, side, price or (asks[0].price if asks else 1))
        token = self._new_token()
        mine = [ticket.token for ticket in self.oracle.of(account)]
        if mine and data.draw(st.integers(0, 7), label="a used token") == 7:
            token = data.draw(st.sampled_from(mine))
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

    def _new_token(self) -> str:
        self.tokens += 1
        return f"t{self.tokens}"

    def _some_amend(self, data: st.DataObject) -> Plan:
        ticket = self._ticket(data)
        account, token = ticket.account, self._name(data, ticket)
        side = Side(ticket.side)
        price = None
        if data.draw(st.booleans(), label="price"):
            price = self._price(data, ticket.instrument, side, near=data.draw(st.booleans(), label="near"))
        quantity = None
        if data.draw(st.booleans(), label="quantity"):
            limit = price or int((ticket.limit or UNIT) / UNIT)
            held = ticket.held if self._owns(account, token) else Fraction(0)
            quantity = self._quantity(data, account, ticket.instrument, side, limit, extra=held)

        def answer() -> Ticket:
            return self.oracle.amend(
                account,
                token,
                None if price is None else coins(price),
                None if quantity is None else coins(quantity),
                {side.value: self.desk.show(ticket.instrument, side) for side in Side},
            )

        return Amend(account, token, price, quantity), answer

    def _some_cancel(self, data: st.DataObject) -> Plan:
        ticket = self._ticket(data)
        account, token = ticket.account, self._name(data, ticket)
        if data.draw(st.integers(0, 7), label="somebody else's") == 7:
            account = data.draw(st.sampled_from(self.accounts))
        return Cancel(account, token), lambda: self.oracle.cancel(account, token)

    def _some_cancel_all(self, data: st.DataObject) -> Plan:
        account = data.draw(st.sampled_from(self.accounts))
        at = data.draw(st.sampled_from((None, *INSTRUMENTS)))
        return CancelAll(account, at), lambda: self.oracle.cancel_all(account, at)

    def _some_reset(self, data: st.DataObject) -> Plan:
        account = data.draw(st.sampled_from(self.accounts))
        start = data.draw(st.dictionaries(st.sampled_from(ASSETS), MONEY | ANY_UNITS, max_size=3), label="start")
        fractions = {asset: coins(amount) for asset, amount in start.items()}
        return Reset(account, start), lambda: self.oracle.reset(account, fractions, ASSETS)

    def _some_match(self, data: st.DataObject) -> Plan:
        ticket = self._ticket(data)
        ours = [seen for seen in self.seen if (seen[0], seen[1]) == (ticket.instrument, Side(ticket.side))]
        if ours and data.draw(st.booleans(), label="seen before"):
            _, _, market, seen_ns = data.draw(st.sampled_from(ours[-5:]))
            return self._match(ticket, market, seen_ns)
        return self._match(ticket, self.desk.market(ticket.instrument, Side(ticket.side)), self.desk.clock_ns)

    def _match(self, ticket: Ticket, market: Market, seen_ns: int) -> Plan:
        def answer() -> bool:
            now = self.desk.show(ticket.instrument, Side(ticket.side))
            shown: Offers = [(coins(offer.price), coins(offer.size), offer.venue) for offer in market.offers]
            lost = bool(shown) and shown[0][2] in self.desk.dead
            old = self.desk.clock_ns - seen_ns > SEEN_MAX_NS
            return self.oracle.match(ticket, now if lost or old else shown)

        return FillResting(ticket.account, ticket.order_id, market, seen_ns), answer

    def _ticket(self, data: st.DataObject) -> Ticket:
        """Any order, open ones preferred."""
        if self.resting and data.draw(st.integers(0, 7), label="any") < 7:
            return data.draw(st.sampled_from(self.resting), label="resting")
        return data.draw(st.sampled_from(self.oracle.tickets), label="ticket")

    def _name(self, data: st.DataObject, ticket: Ticket) -> str:
        names = (ticket.token, ticket.order_id) * 5 + ("nobody's",)
        return data.draw(st.sampled_from(names), label="name")

    def _owns(self, account: int, token: str) -> bool:
        return any(token in (ticket.token, ticket.order_id) for ticket in self.oracle.of(account))

    def _price(self, data: st.DataObject, at: str, side: Side, *, near: bool = False, away: bool = False) -> int:
        """Any price, biased to the touch and one unit either side of it; now and then the ends of the scale."""
        shown = self.desk.offers.get((at, side), ())
        touch = shown[0].price if shown else PRICES[at]
        worse = -1 if side is Side.BUY else 1  # a limit that does not execute yet
        if away:
            steps = (worse, worse, 3 * worse, touch // 3 * worse)
        else:
            steps = (0, 0, -worse, -3 * worse) if near else (-3, -1, 0, 1, 3, touch // 3, -touch // 3)
        choices = [touch + step for step in steps]
        price = data.draw(st.sampled_from(choices if near or away else (*choices, *ENDS)), label="price")
        return max(1, min(BIG, price))

    def _quote(self, data: st.DataObject, at: str, side: Side, price: int) -> None:
        """Show another price; no size is ever shown twice, so that each one is news."""
        offers = []
        for venue in VENUES[: data.draw(st.sampled_from((3, 2, 1, 3, 2, 1, 0)), label="venues")]:
            self.sizes += 1
            offers.append(Offer(price, data.draw(st.sampled_from(SIZES), label="size") + self.sizes, venue))
        self.desk.offers[at, side] = tuple(offers)

    def _quantity(
        self, data: st.DataObject, account: int, at: str, side: Side, price: int, *, extra: Fraction = Fraction(0)
    ) -> int:
        """Any quantity, biased to all that the account can pay for, and one unit more or less."""
        base, _, quote = at.partition("-")
        free = int((self.oracle.free(account, quote if side is Side.BUY else base) + extra) / UNIT)
        most = free * 10**8 // price if side is Side.BUY else free
        likely = (most // 3, most // 7, most, most + 1, most // 2, 33_333_333, 3)
        chosen = data.draw(st.sampled_from(likely) | ANY_UNITS, label="quantity")
        return max(1, min(BIG, chosen))

    # -- both at once

    def _start(self, fees: Fees) -> None:
        before = self.desk
        self.fees = fees
        self.desk = Floor(fees)
        self.desk.offers, self.desk.dead, self.desk.now = before.offers, before.dead, before.now
        self.oracle.maker, self.oracle.taker = Fraction(fees.maker, RATE), Fraction(fees.taker, RATE)
        self.oracle.taken.clear()
        self.seen.clear()  # another process has another clock

    def _run(self, *plans: Plan) -> None:
        """Give commands to the exchange, in one transaction, and to the oracle; compare the answers."""
        self.written = True
        results, after = self.desk.exchange.apply([command for command, _ in plans])
        after()
        assert len(results) == len(plans)
        for (command, answer), result in zip(plans, results, strict=True):
            try:
                wanted = answer()
            except Refusal as refusal:
                wanted = refusal
            code = result.code if isinstance(result, DomainError) else "accepted"
            assert code == getattr(wanted, "code", "accepted"), f"{command}: {result!r}, the oracle says {wanted!r}"
            if isinstance(wanted, Ticket):
                assert isinstance(result, Done)
                wanted.order_id = wanted.order_id or result.order.order_id
                assert result.order.order_id == wanted.order_id
                assert [coins(fill.quantity) for fill in result.fills][: len(wanted.fills)] == [
                    made.quantity for made in wanted.fills
                ], f"{command}: its answer lacks receipts"
            elif isinstance(wanted, list):
                assert {done.order.order_id for done in result} == {ticket.order_id for ticket in wanted}
            elif isinstance(wanted, bool):
                assert result is wanted, f"{command}: {result}"

    # -- comparisons

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
        fills: dict[str, list[models.Fill]] = defaultdict(list)
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
                (coins(fill.price), coins(fill.quantity), fill.venue, fill.liquidity, fill.rule)
                for fill in fills[row.id]
            ]
            assert receipts == [
                (made.price, made.quantity, made.venue, made.liquidity, made.rule) for made in ticket.fills
            ]
            for fill in fills[row.id]:
                assert f'"{fill.venue}"' in fill.touch, "the receipt shows another market than it was filled at"
                assert str(fill.price) in fill.touch
            before = self.statuses.get(row.id, "open")
            assert before in ("open", row.status), f"{before} became {row.status}"
            self.statuses[row.id] = row.status

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
        self.checked += len(told)
        assert self.checked == len(written), "a report was written and not told, or told twice"
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


def _empty() -> None:
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DELETE FROM trading_{table}")
    User.objects.filter(username__in=NAMES).delete()


@pytest.mark.timeout(0)
@pytest.mark.django_db(transaction=True)
def test_whatever_happens_the_books_are_right_to_the_unit() -> None:
    run_state_machine_as_test(
        Trading,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=(Phase.generate,) if HUNT else (Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
