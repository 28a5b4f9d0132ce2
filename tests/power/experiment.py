"""Simulated power loss: what a router told its clients must be on the disk when the power goes, at any moment.

`python -m tests.power --images 2000` runs the embedded profile on SQLite; `--database postgres` the production
profile from local processes, with a PostgreSQL of its own. The real processes run under `strace` while customers
deposit, order, amend, cancel and run TWAPs, and the market moves. The trace holds, in one exact order, each write,
rename and sync of the database's files, with its data, and each byte that was told to a client. From it come images of
the disk as a power loss could have left it: right after answers, right before and after syncs, and between.

The disk (`tests/power/disk.py`): a write is surely there once a sync of its file that began after it has ended. What is
not sure is left out, is all there, or is there in some of its 512-byte sectors, by seeded dice. Names are sure once
their folder is synced; half of SQLite's images hold the disk to that alone, the others and PostgreSQL's take a usual
file system, which also writes a file's name with the first sync of the file.

Each image is opened by its database, which recovers by itself: SQLite's `integrity_check`, PostgreSQL's page checksums
and `amcheck` of every index. Then everything told until that moment must be in it: users, deposits, receipts
as they were told, orders in a state that came of the one told. Nothing is there twice or from nowhere, and the rows
prove themselves (`tests/trading/proof.py`), so that what was not answered is whole or absent. On some images the real
router starts, answers with what is in the rows, and takes a deposit and an order.

Limits: a sector is whole or not there, and keeps what was synced into it; the disk does not lie about a sync; files
grow by zeros, not by what lay there before; SQLite's `-shm` is not kept, as it is rebuilt. That the model missed
nothing is checked in each run: with all writes kept it must make exactly the files that are really there at the end.
"""

import asyncio
import contextlib
import hashlib
import itertools
import math
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import django
import httpx
import psycopg

from marketdata.simulated import SimulatedVenues
from tests.chaos.board import SYMBOL, Board
from tests.end_to_end.conftest import SYMBOLS
from tests.power import strace
from tests.power.disk import Image, Keep, Sync
from tests.power.recording import DATABASES, REBUILT, Corrupt, Database, Recording, http_of, record, urls_of
from tests.power.told import Faults, Told, compare
from tests.running import Router

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "router_project.settings")
django.setup()  # the rows are proved as the models' own; nothing is read through Django

from tests.trading.proof import Rows, prove  # noqa: E402
from trading import models  # noqa: E402

LOAD_S = 4.0
ROUND = 50  # images spread over the whole recording, before the next so many
STARTED = 2  # images on which the real router starts
READY_PAUSE_S = 0.05
SHOWN_MAX = 3  # faults of a kind that are told in words
MEMORY = Path("/dev/shm")  # images lie in memory where there is such a folder
VARIANTS = tuple(itertools.product(Keep, Keep))  # of data and names
TABLES: dict[Any, str] = {  # in the order of `Rows`, each with the key that its rows are sorted by
    models.Account: "user_id", models.Balance: "id", models.Order: "number", models.Fill: "seq", models.Entry: "id",
    models.Report: "seq", models.Twap: "order_id",
}  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """A moment at which the power goes, and what is kept then of what was not synced."""

    place: int
    data: Keep
    names: Keep
    strict: bool
    seed: int
    start: bool = False

    def __str__(self) -> str:
        kind = "strict" if self.strict else "usual"
        return f"{self.place}: {self.data.value} of the data, {self.names.value} of the names, a {kind} disk"


@dataclass
class Score:
    """What came of all images; a dict of it is a line of a scorecard."""

    name: str
    trials: int = 0
    lost: int = 0  # images in which something told was missing
    doubled: int = 0
    wrong: int = 0
    corrupt: int = 0
    told: int = 0  # messages that told of something
    syncs: int = 0
    recovery_s: list[float] = field(default_factory=list)  # of the images on which a router was started
    faults: list[str] = field(default_factory=list)  # the first ones, in words

    def add(self, shot: Shot, faults: Faults, corrupt: str | None) -> None:
        self.trials += 1
        found = asdict(faults) | {"corrupt": [corrupt] if corrupt else []}
        for kind, texts in found.items():
            if texts:
                setattr(self, kind, getattr(self, kind) + 1)
                if getattr(self, kind) <= SHOWN_MAX:
                    self.faults.append(f"{shot}: {kind} {len(texts)}: {'; '.join(texts[:SHOWN_MAX])}")

    def __str__(self) -> str:
        recovered = f", routers ready again after {max(self.recovery_s):.1f} s at most" if self.recovery_s else ""
        return (
            f"power loss, {self.name}: {self.trials} images, {self.lost} lost, {self.doubled} doubled,"
            f" {self.wrong} wrong, {self.corrupt} corrupt ({self.told} messages, {self.syncs} syncs{recovered})"
        )


def shots(recording: Recording, images: int, disks: Sequence[bool], dice: random.Random, started: int) -> list[Shot]:
    """Choose moments all over the recording: right after answers, at both sides of syncs, and between."""
    syncs = [one for one in recording.operations if isinstance(one, Sync) and one.end != strace.NEVER]
    kinds = [
        [message.place for message in recording.told],
        [one.end for one in syncs],
        [message.place for message in recording.told],
        [one.end - 1 for one in syncs],
        [one.begin for one in recording.operations],
    ]
    kinds = [places for places in kinds if places]  # a control may sync nothing
    chosen: list[Shot] = []
    for number, places in enumerate(kinds):
        count = images // len(kinds) + (number < images % len(kinds))
        for turn in range(count):
            place = places[int((turn + dice.random()) * len(places) / count)]
            data, names = VARIANTS[turn % len(VARIANTS)]
            chosen.append(Shot(place, data, names, disks[turn % len(disks)], dice.getrandbits(32)))
    chosen.sort(key=lambda shot: shot.place)
    for number in range(started):  # the last one is late, the first one may be before there was anybody
        place = (number + 1) * len(chosen) // started - 1 if number else 0
        chosen[place] = replace(chosen[place], start=True)
    return chosen


class Judge:
    """Looks into images. The same rows are proved once."""

    def __init__(self, database: Database, recording: Recording) -> None:
        self._database = database
        self._recording = recording
        self._proved: dict[bytes, str | None] = {}

    async def judge(self, plan: Sequence[Shot], score: Score) -> None:
        score.told = len(self._recording.told)
        score.syncs = sum(isinstance(one, Sync) for one in self._recording.operations)
        for strict in dict.fromkeys(shot.strict for shot in plan):
            disk, play = self._recording.replay(strict=strict)
            told, coming = Told(), deque(self._recording.told)
            for shot in plan:
                if shot.strict is not strict:
                    continue
                play(shot.place)
                while coming and coming[0].place <= shot.place:
                    told.hear(coming.popleft().body)
                image = disk.image(data=shot.data, names=shot.names, dice=random.Random(shot.seed))
                score.add(shot, *self._look(image, told))
                if shot.start:
                    try:
                        score.recovery_s.append(await self._start(image, told))
                    except (AssertionError, httpx.HTTPError) as fault:
                        score.add(shot, Faults(wrong=[f"a router on it: {fault}"]), None)

    def _look(self, image: Image, told: Told) -> tuple[Faults, str | None]:
        with _laid(image) as folder:
            try:
                with self._database.opened(folder) as connection:
                    if told.nothing:
                        return Faults(), None
                    tables, users = _read(connection)
            except Corrupt as fault:
                return Faults(), str(fault)
            except (sqlite3.OperationalError, psycopg.errors.UndefinedTable) as gone:
                return Faults(lost=[f"all: {gone}"]), None
        rows = _rows(tables)
        faults = compare(told, rows, users, self._recording.asked)
        key = hashlib.sha256(repr(tables).encode()).digest()
        if key not in self._proved:
            self._proved[key] = _fault(rows)
        if (fault := self._proved[key]) is not None:
            faults.wrong.append(fault)
        return faults, None

    async def _start(self, image: Image, told: Told) -> float:
        """Start the real router on an image, use it, and return how long it took to be ready."""
        with _laid(image) as folder:
            async with SimulatedVenues(SYMBOLS, seed=1) as market:
                Board(market, 1).rest()
                began_s = time.monotonic()
                with self._database.revived(folder, urls_of(market)) as router:
                    try:
                        await router.start()
                        async with http_of(router) as http:
                            while (await http.get("/ready")).status_code != 200:  # noqa: ASYNC110 - it decides when
                                await asyncio.sleep(READY_PAUSE_S)
                        took_s = time.monotonic() - began_s
                        await _use(router, told)
                    finally:
                        await router.stop()
        return took_s


async def _use(router: Router, told: Told) -> None:
    """Everybody who was there finds an order as it was told; somebody new deposits and orders."""
    for username in sorted(told.users):
        async with http_of(router, await router.register(username)) as http:
            for body in [one for one in told.orders.values() if one["token_id"].startswith(username)][-1:]:
                found = (await http.get(f"/orders/{body['order_id']}")).raise_for_status().json()
                assert found["token_id"] == body["token_id"], found
    async with http_of(router, await router.register("afterwards")) as http:
        (await http.post("/deposit", json={"asset": "USDT", "amount": 1_000})).raise_for_status()
        order = {"token_id": "afterwards", "symbol": SYMBOL, "side": "buy", "price": 40_000, "quantity": 0.01}
        (await http.post("/orders", json=order)).raise_for_status()
        assert (await http.get("/orders/afterwards")).raise_for_status().json()["status"] == "open"


@contextlib.contextmanager
def _laid(image: Image) -> Iterator[Path]:
    """Write an image into a folder."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as parent:
        folder = Path(parent) / "image"
        folder.mkdir()
        for name, content in image.items():
            place = folder / name
            if content is None:
                place.mkdir(parents=True, exist_ok=True)
            elif name.endswith(REBUILT):
                continue
            elif isinstance(content, Path):
                shutil.copyfile(content, place)
            else:
                place.write_bytes(content)
        yield folder


def _read(connection: Any) -> tuple[list[list[tuple[Any, ...]]], set[str]]:
    """Return all rows of the exchange, table by table, and the users' names."""
    tables = []
    for model, key in TABLES.items():
        columns = ", ".join(column.column for column in model._meta.concrete_fields)
        tables.append(
            [tuple(row) for row in connection.execute(f"SELECT {columns} FROM {model._meta.db_table} ORDER BY {key}")]
        )
    return tables, {name for (name,) in connection.execute("SELECT username FROM accounts_user")}


def _rows(tables: Sequence[Sequence[tuple[Any, ...]]]) -> Rows:
    names = {model: [column.attname for column in model._meta.concrete_fields] for model in TABLES}
    return Rows(
        *(
            [model.from_db(None, names[model], row) for row in table]
            for model, table in zip(TABLES, tables, strict=True)
        )
    )


def _fault(rows: Rows) -> str | None:
    try:
        prove(rows)
    except AssertionError as fault:
        return str(fault)
    return None


async def experiment(
    database: str,
    *,
    images: int,
    seed: int,
    careless: str | None = None,
    started: int = 0,
    load_s: float = LOAD_S,
    look_s: float = math.inf,
) -> Score:
    """Run a router, and look at what power losses would have left of it: so many images, or what the time allows."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        place = DATABASES[database](Path(folder), careless)
        recording = await record(place, load_s=load_s, seed=seed)
        score = Score(f"{database}{f', {careless}' if careless else ''}")
        judge = Judge(place, recording)
        end_s = time.monotonic() + look_s
        while score.trials < images and (score.trials == 0 or time.monotonic() < end_s):
            plan = shots(
                recording, min(ROUND, images - score.trials), place.disks, dice, 0 if score.trials else started
            )
            await judge.judge(plan, score)
        return score
