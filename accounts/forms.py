"""Log-in by a form, for the browsable API and the admin."""

from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError

from accounts.limits import RateLimited, address_of, current_limits


class LoginForm(AuthenticationForm):
    """Held to the limits of POST /login, and counted with it: a guesser has one count for all ways in."""

    def clean(self) -> dict[str, Any]:
        username = self.cleaned_data.get("username")
        if not settings.RATE_LIMITS or not username or not self.cleaned_data.get("password"):
            return super().clean()
        assert self.request is not None
        limits, address = current_limits(), address_of(self.request)
        try:
            async_to_sync(limits.login)(username, address)
        except RateLimited as error:
            raise ValidationError(error.message, code=error.code) from None
        try:
            return super().clean()
        except ValidationError:
            async_to_sync(limits.login_failed)(username, address)
            raise


class AdminLoginForm(LoginForm, AdminAuthenticationForm):
    """The same at the admin's door."""
