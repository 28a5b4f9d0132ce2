"""The channel layer of the embedded profile: groups and queues within one event loop.

Channels' own in-memory layer starts a task and copies the message for every recipient (23 µs a
message against 0.5), forgets group members after a day, and throws a channel out of all its
groups, silently, when a message waited for a minute (a laptop that slept). Here nothing
expires, and messages are shared: receivers must not change them.
"""

import asyncio
import uuid
from collections import deque
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

Message = dict[str, Any]


class _Queue:
    """Messages for one channel; when nobody reads, the oldest go first."""

    __slots__ = ("messages", "news")

    def __init__(self, capacity: int) -> None:
        self.messages: deque[Message] = deque(maxlen=capacity)
        self.news = asyncio.Event()

    def put(self, message: Message) -> None:
        self.messages.append(message)
        self.news.set()


class InProcessLayer(BaseChannelLayer):  # type: ignore[misc] # Channels ships no types
    """A layer for one process and one event loop; `capacity` messages wait in a channel."""

    extensions = ("groups", "flush")

    def __init__(self, capacity: int = 100, **options: Any) -> None:
        super().__init__(capacity=capacity, **options)
        self._queues: dict[str, _Queue] = {}
        self._groups: dict[str, set[str]] = {}

    async def new_channel(self, prefix: str = "specific") -> str:
        return f"{prefix}.inprocess!{uuid.uuid4().hex}"

    async def send(self, channel: str, message: Message) -> None:
        """Queue a message for one channel.

        Raises:
            ChannelFull: as many messages wait there as its capacity allows.
        """
        queue = self._queue(channel)
        if len(queue.messages) >= self.capacity:
            raise ChannelFull
        queue.put(message)

    async def receive(self, channel: str) -> Message:
        queue = self._queue(channel)
        while not queue.messages:
            queue.news.clear()
            await queue.news.wait()
        return queue.messages.popleft()

    async def group_add(self, group: str, channel: str) -> None:
        self._queue(channel)
        self._groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        members = self._groups.get(group, set())
        members.discard(channel)
        if not members:
            self._groups.pop(group, None)

    async def group_send(self, group: str, message: Message) -> None:
        for channel in self._groups.get(group, ()):
            self._queues[channel].put(message)

    async def flush(self) -> None:
        self._queues.clear()
        self._groups.clear()

    def _queue(self, channel: str) -> _Queue:
        queue = self._queues.get(channel)
        if queue is None:
            queue = self._queues[channel] = _Queue(self.capacity)
        return queue
