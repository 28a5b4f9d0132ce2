"""Streams for synchronous code: an event loop in a thread of its own, started when first needed."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from router_client.errors import StreamClosed
from router_client.flows import Retries, Session
from router_client.streams import Stream

if TYPE_CHECKING:
    from router_client.async_client import AsyncAPIClient

T = TypeVar("T")

STOP_S = 5.0


class SyncStream(Generic[T]):
    """An iterator over a stream. Use it in a `with`, or `close` it."""

    def __init__(self, owner: "BackgroundStreams", stream: Stream[T]) -> None:
        self._owner = owner
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self.next()
        except (StopAsyncIteration, StreamClosed):
            raise StopIteration from None

    def __enter__(self) -> Self:
        self._owner.run(self._stream.begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def next(self, timeout_s: float | None = None) -> T:
        """Return the next item.

        Raises:
            TimeoutError: none came in this time; the stream goes on.
            StopAsyncIteration: the stream was closed.
        """
        return self._owner.run(self._next(timeout_s))

    def close(self) -> None:
        """End the subscription."""
        if self._owner.is_running:
            self._owner.run(self._stream.aclose())

    async def _next(self, timeout_s: float | None) -> T:
        async with asyncio.timeout(timeout_s):
            return await anext(self._stream)


class BackgroundStreams:
    """One loop, one thread, one asynchronous client for all streams of a synchronous one."""

    def __init__(self, url: str, session: Session, timeout_s: float, retries: Retries) -> None:
        self._url = url
        self._session = session
        self._timeout_s = timeout_s
        self._retries = retries
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: AsyncAPIClient | None = None
        self._closed = False

    @property
    def is_running(self) -> bool:
        return self._loop is not None

    def open(self, make: Callable[["AsyncAPIClient"], Stream[T]]) -> SyncStream[T]:
        """Return an iterator over the stream that the asynchronous client makes."""
        return SyncStream(self, make(self._started()))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the loop, and wait for the result."""
        loop = self._loop
        if loop is None:
            work.close()
            raise StreamClosed("the client is closed", code="closed")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except CancelledError:
            raise StreamClosed("the client was closed", code="closed") from None
        except BaseException:
            future.cancel()  # an interrupt: whoever waited does not any more
            raise

    def close(self) -> None:
        """Close the connection and end the thread."""
        with self._lock:
            self._closed = True
            loop, thread, client = self._loop, self._thread, self._client
            self._loop = self._thread = self._client = None
        if loop is None or thread is None or client is None:
            return
        asyncio.run_coroutine_threadsafe(client.aclose(), loop).result(STOP_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_S)

    def _started(self) -> "AsyncAPIClient":
        from router_client.async_client import AsyncAPIClient

        with self._lock:
            if self._closed:
                raise StreamClosed("the client is closed", code="closed")
            if self._client is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run_loop, args=(loop,), name="router-client", daemon=True)
                thread.start()

                async def make() -> AsyncAPIClient:
                    return AsyncAPIClient(
                        self._url, session=self._session, timeout_s=self._timeout_s, retries=self._retries
                    )

                self._client = asyncio.run_coroutine_threadsafe(make(), loop).result()
                self._loop, self._thread = loop, thread
            return self._client


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
