"""Tells the story of an order from a recording: why it was filled, at which price, and why it was not."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import connection
from msgspec import Struct, field

from core.account import Offer, held_asset
from core.errors import DomainError
from core.events import Side
from core.money import DECIMALS, from_units
from core.orders import Fill, Liquidity, Order, OrderType, Terms
from marketdata.retelling import Frame, Told
from trading.commands import Amend, Cancel, CancelAll, Command, FillResting, Place, PlaceTwap, Reset, RunSlices
from trading.ledger import Ledger
from trading.recording import Transaction
from trading.rerun import Entry, Question, Recording, Rerun, as_units, private_database

FRAME_SHOWN_MAX = 400  # bytes of a frame
OFFERS_SHOWN_MAX = 5
RULES = {
    "limit_crossed_on_arrival": "a limit order that is crossed as it arrives executes at once, whole, at the touch",
    "market_at_touch": "a market order executes at once, whole, at the touch",
    "ioc_at_touch": "an ioc order takes what is shown at the touch, within its limit; what is left is cancelled",
    "amended_and_crossed": "an order whose new price is crossed executes at once, whole, at the touch",
    "resting_limit_crossed": "a resting order executes whole, at the touch that crosses its limit",
    "twap_slice": "a slice takes what is shown, best first, up to the order's limit",
}
REASONS = {
    "ioc_rest": "nothing more was shown within its limit that this account had not taken already",
    "twap_rest": "the last slice was past",
    "by_client": "its owner asked for it",
    "by_operator": "an operator asked for it",
    "account_reset": "the account was reset",
    "amount_too_large": "no balance may be as large as this one would become",
}


class Nobody(Exception):
    """The recording knows no such order."""


class Subject(Struct, frozen=True):
    """Whose story it is: an order; one that was refused has its token id only."""

    account_id: int
    token_id: str
    order_id: str = ""


class _Shown(Struct):
    offer: Offer
    told: Told | None
    at_ns: int


class _Chapter(Struct):
    """One transaction that had to do with the order."""

    entry: Entry
    line: Transaction
    asked: list[tuple[Command, Any]]  # and what came of it
    order: Order | None
    fills: list[Fill]
    others: int  # commands of the same account in the same transaction
    moved: dict[str, list[tuple[str, int]]]  # fill id → assets and amounts
    balances: list[tuple[str, tuple[int, int], tuple[int, int]]]  # asset, total and held before, and after
    shown: dict[tuple[str, int, int], _Shown] = field(default_factory=dict)


class _Nearest(Struct):
    price: Decimal
    size: Decimal
    frame: Frame


class Story:
    """Follows one order through a rerun."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._terms: Terms | None = None
        self._chapters: list[_Chapter] = []
        self._by_line: dict[int, _Chapter] = {}
        self._rests = False
        self._nearest: _Nearest | None = None
        self._quotes = 0  # that came while it rested

    # -- following

    def seen(self, entry: Entry, asked: Sequence[Command], results: Sequence[Any], ledger: Ledger) -> None:
        account = ledger.accounts.get(self.subject.account_id)
        order = ledger.order(self.subject.order_id)
        about = [(command, result) for command, result in zip(asked, results, strict=True) if self._is_about(command)]
        changed = account is not None and self.subject.order_id in account.changes.orders
        if not (about or changed):
            return
        assert isinstance(entry.line, Transaction)
        if not about:  # all orders of the account were meant
            about = [
                (command, result)
                for command, result in zip(asked, results, strict=True)
                if isinstance(command, CancelAll | Reset) and command.account_id == self.subject.account_id
            ]
        fills = [] if account is None else [fill for one, fill in account.changes.fills if one is order]
        moved: dict[str, list[tuple[str, int]]] = {}
        for entry_ in [] if account is None else account.changes.entries:
            moved.setdefault(entry_.reference, []).append((entry_.asset, entry_.amount))
        if self._terms is None:
            self._terms = order.terms if order is not None else _terms_of(about)
        _, before = entry.line.accounts.get(self.subject.account_id, (0, {}))
        balances = []
        for asset in self._terms.instrument.split("-") if self._terms is not None and account is not None else ():
            assert account is not None
            after = account.balances.get(asset)
            balances.append((asset, before.get(asset, (0, 0)), (after.total, after.held) if after else (0, 0)))
        others = sum(command.account_id == self.subject.account_id for command in asked) - len(about)
        chapter = _Chapter(entry, entry.line, about, order, fills, others, moved, balances)
        self._chapters.append(chapter)
        self._by_line[id(entry.line)] = chapter
        self._rests = order is not None and order.is_open and order.twap is None

    def answered(self, question: Question, offer: Offer, told: Told | None) -> None:
        """Take what told a price that was shown."""
        chapter = self._by_line.get(id(question.entry.line))
        terms = self._terms
        if chapter is None or terms is None or (question.instrument, question.side) != (terms.instrument, terms.side):
            return
        chapter.shown.setdefault((offer.venue, offer.price, offer.size), _Shown(offer, told, question.at_ns))

    def quoted(self, _venue: str, instrument: str, told: Told) -> None:
        """Keep the price that came nearest while the order rested."""
        terms, quote = self._terms, told.quote
        if not self._rests or terms is None or quote is None or instrument != terms.instrument:
            return
        buys = terms.side is Side.BUY
        price, size = (quote.ask, quote.ask_size) if buys else (quote.bid, quote.bid_size)
        if price is None or size is None or as_units(price, size) is None:
            return
        self._quotes += 1
        near = self._nearest
        if near is None or (price < near.price if buys else price > near.price):
            self._nearest = _Nearest(price, size, told.frame)

    def _is_about(self, command: Command) -> bool:
        if command.account_id != self.subject.account_id:
            return False
        names = {self.subject.token_id, self.subject.order_id} - {""}
        match command:
            case Place() | PlaceTwap():
                return command.terms.token_id == self.subject.token_id
            case Amend() | Cancel():
                return command.token in names
            case FillResting() | RunSlices():
                return command.order_id == self.subject.order_id
        return False

    @property
    def _side(self) -> Side:
        assert self._terms is not None
        return self._terms.side

    # -- telling

    def lines(self) -> Iterator[str]:
        """Yield the story, line by line."""
        if self._terms is None:
            return
        subject = self.subject
        yield f"{_words(self._terms)}, token id {subject.token_id!r}, of account {subject.account_id}"
        if subject.order_id:
            yield f"order {subject.order_id}"
        for number, chapter in enumerate(self._chapters, 1):
            yield ""
            yield from self._chapter(number, chapter)
        yield ""
        yield from self._end()

    def _chapter(self, number: int, chapter: _Chapter) -> Iterator[str]:
        yield f"{number}. {_time(chapter.line.now)}  {chapter.entry}"
        for command, result in chapter.asked:
            yield f"   {_asked(command)}"
            if isinstance(result, DomainError):
                yield f"   REFUSED ({result.code}): {result.message}"
        yield from self._market(chapter)
        for fill in chapter.fills:
            yield from self._fill(chapter, fill)
        yield from self._why_not(chapter)
        if chapter.others:
            yield f"   Its account, after {chapter.others} other command{'s' * (chapter.others > 1)} besides:"
        for asset, before, after in chapter.balances:
            if before != after:
                yield f"   {asset}: {_balance(before)}  →  {_balance(after)}"

    def _market(self, chapter: _Chapter) -> Iterator[str]:
        if not chapter.shown:
            return
        yield "   The market as it saw it, best first:"
        offers = list(chapter.shown.values())
        near = offers[: 1 + sum(self._within(chapter, shown.offer) for shown in offers)][:OFFERS_SHOWN_MAX]
        before: Frame | None = None
        for shown in near:
            offer = shown.offer
            yield f"     {offer.venue:<8} {from_units(offer.price):f} × {from_units(offer.size):f}"
            if shown.told is None:
                yield "       no recorded frame of the venue told that"
                continue
            frame = shown.told.frame
            if frame is before:
                yield "       told by the same frame"
                continue
            before, ago_ms = frame, (shown.at_ns - frame.at_ns) / 1e6
            yield f"       told at {_wall(frame.wall_ns)}, {ago_ms:,.1f} ms before, by this frame of {frame.venue}:"
            yield f"       {_text(frame.text)}"
        if (more := len(offers) - len(near)) > 0:
            yield f"     and {more} more behind"

    def _within(self, chapter: _Chapter, offer: Offer) -> bool:
        """Tell whether an offer is within the order's limit."""
        limit = chapter.order.price if chapter.order is not None else None
        return limit is None or (offer.price <= limit if self._side is Side.BUY else offer.price >= limit)

    def _fill(self, chapter: _Chapter, fill: Fill) -> Iterator[str]:
        header = chapter.entry.life.header
        exact = (Decimal(fill.price) * fill.quantity).scaleb(-2 * DECIMALS)
        rounded = "up" if self._side is Side.BUY else "down"
        bps = Decimal(header.maker_fee if fill.liquidity is Liquidity.MAKER else header.taker_fee) / 100
        moves = ", ".join(f"{from_units(amount):+f} {asset}" for asset, amount in chapter.moved.get(fill.fill_id, ()))
        yield (
            f"   FILLED {from_units(fill.quantity):f} at {from_units(fill.price):f} on {fill.venue}"
            f" as {fill.liquidity.value}  (fill {fill.fill_id})"
        )
        yield f"     rule {fill.rule}: {RULES.get(fill.rule, 'a rule that this release does not know')}"
        yield f"     worth {_exact(exact)} exactly; money moves in 10^-8, rounded {rounded} over the whole order"
        yield f"     fee {from_units(fill.fee):f} {fill.fee_asset}: {_exact(bps)} basis points of what it receives, up"
        yield f"     moved {moves}"

    def _why_not(self, chapter: _Chapter) -> Iterator[str]:
        """Say why what could have been filled was not."""
        order, terms = chapter.order, self._terms
        if order is None or terms is None:
            return
        if not order.is_open:
            if order.reason:
                reason = REASONS.get(order.reason, order.reason)
                yield f"   ENDED {order.status.value}, {from_units(order.leaves):f} not filled: {reason}"
            return
        if chapter.fills:
            return
        if order.twap is not None:
            if any(isinstance(command, RunSlices) for command, _ in chapter.asked) and not chapter.shown:
                yield "   NOT FILLED: nothing was shown"
        elif not chapter.shown:
            yield "   NOT FILLED: no venue was live for this symbol; it rests"
        else:
            assert order.price is not None
            limit, prices = from_units(order.price), [one.offer.price for one in chapter.shown.values()]
            buys = terms.side is Side.BUY
            best = from_units(min(prices) if buys else max(prices))
            missed = (
                f"the best {'ask' if buys else 'bid'} {best:f} is {'above' if buys else 'below'} its limit {limit:f}"
            )
            crossed = best <= limit if buys else best >= limit
            yield f"   NOT FILLED: {'by its turn the market was another' if crossed else missed}; it rests"
        yield f"   It holds {from_units(order.held):f} {held_asset(terms)}"

    def _end(self) -> Iterator[str]:
        last = next((chapter.order for chapter in reversed(self._chapters) if chapter.order is not None), None)
        if last is None:
            yield "It was never accepted: nothing of it is in the ledger."
            return
        filled, fills = from_units(last.filled_quantity), f"{last.fill_count} fill{'s' * (last.fill_count != 1)}"
        yield (
            f"In the end: {last.status.value}, {filled:f} of {from_units(last.quantity):f} filled in {fills},"
            f" fees {from_units(last.fee):f}"
        )
        if last.terms.order_type is not OrderType.LIMIT or last.price is None or last.fill_count:
            return
        name = "ask" if last.side is Side.BUY else "bid"
        if self._nearest is None:
            yield f"While it rested no venue told a new {name}."
            return
        near, limit = self._nearest, from_units(last.price)
        crosses = near.price <= limit if last.side is Side.BUY else near.price >= limit
        yield (
            f"While it rested {self._quotes:,} quote{'s' * (self._quotes != 1)} came; the nearest {name} was"
            f" {_exact(near.price)} × {_exact(near.size)} of {near.frame.venue} at {_wall(near.frame.wall_ns)},"
            f" its limit {limit:f}"
            + (": it crossed, and no matcher was there in time, or it ended first" if crosses else "")
        )
        yield f"  {_text(near.frame.text)}"


def find(recorded: Recording, name: str) -> list[Subject]:
    """Return the orders of this order id, token id or fill id; of refused ones only where there is no other.

    Raises:
        Nobody: the recording knows no such order.
    """
    refused: dict[tuple[int, str], Subject] = {}

    def note(_entry: Entry, asked: Sequence[Command], results: Sequence[Any], _ledger: Ledger) -> None:
        for command, result in zip(asked, results, strict=True):
            placed = isinstance(command, Place | PlaceTwap) and command.terms.token_id == name
            if placed and isinstance(result, DomainError):
                refused[command.account_id, name] = Subject(command.account_id, name)

    with private_database():
        run = Rerun(recorded, note)
        run.begin()
        for what in recorded.happenings(frames=False):
            run.take(what)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT account_id, token_id, id FROM trading_order WHERE id = %s OR token_id = %s"
                " OR id = (SELECT order_id FROM trading_fill WHERE id = %s) ORDER BY account_id",
                [name, name, name],
            )
            found = [Subject(*row) for row in cursor.fetchall()]
    accepted = {(subject.account_id, subject.token_id) for subject in found}
    found += [subject for key, subject in sorted(refused.items()) if key not in accepted]
    if not found:
        raise Nobody(f"the recording knows no order, token id or fill {name!r}")
    return found


def tell(recorded: Recording, subject: Subject) -> Iterator[str]:
    """Run the recording again and yield an order's story."""
    story = Story(subject)
    with private_database():
        run = Rerun(recorded, story.seen)
        run.market.answered.append(story.answered)
        run.market.quoted.append(story.quoted)
        run.begin()
        for what in recorded.happenings():
            run.take(what)
        run.market.settle(None)
    yield from story.lines()


def _terms_of(about: Sequence[tuple[Command, Any]]) -> Terms | None:
    return next((command.terms for command, _ in about if isinstance(command, Place | PlaceTwap)), None)


def _words(terms: Terms) -> str:
    limit = "" if terms.price is None else f", limit {from_units(terms.price):f}"
    return f"{terms.order_type.value} {terms.side.value} of {from_units(terms.quantity):f} {terms.instrument}{limit}"


def _asked(command: Command) -> str:
    """Say what a command asks."""
    match command:
        case Place():
            return f"A client asks: {_words(command.terms)}"
        case PlaceTwap():
            terms = _words(command.terms)
            return f"A client asks: {terms}, in {command.slices} slices over {command.duration_s} s, on {command.venue}"
        case Amend():
            price = "" if command.price is None else f" price {from_units(command.price):f}"
            quantity = "" if command.quantity is None else f" quantity {from_units(command.quantity):f}"
            return f"Its owner amends it:{price}{quantity}"
        case Cancel():
            return f"It is to be cancelled: {REASONS.get(command.reason, command.reason)}"
        case CancelAll():
            return f"All orders {'' if command.instrument is None else f'of {command.instrument} '}are to be cancelled"
        case Reset():
            return "The account is to be reset"
        case FillResting():
            return "The matcher saw a touch that crosses it"
        case RunSlices():
            return f"Its schedule: all slices up to number {command.end} are due"
    raise AssertionError(command)


def _balance(amounts: tuple[int, int]) -> str:
    return f"{from_units(amounts[0]):f} ({from_units(amounts[1]):f} held)"


def _exact(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _wall(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // 10**9, UTC).strftime("%H:%M:%S") + f".{wall_ns % 10**9 // 1000:06d}"


def _text(frame: bytes) -> str:
    text = frame[:FRAME_SHOWN_MAX].decode(errors="replace")
    return text if len(frame) <= FRAME_SHOWN_MAX else f"{text}… ({len(frame):,} bytes)"
