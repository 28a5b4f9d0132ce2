"""Finds users."""

from collections.abc import Iterable

from django.db.models.functions import Lower

from accounts.models import ApiKey, User


def user_by_id(user_id: int) -> User | None:
    return User.objects.filter(pk=user_id).first()


def user_by_name(username: str) -> User | None:
    """Return the user of this name, whatever its case."""
    return User.objects.alias(folded=Lower("username")).filter(folded=username.lower()).first()


def active_users(user_ids: Iterable[int]) -> dict[int, User]:
    """Return those of the users that exist and are active, in one query."""
    users = User.objects.filter(pk__in=set(user_ids), is_active=True)
    return {user.pk: user for user in users.only("id", "password", "is_active", "tier", "username")}


def good_keys(names: Iterable[str]) -> set[str]:
    """Return those of the keys, each as "start:id", that are not revoked."""
    ids = {int(name.rpartition(":")[2]): name for name in names}
    good = ApiKey.objects.filter(pk__in=ids, revoked_at=None).values_list("pk", flat=True) if ids else ()
    return {ids[key_id] for key_id in good}


def keys_of(user_id: int) -> list[ApiKey]:
    """Return a user's keys that are not revoked, newest first."""
    return list(ApiKey.objects.filter(user_id=user_id, revoked_at=None).order_by("-pk"))
