"""One simulated venue: its sockets, what they listen to, and its faults on request.

Every switch takes effect at once and returns nothing to wait for. What a venue says is its
protocol's business (`binance.py`, `okx.py`, `kraken.py`), what it trades its makers'.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from marketdata.simulated.clients import ClientSocket, Connection
from marketdata.simulated.dialect import (
    DEPTH,
    TOUCH,
    TRADES,
    Clock,
    Dialect,
    Listeners,
    Makers,
    SentTrade,
    Topic,
    fixed,
    to_units,
)
from marketdata.simulated.flow import Change, Flow
from marketdata.simulated.maker import SIZE_DECIMALS, Maker, Print, Touch

REQUEST_SIZE_MAX = 64 * 1024
TRADES_KEPT = 10_000
ANNOUNCED_CLOSE_S = 3.0
CLOSE_TIMEOUT_S = 1.0
FIRST_TRADE_ID = 100_000_001
CROSSED_BY = 5  # ticks, when a venue's own touch is crossed on request

log = logging.getLogger(__name__)
_socket_log = logging.getLogger(f"{__name__}.sockets")
_socket_log.setLevel(logging.CRITICAL)  # broken connections are the point of the fault switches, not news

Stall = Literal["", "silent", "half-open"]


class Quoted(NamedTuple):
    """A touch as it was last sent."""

    bid: Decimal
    bid_size: Decimal
    ask: Decimal
    ask_size: Decimal


class SimulatedVenue:
    """A venue that listens on a loopback port. Its switches are for tests of what goes wrong."""

    def __init__(
        self,
        name: str,
        speak: Callable[[Makers, Listeners, Clock], Dialect],
        flow: Flow,
        host: str,
        *,
        clock_ns: Clock = time.time_ns,
    ) -> None:
        self.name = name
        self.sent: Counter[str] = Counter()  # frames, by kind
        self.trades: deque[SentTrade] = deque(maxlen=TRADES_KEPT)  # as sent, oldest first
        self.handshakes_refused = 0
        self.listeners: dict[Topic, set[ClientSocket]] = {}
        self.makers = flow.makers[name]
        self.dialect = speak(self.makers, self.listeners, clock_ns)
        self._clock_ns = clock_ns
        self._flow = flow
        self._host = host
        self._port = 0
        self._server: Server | None = None
        self._sockets: set[ClientSocket] = set()
        self._numbers = 0
        self._stall: Stall = ""
        self._going = asyncio.Event()  # not half-open
        self._going.set()
        self._refusing: int | None = None
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._touches: dict[str, Touch] = {}
        self._prices: dict[str, tuple[int, int]] = {}
        self._versions: dict[str, int] = {}
        self._trade_ids = dict.fromkeys(self.makers, FIRST_TRADE_ID)

    # -- life

    @property
    def url(self) -> str:
        """Return the address to connect to; it stays the same over `stop` and `start`."""
        if not self._port:
            raise RuntimeError("the venue has not been started")
        return f"ws://{self._host}:{self._port}{self.dialect.path}"

    async def start(self) -> None:
        self._server = await serve(
            self._serve,
            self._host,
            self._port,
            process_request=self._process_request,
            create_connection=Connection,
            open_timeout=None,  # a half-open venue keeps clients waiting as long as they like
            ping_interval=None,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=REQUEST_SIZE_MAX,
            max_queue=None,  # reading stops when we say so, not the library
            compression=None,
            logger=_socket_log,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is None:
            return
        if self._stall == "half-open":
            self.abort()
        self._stall = ""
        self._going.set()
        self._server.close()
        await self._server.wait_closed()
        self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Return how many sockets are open."""
        return sum(socket.connection.protocol.state is State.OPEN for socket in self._sockets)

    async def connected(self) -> None:
        """Wait for a socket that listens to touch, depth and trades of each instrument that it asked for."""
        await self.until(lambda: any(socket.complete for socket in self._sockets))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that depends on connections and subscriptions."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def touch(self, instrument: str) -> Quoted:
        """Return the newest touch of an instrument."""
        maker = self.makers[instrument]
        touch = self._touches.get(instrument, maker.touch)
        price, size = partial(_decimal, decimals=maker.price_decimals), partial(_decimal, decimals=SIZE_DECIMALS)
        return Quoted(price(touch.bid), size(touch.bid_size), price(touch.ask), size(touch.ask_size))

    # -- what tests want to happen on the market

    def quote(self, instrument: str, bid: Decimal, bid_size: Decimal, ask: Decimal, ask_size: Decimal) -> None:
        """Pin the touch until `release`: told at once on touch and depth; no trades of its own meanwhile.

        Raises:
            ValueError: a price is finer than the venue writes, or a number is not positive.
        """
        maker = self.makers[instrument]
        prices = (to_units(bid, maker.price_decimals), to_units(ask, maker.price_decimals))
        amounts = (to_units(bid_size, SIZE_DECIMALS), to_units(ask_size, SIZE_DECIMALS))
        if min(*prices, *amounts) <= 0:
            raise ValueError("prices and sizes are positive")
        maker.pin(Touch(prices[0], amounts[0], prices[1], amounts[1]))
        self._publish(maker, always=True)

    def cross(self, instrument: str) -> None:
        """Cross the venue's own touch, in touch and depth, until `release`."""
        maker = self.makers[instrument]
        touch = maker.touch
        maker.pin(touch._replace(bid=touch.ask + CROSSED_BY * maker.tick))
        self._publish(maker, always=True)

    def release(self, instrument: str) -> None:
        """Return a pinned instrument to the market."""
        maker = self.makers[instrument]
        if maker.pinned:
            maker.release()
            self._publish(maker, always=True)

    def trade(self, instrument: str, price: Decimal, size: Decimal, side: Literal["buy", "sell"]) -> int:
        """Print one trade (`side` is the taker's) that leaves the book as it is; return its id."""
        maker = self.makers[instrument]
        if side not in ("buy", "sell"):
            raise ValueError(f"not a side: {side}")
        printed = Print(to_units(price, maker.price_decimals), to_units(size, SIZE_DECIMALS), side == "buy")
        return self._print(maker, [printed])

    def pause_market(self) -> None:
        """Stop spontaneous updates; heartbeats, answers, `quote` and `trade` go on."""
        self._flow.paused.add(self.name)

    def resume_market(self) -> None:
        self._flow.paused.discard(self.name)

    def set_rate(self, rate: float) -> None:
        """Multiply this venue's updates (not its price's pace)."""
        self._flow.rates[self.name] = rate

    # -- what tests want to go wrong

    def stall(self, *, answering: bool = True) -> None:
        """Go silent. `answering` still answers pings, the protocol's and WebSocket's; else nothing is read."""
        self._stall = "silent" if answering else "half-open"
        if not answering:
            self._going.clear()
            for socket in self._sockets:
                socket.pause_reading()

    def resume(self) -> None:
        """End a stall: say what changed, then answer what was asked. Prints of the meantime are lost."""
        self._stall = ""
        self._going.set()
        for maker in self.makers.values():
            self._publish(maker)
        for socket in list(self._sockets):
            socket.resume_reading()
            while socket.waiting and not self._stall:
                self._take(socket, socket.waiting.popleft())

    def drop(self) -> None:
        """Close every connection (1001)."""
        for socket in list(self._sockets):
            socket.close(1001, "")

    def abort(self) -> None:
        """Reset every connection, without a close frame."""
        for socket in list(self._sockets):
            socket.abort()

    def refuse(self, refusing: bool = True, *, status: int = 503) -> None:
        """Refuse new handshakes with an HTTP status."""
        self._refusing = status if refusing else None

    def garbage(self, n: int = 10) -> None:
        """Send unreadable frames to every connection, each kind in turn."""
        frames = self.dialect.garbage()
        for number in range(n):
            self.tell("garbage", frames[number % len(frames)])

    def corrupt_checksum(self) -> None:
        """Make the next book update's checksum wrong, while the book itself stays right."""
        self.dialect.corrupt_checksum()

    def skip_trades(self, n: int) -> None:
        """Make every instrument's trade ids jump, as if n prints had been lost."""
        for instrument in self._trade_ids:
            self._trade_ids[instrument] += n

    def repeat_trades(self, n: int) -> None:
        """Send the last n trades again."""
        for trade in list(self.trades)[-n:] if n > 0 else []:
            self._send(TRADES, self.dialect.trades([trade]))

    def announce_close(self, *, after_s: float = ANNOUNCED_CLOSE_S) -> None:
        """Say that the open connections will be closed, and close those some seconds later."""
        self.tell("notice", self.dialect.farewell())
        old = list(self._sockets)

        async def close() -> None:
            await asyncio.sleep(after_s)
            for socket in old:
                if socket in self._sockets:
                    socket.close(1001, "service upgrade")

        self.spawn(close())

    def set_status(self, system: str) -> None:
        """Tell the engine's state (Kraken: online, maintenance, …); nothing trades unless it is online."""
        self.tell("status", self.dialect.status(system))

    # -- what the market does

    def apply(self, change: Change) -> None:
        """Tell what one step of a maker changed."""
        if self._stall:
            return
        if change.prints and self.dialect.system == "online":
            self._print(change.maker, change.prints)
        self._publish_touch(change.maker)
        if change.step % self.dialect.depth_steps == 0:
            self.flush(change.maker.instrument)

    def flush(self, instrument: str) -> None:
        """Tell the depth of an instrument if it changed since it was last told."""
        maker = self.makers.get(instrument)
        if maker is None or self._stall or self._versions.get(instrument) == maker.version:
            return
        self._versions[instrument] = maker.version
        self._send(DEPTH, self.dialect.depth(maker, self._clock_ns()))

    def tick(self) -> None:
        """Do what time asks for: heartbeats, pings, cuts. Called some ten times a second."""
        if not self._stall:
            for socket in list(self._sockets):
                self.dialect.tick(socket)

    def _publish(self, maker: Maker, *, always: bool = False) -> None:
        if not self._stall:
            self._publish_touch(maker, always=always)
            self.flush(maker.instrument)

    def _publish_touch(self, maker: Maker, *, always: bool = False) -> None:
        touch, last = maker.touch, self._touches.get(maker.instrument)
        if not always and (touch == last or (self.dialect.touch_prices_only and last and touch[::2] == last[::2])):
            return
        self._touches[maker.instrument] = touch
        self._send(TOUCH, self.dialect.touch(maker, self._clock_ns()))

    def _print(self, maker: Maker, prints: Sequence[Print]) -> int:
        now_ns = self._clock_ns()
        trades = []
        for printed in prints:
            first = self._trade_ids[maker.instrument]
            self._trade_ids[maker.instrument] = first + printed.matches
            trades.append(SentTrade(maker, printed, first, first + printed.matches - 1, now_ns))
        if not self._stall:
            self.trades.extend(trades)
            self._send(TRADES, self.dialect.trades(trades))
        return trades[-1].last_id

    def _send(self, kind: str, frames: Iterable[tuple[Topic, str]]) -> None:
        for topic, frame in frames:
            for socket in tuple(self.listeners.get(topic, ())):
                socket.send(kind, frame)

    def tell(self, kind: str, frame: str | bytes) -> None:
        """Send a frame to every connection, whatever it listens to."""
        for socket in list(self._sockets):
            socket.send(kind, frame)

    # -- sockets

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        await self._going.wait()
        if self._refusing is not None:
            self.handshakes_refused += 1
            self._changed.set()
            return connection.respond(HTTPStatus(self._refusing), "refused\n")
        if urlsplit(request.path).path != self.dialect.path:
            return connection.respond(HTTPStatus.NOT_FOUND, "no such path\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        self._numbers += 1
        socket = ClientSocket(self, connection, self._numbers)
        connection.on_frame = socket.arrived
        self.open(socket)
        try:
            async for message in connection:
                self.receive(socket, message if isinstance(message, str) else message.decode("utf-8", "replace"))
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("serving a client failed", extra={"venue": self.name})
        finally:
            self.forget(socket)

    def open(self, socket: ClientSocket) -> None:
        """Serve a socket from now on."""
        self._sockets.add(socket)
        self._changed.set()
        if not self._stall:
            self.dialect.greet(socket)

    def receive(self, socket: ClientSocket, text: str) -> None:
        """Take what a socket sent, now or when a stall ends."""
        if not self._stall or (self._stall == "silent" and self.dialect.is_ping(text)):
            self._take(socket, text)
        else:
            socket.waiting.append(text)

    def _take(self, socket: ClientSocket, text: str) -> None:
        if socket in self._sockets:
            self.dialect.take(socket, text)
            self._changed.set()

    def forget(self, socket: ClientSocket) -> None:
        """Send nothing more to a socket."""
        for topic in list(socket.topics):
            socket.unsubscribe(topic)
        self._sockets.discard(socket)
        self._changed.set()

    def spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _decimal(units: int, *, decimals: int) -> Decimal:
    return Decimal(fixed(units, decimals))
