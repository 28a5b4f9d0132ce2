"""A matcher beside many resting orders, measured from within: run as a process by `bench.matching`.

Writes one JSON line per number of orders: what a tick costs, and how long it took to know the orders.
"""

import asyncio
import json
import os
import sys
import time
from decimal import Decimal
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "router_project.settings")
django.setup()

from asgiref.sync import sync_to_async  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from accounts.models import User  # noqa: E402
from core.instruments import parse_instrument  # noqa: E402
from core.money import UNITS  # noqa: E402
from marketdata.batches import QuoteSlot, TouchBatch, VenueStatus, touch_message  # noqa: E402
from marketdata.hub import Hub  # noqa: E402
from trading import services  # noqa: E402
from trading.matcher import Matcher  # noqa: E402

INSTRUMENT = "BTC-USDT"
VENUE = "okx"
ROUNDS = 7
STARTS = 3
MID = 50_000


def place(count: int) -> None:
    """Leave so many orders open, half of them on each side of the market, none of them near it."""
    user, _ = User.objects.get_or_create(username="trader", defaults={"password": "!"})
    moment = connection.ops.adapt_datetimefield_value(user.date_joined)
    rows = []
    for number in range(count):
        side, price = ("buy", MID - 1_000) if number % 2 else ("sell", MID + 1_000)
        units = price * UNITS + (-number if number % 2 else number) * 10_000
        row = (f"o-{number}", user.pk, f"t-{number}", INSTRUMENT, side, units, units, moment, moment)
        rows.append(row)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM trading_order")
        cursor.execute(
            "INSERT INTO trading_account (user_id, seq, created_at) VALUES (%s, 0, %s) ON CONFLICT DO NOTHING",
            (user.pk, moment),
        )
        cursor.executemany(
            "INSERT INTO trading_order (id, account_id, token_id, instrument, side, order_type, asked_price, price,"
            " asked_quantity, quantity, filled_quantity, filled_notional, fill_count, fee, held, status, reason,"
            " version, created_at, updated_at) VALUES (%s, %s, %s, %s, %s, 'limit', %s, %s, 1, 1, 0, '0', 0, 0, 0,"
            " 'open', '', 1, %s, %s)",
            rows,
        )


def ticks(count: int) -> list[dict[str, Any]]:
    """Return messages of a touch that moves each time, bid and ask by turns, and crosses nobody."""
    messages = []
    for number in range(count):
        bid, ask = Decimal(MID) - number % 7, Decimal(MID) + 1 + number % 5
        slot = QuoteSlot(VENUE, INSTRUMENT, bid, Decimal("0.5"), ask, Decimal("0.25"), None, time.time_ns())
        messages.append(touch_message(TouchBatch("bench", number + 2, False, "live", [slot], [])))
    return messages


async def start(hub: Hub, count: int) -> tuple[Matcher, asyncio.Task[None], float]:
    """Start a matcher; return it with the seconds it took to know all orders."""
    matcher = Matcher(hub, services.current_exchange(), get_channel_layer())
    began_s = time.perf_counter()
    task = asyncio.create_task(matcher.run())
    await matcher.loaded.wait()
    took_s = time.perf_counter() - began_s
    assert len(matcher) == count
    while not matcher.leadership.held:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return matcher, task, took_s


async def measure(count: int, tick_count: int) -> dict[str, Any]:
    await sync_to_async(place)(count)
    hub = Hub(get_channel_layer(), [parse_instrument(INSTRUMENT)], [VENUE])
    status = VenueStatus(VENUE, "live", "", (INSTRUMENT,), {}, 0.0, 0.0, 0.0, {})
    hub._take(touch_message(TouchBatch("bench", 1, False, "live", [], [status])))
    messages = ticks(tick_count)
    recoveries, costs, matching = [], [], []
    for _ in range(STARTS):
        matcher, task, took_s = await start(hub, count)
        recoveries.append(took_s)
        if len(recoveries) < STARTS:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for _ in range(ROUNDS):
        began_ns = time.thread_time_ns()
        for message in messages:
            hub._take(message)
        costs.append((time.thread_time_ns() - began_ns) / tick_count / 1000)
        began_ns = time.thread_time_ns()
        for _ in messages:
            matcher._touched(INSTRUMENT)
        matching.append((time.thread_time_ns() - began_ns) / tick_count / 1000)
        await asyncio.sleep(0)
    assert len(matcher) == count, "nothing was crossed"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return {"orders": count, "tick_us": min(costs), "matcher_us": min(matching), "recovery_s": min(recoveries)}


def main() -> None:
    tick_count, *counts = map(int, sys.argv[1:])
    call_command("migrate", interactive=False, verbosity=0)
    for count in counts:
        print(json.dumps(asyncio.run(measure(count, tick_count))), flush=True)


if __name__ == "__main__":
    main()
