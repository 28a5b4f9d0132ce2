"""Exact amounts: integer units of 10^-8 inside, decimals at the edges."""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache

from core.errors import Invalid

UNITS = 10**8  # per whole coin
DECIMALS = 8
INPUT_LIMIT = Decimal(9 * 10**10)  # inputs lie below this

_UNIT = Decimal(1).scaleb(-DECIMALS)
_TEXT_LENGTH_MAX = 40
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation])
_PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def to_units(value: Decimal) -> int:
    """Return a decimal as integer units.

    Raises:
        ValueError: the value is finer than 10^-8, not finite, or not below the limit.
    """
    if not value.is_finite() or abs(value) >= INPUT_LIMIT:
        raise ValueError(f"out of bounds: {value}")
    try:
        shifted = _EXACT.scaleb(value, DECIMALS)
    except Inexact:  # it has digits far behind the eighth
        shifted = None
    units = 0 if shifted is None else int(shifted)
    if units != shifted:
        raise ValueError(f"finer than 10^-{DECIMALS}: {value}")
    return units


@lru_cache(maxsize=4_096)
def from_units(units: int) -> Decimal:
    """Return integer units as an exact decimal without trailing zeros."""
    whole, rest = divmod(abs(units), UNITS)
    sign = "-" if units < 0 else ""
    return Decimal(f"{sign}{whole}.{rest:0{DECIMALS}d}".rstrip("0")) if rest else Decimal(f"{sign}{whole}")


def plain(value: Decimal) -> Decimal:
    """Return the same number without trailing zeros and without an exponent: 0.10 → 0.1, 1E+3 → 1000."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return Decimal(text)


def read_amount(value: object, *, loc: tuple[str | int, ...]) -> int:
    """Read a price, quantity or amount as a client writes it, in units: positive, below the limit.

    A JSON number with more than eight decimals is rounded half-even, as clients that compute in
    floating point send them; a string with more is refused, and so is what rounds to 0.

    Raises:
        Invalid: it is no such number.
    """
    if value is None:
        raise Invalid("field required", loc=loc, kind="missing")
    if isinstance(value, str):
        number = _read_text(value, loc)
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        number = Decimal(value)
    else:
        raise Invalid("must be a number", loc=loc, kind="type_error")
    if not number.is_finite():
        raise Invalid("must be a finite number", loc=loc)
    if number <= 0:
        raise Invalid("must be greater than 0", loc=loc, kind="greater_than")
    # Rounding may reach the limit, and what is far beyond it cannot be rounded.
    if number >= INPUT_LIMIT or (rounded := number.quantize(_UNIT, rounding=ROUND_HALF_EVEN)) >= INPUT_LIMIT:
        raise Invalid(f"must be below {INPUT_LIMIT}", loc=loc, kind="less_than")
    units = to_units(rounded)
    if not units:
        raise Invalid(f"must be at least {_UNIT:f}", loc=loc, kind="greater_than")
    return units


def _read_text(text: str, loc: tuple[str | int, ...]) -> Decimal:
    found = _PLAIN.fullmatch(text) if len(text) <= _TEXT_LENGTH_MAX else None
    if found is None:
        raise Invalid('must be a number, or a plain numeric string such as "0.1"', loc=loc, kind="type_error")
    number = Decimal(text)
    exponent = number.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -DECIMALS:
        raise Invalid(f"must have at most {DECIMALS} decimals", loc=loc)
    return number
