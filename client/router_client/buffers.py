"""What an iterator keeps between the socket and its reader, by what may be left out."""

from collections import OrderedDict, deque
from typing import Generic, Protocol, TypeVar

from router_client.models import Kline

T = TypeVar("T")


class Overflow(Exception):
    """The reader is too far behind to be told everything."""


class Buffer(Protocol[T]):
    """Items that wait for their reader."""

    def put(self, item: T) -> None:
        """Keep an item. Raises Overflow where it would have to be left out."""

    def pop(self) -> T:
        """Return the next item. Raises LookupError when there is none."""

    def __len__(self) -> int: ...


class Latest(Generic[T]):
    """Keeps the newest: a touch or a book replaces the one before."""

    def __init__(self) -> None:
        self._items: deque[T] = deque(maxlen=1)

    def put(self, item: T) -> None:
        self._items.append(item)

    def pop(self) -> T:
        return self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)


class Everything(Generic[T]):
    """Keeps all, up to a bound: trades and order updates."""

    def __init__(self, size_max: int) -> None:
        self._items: deque[T] = deque()
        self._size_max = size_max

    def put(self, item: T) -> None:
        if len(self._items) >= self._size_max:
            raise Overflow
        self._items.append(item)

    def pop(self) -> T:
        return self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)


class Newest(Generic[T]):
    """Keeps the last ones and forgets the oldest: notices."""

    def __init__(self, size_max: int) -> None:
        self._items: deque[T] = deque(maxlen=size_max)

    def put(self, item: T) -> None:
        self._items.append(item)

    def pop(self) -> T:
        return self._items.popleft()

    def __len__(self) -> int:
        return len(self._items)


class Candles:
    """Keeps the newest state of each candle, so that a closed one is never replaced by the next."""

    def __init__(self, size_max: int) -> None:
        self._items: OrderedDict[int, Kline] = OrderedDict()
        self._size_max = size_max

    def put(self, item: Kline) -> None:
        if item.start not in self._items and len(self._items) >= self._size_max:
            raise Overflow
        self._items[item.start] = item

    def pop(self) -> Kline:
        _, item = self._items.popitem(last=False)
        return item

    def __len__(self) -> int:
        return len(self._items)
