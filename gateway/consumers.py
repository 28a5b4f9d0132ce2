"""The client's sockets: /ws, where a session says what it wants, and the public /ws/orderbook."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from urllib.parse import parse_qs

import msgspec
import structlog
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import InterfaceError, OperationalError

from accounts.authentication import Identity
from accounts.limits import RateLimited, current_limits
from core import strict_json
from core.errors import DomainError, NotFound, Unauthorized, Unavailable, UnknownVenue
from gateway.commands import Command, CommandError, Filter, read_command, read_filter, read_from_seq
from gateway.orders import OrderDesk
from gateway.outbox import Outbox
from gateway.protocol import SCOPE_EXTENSION, DirectSocket
from gateway.quotas import Share, current_quotas
from gateway.reports import Stream, current_reports
from gateway.sessions import authenticate, current_sessions
from marketdata.batches import ALL
from marketdata.frames import INTERVAL_NAMES, SINGULAR
from marketdata.hub import Encoded, Hub, TopicKey
from marketdata.services import current_hub

log = structlog.get_logger(__name__)

AUTH_FIRST_S = 0.25  # an auth message within this time is answered before anything else
RESUME_FIRST_S = 0.25  # a resume within this time comes before any report
AUTH_DEADLINE_S = 30.0  # without authentication the socket is closed
KEY_HEADERS = frozenset({b"x-api-key", b"x-token-id"})
BAD_FRAMES_MAX = 10_000  # a client that sends nothing else is not a client

CLOSE_POLICY = 1008
CLOSE_LATER = 1013
NO_LAYER = "none"  # consumers have no channel of their own: the hub brings what they send


class _Socket(AsyncWebsocketConsumer):  # type: ignore[misc] # Channels ships no types
    """What the sockets share: an outbox, a place under the sessions' clock, and no thread hop per message."""

    channel_layer_alias = NO_LAYER

    identity: Identity | None = None
    refused = False  # what is still to be read of it counts no more
    outbox: Outbox
    share: Share

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Go to the handler directly: nothing here uses the thread's database connection."""
        kind = message["type"]
        if kind == "websocket.connect":
            await self._connect(message)
        elif kind == "websocket.receive":
            await self.take(message)
        elif kind == "websocket.disconnect":
            await self.end()
            raise StopConsumer

    async def _connect(self, message: dict[str, Any]) -> None:
        """Connect; a failure is told, and leaves nothing behind."""
        try:
            await self.websocket_connect(message)
        except StopConsumer:
            raise
        except RateLimited as error:
            await self.refuse(error, code=CLOSE_LATER)
        except Exception:
            if not hasattr(self, "outbox"):
                raise  # the client is gone already
            log.exception("a socket could not be opened")
            await self.refuse(Unavailable("a service behind this one is not available; try again"), code=CLOSE_LATER)

    async def open(self, *, authenticates: bool = False) -> None:
        """Accept the socket and count it; `authenticates` says that it brought credentials."""
        await self.accept()
        direct = self.scope.get("extensions", {}).get(SCOPE_EXTENSION)
        self.outbox = Outbox(self.base_send, direct if isinstance(direct, DirectSocket) else None, self.leave_all)
        current_sessions().add(self)
        client = self.scope.get("client")
        self.share = Share(current_quotas(), str(client[0]) if client else "unknown")
        await self.share.open(authenticates=authenticates)

    async def take(self, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def leave_all(self) -> None:
        """Leave every stream: the socket is going, or its client is too slow to be told anything."""

    async def check(self, now_s: float) -> None:
        self.outbox.check(now_s)

    async def cut_off(self) -> None:
        await self.refuse(Unauthorized("this account was disabled or its password changed; log in again"))

    async def end(self) -> None:
        current_sessions().discard(self)
        self.leave_all()
        if hasattr(self, "outbox"):
            self.share.close()
            await self.outbox.close()

    def say(self, message: dict[str, Any]) -> None:
        self.outbox.push(Encoded(strict_json.dumps(message)), None)

    async def refuse(
        self, error: DomainError, reply: dict[str, Any] | None = None, *, code: int = CLOSE_POLICY
    ) -> None:
        """Tell why, then close; nothing else is told in between, nor taken."""
        self.refused = True
        self.leave_all()
        last = reply or {"type": "error", "code": error.code, "message": error.message}
        if not await self.outbox.finish(Encoded(strict_json.dumps(last)), code):
            await self.close(code)


class ClientSocket(_Socket):
    """One client's session on /ws."""

    async def connect(self) -> None:
        self._subscriptions: dict[tuple[Any, ...], tuple[TopicKey, Filter]] = {}
        self._opened_s = time.monotonic()
        self._greeting: asyncio.TimerHandle | None = None
        self._reports: Stream | None = None
        self._reports_start: asyncio.TimerHandle | None = None
        self._orders = OrderDesk(self._answer, self._answer_error)
        self._bad_frames = 0
        credential = self._credential()
        await self.open(authenticates=credential is not None)
        self.hub = await current_hub()
        if credential is None:
            loop = asyncio.get_running_loop()
            self._greeting = loop.call_later(AUTH_FIRST_S, self._greet)
            return
        try:
            await self._identify(credential)
        except Unauthorized as error:
            await self.refuse(error)
        else:
            self._greet()
            self._start_reports_soon()

    async def take(self, message: dict[str, Any]) -> None:
        if self.refused:
            return
        text = message.get("text")
        command: Command | None = None
        try:
            if text is None:
                raise CommandError("bad_command", "binary frames are not read here; send JSON text")
            command = read_command(text)
            action = self.ACTIONS.get(command.action)
            if self.identity is None and command.action != "auth":
                self._require_identity(command)
            if action is not ClientSocket._order:
                await self._orders.settled()  # answers keep the order of the commands
            if action is None:
                raise command.error(
                    "unknown_action", f"unknown action; choose one of {', '.join(sorted(self.ACTIONS))}"
                )
            await action(self, command)
        except CommandError as error:
            await self._orders.settled()
            self._answer_error(error)
            self._bad_frames += 1
            if self._bad_frames > BAD_FRAMES_MAX:
                await self.refuse(CommandError("too_many_errors", f"more than {BAD_FRAMES_MAX} bad frames"))
        except (OperationalError, InterfaceError) as error:
            log.warning("the database does not answer a socket", error=str(error))
            self._answer_error(_failure(command, Unavailable.code, "the database does not answer; try again"))
        except Exception:
            log.exception("a client's frame failed")
            self._answer_error(_failure(command, "internal", "the server failed on this frame; it was noted"))

    async def end(self) -> None:
        self._cancel_greeting()
        self._orders.close()
        await super().end()

    async def check(self, now_s: float) -> None:
        """Hold the session to its credentials too: the deadline, and the token's end."""
        await super().check(now_s)
        if self.identity is None:
            if now_s - self._opened_s > AUTH_DEADLINE_S and not settings.WS_ANONYMOUS_MARKET_DATA:
                await self.refuse(Unauthorized("not authenticated in time"))
        elif time.time() >= self.identity.expires_at:
            await self.refuse(Unauthorized("the access token has expired; log in again"))

    # -- credentials

    def _credential(self) -> str | None:
        """Return what came with the handshake: `?token=`, an Authorization header or an API key's."""
        query_string: bytes = self.scope.get("query_string", b"")
        query = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
        if "token" in query:
            return query["token"][-1]
        headers: list[tuple[bytes, bytes]] = self.scope.get("headers", [])
        for name, value in headers:
            if name in KEY_HEADERS:
                return value.decode("latin-1").strip()
            if name == b"authorization":
                scheme, _, token = value.decode("latin-1").partition(" ")
                return token.strip() if scheme.lower() == "bearer" else scheme
        return None

    async def _identify(self, token: str) -> Identity:
        identity: Identity = await authenticate(token)
        if self.identity is not None and identity.user_id != self.identity.user_id:
            raise Unauthorized("this socket belongs to another user; open a new one")
        await self.share.belongs_to(identity)
        if self._reports is None:
            self._reports = await current_reports().follow(identity.user_id, self.outbox)
        self.identity = identity
        self.scope.get("log", {})["account"] = identity.user_id  # the socket's line in the log says whose it was
        return identity

    def _start_reports_soon(self) -> None:
        if self._reports is not None and self._reports_start is None:
            self._reports_start = asyncio.get_running_loop().call_later(RESUME_FIRST_S, self._reports.start)

    def _greet(self) -> None:
        self._greeting = None
        identity = self.identity
        self.say(
            {
                "type": "info",
                "status": "ok",
                "message": _welcome(self.hub.source),
                "auth_status": "authenticated" if identity else "authentication required",
                "username": identity.username if identity else None,
                "last_seq": self._reports.seq if self._reports else None,
                "source": self.hub.source or settings.MARKET_SOURCE,
                "paper": True,
            }
        )

    def _require_identity(self, command: Command) -> None:
        if settings.WS_ANONYMOUS_MARKET_DATA and command.action in ANONYMOUS_ACTIONS:
            return
        raise command.error(
            Unauthorized.code, 'authenticate first: {"action":"auth","token":"…"}, or connect with ?token=…'
        )

    async def _auth(self, command: Command) -> None:
        token = command.body.get("token") or command.body.get("api_key")
        self._cancel_greeting()
        try:
            if not isinstance(token, str):
                raise Unauthorized("auth needs a token, as POST /login gives it, or an api_key")
            identity = await self._identify(token)
        except RateLimited as error:
            await self.refuse(error, _error_message(command.error(error.code, error.message)), code=CLOSE_LATER)
            return
        except Unauthorized as error:
            await self.refuse(error, _error_message(command.error(error.code, error.message)))
            return
        self._answer(command, {"type": "auth", "status": "ok", "username": identity.username})
        self._start_reports_soon()

    def _cancel_greeting(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()
            self._greeting = None

    # -- commands

    async def _subscribe(self, command: Command) -> None:
        chosen = read_filter(command, settings.CATALOGUE, tuple(settings.VENUES))
        identity = _identity_of(chosen)
        known = identity in self._subscriptions
        assert chosen.stream is not None
        assert chosen.instrument is not None
        assert chosen.venue is not None
        await self.hub.awaken(chosen.stream, chosen.instrument)
        if not known:
            try:
                await self.share.subscribe()
            except RateLimited as error:
                raise command.error("too_many_subscriptions", error.message) from None
        self._answer(command, _confirmation(chosen, "subscribed"))
        if known:
            return
        key = self.hub.topic_key(
            chosen.stream, chosen.instrument, chosen.venue, chosen.argument, singular=chosen.singular
        )
        self._subscriptions[identity] = (key, chosen)
        for frame in self.hub.join(self.outbox, key):
            self.outbox.push(frame, key)

    async def _unsubscribe(self, command: Command) -> None:
        chosen = read_filter(command, settings.CATALOGUE, tuple(settings.VENUES), wildcards=True)
        gone = [item for item, (_, made) in self._subscriptions.items() if _matches(chosen, made)]
        for item in gone:
            key, _ = self._subscriptions.pop(item)
            self.hub.leave(self.outbox, key)
            self.outbox.forget(key)
        self.share.unsubscribe(len(gone))
        answer = _confirmation(chosen, "unsubscribed")
        answer["count"] = len(gone)
        self._answer(command, answer)

    async def _list(self, command: Command) -> None:
        made = [_described(chosen) for _, chosen in self._subscriptions.values()]
        self._answer(command, {"type": "subscriptions", "subscriptions": made})

    async def _ping(self, command: Command) -> None:
        self._answer(command, {"type": "pong", "action": "pong", "timestamp": _now()})

    # -- orders and their reports

    async def _order(self, command: Command) -> None:
        assert self.identity is not None
        assert self._reports is not None
        await self._require_pace(command, self.identity)
        self._reports.start()
        await self._orders.take(command, self.identity, self._reports)

    async def _require_pace(self, command: Command, identity: Identity) -> None:
        """Hold order commands to the tier, counted together with those over REST."""
        if settings.RATE_LIMITS:
            window = await current_limits().order_action(f"user:{identity.user_id}", identity.tier)
            if not window.allowed:
                await self._orders.settled()
                raise command.error(RateLimited.code, f"too many order commands; at most {window.limit} a second")

    async def _resume(self, command: Command) -> None:
        """Tell the reports after the client's last one again; this answer comes before them."""
        reports = self._reports
        assert reports is not None
        if self._reports_start is not None:
            self._reports_start.cancel()
        reports.stop()
        try:
            last_seq = await current_reports().last_seq(reports.feed.account_id)
            from_seq = read_from_seq(command, last_seq=last_seq)
        except BaseException:
            reports.start()
            raise
        self._answer(command, {"type": "resumed", "from_seq": from_seq, "last_seq": last_seq})
        reports.go_on_after(from_seq, top=last_seq)

    ACTIONS: ClassVar[dict[str, Callable[["ClientSocket", Command], Awaitable[None]]]] = {
        "auth": _auth,
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "list": _list,
        "ping": _ping,
        "submit_order": _order,
        "modify_order": _order,
        "cancel_order": _order,
        "resume": _resume,
    }

    def leave_all(self) -> None:
        for key, _ in self._subscriptions.values():
            self.hub.leave(self.outbox, key)
        self._subscriptions.clear()
        if self._reports_start is not None:
            self._reports_start.cancel()
        if self._reports is not None:
            current_reports().leave(self._reports)

    # -- answers

    def _answer(self, command: Command, message: dict[str, Any]) -> None:
        if command.has_id:
            message["id"] = command.id
        self.say(message)

    def _answer_error(self, error: CommandError) -> None:
        self.say(_error_message(error))


ANONYMOUS_ACTIONS = frozenset({"subscribe", "unsubscribe", "list", "ping"})


class BooksSocket(_Socket):
    """The public book images: /ws/orderbook and /ws/orderbook/{exchange}, one a second."""

    _hub: Hub | None = None

    async def connect(self) -> None:
        named = self.scope["url_route"]["kwargs"].get("exchange", ALL)
        self._venue = named.lower()
        await self.open()
        if not named.isascii() or self._venue not in (ALL, *settings.VENUES):
            names = ", ".join(settings.VENUES)
            await self.refuse(UnknownVenue(f"unknown exchange; choose one of {names}"))
            return
        self._hub = await current_hub()
        self._hub.join_books(self.outbox, self._venue)

    async def take(self, message: dict[str, Any]) -> None:
        """Nothing is asked of this socket: what a client says is answered once per frame."""
        self.say({"type": "error", "code": "read_only", "message": "this socket only sends; commands go to /ws"})

    def leave_all(self) -> None:
        if self._hub is not None:
            self._hub.leave_books(self.outbox, self._venue)


class UnknownSocket(_Socket):
    """Any other path: accepted to say so, then closed."""

    async def connect(self) -> None:
        await self.open()
        await self.refuse(NotFound("no such socket; connect to /ws or /ws/orderbook"))

    async def take(self, message: dict[str, Any]) -> None:
        return


def _failure(command: Command | None, code: str, message: str) -> CommandError:
    return CommandError(code, message) if command is None else command.error(code, message)


def _error_message(error: CommandError) -> dict[str, Any]:
    message: dict[str, Any] = {"type": "error", **error.details, "code": error.code, "message": error.message}
    if error.has_id:
        message["id"] = error.reply_to
    return message


def _identity_of(chosen: Filter) -> tuple[Any, ...]:
    return (chosen.stream, chosen.instrument, chosen.venue, chosen.argument, chosen.singular)


def _matches(wanted: Filter, made: Filter) -> bool:
    return all(
        getattr(wanted, name) is None or getattr(wanted, name) == getattr(made, name)
        for name in ("stream", "instrument", "venue", "argument")
    )


def _described(chosen: Filter) -> dict[str, Any]:
    described: dict[str, Any] = {"stream": chosen.stream, "symbol": chosen.symbol, "exchange": chosen.venue}
    if chosen.argument is not None:
        if chosen.stream == "klines":
            described["interval"] = INTERVAL_NAMES[int(chosen.argument)]
        elif chosen.stream == "ewma":
            described["half_life"] = msgspec.Raw(msgspec.json.encode(chosen.argument))
        else:
            described["depth"] = int(chosen.argument)
    return {name: value for name, value in described.items() if value is not None}


def _confirmation(chosen: Filter, action: str) -> dict[str, Any]:
    if not chosen.singular:
        return {"type": action, **_described(chosen)}
    described = _described(chosen)
    parts = [SINGULAR.get(chosen.stream or "", "*"), chosen.symbol or "*", chosen.venue or "*"]
    if chosen.stream == "klines" and "interval" in described:
        parts.append(described["interval"])
    return {"type": "confirmation", "action": action, "subscription": ":".join(parts), **described}


def _welcome(source: str | None) -> str:
    if source == "simulated":
        return "Simple Router, paper trading. THE MARKET IS SIMULATED: no price here is real."
    return "Simple Router, paper trading."


def _now() -> msgspec.Raw:
    return msgspec.Raw(f"{time.time():.6f}".encode())
