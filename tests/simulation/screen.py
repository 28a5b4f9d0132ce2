"""What our side makes of the venues' news, and the proof of it: touch boards, books, candles, trade ids.

Stands where the publisher, the layer and the hub stand, without batches. Beside the router's own parts
everything is kept a second time, as simply as possible, and compared.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from core.account import BALANCE_MAX, Offer
from core.candles import INTERVALS, JUMP_MAX_S, Candle, CandleSeries, first_open_second
from core.events import BookImage, Quote, Side, Trade
from core.touch import Touch, TouchBoard
from marketdata.batches import ALL, BookUpdate, QuoteSlot
from marketdata.consolidation import Consolidation, Seconds
from marketdata.feed import NS, KeptImage
from marketdata.market import State
from marketdata.simulated.binance import FIRST_UPDATE_ID
from marketdata.simulated.maker import SIZE_DECIMALS
from marketdata.simulated.okx import FIRST_SEQUENCE
from tests.core.outliers import Outliers
from tests.simulation.clock import Clock
from tests.simulation.link import LEVELS_PROVED, Levels, Link

_NOTHING = QuoteSlot("", "", None, None, None, None, None, 0)
UNITS = Decimal(10**8)

Tell = Callable[..., None]


class Shown(NamedTuple):
    """One side of a venue's quote, as we were told it."""

    price: Decimal
    size: Decimal
    since_ns: int


class Bar(NamedTuple):
    """A candle's numbers."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int


class Screen:
    """The sink of all venues' markets, and what a hub shows of them."""

    def __init__(self, instruments: Sequence[str], venues: Sequence[str], clock: Clock, tell: Tell) -> None:
        self.venues = tuple(venues)
        self.instruments = tuple(instruments)
        self.links: dict[str, Link] = {}
        self.dead = set(venues)  # not live
        self.touched: set[str] = set()  # instruments whose touch changed
        self.series = {(venue, instrument): CandleSeries() for instrument in instruments for venue in venues}
        self.candles = CandleProof(instruments, venues)
        self._clock = clock
        self._tell = tell
        self._boards = {instrument: TouchBoard(venues) for instrument in instruments}
        self._books: dict[tuple[str, str], tuple[BookImage | KeptImage, int]] = {}
        self._proven: dict[tuple[str, str], BookImage] = {}  # books that were found to be their venue's
        self._quotes: dict[tuple[str, str], tuple[Shown | None, Shown | None]] = {}  # the second time
        self._outliers = {instrument: Outliers() for instrument in instruments}
        self._sequences: dict[tuple[str, str], int | None] = {}  # of the venues' quotes
        self._next_ids: dict[tuple[str, str], int] = {}  # of those that told something: the id that must come next
        self._seconds = Seconds("simulated", venues, clock.wall_ns)
        self._consolidation = Consolidation(instruments, venues)
        for series in self.series.values():
            series.observe(False)

    # -- what a hub shows

    def board(self, instrument: str) -> TouchBoard:
        return self._boards[instrument]

    def touch(self, instrument: str, venue: str = ALL) -> Touch:
        board = self._boards[instrument]
        return board.touch if venue == ALL else board.venue_touch(venue)

    def is_live(self, venue: str) -> bool:
        return venue not in self.dead

    def takes_part(self, instrument: str, venue: str) -> bool:
        return self.is_live(venue) and venue not in self.aside(instrument)

    def aside(self, instrument: str) -> set[str]:
        """Return the live venues whose price is not believed."""
        return self._outliers[instrument].aside

    def shown_books(self, instrument: str) -> dict[str, BookUpdate]:
        books: dict[str, BookUpdate] = {}
        for venue in self.venues:
            kept = self._books.get((venue, instrument)) if self.is_live(venue) else None
            if kept is not None:
                image = kept[0].read() if isinstance(kept[0], KeptImage) else kept[0]
                if image is not self._proven.get((venue, instrument)):
                    self._prove_image(venue, instrument, image)
                    self._proven[venue, instrument] = image
                books[venue] = BookUpdate(venue, image.bids, image.asks, kept[1])
        return books

    # -- the sink

    def quote(self, venue: str, instrument: str, quote: Quote | None, wall_ns: int) -> None:
        self._tell("quote", venue, instrument, quote and (quote.bid, quote.bid_size, quote.ask, quote.ask_size))
        assert self.is_live(venue) or quote is None, f"a quote of {venue}, which is not live"
        board, before = self._boards[instrument], self._quotes.get((venue, instrument), (None, None))
        if quote is None:
            changed = board.quote(venue, _NOTHING, wall_ns)
            self._quotes.pop((venue, instrument), None)
            self._sequences.pop((venue, instrument), None)
        else:
            last, sequence = self._sequences.get((venue, instrument)), quote.sequence
            assert last is None or sequence is None or sequence >= last, f"{venue}: quote {sequence} came after {last}"
            self._sequences[venue, instrument] = sequence
            changed = board.quote(venue, quote, wall_ns)
            bid = _shown(before[0], quote.bid, quote.bid_size, wall_ns)
            ask = _shown(before[1], quote.ask, quote.ask_size, wall_ns)
            self._quotes[venue, instrument] = (bid, ask)
            self._prove_quote(venue, instrument, bid, ask)
        self._judge(instrument)
        if changed:
            self.touched.add(instrument)

    def book(self, venue: str, instrument: str, image: BookImage | KeptImage, wall_ns: int) -> None:
        self._books[venue, instrument] = (image, wall_ns)
        if isinstance(image, BookImage):
            self._tell("book", venue, instrument, image.bids[:1], image.asks[:1])
            if image.bids or image.asks:
                reading = self.links[venue].reading
                assert reading is not None, f"a book of {venue} from a frame that tells none"
                at, levels = reading
                assert at == instrument
                assert self._is(venue, instrument, image, levels), (
                    f"{venue}'s book of {instrument} is not what its checksum proves"
                )

    def trade(self, venue: str, instrument: str, trade: Trade, time_ns: int) -> None:
        key = (venue, instrument)
        self._tell("trade", venue, instrument, trade.first_id, trade.last_id, trade.price, trade.size, time_ns)
        wanted = self._next_ids.get(key)
        assert wanted is None or trade.first_id == wanted, f"{key}: trade {trade.first_id}, {wanted} comes next"
        self._next_ids[key] = trade.last_id + 1
        decimals = self.links[venue].side.makers[instrument].price_decimals
        found = (trade.first_id, _whole(trade.price, decimals), _whole(trade.size, 8), trade.side.value)
        sent = self.links[venue].truth.trades.get((instrument, trade.last_id))
        assert found == sent, f"{key}: trade {trade.last_id} is {found}, the venue said {sent}"
        wall_ns = self._clock.wall_ns
        taken = self.series[key].add(trade.price, trade.size, time_ns, wall_ns)
        self.candles.trade(venue, instrument, trade.price, trade.size, time_ns, wall_ns, taken=taken)

    def gap(self, venue: str, instrument: str, from_id: int, to_id: int) -> None:
        key = (venue, instrument)
        self._tell("gap", venue, instrument, from_id, to_id)
        wanted = self._next_ids.get(key)
        assert from_id <= to_id, f"{key}: a gap from {from_id} to {to_id}"
        assert wanted is None or from_id == wanted, f"{key}: a gap from {from_id}, {wanted} comes next"
        self._next_ids[key] = to_id + 1

    def state(self, venue: str, state: State, reason: str) -> None:
        self._tell("state", venue, state.value, reason)
        live = state is State.LIVE
        if live:
            self.dead.discard(venue)
        else:
            self.dead.add(venue)
            for instrument in self.instruments:
                for known in (self._quotes, self._sequences, self._books):
                    known.pop((venue, instrument), None)
        for instrument, board in self._boards.items():
            if board.set_live(venue, live):
                self.touched.add(instrument)
            self._judge(instrument)
        whole = state in (State.LIVE, State.DISABLED)  # what is traded of what it carries can arrive
        self._seconds.observe(venue, whole)
        for instrument in self.instruments:
            self.series[venue, instrument].observe(live, self._clock.wall_ns)
        self.candles.observe(venue, venue, live, self._clock.wall_ns)
        self.candles.observe(venue, ALL, whole, self._clock.wall_ns)

    # -- time

    def tick(self) -> None:
        """Close the candles that are due."""
        wall_ns = self._clock.wall_ns
        self.candles.due(first_open_second(wall_ns))
        batch = self._seconds.batch(self.series, wall_ns)
        for (venue, instrument), series in self.series.items():
            self._closed(venue, instrument, series.advance(wall_ns))
        self._consolidation.take(batch)
        for instrument, closed, running in self._consolidation.advance(wall_ns):
            self._closed(ALL, instrument, closed)
            for candle in running:
                assert not candle.closed
                assert candle.low <= min(candle.open, candle.close) <= max(candle.open, candle.close) <= candle.high

    def _closed(self, venue: str, instrument: str, candles: Sequence[Candle]) -> None:
        for candle in candles:
            self._tell("candle", venue, instrument, candle)
            self.candles.closed(venue, instrument, candle)

    # -- the proof

    def prove(self) -> None:
        """The touch is the best of the live and believed, and each side says whose it is, how much, and since when."""
        for instrument in self.instruments:
            board, aside = self._boards[instrument], self.aside(instrument)
            assert set(board.aside) == aside, f"{instrument}: aside are {set(board.aside)}, {aside} should be"
            touch = board.touch
            for side, best in ((0, touch.bid), (1, touch.ask)):
                wanted = self.best(instrument, side)
                found = None if best is None else (best.venue, Shown(best.price, best.size, best.received_ns))
                assert found == wanted, f"{instrument}: the touch shows {found}, the best of the live is {wanted}"

    def best(self, instrument: str, side: int) -> tuple[str, Shown] | None:
        shown = [
            (venue, quote[side])
            for venue in self.venues
            if self.takes_part(instrument, venue) and (quote := self._quotes.get((venue, instrument))) is not None
        ]
        offers = [(venue, one) for venue, one in shown if one is not None]
        sign = 1 if side else -1
        return min(
            offers,
            key=lambda offer: (
                sign * offer[1].price, -offer[1].size, offer[1].since_ns, self.venues.index(offer[0]),
            ),
            default=None,
        )  # fmt: skip

    def prove_market(self, instrument: str, side: Side, offers: Sequence[Offer]) -> None:
        """An order finds all that live and believed venues quote at the best price, and nothing else."""
        index = 1 if side is Side.BUY else 0
        best = self.best(instrument, index)
        wanted = []
        for venue in self.venues:
            quote = self._quoted(venue, instrument, index)
            if quote is not None and best is not None and quote.price == best[1].price:
                wanted.append((venue, quote.price * UNITS, min(int(quote.size * UNITS), BALANCE_MAX)))
        found = [(offer.venue, offer.price, offer.size) for offer in offers]
        assert sorted(found) == sorted(wanted), f"the market is {found}, at the best price are {wanted}"
        assert best is None or found[0][0] == best[0], f"the first is {found[0]}, not {best}"

    def prove_depth(self, instrument: str, side: Side, offers: Sequence[Offer]) -> None:
        """A slice finds the believed venues' quotes and what their books show behind them, best first."""
        index = 1 if side is Side.BUY else 0
        sign, books = (1 if index else -1), self.shown_books(instrument)
        behind: dict[str, set[tuple[Decimal, int]]] = {}
        prices = [sign * offer.price for offer in offers]
        assert prices == sorted(prices), f"{offers} are not best first"
        for offer in offers:
            quote = self._quoted(offer.venue, instrument, index)
            assert quote is not None, f"{offer} of a venue that shows nothing"
            if quote.price * UNITS == offer.price:
                assert offer.size == min(int(quote.size * UNITS), BALANCE_MAX), f"{offer}, the venue shows {quote}"
                continue
            assert sign * offer.price > sign * quote.price * UNITS, f"{offer} is better than its venue's {quote}"
            if offer.venue not in behind:
                book = books[offer.venue]
                behind[offer.venue] = {
                    (price * UNITS, min(int(size * UNITS), BALANCE_MAX))
                    for price, size in (book.asks if index else book.bids)
                }
            assert (offer.price, offer.size) in behind[offer.venue], f"{offer} is not in the book of its venue"

    def _quoted(self, venue: str, instrument: str, index: int) -> Shown | None:
        if not self.takes_part(instrument, venue):
            return None
        return self._quotes.get((venue, instrument), (None, None))[index]

    def _judge(self, instrument: str) -> None:
        told = ((venue, self._quotes.get((venue, instrument), (None, None))) for venue in self.venues)
        self._outliers[instrument].judge({venue: (bid and bid.price, ask and ask.price) for venue, (bid, ask) in told})

    def _prove_quote(self, venue: str, instrument: str, bid: Shown | None, ask: Shown | None) -> None:
        link = self.links[venue]
        decimals = link.side.makers[instrument].price_decimals
        for name, side in (("bid", bid), ("ask", ask)):
            if side is not None:
                told = (instrument, name, _whole(side.price, decimals), _whole(side.size, 8))
                assert told in link.truth.sides, f"{venue} never quoted {told}"
        assert bid is None or ask is None or bid.price < ask.price, f"{venue}'s quote of {instrument} is crossed"

    def _prove_image(self, venue: str, instrument: str, image: BookImage) -> None:
        """A book that was sent whole is one that the venue had; one that it had crossed is empty."""
        crossed = image.bids and image.asks and image.bids[0][0] >= image.asks[0][0]
        assert not crossed, f"{venue}'s book of {instrument} is crossed"
        if image.sequence is not None and (image.bids or image.asks):
            first = {"binance": FIRST_UPDATE_ID, "okx": FIRST_SEQUENCE}[venue]
            levels = self.links[venue].truth.books.get((instrument, image.sequence - first))
            assert levels is not None, f"{venue} never had this book of {instrument}"
            assert self._is(venue, instrument, image, levels), f"{venue}'s book of {instrument} was another"

    def _is(self, venue: str, instrument: str, image: BookImage, levels: Levels) -> bool:
        decimals = self.links[venue].side.makers[instrument].price_decimals
        count = LEVELS_PROVED[venue]
        for side, wanted in zip((image.bids[:count], image.asks[:count]), levels, strict=True):
            if len(side) != len(wanted):
                return False
            for (price, size), (ticks, units) in zip(side, wanted, strict=True):
                if price.scaleb(decimals) != ticks or size.scaleb(SIZE_DECIMALS) != units:
                    return False
        return True


class CandleProof:
    """Candles again, from the trades that were told."""

    def __init__(self, instruments: Sequence[str], venues: Sequence[str]) -> None:
        keys = [(venue, instrument) for instrument in instruments for venue in (*venues, ALL)]
        self._venues = tuple(venues)
        self._trades: dict[tuple[str, str], dict[int, list[tuple[int, int, Decimal, Decimal]]]] = {
            key: defaultdict(list) for key in keys
        }  # second → wall clock, number, price, size
        self._last: dict[tuple[str, str], Candle] = {}  # 1 s candles that closed last
        self._window: dict[tuple[str, str], list[Candle]] = {key: [] for key in keys}  # those of the longest interval
        self._due: int | None = None
        self._number = 0
        self._set_at = 0  # the first second after the wall clock was set
        # When a venue's trades could not arrive, for its own candles and for those over all.
        pairs = [(venue, whose) for venue in venues for whose in (venue, ALL)]
        self._blind: dict[tuple[str, str], list[tuple[int, int]]] = {pair: [] for pair in pairs}
        self._blind_since: dict[tuple[str, str], int | None] = dict.fromkeys(pairs, 0)

    def trade(
        self, venue: str, instrument: str, price: Decimal, size: Decimal, time_ns: int, wall_ns: int, *, taken: bool
    ) -> None:
        second = time_ns // NS
        if self._due is not None and second >= self._set_at:
            assert taken == (second >= self._due), f"{venue} {instrument}: a trade of {second}, {self._due} is open"
        if taken:
            self._number += 1
            for key in ((venue, instrument), (ALL, instrument)):
                self._trades[key][second].append((wall_ns, self._number, price, size))

    def observe(self, venue: str, whose: str, observed: bool, wall_ns: int) -> None:
        since = self._blind_since[venue, whose]
        if observed and since is not None:
            self._blind[venue, whose].append((since, wall_ns))
            self._blind_since[venue, whose] = None
        elif not observed and since is None:
            self._blind_since[venue, whose] = wall_ns

    def was_set(self, before_ns: int, wall_ns: int) -> None:
        """The wall clock was set: seconds near it are proved less strictly."""
        self._set_at = max(self._set_at, max(before_ns, wall_ns) // NS + 3)  # what was ahead once may be closed already
        for pair, since in self._blind_since.items():
            self._blind[pair].clear()
            self._blind_since[pair] = None if since is None else 0

    def due(self, due: int) -> None:
        """All before this second are about to close; a clock that moved far was set."""
        before, self._due = self._due, due
        if before is not None and due < before - JUMP_MAX_S:
            for seconds in self._trades.values():
                seconds.clear()
            for window in self._window.values():
                window.clear()

    def closed(self, venue: str, instrument: str, candle: Candle) -> None:
        key, name = (venue, instrument), f"{venue} {instrument} {candle.interval} s at {candle.open_time}"
        assert candle.closed
        if candle.interval == 1:
            self._closed_second(key, candle, name)
        else:
            self._closed_window(key, candle, name)

    def _closed_second(self, key: tuple[str, str], candle: Candle, name: str) -> None:
        last = self._last.get(key)
        told = self._trades[key].pop(candle.open_time, [])
        if last is not None:
            follows = candle.open_time == last.open_time + 1 or candle.open_time <= self._set_at
            assert follows, f"{name}: after {last.open_time}"
        else:
            assert told, f"{name}: before the first trade"
        self._last[key] = candle
        window = self._window[key]
        longest = max(INTERVALS.values())
        if window and window[-1].open_time // longest != candle.open_time // longest:
            window[:-longest] = []
        window.append(candle)
        if candle.open_time > self._set_at:
            wanted = _of_trades(told, candle.close if last is None else last.close)
            assert _bar(candle) == wanted, f"{name}: {candle}, its trades say {wanted}"
            assert candle.partial or not self._was_blind(key[0], candle.open_time), f"{name}: it was not observed whole"

    def _closed_window(self, key: tuple[str, str], candle: Candle, name: str) -> None:
        assert candle.open_time % candle.interval == 0, name
        end = candle.open_time + candle.interval
        seconds = [one for one in self._window[key] if candle.open_time <= one.open_time < end]
        if candle.open_time <= self._set_at:
            return
        assert seconds, f"{name}: without a second"
        wanted = Bar(
            seconds[0].open,
            max(one.high for one in seconds),
            min(one.low for one in seconds),
            seconds[-1].close,
            sum((one.volume for one in seconds), Decimal(0)),
            sum(one.trades for one in seconds),
        )
        assert _bar(candle) == wanted, f"{name}: {candle}, its seconds say {wanted}"
        assert candle.partial or not any(one.partial for one in seconds), f"{name}: whole, of partial seconds"

    def _was_blind(self, venue: str, second: int) -> bool:
        begin, end = second * NS, (second + 1) * NS
        for name in self._venues if venue == ALL else (venue,):
            since = self._blind_since[name, venue]
            if since is not None and since < end:
                return True
            if any(one < end and begin < other for one, other in self._blind[name, venue][-8:]):
                return True
        return False


def _bar(candle: Candle) -> Bar:
    return Bar(candle.open, candle.high, candle.low, candle.close, candle.volume, candle.trades)


def _of_trades(told: Sequence[tuple[int, int, Decimal, Decimal]], close: Decimal) -> Bar:
    """Return what a second's trades make, or one without: flat at the close before it."""
    if not told:
        return Bar(close, close, close, close, Decimal(0), 0)
    prices = [price for *_, price, _ in told]
    volume = sum((size for *_, size in told), Decimal(0))
    return Bar(prices[0], max(prices), min(prices), prices[-1], volume, len(told))


def _shown(before: Shown | None, price: Decimal | None, size: Decimal | None, wall_ns: int) -> Shown | None:
    if price is None or size is None:
        return None
    if before is not None and (before.price, before.size) == (price, size):
        return before
    return Shown(price, size, wall_ns)


def _whole(value: Decimal, decimals: int) -> int:
    """Return a number in units of 10^-decimals; it has no further digits."""
    units = value.scaleb(decimals)
    assert units == int(units), f"{value} has more than {decimals} decimals"
    return int(units)
