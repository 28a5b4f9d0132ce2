from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from marketdata.models import Market, StoredCandle


class _ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """History is looked at, never edited."""

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False


@admin.register(Market)
class MarketAdmin(_ReadOnly):
    list_display = ("source", "chosen_at")


@admin.register(StoredCandle)
class CandleAdmin(_ReadOnly):
    list_display = ("instrument", "venue", "interval", "open_time", "close", "volume", "trades", "partial")
    list_filter = ("venue", "instrument", "interval")
    show_full_result_count = False  # counting millions of rows is slow
