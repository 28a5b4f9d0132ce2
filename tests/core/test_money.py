from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from core.money import INPUT_LIMIT, UNITS, from_units, read_amount, to_units

LOC = ("body", "price")
UNITS_MAX = int(INPUT_LIMIT) * UNITS

units = st.integers(1, UNITS_MAX - 1)


def read(value: object) -> int:
    return read_amount(value, loc=LOC)


@given(st.integers(1 - UNITS_MAX, UNITS_MAX - 1))
def test_units_become_decimals_and_come_back(amount: int) -> None:
    written = from_units(amount)
    assert Fraction(written) == Fraction(amount, UNITS)
    assert to_units(written) == amount
    text = format(written, "f")
    assert not text.endswith(".")
    assert "." not in text or not text.endswith("0")


@pytest.mark.parametrize("zeros", [0, 3, 400])
def test_digits_behind_the_eighth_decimal_must_be_zeros_however_many_there_are(zeros: int) -> None:
    assert to_units(Decimal(f"-1.00000001{'0' * zeros}")) == -UNITS - 1
    for finer in (f"1.00000000{'0' * zeros}1", f"0.00000001{'0' * zeros}1"):
        with pytest.raises(ValueError, match="finer"):
            to_units(Decimal(finer))


@given(units, st.sampled_from(("plain", "number", "exponent", "zeros")))
def test_an_amount_is_read_as_it_is_written(amount: int, form: str) -> None:
    number = from_units(amount)
    text = format(number, "f")
    if form == "exponent":
        text = f"{amount}e-8"
    elif form == "zeros":
        text = f"00{text}00" if "." in text else f"00{text}.000000000000"
    assert read(number if form == "number" else text) == amount


@given(st.decimals(min_value=Decimal("1e-8"), max_value=INPUT_LIMIT - 1, allow_nan=False))
def test_a_number_with_more_decimals_is_rounded_half_even(number: Decimal) -> None:
    found, exact = read(number), Fraction(number) * UNITS
    assert abs(found - exact) <= Fraction(1, 2)
    if abs(found - exact) == Fraction(1, 2):
        assert found % 2 == 0


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        ("0.30000000000000004", 30_000_000),
        ("1.000000005", 100_000_000),
        ("1.000000015", 100_000_002),
        ("0.0000000050001", 1),
        ("89999999999.99999999", UNITS_MAX - 1),
    ],
)
def test_what_clients_compute_in_floating_point_is_taken_to_the_nearest_unit(number: str, wanted: int) -> None:
    assert read(Decimal(number)) == wanted


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, [1], {}, 1.5, b"1",
        "", " 1", "1 ", "+1", ".5", "1.", "1_000", "1,5", "１", "٣", "0x10", "1e", "--1", "1\n", "1" * 41,
        "NaN", "nan", "Infinity", "-Infinity", "1e999", "0", "-0", "-1", "0.000000001", "1e-9", "1e-400", "9e10",
        Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-1"), Decimal("0"), 0, -1,
        Decimal("5e-9"), Decimal("1e-400"), Decimal("1e400"), 9 * 10**10, 10**400,
        Decimal("89999999999.999999999"), Decimal("1.5e11"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_amount_is_refused_by_name(value: object) -> None:
    with pytest.raises(Invalid) as refused:
        read(value)
    assert refused.value.loc == LOC


@given(st.text(max_size=60) | st.integers() | st.decimals() | st.floats() | st.none() | st.booleans())
def test_whatever_is_sent_is_read_exactly_or_refused(value: object) -> None:
    try:
        found = read(value)
    except Invalid:
        return
    assert 0 < found < UNITS_MAX
    assert not isinstance(value, bool | float)
    assert abs(found - Fraction(Decimal(str(value))) * UNITS) <= Fraction(1, 2)
    if isinstance(value, str):
        assert found == Fraction(value) * UNITS
