"""What other parts ask of market data."""

import asyncio
import weakref

from channels.layers import get_channel_layer
from django.conf import settings

from marketdata.hub import Hub

_hubs: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hub]" = weakref.WeakKeyDictionary()


async def current_hub() -> Hub:
    """Return this process's hub, started; one per event loop."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub(get_channel_layer(), settings.CATALOGUE.instruments, settings.VENUES)
        await hub.start()
    return hub


async def stop_hub() -> None:
    """Stop this loop's hub, if it has one."""
    hub = _hubs.pop(asyncio.get_running_loop(), None)
    if hub is not None:
        await hub.stop()
