"""Registration, log-in and token renewal."""

from typing import ClassVar

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import serializers, services

EXAMPLE = OpenApiExample("a user", {"username": "alice", "password": "password123"}, request_only=True)
WRONG = OpenApiResponse(description="Wrong credentials; the same words whether or not the user exists.")
INVALID = OpenApiResponse(description="A value is missing or wrong; `detail` lists each with its place.")
BUSY = OpenApiResponse(description="Too many log-ins at once; `Retry-After` says when to come again.")


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
            201: serializers.Tokens,
            400: OpenApiResponse(description="`username_taken`: choose another name. Or the body is not JSON."),
            422: INVALID,
            503: BUSY,
        },
        examples=[EXAMPLE],
    )
    def post(self, request: Request) -> Response:
        """Make a user and log them in."""
        data = self.serializer_class(data=request.data)
        data.is_valid(raise_exception=True)
        return Response(serializers.tokens(services.register(**data.validated_data)), status=201)


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
        return Response(serializers.tokens(services.login(**data.validated_data)))


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
