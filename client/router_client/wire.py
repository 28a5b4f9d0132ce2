"""JSON as the router speaks it: numbers are read and written exactly, never through a float."""

from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
Raw = msgspec.Raw
NOTHING = Raw()

Number = Decimal | int | str | float  # what callers may pass where an amount is wanted

_encoder = msgspec.json.Encoder(decimal_format="number")


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, float_hook=Decimal)


def decode(body: bytes | str | Raw, kind: type[T]) -> T:
    """Read JSON as a type; numbers with a point become `Decimal` wherever the type does not say otherwise.

    Raises:
        msgspec.DecodeError, msgspec.ValidationError: it is not that.
    """
    hashable: Any = kind
    answer: T = _decoder(hashable).decode(body)
    return answer


def convert(value: Any, kind: type[T]) -> T:
    """Return a decoded value as a type.

    Raises:
        msgspec.ValidationError: it is not that.
    """
    return msgspec.convert(value, kind)


def encode(value: Any) -> bytes:
    """Write JSON; a Decimal becomes a number with all its digits."""
    return _encoder.encode(value)


def exact(value: Number, name: str = "amount") -> Decimal:
    """Return an amount as a Decimal; a float stands for its shortest decimal text (0.1 is 0.1).

    Raises:
        ValueError: it is no finite number.
        TypeError: it is of another type.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str | float):
        raise TypeError(f"{name}: a Decimal, an int or a numeric string, not {type(value).__name__}")
    try:
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{name}: not a number: {value!r}") from None
    if not number.is_finite():
        raise ValueError(f"{name}: not a finite number: {value!r}")
    return number


def plain(value: Decimal) -> str:
    """Return a decimal's digits without an exponent and without trailing zeros."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
