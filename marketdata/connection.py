"""The sockets of the feeds: connect, read, probe, give up, come back.

One `VenueWorker` per venue keeps one connection, or two for the moment in which a fresh one
takes over from one that the venue is about to close. What frames mean is decided in
`feed.py` and `market.py`; here are only sockets, timers and retries.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from marketdata.arrivals import Asked, FrameRecorder, Lost, Opened, TookOver
from marketdata.feed import NS, FeedEvent, FeedSession
from marketdata.market import State, VenueMarket
from marketdata.venue import Venue

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 0.25  # of liveness
CONNECT_TIMEOUT_S = 10.0
FRAME_SIZE_MAX = 16 * 2**20  # Kraken's instrument list is one frame of over a megabyte
FRAME_QUEUE_MAX = 256  # frames read ahead of us; beyond it TCP pushes back
BACKOFF_FIRST_S = 0.5
BACKOFF_SOON_MAX_S = 2.0  # at first: most outages are short, and whoever is back shall be heard within seconds
SOON_ATTEMPTS = 60  # so many, then rarely: Kraken takes some 150 in ten minutes from one address
BACKOFF_MAX_S = 15.0
BACKOFF_BLOCKED_S = 300.0  # the venue refuses this address (403, 451): ask rarely
HEALTHY_AFTER_S = 10.0  # market data for so long forgets the failures before it
REPLACEMENT_READY_S = 10.0  # a fresh connection takes over after so long at the latest
ROTATION_JITTER = 0.02
HELD_EVENTS_MAX = 100_000  # of a fresh connection that has not taken over yet
READ_BURST_MAX = 200  # frames read before others get their turn
BLOCKED_STATUSES = (403, 451)


class VenueWorker:
    """Keeps one venue's feed alive until cancelled."""

    def __init__(self, venue: Venue, url: str, market: VenueMarket, recorder: FrameRecorder | None = None) -> None:
        self.venue = venue
        self.market = market
        self._url = url
        self._recorder = recorder
        self._failures = 0
        self._blocked = False
        self._attempt_ns = -(10**18)

    async def run(self) -> None:
        """Connect and read for ever; every end of a connection is followed by another attempt."""
        while True:
            try:
                await self._connect_and_read()
            except Exception as error:
                self.market.lost(_describe(error))
                if self._recorder is not None:
                    self._recorder.event(Lost(self.venue.name, time.monotonic_ns(), time.time_ns(), _describe(error)))
                self._blocked = isinstance(error, InvalidStatus) and error.response.status_code in BLOCKED_STATUSES
                if not isinstance(error, OSError | InvalidHandshake | ConnectionClosed | TimeoutError | _GivenUp):
                    log.exception("venue connection failed", venue=self.venue.name)
            wait = self._backoff()
            log.warning(
                "venue disconnected", venue=self.venue.name, reason=self.market.reason, retry_in_s=round(wait, 1)
            )
            await asyncio.sleep(wait)
            self.market.counters["reconnects"] += 1
            self._failures += 1

    async def _connect_and_read(self) -> None:
        self.market.connecting()
        current: _Connection | None = await self._open(held=False)
        try:
            while current is not None:
                current = await self._serve(current)
        finally:
            if current is not None:
                await current.close()

    async def _serve(self, current: "_Connection") -> "_Connection | None":
        """Read one connection until it ends or until another has taken over; return that other."""
        started_ns = time.monotonic_ns()
        rotate_ns = _rotation_ns(self.venue)
        fresh: _Connection | None = None
        opening: asyncio.Task[_Connection] | None = None
        try:
            while True:
                await current.wait(CHECK_INTERVAL_S)
                now_ns = time.monotonic_ns()
                if not current.ended:
                    self._check(current, now_ns)
                if now_ns - started_ns > HEALTHY_AFTER_S * NS and self.market.state is State.LIVE:
                    self._failures = 0
                due = self.market.planned_close is not None or now_ns - started_ns > rotate_ns
                if due and opening is None and fresh is None:
                    log.info("opening a replacement", venue=self.venue.name, reason=self.market.planned_close or "age")
                    opening = asyncio.create_task(self._open(held=True))
                if opening is not None and opening.done():
                    fresh, opening = self._opened(opening), None
                    if fresh is None:
                        started_ns, self.market.planned_close = now_ns, None  # go on with the old one while it lasts
                if fresh is not None and (current.ended or fresh.may_take_over(now_ns)):
                    await current.close()
                    self.market.replaced()
                    fresh.release()
                    return fresh
                if current.ended:
                    raise _GivenUp(current.end_reason)
        except BaseException:
            if opening is not None:
                opening.cancel()
            for connection in (current, fresh):
                if connection is not None:
                    await connection.close()
            raise

    def _check(self, current: "_Connection", now_ns: int) -> None:
        reason = self.market.check(now_ns)
        if reason is not None:
            raise _GivenUp(reason)
        current.advance(now_ns)
        if self.market.should_probe(now_ns):
            current.probe()

    def _opened(self, opening: "asyncio.Task[_Connection]") -> "_Connection | None":
        error = opening.exception()
        if error is None:
            return opening.result()
        log.warning("the replacement did not open", venue=self.venue.name, reason=_describe(error))
        return None

    async def _open(self, *, held: bool) -> "_Connection":
        pause_ns = self._attempt_ns + int(self.venue.connect_interval_s * NS) - time.monotonic_ns()
        if pause_ns > 0:
            await asyncio.sleep(pause_ns / NS)
        self._attempt_ns = time.monotonic_ns()
        socket = await connect(
            self._url,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=1,
            ping_interval=None,  # we probe by the venue's own rules
            max_size=FRAME_SIZE_MAX,
            max_queue=FRAME_QUEUE_MAX,
            compression=None,
            proxy=_proxy(self._url),
            user_agent_header="simple-router",
        )
        if not held:
            self.market.connected(time.monotonic_ns())
        session = FeedSession(self.venue, self.market.instruments, counters=self.market.counters)
        return _Connection(socket, session, self.market, held=held, recorder=self._recorder)

    def _backoff(self) -> float:
        if self._blocked:
            return BACKOFF_BLOCKED_S
        return longest_wait_s(self._failures) * random.uniform(0.5, 1.0)  # noqa: S311 # nosec B311 # spreads retries


def longest_wait_s(failures: int) -> float:
    """Return the most that is waited after so many failures in a row."""
    if failures >= SOON_ATTEMPTS:
        return BACKOFF_MAX_S
    return float(min(BACKOFF_FIRST_S * 2**failures, BACKOFF_SOON_MAX_S))


class _GivenUp(Exception):
    """We end the connection ourselves, or noticed that it ended."""


class _Connection:
    """One open socket: a task that reads and one that sends at the venue's pace."""

    def __init__(
        self,
        socket: ClientConnection,
        session: FeedSession,
        market: VenueMarket,
        *,
        held: bool,
        recorder: FrameRecorder | None,
    ) -> None:
        self.session = session
        self.end_reason = ""
        self._socket = socket
        self._market = market
        self._opened_ns = time.monotonic_ns()
        self._held: deque[tuple[FeedEvent, int, int]] | None = deque(maxlen=HELD_EVENTS_MAX) if held else None
        self._probe_ns = 0
        self._pongs: set[asyncio.Task[None]] = set()
        self._has_outgoing = asyncio.Event()
        self._outgoing = session.outgoing
        self._recorder = recorder
        self._number = 0 if recorder is None else recorder.next_connection()
        self._record(Opened, market.venue, held)
        session.opened(self._opened_ns)
        self._has_outgoing.set()
        self._reader = asyncio.create_task(self._read())
        self._sender = asyncio.create_task(self._send())

    @property
    def ended(self) -> bool:
        return self._reader.done()

    def may_take_over(self, now_ns: int) -> bool:
        return self.session.ready or now_ns - self._opened_ns > REPLACEMENT_READY_S * NS

    def release(self) -> None:
        """From here this connection's news counts; what it said so far is told now, in order."""
        self._record(TookOver)
        held, self._held = self._held or deque(), None
        for event, now_ns, wall_ns in held:
            self._market.take((event,), now_ns=now_ns, wall_ns=wall_ns, frame=False)

    def advance(self, now_ns: int) -> None:
        self._market.take(self.session.advance(now_ns), now_ns=now_ns, wall_ns=time.time_ns(), frame=False)

    def probe(self) -> None:
        """Ask for a sign of life, unless it was asked a moment ago."""
        now_ns = time.monotonic_ns()
        if now_ns - self._probe_ns < self._market.probe_after_ns:
            return
        self._probe_ns = now_ns
        self._record(Asked)
        frame = self.session.probe()
        if frame is None:
            task = asyncio.create_task(self._ping())
            self._pongs.add(task)
            task.add_done_callback(self._pongs.discard)
        else:
            self._outgoing.appendleft(frame)
            self._has_outgoing.set()

    def _record(self, event: type[Opened | TookOver | Asked], *more: Any) -> None:
        if self._recorder is not None:
            self._recorder.event(event(self._number, time.monotonic_ns(), time.time_ns(), *more))

    async def wait(self, timeout_s: float) -> None:
        """Return when the connection ends, or after the time."""
        await asyncio.wait([self._reader], timeout=timeout_s)

    async def close(self) -> None:
        """End the connection; a venue that does not answer the close is not waited for."""
        tasks = [self._reader, self._sender, *self._pongs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.transport.abort()

    async def _ping(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            await (await self._socket.ping())
            self._market.answered(time.monotonic_ns())

    async def _read(self) -> None:
        burst = 0
        try:
            while True:
                frame = await self._socket.recv(decode=False)
                now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
                if self._recorder is not None:
                    self._recorder.frame(self._number, frame, now_ns, wall_ns)
                if self._held is None:
                    if self._market.was_suspended(now_ns):
                        self.end_reason = "this process was suspended: what arrives may be old"
                        return
                    self._market.take(self.session.receive(frame, now_ns), now_ns, wall_ns)
                else:
                    self._held.extend((event, now_ns, wall_ns) for event in self.session.receive(frame, now_ns))
                if self._outgoing:
                    self._has_outgoing.set()
                burst += 1
                if burst >= READ_BURST_MAX:
                    burst = 0
                    await asyncio.sleep(0)
        except ConnectionClosed as error:
            self.end_reason = _describe(error)
        except Exception as error:
            log.exception("reading a venue's frame failed", venue=self._market.venue)
            self.end_reason = _describe(error)

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._has_outgoing.wait()
                while self._outgoing:
                    await self._socket.send(self._outgoing.popleft())
                    await asyncio.sleep(self.session.venue.send_interval_s)
                self._has_outgoing.clear()


def _rotation_ns(venue: Venue) -> float:
    if venue.rotate_after_s is None:
        return float("inf")
    shorter: float = random.uniform(0, ROTATION_JITTER)  # noqa: S311 # nosec B311 # spreads connections, hides nothing
    return venue.rotate_after_s * NS * (1 - shorter)


def _describe(error: BaseException) -> str:
    if isinstance(error, InvalidStatus) and error.response.status_code in BLOCKED_STATUSES:
        return f"the venue refuses connections from this address (HTTP {error.response.status_code})"
    return str(error) or type(error).__name__


def _proxy(url: str) -> Literal[True] | None:
    """Take the environment's proxy, except for this machine's own addresses."""
    return None if urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost") else True


async def reachable(urls: Sequence[str], *, timeout_s: float) -> bool:
    """Tell whether any of the venues answers a WebSocket handshake within the time."""

    async def answers(url: str) -> bool:
        try:
            async with connect(url, open_timeout=timeout_s, close_timeout=0.5, compression=None, proxy=_proxy(url)):
                return True
        except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError):
            return False

    tasks = [asyncio.create_task(answers(url)) for url in urls]
    try:
        for done in asyncio.as_completed(tasks, timeout=timeout_s):
            if await done:
                return True
    except TimeoutError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return False
