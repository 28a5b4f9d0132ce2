"""CPU of the server process per delivered message: the router, naive Channels, and the bare limit.

200 clients, each subscribed to one stream of trades of some 200 bytes. The servers run one after
the other in the same run; the clients are another process and not counted.
"""

import json
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from bench.processes import Child, Failed, free_port, router_environment, running
from bench.report import Row, at_least, at_most, failed

GROUP = "delivery"
CLIENTS = 200
OF_BARE_MAX = 0.6
OF_NAIVE_MIN = 50
ROUNDS = 5
LATE_S = 60.0  # after the last event was due, for a server that is slow


class Server(Struct, frozen=True):
    what: str
    module: str
    events: int
    per_second: float
    burst: int = 1  # events at a time


ALONE = Server("the router, one event at a time", "bench.router_web", 500, 100)
BARE_ALONE = Server("bare websockets.broadcast(), one event at a time", "bench.peers.bare_broadcast", 500, 100)
OURS = Server("the router, five events at a time", "bench.router_web", 500, 100, 5)
BARE = Server("bare websockets.broadcast(), five events at a time", "bench.peers.bare_broadcast", 500, 100, 5)
# Fewer events than its layer holds for a client (100), so that none is dropped however slow the machine.
NAIVE = Server("Channels, a group send to every client, daphne, five at a time", "bench.peers.naive_channels", 40, 8, 5)
SERVERS = (ALONE, BARE_ALONE, OURS, BARE, NAIVE)


def run(*, quick: bool) -> Iterator[Row]:
    costs: dict[Server, list[float]] = {server: [] for server in SERVERS}
    notes: dict[Server, str] = {}
    with router_environment(MARKET_SOURCE="simulated") as environment:
        # In turns: what else the machine does meanwhile meets all of them.
        for server in SERVERS * (1 if quick else ROUNDS):
            try:
                cost, notes[server] = measure(server, environment, quick=quick)
            except Failed as error:
                yield failed(GROUP, server.what, error)
                return
            costs[server].append(cost)
    for server in SERVERS:
        yield Row(GROUP, server.what, statistics.median(costs[server]), "µs", note=notes[server])
    alone = _ratio(costs[ALONE], costs[BARE_ALONE])
    yield Row(GROUP, "the router against the bare server, one at a time", alone, "×", note="both wait for the kernel")
    yield at_most(
        GROUP, "the router against the bare server, five at a time", _ratio(costs[OURS], costs[BARE]), "×", OF_BARE_MAX
    )
    yield at_least(GROUP, "naive Channels against the router", _ratio(costs[NAIVE], costs[OURS]), "×", OF_NAIVE_MIN)


def _ratio(one: list[float], other: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(mine / its for mine, its in zip(one, other, strict=True))


def measure(server: Server, environment: Mapping[str, str], *, quick: bool) -> tuple[float, str]:
    """Return the server's CPU in µs per message, and what was checked.

    Raises:
        Failed: a process failed, or a client missed a message.
    """
    events = server.events // 4 if quick else server.events
    port = free_port()
    job = {
        "port": port,
        "path": "/ws",
        "subscriptions": [[{"action": "subscribe", "stream": "trades", "symbol": "BTCUSDT"}]] * CLIENTS,
        "expect": events,
    }
    arguments = ["-m", server.module, str(port), str(events), str(server.per_second), str(server.burst)]
    with running(arguments, environment) as child, running(["-m", "bench.clients"]) as clients:
        child.answer()
        clients.tell(json.dumps(job))
        clients.answer()
        spent_s, tally = _deliver(child, clients, events / server.per_second)
    if tally["holes"] or tally["trades_fewest"] != events or tally["closed"]:
        raise Failed(f"messages were lost: {tally}")
    messages = CLIENTS * events
    size = tally["bytes"] / tally["frames"]["trades"]
    return spent_s / messages * 1e6, f"{events} events of {size:.0f} bytes, each received by every client, once"


def _deliver(server: Child, clients: Child, duration_s: float) -> tuple[float, Any]:
    before_s = server.cpu_s()
    server.tell("go")
    tally = clients.answer(duration_s + LATE_S)
    return server.cpu_s() - before_s, tally
