"""Numbers and times as venues write them: read exactly, or refused as `Unreadable`."""

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, Subnormal
from operator import ge, le
from typing import Annotated, TypeVar

from msgspec import Meta

from core.events import Level, Side
from marketdata.venue import Unreadable

DIGITS_MAX = 36  # of one number
MAGNITUDE_MAX = 18  # numbers lie between 10^-18 and 10^18
NUMBERS_KNOWN = 4096  # by their digits

A = TypeVar("A")
R = TypeVar("R")

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # a venue's ids and sequences

_exact = Context(
    prec=DIGITS_MAX,
    Emin=-MAGNITUDE_MAX,
    Emax=MAGNITUDE_MAX,
    traps=[Inexact, InvalidOperation, Overflow, Subnormal],  # each of them means that digits would be lost
)
_read = _exact.create_decimal  # as strict as Decimal() is lax: no blanks, no underscores
_check = _exact.plus
_ZERO = Decimal(0)
_LIMIT = Decimal(10) ** MAGNITUDE_MAX

DECODING = (ValueError, ArithmeticError, RecursionError)  # what it raises: msgspec, decimal, deep nesting

_MS, _MS_END = 10**12, 10**14
_US, _US_END = 10**15, 10**17

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?Z", re.ASCII)


def reads(function: Callable[[A], R]) -> Callable[[A], R]:
    """Turn everything that decoding can raise into `Unreadable`."""

    @functools.wraps(function)
    def read(encoded: A) -> R:
        try:
            return function(encoded)
        except Unreadable:
            raise
        except DECODING as error:
            raise unreadable(error) from error

    return read


def unreadable(error: Exception) -> Unreadable:
    return Unreadable(f"{type(error).__name__}: {error}"[:200])


def positive(text: str) -> Decimal:
    """Read a price or size: finite, above zero, with every digit as written.

    Raises:
        Unreadable, ArithmeticError: it is something else.
    """
    value = _read(text)
    if _ZERO < value < _LIMIT:  # a NaN raises InvalidOperation
        return value
    raise Unreadable(f"not a positive number: {text[:40]!r}")


# Most touches repeat the price of the one before: the digits are known, and the very object tells that it is the same.
known_price = functools.lru_cache(maxsize=NUMBERS_KNOWN)(positive)
known_size = functools.lru_cache(maxsize=NUMBERS_KNOWN)(positive)  # of trades, four of five; of touches far fewer


def positive_number(value: Decimal) -> Decimal:
    """The same for a JSON number that is decoded already."""
    if _ZERO < value < _LIMIT:
        return _check(value)
    raise Unreadable("not a positive number")


def size_number(value: Decimal) -> Decimal:
    """Read a size that may be zero, which deletes a level. JSON numbers again."""
    return positive_number(value) if value else _ZERO


def best_first(levels: list[Level], *, side: Side) -> tuple[Level, ...]:
    """Return the levels of an image, having made sure that they are in order, each price once."""
    prices = [price for price, _ in levels]
    if any(map(ge if side is Side.SELL else le, prices, prices[1:])):
        raise Unreadable("levels out of order")
    return tuple(levels)


def epoch_ns(value: int) -> int:
    """Read a venue time in milliseconds or microseconds, told apart by its number of digits."""
    if _MS <= value < _MS_END:
        return value * 1_000_000
    if _US <= value < _US_END:
        return value * 1000
    raise Unreadable("neither milliseconds nor microseconds since the epoch")


def rfc3339_ns(text: str) -> int:
    """Read a UTC time such as 2026-08-16T23:37:05.723653Z, to the digit down to nanoseconds."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Unreadable("not an RFC 3339 time in UTC")
    seconds, fraction = match.groups(default="")
    return _epoch_s(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))


@functools.lru_cache(maxsize=1024)
def _epoch_s(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
