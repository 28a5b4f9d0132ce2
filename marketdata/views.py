"""The public routes: what is traded here, its candles and books, and how the market data fares."""

from typing import Any, ClassVar

from asgiref.sync import async_to_sync
from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from prometheus_client import CONTENT_TYPE_LATEST
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.candles import INTERVALS
from marketdata import serializers, services
from marketdata.frames import SINGULAR

ORDER_TYPES = ("limit", "market", "ioc")

UNKNOWN = OpenApiResponse(description="`unknown_exchange`, `unknown_symbol`, or `not_carried` by this exchange.")
WRONG = OpenApiResponse(description="A parameter is wrong; `detail` lists each with its place.")
NAMES: dict[Any, Any] = {(200, "application/json"): {"type": "array", "items": {"type": "string"}}}
EXCHANGE = OpenApiParameter(
    "exchange", str, OpenApiParameter.PATH, description="a venue, or `all`", enum=["all", *settings.VENUES]
)
SYMBOL = OpenApiParameter("symbol", str, OpenApiParameter.PATH, description="BTCUSDT, BTC-USDT, BTC/USDT; any case")


class _Public(APIView):
    permission_classes = (AllowAny,)


class _Plain(_Public):
    """For machines that watch: no credentials are looked at."""

    authentication_classes: ClassVar[list[type]] = []  # type: ignore[misc]


class InfoView(_Public):
    @extend_schema(summary="What is served here", tags=["market"], responses=serializers.InfoOut)
    def get(self, _request: Request) -> Response:
        """Assets, pairs, exchanges, intervals, streams and order types."""
        instruments = settings.CATALOGUE.instruments
        symbols = [instrument.symbol for instrument in instruments]
        assets = {asset for instrument in instruments for asset in (instrument.base, instrument.quote)}
        status = async_to_sync(services.status)()
        return Response(
            {
                "assets": sorted(assets),
                "pairs": symbols,
                "trading_pairs": symbols,
                "exchanges": list(settings.VENUES),
                "kline_intervals": list(INTERVALS),
                "streams": list(SINGULAR),
                "order_types": list(ORDER_TYPES),
                **{name: status[name] for name in ("paper", "source", "source_requested", "simulated", "version")},
            }
        )


class ExchangesView(_Public):
    @extend_schema(
        summary="The exchanges",
        tags=["market"],
        responses={(200, "application/json"): {"type": "array", "items": {"type": "string"}}},
    )
    def get(self, _request: Request) -> Response:
        """The configured exchanges."""
        return Response(list(settings.VENUES))


class PairsView(_Public):
    @extend_schema(
        summary="The pairs of an exchange",
        tags=["market"],
        parameters=[EXCHANGE],
        responses={**NAMES, 400: UNKNOWN},
    )
    def get(self, _request: Request, exchange: str) -> Response:
        """What this exchange really carries of the configured pairs."""
        return Response(async_to_sync(services.pairs)(services.find_venue(exchange)))


class KlinesView(_Public):
    @extend_schema(
        summary="Candles",
        tags=["market"],
        parameters=[EXCHANGE, SYMBOL, serializers.KlinesQuery],
        responses={200: serializers.KlinesOut, 400: UNKNOWN, 422: WRONG},
    )
    def get(self, request: Request, exchange: str, symbol: str) -> Response:
        """Candles over the trades received, oldest first; the running one comes last with `is_closed` false."""
        venue = services.find_venue(exchange)
        instrument = settings.CATALOGUE.find(symbol)
        query = serializers.KlinesQuery(request.query_params)
        query.is_valid(raise_exception=True)
        asked: dict[str, Any] = dict(query.validated_data)
        interval = asked.pop("interval")
        candles = services.klines(instrument, venue, interval=INTERVALS[interval], **asked)
        return Response(
            {
                "exchange": venue,
                "symbol": instrument.symbol,
                "interval": interval,
                "candles": [serializers.candle(item) for item in candles],
            }
        )


class OrderBookView(_Public):
    @extend_schema(
        summary="Order book",
        tags=["market"],
        parameters=[EXCHANGE, SYMBOL, serializers.BookQuery],
        responses={200: serializers.BookOut, 400: UNKNOWN, 422: WRONG},
    )
    def get(self, request: Request, exchange: str, symbol: str) -> Response:
        """The best levels of one exchange, or of all live ones together; empty while it is not live."""
        venue = services.find_venue(exchange)
        instrument = settings.CATALOGUE.find(symbol)
        query = serializers.BookQuery(request.query_params)
        query.is_valid(raise_exception=True)
        return Response(async_to_sync(services.order_book)(instrument, venue, query.validated_data["depth"]))


class StatusView(_Public):
    @extend_schema(summary="State of the router", tags=["state"], responses=serializers.StatusOut)
    def get(self, _request: Request) -> Response:
        """The market's source, each exchange's state, each symbol's touch and its age."""
        return Response(async_to_sync(services.status)())


class MetricsView(_Plain):
    @extend_schema(summary="Metrics", tags=["state"], responses={(200, "text/plain"): str})
    def get(self, _request: Request) -> HttpResponse:
        """Prometheus text."""
        return HttpResponse(async_to_sync(services.metrics_text)(), content_type=CONTENT_TYPE_LATEST)
