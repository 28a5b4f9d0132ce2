"""The matcher beside resting orders that no touch reaches: a tick's cost, and the time to know them after a start."""

from collections.abc import Iterator

from bench.processes import Failed, router_environment, running
from bench.report import Row, at_most, failed

GROUP = "matching"
ORDERS = (0, 1_000, 100_000)
TICKS = 20_000
TICK_MAX_RATIO = 1.2  # of a tick's cost without orders
RECOVERY_MAX_S = 3.0
PREPARE_S = 120.0


def run(*, quick: bool) -> Iterator[Row]:
    counts = (0, 1_000, 10_000) if quick else ORDERS
    try:
        yield from _measure(counts, TICKS // 10 if quick else TICKS)
    except Failed as error:
        yield failed(GROUP, f"ticks beside {counts[-1]} orders", error)


def _measure(counts: tuple[int, ...], tick_count: int) -> Iterator[Row]:
    with (
        router_environment(MARKET_SOURCE="live", LOG_LEVEL="error") as environment,
        running(["-m", "bench.matching_stage", str(tick_count), *map(str, counts)], environment) as stage,
    ):
        found = [stage.answer(PREPARE_S) for _ in counts]
    none = found[0]["tick_us"]
    for one in found:
        what = f"tick beside {one['orders']:,} resting orders".replace(",", " ")
        note = f"hub and matcher; {one['matcher_us']:.2f} µs of it the matcher's"
        if one["orders"]:
            note += f"; {one['tick_us'] / none:.2f} times that without orders (at most {TICK_MAX_RATIO:g})"
            yield at_most(GROUP, what, one["tick_us"], "µs", round(none * TICK_MAX_RATIO, 2), note=note)
        else:
            yield Row(GROUP, what, one["tick_us"], "µs", note=note)
    what = f"start with {found[-1]['orders']:,} open orders".replace(",", " ")
    yield at_most(GROUP, what, found[-1]["recovery_s"], "s", RECOVERY_MAX_S, note="until the matcher knows them all")
