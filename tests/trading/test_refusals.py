"""What a refusal leaves behind, and what it tells."""

from decimal import Decimal

import pytest

from core.account import AmountTooLarge, InsufficientFunds
from tests.trading.desk import Desk, units
from trading import models
from trading.commands import Reset

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_reset_to_too_much_leaves_orders_and_balances_as_they_were() -> None:
    desk = Desk()
    alice = desk.trader(USDT="100")
    desk.order(alice, "buy", "1", "40", token="a")
    with pytest.raises(AmountTooLarge):
        desk.do(Reset(alice, {"BTC": units(1), "USDT": units("46000000000.00000001")}))
    assert models.Order.objects.get().status == "open"
    (balance,) = models.Balance.objects.filter(account_id=alice)
    assert (balance.asset, balance.total, balance.held) == ("USDT", units(100), units(40))


def test_missing_funds_are_told_in_the_clients_numbers() -> None:
    desk = Desk()
    alice = desk.trader(USDT="0.00000001")
    with pytest.raises(InsufficientFunds) as refused:
        desk.order(alice, "buy", "1", "2.50")
    assert refused.value.details == {"asset": "USDT", "needed": Decimal("2.5"), "available": Decimal("0.00000001")}
    assert refused.value.message == "insufficient USDT: this needs 2.5, 0.00000001 are available"
