"""What drf-spectacular cannot know by itself: our tokens and keys, and the shape of every error."""

from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer

ERROR = {
    "type": "object",
    "required": ["detail", "message", "code"],
    "properties": {
        "detail": {
            "description": "for 422 a list that names each wrong value; else a text",
            "oneOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "loc": {"type": "array", "items": {}, "example": ["body", "price"]},
                            "msg": {"type": "string", "example": "must be greater than 0"},
                            "type": {"type": "string"},
                        },
                    },
                },
            ],
        },
        "message": {"type": "string", "description": "one line for a person"},
        "code": {"type": "string", "description": "a stable word for a program"},
    },
}
EXAMPLES = {
    "400": ("unknown_symbol", "unknown symbol 'NOPE'; GET /info lists the symbols served here"),
    "401": ("unauthorized", "the token is not valid; log in again"),
    "404": ("not_found", "there is nothing at this address; GET /openapi.json lists the routes"),
    "429": ("rate_limited", "too many requests; try again in 3 s"),
    "503": ("unavailable", "the database does not answer; try again in a moment"),
}


@require_safe
def schema(_request: HttpRequest) -> HttpResponse:
    """Return the OpenAPI document, which is the same whoever asks, and however."""
    return HttpResponse(_document(), content_type="application/json")


@cache
def _document() -> bytes:
    """Write the document, once: it takes a tenth of a second of CPU."""
    made = SchemaGenerator(urlconf="router_project.urls").get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return bytes(OpenApiJsonRenderer().render(made))


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "accounts.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "accounts.authentication.KeyAuthentication"
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "header", "name": "X-API-Key"}


def describe_errors(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Give every error response its body and an example (a hook of drf-spectacular)."""
    result.setdefault("components", {}).setdefault("schemas", {})["Error"] = ERROR
    for address, path in result.get("paths", {}).items():
        for operation in path.values():
            responses = operation.get("responses", {})
            if "{" in address:
                responses.setdefault("404", {"description": "There is no such thing, or no such address."})
            responses.setdefault("429", {"description": "Too many requests; `Retry-After` says when to ask again."})
            responses.setdefault("503", {"description": "A dependency is down; `Retry-After` says when to ask again."})
            if operation.get("requestBody"):
                responses.setdefault("400", {"description": "The body is not JSON as this server reads it."})
                responses.setdefault("408", {"description": "The body did not arrive in time."})
                responses.setdefault("413", {"description": "The body is over 64 KiB."})
                responses.setdefault("415", {"description": "The body is not application/json."})
            if any(operation.get("security", ())) and {} not in operation["security"]:
                responses.setdefault("401", {"description": "Missing, bad or expired credentials."})
            for status, response in responses.items():
                if status >= "400" and "content" not in response:
                    response["content"] = {"application/json": _error(status)}
    return result


def describe_choices(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Tell what may be left empty or away, and that a TWAP order is an order (a hook of drf-spectacular)."""
    for address, path in result.get("paths", {}).items():
        for method, operation in path.items():
            for parameter in operation.get("parameters", ()):
                if method == "get" and parameter["in"] == "query":
                    parameter["allowEmptyValue"] = True  # what a form left empty is not asked for
            if address.endswith("/register"):
                operation["requestBody"]["required"] = False  # with a client_type there is none
    any_order = result["components"]["schemas"]["AnyOrder"]
    any_order["anyOf"] = any_order.pop("oneOf")  # a TWAP order has all that any order has
    return result


def _error(status: str) -> dict[str, Any]:
    described: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/Error"}}
    if status in EXAMPLES:
        code, message = EXAMPLES[status]
        described["example"] = {"detail": message, "message": message, "code": code}
    if status == "422":
        detail = [{"loc": ["body", "password"], "msg": "This field is required.", "type": "required"}]
        described["example"] = {"detail": detail, "message": "password: This field is required.", "code": "invalid"}
    return described
