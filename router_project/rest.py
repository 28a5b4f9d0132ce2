"""REST framework's parser and renderers on top of the one strict JSON reader and writer."""

from collections.abc import Mapping
from typing import IO, Any

import msgspec
from django.http.request import RawPostDataException
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer
from rest_framework.utils.mediatypes import _MediaType

from core import strict_json

UTF8 = frozenset({"", "utf-8", "utf8"})


class StrictJSONParser(BaseParser):
    """Reads `application/json` in UTF-8 only, with exact numbers."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        charset = _MediaType(media_type or "").params.get("charset", "")
        if str(charset).strip('"').lower() not in UTF8:
            raise UnsupportedMediaType(media_type or "", "JSON is UTF-8; leave the charset away")
        try:
            body = stream.read(strict_json.BODY_SIZE_MAX + 1)
        except RawPostDataException:
            body = b""
        return strict_json.loads(body)


class ExactJSONRenderer(BaseRenderer):
    """Writes exact numbers: a Decimal is never a string nor a float."""

    media_type = "application/json"
    format = "json"
    charset = None  # bytes are UTF-8; the media type has no charset parameter
    render_style = "text"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if data is None:
            return b""
        written = strict_json.dumps(data)
        if renderer_context and renderer_context.get("indent"):
            return bytes(msgspec.json.format(written, indent=4))  # adds spaces, changes no digit
        return written


class RawJSONBrowsableRenderer(BrowsableAPIRenderer):
    """The browsable API with the raw JSON form only: forms would send what the parser refuses."""

    def get_default_renderer(self, view: Any) -> BaseRenderer:
        return ExactJSONRenderer()

    def get_content(self, renderer: Any, data: Any, accepted_media_type: Any, renderer_context: Any) -> Any:
        return super().get_content(renderer, data, accepted_media_type, {**renderer_context, "indent": 4})

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        if method in ("DELETE", "OPTIONS"):
            return super().get_rendered_html_form(data, view, method, request)
        return None

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        if method == "GET":
            return None
        form = super().get_raw_data_form(data, view, method, request)
        example = getattr(view, "examples", {}).get(method)
        if form and example is not None:
            form.fields["_content"].initial = msgspec.json.format(strict_json.dumps(example), indent=4).decode()
        return form
