"""The router's own web role for the delivery bench, its feeds replaced by a driver in the same process.

`python -m bench.router_web PORT EVENTS PER_SECOND BATCH`, with the router's environment. Every event
takes the whole road from the channel layer on: batch, hub, frame, outbox, transport.
"""

import asyncio
import sys
import time
import uuid
from decimal import Decimal

import django
import uvloop
from django.conf import settings

django.setup()

from channels.layers import get_channel_layer  # noqa: E402

from bench.peers.stage import play  # noqa: E402
from core.events import Side  # noqa: E402
from marketdata.batches import InstrumentBatch, TradePrint, instrument_group, instrument_message  # noqa: E402
from marketdata.services import current_hub  # noqa: E402
from router_project.management.commands.run_router import listen, web_server  # noqa: E402

INSTRUMENT = "BTC-USDT"
PUBLISHER = uuid.uuid4().hex


async def deliver(first: int, trades: int) -> None:
    """Publish trades as the feeds do, in one batch."""
    now_ns = time.time_ns()
    prints = [
        TradePrint(
            "binance", str(number), number, number, Decimal("61837.63"), Decimal("0.00713"), Side.BUY, now_ns, now_ns
        )
        for number in range(first, first + trades)
    ]
    batch = InstrumentBatch(PUBLISHER, INSTRUMENT, first // trades + 1, prints, [], [], [])
    await get_channel_layer().group_send(instrument_group(INSTRUMENT), instrument_message(batch))


async def main(port: int, events: int, per_second: float, batch: int) -> None:
    await current_hub()
    server = asyncio.create_task(web_server().serve(sockets=[listen(settings.HOST, port)]))
    await play(
        lambda number: deliver((number - 1) * batch, batch), events=events // batch, per_second=per_second / batch
    )
    await server


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
