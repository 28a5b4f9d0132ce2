"""A stand-in for the network between a client and the router, which can be cut and can lose answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

CHUNK = 64 * 1024


class Relay:
    """Forwards a port that stays to a router that comes and goes."""

    def __init__(self, target: str) -> None:
        self.target = target  # may change with the router
        self.lose_answers = 0  # so many next answers are read and thrown away, their connections closed
        self.deaf = False  # nothing of what the router says comes through
        self.refusing = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            self.cut()

    def cut(self) -> None:
        """End all connections without a word."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            address = urlsplit(self.target)
            back, there = await asyncio.open_connection(address.hostname, address.port)
            self._writers.add(there)
            await asyncio.gather(self._pass_on(reader, there), self._answer(back, writer))
        except OSError:
            pass
        finally:
            for one in (writer, there):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self.lose_answers and data.startswith(b"HTTP/1.1 2"):
                self.lose_answers -= 1
                raise ConnectionResetError
            if self.deaf:
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # the router closed: so does this side
