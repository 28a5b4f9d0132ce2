"""Waiting in an event loop for what the writer's thread does."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from core.errors import Refused, Unavailable
from trading import services


async def test_a_result_and_a_refusal_come_from_the_other_thread() -> None:
    done: Future[Any] = Future()
    refused: Future[Any] = Future()
    waiting = asyncio.gather(services.written(done), services.written(refused), return_exceptions=True)
    await asyncio.sleep(0)
    threading.Thread(target=lambda: (done.set_result("written"), refused.set_exception(Refused("no")))).start()
    result, refusal = await asyncio.wait_for(waiting, 5)
    assert result == "written"
    assert isinstance(refusal, Refused)


async def test_what_is_done_already_needs_no_wait() -> None:
    done: Future[Any] = Future()
    done.set_result(1)
    assert await services.written(done) == 1


async def test_what_is_not_written_in_time_is_told_and_may_still_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "ANSWER_S", 0.01)
    late: Future[Any] = Future()
    with pytest.raises(Unavailable, match="ask for the order"):
        await services.written(late)
    late.set_result("written after all")


async def test_whoever_stops_waiting_does_not_stop_the_command() -> None:
    command: Future[Any] = Future()
    waiting = asyncio.create_task(services.written(command))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not command.cancelled()
    command.set_result("written")
    await asyncio.sleep(0)


def test_a_command_that_ends_after_its_loop_harms_nobody() -> None:
    command: Future[Any] = Future()

    async def ask() -> None:
        asyncio.create_task(services.written(command))  # noqa: RUF006 - dies with the loop
        await asyncio.sleep(0)

    asyncio.run(ask())
    command.set_result("written")
    assert command.result() == "written"
