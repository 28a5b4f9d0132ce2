from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from core.money import from_units, to_units

UNITS = st.integers(-9 * 10**18 + 1, 9 * 10**18 - 1)


@given(UNITS)
@example(0)
@example(-1)
@example(10**8)
@example(10**18)
def test_units_are_written_exactly_without_an_exponent_or_trailing_zeros(units: int) -> None:
    written = from_units(units)
    assert written.scaleb(8) == units
    text = str(written) if abs(written) >= Decimal("0.000001") else format(written, "f")
    assert "E" not in text
    assert "." not in text or not text.endswith(("0", "."))


@given(UNITS)
def test_units_survive_being_written_and_read(units: int) -> None:
    assert to_units(from_units(units)) == units
