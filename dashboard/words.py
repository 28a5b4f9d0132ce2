"""Numbers and moments as a person reads them. Pure."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

NONE = "–"
PRICE_DIGITS = 6  # significant ones: 95,133.2 and 0.178412 read alike
DECIMALS_MAX = 8


def price(value: Decimal | float | None) -> str:
    """Return a price with its own digits, at least two after the point where it is large."""
    if value is None:
        return NONE
    number = Decimal(str(value))
    return f"{number:,.{max(_shown(number), min(DECIMALS_MAX, _decimals(number)))}f}"


def quantity(value: Decimal | float | None) -> str:
    """Return a quantity with all its digits and no trailing zeros."""
    if value is None:
        return NONE
    number = Decimal(str(value))
    return f"{number:,.{min(DECIMALS_MAX, _decimals(number))}f}"


def average(value: Decimal | float | None) -> str:
    """Return a price that was computed: as fine as prices are shown, no finer."""
    if value is None:
        return NONE
    number = Decimal(str(value))
    return f"{number:,.{_shown(number)}f}"


def plain(value: Decimal | None) -> str:
    """Return a number as it is typed: all its digits, nothing between them."""
    return "" if value is None else f"{value:.{min(DECIMALS_MAX, _decimals(value))}f}"


def size(value: Decimal | float | None) -> str:
    """Return a displayed quantity, short: what matters is its order of magnitude."""
    if value is None:
        return NONE
    number = Decimal(str(value))
    if abs(number) >= 1_000_000:
        return f"{number / 1_000_000:,.2f}M"
    if abs(number) >= 10_000:
        return f"{number / 1_000:,.1f}k"
    return f"{number:,.4f}" if abs(number) < 100 else f"{number:,.1f}"


def money(value: Decimal | float | None) -> str:
    """Return an amount of the quote asset, to the cent."""
    if value is None:
        return NONE
    return f"{Decimal(str(value)).quantize(Decimal('0.01'), ROUND_HALF_EVEN):,}"


def bps(value: Decimal | float | None) -> str:
    """Return basis points with a sign."""
    return NONE if value is None else f"{Decimal(str(value)):+,.2f} bps"


def percent(value: Decimal | float | None) -> str:
    return NONE if value is None else f"{Decimal(str(value)):.1f} %"


def age(seconds: float | None) -> str:
    """Return how long ago something was."""
    if seconds is None:
        return "never"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def clock(moment: datetime | float | None) -> str:
    """Return the time of day, UTC."""
    at = _moment(moment)
    return NONE if at is None else f"{at:%H:%M:%S}"


def day_and_clock(moment: datetime | float | None) -> str:
    at = _moment(moment)
    return NONE if at is None else f"{at:%d %b %H:%M:%S}"


def amount(text: str, name: str, *, optional: bool = False) -> Decimal | None:
    """Read what a person typed: 95,000.5 and 95000.5 are the same.

    Raises:
        ValueError: it is no number above zero, or it is missing.
    """
    plain = text.strip().replace(",", "").replace(" ", "")
    if not plain:
        if optional:
            return None
        raise ValueError(f"{name}: enter a number.")
    try:
        number = Decimal(plain)
    except ArithmeticError:
        raise ValueError(f"{name}: “{text}” is not a number.") from None
    if not number.is_finite() or number <= 0:
        raise ValueError(f"{name}: must be above zero.")
    return number


def _shown(price: Decimal) -> int:
    """Return how many decimals a price of this size is shown with."""
    whole = len(str(int(abs(price)))) if abs(price) >= 1 else 0
    return max(2, min(DECIMALS_MAX, PRICE_DIGITS - whole))


def _decimals(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _moment(moment: datetime | float | None) -> datetime | None:
    if moment is None or isinstance(moment, datetime):
        return moment
    return datetime.fromtimestamp(moment, UTC)
