"""The venues that ship, in the order in which they are shown and in which ties are broken."""

from marketdata.venue import Venue
from marketdata.venues.binance import BINANCE
from marketdata.venues.kraken import KRAKEN
from marketdata.venues.okx import OKX

VENUES: dict[str, Venue] = {venue.name: venue for venue in (BINANCE, OKX, KRAKEN)}
