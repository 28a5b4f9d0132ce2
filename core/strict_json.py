"""The one JSON reader and writer: strict about what comes in, exact about numbers both ways.

Reading refuses what parsers disagree about (a key twice, NaN, lone surrogates) and what costs
too much (size, depth, length of a number). Numbers with a point or an exponent become
`Decimal`, the others `int`; writing never shows an exponent of a `Decimal`.
"""

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, NoReturn
from uuid import UUID

import msgspec

from core.errors import Malformed, TooLarge

BODY_SIZE_MAX = 64 * 1024
DEPTH_MAX = 16
NUMBER_LENGTH_MAX = 40
EXPONENT_MAX = 1_000  # a number's digits are written out, so its exponent must stay small

_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_KEY_SHOWN_MAX = 60

# A string literal in one piece (also an unterminated one, so that scanning stays linear), or one bracket.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_encoder = msgspec.json.Encoder()


def loads(body: bytes) -> Any:
    """Read one JSON text: dict, list, str, int, `Decimal`, bool or None.

    Raises:
        TooLarge: the body has more than `BODY_SIZE_MAX` bytes.
        Malformed: it is not JSON as this server reads it; the message says why.
    """
    if len(body) > BODY_SIZE_MAX:
        raise TooLarge(f"the body is larger than {BODY_SIZE_MAX} bytes")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8 at byte {error.start}") from None
    # A text with few opening brackets cannot be deep; only others are scanned.
    if text.count("[") + text.count("{") > DEPTH_MAX:
        _check_depth(text)
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error.msg} at character {error.pos}") from None
    if _SURROGATE_ESCAPE.search(text):
        _check_surrogates(value)
    return value


def dumps(value: Any) -> bytes:
    """Write a value as compact JSON.

    `Decimal`s become plain numbers (no exponent, no trailing zeros), datetimes ISO 8601 in UTC
    with Z, UUIDs their text, enums their value, structs objects; `msgspec.Raw` is copied as it is.

    Raises:
        ValueError: a number is not finite or absurdly long, or a datetime has no time zone.
        TypeError: the value holds something that JSON has no word for.
    """
    return _encoder.encode(_ready(value))


def number(value: Decimal) -> str:
    """Return a decimal as a JSON number: all its digits, no exponent, no trailing zeros.

    Raises:
        ValueError: the value is not finite, or its exponent is beyond `EXPONENT_MAX`.
    """
    if not value:
        return "0"  # a balance is mostly those
    if not value.is_finite() or abs(value.adjusted()) > EXPONENT_MAX:
        raise ValueError(f"no JSON number: {value}")
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text


# -- reading


def _check_depth(text: str) -> None:
    depth = 0
    for piece in _STRING_OR_BRACKET.findall(text):
        if piece in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise Malformed(f"nested deeper than {DEPTH_MAX}")
        elif piece in "]}":
            depth -= 1


def _check_surrogates(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Malformed("a string holds half of a surrogate pair") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_surrogates(key)
            _check_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Malformed(f"the key {key[:_KEY_SHOWN_MAX]!a} comes twice")
            seen.add(key)
    return found


def _int(literal: str) -> int:
    _check_length(literal)
    return int(literal)


def _decimal(literal: str) -> Decimal:
    _check_length(literal)
    try:
        value = Decimal(literal)
    except InvalidOperation:  # the exponent does not fit a machine word
        raise Malformed("a number's exponent is out of range") from None
    _, _, exponent = value.as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > EXPONENT_MAX or abs(value.adjusted()) > EXPONENT_MAX:
        raise Malformed("a number's exponent is out of range")
    return value


def _check_length(literal: str) -> None:
    if len(literal) > NUMBER_LENGTH_MAX:
        raise Malformed(f"a number is longer than {NUMBER_LENGTH_MAX} characters")


def _constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not a JSON number")


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_decimal, parse_int=_int, parse_constant=_constant, strict=True
)


# -- writing


def _ready(value: Any) -> Any:
    """Return the value in the types that the encoder writes as we want them."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if kind is bool or value is None or kind is msgspec.Raw:
        return value
    if kind is int:
        return value if _INT64_MIN <= value <= _UINT64_MAX else msgspec.Raw(str(value).encode())
    if kind is Decimal:
        return msgspec.Raw(number(value).encode())
    if kind is dict:
        return _members(value.items())
    if kind is list or kind is tuple:
        return [_ready(item) for item in value]
    return _rarer(value)


def _rarer(value: Any) -> Any:
    if isinstance(value, Enum):
        return _ready(value.value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"no JSON number: {value}")
        return float(value)
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, msgspec.Struct):
        return {name: _ready(getattr(value, name)) for name in value.__struct_fields__}
    # Subclasses, as frameworks make them.
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return _members(value.items())
    if isinstance(value, list | tuple):
        return [_ready(item) for item in value]
    if isinstance(value, int):
        return _ready(int(value))
    if isinstance(value, Decimal):
        return _ready(Decimal(value))
    raise TypeError(f"no JSON for {type(value).__name__}")


def _members(items: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, item in items:
        if type(key) is not str or not key.isascii():
            if not isinstance(key, str):
                raise TypeError(f"a JSON object's keys are strings, not {type(key).__name__}")
            key = _text(key)
        kind = type(item)  # most members are plain text or numbers: no call for those
        if kind is Decimal:
            members[key] = msgspec.Raw(number(item).encode())
        elif kind is str and item.isascii():
            members[key] = item
        else:
            members[key] = _ready(item)
    return members


def _text(value: str) -> str:
    """Return the text as UTF-8 can carry it: a lone surrogate, which may come in a client's words, is replaced."""
    value = str.__str__(value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def _instant(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("a datetime without a time zone")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
