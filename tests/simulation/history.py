"""One history: a seed says what the venues, the wire, the clients, the clocks and the crashes do.

The trading is that of `tests/trading/days.py`, with its oracle and its proof; its market is made by simulated
venues, whose frames go through the adapters, sessions and markets of the feeds. After each step everything
that must hold is checked; the hash is of all that was told, asked and answered, so that two runs of a seed
can be compared.
"""

import hashlib
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
from django.db import connection
from msgspec import Struct

from accounts.models import User
from core.account import Fees, Market, Offer
from core.errors import DomainError
from core.events import Side
from marketdata.feed import NS
from marketdata.market import State, VenueMarket
from marketdata.simulated.flow import PHASES, Flow
from marketdata.simulated.maker import SIZE_DECIMALS, Maker
from marketdata.simulated.market import DIALECTS
from marketdata.simulated.venue import SimulatedVenue
from marketdata.venues import VENUES as DECLARED
from tests.simulation.clock import Clock
from tests.simulation.link import STALE_AFTER_S, Link
from tests.simulation.matching import Matcher, read_open
from tests.simulation.screen import Screen
from tests.trading.days import ASSETS, FEES, INSTRUMENTS, MONEY, SIDES, TABLES, VENUES, Day, Floor, Plan
from tests.trading.oracle import Ticket
from trading import market as shown_market
from trading.commands import Command, Place, PlaceTwap

ACCOUNTS = {1_000_001: "sim-ann", 1_000_002: "sim-bob"}
STEPS = 16
TICK_NS = NS // 4  # of the feeds' clock
MS = 1_000_000
PAUSES_NS = (MS, 20 * MS, 60 * MS, 60 * MS, 200 * MS, 250 * MS, 700 * MS, 1_300 * MS, 3 * NS, 8 * NS)
NOISES = (0.0, 0.0, 0.01, 0.05, 0.3)
NOTICES_LOST = 0.1
STATEMENTS_MAX = 30  # of a transaction that a crash may end
WALL_STEPS_NS = tuple(seconds * NS for seconds in (-86_400, -200, -30, -3, -1, 1, 3, 30, 119, 200, 86_400))
HEALED_NS = 700 * NS  # the longest time after the last fault in which all is well again
LAST_LOGGED = 40


class Crash(BaseException):
    """The process ends here."""


class _DiesAt:
    """Lets so many statements pass."""

    def __init__(self, statements: int) -> None:
        self._left = statements

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Crash
        return execute(sql, params, many, context)


class Result(Struct, frozen=True):
    """What became of a seed. `story` is empty when all held: else the violation and what happened before it."""

    seed: int
    digest: str
    steps: int
    faults: Counter[str]
    story: tuple[str, ...] = ()


class Pit(Floor):
    """An exchange whose market is what the screen shows."""

    def __init__(self, fees: Fees, screen: Screen, clock: Clock, new_id: Callable[[], str]) -> None:
        self._screen = screen
        self._clock = clock
        super().__init__(fees, new_id=new_id)
        self.dead = screen.dead

    def takes_part(self, instrument: str, venue: str) -> bool:
        return self._screen.takes_part(instrument, venue)

    def _tick(self) -> Any:
        return self._clock.now()

    def quoted(self, instrument: str, side: Side) -> Sequence[Offer]:
        return self.market(instrument, side).offers

    def market(self, instrument: str, side: Side) -> Market:
        found = shown_market.market(self._screen.board(instrument), side, now_ns=self._clock.wall_ns)
        self._screen.prove_market(instrument, side, found.offers)
        return _receipt(found)

    def depth(self, instrument: str, side: Side, venue: str) -> Market:
        hub: Any = self._screen
        found = shown_market.depth(hub, instrument, side, venue, now_ns=self._clock.wall_ns)
        self._screen.prove_depth(instrument, side, found.offers)
        return _receipt(found)


class History(Day):
    """A day whose market is made by venues, on a wire that is not to be trusted."""

    desk: Pit

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.steps = 0
        self.faults: Counter[str] = Counter()
        self.clock = Clock()
        self._digest = hashlib.blake2b(digest_size=16)
        self._ids = Random(f"ids:{seed}")
        self._ended: dict[str, tuple[Any, ...]] = {}
        super().__init__(Random(seed))
        self.screen = Screen(INSTRUMENTS, VENUES, self.clock, self.tell)
        self.flow = Flow(INSTRUMENTS, VENUES, seed, {})
        self.links = [self._link(name) for name in VENUES]

    def _link(self, name: str) -> Link:
        side = SimulatedVenue(name, DIALECTS[name], self.flow, "", clock_ns=self.clock.venue_ns)
        market = VenueMarket(name, INSTRUMENTS, stale_after_s=STALE_AFTER_S, sink=self.screen)
        link = Link(DECLARED[name], side, market, self.clock, self.dice, self.faults)
        self.screen.links[name] = link
        return link

    # -- the story

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def tell(self, kind: str, *words: object) -> None:
        self._digest.update(repr((kind, words)).encode())
        self.log.append((kind, *words))

    def _said(self, command: Command, result: Any) -> None:
        said = result.code if isinstance(result, DomainError) else result
        self._digest.update(msgspec.json.encode((type(command).__name__, command, said)))
        self.log.append((command, "→", result))

    def _fault(self, kind: str) -> None:
        self.faults[kind] += 1
        self.tell("fault", kind)

    # -- its course

    def open(self) -> None:
        for _ in range(3):
            self._advance()
            self._pass(60 * MS)
        for link in self.links:
            link.noise = self.dice.choice(NOISES)
        self._start(self.dice.choice(FEES))
        self._run(*[
            self._deposit(account, asset, self.dice.choice(MONEY)) for account in self.accounts for asset in ASSETS
        ])  # fmt: skip

    def step(self) -> None:
        """Let time pass, then let something happen; check all."""
        self.steps += 1
        self._advance()
        pause_ns = self.dice.choice(PAUSES_NS)
        self._pass(pause_ns, tick_ns=TICK_NS if pause_ns < NS else NS)  # a feed may be late
        self._clock_the_exchange()
        self.dice.choice(self.moves())()
        for link in self.links:
            link.read()
        self._work()
        self.prove()

    def close(self) -> None:
        """Let what was delayed happen; then the rows are compared with the oracle, one by one."""
        if self.dice.randrange(3) == 0:
            self._heal()
        self._settle_all()
        self.prove()
        self.check()
        for link in self.links:
            doubted = link.market.counters.get("resyncs", 0)
            assert link.disturbed or not doubted, f"{link.venue.name} was right, and was asked again {doubted} times"
        with connection.cursor() as cursor:
            for table in ("report", "balance", "fill"):
                columns = {"report": "seq, body", "balance": "asset, total, held", "fill": "seq, id, price, quantity"}
                cursor.execute(f"SELECT account_id, {columns[table]} FROM trading_{table} ORDER BY account_id, 2")
                self._digest.update(repr(cursor.fetchall()).encode())

    def moves(self) -> list[Callable[[], None]]:
        clients = [
            self.place, self.place_at_the_touch, self.place_one_that_rests, self.place_one_that_rests,
            self.take_the_displayed_size_twice, self.deposit_or_clean_up, self.many_at_once, self.many_at_once,
            self.place_a_twap, self.a_short_twap, self.a_parent_s_life, self.a_transaction_that_fails, self.quote,
        ]  # fmt: skip
        with_an_order = [
            self.amend, self.amend, self.cancel, self.match_again, self.match,
            self.quote_where_an_order_rests, self.quote_where_an_order_rests, self.ask_late,
        ]  # fmt: skip
        with_a_parent = [self.run_some_slices]
        return (
            clients * 2
            + with_an_order * (2 * bool(self.resting))
            + with_a_parent * bool(self.parents)
            + [self.something_on_the_market] * 28
            + [self.restart, self.crash, self.crash]
        )

    # -- time

    def _advance(self) -> None:
        """Let the venues trade for a moment."""
        for _ in range(PHASES):
            for change in self.flow.advance():
                self.screen.links[change.maker.venue].side.apply(change)

    def _pass(self, ns: int, *, tick_ns: int = TICK_NS) -> None:
        while ns > 0:
            self.clock.pass_(min(ns, tick_ns))
            ns -= tick_ns
            for link in self.links:
                link.side.tick()
                link.tend()
                link.read()
                link.prove()
            self.screen.tick()

    def _clock_the_exchange(self) -> None:
        self.desk.clock_ns = self.clock.passed_ns

    # -- the exchange

    def _new_accounts(self) -> Sequence[int]:
        with connection.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"DELETE FROM trading_{table}")
            cursor.execute(f"SELECT count(*) FROM accounts_user WHERE id IN ({', '.join(map(str, ACCOUNTS))})")
            (found,) = cursor.fetchone()
        if found < len(ACCOUNTS):
            User.objects.bulk_create(User(pk=pk, username=name, password="!") for pk, name in ACCOUNTS.items())
        return list(ACCOUNTS)

    def _new_desk(self, fees: Fees) -> Floor:
        pit = Pit(fees, self.screen, self.clock, self._new_id)
        pit.outcomes.extend(self.desk.outcomes)  # what was told and is not compared yet
        return pit

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def _start(self, fees: Fees) -> None:
        """A new process: what it knows of orders is what the rows say."""
        super()._start(fees)
        self._clock_the_exchange()
        self.matcher = Matcher(self.screen, self.clock, self.desk.market)
        self.matcher.sweep()
        self.tell("start", fees.maker, fees.taker)

    def _run(self, *plans: Plan) -> list[Any]:
        heard = len(self.desk.outcomes)
        results = super()._run(*plans)
        for outcome in self.desk.outcomes[heard:]:
            if self.dice.random() < NOTICES_LOST:
                self._fault("notice lost")
            else:
                self.matcher.noticed(outcome)
        return results

    def crash(self) -> None:
        """The process ends at some statement of a transaction, or after it; the client does not know, and repeats."""
        kinds = [self._some_place] * 4 + [self._some_twap, self._some_deposit]
        if self.resting:
            kinds += [self._some_amend, self._some_cancel, self._some_match]
        plans = [self.dice.choice(kinds)() for _ in range(self.dice.randint(1, 3))]
        untold: list[Any] = []
        self.desk.exchange.told = untold.append
        try:
            with connection.execute_wrapper(_DiesAt(self.dice.randrange(STATEMENTS_MAX))):
                results, after = self.desk.exchange.apply([command for command, _ in plans])
        except Crash:
            self._fault("crash within a transaction")
        else:
            self._fault("crash after a transaction")
            self._written = True
            self._compare(plans, results)
            after()
            self._told += sum(len(outcome.reports) for outcome in untold)
        self.restart()
        for plan in plans:
            if isinstance(plan[0], Place | PlaceTwap) and plan[0].terms.token_id:
                self._fault("command repeated")
                self._run(plan)

    def a_short_twap(self) -> None:
        """One whose slices are due while this history lasts."""
        account, at, side = self.dice.choice(self.accounts), self.dice.choice(INSTRUMENTS), self.dice.choice(SIDES)
        price = self._price(at, side, near=True)
        quantity = self._quantity(account, at, side, price)
        limit = self.dice.choice((None, None, price))
        self._run(self._place_twap(account, at, side, limit, quantity, "all", self.dice.choice((2, 5, 9))))

    def ask_late(self) -> None:
        """A matcher sees an order crossed, or not, and asks some time later; the venue may be lost by then."""
        ticket = self.dice.choice(self.resting)
        market, seen_ns = self.desk.market(ticket.instrument, Side(ticket.side)), self.clock.passed_ns
        if market.offers:
            self._advance()
            self._pass(self.dice.choice((MS, 900 * MS, 1_100 * MS)))
            if self.dice.randrange(3) == 0:
                self._fault("connection lost")
                self.screen.links[market.offers[0].venue].lost("dropped")
            self._clock_the_exchange()
            self._run(self._match(ticket, market, seen_ns))

    # -- matcher and slicer

    def _work(self) -> None:
        self._clock_the_exchange()
        self.matcher.look()
        if self.dice.randrange(5):
            self._settle()
        self._slice()
        if self.dice.randrange(4) == 0:
            self._settle_all()

    def _settle(self) -> None:
        crossed, self.matcher.crossed = self.matcher.crossed, []
        if not crossed:
            return
        tickets = self._by_id()
        results = self._run(*[self._match(tickets[one.order.order_id], one.market, one.seen_ns) for one in crossed])
        doubtful = {one.order.order_id for one, done in zip(crossed, results, strict=True) if not done}
        if doubtful:
            self.matcher.rested(order for order in read_open() if order.order_id in doubtful)

    def _slice(self) -> None:
        tickets = self._by_id()
        for order_id, first, end in self.matcher.due():
            (done,) = self._run(self._slices(tickets[order_id], first, end))
            if done is None or not done.order.is_open:
                self.matcher.schedules.pop(order_id, None)
            elif done.order.twap is not None:
                self.matcher.next_slices[order_id] = done.order.twap.next_slice

    def _settle_all(self) -> None:
        """Sweep; then nothing that the market reaches rests, no slice is late, and the caches are what is open."""
        for _ in range(5):
            self.matcher.sweep()
            self.screen.touched.update(INSTRUMENTS)
            self.matcher.look()
            if not self.matcher.crossed:
                break
            self._settle()
        self._slice()
        assert not self.matcher.crossed, f"{self.matcher.crossed} are not settled"
        indexed = {order_id for resting in self.matcher.resting.values() for order_id in resting}
        assert indexed == {ticket.order_id for ticket in self.resting if ticket.parent is None}, "the index is wrong"
        assert set(self.matcher.schedules) == {ticket.order_id for ticket in self.parents}, "the schedules are wrong"
        for ticket in self.resting:
            if ticket.parent is None and ticket.limit is not None:
                offers = self.desk.show(ticket.instrument, Side(ticket.side))
                reached = bool(offers) and ticket.crossed_by(offers[0][0], ticket.limit)
                assert not reached, f"{ticket} rests, the market is {offers}"
        assert not self.matcher.due(), "slices are late"

    def _by_id(self) -> dict[str, Ticket]:
        return {ticket.order_id: ticket for ticket in self.oracle.tickets}

    # -- what happens on the market

    def _price(self, at: str, side: Side, *, near: bool = False, away: bool = False) -> int:
        """The same, but often one that a venue can quote."""
        price, maker = super()._price(at, side, near=near, away=away), self.dice.choice(self.links).side.makers[at]
        tick = 10 ** (8 - maker.price_decimals) if self.dice.randrange(2) else 1
        return max(tick, price // tick * tick)

    def _quote(self, at: str, side: Side, price: int) -> None:
        """Let a venue quote this price, to its tick, until it is released; or all of them, as a market that moves."""
        gap = self.dice.choice((1, 1, None, 100))
        for link in self.dice.choice((self.links, [self.dice.choice(self.links)])):
            maker = link.side.makers[at]
            ticks = max(2, min(price, 10**19) // 10 ** (8 - maker.price_decimals))
            apart = maker.tick if gap is None else gap
            bid, ask = (max(1, ticks - apart), ticks) if side is Side.BUY else (ticks, ticks + apart)
            self._pin(link, maker, bid, ask)

    def _pin(self, link: Link, maker: Maker, bid: int, ask: int) -> None:
        sizes = (1, 10**7, maker.usual_size, maker.usual_size, 10**18)
        bid_size, ask_size = (
            Decimal(self.dice.choice(sizes) + self.dice.randrange(1_000)).scaleb(-SIZE_DECIMALS) for _ in SIDES
        )
        prices = (Decimal(units).scaleb(-maker.price_decimals) for units in (bid, ask))
        link.side.quote(maker.instrument, next(prices), bid_size, next(prices), ask_size)
        link.read()

    def something_on_the_market(self) -> None:
        link = self.dice.choice(self.links)
        maker = link.side.makers[self.dice.choice(INSTRUMENTS)]
        kind = self.dice.choice((
            "released", "released", "released", "released", "connection lost", "silent", "half-open", "resumed",
            "resumed", "resumed", "refused", "crossed", "absurd price", "garbage", "bad checksum", "trades skipped",
            "trades repeated", "engine halted", "engine online", "engine online", "clock set", "suspended", "noise",
            "blink",
        ))  # fmt: skip
        if kind not in ("released", "resumed", "engine online"):
            self._fault(kind)
        if kind == "bad checksum":
            link = self.screen.links["kraken"]
        if kind in ("crossed", "absurd price", "garbage", "bad checksum"):
            link.disturbed = True
        match kind:
            case "released":
                link.side.release(maker.instrument)
            case "connection lost":
                link.lost("dropped")
            case "silent":
                link.side.stall()
            case "half-open":
                link.half_open = True
            case "resumed":
                link.refused = False
                link.side.resume()
            case "refused":
                link.refused = True
                link.lost("dropped")
            case "crossed":
                link.side.cross(maker.instrument)
            case "absurd price":
                scale = 10**maker.price_decimals
                near = maker.touch.ask * self.dice.choice((50, 94, 97, 103, 106, 150)) // 100
                too_large = 9 * 10**10 * scale
                ask = self.dice.choice((near, near, 2, maker.usual_price * 1_000, too_large - 1, too_large, too_large))
                self._pin(link, maker, self.dice.choice((1, ask - 1)), ask)
            case "garbage":
                for _ in range(self.dice.randint(1, 3)):
                    link.side.tell("garbage", self.dice.choice(link.garbage))
            case "bad checksum":
                link.side.corrupt_checksum()
            case "trades skipped":
                link.side.skip_trades(self.dice.randint(1, 3))
            case "trades repeated":
                link.side.repeat_trades(self.dice.randint(1, 5))
            case "engine halted" | "engine online":
                kraken = self.screen.links["kraken"]
                kraken.side.set_status("maintenance" if kind == "engine halted" else "online")
            case "blink":
                kraken = self.screen.links["kraken"]
                for system in ("cancel_only", "online"):
                    kraken.side.set_status(system)
                    kraken.read()
                    self.clock.pass_(self.dice.choice((MS, 30 * MS)))
                self._advance()
            case "clock set":
                before_ns = self.clock.wall_ns
                self.clock.set_wall(self.dice.choice(WALL_STEPS_NS))
                self.screen.candles.was_set(before_ns, self.clock.wall_ns)
            case "suspended":
                self.clock.pass_(self.dice.choice((2 * NS, 6 * NS, 40 * NS)))
                if self.dice.randrange(2):
                    self._advance()
                    link.read()  # before anybody looks at the clock
                self._pass(MS)
            case _:
                link.noise = self.dice.choice(NOISES)

    def _heal(self) -> None:
        """Nothing goes wrong any more: in a bounded time every venue is live, and shows what it really quotes."""
        self.tell("heal")
        for link in self.links:
            link.noise, link.refused = 0.0, False
            link.side.resume()
            for instrument in INSTRUMENTS:
                link.side.release(instrument)
            if link.half_open:
                link.lost("half-open")  # as it would find out, later
            if link.side.dialect.system != "online" or link.halted:  # or it was said, and the wire lost it
                link.side.set_status("online")
        began_ns = self.clock.passed_ns
        wrong = ["not tried"]
        while wrong:
            assert self.clock.passed_ns - began_ns < HEALED_NS, f"it does not heal: {wrong}"
            self._advance()
            self._pass(NS, tick_ns=NS)
            self.prove()
            wrong = [f"{link.venue.name} is {link.market.state}" for link in self.links if not self._is_well(link)]

    def _is_well(self, link: Link) -> bool:
        """True when a venue is live, and its quotes and books here are the venue's own."""
        name, books = link.venue.name, {}
        if link.market.state is not State.LIVE or link.market.disabled:
            return False
        for instrument in INSTRUMENTS:
            maker, touch = link.side.makers[instrument], self.screen.touch(instrument, name)
            if touch.bid is None or touch.ask is None or not self.screen.takes_part(instrument, name):
                return False
            found = [int(side.price.scaleb(maker.price_decimals)) for side in (touch.bid, touch.ask)]
            if found != [maker.touch.bid, maker.touch.ask]:
                return False
            books[instrument] = self.screen.shown_books(instrument).get(name)
        return all(book is not None and book.bids and book.asks for book in books.values())

    # -- what must hold

    def prove(self) -> None:
        """Check what can be checked at any moment."""
        self.screen.prove()
        for link in self.links:
            link.prove()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT account_id, instrument, side, id, status, quantity, filled_quantity, held, version"
                " FROM trading_order"
            )
            orders = cursor.fetchall()
            cursor.execute("SELECT account_id, asset, total, held FROM trading_balance")
            balances = cursor.fetchall()
            cursor.execute("SELECT account_id, asset, sum(amount), count(*) FROM trading_entry GROUP BY 1, 2")
            entries = {(account, asset): total for account, asset, total, _ in cursor.fetchall()}
        held: Counter[tuple[int, str]] = Counter()
        for account, instrument, side, order_id, *rest in orders:
            status, quantity, filled, reserved, version = rest
            base, _, quote = instrument.partition("-")
            held[account, quote if side == "buy" else base] += reserved
            assert 0 <= filled <= quantity, f"order {order_id}: {filled} of {quantity} are filled"
            if status != "open":
                assert self._ended.setdefault(order_id, (status, filled, version)) == (status, filled, version), (
                    f"order {order_id} had ended as {self._ended[order_id]}, and is {status}, {filled} filled"
                )
            else:
                assert order_id not in self._ended, f"order {order_id} had ended, and is open"
        for account, asset, total, reserved in balances:
            assert total == entries.pop((account, asset), 0), f"{account} {asset}: {total} is not its entries' sum"
            assert reserved == held[account, asset], f"{account} {asset}: {reserved} held, its orders hold another sum"
            assert 0 <= reserved <= total, f"{account} {asset}: {reserved} of {total} held"
        assert not any(entries.values()), f"entries without a balance: {entries}"


def run(seed: int, *, steps: int = STEPS) -> Result:
    """Run one history; a violated invariant is in the result, with what happened before it."""
    history = History(seed)
    try:
        history.open()
        for _ in range(history.dice.randint(steps // 2, steps + steps // 2)):
            history.step()
        history.close()
    except Exception as error:
        last = [f"{number}. {_line(entry)}" for number, entry in enumerate(history.log)][-LAST_LOGGED:]
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = str(error) or frame.line
        story = (f"{type(error).__name__} in {frame.name}: {what}", "the last events:", *last)
        return Result(seed, history.digest, history.steps, history.faults, story)
    return Result(seed, history.digest, history.steps, history.faults)


def _line(entry: object) -> str:
    return " ".join(map(str, entry)) if isinstance(entry, tuple) else str(entry)


def _receipt(found: Market) -> Market:
    shown = [[offer.price, offer.size, offer.venue] for offer in found.offers]
    return Market(found.offers, {**found.touch, "shown": shown})
