"""From a venue's frame to the client's, through the embedded process: 2 000 frames a second, 200 clients.

Both ends read the same clock, so the figures hold the stand-in's socket, the router (which
gathers news for half a millisecond) and the clients' own reading. The clients' CPU is measured
too: near a whole core they, not the router, are what is waited for.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

from bench.processes import Failed, free_port, router_environment, running, wait_until_ready
from bench.report import Row, at_most, failed
from bench.venue_stand_in import SYMBOLS, TRADE_EVERY

GROUP = "latency"
CLIENTS = 200
SYMBOLS_EACH = 2
PER_SECOND = 2000
DURATION_S = 30
P99_MAX_MS = 5
CPU_MAX_PERCENT = 80
READERS_BUSY = 0.8  # of a core: from here on the clients' own reading shows in the ages
SETTLE_S = 2.0  # subscriptions reach the feeds, caches fill
LATE_S = 20.0


def run(*, quick: bool) -> Iterator[Row]:
    try:
        yield from _measure(3 if quick else DURATION_S)
    except Failed as error:
        yield failed(GROUP, f"{PER_SECOND} frames/s to {CLIENTS} clients", error)


def _measure(duration_s: int) -> Iterator[Row]:
    round_of_frames = len(SYMBOLS) * TRADE_EVERY
    frames = PER_SECOND * duration_s // round_of_frames * round_of_frames
    expect = frames // round_of_frames * SYMBOLS_EACH
    venue_port, port = free_port(), free_port()
    job = {"port": port, "path": "/ws", "subscriptions": [subscriptions(n) for n in range(CLIENTS)], "expect": expect}
    settings = {
        "MARKET_SOURCE": "live",
        "VENUES": "binance",
        "BINANCE_WS_URL": f"ws://127.0.0.1:{venue_port}/stream",
    }
    with (
        router_environment(**settings) as environment,
        running(["-m", "bench.venue_stand_in", str(venue_port), str(PER_SECOND), str(frames)]) as venue,
        running(["manage.py", "run_router", "--port", str(port)], environment) as router,
        running(["-m", "bench.clients"]) as clients,
    ):
        venue.answer()
        wait_until_ready(router, port)
        clients.tell(json.dumps(job))
        clients.answer()
        time.sleep(SETTLE_S)
        before_s, readers_s, start_s = router.cpu_s(), clients.cpu_s(), time.monotonic()
        venue.tell("go")
        rate = venue.answer(duration_s + LATE_S)
        lasted_s = time.monotonic() - start_s
        cpu, readers = (router.cpu_s() - before_s) / lasted_s, (clients.cpu_s() - readers_s) / lasted_s
        tally = _finished(clients, expect)
        yield from _rows(
            tally, f"{rate:.0f} frames/s from the venue, {CLIENTS} clients × {SYMBOLS_EACH} symbols", expect
        )
        delivered = sum(tally["frames"].values()) / lasted_s
        each_us = cpu / delivered * 1e6
        note = f"of one core; {delivered:.0f} frames/s to clients, {each_us:.1f} µs each with all that comes before"
        yield at_most(GROUP, "CPU of the process", cpu * 100, "%", CPU_MAX_PERCENT, note=note)
        note = "the ages hold a wait for them" if readers > READERS_BUSY else "not what is waited for"
        yield Row(GROUP, "CPU of the clients' process", readers * 100, "%", note=f"of one core; {note}")


def _finished(clients: Any, expect: int) -> Any:
    """Return the tally; clients that wait for lost trades are told to stop waiting."""
    try:
        return clients.answer(2.0)
    except Failed:
        clients.tell("stop")
        return clients.answer()


def subscriptions(number: int) -> list[dict[str, object]]:
    symbols = [f"{SYMBOLS[(number + offset) % len(SYMBOLS)]}USDT" for offset in range(SYMBOLS_EACH)]
    return [
        {"action": "subscribe", "stream": stream, "symbol": symbol}
        for symbol in symbols
        for stream in ("trades", "best_touch")
    ]


def _rows(tally: Any, note: str, expect: int) -> Iterator[Row]:
    for name in ("trades", "touches"):
        ages = tally[name]
        if ages is None:
            yield Row(GROUP, name, None, met=False, note="none arrived")
            continue
        yield Row(GROUP, f"{name}, p50", ages["p50"], "ms", note=f"{ages['count']} frames; {note}")
        yield at_most(GROUP, f"{name}, p99", ages["p99"], "ms", P99_MAX_MS)
        yield Row(GROUP, f"{name}, max", ages["max"], "ms")
    lost = max(expect - tally["trades_fewest"], tally["holes"])
    yield at_most(GROUP, "trades lost", lost, "", 0, note=f"by any client; each expects {expect}")
