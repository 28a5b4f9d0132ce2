"""Exact amounts: integer units of 10^-8 inside, decimals at the edges."""

from decimal import Decimal

UNITS = 10**8  # per whole coin
DECIMALS = 8
INPUT_LIMIT = Decimal(9 * 10**10)  # inputs lie below this


def to_units(value: Decimal) -> int:
    """Return a decimal as integer units.

    Raises:
        ValueError: the value is finer than 10^-8, not finite, or not below the limit.
    """
    if not value.is_finite() or abs(value) >= INPUT_LIMIT:
        raise ValueError(f"out of bounds: {value}")
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    number = int("".join(map(str, digits)))
    shift = exponent + DECIMALS
    if shift >= 0:
        units: int = number * 10**shift
    else:
        units, rest = divmod(number, 10**-shift)
        if rest:
            raise ValueError(f"finer than 10^-{DECIMALS}: {value}")
    return -units if sign else units


def from_units(units: int) -> Decimal:
    """Return integer units as an exact decimal without trailing zeros."""
    return plain(Decimal(units).scaleb(-DECIMALS))


def plain(value: Decimal) -> Decimal:
    """Return the same number without trailing zeros and without an exponent: 0.10 → 0.1, 1E+3 → 1000."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return Decimal(text)
