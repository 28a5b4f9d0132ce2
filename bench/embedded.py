"""The embedded process as `make demo` starts it: simulated venues, feeds and sockets in one, 100 subscribers.

Every client takes all five streams of one symbol, over all venues; ten clients a symbol.
"""

import json
import time
from collections.abc import Iterator

from bench.processes import Failed, free_port, router_environment, running, wait_until_ready
from bench.report import Row, at_most, failed
from bench.venue_stand_in import SYMBOLS

GROUP = "embedded"
CLIENTS = 100
DURATION_S = 60.0
SETTLE_S = 5.0
CPU_MAX_PERCENT = 80
P99_MAX_MS = 50
STREAMS: tuple[dict[str, object], ...] = (
    {"stream": "best_touch"},
    {"stream": "trades"},
    {"stream": "klines", "interval": "1s"},
    {"stream": "ewma", "half_life": 30},
    {"stream": "orderbook", "depth": 10},
)


def run(*, quick: bool) -> Iterator[Row]:
    try:
        yield from _measure(6.0 if quick else DURATION_S)
    except Failed as error:
        yield failed(GROUP, f"{CLIENTS} clients", error)


def _measure(duration_s: float) -> Iterator[Row]:
    port = free_port()
    job = {"port": port, "path": "/ws", "subscriptions": [_subscriptions(number) for number in range(CLIENTS)]}
    with (
        router_environment(MARKET_SOURCE="simulated") as environment,
        running(["manage.py", "run_router", "--port", str(port)], environment) as router,
    ):
        start_s = time.monotonic()
        wait_until_ready(router, port)
        yield Row(GROUP, "start until ready", time.monotonic() - start_s, "s", note="from an empty database")
        time.sleep(SETTLE_S)
        alone = router.cpu_share(duration_s / 6)
        memory_mb = router.memory_mb()
        with running(["-m", "bench.clients"]) as clients:
            clients.tell(json.dumps(job))
            clients.answer()
            time.sleep(SETTLE_S / 2)
            share = router.cpu_share(duration_s)
            more_mb = router.memory_mb() - memory_mb
            clients.tell("stop")
            tally = clients.answer()
    rate = sum(tally["frames"].values()) / (duration_s + SETTLE_S / 2)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(tally["frames"].items()))
    note = f"of one core; {CLIENTS} clients × {len(STREAMS)} streams: {rate:.0f} frames/s"
    yield Row(GROUP, "CPU of the process without clients", alone * 100, "%", note="simulated venues and feeds")
    yield at_most(GROUP, "CPU of the process", share * 100, "%", CPU_MAX_PERCENT, note=note)
    yield Row(GROUP, "memory", memory_mb + more_mb, "MB", note=f"{more_mb * 1024 / CLIENTS:.0f} KB a client")
    lost = tally["holes"] + tally["frames"].get("gap", 0)
    yield at_most(GROUP, "trades lost", lost, "", 0, note=kinds)
    yield at_most(GROUP, "connections lost", tally["closed"], "", 0)
    if tally["trades"] is not None:
        what = "trades, venue's time to client, p99"
        yield at_most(
            GROUP, what, tally["trades"]["p99"], "ms", P99_MAX_MS, note=f"p50 {tally['trades']['p50']:.1f} ms"
        )


def _subscriptions(number: int) -> list[dict[str, object]]:
    symbol = f"{SYMBOLS[number % len(SYMBOLS)]}USDT"
    return [{"action": "subscribe", "symbol": symbol, **stream} for stream in STREAMS]
