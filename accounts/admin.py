from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.models import Tier, User

RIGHTS = ("is_staff", "is_superuser", "groups", "user_permissions")


class UserForm(UserChangeForm):  # type: ignore[type-arg]
    class Meta(UserChangeForm.Meta):
        model = User
        field_classes = {}


class NewUserForm(AdminUserCreationForm):  # type: ignore[type-arg]
    class Meta:
        model = User
        fields = ("username",)


@admin.register(User)
class AccountAdmin(UserAdmin):  # type: ignore[type-arg]
    form = UserForm
    add_form = NewUserForm
    list_display = ("username", "tier", "is_active", "is_staff", "date_joined")
    list_filter = ("tier", "is_active", "is_staff")
    search_fields = ("username",)
    ordering = ("username",)
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "password", "tier")}),
        ("Permissions", {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    actions = ("disable", "enable", "make_premium", "make_basic")

    @admin.action(description="Disable: end tokens, keys and sockets", permissions=["change"])
    def disable(self, request: HttpRequest, users: "QuerySet[User]") -> None:
        others = users.exclude(pk=request.user.pk or 0)
        if others.count() < users.count():
            self.message_user(request, "you cannot disable yourself", messages.ERROR)
        self._set(request, others, "disabled", is_active=False)

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, users: "QuerySet[User]") -> None:
        self._set(request, users, "enabled", is_active=True)

    @admin.action(description="Change the tier to PREMIUM", permissions=["change"])
    def make_premium(self, request: HttpRequest, users: "QuerySet[User]") -> None:
        self._set(request, users, "tier PREMIUM", tier=Tier.PREMIUM)

    @admin.action(description="Change the tier to BASIC", permissions=["change"])
    def make_basic(self, request: HttpRequest, users: "QuerySet[User]") -> None:
        self._set(request, users, "tier BASIC", tier=Tier.BASIC)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Only a superuser gives rights: whoever may change users could else take all of them."""
        fields = super().get_readonly_fields(request, obj)
        return fields if request.user.is_superuser else (*fields, *RIGHTS)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Say why a user who traded stays: not for want of a permission."""
        to_delete, counts, needed, protected = super().get_deleted_objects(objs, request)
        if protected:
            needed = set()
            self.message_user(request, "whoever traded stays in the ledger: disable them instead", messages.WARNING)
        return to_delete, counts, needed, protected

    def _set(self, request: HttpRequest, users: "QuerySet[User]", done: str, **values: Any) -> None:
        """Change users, and note it in each one's history."""
        changed = [user for user in users.exclude(**values) if _may_touch(request, user)]
        User.objects.filter(pk__in=[user.pk for user in changed]).update(**values)
        for user in changed:
            self.log_change(request, user, done)
        self.message_user(request, f"{done}: {len(changed)}", messages.SUCCESS)


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    """Tell whether this operator may change or delete this user: other operators are a superuser's."""
    return user is None or not user.is_staff or request.user.is_superuser
