"""One venue across its connections: liveness, duplicates, gaps and what its quotes are worth.

Time enters as arguments: `now_ns` is the monotonic clock of this process, `wall_ns` the
wall clock; the venue's own clock decides nothing about liveness.
"""

import enum
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from core.candles import trade_time_ns
from core.events import BookImage, Quote, Trade
from core.money import DECIMALS, INPUT_LIMIT
from marketdata.feed import BEHIND_NS, NS, Disabled, FeedEvent, KeptImage, MarketEvent, QuoteLost
from marketdata.venue import EngineStatus, PlannedClose

PROBE_AFTER_NS = 2 * NS  # without a frame: ask the venue whether it is there
PROBE_AFTER_SHARE = 0.4  # of the time to staleness, at the latest: an answer needs its time too
DATA_SILENCE_NS = 30 * NS  # without market data on any symbol: stale, whatever else it answers
USUAL_GAPS = 10  # as many usual gaps without data are a silence too (never sooner than stale_after)
USUAL_GAP_WEIGHT = 0.01  # of the newest gap in the running mean
USUAL_GAP_SAMPLES = 100  # frames before the mean means anything
HISTORIC_TRADE_NS = 60 * NS  # the first print on a connection, if older than this, is history
REPRESENTABLE_AFTER_NS = 3 * NS  # for so long all prices of an instrument must fit, after one that did not
ID_RESET_NS = 60 * NS  # a lower trade id with a venue time so much later is a venue that counts anew

SUSPENDED = "this process was suspended"

_UNIT = Decimal(1).scaleb(-DECIMALS)
_UNFIT = f"its prices are finer than 10^-{DECIMALS} or too large to be kept exactly"


class State(enum.StrEnum):
    CONNECTING = "connecting"
    SYNCING = "syncing"  # connected, waiting for the first fresh quote
    LIVE = "live"
    STALE = "stale"
    HALTED = "halted"  # the venue's engine says that it is not trading
    DOWN = "down"
    DISABLED = "disabled"  # carries none of the configured instruments


_LIVE = State.LIVE  # looked up once: an enum's member takes as long as all else that is asked of a quote


class Sink(Protocol):
    """Where a venue's news goes; every call is cheap and never fails."""

    def quote(self, venue: str, instrument: str, quote: Quote | None, wall_ns: int) -> None: ...

    def book(self, venue: str, instrument: str, image: BookImage | KeptImage, wall_ns: int) -> None: ...

    def trade(self, venue: str, instrument: str, trade: Trade, time_ns: int) -> None: ...

    def gap(self, venue: str, instrument: str, from_id: int, to_id: int) -> None: ...

    def state(self, venue: str, state: State, reason: str) -> None: ...


@dataclass(slots=True)
class _Prints:
    """What is remembered of an instrument's trades."""

    last_id: int | None = None
    venue_ns: int = 0  # of that one
    price: Decimal | None = None  # the last one that was found to be representable
    told: bool = False  # one of them was news
    on_this_connection: bool = False  # one of them came on this connection


class VenueMarket:
    """The state of one venue; feeds call in, news goes to the sink."""

    def __init__(self, venue: str, instruments: Sequence[str], *, stale_after_s: float, sink: Sink) -> None:
        self.venue = venue
        self.instruments = tuple(instruments)
        self.state = State.DOWN
        self.reason = "not started"
        self.disabled: dict[str, str] = {}
        self.counters: defaultdict[str, int] = defaultdict(int)  # a Counter takes three times as long to count
        self.frames = 0
        self.last_frame_ns: int | None = None
        self.last_data_ns: int | None = None
        self.planned_close: str | None = None
        self._sink = sink
        self._stale_after_ns = int(stale_after_s * NS)
        self.probe_after_ns = min(PROBE_AFTER_NS, int(PROBE_AFTER_SHARE * self._stale_after_ns))
        self._quotes: dict[str, Quote] = {}
        self._behind_since_ns: dict[str, int] = {}  # instruments whose quotes come with lower ids than the last one's
        self._prints: dict[str, _Prints] = {}
        # Instruments that are out, for a price that we cannot keep exactly → since when all prices could be kept.
        self._unfit: dict[str, int | None] = {}
        self._halted = ""
        self._answer_ns = 0
        self._connected_ns = 0
        self._usual_gap_ns = 0.0
        self._gaps = 0
        self._checked_ns = 0

    @property
    def carried(self) -> tuple[str, ...]:
        return tuple(name for name in self.instruments if name not in self.disabled)

    # -- the connection's life

    def connecting(self) -> None:
        if self.state not in (State.STALE, State.HALTED):
            self._become(State.CONNECTING, self.reason)

    def connected(self, now_ns: int) -> None:
        """A connection is open: from here its silence counts."""
        self._connected_ns = self._answer_ns = self._checked_ns = now_ns
        self.last_frame_ns = self.last_data_ns = None
        self._start_over()
        self._usual_gap_ns, self._gaps = 0.0, 0
        self._become(State.HALTED if self._halted else State.SYNCING, self._halted or "waiting for fresh quotes")

    def replaced(self) -> None:
        """Another connection took over without a break."""
        self.planned_close = None
        self.counters["replacements"] += 1
        self._start_over()
        if self.state is State.DISABLED:
            self._become(State.SYNCING, "waiting for fresh quotes")

    def _start_over(self) -> None:
        """Forget what a new connection finds out for itself."""
        self.disabled.clear()
        self._unfit.clear()
        for prints in self._prints.values():
            prints.on_this_connection = False

    def lost(self, reason: str) -> None:
        """The connection is gone: its quotes leave the touch at once."""
        if self.state is State.STALE:
            self._drop_quotes()
        else:
            self._leave(State.DOWN, reason)
        self.planned_close = None

    # -- frames

    def answered(self, now_ns: int) -> None:
        """The venue answered a probe outside the frames we read (a WebSocket pong)."""
        self._answer_ns = now_ns

    def was_suspended(self, now_ns: int) -> bool:
        """True when this process did not run for so long that what it reads now may be old."""
        return now_ns - self._checked_ns > self._stale_after_ns

    def take(self, events: Iterable[FeedEvent], now_ns: int, wall_ns: int, frame: bool = True) -> None:
        """Take the news of a frame that arrived now: even one without any shows that the connection is alive.

        `frame` is False for news that came earlier, or that no frame told.
        """
        if frame:
            self.last_frame_ns = now_ns
            self.frames += 1
        for event in events:
            if isinstance(event, MarketEvent):
                last_ns = self.last_data_ns
                if last_ns is None:
                    self.last_data_ns = now_ns
                elif now_ns >= last_ns:  # otherwise it is told late, by a connection that has just taken over
                    self.last_data_ns = now_ns
                    usual_ns = self._usual_gap_ns
                    if self._gaps == USUAL_GAP_SAMPLES:
                        self._usual_gap_ns = usual_ns + (now_ns - last_ns - usual_ns) * USUAL_GAP_WEIGHT
                    else:
                        self._gaps += 1
                        self._usual_gap_ns = usual_ns + (now_ns - last_ns - usual_ns) / self._gaps
                body = event.body
                if isinstance(body, Quote):
                    self._take_quote(event.instrument, body, wall_ns)
                elif isinstance(body, Trade):
                    self._take_trade(event.instrument, body, wall_ns)
                elif self.state is _LIVE:
                    self._sink.book(self.venue, event.instrument, body, wall_ns)
            else:
                self._take_news(event, wall_ns)

    def _take_news(self, event: FeedEvent, wall_ns: int) -> None:
        if isinstance(event, QuoteLost):
            self.counters["quotes_lost"] += 1
            self._drop_quote(event.instrument, wall_ns)
        elif isinstance(event, Disabled):
            self._take_disabled(event, wall_ns)
        elif isinstance(event, EngineStatus):
            self._take_status(event)
        else:
            assert isinstance(event, PlannedClose)
            self.planned_close = event.reason

    def _take_quote(self, instrument: str, quote: Quote, wall_ns: int) -> None:
        if self._halted:
            return
        quotes = self._quotes
        last = quotes.get(instrument)
        known = last is not None and quote.bid is last.bid and quote.ask is last.ask
        if not known and not self._representable(instrument, wall_ns, quote.bid, quote.ask):
            return
        if last is not None and _is_old(quote, last):
            self.counters["old_quotes"] += 1
            if quote == last or not self._stays_behind(instrument):
                return
            self.counters["quote_id_resets"] += 1
        if self._behind_since_ns:
            self._behind_since_ns.pop(instrument, None)
        quotes[instrument] = quote
        if self.state is not _LIVE:
            self._become(_LIVE, "")
        self._sink.quote(self.venue, instrument, quote, wall_ns)

    def _stays_behind(self, instrument: str) -> bool:
        """Tell whether the ids of an instrument's quotes have been lower than the last one's for long."""
        assert self.last_data_ns is not None
        return self.last_data_ns - self._behind_since_ns.setdefault(instrument, self.last_data_ns) > BEHIND_NS

    def _take_trade(self, instrument: str, trade: Trade, wall_ns: int) -> None:
        prints = self._prints.get(instrument)
        if prints is None:
            prints = self._prints[instrument] = _Prints()
        if trade.price is not prints.price:
            if not self._representable(instrument, wall_ns, trade.price):
                return
            prints.price = trade.price
        venue_ns = trade.venue_ns
        historic = trade.snapshot or (not prints.on_this_connection and wall_ns - venue_ns > HISTORIC_TRADE_NS)
        prints.on_this_connection = True
        last_id = prints.last_id
        if last_id is not None:
            if trade.last_id <= last_id:
                if venue_ns < prints.venue_ns + ID_RESET_NS:
                    self.counters["duplicate_trades"] += 1
                    return
                self.counters["trade_id_resets"] += 1
            elif not historic:
                if trade.first_id > last_id + 1:
                    self._report_gap(instrument, last_id + 1, trade.first_id - 1)
            elif prints.told:  # it will not be told, so it is missing too
                self._report_gap(instrument, last_id + 1, trade.last_id)
        prints.last_id = trade.last_id
        prints.venue_ns = min(venue_ns, wall_ns)  # from a time to come no later id would ever count as a reset
        if historic:
            self.counters["historic_trades"] += 1
            return
        time_ns = trade_time_ns(venue_ns, wall_ns)
        if time_ns != venue_ns:
            self.counters["trade_times_refused"] += 1
        self.counters["trades"] += 1
        prints.told = True
        self._sink.trade(self.venue, instrument, trade, time_ns)

    def _report_gap(self, instrument: str, from_id: int, to_id: int) -> None:
        self.counters["gaps"] += 1
        self._sink.gap(self.venue, instrument, from_id, to_id)

    def _representable(self, instrument: str, wall_ns: int, *prices: Decimal | None) -> bool:
        """Refuse prices that do not fit the unit of money, and their instrument until its prices do for a while."""
        for price in prices:
            if price is not None and (price >= INPUT_LIMIT or price % _UNIT):
                self._take_unfit(instrument, wall_ns)
                return False
        return not self._unfit or self._fits_again(instrument, wall_ns)

    def _take_unfit(self, instrument: str, wall_ns: int) -> None:
        if instrument not in self._unfit:
            self.counters["too_fine"] += 1
            if instrument in self._prints:
                self._prints[instrument].price = None
            self._take_disabled(Disabled(instrument, _UNFIT), wall_ns)
        self._unfit[instrument] = None

    def _fits_again(self, instrument: str, wall_ns: int) -> bool:
        if instrument not in self._unfit:
            return True
        since_ns, now_ns = self._unfit[instrument], self.last_data_ns or self._connected_ns
        if since_ns is None:
            self._unfit[instrument] = now_ns
            return False
        if now_ns - since_ns < REPRESENTABLE_AFTER_NS:
            return False
        del self._unfit[instrument]
        if self.disabled.get(instrument) == _UNFIT:
            self._take_disabled(Disabled(instrument, ""), wall_ns)
        return True

    def _take_disabled(self, event: Disabled, wall_ns: int) -> None:
        if event.reason:
            self.disabled[event.instrument] = event.reason
            self._drop_quote(event.instrument, wall_ns)
            if not self.carried:
                self._leave(State.DISABLED, "carries none of the configured symbols")
        else:
            self.disabled.pop(event.instrument, None)
            if self.state is State.DISABLED:
                self._become(State.SYNCING, "waiting for fresh quotes")

    def _take_status(self, status: EngineStatus) -> None:
        if status.online:
            was_halted, self._halted = self._halted, ""
            if was_halted:
                self._become(State.SYNCING, "waiting for fresh quotes")
        else:
            self._halted = status.reason
            self._leave(State.HALTED, status.reason)

    # -- time

    def look(self, now_ns: int) -> None:
        """Take the quotes back if this process stood still: whoever tells of them may come before `check` does."""
        if self.state is _LIVE and self.was_suspended(now_ns):
            self._leave(State.STALE, SUSPENDED)

    def should_probe(self, now_ns: int) -> bool:
        return now_ns - self._alive_ns() >= self.probe_after_ns

    def check(self, now_ns: int) -> str | None:
        """Return why the connection must be given up, None while it need not be. Call a few times a second.

        A venue that gave no sign of life is stale; so is one that answers probes while its
        market data, on all symbols, stopped in a way that is not usual for it.
        """
        suspended = self.was_suspended(now_ns)
        self._checked_ns = now_ns
        reason = SUSPENDED if suspended else self._silence(now_ns)
        if reason is not None:
            self.counters["stale"] += 1
            self._leave(State.STALE, reason)
        return reason

    def _silence(self, now_ns: int) -> str | None:
        silent_ns = now_ns - self._alive_ns()
        if silent_ns >= self._stale_after_ns:
            return f"no frame and no answer for {silent_ns / NS:.1f} s"
        if self.state in (State.HALTED, State.DISABLED):
            return None
        data_ns = now_ns - (self.last_data_ns or self._connected_ns)
        if data_ns >= DATA_SILENCE_NS:
            return f"no market data for {data_ns / NS:.0f} s"
        if self._gaps >= USUAL_GAP_SAMPLES and data_ns >= max(USUAL_GAPS * self._usual_gap_ns, self._stale_after_ns):
            return f"no market data for {data_ns / NS:.1f} s, usually every {self._usual_gap_ns / NS:.3f} s"
        return None

    def _alive_ns(self) -> int:
        return max(self.last_frame_ns or self._connected_ns, self._answer_ns)

    # -- transitions

    def _leave(self, state: State, reason: str) -> None:
        self._drop_quotes()
        self._become(state, reason)

    def _become(self, state: State, reason: str) -> None:
        changed, self.state, self.reason = state is not self.state, state, reason
        if changed:
            self._sink.state(self.venue, state, reason)

    def _drop_quotes(self) -> None:
        self._quotes.clear()
        self._behind_since_ns.clear()

    def _drop_quote(self, instrument: str, wall_ns: int) -> None:
        self._behind_since_ns.pop(instrument, None)
        if self._quotes.pop(instrument, None) is not None:
            self._sink.quote(self.venue, instrument, None, wall_ns)


def _is_old(quote: Quote, last: Quote) -> bool:
    """Tell by the venue's update id, unless its clock says that the ids were reset.

    An equal id with other sizes is a correction by the checked book and counts as news.
    """
    sequence, last_sequence = quote.sequence, last.sequence
    if sequence is None or last_sequence is None or sequence > last_sequence:
        return False
    if sequence == last_sequence:
        return quote == last
    return quote.venue_ns is None or last.venue_ns is None or quote.venue_ns <= last.venue_ns
