"""A stand-in for the network between two parts of the system, which can lose, delay, repeat and cut what passes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from urllib.parse import urlsplit

import psutil

CHUNK = 64 * 1024
CLOSE_S = 1.0


class _Pair:
    """One connection through the link, both of its halves."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.port = int(near.get_extra_info("peername")[1])
        self.pid: int | None = None  # of who connected, once somebody looked
        self.near, self.far = near, far

    def abort(self) -> None:
        for writer in (self.near, self.far):
            writer.transport.abort()


class Link:
    """Forwards a port to another one. Its switches take effect at once, on all connections or on some processes'."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.delay_s = 0.0  # of every chunk, either way
        self.repeating = False  # each chunk of the far side comes twice
        self.cutting = False  # each chunk is cut in the middle, and the connection with it
        self.refusing = False
        self._open = asyncio.Event()
        self._open.set()
        self._held: frozenset[int] | None = frozenset()  # processes of whom nothing passes; None: nobody's
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Link"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        try:
            yield self
        finally:
            self._server.close()
            self.heal()
            self.cut()
            await asyncio.wait([*self._serving, asyncio.create_task(asyncio.sleep(0))], timeout=CLOSE_S)

    # -- faults

    def cut(self, pids: Collection[int] | None = None) -> None:
        """Reset the connections, all or those of some processes, without a word."""
        for pair in tuple(self._pairs):
            if pids is None or self._owner(pair) in pids:
                pair.abort()

    def hold(self, pids: Collection[int] | None = None) -> None:
        """Let nothing pass, of anybody or of some processes: a cable that was pulled."""
        self._held = None if pids is None else frozenset(pids)
        self._open.clear()

    def heal(self) -> None:
        self.delay_s, self.repeating, self.cutting, self.refusing = 0.0, False, False, False
        self._held = frozenset()
        self._open.set()

    # -- what passes

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        pair: _Pair | None = None
        try:
            if self.refusing:
                return
            back, far = await asyncio.open_connection(*self.target)
            pair = _Pair(near, far)
            self._pairs.add(pair)
            there = asyncio.create_task(self._pass_on(pair, reader, far, repeats=False))
            here = asyncio.create_task(self._pass_on(pair, back, near, repeats=True))
            await asyncio.wait((there, here), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((there, here), timeout=CLOSE_S)  # the other half may still have something to say
            for half in (there, here):
                half.cancel()
            await asyncio.gather(there, here, return_exceptions=True)
        except OSError:
            pass  # nobody listens there: who connected learns it from the reset
        finally:
            self._serving.discard(task)
            near.transport.abort()
            if pair is not None:
                self._pairs.discard(pair)
                pair.abort()

    async def _pass_on(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, repeats: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while self._holds(pair):
                    await self._open.wait()
                if self.cutting:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    pair.abort()
                    return
                writer.write(data * 2 if self.repeating and repeats else data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    def _holds(self, pair: _Pair) -> bool:
        if self._open.is_set():
            return False
        return self._held is None or self._owner(pair) in self._held

    def _owner(self, pair: _Pair) -> int | None:
        """Return the process that connected, found by its port."""
        if pair.pid is None:
            for one in psutil.net_connections("tcp"):
                if one.laddr and one.laddr.port == pair.port and one.raddr and one.raddr.port == self.port:
                    pair.pid = one.pid
        return pair.pid


def endpoint(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def through(url: str, link: Link) -> str:
    """Return the URL by way of a link."""
    host, port = endpoint(url)
    return url.replace(f"{host}:{port}", f"127.0.0.1:{link.port}", 1)
