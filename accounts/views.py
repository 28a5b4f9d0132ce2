"""Registration, log-in and token renewal."""

from typing import ClassVar

from asgiref.sync import async_to_sync
from django.conf import settings
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import selectors, serializers, services
from accounts.limits import address_of, current_limits
from core.errors import Invalid, Unauthorized

EXAMPLE = OpenApiExample("a user", {"username": "alice", "password": "password123"}, request_only=True)
WRONG = OpenApiResponse(description="Wrong credentials; the same words whether or not the user exists.")
INVALID = OpenApiResponse(description="A value is missing or wrong; `detail` lists each with its place.")
BUSY = OpenApiResponse(description="Too many log-ins at once; `Retry-After` says when to come again.")

CLIENT_TYPES = ("basic_client",)


class _Public(APIView):
    """A route that needs no credentials and looks at none."""

    authentication_classes: ClassVar[list[type]] = []  # type: ignore[misc]
    permission_classes = (AllowAny,)


class RegisterView(_Public):
    serializer_class = serializers.Registration

    @extend_schema(
        summary="Register",
        tags=["accounts"],
        request=serializers.Registration,
        responses={
            201: PolymorphicProxySerializer(
                "Registered", [serializers.Tokens, serializers.Client], resource_type_field_name=None
            ),
            400: OpenApiResponse(description="`username_taken`: choose another name. Or the body is not JSON."),
            422: INVALID,
            503: BUSY,
        },
        parameters=[
            OpenApiParameter(
                "client_type", str, description="without a body: `basic_client` makes an account with an API key"
            )
        ],
        examples=[EXAMPLE],
    )
    def post(self, request: Request) -> Response:
        """Make a user and log them in; with `client_type`, a user without a password who comes with an API key."""
        client_type = request.query_params.get("client_type")
        if client_type is not None and request.data == {}:
            if client_type not in CLIENT_TYPES:
                raise Invalid(f"must be one of {', '.join(CLIENT_TYPES)}", loc=("query", "client_type"))
            self._count(request)
            return Response(serializers.client(services.register_client(), client_type), status=201)
        data = self.serializer_class(data=request.data)
        data.is_valid(raise_exception=True)
        self._count(request)
        return Response(serializers.tokens(services.register(**data.validated_data)), status=201)

    def _count(self, request: Request) -> None:
        if settings.RATE_LIMITS:
            async_to_sync(current_limits().registration)(address_of(request))


class LoginView(_Public):
    serializer_class = serializers.Credentials

    @extend_schema(
        summary="Log in",
        tags=["accounts"],
        request=serializers.Credentials,
        responses={200: serializers.Tokens, 401: WRONG, 422: INVALID, 503: BUSY},
        examples=[EXAMPLE],
    )
    def post(self, request: Request) -> Response:
        """Give tokens for a name and a password."""
        data = self.serializer_class(data=request.data)
        data.is_valid(raise_exception=True)
        return Response(serializers.tokens(self._login(address_of(request), **data.validated_data)))

    def _login(self, address: str, *, username: str, password: str) -> services.Session:
        if not settings.RATE_LIMITS:
            return services.login(username=username, password=password)
        limits = current_limits()
        async_to_sync(limits.login)(username, address)
        try:
            return services.login(username=username, password=password)
        except Unauthorized:
            async_to_sync(limits.login_failed)(username, address)
            raise


class RefreshView(_Public):
    serializer_class = serializers.RefreshRequest

    @extend_schema(
        summary="Renew the access token",
        tags=["accounts"],
        request=serializers.RefreshRequest,
        responses={200: serializers.Tokens, 401: WRONG, 422: INVALID},
    )
    def post(self, request: Request) -> Response:
        """Give a new access token for a refresh token."""
        data = self.serializer_class(data=request.data)
        data.is_valid(raise_exception=True)
        return Response(serializers.tokens(services.refresh(**data.validated_data)))


class KeysView(APIView):
    serializer_class = serializers.KeyRequest

    @extend_schema(summary="Your API keys", tags=["accounts"], responses=serializers.Keys)
    def get(self, request: Request) -> Response:
        """List the keys that are not revoked, newest first, without their secrets."""
        return Response({"api_keys": [serializers.key(one) for one in selectors.keys_of(_user_id(request))]})

    @extend_schema(
        summary="Make an API key",
        tags=["accounts"],
        request=serializers.KeyRequest,
        responses={201: serializers.ShownKey, 422: INVALID},
    )
    def post(self, request: Request) -> Response:
        """Make a key. It is shown in this answer and never again."""
        data = self.serializer_class(data=request.data)
        data.is_valid(raise_exception=True)
        made = services.make_key(user_id=_user_id(request), **data.validated_data)
        return Response({**serializers.key(made.key), "api_key": made.raw}, status=201)


class KeyView(APIView):
    @extend_schema(
        summary="Revoke an API key",
        tags=["accounts"],
        responses={200: serializers.Key, 404: OpenApiResponse(description="You have no such key.")},
    )
    def delete(self, request: Request, key_id: int) -> Response:
        """End a key at once, its sockets within seconds."""
        return Response(serializers.key(services.revoke_key(user_id=_user_id(request), key_id=key_id)))


def _user_id(request: Request) -> int:
    user_id = request.user.pk
    assert isinstance(user_id, int)
    return user_id
