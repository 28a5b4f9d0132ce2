"""Channels as its tutorial shows it: a consumer a client in one group, the in-memory layer, daphne.

`python -m bench.peers.naive_channels PORT EVENTS PER_SECOND BURST`
"""

import sys
from typing import Any

import django
from daphne.server import Server, twisted_loop
from django.conf import settings

settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
django.setup()

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402

from bench.peers.stage import play, trade  # noqa: E402

GROUP = "prices"


class Prices(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json({"type": "subscribed"})

    async def price(self, event: dict[str, Any]) -> None:
        await self.send_json(event["frame"])


async def deliver(number: int) -> None:
    await get_channel_layer().group_send(GROUP, {"type": "price", "frame": trade(number)})


def main(port: int, events: int, per_second: float, burst: int) -> None:
    twisted_loop.create_task(play(deliver, events=events, per_second=per_second, burst=burst))
    application = ProtocolTypeRouter({"websocket": Prices.as_asgi()})
    Server(application, endpoints=[f"tcp:port={port}:interface=127.0.0.1"], signal_handlers=False).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
