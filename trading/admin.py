"""The exchange for whoever runs it: everything can be looked at, nothing is edited past the ledger.

Amounts are shown as decimals. What an operator may do (credit, cancel, reset) goes through the
services, as a client's requests do.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from core.errors import DomainError, Invalid, Unauthorized
from core.money import DECIMALS, from_units, read_amount
from trading import services
from trading.models import Account, Balance, Entry, Fill, Order, Report, Twap

BY_OPERATOR = "by_operator"
FAILURES_SHOWN_MAX = 5
ACCOUNTS_SHOWN_MAX = 20

Model = Any


def amount(name: str, title: str = "") -> Callable[[Model], str]:
    """Return a column that shows a field of units as a decimal."""

    @admin.display(description=title or name.replace("_", " "), ordering=name)
    def shown(row: Model) -> str:
        value = getattr(row, name)
        return "–" if value is None else f"{from_units(value):f}"

    return shown


@admin.display(description="filled notional")
def filled_notional(row: Order) -> str:
    return f"{Decimal(row.filled_notional).scaleb(-2 * DECIMALS).normalize():f}"


@admin.display(description="market price")
def market_price(row: Twap) -> str:
    return f"{from_units(int(row.market_sum) // row.market_us):f}" if row.market_us else "–"


@admin.display(description="user", ordering="account__user__username")
def owner(row: Model) -> str:
    return str(row.account.user)


class _ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Looked at, never edited: whatever is written here is written by the ledger."""

    list_per_page = 50
    show_full_result_count = False  # counting millions of rows is slow

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.is_active and request.user.has_perm("trading.change_account")

    def carry_out(
        self, request: HttpRequest, rows: Iterable[Model], do: Callable[[Model], object], *, done: str
    ) -> None:
        """Do something to each row, note it in the row's history, and tell how it went."""
        count = 0
        failures: list[str] = []
        for row in rows:
            try:
                do(row)
            except Unauthorized:
                failures.append(f"{row}: the user is disabled; enable them first")
            except DomainError as error:
                failures.append(f"{row}: {error.message}")
            else:
                count += 1
                self.log_change(request, row, done)
        if count:
            self.message_user(request, f"{done}: {count}", messages.SUCCESS)
        for failure in failures[:FAILURES_SHOWN_MAX]:
            self.message_user(request, failure, messages.ERROR)
        if len(failures) > FAILURES_SHOWN_MAX:
            self.message_user(request, f"and {len(failures) - FAILURES_SHOWN_MAX} more failed", messages.ERROR)


class _ReadOnlyLines(admin.options.InlineModelAdmin):  # type: ignore[type-arg]
    """Rows beside another one, looked at there."""

    extra = 0
    can_delete = False

    def has_add_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False


class BalanceLines(_ReadOnlyLines, admin.TabularInline):  # type: ignore[type-arg]
    model = Balance
    fields: ClassVar[Any] = ("asset", amount("total"), amount("held"))
    readonly_fields: ClassVar[Any] = fields


class TwapLines(_ReadOnlyLines, admin.StackedInline):  # type: ignore[type-arg]
    model = Twap
    fields: ClassVar[Any] = (
        "venue", "duration_s", "slices", "next_slice", "missed", amount("arrival_price"), market_price,
    )  # fmt: skip
    readonly_fields: ClassVar[Any] = fields


class CreditForm(forms.Form):
    asset = forms.ChoiceField()
    amount = forms.CharField(help_text="for example 1000 or 0.5", strip=True)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        field = self.fields["asset"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(asset, asset) for asset in services.assets()]

    def clean_amount(self) -> int:
        """Return units."""
        try:
            return read_amount(self.cleaned_data["amount"], loc=("amount",))
        except Invalid as error:
            raise forms.ValidationError(error.message) from None


class ResetForm(forms.Form):
    """Nothing to fill in: asked so that one click resets nothing."""


@admin.register(Account)
class AccountAdmin(_ReadOnly):
    list_display = ("user", "tier", "is_active", "seq", "created_at")
    list_filter = ("user__is_active", "user__tier")
    search_fields = ("user__username",)
    list_select_related = ("user",)
    ordering = ("user__username",)
    fields = ("user", "tier", "is_active", "seq", "created_at")
    inlines = (BalanceLines,)
    actions = ("credit", "reset")

    @admin.display(ordering="user__tier")
    def tier(self, account: Account) -> str:
        return account.user.tier

    @admin.display(boolean=True, description="active", ordering="user__is_active")
    def is_active(self, account: Account) -> bool:
        return account.user.is_active

    @admin.action(description="Credit paper money…", permissions=["operate"])
    def credit(self, request: HttpRequest, accounts: "QuerySet[Account]") -> TemplateResponse | None:
        """Ask for an asset and an amount, then add them to each account."""
        form = CreditForm(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return self._ask(request, accounts, form, action="credit", title="Credit paper money")
        asset, units = form.cleaned_data["asset"], form.cleaned_data["amount"]
        self.carry_out(
            request,
            accounts,
            lambda account: services.credit(account_id=account.pk, asset=asset, amount=units),
            done=f"credited {from_units(units):f} {asset}",
        )
        return None

    @admin.action(description="Reset: cancel all orders, zero all balances…", permissions=["operate"])
    def reset(self, request: HttpRequest, accounts: "QuerySet[Account]") -> TemplateResponse | None:
        """Ask whether it is meant, then cancel everything and zero the balances."""
        if "confirmed" not in request.POST:
            return self._ask(request, accounts, ResetForm(), action="reset", title="Reset accounts")
        self.carry_out(
            request,
            accounts,
            lambda account: services.reset_account(account_id=account.pk, balances={}),
            done="reset",
        )
        return None

    def _ask(
        self, request: HttpRequest, accounts: "QuerySet[Account]", form: forms.Form, *, action: str, title: str
    ) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "form": form,
            "accounts": accounts[:ACCOUNTS_SHOWN_MAX],
            "count": accounts.count(),
            "action": action,
            "opts": self.opts,
            "checkbox": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "trading/confirm.html", context)


@admin.register(Balance)
class BalanceAdmin(_ReadOnly):
    list_display = (owner, "asset", amount("total"), amount("held"))
    list_filter = ("asset",)
    search_fields = ("account__user__username",)
    list_select_related = ("account__user",)
    fields: ClassVar[Any] = (owner, "asset", amount("total"), amount("held"))


@admin.register(Order)
class OrderAdmin(_ReadOnly):
    list_display = (
        "token_id", owner, "instrument", "side", "order_type", "status", amount("price"), amount("quantity"),
        amount("filled_quantity", "filled"), "venue", "created_at",
    )  # fmt: skip
    list_filter = ("status", "side", "order_type", "instrument", "venue")
    search_fields = ("=token_id", "=id", "account__user__username")
    list_select_related = ("account__user",)
    ordering = ("-number",)
    fields: ClassVar[Any] = (
        "number", "id", "token_id", owner, "instrument", "side", "order_type", amount("asked_price"), amount("price"),
        amount("asked_quantity"), amount("quantity"), amount("filled_quantity"), filled_notional, "fill_count",
        amount("fee"), amount("held"), "venue", "status", "reason", "version", "created_at", "updated_at",
        "executed_at",
    )  # fmt: skip
    inlines = (TwapLines,)
    actions = ("cancel",)

    @admin.action(description="Cancel selected orders", permissions=["operate"])
    def cancel(self, request: HttpRequest, orders: "QuerySet[Order]") -> None:
        """End those that are open, and release what they held."""
        self.carry_out(
            request,
            orders,
            lambda order: services.cancel_order(account_id=order.account_id, token=order.token_id, reason=BY_OPERATOR),
            done="cancelled",
        )


@admin.register(Fill)
class FillAdmin(_ReadOnly):
    list_display = (
        "executed_at", owner, "order", "instrument", amount("price"), amount("quantity"), "venue", amount("fee"),
        "fee_asset", "liquidity", "rule",
    )  # fmt: skip
    list_filter = ("venue", "liquidity", "rule")
    search_fields = ("=id", "=order__token_id", "=order__id", "account__user__username")
    list_select_related = ("account__user", "order")
    ordering = ("-executed_at", "-seq")
    fields: ClassVar[Any] = (
        "id", owner, "order", "number", amount("price"), amount("quantity"), "venue", amount("fee"), "fee_asset",
        "liquidity", "rule", "touch", "executed_at", "seq",
    )  # fmt: skip

    @admin.display(ordering="order__instrument")
    def instrument(self, fill: Fill) -> str:
        return fill.order.instrument


@admin.register(Entry)
class EntryAdmin(_ReadOnly):
    list_display = ("id", owner, "asset", "kind", amount("amount"), amount("balance"), "reference", "created_at")
    list_filter = ("kind", "asset")
    search_fields = ("=reference", "account__user__username")
    list_select_related = ("account__user",)
    ordering = ("-id",)
    fields: ClassVar[Any] = (
        "id",
        owner,
        "asset",
        "kind",
        amount("amount"),
        amount("balance"),
        "reference",
        "created_at",
    )


@admin.register(Report)
class ReportAdmin(_ReadOnly):
    list_display = (owner, "seq", "created_at")
    search_fields = ("account__user__username",)
    list_select_related = ("account__user",)
    ordering = ("-id",)
    fields: ClassVar[Any] = (owner, "seq", "body", "created_at")
