"""The strict JSON reader and the exact writer."""

import json
import re
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import strict_json
from core.errors import DomainError, Malformed, TooLarge

DECIMALS = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(-(10**20), 10**20), st.integers(-12, 8)
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**38), 10**38) | DECIMALS | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=25,
)

HOSTILE = {
    "nothing": b"",
    "spaces": b"  \n",
    "not JSON": b"hello",
    "half": b'{"a":',
    "two values": b"1 2",
    "trailing comma": b"[1,]",
    "single quotes": b"{'a':1}",
    "comment": b"[1] // one",
    "NUL": b"\x00",
    "NUL in a string": b'"a\x00b"',
    "newline in a string": b'"a\nb"',
    "invalid UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "encoded surrogate": b'"\xed\xa0\x80"',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "NaN": b'{"price":NaN}',
    "Infinity": b"Infinity",
    "-Infinity": b"[-Infinity]",
    "a key twice": b'{"a":1,"a":1}',
    "a key twice deeper": b'[{"b":{"a":1,"\\u0061":2}}]',
    "lone surrogate": b'{"side":"\\ud800"}',
    "lone low surrogate": b'["\\uDC00x"]',
    "lone surrogate as a key": b'{"\\ud83d":1}',
    "leading zero": b"01",
    "plus": b"+1",
    "underscore": b"1_000",
    "hexadecimal": b"0x10",
    "bare point": b".5",
    "point without digits": b"1.",
    "full-width digits": '"a":１'.encode(),
    "long integer": b"1" * 41,
    "very long integer": b"9" * 60_000,
    "long fraction": b"0." + b"1" * 40,
    "huge exponent": b"1e999999999",
    "exponent beyond a machine word": b"1e99999999999999999999999999",
    "tiny exponent": b"1e-999999999",
    "zero with a huge exponent": b"0e999999999",
    "depth 17": b"[" * 17 + b"]" * 17,
    "depth 1000": b"[" * 1000 + b"]" * 1000,
    "depth 60000": b"[" * 60_000,
    "deep objects": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "deep after brackets in a string": b'["[[[[\\"", ' + b"[" * 30 + b"]" * 30 + b"]",
    "escaped quotes without an end": b'"' + b'\\"' * 32_000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        strict_json.loads(body)


def test_brackets_and_unfinished_strings_are_scanned_in_linear_time() -> None:
    began_s = time.process_time()
    for body in (b'"\\"' * 21_000, b'["' * 32_000, b'[{"' + b'\\"[' * 21_000, b"[" * 20 + b'"' + b"\\" * 60_000):
        with pytest.raises(Malformed):
            strict_json.loads(body)
    assert time.process_time() - began_s < 2


def test_a_body_over_the_limit_is_too_large_and_one_at_the_limit_is_read() -> None:
    with pytest.raises(TooLarge):
        strict_json.loads(b" " * (strict_json.BODY_SIZE_MAX - 1) + b"10")
    assert strict_json.loads(b" " * (strict_json.BODY_SIZE_MAX - 1) + b"1") == 1


def test_depth_sixteen_is_read_however_many_brackets_there_are() -> None:
    deep = b"[" * 16 + b"]" * 16
    assert strict_json.loads(deep) == json.loads(deep)
    wide = b"[" + b",".join([b"[]"] * 100) + b"]"
    assert len(strict_json.loads(wide)) == 100
    assert strict_json.loads(b'["' + b"[" * 100 + b'"]') == ["[" * 100]


def test_numbers_are_exact() -> None:
    read = strict_json.loads(b"[0.1, 1e3, -2.50, 12345678901234567890, 50000.123456789012345678, 1E-8, 1e400]")
    assert read == [
        Decimal("0.1"), Decimal("1E+3"), Decimal("-2.50"), 12345678901234567890,
        Decimal("50000.123456789012345678"), Decimal("1E-8"), Decimal("1e400"),
    ]  # fmt: skip
    assert [type(item) for item in read] == [Decimal, Decimal, Decimal, int, Decimal, Decimal, Decimal]


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert strict_json.loads(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
    assert strict_json.loads(b'"\\\\ud83d"') == "\\ud83d"


@given(VALUES)
def test_what_is_written_is_read_back_exactly(value: object) -> None:
    assert strict_json.loads(strict_json.dumps(value)) == value


@given(DECIMALS)
def test_a_written_decimal_is_plain_and_equal(value: Decimal) -> None:
    text = strict_json.number(value)
    assert Decimal(text) == value
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", text)
    assert text != "-0"


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789.eE+-\\untrefals ', max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        value = strict_json.loads(body)
    except DomainError:
        return
    # 1e100 is written with more digits than we read.
    assert json.loads(strict_json.dumps(value), parse_float=Decimal) == value


@given(st.text(max_size=30).map(lambda text: text + "\ud800"))
def test_a_surrogate_in_our_own_words_never_breaks_an_answer(text: str) -> None:
    assert isinstance(strict_json.loads(strict_json.dumps({text: [text]})), dict)


class Colour(StrEnum):
    RED = "red"


class Point(msgspec.Struct):
    x: Decimal
    y: int


def test_each_type_has_its_spelling() -> None:
    east = timezone(timedelta(hours=2))
    written = strict_json.dumps(
        {
            "raw": msgspec.Raw(b"1.50"),
            "enum": Colour.RED,
            "id": UUID(int=1),
            "utc": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
            "east": datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=east),
            "struct": Point(Decimal("1.10"), 2**70),
            "float": 0.5,
            "tuple": (True, None, Decimal("1E+3"), Decimal("-0.00")),
        }
    )
    assert written == (
        b'{"raw":1.50,"enum":"red","id":"00000000-0000-0000-0000-000000000001","utc":"2024-01-02T03:04:05Z",'
        b'"east":"2024-01-02T01:04:05.000678Z","struct":{"x":1.1,"y":1180591620717411303424},"float":0.5,'
        b'"tuple":[true,null,1000,0]}'
    )


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), Decimal("1E+2000"),
     datetime(2024, 1, 1)],  # noqa: DTZ001
    ids=str,
)  # fmt: skip
def test_what_is_no_number_or_no_instant_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match=r"JSON number|time zone"):
        strict_json.dumps([value])


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {1, 2}}, b"bytes"], ids=str)
def test_a_value_without_a_json_form_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        strict_json.dumps(value)
