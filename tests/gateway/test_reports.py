"""Reports to sockets, on the real database and the layer of one process."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from msgspec import msgpack

from core import strict_json
from gateway import reports as gateway_reports
from gateway.outbox import QUEUE_MAX, Outbox
from gateway.reports import PAGE, RECENT_MAX, Reports, Stream, read_event
from gateway.sessions import DATABASE_THREADS, _executor
from marketdata.layer import InProcessLayer
from tests.trading.desk import Desk
from trading.ledger import Outcome
from trading.models import Account, Report
from trading.publish import AccountReports, account_group

pytestmark = pytest.mark.django_db(transaction=True)


class Client:
    """A socket's outbox whose client reads, until it is told to stop."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.gave_up = False
        self.news = asyncio.Condition()
        self.outbox = Outbox(self._send, None, self._give_up)

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        async with self.news:
            self.heard.append(strict_json.loads(message["text"].encode()))
            self.news.notify_all()

    def _give_up(self) -> None:
        self.gave_up = True

    @property
    def seqs(self) -> list[int]:
        return [message["seq"] for message in self.heard]

    async def until(self, count: int, timeout_s: float = 5.0) -> list[int]:
        """Wait for so many reports; return their numbers."""
        async with asyncio.timeout(timeout_s), self.news:
            await self.news.wait_for(lambda: len(self.heard) >= count)
        return self.seqs

    async def hears(self, seq: int, timeout_s: float = 5.0) -> None:
        """Wait until this report is the last one."""
        async with asyncio.timeout(timeout_s), self.news:
            await self.news.wait_for(lambda: bool(self.heard) and self.heard[-1]["seq"] == seq)


class House:
    """An account whose orders fill, with the reports of one process."""

    def __init__(self) -> None:
        self.layer = InProcessLayer()
        self.reports = Reports(self.layer)
        self.clients: list[Client] = []
        self.desk = Desk()
        self.desk.quote(ask=[("100", "1000000", "okx")])
        self.account = 0

    async def fill(self, count: int = 1, *, telling: bool = True, token: str | None = None) -> list[Outcome]:
        """Execute market orders; tell the layer unless the wake-up is to be lost."""
        before = len(self.desk.outcomes)
        for _ in range(count):
            await sync_to_async(self._buy)(token)
        outcomes = self.desk.outcomes[before:]
        if telling:
            for outcome in outcomes:
                await self.tell(outcome)
        return outcomes

    def _buy(self, token: str | None) -> None:
        while True:
            try:
                self.desk.order(self.account, "buy", "0.001", kind="market", token=token)
            except OperationalError:  # SQLite in memory: a thread that reads locks the table for the others
                continue
            return

    async def tell(self, outcome: Outcome) -> None:
        told = AccountReports(self.account, [(report.seq, report.body) for report in outcome.reports])
        message = {"type": "trading.reports", "body": msgpack.encode(told)}
        await self.layer.group_send(account_group(self.account), message)

    async def socket(self, *, start: bool = True) -> tuple[Client, Stream]:
        client = Client()
        self.clients.append(client)
        stream = await self.reports.follow(self.account, client.outbox)
        if start:
            stream.start()
        return client, stream


@pytest_asyncio.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(gateway_reports, "WATCH_INTERVAL_S", 0.2)
    house = House()
    house.account = await sync_to_async(house.desk.trader)(USDT="1000000000")
    yield house
    await house.reports.stop()
    for client in house.clients:
        await client.outbox.close()
    await sync_to_async(lambda: connection.close())()  # of the thread that asks
    await asyncio.to_thread(close_database_threads)


def close_database_threads() -> None:
    """Close the connections of the sockets' threads: a test database with readers cannot be dropped."""
    everyone = threading.Barrier(DATABASE_THREADS)

    def close() -> None:
        everyone.wait(5)
        connection.close()

    for done in [_executor.submit(close) for _ in range(DATABASE_THREADS)]:
        done.result(10)


async def test_every_socket_of_the_user_hears_a_report_once_and_from_one_encoding(house: House) -> None:
    sockets = [await house.socket() for _ in range(3)]
    await house.fill(5)
    for client, _ in sockets:
        assert await client.until(5) == [1, 2, 3, 4, 5]
    message = sockets[0][0].heard[0]
    order = message["data"]["order"]
    assert message["type"] == "order_update"
    assert {name: message[name] for name in ("token_id", "order_id", "symbol", "side", "status", "exchange")} == {
        "token_id": order["token_id"], "order_id": order["id"], "symbol": "BTCUSDT", "side": "buy",
        "status": "filled", "exchange": "okx",
    }  # fmt: skip
    assert message["execution_price"] == message["data"]["fill"]["price"] == 100


async def test_a_socket_hears_nothing_of_what_was_before_it(house: House) -> None:
    await house.fill(3)
    client, stream = await house.socket()
    assert stream.seq == 3
    await house.fill()
    assert await client.until(1) == [4]


async def test_a_lost_wake_up_is_made_good_by_the_next_one_in_order(house: House) -> None:
    client, _ = await house.socket()
    await house.fill(2, telling=False)
    await house.fill()
    assert await client.until(3) == [1, 2, 3]


async def test_a_lost_wake_up_is_found_by_the_watch(house: House) -> None:
    client, _ = await house.socket()
    await house.fill(2, telling=False)
    assert await client.until(2) == [1, 2]
    assert house.reports.counters["wake_ups_lost"] >= 1


async def test_wake_ups_out_of_order_and_twice_change_nothing(house: House) -> None:
    client, _ = await house.socket()
    outcomes = await house.fill(6, telling=False)
    for outcome in (*reversed(outcomes), *outcomes):
        await house.tell(outcome)
    assert await client.until(6) == [1, 2, 3, 4, 5, 6]
    await house.fill()
    assert await client.until(7) == [1, 2, 3, 4, 5, 6, 7]


async def test_nothing_of_an_order_comes_before_its_own_command_is_answered(house: House) -> None:
    client, stream = await house.socket()
    other, _ = await house.socket()
    stream.hold("mine")
    await house.fill()
    await house.fill(token="mine")
    await house.fill()
    assert await other.until(3) == [1, 2, 3]
    assert await client.until(1) == [1]
    stream.release("mine")
    assert await client.until(3) == [1, 2, 3]


async def test_a_socket_that_holds_back_for_longer_than_what_is_kept_misses_nothing(house: House) -> None:
    client, stream = await house.socket()
    stream.hold("mine")
    await house.fill(token="mine")
    count = RECENT_MAX + 40
    await house.fill(count)
    await house.reports._watch()
    assert client.seqs == []
    assert len(stream.feed.recent) <= RECENT_MAX
    stream.release("mine")
    assert await client.until(count + 1) == list(range(1, count + 2))
    await house.fill()
    await client.until(count + 2)
    assert stream.feed.recent == {}


async def store(house: House, count: int) -> None:
    """Number many reports on, as the ledger would."""
    (outcome,) = await house.fill(telling=False)
    body = outcome.reports[0].body.decode()
    now = house.desk.now

    def write() -> None:
        Report.objects.bulk_create(
            Report(account_id=house.account, seq=seq, body=body, created_at=now) for seq in range(2, count + 1)
        )
        Account.objects.filter(pk=house.account).update(seq=count)

    await sync_to_async(write)()


async def test_a_resume_pages_through_the_past_at_the_pace_of_its_client_and_goes_on_live(house: House) -> None:
    count = QUEUE_MAX + 3 * PAGE
    await store(house, count)
    client, stream = await house.socket(start=False)
    client.reads.clear()
    stream.go_on_after(0, top=count)
    for _ in range(50):
        await asyncio.sleep(0.01)
    assert not client.gave_up, "a replay waits for its client"
    await house.fill()
    client.reads.set()
    assert await client.until(count + 1, 20) == list(range(1, count + 2))
    await house.fill()
    assert (await client.until(count + 2))[-1] == count + 2


async def test_a_resume_while_another_is_under_way_starts_anew(house: House) -> None:
    count = 3 * PAGE
    await store(house, count)
    client, stream = await house.socket(start=False)
    stream.go_on_after(0, top=count)
    await client.until(10)
    stream.go_on_after(count - 5, top=count)
    await house.fill()
    await client.hears(count + 1)
    tail = client.seqs[-6:]
    assert tail == list(range(count - 4, count + 2))


async def test_a_live_client_that_does_not_read_is_given_up(house: House) -> None:
    (outcome,) = await house.fill(telling=False)
    body = outcome.reports[0].body
    client, stream = await house.socket()
    client.reads.clear()
    for seq in range(2, QUEUE_MAX + 10):
        stream.feed.take(seq, body)
        stream.feed.pass_on_to_all()
    await asyncio.sleep(0)
    assert client.gave_up


async def test_the_group_is_left_with_the_last_socket_and_joined_by_the_next(house: House) -> None:
    client, stream = await house.socket()
    house.reports.leave(stream)
    for _ in range(10):
        await asyncio.sleep(0)
    assert account_group(house.account) not in house.layer._groups
    await house.fill()
    again, _ = await house.socket()
    await house.fill()
    assert await again.until(1) == [2]
    assert client.seqs == []


async def test_many_sockets_that_come_at_once_share_their_queries(house: House) -> None:
    await house.fill(2)
    sockets = await asyncio.gather(*(house.socket() for _ in range(200)))
    assert {stream.seq for _, stream in sockets} == {2}
    await house.fill()
    for client, _ in sockets:
        assert await client.until(1) == [3]


async def test_a_layer_that_is_away_delays_reports_and_loses_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(gateway_reports, "JOIN_S", 0.05)
    monkeypatch.setattr(house.layer, "group_add", refuse)
    client, _ = await house.socket()
    await house.fill(3)
    assert await client.until(3) == [1, 2, 3]


async def test_a_frame_copies_the_numbers_digit_for_digit(house: House) -> None:
    (outcome,) = await house.fill(telling=False)
    body = outcome.reports[0].body
    text = read_event(7, body).frame.text
    assert text.endswith(b',"data":' + body + b"}")
    assert b'"quantity":0.001,' in text.split(b'"data"')[0]
    assert strict_json.loads(text)["seq"] == 7
