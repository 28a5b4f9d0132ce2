"""What an open socket costs: 2 000 of them in one process, each with one stream of a market that is quiet.

Memory above what the process had before they came, CPU while nothing happens, and memory again
after each of them got some thousand messages.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from bench.processes import Child, Failed, free_port, router_environment, running, wait_until_ready
from bench.reaction import trader
from bench.report import Row, at_most, failed
from bench.venue_stand_in import SYMBOLS, TRADE_EVERY

GROUP = "sockets"
SOCKETS = 2_000
QUICK_SOCKETS = 200
MEMORY_MAX_MB = 100
SETTLE_S = 5.0
IDLE_S = 10.0
PER_SECOND = 300  # of the burst: a tenth of the trades goes to each
BURST_S = 10
LATE_S = 60.0
KINDS = {"anonymous": "with WS_ANONYMOUS_MARKET_DATA", "logged in": "all of one user"}


def run(*, quick: bool) -> Iterator[Row]:
    sockets = QUICK_SOCKETS if quick else SOCKETS
    for kind in KINDS:
        try:
            yield from _measure(kind, sockets, quick=quick)
        except Failed as error:
            yield failed(GROUP, f"{sockets} sockets, {kind}", error)


def _measure(kind: str, sockets: int, *, quick: bool) -> Iterator[Row]:
    venue_port, port = free_port(), free_port()
    frames = PER_SECOND * BURST_S // (10 if quick else 1)
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
        path = f"/ws?token={trader(port)}" if kind == "logged in" else "/ws"
        time.sleep(SETTLE_S)
        idle_mb, idle = router.memory_mb(), router.cpu_share(IDLE_S)
        before_s = router.cpu_s()
        clients.tell(json.dumps(_job(port, path, sockets)))
        clients.answer(LATE_S)
        opening_s = router.cpu_s() - before_s
        time.sleep(SETTLE_S)
        open_mb, open_share = router.memory_mb() - idle_mb, router.cpu_share(IDLE_S)
        tally = _burst(venue, clients)
        used_mb = router.memory_mb() - idle_mb
    expect = frames // (len(SYMBOLS) * TRADE_EVERY)
    note = f"{open_mb * 1024 / sockets:.1f} KB a socket, {KINDS[kind]}; the process without them {idle_mb:.0f} MB"
    yield at_most(GROUP, f"{sockets} sockets, {kind}: memory", open_mb, "MB", MEMORY_MAX_MB, note=note)
    note = f"after each got {expect} trades, all at about the same time"
    yield at_most(GROUP, "  the same after a burst", used_mb, "MB", MEMORY_MAX_MB, note=note)
    note = "handshake, log-in where there is one, and subscription"
    yield Row(GROUP, "  CPU to open one", opening_s / sockets * 1e6, "µs", note=note)
    share = open_share - idle
    note = f"of one core, above {idle * 100:.1f} % without; {share / sockets * 1e6:.1f} µs a socket and second"
    yield Row(GROUP, "  CPU while nothing happens", share * 100, "%", note=note)
    lost = max(expect - tally["trades_fewest"], tally["holes"])
    yield at_most(GROUP, "  trades or sockets lost", lost + tally["closed"], "", 0)


def _job(port: int, path: str, sockets: int) -> Mapping[str, object]:
    symbols = [f"{SYMBOLS[number % len(SYMBOLS)]}USDT" for number in range(sockets)]
    subscriptions = [[{"action": "subscribe", "stream": "trades", "symbol": symbol}] for symbol in symbols]
    return {"port": port, "path": path, "subscriptions": subscriptions}


def _burst(venue: Child, clients: Child) -> Any:
    venue.tell("go")
    venue.answer(LATE_S)
    clients.tell("stop")
    return clients.answer(LATE_S)
