"""The hostile corpus against every address of a running router, by every method and as anybody.

    python -m tests.fuzz.requests --requests 1000000 --profile production --seed 7

An answer must come within `SLOW_S`, be no 5xx, be the contract's JSON where it is a refusal, and a refusal must leave
the account as it was. What fails is told with its name and its bytes; a seed asks the same requests again.
"""

import argparse
import asyncio
import itertools
import json
import math
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from tests.fuzz import corpus
from tests.fuzz.corpus import Body, Headers
from tests.running import ROOT, Router

SLOW_S = 2.0
TRIES = 4
BUSY_S = 0.2  # for a request that usually takes some milliseconds
BUSY_MAX = 50
GIVEN_UP_S = 30.0
SENDERS = 8  # each with an account and a connection of its own; fewer than passwords that may wait to be hashed
LOOK_EVERY = 10  # refusals, after which the account is looked at
FAILURES_MAX = 20
READ_MAX = 2**24
PAGES = ("/admin", "/session", "/static")  # for browsers: their refusals may be pages
PUBLIC_READS = ("/docs", "/redoc", "/ws-docs")
MONEY = ("/deposit", "/orders", "/account")
PROFILES = ("embedded", "production")
BODIES_IN_BRIEF = 150  # of each address in each profile; both together ask it with 300
ERROR_MEMBERS = {"detail", "message", "code"}
OWN = "{own}"  # in an address: the sender's resting order
START = {"balances": {"USDT": 1_000_000, "BTC": 10}}
ROOT_USER = ("root", "a-root-password")

ASKED = b"\x00asked\x00"  # in a body: replaced by a word that no order has yet


class Request(NamedTuple):
    """What is asked; `as_whom` is how it is signed: the sender's token where there is none."""

    name: str
    method: str
    target: str
    body: Body | None = None
    as_whom: Headers | None = None


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/json")


class Operation(NamedTuple):
    """An address with a method; `valid` is a body that it takes, where it takes one."""

    method: str
    path: str
    valid: Mapping[str, Any] | None


@dataclass
class Tally:
    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: str = ""
    looks: int = 0
    failures: list[str] = field(default_factory=list)
    _kinds: set[tuple[str, str, str]] = field(default_factory=set)

    @property
    def requests(self) -> int:
        return self.statuses.total()

    def failed(self, request: Request, why: str, raw: bytes = b"") -> None:
        """Keep the first failure of each kind at each address, its bytes without the credentials."""
        kind = (request.method, request.target.partition("?")[0], why[:40])
        if kind not in self._kinds:
            self._kinds.add(kind)
            shown = re.sub(rb"eyJ[\w.-]{20,}", b"TOKEN", raw)
            shown = shown if len(shown) < 1_000 else shown[:700] + b" ... " + shown[-100:]
            self.failures.append(f"{request.method} {request.target[:100]} [{request.name}]: {why}\n    {shown!r}")


# -- what there is to ask


async def operations(url: str) -> list[Operation]:
    """Return what the schema lists, and every address of the router beside it, so that a new one is asked by itself."""
    async with httpx.AsyncClient(base_url=url, timeout=GIVEN_UP_S) as http:
        schema = (await http.get("/openapi.json")).json()
    found = [
        Operation(method.upper(), _filled(path), _valid(operation, schema))
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    ]
    listed = {operation.path for operation in found}
    return found + [Operation("GET", path, None) for path in routes() if path not in listed]


def routes() -> Iterator[str]:
    """Yield every address that Django routes, its placeholders filled."""
    from django.urls import URLPattern, URLResolver, get_resolver

    def walk(patterns: Iterable[Any], prefix: str) -> Iterator[str]:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, route)
            elif isinstance(pattern, URLPattern):
                yield _filled(route)

    yield from dict.fromkeys(walk(get_resolver().url_patterns, "/"))


def _filled(route: str) -> str:
    route = re.sub(r"\^?\(\?P<(\w+)>[^)]*\)/?\$", r"{\1}", route)
    route = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)
    values = {"token": OWN, "exchange": "all", "symbol": "BTCUSDT", "app_label": "trading"}
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "1"), route)


def _valid(operation: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a body with every member that the examples, or the schema, name."""
    content = operation.get("requestBody", {}).get("content", {}).get(corpus.JSON)
    if content is None:
        return None
    members: dict[str, Any] = {}
    for example in content.get("examples", {}).values():
        members = {**example["value"], **members}
    if not members:
        named = schema["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        members = dict.fromkeys(named["properties"], "a")
    if "token_id" in members:
        members["token_id"] = ASKED.decode()
    if "username" in members:
        members["username"] = "fuzz-" + members["username"]
    return members


def plan(found: Sequence[Operation], *, seed: int, part: int = 0, parts: int = 1) -> Iterator[Request]:
    """Yield one part of all hostile requests, then mutations without an end."""
    dice = random.Random(f"{seed}:{part}")
    whole = [*_bodies(found), *_addresses(found), *_queries(found), *_signed(found)][part::parts]
    dice.shuffle(whole)
    api = [request for request in whole if not request.target.startswith(PAGES)]
    yield from api
    yield from (request for request in whole if request.target.startswith(PAGES))
    while True:
        yield _mutation(found, dice)


def brief(found: Sequence[Operation], *, seed: int, part: int, parts: int, bodies: int) -> Iterator[Request]:
    """Yield what there is time for with each change: so many of each address' bodies, and a sample of the rest.

    The parts have different ones, so that together they ask each address so many times the number of parts.
    """
    dice = random.Random(seed)
    by_path: dict[str, list[Request]] = {}
    for request in _bodies([one for one in found if not one.path.startswith(PAGES)]):
        by_path.setdefault(request.target, []).append(request)
    chosen: list[Request] = []
    for each in by_path.values():
        dice.shuffle(each)
        chosen += each[part * bodies : (part + 1) * bodies]
    pages = list(_bodies([one for one in found if one.path.startswith(PAGES)]))
    rest = [*_addresses(found), *_queries(found), *_signed(found)]
    dice.shuffle(pages)
    dice.shuffle(rest)
    chosen += [*pages[part : 150 * parts : parts], *rest[part : 700 * parts : parts]]
    random.Random(f"{seed}:{part}").shuffle(chosen)
    yield from chosen
    for _ in range(300):
        yield _mutation(found, dice)


def _bodies(found: Iterable[Operation]) -> Iterator[Request]:
    """Yield each body for each address: by the method that reads it, and now and then by another one."""
    for path, each in itertools.groupby(sorted(found, key=lambda one: one.path), key=lambda one: one.path):
        methods = list(each)
        reading = [one for one in methods if one.valid is not None]
        valid = next((one.valid for one in reading if one.valid), None)
        usual = itertools.cycle(
            [one.method for one in reading] or [*(one.method for one in methods), "POST", "PUT", "DELETE"]
        )
        others = itertools.cycle(corpus.METHODS)
        for number, body in enumerate(corpus.bodies(valid or corpus.ORDER)):
            yield Request(body.name, next(others if number % 8 == 7 else usual), path, body)


def _addresses(found: Iterable[Operation]) -> Iterator[Request]:
    for operation in found:
        parts = operation.path.split("/")
        for place, segment in itertools.product(range(1, len(parts)), corpus.SEGMENTS):
            target = "/".join((*parts[:place], segment, *parts[place + 1 :]))
            yield Request(f"address: {segment[:30]}", operation.method, target, _taken(operation))
        for segment in corpus.SEGMENTS[:20]:
            yield Request(
                f"address: more {segment}", operation.method, f"{operation.path}/{segment}", _taken(operation)
            )
        for number, target in enumerate(
            (operation.path + "/", operation.path + "//", "/" + operation.path, operation.path.upper())
        ):
            yield Request(f"address: slashes {number}", operation.method, target, _taken(operation))


def _queries(found: Iterable[Operation]) -> Iterator[Request]:
    for operation in found:
        for query in corpus.QUERIES:
            yield Request(f"query: {query[:30]}", operation.method, f"{operation.path}?{query}", _taken(operation))
        for name, value in itertools.product(corpus.PARAMETERS, corpus.PARAMETER_VALUES):
            target = f"{operation.path}?{name}={value}"
            yield Request(f"query: {name}={value[:30]}", operation.method, target, _taken(operation))


def _signed(found: Iterable[Operation]) -> Iterator[Request]:
    for operation in found:
        for number, credentials in enumerate(corpus.CREDENTIALS):
            yield Request(f"credentials: {number}", operation.method, operation.path, _taken(operation), credentials)
        for method in (*corpus.METHODS, *corpus.ODD_METHODS):
            yield Request(f"method: {method}", method, operation.path, _taken(operation))


def _taken(operation: Operation) -> Body | None:
    """Return a good body for an operation that takes one."""
    return None if operation.valid is None else Body("good", json.dumps(operation.valid).encode())


def _mutation(found: Sequence[Operation], dice: random.Random) -> Request:
    operation = dice.choice([one for one in found if one.valid] if dice.random() < 0.8 else found)
    valid = operation.valid or corpus.ORDER
    data = corpus.with_odd_values(valid, dice) if dice.random() < 0.6 else json.dumps(valid).encode()
    if dice.random() < 0.6:
        data = corpus.mutated(data, dice)
    pieces = (dice.randint(1, 50),) if dice.random() < 0.1 else ()
    method = operation.method if dice.random() < 0.9 else dice.choice(corpus.METHODS)
    return Request("mutation", method, operation.path, Body("mutation", data, pieces=pieces))


# -- how it is asked


class Connection:
    """HTTP/1.1 as bytes: a library would not let these pass. Kept alive as long as the server likes."""

    def __init__(self, url: str) -> None:
        self._where = urlsplit(url)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def raw(self, request: Request, signed: Headers) -> bytes:
        body = request.body
        headers = [*signed, *(body.headers if body else ())]
        if not any(name == "Host" for name, _ in headers):
            headers.insert(0, ("Host", self._where.netloc.encode()))
        data = b"" if body is None else body.data
        if body is not None and body.content_type is not None:
            headers.append(("Content-Type", body.content_type.encode("latin-1")))
        if body is not None and body.pieces:
            headers.append(("Transfer-Encoding", b"chunked"))
            data = b"".join(_chunks(data, body.pieces))
        elif body is not None:
            headers.append(("Content-Length", str(len(data)).encode()))
        head = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in headers)
        return f"{request.method} {request.target} HTTP/1.1\r\n".encode("latin-1") + head + b"\r\n" + data

    async def ask(self, raw: bytes, *, head_only: bool = False) -> Answer:
        """Send and read the answer; on a new connection where the kept one is gone."""
        fresh = self._writer is None or self._writer.is_closing()
        if fresh:
            await self._connect()
        assert self._writer is not None
        try:
            self._writer.write(raw)
            answer = await self._read(head_only=head_only)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            if fresh:
                raise
            return await self.ask(raw, head_only=head_only)
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            self._where.hostname, self._where.port, limit=READ_MAX
        )

    async def _read(self, *, head_only: bool) -> Answer:
        assert self._reader is not None
        while True:
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ", 2)[1])
            if status >= 200:
                break
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        if head_only or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, await self._read_chunks())
        if "content-length" not in headers:
            raise ValueError("neither a length nor chunks")
        return Answer(status, headers, await self._reader.readexactly(int(headers["content-length"])))

    async def _read_chunks(self) -> bytes:
        assert self._reader is not None
        whole = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            whole += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return whole

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _chunks(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    start = 0
    for size in itertools.chain(sizes, itertools.repeat(sizes[-1])):
        piece = data[start : start + size]
        if not piece:
            break
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        start += size
    yield b"0\r\n\r\n"


class Sender:
    """One account that is attacked, and what is true of it between two accepted writes."""

    def __init__(self, url: str, token: str, cookie: Headers, name: str, tally: Tally) -> None:
        self._connection = Connection(url)
        self._signed: Headers = (("Authorization", f"Bearer {token}".encode()),)
        self._cookie = cookie
        self._name = name
        self._tally = tally
        self._words = itertools.count()
        self._own = ""
        self._state = b""
        self._unseen: list[Request] = []  # refused since the account was looked at

    async def prepare(self) -> None:
        """Give the account the balances and the one open order that it has whenever a request is refused."""
        self._own = f"{self._name}-{next(self._words)}"
        await self._good("POST", "/account/reset", START, 200)
        order = {"token_id": self._own, "symbol": "BTCUSDT", "side": "buy", "price": 1, "quantity": 1}
        await self._good("POST", "/orders", order, 201)
        self._state = await self._good("GET", "/balance", None, 200)
        self._unseen = []

    async def send(self, request: Request) -> None:
        request, raw = self._made(request)
        accepted = False
        try:
            for _ in range(TRIES):  # the machine may have stood still: what is slow is slow each time
                answer, took_s = await self._ask(request, raw)
                accepted |= answer.status < 300
                if took_s <= SLOW_S:
                    break
                await self._wait_while_busy()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, ValueError) as error:
            self._connection.close()
            self._tally.failed(request, f"no answer: {error!r}", raw)
            return
        self._tally.statuses[answer.status] += 1
        if took_s > self._tally.slowest_s:
            self._tally.slowest_s, self._tally.slowest = (
                took_s,
                f"{request.method} {request.target[:60]} [{request.name}]",
            )
        if (why := complaint(request, answer, took_s)) is not None:
            self._tally.failed(request, why, raw)
        if (
            accepted
            and request.method in ("POST", "PUT", "DELETE", "PATCH")
            and request.target.lstrip("/").startswith(tuple(place[1:] for place in MONEY))
        ):
            await self.prepare()
            return
        self._unseen.append(request)
        if len(self._unseen) >= LOOK_EVERY:
            await self.look()

    async def look(self) -> None:
        """See that what was refused changed nothing."""
        self._tally.looks += 1
        state = await self._good("GET", "/balance", None, 200)
        if state != self._state:
            asked = "; ".join(f"{one.method} {one.target[:60]} [{one.name}]" for one in self._unseen)
            self._tally.failed(self._unseen[-1], f"the account changed: {state.decode()}, asked before: {asked}")
            await self.prepare()
        self._unseen = []

    async def _wait_while_busy(self) -> None:
        """Return when what is never slow is fast again."""
        for _ in range(BUSY_MAX):
            began_s = time.perf_counter()
            await self._good("GET", "/health", None, 200)
            if time.perf_counter() - began_s < BUSY_S:
                return

    def close(self) -> None:
        self._connection.close()

    def _made(self, request: Request) -> tuple[Request, bytes]:
        if OWN in request.target:
            request = request._replace(target=request.target.replace(OWN, self._own))
        body = request.body
        if body is not None:
            word = f"{self._name}-{next(self._words)}"
            data = body.data
            for written in (b"\\u0000asked\\u0000", ASKED):
                data = data.replace(written, word.encode())
            request = request._replace(body=body._replace(data=data))
        signed = request.as_whom
        if signed is None:
            is_page = request.target.startswith(PAGES) and "logout" not in request.target
            signed = self._cookie if is_page else self._signed
        return request, self._connection.raw(request, signed)

    async def _ask(self, request: Request, raw: bytes) -> tuple[Answer, float]:
        began_s = time.perf_counter()
        async with asyncio.timeout(GIVEN_UP_S):
            answer = await self._connection.ask(raw, head_only=request.method == "HEAD")
        return answer, time.perf_counter() - began_s

    async def _good(self, method: str, path: str, body: Any, status: int) -> bytes:
        sent = None if body is None else Body("good", json.dumps(body).encode())
        raw = self._connection.raw(Request("good", method, path, sent), self._signed)
        answer = await self._connection.ask(raw)
        assert answer.status == status, (method, path, answer)
        return answer.body


def complaint(request: Request, answer: Answer, took_s: float) -> str | None:
    """Return what is wrong with an answer; None when nothing is."""
    if answer.status >= 500:
        return f"{answer.status}: {answer.body[:300]!r}"
    if took_s > SLOW_S:
        return f"took {took_s:.1f} s, each time"
    if request.method == "HEAD" or answer.status in (204, 304):
        return None
    if answer.is_json:
        try:
            told = json.loads(answer.body, parse_constant=_no_number)
        except ValueError as error:
            return f"{answer.status}, not JSON: {error}: {answer.body[:300]!r}"
        if answer.status >= 400 and not (isinstance(told, dict) and told.keys() >= ERROR_MEMBERS):
            return f"{answer.status}, not an error as the contract shapes it: {answer.body[:300]!r}"
    elif answer.status >= 400 and not (request.target.startswith(PAGES) or _wants_pages(request)):
        return f"{answer.status}, not JSON: {answer.body[:300]!r}"
    if answer.status == 401 and "www-authenticate" not in answer.headers:
        return "401 without WWW-Authenticate"
    return None


def _no_number(name: str) -> float:
    raise ValueError(name)


def _wants_pages(request: Request) -> bool:
    headers = request.body.headers if request.body else ()
    return any(name == "Accept" and b"text/html" in value for name, value in headers) or "format=api" in request.target


# -- the whole of it


async def attack(router: Router, requests: Iterable[Request], *, until_s: float = math.inf) -> Tally:
    """Send requests by all senders at once, until a time of the monotonic clock; stop where much fails."""
    tally = Tally()
    cookie = await _root_cookie(router)
    left = iter(requests)
    senders = []
    for one in range(SENDERS):
        name = f"fuzz{one}-{random.SystemRandom().randrange(10**6)}"
        url = router.urls[one % len(router.urls)]
        senders.append(Sender(url, await router.register(name), cookie, name, tally))

    async def drain(sender: Sender) -> None:
        try:
            await sender.prepare()
            for request in left:  # the senders share it
                await sender.send(request)
                if len(tally.failures) >= FAILURES_MAX or time.monotonic() > until_s:
                    break
            await sender.look()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            ended = [process.tail() for process in router.processes if not process.running]
            tally.failures.append("\n".join((f"no connection: {error!r}; processes that ended: {len(ended)}", *ended)))

    try:
        async with asyncio.TaskGroup() as group:
            for sender in senders:
                group.create_task(drain(sender))
    finally:
        for sender in senders:
            sender.close()
    return tally


async def _root_cookie(router: Router) -> Headers:
    """Return what an operator's browser sends, the operator being made where there is none."""
    name, password = ROOT_USER
    environment = {**router.processes[0].environment, "DJANGO_SUPERUSER_PASSWORD": password}
    made = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", "createsuperuser", "--noinput", "--username", name,
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    await made.communicate()  # a second time it says that the name is taken
    async with httpx.AsyncClient(base_url=router.url, timeout=GIVEN_UP_S) as http:
        await http.get("/session/login")
        form = {"username": name, "password": password, "csrfmiddlewaretoken": http.cookies["csrftoken"]}
        answer = await http.post("/session/login", data=form)
        assert answer.status_code == 302, answer.text
        cookie = "; ".join(f"{key}={value}" for key, value in http.cookies.items())
        return (("Cookie", cookie.encode()), ("X-CSRFToken", http.cookies["csrftoken"].encode()))


@asynccontextmanager
async def running(profile: str) -> AsyncIterator[Router]:
    """Run a router on simulated venues, with a database of its own."""
    from marketdata.simulated import SimulatedVenues
    from tests.end_to_end.conftest import SYMBOLS, environment_of, roles_of

    with tempfile.TemporaryDirectory() as folder, environment_of(profile, Path(folder)) as environment:
        async with SimulatedVenues(SYMBOLS, seed=11) as market:
            urls = {f"{venue.upper()}_WS_URL": url for venue, url in market.urls.items()}
            router = Router({**environment, **urls}, roles=roles_of(profile))
            await router.start()
            try:
                yield router
            finally:
                with suppress(AssertionError):
                    await router.stop()


async def _main(arguments: argparse.Namespace) -> int:
    async with running(arguments.profile) as router:
        began_s = time.monotonic()
        found = await operations(router.url)
        if arguments.pages:
            found = [one for one in found if one.path.startswith(PAGES)]
        hostile = plan(found, seed=arguments.seed)
        if arguments.brief:
            part = PROFILES.index(arguments.profile)
            hostile = brief(found, seed=arguments.seed, part=part, parts=len(PROFILES), bodies=BODIES_IN_BRIEF)
        until_s = began_s + 60 * arguments.minutes if arguments.minutes else math.inf
        tally = await attack(router, itertools.islice(hostile, arguments.requests), until_s=until_s)
        passed_s = time.monotonic() - began_s
        faults = [fault for process in router.processes for fault in process.faults]
    print(f"{tally.requests} requests in {passed_s:.0f} s ({tally.requests / passed_s:.0f}/s), seed {arguments.seed}")
    print(
        f"statuses {dict(sorted(tally.statuses.items()))}; slowest {tally.slowest_s:.2f} s: {tally.slowest}; {tally.looks} looks"
    )
    for text in (*tally.failures, *faults):
        print(text)
    return 1 if tally.failures or faults else 0


if __name__ == "__main__":
    import logging
    import os

    import tests.environment  # noqa: F401 - before Django reads it

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "router_project.settings")
    import django

    django.setup()
    logging.disable(logging.WARNING)  # of the simulated venues here; the router writes its own
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.requests", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="send so many at most")
    parser.add_argument("--minutes", type=float, help="and for so long at most")
    parser.add_argument("--brief", action="store_true", help="send what CI does")
    parser.add_argument("--pages", action="store_true", help="ask the pages for browsers alone, which are slow")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", choices=PROFILES, default="embedded")
    sys.exit(asyncio.run(_main(parser.parse_args())))
