"""The built-in venues: a seeded market that speaks the venues' own protocols over loopback WebSockets."""

from marketdata.simulated.market import SimulatedVenues
from marketdata.simulated.venue import SimulatedVenue

__all__ = ["SimulatedVenue", "SimulatedVenues"]
