"""What waits for a client, without a server."""

import asyncio
from typing import Any

import pytest

from core.instruments import parse_instrument
from gateway.outbox import QUEUE_BYTES_MAX, QUEUE_MAX, Outbox
from marketdata.hub import Encoded, Hub, TopicKey
from marketdata.layer import InProcessLayer

BTC = "BTC-USDT"
TRADES = TopicKey("trades", BTC, "all")


class Wire:
    """An ASGI send that a client reads, or does not."""

    def __init__(self, *, reads: bool) -> None:
        self.sent: list[str] = []
        self._reads = asyncio.Event()
        if reads:
            self._reads.set()

    async def __call__(self, message: dict[str, Any]) -> None:
        await self._reads.wait()
        self.sent.append(message["text"])


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_client_that_is_too_slow_takes_no_event_from_the_others() -> None:
    hub = Hub(InProcessLayer(), [parse_instrument(BTC)], ["okx"])
    wires = [Wire(reads=number != 1) for number in range(3)]
    boxes: list[Outbox] = []
    for wire in wires:
        box = Outbox(wire, None, lambda: hub.leave(boxes[1], TRADES))
        boxes.append(box)
        hub.join(box, TRADES)
    topic = hub._topics[TRADES]
    for number in range(QUEUE_MAX + 10):
        topic.send(f'"{number}"', 0, conflate=False)
        await asyncio.sleep(0)
    await settle()
    assert len(wires[0].sent) == len(wires[2].sent) == QUEUE_MAX + 10
    assert topic.subscribers == {boxes[0], boxes[2]}
    for box in boxes:
        await box.close()


@pytest.mark.parametrize("length", [100, 50_000])
async def test_what_waits_is_bounded_in_number_and_in_bytes(length: int) -> None:
    given_up: list[bool] = []
    box = Outbox(Wire(reads=False), None, lambda: given_up.append(True))
    frame = Encoded(b"x" * length)
    pushed = 0
    while not given_up:
        box.push(frame, None)
        pushed += 1
        await asyncio.sleep(0)
    assert pushed <= min(QUEUE_MAX, QUEUE_BYTES_MAX // length) + 4
    await box.close()
