"""Sequences of commands on /ws, made from a seed and the AsyncAPI document: valid, nearly valid and broken ones.

    python -m tests.fuzz.socket --minutes 5 --profile production
    python -m tests.fuzz.socket --seed 7

Every frame gets exactly one answer, with its `id`, in order, with a documented code; the socket lives until a
documented close; the money is right at the end. Of a sequence that fails the seed is told, and its shortest beginning
that fails too.
"""

import argparse
import asyncio
import json
import random
import re
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from core import strict_json
from core.errors import DomainError
from core.strict_json import BODY_SIZE_MAX
from tests.fuzz import corpus
from tests.running import ROOT, Router

COMMANDS = 40  # of a sequence
ANSWER_S = 10.0  # a loaded machine's; what is lost is lost for ever
USERS = 6
START = {"balances": {"USDT": 1_000_000, "BTC": 100, "ETH": 100}}
OURS = {"internal", "busy", "unavailable"}  # documented, and never a client's fault
ANSWERS = {
    "error", "subscribed", "unsubscribed", "confirmation", "subscriptions", "pong", "auth", "order_submitted", "order_modified",
    "order_cancelled", "resumed",
}  # fmt: skip
CLOSES = {1002, 1003, 1007, 1008, 1009}  # of a client that breaks the protocol, or brings bad credentials
END = "the end"

Said = Mapping[str, Mapping[str, Any]]  # action → its schema and example


class Frame(NamedTuple):
    """What is sent; the id is known unless the frame is broken. `ends` tells that it may close the socket."""

    data: str | bytes
    id: Any = None
    has_id: bool = False
    text: bool = True
    ends: bool = False


class Broken(AssertionError):
    """A rule of the protocol does not hold."""


def said_in(document: Mapping[str, Any]) -> Said:
    """Return what the AsyncAPI document lets a client say."""
    names = [reference["$ref"].rpartition("/")[2] for reference in document["operations"]["say"]["messages"]]
    return {name: document["components"]["messages"][name] for name in names}


def documented_codes() -> set[str]:
    """Return the codes in the table of docs/websocket.md."""
    text = (ROOT / "docs" / "websocket.md").read_text()
    table = text.partition("## Error codes")[2].partition("##")[0]
    cells = (line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    return {code for cell in cells for code in re.findall(r"`(\w+)`", cell)} - {"code"}


# -- what is said


class Speaker:
    """Makes the frames of one sequence."""

    def __init__(self, said: Said, seed: int, *, name: str, token: str) -> None:
        self._said = said
        self._dice = random.Random(seed)
        self._name = name
        self._token = token
        self._ids = count()
        self._orders: list[str] = []

    def frames(self, number: int) -> list[Frame]:
        return [self._frame() for _ in range(number)]

    def _frame(self) -> Frame:
        dice = self._dice
        action = dice.choice(
            [*self._said, "subscribe", "subscribe", "submit_order", "submit_order", "submit_order", "modify_order"]
        )
        body = self._valid(action)
        kind = dice.random()
        if kind < 0.5:
            return self._written(body)
        if action == "auth":  # a wrong token closes the socket, which ends a sequence
            body["token"] = self._token
            return self._written({**body, dice.choice(("x", "stream", "api_key")): None})
        if kind < 0.8:
            return self._nearly(body)
        data = corpus.mutated(json.dumps(body).encode(), dice)[:BODY_SIZE_MAX]
        try:
            return Frame(data.decode())
        except UnicodeDecodeError:
            return Frame(data, text=False)

    def _valid(self, action: str) -> dict[str, Any]:
        """Return a command as the document describes it."""
        dice = self._dice
        message = self._said[action]
        properties = message["payload"]["properties"]
        body = dict(message["examples"][0]["payload"])
        for name, schema in properties.items():
            if name not in body and dice.random() < 0.4 and name not in ("id", "order_id"):
                body[name] = None
            if name in body and name != "action":
                body[name] = self._value(name, schema)
        if action == "submit_order":
            self._orders.append(body["token_id"])
        elif "token_id" in body and self._orders and dice.random() < 0.8:
            body["token_id"] = dice.choice(self._orders)
        return body

    def _value(self, name: str, schema: Mapping[str, Any]) -> Any:
        dice = self._dice
        choices: dict[str, Sequence[Any]] = {
            "symbol": ("BTCUSDT", "eth/usdt", "BTC-USDT", "ETHUSDT"),
            "price": (1, 50_000, "70000.5", 250_000, 1e-08),
            "quantity": (1, "0.5", 0.001, 1e-08, 3),
            "half_life": (1, 30, 0.5, 3600),
            "from_seq": (0, 0, 1, 2),
        }
        if name == "token":
            return self._token
        if name == "token_id":
            return f"{self._name}-{next(self._ids)}"
        if name in choices:
            return dice.choice(choices[name])
        if "enum" in schema:
            return dice.choice(schema["enum"])
        if schema.get("type") == "integer":
            return dice.randint(schema.get("minimum", 0), schema.get("maximum", 20))
        return dice.choice(("a", "b", 1))

    def _nearly(self, body: dict[str, Any]) -> Frame:
        """Write a command with a member missing, misspelt, of another command, or of an odd value."""
        dice = self._dice
        name = dice.choice(list(body))
        kind = dice.randrange(4)
        if kind == 0:
            del body[name]
        elif kind == 1:
            body[name.upper()] = body.pop(name)
        elif kind == 2:
            other = dice.choice(list(self._said.values()))["examples"][0]["payload"]
            body |= {key: value for key, value in other.items() if key not in ("action", "token")}
        else:
            literal = dice.choice([value for value in corpus.VALUES if len(value) < 10_000])
            return self._written(body, name, literal)
        return self._written(body)

    def _written(self, body: dict[str, Any], name: str = "", literal: str = "") -> Frame:
        """Write a command with an id; one that holds a literal that is no JSON is not known by it."""
        known: Any = self._dice.choice(
            (next(self._ids), f"id-{next(self._ids)}", f"é{next(self._ids)}\n", next(self._ids) + 0.5)
        )
        body = {**body, "id": known}
        text = json.dumps(body, default=str)
        if name:
            text = json.dumps({**body, name: "HERE"}, default=str).replace('"HERE"', literal, 1)
            return Frame(text, known, has_id=True) if name != "id" and _is_read(text) else Frame(text)
        return Frame(text, known, has_id=True)


def _is_read(text: str) -> bool:
    """Tell whether a frame can be read at all, so that its id is known."""
    try:
        strict_json.loads(text.encode())
    except DomainError:
        return False
    return True


def _refused(name: str) -> float:
    raise ValueError(name)


def broken_frames(said: Said) -> Iterator[Frame]:
    """Yield the corpus around each command, as text and, now and then, as binary."""
    for name, message in said.items():
        example = message["examples"][0]["payload"]
        for number, body in enumerate(corpus.bodies(example)):
            oversize = len(body.data) > BODY_SIZE_MAX
            try:
                body.data.decode()
            except UnicodeDecodeError:
                yield Frame(body.data, text=number % 2 == 0, ends=number % 2 == 0 or oversize)
            else:
                yield Frame(body.data, text=number % 10 != 0, ends=oversize or name == "auth")


# -- how it is heard


@dataclass
class Tally:
    sequences: int = 0
    commands: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Talk:
    """One socket on which each frame is to be answered."""

    def __init__(self, socket: Any, tally: Tally, codes: set[str]) -> None:
        self._socket = socket
        self._tally = tally
        self._codes = codes
        self.answers: list[dict[str, Any]] = []
        self._reader = asyncio.create_task(self._read())

    async def say(self, frame: Frame) -> None:
        self._tally.commands += 1
        await self._socket.send(frame.data, text=frame.text if isinstance(frame.data, bytes) else None)

    async def end(self) -> None:
        """Say a last word that is certainly answered, and wait for that."""
        await self._socket.send(json.dumps({"action": "ping", "id": END}))
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._reader
        except TimeoutError:
            raise Broken(f"no answer to the last ping; heard {self.answers[-3:]}") from None

    async def closed(self) -> int | None:
        """Wait for the end of the socket, and return its code; None when it stays open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self._socket.wait_closed()
        code: int | None = self._socket.close_code
        return code

    def stop(self) -> None:
        self._reader.cancel()

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await self._socket.recv(), parse_constant=_refused)
                if message["type"] not in ANSWERS:
                    continue
                if message.get("id") == END:
                    return
                self.answers.append(message)
                if message["type"] == "error":
                    self._tally.codes[message["code"]] += 1
                    if message["code"] not in self._codes or message["code"] in OURS or not message["message"]:
                        raise Broken(f"an error of ours, or none that is documented: {message}")


class Visitor(NamedTuple):
    name: str
    token: str
    url: str

    def connect(self) -> Any:
        url = self.url.replace("http", "ws", 1) + f"/ws?token={quote(self.token)}"
        return connect(url, compression=None, max_queue=None, close_timeout=2, max_size=2**24)


async def speak(
    visitor: Visitor, frames: Sequence[Frame], tally: Tally, codes: set[str], *, hurry: random.Random
) -> None:
    """Say a sequence on a new socket, while another one of the user's listens, and check all that was heard.

    Raises:
        Broken: a rule does not hold.
    """
    async with visitor.connect() as listening, visitor.connect() as socket:
        updates: list[int] = []
        listener = asyncio.create_task(_listen(listening, updates))
        talk = Talk(socket, tally, codes)
        try:
            for frame in frames:
                await talk.say(frame)
                if hurry.random() < 0.2:
                    await asyncio.sleep(0)
            await talk.end()
            if listener.done():
                await listener
        except ConnectionClosed as closed:
            raise Broken(f"the socket was closed: {closed}; heard {talk.answers[-2:]}") from None
        finally:
            talk.stop()
            listener.cancel()
        if socket.close_code is not None:
            raise Broken(f"the socket was closed: {socket.close_code}; heard {talk.answers[-2:]}")
    check_answers(frames, talk.answers)
    if any(later != earlier + 1 for earlier, later in pairwise(updates)):
        raise Broken(f"reports out of order, or not each once: {updates}")


async def _listen(socket: Any, updates: list[int]) -> None:
    async for text in socket:
        message = json.loads(text)
        if message["type"] == "order_update":
            updates.append(message["seq"])


def check_answers(frames: Sequence[Frame], answers: Sequence[Mapping[str, Any]]) -> None:
    for frame, answer in zip(frames, answers, strict=False):
        if frame.has_id and (type(answer.get("id")), answer.get("id")) != (type(frame.id), frame.id):
            raise Broken(f"{frame.data!r} was answered by {str(answer)[:300]}")
    if len(frames) != len(answers):
        raise Broken(f"{len(frames)} frames, {len(answers)} answers")


# -- the whole of it


class Siege:
    """A router with some users on it, and what is known of its protocol."""

    def __init__(self, router: Router, visitors: Sequence[Visitor], said: Said) -> None:
        self.router = router
        self.tally = Tally()
        self._visitors = visitors
        self._said = said
        self._codes = documented_codes()

    @classmethod
    async def lay(cls, router: Router) -> "Siege":
        visitors = []
        for number in range(USERS):
            name = f"ws{number}-{random.SystemRandom().randrange(10**6)}"
            url = router.urls[number % len(router.urls)]
            visitors.append(Visitor(name, await router.register(name), url))
        async with httpx.AsyncClient(base_url=router.url, timeout=ANSWER_S) as http:
            for visitor in visitors:
                headers = {"Authorization": f"Bearer {visitor.token}"}
                (await http.post("/account/reset", json=START, headers=headers)).raise_for_status()
            document = (await http.get("/asyncapi.json")).json()
        return cls(router, visitors, said_in(document))

    async def run(self, seeds: Iterable[int]) -> None:
        """Speak the sequences of seeds, each user one at a time."""
        left = iter(seeds)

        async def one(visitor: Visitor) -> None:
            for seed in left:
                try:
                    await self._speak(visitor, seed, COMMANDS)
                except Broken as error:
                    length, why = await self._shortest(visitor, seed, error)
                    frames = self._speaker(visitor, seed).frames(length)
                    lines = "\n    ".join(str(frame.data)[:300] for frame in frames[-5:])
                    again = f"python -m tests.fuzz.socket --seed {seed}"
                    self.tally.failures.append(
                        f"{again}: {why}\n  by its first {length} frames, the last of them:\n    {lines}"
                    )
                    return

        async with asyncio.TaskGroup() as group:
            for visitor in self._visitors:
                group.create_task(one(visitor))

    async def break_frames(self, number: int, seed: int) -> None:
        """Send so many frames of the corpus: each is answered once, or closes the socket as documented."""
        frames = list(broken_frames(self._said))
        random.Random(seed).shuffle(frames)
        left = iter(frames[:number])

        async def one(visitor: Visitor) -> None:
            while (frame := next(left, None)) is not None:
                async with visitor.connect() as socket:
                    talk = Talk(socket, self.tally, self._codes)
                    sent = []
                    while frame is not None and not frame.ends:
                        await talk.say(frame)
                        sent.append(frame)
                        frame = next(left, None) if len(sent) < 200 else None
                    try:
                        await talk.end()
                        check_answers(sent, talk.answers)
                        if frame is not None and (problem := await self._ending(visitor, frame)) is not None:
                            raise Broken(problem)
                    except (Broken, ConnectionClosed) as error:
                        shown = [str(each.data)[:200] for each in sent[max(len(talk.answers) - 1, 0) :][:2]]
                        self.tally.failures.append(f"{error}; near {shown}, heard {talk.answers[-1:]}")
                        return
                    finally:
                        talk.stop()

        async with asyncio.TaskGroup() as group:
            for visitor in self._visitors:
                group.create_task(one(visitor))

    async def _ending(self, visitor: Visitor, frame: Frame) -> str | None:
        """Send a frame that may close a socket, to one of its own; return what is wrong with its end."""
        async with visitor.connect() as socket:
            talk = Talk(socket, self.tally, self._codes)
            try:
                await talk.say(frame)
                with suppress(ConnectionClosed):
                    await talk.end()
            except ConnectionClosed:
                pass
            finally:
                talk.stop()
            if talk.answers and socket.close_code is None:
                return None if len(talk.answers) == 1 else f"{len(talk.answers)} answers to {frame.data[:100]!r}"
            code = await talk.closed()
        return None if code in CLOSES else f"closed with {code} by {frame.data[:100]!r}"

    async def raw(self) -> None:
        """Break the framing itself, each way on a connection of its own."""
        for name, data in RAW.items():
            began_s = time.monotonic()
            told = await _raw(self._visitors[0], data)
            if told is None or time.monotonic() - began_s > ANSWER_S:
                self.tally.failures.append(f"raw: {name}: neither answered nor closed")
            elif isinstance(told, int) and told not in CLOSES | {1000} and name != f"close code {told}":  # an echo
                self.tally.failures.append(f"raw: {name}: closed with {told}")
            self.tally.commands += 1
        for name, head in HANDSHAKES.items():
            if (status := await _handshake(self._visitors[0], head)) not in (101, 400, 401, 403, 404, 426, 431):
                self.tally.failures.append(f"handshake: {name}: {status}")
            self.tally.commands += 1
        async with self._visitors[0].connect() as socket:
            talk = Talk(socket, self.tally, self._codes)
            await talk.end()

    async def audit(self) -> None:
        """Prove the ledger from its rows."""
        verify = await asyncio.create_subprocess_exec(
            sys.executable, "manage.py", "verify_ledger", cwd=ROOT, env=self.router.processes[0].environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await verify.communicate()
        if verify.returncode != 0:
            self.tally.failures.append(f"the ledger is wrong: {said.decode()[-2_000:]}")

    async def _speak(self, visitor: Visitor, seed: int, length: int) -> None:
        self.tally.sequences += 1
        frames = self._speaker(visitor, seed).frames(COMMANDS)[:length]
        await speak(visitor, frames, self.tally, self._codes, hurry=random.Random(seed))

    def _speaker(self, visitor: Visitor, seed: int) -> Speaker:
        return Speaker(self._said, seed, name=f"{visitor.name}-{seed}-{self.tally.sequences}", token=visitor.token)

    async def _shortest(self, visitor: Visitor, seed: int, error: Broken) -> tuple[int, str]:
        """Return how many frames of a sequence suffice to fail, and how they do."""
        for length in range(1, COMMANDS):
            try:
                await self._speak(visitor, seed, length)
            except Broken as found:
                return length, str(found)
        return COMMANDS, str(error)


# -- below the messages


def wire(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    mask: bool = True,
    length: int | None = None,
) -> bytes:
    """Return a frame as the first byte, its length (or another one) and its payload, masked with zeros."""
    size = len(payload) if length is None else length
    flag = 0x80 * mask
    head = bytes((0x80 * fin | reserved << 4 | opcode,))
    if size < 126:
        head += bytes((flag | size,))
    elif size < 2**16:
        head += bytes((flag | 126,)) + struct.pack("!H", size)
    else:
        head += bytes((flag | 127,)) + struct.pack("!Q", size)
    return head + b"\0\0\0\0" * mask + payload


PING_TEXT = b'{"action":"ping","id":"raw"}'
RAW: dict[str, bytes] = {
    "unmasked": wire(1, PING_TEXT, mask=False),
    **{f"reserved bits {bits}": wire(1, PING_TEXT, reserved=bits) for bits in (1, 2, 4, 7)},
    **{f"opcode {opcode}": wire(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a continuation of nothing": wire(0, PING_TEXT),
    "a text within a text": wire(1, b"a", fin=False) + wire(1, b"b"),
    "by the byte": b"".join(
        wire(1 if place == 0 else 0, PING_TEXT[place : place + 1], fin=place == len(PING_TEXT) - 1) for place in range(len(PING_TEXT))
    ),
    "a ping within a text": wire(1, PING_TEXT[:9], fin=False) + wire(9, b"?") + wire(0, PING_TEXT[9:]),
    "empty pieces": wire(1, b"", fin=False) + wire(0, b"", fin=False) * 20 + wire(0, PING_TEXT),
    "an empty text": wire(1),
    "an empty binary": wire(2),
    "a long ping": wire(9, b"a" * 126),
    "a ping in pieces": wire(9, b"a", fin=False),
    "a pong in pieces": wire(10, b"a", fin=False),
    "a close of one byte": wire(8, b"\x03"),
    "a long close": wire(8, b"\x03\xe8" + b"a" * 130),
    **{f"close code {code}": wire(8, struct.pack("!H", code)) for code in (0, 999, 1000, 1004, 1005, 1006, 1011, 1015, 2999, 3000, 4999, 5000, 65535)},
    "a close that is not UTF-8": wire(8, b"\x03\xe8\xff"),
    "a close and more": wire(8, b"\x03\xe8") + wire(1, PING_TEXT),
    "a text that is not UTF-8": wire(1, b"\xff\xfe"),
    "half a character": wire(1, b'{"action":"\xe2\x82'),
    "a character in two pieces": wire(1, b'{"action":"\xe2', fin=False) + wire(0, b'\x82\xac"}'),
    "a surrogate": wire(1, b'"\xed\xa0\x80"'),
    "too long": wire(1, b" " * (BODY_SIZE_MAX + 1)),
    "too long in pieces": wire(1, b" " * 60_000, fin=False) + wire(0, b" " * 60_000),
    "says 2^62 bytes": wire(1, b"a", length=2**62),
    "says 2^63 bytes": wire(1, b"a", length=2**63),
    "says 1 GB": wire(1, b"a", length=2**30),
    "a length longer than needed": b"\x81\xfe\x00\x05\0\0\0\0" + b'"abc"',
    "HTTP again": b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": b"\0" * 50,
    "ones": b"\xff" * 50,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x01" * 30,
    "compressed, as was not agreed": wire(1, b"\xaa\x56\x4a\x04\x00", reserved=4),
}  # fmt: skip


USUAL = {
    "Host": b"localhost", "Upgrade": b"websocket", "Connection": b"Upgrade", "Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": b"13",
}  # fmt: skip


def _head(target: bytes, **changes: bytes | None) -> bytes:
    headers = {**USUAL, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = (name.encode() + b": " + value for name, value in headers.items() if value is not None)
    return b"GET " + target + b" HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"


HANDSHAKES: dict[str, bytes] = {
    **{
        f"target {target[:40]!r}": _head(target)
        for target in (
            b"/ws?token=\xff", b"/ws?token=%ff", b"/ws?token=%00", b"/ws?token=" + b"a" * 20_000, b"/ws?token", b"/ws?=&=&token=;", b"/ws?token=a&token=b",
            b"/\xff", b"/ws/%ff", b"/ws/orderbook/%00", b"/ws/orderbook/%ff", b"/ws/orderbook/\xc3\xa9", b"/ws/orderbook/" + b"a" * 33, b"/ws/orderbook/..",
            b"/ws/orderbook/%2e%2e%2f", b"/ws/../ws", b"//ws", b"/WS", b"/nowhere", b"*", b"http://evil.example/ws", b"/ws#a", b"/ws?" + b"a=1&" * 2_000,
            b"/orders", b"/admin/",
        )
    },
    **{
        f"{name} {value!r:.40}": _head(b"/ws", **{name: value})
        for name, values in {
            "Sec_WebSocket_Key": (None, b"", b"a", b"\xff" * 16, b"=" * 24, b"a" * 5_000),
            "Sec_WebSocket_Version": (None, b"", b"12", b"0", b"-1", b"\xff", b"13, 8", b"9" * 5_000),
            "Sec_WebSocket_Protocol": (b"", b"a", b",,,", b"\xff", b"a" * 10_000, b"token, eyJ.eyJ.x"),
            "Sec_WebSocket_Extensions": (b"permessage-deflate", b"permessage-deflate; server_max_window_bits=99", b";;;", b"x; a=\"", b"\xff", b"a," * 3_000),
            "Upgrade": (b"h2c", b"websocket, websocket", b"WEBSOCKET\xff"),
            "Connection": (b"keep-alive, Upgrade", b"close, upgrade"),
            "Origin": (b"", b"null", b"https://evil.example", b"http://[", b"\xff"),
            "Authorization": (b"", b"Bearer", b"Bearer \xff", b"Bearer a.b.c", b"Basic x", b"Bearer " + b"a" * 20_000),
            "X_API_Key": (b"", b"sr_", b"\xff", b"sr_" + b"a" * 5_000),
            "X_Token_ID": (b"\x85",),
            "Cookie": (b"sessionid=\xff", b";=;"),
            "Host": (b"evil.example", b"\xff", b"[::1", b""),
            "Content_Length": (b"0", b"5"),
            "X_Forwarded_For": (b"\xff, 1.2.3.4",),
            "X_Long": (b"a" * 40_000,),
        }.items()
        for value in values
    },
}  # fmt: skip


async def _handshake(visitor: Visitor, head: bytes) -> int | str:
    """Return the status with which a handshake is answered."""
    where = urlsplit(visitor.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(head)
        async with asyncio.timeout(ANSWER_S):
            return int((await reader.readline()).split()[1])
    except (IndexError, ConnectionError, TimeoutError) as error:
        return repr(error)
    finally:
        writer.close()


async def _raw(visitor: Visitor, data: bytes) -> int | str | None:
    """Return how the server takes bytes: its close code, "answered", "cut" or, when nothing happens, None."""
    where = urlsplit(visitor.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(
            f"GET /ws?token={visitor.token} HTTP/1.1\r\nHost: {where.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        async with asyncio.timeout(ANSWER_S):
            while True:
                opcode, payload = await _frame(reader)
                if opcode == 8:
                    return int.from_bytes(payload[:2], "big") if payload else 1000
                if opcode == 1 and (b'"raw"' in payload or b'"error"' in payload):
                    return "answered"
    except (asyncio.IncompleteReadError, ConnectionError):
        return "cut"
    except TimeoutError:
        return None
    finally:
        writer.close()


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, size = await reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8), "big")
    return first & 15, await reader.readexactly(size)


async def _main(arguments: argparse.Namespace) -> int:
    from tests.fuzz.requests import running

    async with running(arguments.profile) as router:
        siege = await Siege.lay(router)
        until_s = time.monotonic() + arguments.minutes * 60
        if arguments.seed is not None:
            await siege.run([arguments.seed])
        else:
            await siege.raw()
            await siege.break_frames(1_000_000, arguments.first)
            await siege.run(_seeds(arguments.first, until_s))
        await siege.audit()
        faults = [fault for process in router.processes for fault in process.faults]
    tally = siege.tally
    print(f"{tally.sequences} sequences, {tally.commands} frames; errors {dict(tally.codes.most_common())}")
    for text in (*tally.failures, *faults):
        print(text)
    return 1 if tally.failures or faults else 0


def _seeds(first: int, until_s: float) -> Iterator[int]:
    seed = first
    while time.monotonic() < until_s:
        yield seed
        seed += 1


if __name__ == "__main__":
    import logging
    import os

    import tests.environment  # noqa: F401 - before Django reads it

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "router_project.settings")
    import django

    django.setup()
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.socket", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="run sequences for so long")
    parser.add_argument("--seed", type=int, help="run the sequence of this seed only")
    parser.add_argument("--first", type=int, default=1, help="the seed to start from")
    parser.add_argument("--profile", choices=("embedded", "production"), default="embedded")
    sys.exit(asyncio.run(_main(parser.parse_args())))
