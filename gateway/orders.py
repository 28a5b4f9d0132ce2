"""The order commands of one socket: written in their order, several on their way at once, answered in order."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import structlog
from django.conf import settings
from msgspec import Struct

from accounts.authentication import Identity
from accounts.services import is_key
from core.errors import DomainError
from gateway.commands import Command, CommandError
from gateway.reports import Stream
from trading import services, wire
from trading.commands import Amend, Cancel, Place, read_amend, read_terms, read_token
from trading.exchange import Done

log = structlog.get_logger(__name__)

IN_FLIGHT_MAX = 64  # commands of one socket; the next one is read when one of them is answered

ANSWERS = {"submit_order": "order_submitted", "modify_order": "order_modified", "cancel_order": "order_cancelled"}

Answer = Callable[[Command, dict[str, Any]], None]
Refuse = Callable[[CommandError], None]
Asked = Place | Amend | Cancel


class _Item(Struct):
    """A command on its way, or refused already; `name` is the order's as the client calls it."""

    command: Command
    name: str
    future: "Future[Any] | None"
    refusal: CommandError | None = None


def read_order_command(command: Command, identity: Identity) -> tuple[str, Asked]:
    """Read what an order command of this user asks for, and the order's name in it.

    Raises:
        Invalid, UnknownSymbol: the body is none.
    """
    body, account_id = command.body, identity.user_id
    key = "" if is_key(identity.key) else identity.key  # an API key was checked with the socket, and is again and again
    if command.action == "submit_order":
        terms = read_terms(body, settings.CATALOGUE)
        return terms.token_id, Place(account_id, terms, key)
    alias = body.get("token_id") is None and body.get("order_id") is not None
    token = read_token(body["order_id"], name="order_id") if alias else read_token(body.get("token_id"))
    if command.action == "modify_order":
        price, quantity = read_amend(body)
        return token, Amend(account_id, token, price, quantity, key)
    return token, Cancel(account_id, token, key=key)


class OrderDesk:
    """Takes the order commands of one socket; their answers come before the reports that they cause."""

    def __init__(self, answer: Answer, refuse: Refuse) -> None:
        self._answer = answer
        self._refuse = refuse
        self._waiting: deque[_Item] = deque()
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    async def take(self, command: Command, identity: Identity, stream: Stream) -> None:
        """Queue a command for the exchange; return when the next one may come."""
        self._waiting.append(self._submit(command, identity, stream))
        if self._task is None:
            self._task = asyncio.create_task(self._settle(stream), name="order-answers")
        while len(self._waiting) >= IN_FLIGHT_MAX:
            await self._move()

    async def settled(self) -> None:
        """Return when every command is answered."""
        while self._waiting:
            await self._move()

    def close(self) -> None:
        """Answer no more; what is on its way is written all the same."""
        self._waiting.clear()
        self._moved.set()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _move(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def _submit(self, command: Command, identity: Identity, stream: Stream) -> _Item:
        try:
            name, asked = read_order_command(command, identity)
        except DomainError as error:
            return _Item(command, "", None, command.refusal(error))
        stream.hold(name)
        try:
            return _Item(command, name, services.submit(asked))
        except DomainError as error:
            return _Item(command, name, None, command.refusal(error))

    async def _settle(self, stream: Stream) -> None:
        while self._waiting:
            item = self._waiting[0]
            try:
                await self._answer_one(item)
                if item.name:
                    stream.release(item.name)
            except Exception:
                log.exception("an order command could not be answered", action=item.command.action)
            if self._waiting:  # the socket may be closed by now
                self._waiting.popleft()
            self._moved.set()
        self._task = None

    async def _answer_one(self, item: _Item) -> None:
        command, refusal = item.command, item.refusal
        if item.future is not None:
            try:
                done: Done = await services.written(item.future)
                self._answer(command, {"type": ANSWERS[command.action], "order": wire.order(done.order, done.fills)})
                return
            except DomainError as error:
                refusal = command.refusal(error)
            except Exception:
                log.exception("an order command failed", action=command.action)
                refusal = command.error("internal", "the server failed on this command; it was noted")
        assert refusal is not None
        if item.name:
            refusal.details.setdefault("token_id", item.name)
        self._refuse(refusal)
