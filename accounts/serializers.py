"""The wire's side of accounts."""

from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from accounts.models import KEY_NAME_LENGTH_MAX, USERNAME_LENGTH_MAX, USERNAME_PATTERN, USERNAME_RULE, ApiKey
from accounts.services import TOKEN_LENGTH_MAX, NewKey, Session

PASSWORD_LENGTH_MIN = 4
PASSWORD_LENGTH_MAX = 128
LOGIN_NAME_LENGTH_MAX = 256  # longer than any username: wrong credentials, not a wrong shape


class Text(serializers.CharField):
    """A string and nothing else: no number is taken for one, no space is cut off."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Registration(serializers.Serializer[Any]):
    username = Text(
        max_length=USERNAME_LENGTH_MAX,
        help_text=USERNAME_RULE,
        validators=[RegexValidator(USERNAME_PATTERN, f"must be {USERNAME_RULE}")],
    )
    password = Text(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)


class Credentials(serializers.Serializer[Any]):
    username = Text(max_length=LOGIN_NAME_LENGTH_MAX)
    password = Text(max_length=PASSWORD_LENGTH_MAX)


class RefreshRequest(serializers.Serializer[Any]):
    refresh_token = Text(max_length=TOKEN_LENGTH_MAX)


class KeyRequest(serializers.Serializer[Any]):
    name = Text(max_length=KEY_NAME_LENGTH_MAX, required=False, default="", allow_blank=True, help_text="for yourself")


class Key(serializers.Serializer[Any]):
    """An API key without its secret."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    starts_with = serializers.CharField(help_text="by which you know it")
    created_at = serializers.DateTimeField()


class Keys(serializers.Serializer[Any]):
    api_keys = Key(many=True)


class ShownKey(Key):
    """An API key as it is shown once."""

    api_key = serializers.CharField(help_text="send it as `X-API-Key`; it is not shown again")


class Client(serializers.Serializer[Any]):
    """An account that was made with a key instead of a password."""

    api_key = serializers.CharField(help_text="send it as `X-API-Key`; it is not shown again")
    client_type = serializers.CharField()
    username = serializers.CharField()
    user_id = serializers.IntegerField()


class Tokens(serializers.Serializer[Any]):
    """What a log-in answers."""

    access_token = serializers.CharField(help_text="send it as `Authorization: Bearer …`, or to /ws")
    refresh_token = serializers.CharField(help_text="for `POST /token/refresh`")
    token = serializers.CharField(help_text="the same as access_token")
    token_type = serializers.CharField(help_text="bearer")
    expires_in = serializers.IntegerField(help_text="seconds")
    username = serializers.CharField()
    user_id = serializers.IntegerField()


def tokens(session: Session) -> dict[str, Any]:
    """Write a session as the contract spells it."""
    return {
        "access_token": session.access_token,
        "refresh_token": session.refresh_token,
        "token": session.access_token,
        "token_type": "bearer",
        "expires_in": session.expires_in,
        "username": session.user.username,
        "user_id": session.user.pk,
    }


def key(made: ApiKey) -> dict[str, Any]:
    return {"id": made.pk, "name": made.name, "starts_with": made.start, "created_at": made.created_at}


def client(made: NewKey, client_type: str) -> dict[str, Any]:
    user = made.key.user
    return {"api_key": made.raw, "client_type": client_type, "username": user.username, "user_id": user.pk}
