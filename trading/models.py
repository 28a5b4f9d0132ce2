"""Accounts, balances, the ledger, orders and fills. Amounts are integer units of 10^-8.

The database repeats the rules. Entries, fills and reports are only ever added; balances and
orders are written by `trading/ledger.py` alone.
"""

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q

UNITS_MAX = 46_000_000_000 * 10**8
NOTIONAL_LENGTH = 40


class MoneyField(models.BigIntegerField):  # type: ignore[type-arg]
    """Integer units of 10^-8; on SQLite the column refuses what is no integer (it would become a float)."""

    def db_check(self, connection: Any) -> str | None:
        if connection.vendor == "sqlite":
            return f"typeof({connection.ops.quote_name(self.column)}) in ('integer', 'null')"
        return super().db_check(connection)


class Account(models.Model):
    """A user's place on the exchange. Whoever changes anything of it holds this row's lock."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.PROTECT, primary_key=True, related_name="account")
    seq = models.BigIntegerField(default=0, help_text="of the last execution report")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.user)


class Balance(models.Model):
    """What an account has of an asset: the sum of its entries, and how much of it open orders hold."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="balances")
    asset = models.CharField(max_length=16)
    total = MoneyField(default=0)
    held = MoneyField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "asset"], name="one_balance_an_asset"),
            models.CheckConstraint(
                condition=Q(held__gte=0) & Q(held__lte=F("total")) & Q(total__lte=UNITS_MAX), name="balance_is_covered"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} {self.asset}"


class Order(models.Model):
    """An order. `filled_notional` is exact: squared units, as decimal digits."""

    number = models.BigAutoField(primary_key=True, help_text="in the order of arrival")
    id = models.CharField(max_length=36, unique=True)
    account = models.ForeignKey(Account, models.PROTECT, related_name="orders")
    token_id = models.CharField(max_length=128)
    instrument = models.CharField(max_length=33)
    side = models.CharField(max_length=4)
    order_type = models.CharField(max_length=8)
    asked_price = MoneyField(null=True, help_text="as the client sent it")
    price = MoneyField(null=True, help_text="the limit now")
    asked_quantity = MoneyField()
    quantity = MoneyField()
    filled_quantity = MoneyField(default=0)
    filled_notional = models.CharField(max_length=NOTIONAL_LENGTH, default="0")
    fill_count = models.IntegerField(default=0)
    fee = MoneyField(default=0)
    held = MoneyField(default=0)
    venue = models.CharField(max_length=16, null=True)
    status = models.CharField(max_length=16)
    reason = models.CharField(max_length=64, default="")
    version = models.IntegerField(default=1)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    executed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "token_id"], name="token_id_is_used_once"),
            models.CheckConstraint(
                condition=Q(quantity__gt=0) & Q(filled_quantity__gte=0) & Q(filled_quantity__lte=F("quantity")),
                name="filled_at_most_whole",
            ),
            models.CheckConstraint(
                condition=Q(status="open")
                | (Q(held=0) & Q(status__in=["filled", "partially_filled", "cancelled", "rejected"])),
                name="ended_holds_nothing",
            ),
            models.CheckConstraint(condition=Q(held__gte=0), name="hold_is_no_debt"),
            models.CheckConstraint(
                condition=(Q(status="filled") & Q(filled_quantity=F("quantity")))
                | (~Q(status="filled") & Q(filled_quantity__lt=F("quantity"))),
                name="filled_means_whole",
            ),
        ]
        indexes = [
            models.Index(fields=["account", "-number"], name="orders_of_an_account"),
            models.Index(fields=["number"], condition=Q(status="open"), name="open_orders"),
            models.Index(fields=["updated_at"], condition=Q(status="open"), name="open_orders_by_change"),
            models.Index(fields=["account"], condition=Q(status="open", order_type="twap"), name="running_twaps"),
        ]

    def __str__(self) -> str:
        return f"{self.token_id} ({self.id})"


class Twap(models.Model):
    """What a parent order has beside its order: the schedule, how far it is, and its benchmarks."""

    order = models.OneToOneField(Order, models.PROTECT, to_field="id", primary_key=True, related_name="twap")
    venue = models.CharField(max_length=16, help_text="whose depth it takes, or all")
    duration_s = models.IntegerField()
    slices = models.IntegerField()
    next_slice = models.IntegerField(default=0, help_text="from 0; those before it are past")
    missed = models.IntegerField(default=0, help_text="of the past ones")
    arrival_price = MoneyField(null=True)
    market_sum = models.CharField(max_length=NOTIONAL_LENGTH, default="0", help_text="price × µs")
    market_us = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "TWAP"
        constraints = [
            models.CheckConstraint(
                condition=Q(next_slice__gte=0) & Q(next_slice__lte=F("slices")) & Q(missed__lte=F("next_slice")),
                name="slices_in_their_order",
            ),
            models.CheckConstraint(
                condition=Q(duration_s__gte=1) & Q(slices__gte=1) & Q(missed__gte=0) & Q(market_us__gte=0),
                name="twap_is_real",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.next_slice} of {self.slices}"


class Fill(models.Model):
    """An execution and its receipt."""

    id = models.CharField(max_length=36, primary_key=True)
    order = models.ForeignKey(Order, models.PROTECT, to_field="id", related_name="fills")
    account = models.ForeignKey(Account, models.PROTECT, related_name="fills")
    number = models.IntegerField()
    price = MoneyField()
    quantity = MoneyField()
    venue = models.CharField(max_length=16)
    fee = MoneyField(default=0)
    fee_asset = models.CharField(max_length=16)
    liquidity = models.CharField(max_length=5)
    touch = models.TextField(help_text="what the market showed, as JSON")
    rule = models.CharField(max_length=32)
    executed_at = models.DateTimeField()
    seq = models.BigIntegerField(help_text="of its execution report")
    slice = models.IntegerField(null=True, help_text="of a TWAP, from 0")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "number"], name="each_fill_once"),
            models.UniqueConstraint(fields=["account", "seq"], name="one_report_a_fill"),
            models.CheckConstraint(condition=Q(price__gt=0) & Q(quantity__gt=0) & Q(fee__gte=0), name="fill_is_real"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Entry(models.Model):
    """A change of a balance's total, never changed itself. `balance` is the total after it."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="entries")
    asset = models.CharField(max_length=16)
    amount = MoneyField()
    kind = models.CharField(max_length=8)
    reference = models.CharField(max_length=36, default="", help_text="the fill's id, where there is one")
    balance = MoneyField()
    created_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "entries"
        constraints = [
            models.CheckConstraint(condition=~Q(amount=0), name="entry_moves_something"),
            models.CheckConstraint(
                condition=Q(kind__in=["deposit", "credit", "fill", "fee", "reset"]), name="entry_kind_is_known"
            ),
        ]
        indexes = [models.Index(fields=["account", "-id"], name="entries_of_an_account")]

    def __str__(self) -> str:
        return f"{self.asset} {self.amount}"


class Report(models.Model):
    """An execution report: numbered by one per account, in the transaction of what it tells."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="reports")
    seq = models.BigIntegerField()
    body = models.TextField(help_text="the message's data, as JSON")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "seq"], name="reports_are_numbered")]

    def __str__(self) -> str:
        return f"#{self.seq}"


class RecordedLife(models.Model):
    """How far a process that is recorded came: the number of its last transaction, written within that very one."""

    id = models.CharField(max_length=128, primary_key=True, help_text="the recording's name, and the process's")
    number = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "recorded lives"

    def __str__(self) -> str:
        return str(self.id)
