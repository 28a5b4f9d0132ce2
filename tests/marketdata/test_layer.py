import asyncio

import pytest
from channels.exceptions import ChannelFull

from marketdata.layer import InProcessLayer


async def test_a_group_message_reaches_every_member_in_order_and_nobody_else() -> None:
    layer = InProcessLayer()
    members = [await layer.new_channel() for _ in range(3)]
    stranger = await layer.new_channel()
    for channel in members[:2]:
        await layer.group_add("group", channel)
    await layer.group_add("other", stranger)
    for number in range(5):
        await layer.group_send("group", {"type": "test", "number": number})
    for channel in members[:2]:
        assert [(await layer.receive(channel))["number"] for _ in range(5)] == list(range(5))
    for channel in (members[2], stranger):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await layer.receive(channel)


async def test_a_receiver_that_waits_is_woken() -> None:
    layer = InProcessLayer()
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    waiting = asyncio.create_task(layer.receive(channel))
    await layer.group_send("group", {"type": "test"})
    assert await waiting == {"type": "test"}


async def test_a_member_that_does_not_read_keeps_the_newest() -> None:
    layer = InProcessLayer(capacity=3)
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    for number in range(10):
        await layer.group_send("group", {"type": "test", "number": number})
    assert [(await layer.receive(channel))["number"] for _ in range(3)] == [7, 8, 9]


async def test_a_full_channel_refuses_and_a_member_that_left_gets_nothing() -> None:
    layer = InProcessLayer(capacity=1)
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "test"})
    with pytest.raises(ChannelFull):
        await layer.send(channel, {"type": "test"})
    await layer.receive(channel)
    await layer.group_add("group", channel)
    await layer.group_discard("group", channel)
    await layer.group_discard("group", channel)
    await layer.group_send("group", {"type": "test"})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await layer.receive(channel)
