"""Who uses the router."""

from functools import lru_cache
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.crypto import salted_hmac

USERNAME_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9._-]{2,31}\Z"
USERNAME_RULE = "3 to 32 of A-Z a-z 0-9 . _ -, starting with a letter or digit"
USERNAME_LENGTH_MAX = 32
KEY_LENGTH = 32
KEY_NAME_LENGTH_MAX = 64
KEY_START_LENGTH = 11  # sr_ and eight characters
KEYS_KEPT_MAX = 10_000


@lru_cache(maxsize=KEYS_KEPT_MAX)
def token_key(password: str) -> str:
    """Return the word that a user's tokens carry, from the stored password hash."""
    return salted_hmac("accounts.token", password, algorithm="sha256").hexdigest()[:KEY_LENGTH]


class Tier(models.TextChoices):
    """What a user may do how often; whoever is not logged in is ANONYMOUS."""

    BASIC = "BASIC"
    PREMIUM = "PREMIUM"


class UserManager(BaseUserManager["User"]):
    """Makes users and finds them whatever the case of their name."""

    def create_user(self, username: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(username=username, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(username, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.alias(folded=Lower("username")).get(folded=(username or "").lower())


class User(AbstractBaseUser, PermissionsMixin):
    """An account on the paper exchange. Names are unique regardless of case and shown as first written."""

    username = models.CharField(
        max_length=USERNAME_LENGTH_MAX,
        unique=True,
        help_text=USERNAME_RULE,
        validators=[RegexValidator(USERNAME_PATTERN, f"must be {USERNAME_RULE}")],
    )
    tier = models.CharField(max_length=16, choices=Tier.choices, default=Tier.BASIC)
    is_active = models.BooleanField(default=True, help_text="without it the user's tokens and sockets end at once")
    is_staff = models.BooleanField(default=False, help_text="may use this admin")
    date_joined = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "username"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("username"), name="username_unique_in_any_case"),
            models.CheckConstraint(condition=models.Q(username__regex=USERNAME_PATTERN), name="username_is_plain"),
            models.CheckConstraint(condition=models.Q(tier__in=Tier.values), name="tier_is_known"),
        ]

    def __str__(self) -> str:
        return self.username

    @property
    def token_key(self) -> str:
        """A word that tokens carry and that changes with the password: older tokens end with it."""
        return token_key(self.password)


class ApiKey(models.Model):
    """A key that speaks for its user until it is revoked. Only its hash is kept: it is shown once."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=KEY_NAME_LENGTH_MAX, blank=True)
    start = models.CharField(max_length=KEY_START_LENGTH, help_text="by which its owner knows it")
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the key")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.start}…"
