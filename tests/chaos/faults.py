"""What can go wrong, each as something that is done to a running system and is over when it returns."""

import asyncio
import contextlib
import random
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import psutil
import psycopg
import redis
from websockets.asyncio.client import connect

from core.money import UNITS
from marketdata.simulated.clients import ClientSocket
from marketdata.simulated.maker import Maker, Touch
from marketdata.simulated.venue import SimulatedVenue
from tests.chaos.board import INSTRUMENT, PROBED_SYMBOL, SYMBOL, VENUES
from tests.chaos.customers import PACE_S, PASSWORD
from tests.chaos.link import Link
from tests.chaos.services import Service
from tests.chaos.system import Production, System
from tests.chaos.trial import Fault, Strike, Unable, Wrong

BOTH, EMBEDDED, PRODUCTION = ("embedded", "production"), ("embedded",), ("production",)
HOLD_S = (2.5, 4.0)  # how long something lasts
LONG_S, LOCKED_S, LONGEST_S = (15.0, 15.0), (10.0, 10.0), (30.0, 30.0)
REPEATED_S = 0.15  # between two blows of a fault that strikes again and again
DELAY_S = 0.2
RHYTHM_S = 5.0  # in which a venue says so much that its silence is unusual
LIES_S = 0.02  # between two lies
LYING_S = 2.0
FLOOD_FRAMES_A_S = 50_000
FLOOD_STEP_S = 0.02
FLOOD_BURST_MAX = 2_000  # frames at once; what a slow machine owes is forgotten
FLOOD_BUFFER = 4 << 20
HUGE = 2 << 20
PRICE_LARGEST = 10**15  # units; far more than money can express
DOWN_S = 1.0
SLOW_CLIENTS, DEAF_CLIENTS = 200, 10
DROPPED_S = 16.0  # after so long nobody is kept who says or reads nothing
GROWTH_MAX = 100 << 20  # bytes of memory that abusive clients may cost
NORMAL_S = 6.0  # in which others' orders are timed before there is abuse, and after it
GUESSING_S = (12.0, 15.0)  # the slowest order alone is not what 99 % take: long enough for some hundred of them
SLOWER_MAX, UNNOTICED_S = 2.0, 0.3  # of 99 % of them then: so many times slower, or still so fast that nobody minds
GUESSES_A_SECOND, GUESSERS = 100, 8
LOG_IN_S = 3.0  # for somebody else, meanwhile
HOUR, DAY = 3600, 86_400


# -- processes


def killed(*names: str) -> Strike:
    async def strike(system: System, dice: random.Random) -> None:
        system.kill(await _process(system, dice.choice(names)))

    return strike


def frozen(*names: str, hold_s: tuple[float, float] = HOLD_S) -> Strike:
    async def strike(system: System, dice: random.Random) -> None:
        process = psutil.Process(system.pid(await _process(system, dice.choice(names))))
        process.suspend()
        try:
            await _hold(dice, hold_s)
        finally:
            process.resume()

    return strike


def without_files(*names: str) -> Strike:
    """The process may open no more files or sockets."""

    async def strike(system: System, dice: random.Random) -> None:
        process = psutil.Process(system.pid(await _process(system, dice.choice(names))))
        before = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), before[1]))
        try:
            await _hold(dice)
        finally:
            process.rlimit(psutil.RLIMIT_NOFILE, before)

    return strike


async def _process(system: System, name: str) -> str:
    if name == "matcher":
        assert isinstance(system, Production)
        return await system.leader()
    return name


# -- what they stand on


def service_killed(name: str) -> Strike:
    async def strike(system: System, dice: random.Random) -> None:
        service = _service(system, name)
        await asyncio.to_thread(service.kill)
        await asyncio.sleep(dice.uniform(0, DOWN_S))
        await asyncio.to_thread(service.start)

    return strike


def service_frozen(name: str, hold_s: tuple[float, float] = HOLD_S) -> Strike:
    async def strike(system: System, dice: random.Random) -> None:
        service = _service(system, name)
        service.signal(signal.SIGSTOP)
        try:
            await _hold(dice, hold_s)
        finally:
            service.signal(signal.SIGCONT)

    return strike


async def postgres_restarted(system: System, dice: random.Random) -> None:
    assert isinstance(system, Production)
    await asyncio.to_thread(system.postgres.restart)


async def redis_flushed(system: System, dice: random.Random) -> None:
    assert isinstance(system, Production)
    with redis.Redis.from_url(system.redis.url) as client:
        await asyncio.to_thread(client.flushall)


def locked(hold_s: tuple[float, float] = HOLD_S) -> Strike:
    """Somebody else holds what every writer needs."""

    async def strike(system: System, dice: random.Random) -> None:
        if isinstance(system, Production):
            async with await psycopg.AsyncConnection.connect(system.postgres.url) as connection:
                await connection.execute("LOCK TABLE trading_account, trading_order IN ACCESS EXCLUSIVE MODE")
                await _hold(dice, hold_s)
                await connection.rollback()
            return
        with contextlib.closing(sqlite3.connect(system.database_url.removeprefix("sqlite:///"))) as other:
            other.execute("BEGIN IMMEDIATE")
            await _hold(dice, hold_s)
            other.rollback()

    return strike


async def disk_full(system: System, dice: random.Random) -> None:
    if not system.disk.mounted:
        raise Unable("a file system of our own cannot be mounted here")
    await asyncio.to_thread(system.disk.fill)
    try:
        await _hold(dice)
    finally:
        await asyncio.to_thread(system.disk.free)
    if isinstance(system, Production):
        await asyncio.to_thread(system.postgres.revive)


def clock_set(offset_s: int) -> Strike:
    """The wall clock jumps, and back again."""

    async def strike(system: System, dice: random.Random) -> None:
        assert system.clock is not None
        system.clock.set(offset_s)
        await _hold(dice)
        system.clock.set(0)
        await _hold(dice)

    return strike


# -- the network


def network(name: str, what: str, process: str | None = None) -> Strike:
    """A cable is pulled ("held"), cut again and again, cut in the middle of a frame, slow, or leads nowhere."""

    async def strike(system: System, dice: random.Random) -> None:
        to = dice.choice(VENUES) if name == "venue" else name
        link = system.links[to]
        pids = None if process is None else {system.pid(await _process(system, process))}
        unheard = to in VENUES and what in ("held", "refused")
        with system.board.unheard(to) if unheard else contextlib.nullcontext():
            try:
                await _disturb(link, what, pids, dice)
            finally:
                link.heal()
                if what == "held" and dice.random() < 0.5:
                    link.cut(pids)  # as often as not, what was held is lost

    return strike


async def _disturb(link: Link, what: str, pids: set[int] | None, dice: random.Random) -> None:
    if what == "held":
        link.hold(pids)
    elif what == "slow":
        link.delay_s = DELAY_S
    elif what == "repeated":
        link.repeating = True
    elif what == "cut in a frame":
        link.cutting = True
    elif what == "refused":
        link.refusing = True
        link.cut(pids)
    else:
        assert what == "cut", what
        end_s = time.monotonic() + dice.uniform(*HOLD_S)
        while time.monotonic() < end_s:
            link.cut(pids)
            await asyncio.sleep(dice.uniform(0, 2 * REPEATED_S))
        return
    await _hold(dice)


# -- venues


def venue(strike: Callable[[System, SimulatedVenue, random.Random], Awaitable[None]]) -> Strike:
    """Have it done to one of the venues."""

    async def chosen(system: System, dice: random.Random) -> None:
        await strike(system, system.market[dice.choice(VENUES)], dice)

    return chosen


async def stalled(system: System, one: SimulatedVenue, dice: random.Random, *, answering: bool = True) -> None:
    if answering:
        await asyncio.sleep(RHYTHM_S)  # else the router, which knows it for a moment only, may take it for a quiet one
    with system.board.unheard(one.name):
        one.stall(answering=answering)
        try:
            await _hold(dice)
        finally:
            one.resume()


async def refusing(system: System, one: SimulatedVenue, dice: random.Random) -> None:
    with system.board.unheard(one.name):
        one.refuse()
        one.abort()
        try:
            await asyncio.sleep(DOWN_S)
        finally:
            one.refuse(False)


def _corrupt(one: SimulatedVenue) -> None:
    """Only Kraken sends checksums; to the others' connections this happens."""
    if one.name == "kraken":
        one.corrupt_checksum()
    else:
        one.abort()


async def halted(system: System, one: SimulatedVenue, dice: random.Random) -> None:
    """Kraken says that its engine does not trade; the others have no such word and close the connection."""
    if one.name != "kraken":
        one.drop()
        return
    with system.board.unheard(one.name):
        one.set_status("maintenance")
        try:
            await _hold(dice)
        finally:
            one.set_status("online")


def blows(blow: Callable[[SimulatedVenue], object]) -> Strike:
    """The same again and again, for a while."""

    async def strike(system: System, one: SimulatedVenue, dice: random.Random) -> None:
        end_s = time.monotonic() + dice.uniform(*HOLD_S)
        while time.monotonic() < end_s:
            blow(one)
            await asyncio.sleep(dice.uniform(0, 2 * REPEATED_S))

    return venue(strike)


class _Told:
    """A maker as a liar tells of it."""

    def __init__(self, maker: Maker, touch: Touch) -> None:
        self._maker = maker
        self.touch = touch
        maker.version += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._maker, name)


def lies(lie: Callable[[Touch, random.Random], Touch]) -> Strike:
    """Between its true quotes the venue tells others."""

    async def strike(system: System, one: SimulatedVenue, dice: random.Random) -> None:
        maker = one.makers[INSTRUMENT]
        end_s = time.monotonic() + LYING_S
        while time.monotonic() < end_s:
            told: Any = _Told(maker, lie(maker.touch, dice))
            one._send("lie", one.dialect.touch(told, time.time_ns()))
            await asyncio.sleep(LIES_S)

    return venue(strike)


def crossed(touch: Touch, dice: random.Random) -> Touch:
    return touch._replace(bid=touch.ask + dice.randint(1, 1000))


def zero(touch: Touch, dice: random.Random) -> Touch:
    return dice.choice((touch._replace(bid=0), touch._replace(ask=0), touch._replace(bid=0, ask=0)))


def negative(touch: Touch, dice: random.Random) -> Touch:
    return dice.choice((touch._replace(bid=-touch.bid), touch._replace(ask=-touch.ask), touch._replace(ask_size=-1)))


def absurd(touch: Touch, dice: random.Random) -> Touch:
    """Far away from everybody else, and not even crossed."""
    if dice.random() < 0.1:
        return touch._replace(bid=PRICE_LARGEST * UNITS, ask=PRICE_LARGEST * UNITS + 1)
    factor = dice.choice((0.001, 0.1, 0.5, 2, 10, 1000))
    return touch._replace(bid=int(touch.bid * factor), ask=int(touch.ask * factor) + 1)


async def flooding(system: System, one: SimulatedVenue, dice: random.Random) -> None:
    """Fifty thousand frames a second, each of them news."""
    maker = one.makers[INSTRUMENT]
    end_s, sent, began_s = time.monotonic() + LYING_S, 0, time.monotonic()
    while (now_s := time.monotonic()) < end_s:
        due = min(int((now_s - began_s) * FLOOD_FRAMES_A_S) - sent, FLOOD_BURST_MAX)
        sockets = [socket for socket in one._sockets if isinstance(socket, ClientSocket)]
        frames = bytearray()
        for number in range(due):
            touch = maker.touch._replace(bid_size=maker.touch.bid_size + number % 97)
            told: Any = _Told(maker, touch)
            for _, text in one.dialect.touch(told, time.time_ns()):
                frames += _frame(text.encode())
        for socket in sockets:
            transport = socket.connection.transport
            if transport.get_write_buffer_size() < FLOOD_BUFFER:
                transport.write(bytes(frames))
        sent += due
        await asyncio.sleep(FLOOD_STEP_S)


def _frame(payload: bytes) -> bytes:
    """Return a server's text frame."""
    size = len(payload)
    return bytes((0x81, size) if size < 126 else (0x81, 126, size >> 8, size & 0xFF)) + payload


# -- clients


async def slow_clients(system: System, dice: random.Random) -> None:
    """Half requests that never end and sockets that never read, until all of them were dropped."""
    async with _others(system, dice):
        await _slow_clients(system, dice)


async def _slow_clients(system: System, dice: random.Random) -> None:
    memory = _memory(system)
    host, port = system.url.removeprefix("http://").split(":")
    tasks = []
    for number in range(SLOW_CLIENTS):
        body = number % 2 == 1
        tasks.append(asyncio.create_task(_drip(host, int(port), body=body)))
    _, token = await _user(system, dice)
    tasks += [asyncio.create_task(_deaf(system.url, token)) for _ in range(DEAF_CLIENTS)]
    _, kept = await asyncio.wait(tasks, timeout=DROPPED_S)
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)
    grown = _memory(system) - memory
    if len(kept) > DEAF_CLIENTS:
        raise Wrong(f"{len(kept)} of {len(tasks)} clients that say nothing were kept for {DROPPED_S:.0f} s")
    if grown > GROWTH_MAX:
        raise Wrong(f"they cost {grown >> 20} MiB of memory")


async def _drip(host: str, port: int, *, body: bool) -> None:
    """Send a request a byte a second, its header or its body, until the server has enough."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /login HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    if body:
        writer.write(f"{head}Content-Length: 1000\r\n\r\n".encode())
        rest = b"{" * 1000
    else:
        rest = head.encode()
    closed = asyncio.create_task(reader.read())
    try:
        for number in range(len(rest)):
            writer.write(rest[number : number + 1])
            done, _ = await asyncio.wait((closed,), timeout=1.0)
            if done:
                return
    except ConnectionError:
        return
    finally:
        closed.cancel()
        await asyncio.gather(closed, return_exceptions=True)
        writer.transport.abort()


async def _deaf(url: str, token: str) -> None:
    """Subscribe to everything and read nothing."""
    with contextlib.suppress(Exception):
        async with connect(f"{url.replace('http', 'ws', 1)}/ws?token={token}", max_queue=1, compression=None) as socket:
            for symbol in (SYMBOL, PROBED_SYMBOL):
                for stream in ("best_touch", "trades", "orderbook"):
                    await socket.send(f'{{"action":"subscribe","stream":"{stream}","symbol":"{symbol}"}}')
            socket.transport.pause_reading()
            await socket.wait_closed()


async def flooding_clients(system: System, dice: random.Random) -> None:
    """Users who send commands as fast as they can, over sockets and requests, right ones and wrong ones."""
    _, token = await _user(system, dice)
    end_s = time.monotonic() + dice.uniform(*HOLD_S)
    order = f'{{"action":"submit_order","token_id":"%d","symbol":"{SYMBOL}","side":"buy","price":1,"quantity":1}}'

    async def socket() -> None:
        with contextlib.suppress(Exception):
            url = f"{system.url.replace('http', 'ws', 1)}/ws?token={token}"
            async with connect(url, max_queue=None, compression=None) as one:
                reading = asyncio.create_task(_read_all(one))
                number = 0
                while time.monotonic() < end_s:
                    await one.send(dice.choice((order % number, '{"action":"ping"}', "{", "[]", '{"action":"x"}')))
                    number += 1
                reading.cancel()

    async def requests() -> None:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=system.url, headers=headers, timeout=5) as http:
            while time.monotonic() < end_s:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.post("/orders", content=dice.choice((b"{", b"[]", b'{"token_id":1}', b"\xff")))
                    if answer.status_code >= 500 and answer.status_code != 503:
                        raise Wrong(f"{answer.status_code}: {answer.text[:200]}")

    await asyncio.gather(*(socket() for _ in range(4)), *(requests() for _ in range(2)))


async def guessing_clients(system: System, dice: random.Random) -> None:
    """Somebody guesses passwords, while somebody else, at another address, logs in."""
    async with _others(system, dice) as name, httpx.AsyncClient(base_url=system.url, timeout=10) as http:
        end_s = time.monotonic() + dice.uniform(*GUESSING_S)

        async def guess(number: int) -> None:
            while time.monotonic() < end_s:
                body = {"username": f"nobody{number}", "password": f"guess{dice.random()}"}
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.post("/login", json=body)
                    if answer.status_code not in (401, 429, 503):
                        raise Wrong(f"{answer.status_code}: {answer.text[:200]}")
                await asyncio.sleep(GUESSERS / GUESSES_A_SECOND)

        await asyncio.gather(*(guess(number) for number in range(GUESSERS)), _logs_in(system, name))


async def _logs_in(system: System, name: str) -> None:
    """Log in at another address than all others, which the proxy cannot have."""
    from_elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx.AsyncClient(base_url=system.webs[0], transport=from_elsewhere, timeout=LOG_IN_S) as http:
        try:
            answer = await http.post("/login", json={"username": name, "password": PASSWORD})
        except httpx.TimeoutException:
            raise Wrong(f"nobody else could log in within {LOG_IN_S:.0f} s") from None
    if answer.status_code != 200:
        raise Wrong(f"nobody else could log in: {answer.status_code} {answer.text[:200]}")


@contextlib.asynccontextmanager
async def _others(system: System, dice: random.Random) -> AsyncIterator[str]:
    """Time somebody else's orders before and during abuse; give the name of that somebody."""
    name, token = await _user(system, dice)
    async with httpx.AsyncClient(base_url=system.url, headers={"Authorization": f"Bearer {token}"}) as http:
        (await http.post("/deposit", json={"asset": "USDT", "amount": "1000"})).raise_for_status()
    normal = await _orders(system, token, time.monotonic() + NORMAL_S)
    over = asyncio.Event()
    meanwhile = asyncio.create_task(_orders(system, token, float("inf"), over))
    try:
        yield name
    finally:
        over.set()
        found = await meanwhile
    normal += await _orders(system, token, time.monotonic() + NORMAL_S)
    found_s, normal_s = _slow(found), _slow(normal)
    if found_s > max(SLOWER_MAX * normal_s, UNNOTICED_S):
        raise Wrong(
            f"99 % of others' {len(found)} orders took up to {found_s * 1e3:.0f} ms, and {normal_s * 1e3:.0f} ms of the"
            f" {len(normal)} before and after"
        )


async def _orders(system: System, token: str, until_s: float, over: asyncio.Event | None = None) -> list[float]:
    """Place orders that expire at once; return how long each took."""
    took = []
    order = {"symbol": SYMBOL, "side": "buy", "order_type": "ioc", "price": "1", "quantity": "0.001"}
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers, timeout=10) as http:
        while time.monotonic() < until_s and not (over and over.is_set()):
            began_s = time.monotonic()
            answer = await http.post("/orders", json={**order, "token_id": f"timed-{began_s}"})
            if answer.status_code != 201:
                raise Wrong(f"an order of somebody else: {answer.status_code} {answer.text[:200]}")
            took.append(time.monotonic() - began_s)
            await asyncio.sleep(PACE_S)
    return took


def _slow(took: list[float]) -> float:
    """Return what 99 % of them took at most."""
    return sorted(took)[len(took) * 99 // 100 - (len(took) % 100 == 0)]


async def _read_all(socket: Any) -> None:
    with contextlib.suppress(Exception):
        async for _ in socket:
            pass


async def _user(system: System, dice: random.Random) -> tuple[str, str]:
    """Make a user; return the name and an access token."""
    name = f"user{dice.randrange(10**9)}"
    async with httpx.AsyncClient(base_url=system.url, timeout=10) as http:
        answer = await http.post("/register", json={"username": name, "password": PASSWORD})
        return name, str(answer.raise_for_status().json()["access_token"])


def _memory(system: System) -> int:
    """Return what the router's processes hold, bytes."""
    return sum(psutil.Process(system.pid(name)).memory_info().rss for name in system.processes)


# -- all of them


async def _hold(dice: random.Random, hold_s: tuple[float, float] = HOLD_S) -> None:
    await asyncio.sleep(dice.uniform(*hold_s))


def _service(system: System, name: str) -> Service:
    assert isinstance(system, Production)
    return system.postgres if name == "postgres" else system.redis


def _network() -> Iterator[Fault]:
    for what in ("held", "cut", "cut in a frame", "slow", "refused"):
        yield Fault(f"clients' network {what}", network("clients", what), BOTH)
        yield Fault(f"PostgreSQL's network {what}", network("database", what), PRODUCTION)
        yield Fault(f"Redis's network {what}", network("redis", what), PRODUCTION, age_s=6.0)
    for what in ("held", "cut", "cut in a frame", "slow", "refused", "repeated"):
        yield Fault(f"network to a venue {what}", network("venue", what), BOTH)
    for process in ("web 1", "matcher", "feeds"):
        for name in ("database", "redis"):
            service = "PostgreSQL" if name == "database" else "Redis"
            who = "leading matcher" if process == "matcher" else process
            strike = network(name, "held", process)
            yield Fault(f"{who} cut off from {service}", strike, PRODUCTION, age_s=6.0)


def _venues() -> Iterator[Fault]:
    yield Fault("venue stalled", venue(stalled), BOTH)
    yield Fault("venue half-open", venue(partial(stalled, answering=False)), BOTH)
    yield Fault("venue refuses", venue(refusing), BOTH)
    yield Fault("venue closes", blows(SimulatedVenue.drop), BOTH)
    yield Fault("venue resets", blows(SimulatedVenue.abort), BOTH)
    yield Fault("venue halted", venue(halted), BOTH)
    yield Fault("venue skips trades", blows(lambda one: one.skip_trades(3)), BOTH)
    yield Fault("venue repeats trades", blows(lambda one: one.repeat_trades(5)), BOTH)
    yield Fault("venue's checksums wrong", blows(_corrupt), BOTH)
    yield Fault("venue sends garbage", blows(SimulatedVenue.garbage), BOTH)
    yield Fault("venue sends megabytes", blows(lambda one: one.tell("huge", "x" * HUGE)), BOTH)
    yield Fault("venue floods", venue(flooding), BOTH)
    for lie in (crossed, zero, negative, absurd):
        yield Fault(f"venue lies: {lie.__name__} prices", lies(lie), BOTH)


FAULTS = (
    Fault("router killed", killed("router"), EMBEDDED, ci=10, age_s=5.0),
    Fault("web process killed", killed("web 1", "web 2"), PRODUCTION, ci=10),
    Fault("leading matcher killed", killed("matcher"), PRODUCTION, ci=5),
    Fault("feeds killed", killed("feeds"), PRODUCTION, ci=5, age_s=5.0),
    Fault("proxy killed", killed("proxy"), PRODUCTION),
    Fault("router frozen", frozen("router"), EMBEDDED),
    Fault("web process frozen", frozen("web 1", "web 2"), PRODUCTION),
    Fault("leading matcher frozen", frozen("matcher"), PRODUCTION),
    Fault("feeds frozen", frozen("feeds"), PRODUCTION, age_s=5.0),
    Fault("proxy frozen", frozen("proxy"), PRODUCTION),
    Fault("router frozen for 15 s", frozen("router", hold_s=LONG_S), EMBEDDED),
    Fault("web process frozen for 15 s", frozen("web 1", "web 2", hold_s=LONG_S), PRODUCTION),
    Fault("leading matcher frozen for 15 s", frozen("matcher", hold_s=LONG_S), PRODUCTION),
    Fault("feeds frozen for 15 s", frozen("feeds", hold_s=LONG_S), PRODUCTION, age_s=5.0),
    Fault("no file to open", without_files("router"), EMBEDDED),
    Fault("no file to open", without_files("web 1", "feeds"), PRODUCTION, age_s=6.0),
    Fault("PostgreSQL killed", service_killed("postgres"), PRODUCTION, ci=2),
    Fault("PostgreSQL restarted at once", postgres_restarted, PRODUCTION),
    Fault("PostgreSQL frozen", service_frozen("postgres"), PRODUCTION),
    Fault("Redis killed", service_killed("redis"), PRODUCTION, ci=2, age_s=6.0),
    Fault("Redis flushed", redis_flushed, PRODUCTION),
    Fault("Redis frozen", service_frozen("redis"), PRODUCTION, age_s=6.0),
    Fault("Redis frozen for 30 s", service_frozen("redis", LONGEST_S), PRODUCTION, age_s=6.0),
    Fault("database locked", locked(), BOTH),
    Fault("database locked for 10 s", locked(LOCKED_S), BOTH),
    Fault("disk full", disk_full, BOTH),
    *(
        Fault(f"clock set by {name}", clock_set(offset_s), BOTH, age_s=None, own="clock")
        for name, offset_s in (("+1 h", HOUR), ("-1 h", -HOUR), ("+1 d", DAY), ("-1 d", -DAY))
    ),
    *_network(),
    *_venues(),
    Fault("clients half-open and deaf", slow_clients, BOTH),
    Fault("clients flood", flooding_clients, BOTH),
    Fault("clients guess passwords", guessing_clients, BOTH),
)
