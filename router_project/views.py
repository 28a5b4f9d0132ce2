"""The project's own pages: the front page, whether it is well, and what it speaks on its sockets."""

from typing import ClassVar

from asgiref.sync import async_to_sync
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core import strict_json
from marketdata import services
from router_project.asyncapi import document
from router_project.state import NotReady, database_problem

JSON = "application/json"


class _Plain(APIView):
    authentication_classes: ClassVar[list[type]] = []  # type: ignore[misc]
    permission_classes = (AllowAny,)


class HealthView(_Plain):
    @extend_schema(
        summary="Liveness", tags=["state"], responses={(200, JSON): {"type": "object", "example": {"status": "ok"}}}
    )
    def get(self, _request: Request) -> Response:
        """This process answers."""
        return Response({"status": "ok", "paper": True, "version": settings.VERSION})


class ReadyView(_Plain):
    @extend_schema(
        summary="Readiness",
        tags=["state"],
        responses={
            (200, JSON): {"type": "object", "example": {"status": "ready"}},
            503: OpenApiResponse(description="Not ready; `message` says what is missing."),
        },
    )
    def get(self, _request: Request) -> Response:
        """The database answers with all tables in place, and the feeds are heard."""
        problem = database_problem() or async_to_sync(services.feeds_problem)()
        if problem is not None:
            raise NotReady(f"not ready: {problem}", retry_after=1)
        return Response({"status": "ready", "source": settings.MARKET_SOURCE})


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show what this is, and where to go on."""
    status = async_to_sync(services.status)()
    return render(request, "router_project/home.html", {"status": status, "version": settings.VERSION})


@require_safe
def asyncapi(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(strict_json.dumps(document()), content_type=JSON)


@require_safe
def socket_docs(request: HttpRequest) -> HttpResponse:
    """Show the WebSocket's messages for people."""
    described = document()
    operations = [
        {"name": name, "summary": operation["summary"], "messages": _messages(described, operation)}
        for name, operation in described["operations"].items()
    ]
    return render(request, "router_project/socket_docs.html", {"document": described, "operations": operations})


def _messages(described: dict, operation: dict) -> list[dict[str, str]]:  # type: ignore[type-arg]
    names = [reference["$ref"].rpartition("/")[2] for reference in operation["messages"]]
    return [
        {
            "name": name,
            "summary": message["summary"],
            "example": strict_json.dumps(message["examples"][0]["payload"]).decode(),
        }
        for name in names
        for message in (described["components"]["messages"][name],)
    ]
