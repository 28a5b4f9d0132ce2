"""One trial: customers order, a fault strikes in the middle of it, and what was answered is looked for afterwards."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

import httpx

from tests.chaos.board import HIGHEST, LOWEST, SPREAD, VENUES
from tests.chaos.customers import Customer, Lost
from tests.chaos.findings import Findings
from tests.chaos.probe import Probe, register
from tests.chaos.system import System
from tests.trading.rival import Rival

CUSTOMERS = 2
MONEY = (("USDT", "20000"), ("BTC", "1"))
LOAD_S = (0.3, 1.0)  # before the fault
AFTER_S = 0.2  # and once all works again
JUDGE_S = 40.0
POLL_S = 0.05
RECOVERY_S = 5.0  # what is allowed

Strike = Callable[[System, random.Random], Awaitable[None]]


class Wrong(Exception):
    """A fault's own finding: the system bore it badly."""


class Unable(Exception):
    """This machine cannot do that to a system."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. `strike` returns once it is over; what comes then is the router's own recovery."""

    name: str
    strike: Strike
    profiles: tuple[str, ...]
    ci: int = 1  # trials in CI
    age_s: float | None = 3.0  # how old a shown price may be when it is taken; None: its clock is not ours
    own: str = ""  # what sort of system it needs for itself


@dataclass
class Result:
    fault: str
    profile: str
    seed: int
    findings: Findings
    recovery_s: float | None
    answered: int = 0
    unanswered: int = 0
    seconds: float = 0.0
    road: tuple[str, ...] = ()  # to the recovery: what did not work yet, and when

    @property
    def clean(self) -> bool:
        return not self.findings.counts and self.recovery_s is not None and self.recovery_s < RECOVERY_S


@dataclass
class Bench:
    """A running system with who looks at it from outside."""

    system: System
    prover: Rival
    probe: Probe
    everybody: list[str] = field(default_factory=list)  # all customers there ever were
    trials: int = 0
    ended: int = 0
    awaited: str = "the answers"  # what the judge waits for

    async def trial(self, fault: Fault, *, seed: int) -> Result:
        """Run one trial of a fault."""
        began_s, dice, findings = time.monotonic(), random.Random(seed), Findings()
        self.trials += 1
        system = self.system
        customers = [await self._customer(number, dice, findings) for number in range(CUSTOMERS)]
        stop = asyncio.Event()
        mover = asyncio.create_task(system.board.move())
        listening = [asyncio.create_task(one.listen()) for one in customers]
        load = [asyncio.create_task(work(stop)) for one in customers for work in (one.rest, one.socket)]
        try:
            await asyncio.sleep(dice.uniform(*LOAD_S))
            try:
                await fault.strike(system, dice)
            except Wrong as wrong:
                findings.add("wrong", str(wrong))
            recovery_s = await self.probe.all_works(time.monotonic())
            await asyncio.sleep(AFTER_S)
            stop.set()
            await asyncio.gather(*load)
            mover.cancel()
            if recovery_s is None:
                findings.add("wrong", "it never worked again")
            else:
                try:
                    async with asyncio.timeout(JUDGE_S):
                        await self._judge(customers, fault, findings)
                except (TimeoutError, httpx.HTTPError, Lost) as error:
                    findings.add("wrong", f"it could not be judged: {error!r}, waiting for {self.awaited}")
        finally:
            for task in (mover, *listening, *load):
                task.cancel()
            await asyncio.gather(mover, *listening, *load, return_exceptions=True)
        ended, self.ended = self.ended, system.ends()
        findings.check(ended == self.ended, "wrong", f"{self.ended - ended} processes ended by themselves")
        return Result(
            fault.name, system.profile, seed, findings, recovery_s, sum(one.answered for one in customers),
            sum(one.unanswered for one in customers), time.monotonic() - began_s, tuple(self.probe.road),
        )  # fmt: skip

    async def _customer(self, number: int, dice: random.Random, findings: Findings) -> Customer:
        name = f"c{self.trials}-{number}"
        self.everybody.append(name)
        url = self.system.url
        made = Customer(name, await register(url, name), url, self.system.board, findings, random.Random(dice.random()))
        headers = {"Authorization": f"Bearer {made.token}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10.0) as http:
            for asset, amount in MONEY:
                (await http.post("/deposit", json={"asset": asset, "amount": amount})).raise_for_status()
                made.deposits[Decimal(amount)] = True
        return made

    async def _judge(self, customers: list[Customer], fault: Fault, findings: Findings) -> None:
        """Everything answered is there, nothing is half done, and what rests still executes, once."""
        board = self.system.board
        board.rest()
        if fault.age_s is None:  # its clock was set: tokens may have run out, and schedules must not have
            for one in customers:
                await one.log_in()
                one.kept_pace()
        await asyncio.gather(*(one.check(fault.age_s) for one in customers))
        await self._prove(customers, findings)
        for side, bid, ask in (
            ("buy", LOWEST - SPREAD, LOWEST), ("sell", HIGHEST, HIGHEST + SPREAD)
        ):  # fmt: skip
            for venue in VENUES:  # one that moved so far alone would not be believed
                board.quote(venue, bid, ask)
            for one in customers:
                while resting := await one.resting(side):
                    self.awaited = f"the execution of {resting[:5]}"
                    await asyncio.sleep(POLL_S)
                await one.executed(side)
        board.rest()
        await self._prove(customers, findings)
        for one in customers:
            self.awaited = f"the reports to {one.name}"
            await one.all_heard(await one.reports())

    async def _prove(self, customers: list[Customer], findings: Findings) -> None:
        try:
            await asyncio.to_thread(self.prover.ask, "prove", [one.name for one in customers])
        except AssertionError as error:
            findings.add("wrong", f"the ledger: {error}")

    async def prove_all(self) -> str:
        """Prove every row there is; return what is wrong."""
        try:
            await asyncio.to_thread(self.prover.ask, "prove")
        except AssertionError as error:
            return f"the ledger: {error}"
        return ""


@asynccontextmanager
async def bench(system: System) -> AsyncIterator[Bench]:
    """Wait until a system works, and give it a bench."""
    prover = Rival({**os.environ, "DATABASE_URL": system.database_url, "REDIS_URL": "", "SECRET_KEY": "x" * 50})
    made = Bench(system, prover, Probe(system))
    try:
        await made.probe.open()
        if await made.probe.all_works(time.monotonic()) is None:
            raise AssertionError("the router never worked:\n" + "\n".join(system.tails()))
        yield made
    finally:
        await asyncio.to_thread(partial(prover.stop))
