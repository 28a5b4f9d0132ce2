"""What can be done on the exchange. Everything that changes money or orders goes through here.

An `Exchange` turns commands into one transaction a batch: lock the accounts, read what the
commands need, let the core decide, write what changed, and tell once it is committed.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import structlog
from django.db import transaction
from msgspec import Struct

from core.account import Account, Balance, Fees, Market, NoMarket, Offer, check_balance
from core.errors import DomainError, NotFound, Refused
from core.events import Side
from core.ids import new_uuid
from core.orders import Fill, Order, OrderType, Terms
from core.twap import Twap, collar
from trading import metrics, wire
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
from trading.ledger import Ledger, NotOpened, Outcome, open_accounts
from trading.writer import Writer

log = structlog.get_logger(__name__)

SEEN_MAX_NS = 1_000_000_000  # how old a crossing may be by the time it is written
TWAPS_RUNNING_MAX = 100  # of one account
SIZES_KEPT_MAX = 20_000  # displayed sizes of which an account took a part

_Level = tuple[int, str, Side, str, int]  # account, instrument, side, venue and price
MarketOf = Callable[[str, Side], Market]  # instrument, the order's side → what it would execute against now
DepthOf = Callable[[str, Side, str], Market]  # with the venue, or "all" → all that is shown, best first


class DuplicateTokenId(Refused):
    code = "duplicate_token_id"


class TooManyTwaps(Refused):
    code = "too_many_twaps"


class OrderNotFound(NotFound):
    code = "order_not_found"


class Done(Struct, frozen=True):
    """An order after a command, and all of its fills."""

    order: Order
    fills: tuple[Fill, ...]


class Witness(Protocol):
    """Who sees all that an exchange does and is told: records it, or compares it with what was recorded."""

    def heard(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is to be asked in place of a function whose answers are not the exchange's own."""

    def open(self, account_ids: Sequence[int]) -> None:
        """Make accounts, in a transaction of their own."""

    def locked(self, ledger: Ledger) -> None:
        """The accounts of a transaction are locked."""

    def written(self, ledger: Ledger, commands: Sequence[Command], results: Sequence[Any], now: datetime) -> None:
        """All of a transaction is written; it is committed next."""

    def committed(self) -> None: ...

    def failed(self, error: BaseException) -> None:
        """It was not committed, or nobody knows."""


class _Nobody:
    """Stands where no witness is."""

    open = staticmethod(open_accounts)

    def heard(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return call

    def locked(self, ledger: Ledger) -> None: ...

    def written(self, ledger: Ledger, commands: Sequence[Command], results: Sequence[Any], now: datetime) -> None: ...

    def committed(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Exchange:
    """The paper exchange of one process. `told` is called after each commit, in the writer's thread.

    A parent order without a limit gets the touch at its arrival, worsened by `collar_bps`.
    """

    def __init__(
        self,
        market_of: MarketOf,
        *,
        takes_part: Callable[[str, str], bool],
        fees: Fees,
        depth_of: DepthOf = lambda instrument, side, venue: Market((), {}),
        collar_bps: int = 0,
        told: Callable[[Outcome], None] = lambda outcome: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock_ns: Callable[[], int] = time.monotonic_ns,
        new_id: Callable[[], str] = new_uuid,
        witness: Witness | None = None,
    ) -> None:
        self._witness = witness or _Nobody()
        heard = self._witness.heard
        self.told = told
        self._takes_part = heard("part", takes_part)
        self._clock_ns = heard("clock", clock_ns)
        self._market_of = heard("market", market_of)
        self._depth_of = heard("depth", depth_of)
        self._collar_bps = collar_bps
        self._fees = fees
        self._now = now
        self._new_id = heard("id", new_id)
        self._taken = _DisplayedSizes()
        self._writer: Writer[Command] = Writer(self.apply, name="trading-writer")

    def submit(self, command: Command) -> "Future[Any]":
        """Queue a command for the next transaction; the future gives its result once that is committed."""
        return self._writer.submit(command)

    def stop(self) -> None:
        self._writer.stop()

    def apply(self, commands: Sequence[Command]) -> tuple[list[Any], Callable[[], None]]:
        """Run commands in one transaction; return each one's result, or the `DomainError` that refuses it."""
        try:
            return self._apply(commands)
        except NotOpened as new:
            self._witness.open(new.account_ids)
            return self._apply(commands, opened=True)

    def _apply(self, commands: Sequence[Command], *, opened: bool = False) -> tuple[list[Any], Callable[[], None]]:
        try:
            return self._commit(commands, opened=opened)
        except BaseException as error:
            self._taken.undo()  # what was not written took nothing
            self._witness.failed(error)
            raise

    def _commit(self, commands: Sequence[Command], *, opened: bool) -> tuple[list[Any], Callable[[], None]]:
        self._taken.begin()
        ledger = Ledger(fees=self._fees, new_id=self._new_id)
        results: list[Any] = []
        with transaction.atomic(durable=True):
            ledger.lock({command.account_id for command in commands}, opened=opened)
            self._witness.locked(ledger)
            self._read(ledger, commands)
            now = self._now()  # locks and rows may take their time: what executes now is shown now
            for command in commands:
                try:
                    results.append(self._run(ledger, command, now))
                except DomainError as refusal:
                    results.append(refusal)
            touched = [order for account in ledger.accounts.values() for order in account.changes.orders.values()]
            reports = ledger.write(now)
            self._witness.written(ledger, commands, results, now)
        self._witness.committed()
        for account in ledger.accounts.values():
            for _, fill in account.changes.fills:
                metrics.FILLS.labels(fill.liquidity.value).inc()
        results = [self._answer(ledger, result) for result in results]
        outcome = Outcome(
            reports, [order for order in touched if order.is_open], [order for order in touched if not order.is_open]
        )
        return results, partial(self._tell, outcome)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.reports or outcome.rested or outcome.ended:
            try:
                self.told(outcome)
            except Exception:
                log.exception("telling what was committed failed; readers find it in the database")

    def _answer(self, ledger: Ledger, result: Any) -> Any:
        if isinstance(result, Order):
            return Done(result, tuple(ledger.fills.get(result.order_id, ())))
        if isinstance(result, list):
            return [self._answer(ledger, one) for one in result]
        return result

    def forget_sizes(self) -> None:
        """Take back what the last transaction took of displayed sizes."""
        self._taken.undo()

    # -- reading ahead

    def _read(self, ledger: Ledger, commands: Sequence[Command]) -> None:
        tokens = {
            (command.account_id, command.terms.token_id if isinstance(command, Place | PlaceTwap) else command.token)
            for command in commands
            if isinstance(command, Place | PlaceTwap | Amend | Cancel)
        }
        ledger.read_tokens(tokens)
        ledger.read_orders({command.order_id for command in commands if isinstance(command, FillResting | RunSlices)})
        for command in commands:
            if isinstance(command, CancelAll | Reset) and command.account_id in ledger.accounts:
                ledger.read_open(command.account_id)

    # -- the commands

    def _run(self, ledger: Ledger, command: Command, now: datetime) -> Any:
        account = ledger.account(command.account_id, getattr(command, "key", ""))
        match command:
            case Place():
                return self._place(ledger, account, command, now)
            case Deposit():
                return _copy(account.deposit(command.asset, command.amount, kind=command.kind))
            case Cancel():
                order = self._find(ledger, command.account_id, command.token)
                return account.cancel(order, now=now, reason=command.reason)
            case Amend():
                order = self._find(ledger, command.account_id, command.token)
                market = self._market_of(order.terms.instrument, order.side)
                return account.amend(order, price=command.price, quantity=command.quantity, market=market, now=now)
            case CancelAll():
                return self._cancel_all(ledger, account, command.instrument, command.reason, now)
            case Reset():
                for asset, amount in command.balances.items():
                    check_balance(asset, amount)  # before anything is changed
                self._cancel_all(ledger, account, None, "account_reset", now)
                for asset in sorted(account.balances):  # they were read in whatever order
                    account.zero(asset)
                for asset, amount in command.balances.items():
                    account.deposit(asset, amount, kind="reset")
                return {asset: _copy(balance) for asset, balance in account.balances.items()}
            case FillResting():
                return self._fill_resting(ledger, account, command, now)
            case PlaceTwap():
                return self._place_twap(ledger, account, command, now)
            case RunSlices():
                return self._run_slices(ledger, account, command, now)

    def _place(self, ledger: Ledger, account: Account, command: Place, now: datetime) -> Order:
        terms = command.terms
        self._refuse_used_token(ledger, account, terms.token_id)
        shown = self._market_of(terms.instrument, terms.side)
        if terms.order_type is not OrderType.IOC:
            order = account.place(terms, shown, now=now)
        else:
            before = len(account.changes.fills)
            order = account.place(terms, self._taken.left(account.account_id, terms, shown), now=now)
            self._taken.take(order, account.changes.fills[before:], shown)
        ledger.remember(order)
        return order

    def _place_twap(self, ledger: Ledger, account: Account, command: PlaceTwap, now: datetime) -> Order:
        terms = command.terms
        if terms.token_id:
            self._refuse_used_token(ledger, account, terms.token_id)
        if ledger.running_twaps(account.account_id) >= TWAPS_RUNNING_MAX:
            raise TooManyTwaps(f"{TWAPS_RUNNING_MAX} of your TWAP orders run already; wait for one, or cancel one")
        offers = {side: self._depth_of(terms.instrument, side, command.venue).offers[:1] for side in Side}
        limit = terms.price
        if limit is None:
            if not offers[terms.side]:
                raise NoMarket("no venue is live for this symbol now: give a limit_price, or try again later")
            limit = collar(offers[terms.side][0].price, buys=terms.side is Side.BUY, bps=self._collar_bps)
        bests = [best.price for side in Side for best in offers[side]]
        arrival = sum(bests) // 2 if len(bests) == len(Side) else None
        twap = Twap(command.venue, command.duration_s, command.slices, arrival_price=arrival)
        order = account.place_twap(terms, twap, limit=limit, now=now)
        ledger.remember(order)
        return order

    def _run_slices(self, ledger: Ledger, account: Account, command: RunSlices, now: datetime) -> Order | None:
        order = ledger.order(command.order_id)
        if order is None or order.account_id != account.account_id or order.twap is None or not order.is_open:
            return None
        shown = self._depth_of(order.terms.instrument, order.side, order.twap.venue)
        left = self._taken.left(account.account_id, order.terms, shown)
        account.observe(order, market_sum=command.market_sum, market_us=command.market_us)
        before = len(account.changes.fills)
        account.run_slices(order, command.first, command.end, left, now=now)
        self._taken.take(order, account.changes.fills[before:], shown)
        return order

    def _refuse_used_token(self, ledger: Ledger, account: Account, token_id: str) -> None:
        earlier = ledger.by_token(account.account_id, token_id)
        if earlier is not None and earlier.terms.token_id == token_id:
            just_made = [fill for order, fill in account.changes.fills if order is earlier]  # in this transaction
            raise DuplicateTokenId(
                "this token_id was used before; the order is in the answer",
                order=wire.order(earlier, [*ledger.fills.get(earlier.order_id, ()), *just_made]),
            )

    def _fill_resting(self, ledger: Ledger, account: Account, command: FillResting, now: datetime) -> bool:
        """Fill at the market that the matcher saw, unless it is old or its venue is out since; else at today's."""
        order = ledger.order(command.order_id)
        if order is None or order.account_id != account.account_id or order.terms.order_type is not OrderType.LIMIT:
            return False  # a parent order's limit is for its slices
        market, instrument = command.market, order.terms.instrument
        seen_ago_ns = self._clock_ns() - command.seen_ns
        if seen_ago_ns > SEEN_MAX_NS or not all(self._takes_part(instrument, best.venue) for best in market.offers[:1]):
            market = self._market_of(instrument, order.side)
        return account.fill_resting(order, market, now=now)

    def _cancel_all(
        self, ledger: Ledger, account: Account, instrument: str | None, reason: str, now: datetime
    ) -> list[Order]:
        chosen = [
            order
            for order in ledger.open_orders(account.account_id)
            if instrument is None or order.terms.instrument == instrument
        ]
        return [account.cancel(order, now=now, reason=reason) for order in chosen]

    def _find(self, ledger: Ledger, account_id: int, token: str) -> Order:
        order = ledger.by_token(account_id, token)
        if order is None:
            raise OrderNotFound("you have no order with this token_id or id")
        return order


class _DisplayedSizes:
    """How much an account took of each size that a venue displays, until the venue's next update of it."""

    def __init__(self) -> None:
        # The size that was shown there, and what was taken of it.
        self._taken: OrderedDict[_Level, tuple[int, int]] = OrderedDict()
        self._before: dict[_Level, tuple[int, int] | None] = {}  # of those that this transaction changed

    def begin(self) -> None:
        self._before.clear()

    def undo(self) -> None:
        """Forget what was taken since `begin`."""
        for key, before in self._before.items():
            self._taken.pop(key, None)
            if before is not None:
                self._taken[key] = before
        self._before.clear()

    def left(self, account_id: int, terms: Terms, shown: Market) -> Market:
        """Return the market with what this account did not take yet."""
        offers = []
        for offer in shown.offers:
            size, taken = self._taken.get((account_id, terms.instrument, terms.side, offer.venue, offer.price), (0, 0))
            offers.append(Offer(offer.price, offer.size - taken, offer.venue) if size == offer.size else offer)
        return Market(tuple(offers), shown.touch)

    def take(self, order: Order, fills: Iterable[tuple[Order, Fill]], shown: Market) -> None:
        """Remember what an order's new fills took of what was shown."""
        sizes = {(offer.venue, offer.price): offer.size for offer in shown.offers}
        for _, fill in fills:
            key = (order.account_id, order.terms.instrument, order.side, fill.venue, fill.price)
            size = sizes[fill.venue, fill.price]
            self._before.setdefault(key, self._taken.get(key))
            before, taken = self._taken.pop(key, (size, 0))
            self._taken[key] = (size, fill.quantity + (taken if before == size else 0))
        while len(self._taken) > SIZES_KEPT_MAX:
            self._taken.popitem(last=False)


def _copy(balance: Balance) -> Balance:
    return Balance(balance.total, balance.held)
