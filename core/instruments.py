"""Instruments and the spellings that clients use for them."""

import re
from collections.abc import Iterable

from msgspec import Struct

from core.errors import UnknownSymbol

_ALIASES = {"XBT": "BTC", "XDG": "DOGE"}  # Kraken's older names, taken on input
_NAME = re.compile(r"[A-Z0-9]{1,16}-[A-Z0-9]{1,16}", re.ASCII)
_INPUT_LENGTH_MAX = 40


class Instrument(Struct, frozen=True, order=True):
    """A spot pair: `name` "BTC-USDT" inside, `symbol` "BTCUSDT" on the wire."""

    base: str
    quote: str

    @property
    def name(self) -> str:
        return f"{self.base}-{self.quote}"

    @property
    def symbol(self) -> str:
        return f"{self.base}{self.quote}"


def parse_instrument(text: str) -> Instrument:
    """Read a configured name such as "BTC-USDT".

    Raises:
        ValueError: the text is not BASE-QUOTE in ASCII letters and digits.
    """
    name = text.strip().upper()
    if not _NAME.fullmatch(name):
        raise ValueError(f"not an instrument: {text!r} (write BASE-QUOTE, for example BTC-USDT)")
    base, _, quote = name.partition("-")
    return Instrument(_ALIASES.get(base, base), _ALIASES.get(quote, quote))


class Catalogue:
    """The configured instruments, found by any spelling that the contract takes."""

    def __init__(self, names: Iterable[str]) -> None:
        self.instruments = tuple(dict.fromkeys(parse_instrument(name) for name in names))
        self._by_symbol: dict[str, Instrument] = {}
        for instrument in self.instruments:
            other = self._by_symbol.setdefault(instrument.symbol, instrument)
            if other is not instrument:
                raise ValueError(f"{other.name} and {instrument.name} would both be {instrument.symbol} on the wire")
        self._spellings = {
            base + separator + quote: instrument
            for instrument in self.instruments
            for base in _spellings(instrument.base)
            for quote in _spellings(instrument.quote)
            for separator in ("", "-", "/")
        } | {instrument.symbol: instrument for instrument in self.instruments}

    def find(self, text: object) -> Instrument:
        """Return the instrument that a client means by BTCUSDT, btc/usdt, XBT-USDT, …

        Raises:
            UnknownSymbol: nothing configured is spelled so.
        """
        if isinstance(text, str) and len(text) <= _INPUT_LENGTH_MAX:
            found = self._spellings.get(text.upper()) if text.isascii() else None
            if found is not None:
                return found
        raise UnknownSymbol(f"unknown symbol {str(text)[:_INPUT_LENGTH_MAX]!r}; GET /info lists those served")


def _spellings(asset: str) -> tuple[str, ...]:
    return (asset, *(alias for alias, name in _ALIASES.items() if name == asset))
