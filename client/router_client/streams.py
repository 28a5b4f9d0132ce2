"""The WebSocket: one connection shared by all iterators of a client, which comes back by itself.

The reader hands each frame to the buffers of the iterators that want it and never waits for
them. After a reconnect every subscription is made again, and the order updates that were
missed are asked for by number.
"""

import asyncio
import contextlib
import itertools
import weakref
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec
from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from router_client import wire
from router_client.buffers import Buffer, Everything, Latest, Newest, Overflow
from router_client.errors import (
    AnswerLost,
    ConnectionFailed,
    RouterError,
    SlowConsumer,
    StreamClosed,
    TooManyRequests,
    Unauthorized,
    UnexpectedAnswer,
    error_for,
)
from router_client.flows import Retries, Session
from router_client.models import (
    ALL,
    BestTouch,
    Books,
    Connected,
    Disconnected,
    Ewma,
    Fill,
    Kline,
    Notice,
    Order,
    OrderBook,
    OrderUpdate,
    Subscribed,
    Trade,
    TradeGap,
    TwapOrder,
    VenueChange,
)

T = TypeVar("T")

UPDATES_MAX = 10_000  # order updates that wait for their reader
NOTICES_MAX = 1_000
FRAME_SIZE_MAX = 4 * 1024 * 1024
CLOSE_TIMEOUT_S = 2.0
COME_BACK_MAX_S = 10.0  # the longest wait between two tries to come back

CLOSE_POLICY = 1008
MODELS: Mapping[str, type] = {
    "best_touch": BestTouch,
    "trades": Trade,
    "klines": Kline,
    "ewma": Ewma,
    "orderbook": OrderBook,
}
REPEATED_TO_LATECOMERS = frozenset({"best_touch", "klines", "ewma", "orderbook"})
SECONDS_OF = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Route = tuple[str, float | None]  # topic; half-life or depth


class _Frame(Struct):
    """What frames have in common; the rest is read by type."""

    type: str = ""
    id: int | str | float | bool | None = None
    topic: str = ""
    seq: int | None = None
    data: wire.Raw = wire.NOTHING
    order: wire.Raw = wire.NOTHING
    subscriptions: list[Subscribed] = []


class _Argument(Struct):
    half_life: float | None = None
    depth: int | None = None


class _Report(Struct):
    order: Order
    fill: Fill | None = None


class _TwapReport(Struct):
    order: TwapOrder


class _Resumed(Struct):
    from_seq: int
    last_seq: int


class _Greeting(Struct):
    message: str = ""
    username: str | None = None
    last_seq: int | None = None


class Feed(Generic[T]):
    """One iterator's place on the socket."""

    def __init__(self, buffer: Buffer[T], what: str) -> None:
        self.what = what
        self.buffer = buffer
        self.error: RouterError | None = None
        self.ended = False
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()

    def put(self, item: T) -> None:
        if self.ended:
            return
        try:
            self.buffer.put(item)
        except Overflow:
            self.end(SlowConsumer(f"{self.what}: read too slowly, items were lost", code="slow_consumer"))
        self._news.set()

    def begin(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def end(self, error: RouterError | None = None) -> None:
        """Take no more; what is kept is still read, then the error."""
        if self.ended:
            return
        self.ended, self.error = True, error
        if not self.begun.done():
            self.begun.set_result(None)
        self._news.set()

    async def get(self) -> T:
        while not len(self.buffer):
            if self.ended:
                if self.error is not None:
                    raise self.error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self.buffer.pop()


class Subscription(Feed[T]):
    """A feed of market data."""

    def __init__(self, buffer: Buffer[T], request: Mapping[str, Any]) -> None:
        super().__init__(buffer, f"{request['stream']} of {request['symbol']}")
        self.request = request
        self.route: Route | None = None


class Reports(Feed[OrderUpdate]):
    """A feed of order updates: number after number."""

    def __init__(self, last_seq: int | None) -> None:
        super().__init__(Everything(UPDATES_MAX), "order updates")
        self.last_seq = last_seq


class Stream(Generic[T]):
    """An async iterator over one feed.

    It begins with the first item asked for, or with `async with` or `begin`. Leave it with
    `aclose`, the end of `async with`, or by dropping it; its subscription ends with it.
    """

    def __init__(self, source: "Source", make: Callable[[], Feed[T]]) -> None:
        self._source = source
        self._make = make
        self._feed: Feed[T] | None = None
        self._end: weakref.finalize[[Source, Feed[T], asyncio.AbstractEventLoop], Stream[T]] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        feed = await self._begun()
        return await feed.get()

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def begin(self) -> None:
        """Subscribe, and wait for the router's word on it.

        Raises:
            RouterError: it refuses, or cannot be reached.
        """
        feed = await self._begun()
        if feed.error is not None and not len(feed.buffer):
            raise feed.error

    async def aclose(self) -> None:
        """End the subscription; iterating ends."""
        if self._end is not None:
            self._end.detach()
            self._end = None
        if self._feed is not None:
            self._feed.end()
            self._source.remove(self._feed)

    async def _begun(self) -> Feed[T]:
        feed = self._feed
        if feed is None:
            feed = self._feed = self._make()
            loop = asyncio.get_running_loop()
            self._end = weakref.finalize(self, _release, self._source, feed, loop)
            self._source.add(feed)
        if not feed.begun.done():
            await asyncio.shield(feed.begun)
        return feed


class Source:
    """Where feeds get their items."""

    def add(self, feed: Feed[Any]) -> None:
        raise NotImplementedError

    def remove(self, feed: Feed[Any]) -> None:
        raise NotImplementedError


def _release(source: Source, feed: Feed[Any], loop: asyncio.AbstractEventLoop) -> None:
    """End a dropped iterator's feed, from whatever thread it was dropped in."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is left to end
        loop.call_soon_threadsafe(source.remove, feed)


class Socket(Source):
    """The client's one connection to /ws."""

    def __init__(
        self,
        url: str,
        session: Session,
        renew: Callable[[int], Awaitable[bool]],
        *,
        retries: Retries,
        timeout_s: float,
        on_notice: Callable[[Notice], None] | None = None,
    ) -> None:
        """`renew(version)` gets a new token unless the session has another than that version."""
        self._url = url
        self._session = session
        self._renew = renew
        self._retries = retries
        self._timeout_s = timeout_s
        self._on_notice = on_notice
        self._subscriptions: set[Subscription[Any]] = set()
        self._routes: dict[Route, set[Subscription[Any]]] = {}
        self._last: dict[Route, Any] = {}
        self._reports: set[Reports] = set()
        self._notices: set[Feed[Notice]] = set()
        self._answers: dict[int, asyncio.Future[_Frame]] = {}
        self._subscribing: dict[int, Subscription[Any]] = {}
        self._ids = itertools.count(1)
        self._seq: int | None = None  # of the account's last order update, as far as is known
        self._resuming: int | None = None  # the id of the resume that is not answered yet
        self._resuming_to: int | None = None  # the number that ends the replay
        self._connection: ClientConnection | None = None
        self._open = asyncio.Event()
        self._outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._failed: RouterError | None = None
        self._closed = False
        self._is_somebody = False
        self.connections = 0

    # -- feeds

    def add(self, feed: Feed[Any]) -> None:
        """Serve a feed from now on."""
        if self._closed:
            feed.end(StreamClosed("the client is closed"))
        elif isinstance(feed, Subscription):
            self._subscriptions.add(feed)
            self._start()
            if self._open.is_set():
                self._subscribe(feed)
        elif isinstance(feed, Reports):
            self._reports.add(feed)
            self._start()
            if self._open.is_set():
                self._anchor()
        else:
            self._notices.add(feed)
            feed.begin()
            self._start()

    def remove(self, feed: Feed[Any]) -> None:
        """Serve it no more."""
        if isinstance(feed, Subscription):
            self._subscriptions.discard(feed)
            if feed.route is None:
                return
            sharing = self._routes.get(feed.route, set())
            sharing.discard(feed)
            if not sharing and self._routes.pop(feed.route, None) is not None:
                self._last.pop(feed.route, None)
                self._say({**feed.request, "action": "unsubscribe"})
        elif isinstance(feed, Reports):
            self._reports.discard(feed)
        else:
            self._notices.discard(feed)

    async def close(self) -> None:
        """Close the connection; iterators end."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._lose_answers(StreamClosed("the client was closed", code="closed"))
        for feed in self._feeds():
            feed.end()

    # -- commands

    async def ask(self, action: str, **fields: Any) -> _Frame:
        """Send a command and return its answer.

        Raises:
            AnswerLost: the connection went before the answer came: it may have been done.
            ConnectionFailed: it was not sent.
            RouterError: the router's refusal.
        """
        if self._closed:
            raise StreamClosed("the client is closed", code="closed")
        self._start()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._open.wait()
        except TimeoutError:
            raise ConnectionFailed(f"{self._url} cannot be reached", code="connection_failed") from None
        if self._failed is not None:
            raise self._failed
        number = next(self._ids)
        answer: asyncio.Future[_Frame] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._say({**fields, "action": action, "id": number})
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            raise AnswerLost(f"no answer to {action} in {self._timeout_s:g} s", code="answer_lost") from None
        finally:
            self._answers.pop(number, None)

    # -- the connection's life

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._failed = None
            self._open.clear()
            self._task = asyncio.create_task(self._run(), name="router socket")

    async def _run(self) -> None:
        """Keep connected, until the client is closed or its credentials are refused."""
        attempt = 0
        renewed = False
        while True:
            greeted = False
            version = self._session.version
            try:
                version = await self._be_somebody()
                async with self._connect() as connection:
                    greeting = await self._greeting(connection)
                    greeted, attempt, renewed = True, 0, False
                    await self._serve(connection, greeting)
                raise ConnectionFailed("the router closed the connection", code="closed")
            except Unauthorized as error:
                if renewed or not await self._try_renewal(version):
                    self._fail(error)
                    return
                renewed = True
                reason, wait_s = str(error), 0.0
            except (RouterError, ConnectionClosed, InvalidHandshake, InvalidURI, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
                if not greeted and not self.connections and attempt + 1 >= self._retries.attempts:
                    self._fail(_unreachable(self._url, error))
                    return
                wait_s = self._retries.pause_s(attempt, COME_BACK_MAX_S)
                attempt += 1
            except Exception as error:
                self._fail(RouterError(f"the client failed: {error!r}"))  # nobody waits for a socket that is dead
                raise
            finally:
                self._open.clear()
                self._connection = None
                self._lose_answers(AnswerLost("the connection went before the answer came", code="answer_lost"))
            if greeted:
                self._tell(Disconnected(reason, round(wait_s, 3)))
            await asyncio.sleep(wait_s)

    def _connect(self) -> connect:
        return connect(
            self._url,
            additional_headers=self._session.headers(),
            compression=None,
            max_size=FRAME_SIZE_MAX,
            open_timeout=self._timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            user_agent_header="router-client",
        )

    async def _be_somebody(self) -> int:
        """Renew the token where that is due; who has no credentials connects as nobody."""
        if self._session.known and self._session.is_due:
            await self._renew(self._session.version)
            if not self._session.headers():
                raise Unauthorized("the router does not take the user's name and password", code="unauthorized")
        return self._session.version

    async def _try_renewal(self, version: int) -> bool:
        try:
            return bool(self._session.renewals()) and await self._renew(version)
        except RouterError:
            return False

    async def _greeting(self, connection: ClientConnection) -> _Greeting:
        async with asyncio.timeout(self._timeout_s):
            text = await connection.recv(decode=False)
        frame = _read(text, _Frame)
        if frame.type == "error":
            raise error_for(text)
        return _read(text, _Greeting)

    async def _serve(self, connection: ClientConnection, greeting: _Greeting) -> None:
        """Ask for everything again, then hand out what comes, until the connection goes."""
        self._connection = connection
        self._routes.clear()
        self._last.clear()
        self._subscribing.clear()
        self._resuming = self._resuming_to = None
        self._outgoing = asyncio.Queue()
        self._seq = greeting.last_seq
        self.connections += 1
        self._open.set()
        self._is_somebody = greeting.username is not None
        for subscription in tuple(self._subscriptions):
            subscription.route = None
            self._subscribe(subscription)
        self._anchor()
        self._tell(Connected(self.connections - 1, greeting.message))
        helpers = [
            asyncio.create_task(self._send_all(connection), name="router socket: sending"),
            asyncio.create_task(self._keep_token(), name="router socket: token"),
        ]
        try:
            async for text in connection:
                self._take(text.encode() if isinstance(text, str) else text)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        if connection.close_code == CLOSE_POLICY:
            raise Unauthorized(connection.close_reason or "the router ended the session", code="unauthorized")

    async def _send_all(self, connection: ClientConnection) -> None:
        while True:
            message = await self._outgoing.get()
            await connection.send(wire.encode(message), text=True)

    async def _keep_token(self) -> None:
        """Show a new token before the old one ends."""
        while True:
            version = self._session.version
            wait_s = self._session.renew_in_s
            if wait_s is None:
                return
            await asyncio.sleep(max(0.0, wait_s))
            while True:
                try:
                    renewed = await self._renew(version)
                    break
                except RouterError:
                    await asyncio.sleep(self._retries.max_s)
            if not renewed:
                return
            self._say({"action": "auth", "token": self._session.token, "id": next(self._ids)})

    def _fail(self, error: RouterError) -> None:
        """Give up: who waits is told why."""
        self._failed = error
        self._open.set()
        for feed in self._feeds():
            feed.end(error)
        self._subscriptions.clear()
        self._reports.clear()
        self._notices.clear()

    def _lose_answers(self, error: RouterError) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)

    def _feeds(self) -> list[Feed[Any]]:
        return [*self._subscriptions, *self._reports, *self._notices]

    def _say(self, message: dict[str, Any]) -> None:
        if self._open.is_set() and self._connection is not None:
            self._outgoing.put_nowait(message)

    def _tell(self, notice: Notice) -> None:
        for feed in tuple(self._notices):
            feed.put(notice)
        if self._on_notice is not None:
            try:
                self._on_notice(notice)
            except Exception as error:
                context = {"message": "on_notice failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)

    # -- what comes

    def _take(self, text: bytes) -> None:
        try:
            frame = wire.decode(text, _Frame)
        except msgspec.DecodeError as error:
            raise UnexpectedAnswer(f"a frame that cannot be read: {error}") from None
        if frame.topic:
            self._take_data(frame)
        elif frame.type == "order_update":
            self._take_report(frame)
        elif frame.type == "error":
            self._take_error(frame, text)
        elif frame.type == "subscribed":
            self._take_subscribed(frame, text)
        elif frame.type == "resumed":
            self._take_resumed(frame, text)
        elif frame.type == "venue":
            self._tell(_read(text, VenueChange))
        elif frame.type == "gap":
            self._tell(_read(text, TradeGap))
        elif isinstance(frame.id, int):
            answer = self._answers.get(frame.id)
            if answer is not None and not answer.done():
                answer.set_result(frame)

    def _take_data(self, frame: _Frame) -> None:
        argument = None
        if frame.type in ("ewma", "orderbook"):
            given = _read(frame.data, _Argument)
            argument = given.half_life if frame.type == "ewma" else given.depth
        route = (frame.topic, argument)
        wanting = self._routes.get(route)
        if not wanting:
            return
        try:
            item: Any = _read(frame.data, MODELS[frame.type])
        except UnexpectedAnswer as error:
            for subscription in tuple(wanting):
                subscription.end(error)
                self.remove(subscription)
            return
        if frame.type in REPEATED_TO_LATECOMERS:
            self._last[route] = item
        for subscription in tuple(wanting):
            subscription.put(item)
            if subscription.ended:  # too slow: the others go on
                self.remove(subscription)

    def _take_error(self, frame: _Frame, text: bytes) -> None:
        error = error_for(text)
        if not isinstance(frame.id, int):
            if isinstance(error, Unauthorized):
                raise error  # the session has ended; the close follows
            return
        subscription = self._subscribing.pop(frame.id, None)
        answer = self._answers.get(frame.id)
        if subscription is not None:
            subscription.end(error)
            self._subscriptions.discard(subscription)
        elif answer is not None and not answer.done():
            answer.set_exception(error)
        elif frame.id == self._resuming:
            for feed in tuple(self._reports):
                feed.end(error)
            self._reports.clear()
            self._resuming = None

    def _subscribe(self, subscription: Subscription[Any]) -> None:
        number = next(self._ids)
        self._subscribing[number] = subscription
        self._say({**subscription.request, "action": "subscribe", "id": number})

    def _take_subscribed(self, frame: _Frame, text: bytes) -> None:
        subscription = self._subscribing.pop(frame.id, None) if isinstance(frame.id, int) else None
        if subscription is None:
            return
        route = _route(_read(text, Subscribed))
        if subscription not in self._subscriptions:  # left meanwhile
            if route not in self._routes:
                self._say({**subscription.request, "action": "unsubscribe"})
            return
        subscription.route = route
        self._routes.setdefault(route, set()).add(subscription)
        subscription.begin()
        if route in self._last:
            subscription.put(self._last[route])

    # -- order updates

    def _anchor(self) -> None:
        """Begin the feeds of order updates where the account stands, and ask for what they miss."""
        if not self._reports:
            return
        if not self._is_somebody:
            for feed in self._reports:
                feed.end(Unauthorized("order updates are an account's: log in first", code="unauthorized"))
            self._reports.clear()
            return
        if self._seq is None:  # this router does not say it in its greeting
            if self._resuming is None:
                known = [feed.last_seq for feed in self._reports if feed.last_seq is not None]
                self._resume(min(known, default=0))
            return
        for feed in self._reports:
            if feed.last_seq is None:
                feed.last_seq = self._seq
            feed.begin()
        self._close_holes()

    def _close_holes(self) -> None:
        lasts = [feed.last_seq for feed in self._reports if feed.last_seq is not None]
        busy = self._resuming is not None or self._resuming_to is not None
        if lasts and not busy and self._seq is not None and min(lasts) != self._seq:
            self._resume(min(lasts))

    def _resume(self, from_seq: int) -> None:
        self._resuming = next(self._ids)
        self._say({"action": "resume", "from_seq": from_seq, "id": self._resuming})

    def _take_resumed(self, frame: _Frame, text: bytes) -> None:
        if frame.id != self._resuming:
            return
        resumed = _read(text, _Resumed)
        self._resuming = None
        self._resuming_to = resumed.last_seq if resumed.last_seq > resumed.from_seq else None
        self._seq = max(self._seq or 0, resumed.last_seq)
        for feed in self._reports:
            if feed.last_seq is None:
                feed.last_seq = resumed.last_seq
            feed.begin()

    def _take_report(self, frame: _Frame) -> None:
        seq = frame.seq
        if seq is None:
            return
        report = _read(frame.data, _Report)
        update = OrderUpdate(seq, report.order, report.fill, _progress(frame.data, report.order))
        for feed in tuple(self._reports):
            if feed.last_seq is not None and seq == feed.last_seq + 1:
                feed.last_seq = seq
                feed.put(update)
                if feed.ended:
                    self._reports.discard(feed)
        if self._resuming_to is not None and seq >= self._resuming_to:
            self._resuming_to = None
        if self._seq is not None or self._resuming is None:
            self._seq = max(self._seq or 0, seq)
        self._close_holes()


class BooksSocket(Source):
    """The public images of all books: a connection of its own for each iterator."""

    def __init__(self, url: str, *, retries: Retries, timeout_s: float) -> None:
        self._url = url
        self._retries = retries
        self._timeout_s = timeout_s
        self._tasks: dict[Feed[Books], asyncio.Task[None]] = {}

    def add(self, feed: Feed[Any]) -> None:
        self._tasks[feed] = asyncio.create_task(self._run(feed), name="router books")

    def remove(self, feed: Feed[Any]) -> None:
        task = self._tasks.pop(feed, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for feed in tuple(self._tasks):
            feed.end()
            self.remove(feed)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, feed: Feed[Books]) -> None:
        attempt = 0
        while True:
            try:
                async with connect(
                    self._url,
                    compression=None,
                    max_size=FRAME_SIZE_MAX,
                    open_timeout=self._timeout_s,
                    close_timeout=CLOSE_TIMEOUT_S,
                ) as connection:
                    async for text in connection:
                        books = _read(text, dict[str, Any])
                        if books.get("type") == "error":
                            feed.end(error_for(text if isinstance(text, bytes) else text.encode()))
                            return
                        feed.put(_read(text, Books))
                        feed.begin()
                        attempt = 0
            except (ConnectionClosed, InvalidHandshake, InvalidURI, OSError, TimeoutError) as error:
                if not feed.begun.done() and attempt + 1 >= self._retries.attempts:
                    feed.end(ConnectionFailed(f"{self._url} cannot be reached: {error}", code="connection_failed"))
                    return
            except UnexpectedAnswer as error:
                feed.end(error)
                return
            await asyncio.sleep(self._retries.pause_s(attempt, COME_BACK_MAX_S))
            attempt += 1


def subscription(stream: str, symbol: str, exchange: str, buffer: Buffer[T], **argument: Any) -> Subscription[T]:
    """Return a feed of market data, to be added to a socket."""
    return Subscription(buffer, {"stream": stream, "symbol": symbol, "exchange": exchange, **argument})


def notices() -> Feed[Notice]:
    return Feed(Newest(NOTICES_MAX), "notices")


def books() -> Feed[Books]:
    return Feed(Latest(), "books")


def _route(made: Subscribed) -> Route:
    """Return the topic of a subscription's frames, and what tells it from others of the topic."""
    parts = [made.symbol, made.stream]
    if made.stream == "klines" and made.interval:
        parts.append(str(int(made.interval[:-1]) * SECONDS_OF[made.interval[-1]]))
    if made.exchange != ALL:
        parts.append(made.exchange)
    argument = {"ewma": made.half_life, "orderbook": made.depth}.get(made.stream)
    return (".".join(parts), argument)


def _progress(data: wire.Raw, order: Order) -> TwapOrder | None:
    return _read(data, _TwapReport).order if order.order_type == "twap" else None


def _unreachable(url: str, error: Exception) -> RouterError:
    """Return what a socket that never opened failed of."""
    if isinstance(error, TooManyRequests):
        return error  # the router is there: too many sockets are open
    reason = str(error) or type(error).__name__
    return ConnectionFailed(f"{url} cannot be reached: {reason}", code="connection_failed")


def _read(body: bytes | str | wire.Raw, kind: type[T]) -> T:
    try:
        return wire.decode(body, kind)
    except msgspec.DecodeError as error:
        raise UnexpectedAnswer(f"a frame that this client cannot read: {error}") from None
