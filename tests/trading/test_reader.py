"""Balances read for many at once, each asker checked for itself."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection

from accounts.models import User, token_key
from core.account import Balance
from core.errors import Unauthorized
from tests.trading.desk import Desk, units
from trading import reader

pytestmark = pytest.mark.django_db(transaction=True)
KEY = token_key("!")


@pytest.fixture(autouse=True)
def _own_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads whose connections end with the test: its database is emptied after it."""
    with ThreadPoolExecutor(1) as threads:
        monkeypatch.setattr(reader, "_executor", threads)
        yield
        threads.submit(lambda: connection.close()).result()  # the thread's own connection


def test_many_at_once_each_get_their_own_and_a_bad_key_gets_nothing() -> None:
    desk = Desk()
    alice, bob = desk.trader("alice", USDT="100", BTC="2"), desk.trader("bob", USDT="7")
    carol = User.objects.create(username="carol", password="!").pk
    gone = User.objects.create(username="dave", password="!", is_active=False).pk

    async def ask() -> list[object]:
        asked = [(alice, KEY), (bob, KEY), (carol, KEY), (alice, KEY), (alice, "x"), (gone, KEY), (10**9, KEY)]
        return await asyncio.gather(*(reader.balances(*one) for one in asked), return_exceptions=True)

    first, second, third, fourth, *refused = asyncio.run(ask())
    assert first == fourth == {"USDT": Balance(units(100), 0), "BTC": Balance(units(2), 0)}
    assert second == {"USDT": Balance(units(7), 0)}
    assert third == {}
    assert all(isinstance(error, Unauthorized) for error in refused)


def test_those_who_ask_while_a_query_runs_share_the_next_and_see_what_is_there_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    alice, bob = desk.trader("alice", USDT="1"), desk.trader("bob", USDT="1")
    queries: list[list[int]] = []
    read = reader._read_balances

    def counted(account_ids: list[int]) -> object:
        queries.append(account_ids)
        return read(account_ids)

    monkeypatch.setattr(reader, "_read_balances", counted)

    async def ask() -> list[object]:
        return await asyncio.gather(*(reader.balances(one, KEY) for one in [alice, bob, alice, bob, alice]))

    assert asyncio.run(ask()) == [{"USDT": Balance(units(1), 0)}] * 5
    assert queries == [[alice], [bob, alice]]


def test_a_query_that_fails_fails_for_all_who_asked_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    alice = Desk().trader("alice", USDT="1")
    read = reader._read_balances
    broken = [True]

    def once_broken(account_ids: list[int]) -> object:
        if broken.pop() if broken else False:
            raise OperationalError("gone")
        return read(account_ids)

    monkeypatch.setattr(reader, "_read_balances", once_broken)

    async def ask() -> list[object]:
        return await asyncio.gather(*(reader.balances(alice, KEY) for _ in range(3)), return_exceptions=True)

    first, *others = asyncio.run(ask())
    assert isinstance(first, OperationalError)
    assert others == [{"USDT": Balance(units(1), 0)}] * 2


def test_whoever_stops_waiting_does_not_disturb_the_others() -> None:
    alice = Desk().trader("alice", USDT="1")

    async def ask() -> object:
        gone = asyncio.create_task(reader.balances(alice, KEY))
        other = asyncio.create_task(reader.balances(alice, KEY))
        await asyncio.sleep(0)
        gone.cancel()
        return await other

    assert asyncio.run(ask()) == {"USDT": Balance(units(1), 0)}
