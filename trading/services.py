"""What other parts ask of the exchange: every change goes to this process's one `Exchange`.

Each function here waits for its commit. From an event loop, `await written(submit(…))` instead.
"""

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings
from django.db import connection

from core.account import Balance, Fees
from core.errors import Refused, Unavailable
from core.orders import Terms
from trading import market, publish
from trading.commands import Amend, Cancel, CancelAll, Command, Deposit, Place, PlaceTwap, Reset
from trading.exchange import Done, Exchange
from trading.recording import Recording
from trading.writer import wait

ANSWER_S = 15.0  # for a commit; beyond it the client is told to ask

_lock = threading.Lock()
_exchange: list[Exchange] = []
_recording: list[Recording] = []


class UnknownAsset(Refused):
    code = "unknown_asset"


def assets() -> list[str]:
    """Return every asset that can be traded here, sorted."""
    return sorted({asset for one in settings.CATALOGUE.instruments for asset in (one.base, one.quote)})


def _fees() -> Fees:
    return Fees(maker=int(settings.MAKER_FEE_BPS * 100), taker=int(settings.TAKER_FEE_BPS * 100))


def record(folder: Path, role: str) -> Recording:
    """Record from here on, before there is an exchange.

    Raises:
        Unusable: nothing can be recorded there.
    """
    with _lock:
        assert not _exchange
        recording = Recording(folder, role, fees=_fees(), collar_bps=int(settings.TWAP_COLLAR_BPS))
        _recording.append(recording)
        return recording


def current_exchange() -> Exchange:
    """Return this process's exchange, made at the first call. Callable from any thread."""
    with _lock:
        if not _exchange:
            exchange = Exchange(
                market.market_of,
                takes_part=market.takes_part,
                fees=_fees(),
                depth_of=market.depth_of,
                collar_bps=int(settings.TWAP_COLLAR_BPS),
                witness=_recording[0].recorder if _recording else None,
            )
            _exchange.append(exchange)
        return _exchange[0]


def start_exchange(loop: asyncio.AbstractEventLoop) -> Exchange:
    """Make the exchange tell what it commits through this loop's channel layer."""
    exchange = current_exchange()
    exchange.told = publish.Teller(loop)
    return exchange


def stop_exchange() -> None:
    """Write what waits, then stop."""
    with _lock:
        while _exchange:
            _exchange.pop().stop()
        while _recording:
            _recording.pop().stop()
            connection.close()


def submit(command: Command) -> "Future[Any]":
    """Queue a command; see `commands` for what each returns (an order: `Done`)."""
    return current_exchange().submit(command)


async def written(future: "Future[Any]") -> Any:
    """Wait in an event loop for a command's commit, and return its result or raise its refusal.

    Whoever stops waiting does not stop the command.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    # A third of what wrap_future, shield and timeout cost together: this is the hot path.
    future.add_done_callback(partial(_waking(loop).wake, waiter))
    timer = loop.call_later(ANSWER_S, _end_wait, waiter)
    try:
        await waiter
    finally:
        timer.cancel()
    if not future.done():
        raise Unavailable("not written in time; ask for the order before you repeat it", retry_after=1)
    return future.result()


class _Waking:
    """Ends the waits in one event loop. A batch's commands are done together: one call from the thread wakes all."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weak: it is kept for as long as its loop, in a table whose keys its loops are.
        self._loop = weakref.ref(loop)
        self._done: deque[asyncio.Future[None]] = deque()
        self._called = False

    def wake(self, waiter: "asyncio.Future[None]", _future: "Future[Any]") -> None:
        """Callable from any thread."""
        self._done.append(waiter)
        loop = self._loop()
        if not self._called and loop is not None:
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(self._end_waits)

    def _end_waits(self) -> None:
        self._called = False  # before it looks: who comes later calls again
        while self._done:
            _end_wait(self._done.popleft())


_wakings: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waking] = WeakKeyDictionary()


def _waking(loop: asyncio.AbstractEventLoop) -> _Waking:
    waking = _wakings.get(loop)
    if waking is None:
        waking = _wakings[loop] = _Waking(loop)
    return waking


def _end_wait(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def deposit(*, account_id: int, asset: str, amount: int) -> Balance:
    """Add paper money.

    Raises:
        UnknownAsset: nothing here is traded in it.
        AmountTooLarge: no balance may be so large.
    """
    result: Balance = wait(submit(Deposit(account_id, known_asset(asset), amount)), ANSWER_S)
    return result


def credit(*, account_id: int, asset: str, amount: int) -> Balance:
    """Add paper money in the operator's name.

    Raises:
        UnknownAsset, AmountTooLarge: as for a deposit.
        Unauthorized: the user is disabled.
    """
    result: Balance = wait(submit(Deposit(account_id, known_asset(asset), amount, "credit")), ANSWER_S)
    return result


def place_order(*, account_id: int, terms: Terms) -> Done:
    """Place an order; what can be executed now is.

    Raises:
        DuplicateTokenId, InsufficientFunds, NoMarket, AmountTooLarge: nothing was stored.
    """
    result: Done = wait(submit(Place(account_id, terms)), ANSWER_S)
    return result


def place_twap(*, account_id: int, terms: Terms, venue: str, duration_s: int, slices: int) -> Done:
    """Place a parent order; its slices execute from now on.

    Raises:
        DuplicateTokenId, InsufficientFunds, AmountTooLarge: nothing was stored.
        NoMarket: it has no limit, and nothing is shown to take one from.
    """
    result: Done = wait(submit(PlaceTwap(account_id, terms, venue, duration_s, slices)), ANSWER_S)
    return result


def amend_order(*, account_id: int, token: str, price: int | None, quantity: int | None) -> Done:
    """Change an open order; one that crosses now executes at once.

    Raises:
        OrderNotFound, NotOpen, NothingToChange, InsufficientFunds, AmountTooLarge: it stays as it was.
    """
    result: Done = wait(submit(Amend(account_id, token, price, quantity)), ANSWER_S)
    return result


def cancel_order(*, account_id: int, token: str, reason: str = "by_client") -> Done:
    """End an open order.

    Raises:
        OrderNotFound, NotOpen: there is nothing to cancel.
    """
    result: Done = wait(submit(Cancel(account_id, token, reason)), ANSWER_S)
    return result


def cancel_all(*, account_id: int, instrument: str | None = None) -> list[Done]:
    """End all open orders, or those of one instrument; return them."""
    result: list[Done] = wait(submit(CancelAll(account_id, instrument)), ANSWER_S)
    return result


def reset_account(*, account_id: int, balances: Mapping[str, int]) -> Mapping[str, Balance]:
    """Cancel everything and start again with these balances; history stays.

    Raises:
        UnknownAsset: nothing here is traded in one of them.
    """
    start = {known_asset(asset): amount for asset, amount in balances.items()}
    result: Mapping[str, Balance] = wait(submit(Reset(account_id, start)), ANSWER_S)
    return result


def known_asset(asset: str) -> str:
    """Return the asset's name.

    Raises:
        UnknownAsset: nothing here is traded in it.
    """
    if asset not in assets():
        raise UnknownAsset(f"unknown asset {asset[:16]!r}; GET /info lists the assets")
    return asset
