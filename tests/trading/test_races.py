"""Several processes, each with several writers, want the same thing at once: one of them gets it.

On a database of their own, as processes share one: SQLite in a file, and PostgreSQL. After each
race the rows must prove themselves.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count

import pytest

from core.account import Market, Offer
from core.events import Side
from core.money import UNITS
from core.orders import OrderType, Terms
from tests.end_to_end.conftest import PROFILES, environment_of
from tests.trading.rival import Answer, Rival
from trading.commands import Amend, Cancel, CancelAll, Command, Deposit, FillResting, Place, Reset

PROCESSES = 3
SEED = 5
BTC = "BTC-USDT"
PRICE = 100 * UNITS

_names = count(1)


class Arena:
    """The rivals, and a way to let commands loose on them all at the same moment."""

    def __init__(self, rivals: Sequence[Rival]) -> None:
        self.rivals = rivals
        self.dice = random.Random(SEED)
        self.accounts: list[int] = []

    def trader(self, **deposits: int) -> int:
        account: int = self.rivals[0].ask("user", f"racer{next(_names)}")
        self.accounts.append(account)
        if deposits:
            self.race([Deposit(account, asset, amount) for asset, amount in deposits.items()])
        return account

    def rest(self, account: int, orders: int) -> list[str]:
        """Let buy orders rest, of one coin each."""
        answers = self.race([place(account, f"r{number}") for number in range(orders)])
        assert {word for word, _ in answers} == {"accepted"}
        return [order for _, order in answers]

    def race(self, commands: Sequence[Command]) -> list[Answer]:
        """Deal the commands to the rivals, let them start at once, and return the answers in order."""
        hands = [list(range(start, len(commands), len(self.rivals))) for start in range(len(self.rivals))]
        for rival, hand in zip(self.rivals, hands, strict=True):
            rival.begin("run", [commands[number] for number in hand], self.accounts)
        for rival in self.rivals:
            assert rival.end() == "ready"
        for rival in self.rivals:
            rival.go()
        answers: dict[int, Answer] = {}
        for rival, hand in zip(self.rivals, hands, strict=True):
            found, wrong = rival.end()
            assert not wrong, wrong
            answers.update(zip(hand, found, strict=True))
        return [answers[number] for number in range(len(commands))]

    def shuffled(self, commands: Sequence[Command]) -> list[Command]:
        return self.dice.sample(commands, len(commands))


@pytest.fixture(scope="module", params=PROFILES)
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with environment_of(request.param, tmp_path_factory.mktemp("races")) as environment:
        rivals = [Rival({**os.environ, **environment}) for _ in range(PROCESSES)]
        try:
            rivals[0].ask("migrate")
            arena = Arena(rivals)
            yield arena
        finally:
            for rival in rivals:
                rival.stop()


@pytest.fixture(autouse=True)
def proved(arena: Arena) -> Iterator[None]:
    yield
    arena.rivals[0].ask("prove")


def place(account: int, token: str, *, price: int = PRICE, quantity: int = UNITS) -> Place:
    return Place(account, Terms(token, BTC, Side.BUY, OrderType.LIMIT, price, quantity))


def crossing(account: int, order: str, *, price: int = PRICE) -> FillResting:
    seen_ns = time.monotonic_ns() + 60 * 10**9  # however long it waits here, it is not old
    return FillResting(account, order, Market((Offer(price, UNITS, "okx"),), {"ask": price}), seen_ns)


def said_of(order: str, commands: Sequence[Command], answers: Sequence[Answer]) -> dict[type[Command], Answer]:
    """Return what each kind of command about this order was answered."""
    return {type(command): answer for command, answer in zip(commands, answers, strict=True) if order in repr(command)}


def words(answers: Sequence[Answer]) -> dict[str, int]:
    return dict(Counter(word for word, _ in answers))


def test_orders_that_want_more_than_there_is_get_what_there_is(arena: Arena) -> None:
    account = arena.trader(USDT=7 * PRICE + PRICE // 2)
    answers = arena.race([place(account, f"t{number}") for number in range(40)])
    assert words(answers) == {"accepted": 7, "insufficient_funds": 33}
    assert arena.rivals[1].ask("balances", account) == {"USDT": (7 * PRICE + PRICE // 2, 7 * PRICE)}


def test_of_twenty_orders_with_one_token_id_one_exists_and_all_are_told_of_it(arena: Arena) -> None:
    account = arena.trader(USDT=100 * PRICE)
    answers = arena.race([place(account, "the same") for _ in range(20)])
    assert words(answers) == {"accepted": 1, "duplicate_token_id": 19}
    assert {order for _, order in answers} == set(arena.rivals[1].ask("orders", account))


def test_of_twenty_cancels_one_cancels(arena: Arena) -> None:
    account = arena.trader(USDT=100 * PRICE)
    (order,) = arena.rest(account, 1)
    answers = arena.race([Cancel(account, order) for _ in range(20)])
    assert words(answers) == {"accepted": 1, "order_not_open": 19}
    assert arena.rivals[1].ask("balances", account)["USDT"] == (100 * PRICE, 0)


def test_an_order_is_cancelled_or_filled_and_whoever_asked_was_told_which(arena: Arena) -> None:
    account = arena.trader(USDT=100 * PRICE)
    orders = arena.rest(account, 20)
    commands = arena.shuffled(
        [command for order in orders for command in (Cancel(account, order), crossing(account, order))]
    )
    answers = arena.race(commands)
    states = arena.rivals[1].ask("orders", account)
    for order in orders:
        said = said_of(order, commands, answers)
        filled, cancelled = said[FillResting] == ("accepted", True), said[Cancel][0] == "accepted"
        assert filled != cancelled
        assert states[order] == (("filled", UNITS) if filled else ("cancelled", 0))


def test_an_order_is_amended_before_it_is_filled_or_not_at_all(arena: Arena) -> None:
    account = arena.trader(USDT=100 * PRICE)
    orders = arena.rest(account, 20)
    commands = arena.shuffled(
        [command for order in orders for command in (Amend(account, order, None, 2 * UNITS), crossing(account, order))]
    )
    answers = arena.race(commands)
    states = arena.rivals[1].ask("orders", account)
    for order in orders:
        said = said_of(order, commands, answers)
        assert said[FillResting] == ("accepted", True)
        amended = said[Amend][0] == "accepted"
        assert amended or said[Amend][0] == "order_not_open"
        assert states[order] == ("filled", 2 * UNITS if amended else UNITS)


def test_an_order_that_is_amended_away_from_the_touch_is_not_filled(arena: Arena) -> None:
    account = arena.trader(USDT=100 * PRICE)
    orders = arena.rest(account, 20)
    commands = arena.shuffled(
        [command for order in orders for command in (Amend(account, order, PRICE - 1, None), crossing(account, order))]
    )
    answers = arena.race(commands)
    states = arena.rivals[1].ask("orders", account)
    for order in orders:
        said = said_of(order, commands, answers)
        filled, amended = said[FillResting] == ("accepted", True), said[Amend][0] == "accepted"
        assert filled != amended
        assert states[order][0] == ("filled" if filled else "open")


def test_two_matchers_fill_an_order_once(arena: Arena) -> None:
    account = arena.trader(USDT=100 * PRICE)
    orders = arena.rest(account, 15)
    commands = arena.shuffled([crossing(account, order, price=PRICE - 7) for order in orders for _ in range(4)])
    answers = arena.race(commands)
    for order in orders:
        said = [answer for command, answer in zip(commands, answers, strict=True) if order in repr(command)]
        assert sorted(said) == [("accepted", False)] * 3 + [("accepted", True)]
    total, held = arena.rivals[1].ask("balances", account)["USDT"]
    assert (total, held) == (100 * PRICE - 15 * (PRICE - 7), 0)


def test_an_order_of_another_is_out_of_reach_also_when_it_moves(arena: Arena) -> None:
    alice, mallory = arena.trader(USDT=100 * PRICE), arena.trader(USDT=PRICE)
    orders = arena.rest(alice, 5)
    commands: list[Command] = [Cancel(mallory, order) for order in orders for _ in range(3)]
    commands += [crossing(mallory, order) for order in orders]
    commands += [Amend(alice, order, PRICE - 1, None) for order in orders]
    answers = arena.race(commands)
    assert words(answers[:15]) == {"order_not_found": 15}
    assert answers[15:20] == [("accepted", False)] * 5
    assert words(answers[20:]) == {"accepted": 5}


def test_no_deposit_is_lost(arena: Arena) -> None:
    account = arena.trader()
    answers = arena.race([Deposit(account, "USDT", number + 1) for number in range(60)])
    assert words(answers) == {"accepted": 60}
    assert arena.rivals[1].ask("balances", account) == {"USDT": (60 * 61 // 2, 0)}


def test_batches_over_many_accounts_do_not_block_each_other(arena: Arena) -> None:
    accounts = [arena.trader() for _ in range(6)]
    commands = arena.shuffled([Deposit(account, "USDT", 1) for account in accounts for _ in range(12)])
    assert words(arena.race(commands)) == {"accepted": 72}
    assert [arena.rivals[1].ask("balances", account) for account in accounts] == [{"USDT": (12, 0)}] * 6


def test_a_reset_takes_all_that_came_before_it_and_nothing_after(arena: Arena) -> None:
    account = arena.trader(USDT=100 * PRICE)
    orders = arena.rest(account, 10)
    commands: list[Command] = [crossing(account, order) for order in orders]
    commands += [CancelAll(account), Reset(account, {"USDT": 3 * PRICE}), place(account, "later", quantity=2 * UNITS)]
    answers = arena.race(arena.shuffled(commands))
    assert set(words(answers)) == {"accepted"}
    total, held = arena.rivals[1].ask("balances", account)["USDT"]
    assert total == 3 * PRICE, "no fill's cost was taken from the new balance"
    assert held in (0, 2 * PRICE)
