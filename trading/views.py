"""Deposits, balances, orders, fills and the ledger of whoever asks."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
)
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from core import strict_json
from trading import selectors, serializers, services, wire
from trading.commands import is_token, read_amend, read_deposit, read_object, read_start, read_terms, read_twap
from trading.exchange import Done, OrderNotFound

CSV = "text/csv; charset=utf-8"
CSV_ROWS = 1_000  # read at a time

REFUSED = "`detail` says why: for example `insufficient_funds`, `amount_too_large`, `no_market`, `unknown_symbol`."
WRONG = OpenApiResponse(description="A value is missing or wrong; `detail` names it with its place.")
MISSING = OpenApiResponse(description="You have no such order.")
DOWN = OpenApiResponse(description="Not written now; `Retry-After` says when to ask again.")
ORDER = PolymorphicProxySerializer("AnyOrder", [serializers.OrderOut, serializers.TwapOut], None)
TOKEN = OpenApiParameter(
    "token", str, OpenApiParameter.PATH, description="the order's `token_id`, percent-encoded, or its `id`"
)


class _View(APIView):
    """A route of whoever is logged in. `examples` are what the browsable pages' forms begin with."""

    examples: Mapping[str, Any] = {}

    def body(self, request: Request) -> Mapping[str, Any]:
        """Return the request's JSON object; an empty body is none."""
        data = request.data
        if not _length(request):
            data = strict_json.loads(b"")
        return read_object(data)


class _CSVOnRequest(DefaultContentNegotiation):
    """A download is one whatever `Accept` says; its errors are JSON."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        if request.query_params.get("format") == "csv":
            return renderers[0], renderers[0].media_type
        return super().select_renderer(request, renderers, format_suffix)


class DepositView(_View):
    """Adds paper money."""

    examples = {"POST": {"asset": "USDT", "amount": 10_000}}

    @extend_schema(
        summary="Deposit",
        operation_id="deposit",
        tags=["account"],
        request=serializers.DepositIn,
        responses={
            200: serializers.DepositOut,
            400: OpenApiResponse(description="`unknown_asset`, or `amount_too_large`. Or the body is not JSON."),
            422: WRONG,
            503: DOWN,
        },
        examples=[OpenApiExample("paper money", examples["POST"], request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Add paper money to the account."""
        asset, amount = read_deposit(self.body(request))
        balance = services.deposit(account_id=_account(request), asset=asset, amount=amount)
        return Response(wire.deposited(asset, amount, balance))


class BalanceView(_View):
    """What the account has, and how much of it open orders hold."""

    @extend_schema(summary="Balances", operation_id="read_balances", tags=["account"], responses=serializers.BalanceOut)
    def get(self, request: Request) -> Response:
        """Every asset: total, available and reserved."""
        return Response(wire.balances(selectors.balances(_account(request)), services.assets()))


class ResetView(_View):
    """Starts the account again. Credentials and history stay."""

    examples = {"POST": {"balances": {"USDT": 10_000}}}

    @extend_schema(
        summary="Reset the account",
        operation_id="reset_account",
        tags=["account"],
        request=serializers.ResetIn,
        responses={
            200: serializers.ResetOut,
            400: OpenApiResponse(description="`unknown_asset`, or `amount_too_large`: nothing was changed."),
            422: WRONG,
            503: DOWN,
        },
        examples=[OpenApiExample("to starting balances", examples["POST"], request_only=True)],
    )
    def post(self, request: Request) -> Response:
        """Cancel everything and zero the balances, or set them; a body is not needed."""
        body = self.body(request) if _length(request) else {}
        held = services.reset_account(account_id=_account(request), balances=read_start(body))
        return Response({"status": "ok", **wire.balances(held, services.assets())})


class OrdersView(_View):
    """The account's orders."""

    examples = {
        "POST": {"token_id": "my-order-1", "symbol": "BTCUSDT", "side": "buy", "price": 50_000, "quantity": 0.1}
    }

    @extend_schema(
        summary="List orders",
        operation_id="list_orders",
        tags=["orders"],
        parameters=[serializers.OrdersQuery],
        responses={
            200: serializers.OrdersOut,
            400: OpenApiResponse(description="`unknown_symbol`."),
            422: WRONG,
        },
    )
    def get(self, request: Request) -> Response:
        """Orders, newest first, each with its fills."""
        asked = _asked(serializers.OrdersQuery(request.query_params))
        page = selectors.orders(
            account_id=_account(request), status=asked.get("status"), instrument=_instrument(asked), **_page(asked)
        )
        found = [wire.order(done.order, done.fills) for done in page.rows]
        return Response({"orders": found, "next_cursor": serializers.cursor(page.next_cursor)})

    @extend_schema(
        summary="Place an order", operation_id="place_order",
        tags=["orders"],
        request=serializers.OrderIn,
        responses={
            201: serializers.OrderOut,
            400: OpenApiResponse(
                description=REFUSED + " `duplicate_token_id` comes with the existing order under `order`."
            ),
            422: WRONG,
            503: DOWN,
        },
        examples=[
            OpenApiExample("limit", examples["POST"], request_only=True),
            OpenApiExample(
                "market",
                {"token_id": "my-order-2", "symbol": "BTCUSDT", "side": "buy", "order_type": "market", "quantity": 0.1},
                request_only=True,
            ),
            OpenApiExample(
                "immediate or cancel",
                {
                    "token_id": "my-order-3", "symbol": "ETH/USDT", "side": "sell", "order_type": "ioc",
                    "price": "2500.5", "quantity": "1",
                },
                request_only=True,
            ),
        ],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Place an order; what can be executed now is. A refused one does not use up its token_id."""
        terms = read_terms(self.body(request), settings.CATALOGUE)
        done = services.place_order(account_id=_account(request), terms=terms)
        return Response(wire.order(done.order, done.fills), status=201)

    @extend_schema(
        summary="Cancel all orders",
        operation_id="cancel_all_orders",
        tags=["orders"],
        parameters=[serializers.CancelQuery],
        responses={
            200: serializers.CancelledOut,
            400: OpenApiResponse(description="`unknown_symbol`: nothing was cancelled."),
            422: WRONG,
            503: DOWN,
        },
    )
    def delete(self, request: Request) -> Response:
        """Cancel all open orders, or those of a symbol."""
        asked = _asked(serializers.CancelQuery(data=request.query_params.dict()))
        ended = services.cancel_all(account_id=_account(request), instrument=_instrument(asked))
        found = [wire.order(done.order, done.fills) for done in ended]
        return Response({"cancelled": len(found), "orders": found})


class TwapView(_View):
    """A TWAP order: a quantity in equal slices over a time. Read and stop it as any order."""

    examples = {
        "POST": {"symbol": "BTCUSDT", "side": "buy", "total_quantity": 0.5, "duration_seconds": 300, "slices": 10}
    }

    @extend_schema(
        summary="Place a TWAP order", operation_id="place_twap",
        tags=["orders"],
        request=serializers.TwapIn,
        responses={
            200: serializers.TwapPlacedOut,
            400: OpenApiResponse(
                description=REFUSED + " `duplicate_token_id` comes with the existing order under `order`."
            ),
            422: WRONG,
            503: DOWN,
        },
        examples=[
            OpenApiExample("ten slices in five minutes", examples["POST"], request_only=True),
            OpenApiExample(
                "on one venue, with a limit",
                {
                    "token_id": "my-twap-1", "symbol": "ETH/USDT", "side": "sell", "total_quantity": "2.5",
                    "duration_seconds": 3600, "slices": 60, "limit_price": "2500.5", "exchange": "kraken",
                },
                request_only=True,
            ),
        ],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Hold what it may cost, and execute the first slice at once, the others in their time."""
        terms, venue, duration_s, slices = read_twap(self.body(request), settings.CATALOGUE, settings.VENUES)
        done = services.place_twap(
            account_id=_account(request), terms=terms, venue=venue, duration_s=duration_s, slices=slices
        )
        return Response({"message": f"TWAP order accepted: {slices} slices in {duration_s} s", **_whole(done)})


class OrderView(_View):
    """One order, by its token_id or its id."""

    examples = {"PUT": {"price": 51_000, "quantity": 0.2}}

    @extend_schema(
        summary="Read an order",
        operation_id="read_order",
        tags=["orders"],
        parameters=[TOKEN],
        responses={200: ORDER, 404: MISSING},
    )
    def get(self, request: Request, token: str) -> Response:
        """The order with its fills; of a TWAP order how far it is, and what each slice did."""
        return Response(_whole(selectors.order(account_id=_account(request), token=token)))

    @extend_schema(
        summary="Amend an order",
        operation_id="amend_order",
        tags=["orders"],
        parameters=[TOKEN],
        request=serializers.AmendIn,
        responses={
            200: serializers.OrderOut,
            400: OpenApiResponse(
                description="`order_not_open`, `nothing_to_change`, `insufficient_funds`: the order is as it was."
            ),
            404: MISSING,
            422: WRONG,
            503: DOWN,
        },
        examples=[OpenApiExample("another price and quantity", examples["PUT"], request_only=True)],
    )
    def put(self, request: Request, token: str) -> Response:
        """Change the price, the quantity, or both; a price that crosses now executes at once."""
        price, quantity = read_amend(self.body(request))
        done = services.amend_order(account_id=_account(request), token=_known(token), price=price, quantity=quantity)
        return Response(wire.order(done.order, done.fills))

    @extend_schema(
        summary="Cancel an order",
        operation_id="cancel_order",
        tags=["orders"],
        parameters=[TOKEN],
        responses={
            200: ORDER,
            400: OpenApiResponse(description="`order_not_open`: it was filled or cancelled before."),
            404: MISSING,
            503: DOWN,
        },
    )
    def delete(self, request: Request, token: str) -> Response:
        """Cancel an open order and release what it held; a TWAP order stops where it is."""
        done = services.cancel_order(account_id=_account(request), token=_known(token))
        if done.order.twap is not None:  # what it did until now is read anew
            done = selectors.order(account_id=_account(request), token=done.order.order_id)
        return Response(_whole(done))


class FillsView(_View):
    """The account's executions."""

    content_negotiation_class = _CSVOnRequest

    @extend_schema(
        summary="List fills",
        operation_id="list_fills",
        tags=["account"],
        parameters=[serializers.FillsQuery],
        responses={
            (200, "application/json"): serializers.FillsOut,
            (200, "text/csv"): str,
            400: OpenApiResponse(description="`unknown_symbol`."),
            404: MISSING,
            422: WRONG,
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Receipts, newest first: what executed, where, and what the market showed."""
        asked = _asked(serializers.FillsQuery(request.query_params))
        token = asked.get("order")
        if token is not None:
            selectors.order(account_id=_account(request), token=token)  # a missing one is told before a download begins
        read = partial(selectors.fills, account_id=_account(request), token=token, instrument=_instrument(asked))
        if asked["format"] == "csv":
            return _download("fills", request, serializers.FILL_COLUMNS, read, serializers.receipt, asked)
        page = read(**_page(asked))
        found = [serializers.receipt(one) for one in page.rows]
        return Response({"fills": found, "next_cursor": serializers.cursor(page.next_cursor)})


class LedgerView(_View):
    """Every change of the account's totals."""

    content_negotiation_class = _CSVOnRequest

    @extend_schema(
        summary="Read the ledger",
        operation_id="read_ledger",
        tags=["account"],
        parameters=[serializers.LedgerQuery],
        responses={
            (200, "application/json"): serializers.LedgerOut,
            (200, "text/csv"): str,
            400: OpenApiResponse(description="`unknown_asset`."),
            422: WRONG,
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Entries, newest first: each asset's total is the sum of its entries."""
        asked = _asked(serializers.LedgerQuery(request.query_params))
        asset = services.known_asset(asked["asset"].upper()) if "asset" in asked else None
        read = partial(selectors.entries, account_id=_account(request), asset=asset, kind=asked.get("kind"))
        if asked["format"] == "csv":
            return _download("ledger", request, serializers.ENTRY_COLUMNS, read, serializers.entry, asked)
        page = read(**_page(asked))
        found = [serializers.entry(one) for one in page.rows]
        return Response({"entries": found, "next_cursor": serializers.cursor(page.next_cursor)})


# -- the steps


def _account(request: Request) -> int:
    return int(request.user.pk or 0)


def _length(request: Request) -> int:
    return int(request.META.get("CONTENT_LENGTH") or 0)


def _asked(query: Serializer[Any]) -> dict[str, Any]:
    query.is_valid(raise_exception=True)
    return dict(query.validated_data)


def _page(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"limit": asked.get("limit", serializers.PAGE_DEFAULT), "cursor": asked.get("cursor")}


def _instrument(asked: Mapping[str, Any]) -> str | None:
    return settings.CATALOGUE.find(asked["symbol"]).name if "symbol" in asked else None


def _known(token: str) -> str:
    """Return a token that some order may have: others are not looked for."""
    if not is_token(token):
        raise OrderNotFound("you have no order with this token_id or id")
    return token


def _whole(done: Done) -> dict[str, Any]:
    """Write one order with all that is to be said of it."""
    written = wire.order if done.order.twap is None else wire.executions
    return written(done.order, done.fills)


def _download(
    name: str,
    request: Request,
    columns: Sequence[str],
    read: Callable[..., selectors.Page[Any]],
    write: Callable[[Any], Mapping[str, Any]],
    asked: Mapping[str, Any],
) -> StreamingHttpResponse:
    """Return all rows from the cursor on as a file, read and sent piece by piece."""

    async def lines() -> AsyncIterator[str]:
        yield serializers.csv_lines([columns])
        left, cursor = asked.get("limit"), asked.get("cursor")
        while left != 0:
            size = CSV_ROWS if left is None else min(left, CSV_ROWS)
            page = await sync_to_async(read)(limit=size, cursor=cursor)
            rows = map(write, page.rows)
            yield serializers.csv_lines([row[column] for column in columns] for row in rows)
            left, cursor = None if left is None else left - len(page.rows), page.next_cursor
            if cursor is None:
                return

    file = f"{name}-{request.user.get_username()}-{timezone.now():%Y-%m-%d}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return StreamingHttpResponse(lines(), content_type=CSV, headers=headers)
