"""Market data in Prometheus' words."""

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from marketdata.batches import VenueStatus

STATES = ("connecting", "syncing", "live", "stale", "halted", "down", "disabled")


class _Snapshot(Collector):
    """What was true at one moment; made anew for each reading."""

    def __init__(
        self,
        statuses: Sequence[VenueStatus],
        counters: Mapping[str, int],
        ages_s: Mapping[tuple[str, str], float],
        asides: Mapping[tuple[str, str], tuple[bool, int]],
    ) -> None:
        self._statuses = statuses
        self._counters = counters
        self._ages_s = ages_s
        self._asides = asides

    def collect(self) -> Iterator[Metric]:
        state = GaugeMetricFamily("router_venue_state", "1 for the state that a venue is in", labels=["venue", "state"])
        frame = GaugeMetricFamily("router_venue_frame_age_seconds", "Since the venue's last frame", labels=["venue"])
        data = GaugeMetricFamily("router_venue_data_age_seconds", "Since its last market data", labels=["venue"])
        rate = GaugeMetricFamily("router_venue_frames_per_second", "Frames of the venue", labels=["venue"])
        events = CounterMetricFamily("router_venue_events", "What happened on the feed", labels=["venue", "event"])
        for status in self._statuses:
            for name in STATES:
                state.add_metric([status.venue, name], float(status.state == name))
            for family, age_s in ((frame, status.last_frame_age_s), (data, status.last_data_age_s)):
                if age_s is not None:
                    family.add_metric([status.venue], age_s)
            rate.add_metric([status.venue], status.frames_per_s)
            for event, count in status.counters.items():
                events.add_metric([status.venue, event], count)
        yield from (state, frame, data, rate, events)

        hub = CounterMetricFamily("router_hub_events", "What happened to market data in this process", labels=["event"])
        for event, count in self._counters.items():
            hub.add_metric([event], count)
        yield hub

        touch = GaugeMetricFamily("router_touch_age_seconds", "Age of a best price", labels=["symbol", "side"])
        for (symbol, side), age_s in self._ages_s.items():
            touch.add_metric([symbol, side], age_s)
        yield touch

        aside = GaugeMetricFamily("router_venue_aside", "1 while it strays from the others", labels=["venue", "symbol"])
        times = CounterMetricFamily("router_venue_set_aside", "How often it was set aside", labels=["venue", "symbol"])
        for (venue, symbol), (is_aside, count) in self._asides.items():
            aside.add_metric([venue, symbol], float(is_aside))
            times.add_metric([venue, symbol], count)
        yield from (aside, times)


def text(
    statuses: Sequence[VenueStatus],
    counters: Mapping[str, int],
    ages_s: Mapping[tuple[str, str], float],
    asides: Mapping[tuple[str, str], tuple[bool, int]],
) -> bytes:
    """Return the process's own metrics and those of the market data.

    `ages_s`: (symbol, side) → seconds; `asides`: (venue, symbol) → whether it is set aside, and how often it was.
    """
    market = CollectorRegistry(auto_describe=False)
    market.register(_Snapshot(statuses, counters, ages_s, asides))
    return generate_latest(REGISTRY) + generate_latest(market)
