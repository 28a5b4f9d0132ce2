"""The candles over all venues, made from what each venue traded in each second.

Feeds of all venues in one process hand their seconds over directly; where each process feeds some
venues only, they come through the channel layer, and one process consolidates them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from core.candles import GRACE_NS, JUMP_MAX_S, Candle, CandleSeries, Second, first_open_second, merged
from marketdata.batches import SecondsBatch, VenueSeconds
from marketdata.feed import NS

RETOLD_S = 1  # closed seconds are told for so long, so that a batch may get lost
LATE_S = 1  # for so long a second waits for a venue that has not told it; then it is closed without, and partial


class Seconds:
    """What the venues that are fed here trade in each second, and whether all of it could arrive."""

    def __init__(self, publisher: str, venues: Sequence[str], began_ns: int) -> None:
        self._publisher = publisher
        self._whole_since = began_ns // NS + 1
        self._due: int | None = None
        self._known: dict[str, dict[tuple[str, int], Second]] = {venue: {} for venue in venues}
        self._observed = dict.fromkeys(venues, False)
        self._missed = set(venues)  # not observed at some time since the last batch

    def observe(self, venue: str, observed: bool) -> None:
        """Say whether trades of a venue can arrive now."""
        self._observed[venue] = observed
        if not observed:
            self._missed.add(venue)

    def batch(self, all_series: Mapping[tuple[str, str], CandleSeries], wall_ns: int) -> SecondsBatch:
        """Return what is traded in the open seconds and was in those that closed lately. Call before they close."""
        for (venue, instrument), series in all_series.items():
            for second in series.open_seconds():
                self._known[venue][instrument, second.open_time] = second
        due = first_open_second(wall_ns)
        since = min(due, due if self._due is None else self._due) - RETOLD_S
        self._due = due
        venues = []
        for venue, known in self._known.items():
            for key in [key for key in known if key[1] < since]:
                del known[key]
            seconds = [(instrument, second) for (instrument, _), second in known.items()]
            venues.append(VenueSeconds(venue, venue not in self._missed, seconds))
        self._missed = {venue for venue, observed in self._observed.items() if not observed}
        return SecondsBatch(self._publisher, max(since, self._whole_since), due, venues)


class Consolidation:
    """One series an instrument; seconds come in with `take` and leave as candles with `advance`."""

    def __init__(self, instruments: Sequence[str], venues: Sequence[str]) -> None:
        self.series = {instrument: CandleSeries() for instrument in instruments}
        self._venues = tuple(venues)
        self._told_before: dict[str, int] = {}  # venue → every earlier second was told
        # A venue's feeds that start again know only their own part of a second: each publisher's counts.
        self._open: dict[str, dict[int, dict[tuple[str, str], Second]]] = {
            name: defaultdict(dict) for name in instruments
        }
        self._holes: set[str] = set()  # venues whose trades could not all arrive since the last `advance`
        self._hole_ns = 0  # when the last hole was told
        self._due: int | None = None

    def take(self, batch: SecondsBatch) -> None:
        """Take what some venues traded; a batch that comes twice or late does no harm."""
        for venue in batch.venues:
            before = self._told_before.get(venue.venue)
            if not venue.observed or before is None or before < batch.since:
                self._holes.add(venue.venue)
            self._told_before[venue.venue] = batch.closed_before
            for instrument, second in venue.seconds:
                if instrument in self._open:
                    self._open[instrument][second.open_time][venue.venue, batch.publisher] = second

    def advance(self, wall_ns: int) -> Iterator[tuple[str, list[Candle], list[Candle]]]:
        """Close the seconds that every venue told, or that are `LATE_S` late.

        Yields, where any closed, each instrument with the candles that ended, oldest first, and the running ones.
        """
        if not self._told_before:
            return
        now_due = first_open_second(wall_ns)
        due = min(self._told_before.get(venue, now_due - LATE_S) for venue in self._venues)
        if not now_due - LATE_S <= due <= now_due:
            due = now_due - LATE_S
        if due == self._due:
            return
        self._due = due
        silent = {venue for venue in self._venues if self._told_before.get(venue, due - 1) < due}
        observed = not (self._holes or silent)
        self._holes.clear()
        if not observed:
            self._hole_ns = wall_ns
        for instrument, series in self.series.items():
            self._fill(series, self._open[instrument], due)
            if not observed:
                series.observe(False)
            series.observe(observed, min(self._hole_ns, wall_ns))
            yield instrument, series.advance(due * NS + GRACE_NS), series.current(wall_ns)

    def _fill(self, series: CandleSeries, open_seconds: dict[int, dict[tuple[str, str], Second]], due: int) -> None:
        """Put the seconds into their series and forget those that end, and those that a clock which was set left."""
        for open_time, told in tuple(open_seconds.items()):
            series.put(merged(list(told.values())))
            if not due <= open_time <= due + JUMP_MAX_S:
                del open_seconds[open_time]
