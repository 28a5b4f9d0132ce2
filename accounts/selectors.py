"""Finds users."""

from collections.abc import Iterable

from django.db.models.functions import Lower

from accounts.models import User


def user_by_id(user_id: int) -> User | None:
    return User.objects.filter(pk=user_id).first()


def user_by_name(username: str) -> User | None:
    """Return the user of this name, whatever its case."""
    return User.objects.alias(folded=Lower("username")).filter(folded=username.lower()).first()


def active_users(user_ids: Iterable[int]) -> dict[int, User]:
    """Return those of the users that exist and are active, in one query."""
    users = User.objects.filter(pk__in=set(user_ids), is_active=True)
    return {user.pk: user for user in users.only("id", "password", "is_active", "tier", "username")}
