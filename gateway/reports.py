"""Execution reports to the sockets of their users: numbered by one, each at most once, none left out.

The reports in the database are the truth. Messages of the channel layer only wake up: a report
that comes next is passed on as it is, with anything else the missing ones are read first, and
every `WATCH_INTERVAL_S` one query finds what no message told.
"""

import asyncio
import weakref
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

import structlog
from channels.layers import BaseChannelLayer, get_channel_layer
from msgspec import Raw, Struct, json

from gateway.outbox import Outbox
from gateway.sessions import in_database
from marketdata.hub import Encoded
from trading.models import Account, Report
from trading.publish import account_group, read_reports

log = structlog.get_logger(__name__)

WATCH_INTERVAL_S = 2.0
RETRY_S = 0.5
JOIN_S = 1.0  # for the layer; without it the watch tells what happened
PAGE = 200  # reports read at once
RECENT_MAX = 128  # reports kept for the sockets of an account that are behind, or hold back
ACCOUNTS_A_QUERY_MAX = 5_000


class _Main(Struct):
    """The fields of an order that an update repeats at its top."""

    token_id: str
    order_id: str
    symbol: Raw
    side: Raw
    order_type: Raw
    status: Raw
    price: Raw
    quantity: Raw
    filled_quantity: Raw
    exchange: Raw
    execution_price: Raw


class _Times(Struct):
    updated_at: datetime


class _Body(Struct):
    order: Raw


_body = json.Decoder(_Body)
_main = json.Decoder(_Main)
_times = json.Decoder(_Times)


class Event(Struct, frozen=True):
    """A report as it goes out, and the names of its order."""

    names: frozenset[str]  # token id and order id
    frame: Encoded


def read_event(seq: int, body: bytes) -> Event:
    """Make the frame of a report from its stored body; the numbers are copied as they are written there."""
    order = _body.decode(body).order
    main = _main.decode(order)
    head = b'{"type":"order_update","seq":%d,"timestamp":%.6f,' % (seq, _times.decode(order).updated_at.timestamp())
    text = b"".join((head, json.encode(main)[1:-1], b',"data":', body, b"}"))
    return Event(frozenset({main.token_id, main.order_id}), Encoded(text))


class Stream:
    """One socket's place in the reports of its account.

    A socket hears nothing until `start`, and nothing of an order that it has a command in flight
    for (`hold`): the command's answer comes first. What comes later waits behind it.
    """

    __slots__ = ("_held", "_started", "feed", "left", "outbox", "page", "reading", "seq")

    def __init__(self, feed: "_Feed", outbox: Outbox) -> None:
        self.feed = feed
        self.outbox = outbox
        self.seq: int | None = None  # the last report that was passed on; unknown at first
        self.left = False
        self.page: dict[int, Event] = {}  # read for this socket, not yet passed on
        self.reading: asyncio.Task[None] | None = None
        self._started = False
        self._held: dict[str, int] = {}  # name → commands in flight

    def start(self) -> None:
        """Begin to pass on."""
        if not self._started:
            self._started = True
            self.feed.pass_on(self)

    def stop(self) -> None:
        self._started = False

    def go_on_after(self, seq: int, *, top: int) -> None:
        """Pass on from the report after this one, whatever was passed on before; `top` is the last there is."""
        self.seq = seq
        self.feed.top = max(self.feed.top, top)
        self._started = True
        self.feed.pass_on(self)

    def hold(self, name: str) -> None:
        """Hold back from the next report of the order that is called so."""
        self._held[name] = self._held.get(name, 0) + 1

    def release(self, name: str) -> None:
        left = self._held.pop(name) - 1
        if left:
            self._held[name] = left
        self.feed.pass_on(self)

    def is_waiting(self) -> bool:
        return self.left or not self._started or self.seq is None

    def holds(self, event: Event) -> bool:
        return bool(self._held) and not event.names.isdisjoint(self._held)


class _Feed:
    """One account's reports in this process."""

    def __init__(self, account_id: int) -> None:
        self.account_id = account_id
        self.streams: set[Stream] = set()
        self.top = 0  # the highest report that is known to exist
        self.recent: dict[int, Event] = {}
        self.joined = asyncio.Event()

    def take(self, seq: int, body: bytes) -> None:
        """Note a report that a message brought."""
        self.top = max(self.top, seq)
        if all(stream.seq is not None and stream.seq >= seq for stream in self.streams):
            return
        if seq not in self.recent:
            self.recent[seq] = read_event(seq, body)
            if len(self.recent) > RECENT_MAX:
                del self.recent[min(self.recent)]

    def pass_on_to_all(self) -> None:
        for stream in tuple(self.streams):
            self.pass_on(stream)
        if all(stream.seq is not None and stream.seq >= self.top for stream in self.streams):
            self.recent.clear()

    def pass_on(self, stream: Stream) -> None:
        """Push what the socket may hear now, in order; what is not at hand is read first."""
        if stream.reading is not None or stream.is_waiting():
            return
        assert stream.seq is not None
        while stream.seq < self.top:
            event = self.recent.get(stream.seq + 1)
            if event is None:
                event = stream.page.get(stream.seq + 1)
                if event is None or not stream.outbox.has_room:
                    stream.reading = asyncio.create_task(self._read(stream), name="reports-read")
                    return
            if stream.holds(event):
                return
            stream.seq += 1
            stream.page.pop(stream.seq, None)
            stream.outbox.push(event.frame, None)

    async def _read(self, stream: Stream) -> None:
        """Bring what the socket needs next, no faster than its client takes it."""
        try:
            await stream.outbox.room()
            if stream.is_waiting():
                return
            assert stream.seq is not None
            if stream.seq + 1 not in self.recent and stream.seq + 1 not in stream.page:
                after = stream.seq
                rows = await _reports_after(self.account_id, after)
                stream.page = {seq: self.recent.get(seq) or read_event(seq, body) for seq, body in rows}
                if after == stream.seq and after + 1 not in stream.page:
                    log.error("a report is missing", account_id=self.account_id, seq=after + 1)
                    return
        except Exception as error:
            log.warning("reports could not be read; trying again", account_id=self.account_id, error=str(error))
            return
        finally:
            stream.reading = None
        self.pass_on(stream)


class Reports:
    """The accounts that have sockets in this event loop, and what the layer says of them."""

    def __init__(self, layer: BaseChannelLayer) -> None:
        self.counters: Counter[str] = Counter()
        self._layer = layer
        self._feeds: dict[int, _Feed] = {}
        self._channel = ""
        self._joined: set[int] = set()
        self._changed = asyncio.Event()  # somebody came or went
        self._asked: dict[int, list[asyncio.Future[int]]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, account_id: int, outbox: Outbox) -> Stream:
        """Add a socket; it will hear, once it is started, of every report made after this call returns."""
        self._start()
        feed = self._feeds.get(account_id)
        if feed is None:
            feed = self._feeds[account_id] = _Feed(account_id)
            self._changed.set()
        stream = Stream(feed, outbox)
        feed.streams.add(stream)
        try:
            async with asyncio.timeout(JOIN_S):
                await feed.joined.wait()
        except TimeoutError:
            log.warning("the channel layer does not answer; reports come late")
        try:
            stream.seq = await self.last_seq(account_id)
        except BaseException:
            self.leave(stream)
            raise
        feed.top = max(feed.top, stream.seq)
        return stream

    def leave(self, stream: Stream) -> None:
        stream.left = True
        feed = stream.feed
        feed.streams.discard(stream)
        if not feed.streams and self._feeds.get(feed.account_id) is feed:
            del self._feeds[feed.account_id]
            self._changed.set()

    async def last_seq(self, account_id: int) -> int:
        """Return the number of the account's last report, 0 before the first; many askers share a query."""
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(account_id, []).append(answer)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="reports-ask")
        return await answer

    async def stop(self) -> None:
        tasks = [task for task in (*self._tasks, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks = []

    def _start(self) -> None:
        if not self._tasks:
            loops = (self._receive_loop, self._join_loop, self._watch_loop)
            self._tasks = [asyncio.create_task(loop(), name=f"reports{loop.__name__}") for loop in loops]

    async def _ask(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                try:
                    found = await _last_seqs(asked)
                except Exception as error:
                    _settle([answer for answers in asked.values() for answer in answers], error)
                    continue
                for account_id, answers in asked.items():
                    _settle(answers, found.get(account_id, 0))
        finally:
            self._asking = None

    # -- the layer

    async def _receive_loop(self) -> None:
        while True:
            try:
                channel = await self._layer.new_channel()
                self._joined.clear()
                self._channel = channel
                self._changed.set()
                while True:
                    self._take(await self._layer.receive(channel))
            except Exception:
                log.exception("receiving execution reports failed")
                await asyncio.sleep(RETRY_S)

    def _take(self, message: dict[str, Any]) -> None:
        try:
            told = read_reports(message)
            feed = self._feeds.get(told.account_id)
            if feed is None:
                return
            for seq, body in told.reports:
                feed.take(seq, body)
            feed.pass_on_to_all()
        except Exception:
            log.exception("an execution report could not be taken; it will be read from the database")

    async def _join_loop(self) -> None:
        """Keep to the groups of the accounts that have sockets here."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self._channel:
                continue
            try:
                for account_id in self._joined - self._feeds.keys():
                    self._joined.discard(account_id)
                    await self._layer.group_discard(account_group(account_id), self._channel)
                for account_id in [one for one in self._feeds if one not in self._joined]:
                    await self._layer.group_add(account_group(account_id), self._channel)
                    self._joined.add(account_id)
                for account_id, feed in self._feeds.items():
                    if account_id in self._joined:
                        feed.joined.set()
            except Exception:
                log.exception("the groups of execution reports could not be joined")
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    # -- the watch

    async def _watch_loop(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            try:
                await self._watch()
            except Exception as error:
                log.warning("the accounts' reports could not be counted; trying again", error=str(error))

    async def _watch(self) -> None:
        """Find reports that no message told, and sockets that could not be told so far."""
        if not self._feeds:
            return
        began = {account_id: feed.top for account_id, feed in self._feeds.items()}
        for account_id, seq in (await _last_seqs(began)).items():
            feed = self._feeds.get(account_id)
            if feed is None:
                continue
            if seq > feed.top:
                self.counters["wake_ups_lost"] += 1
                feed.top = seq
                self._joined.discard(account_id)  # the layer may have forgotten us
                self._changed.set()
            feed.pass_on_to_all()


def _settle(answers: Collection["asyncio.Future[int]"], value: "int | Exception") -> None:
    for answer in answers:
        if answer.done():
            continue  # whoever asked has gone
        if isinstance(value, Exception):
            answer.set_exception(value)
        else:
            answer.set_result(value)


@in_database
def _last_seqs(account_ids: Collection[int]) -> dict[int, int]:
    """Return each account's last number; those without an account yet are left out."""
    wanted = list(account_ids)
    found: dict[int, int] = {}
    for start in range(0, len(wanted), ACCOUNTS_A_QUERY_MAX):
        part = wanted[start : start + ACCOUNTS_A_QUERY_MAX]
        found |= dict(Account.objects.filter(pk__in=part).values_list("pk", "seq"))
    return found


@in_database
def _reports_after(account_id: int, seq: int) -> list[tuple[int, bytes]]:
    """Return the next page of an account's reports, number and body."""
    rows = Report.objects.filter(account_id=account_id, seq__gt=seq).order_by("seq")
    return [(number, body.encode()) for number, body in rows.values_list("seq", "body")[:PAGE]]


_reports: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Reports]" = weakref.WeakKeyDictionary()


def current_reports() -> Reports:
    """Return the execution reports of this event loop."""
    loop = asyncio.get_running_loop()
    reports = _reports.get(loop)
    if reports is None:
        reports = _reports[loop] = Reports(get_channel_layer())
    return reports
