"""Words, figures and HTML: what is drawn is what was given, and what others wrote is text."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_client import Candle, Level, Order, OrderBook, Slice, Status, Trade, TwapOrder, VenueStatus

from dashboard import charts, pieces, words
from dashboard.equity import Worth
from dashboard.style import DARK, LIGHT, palette, sheet

BOOK = OrderBook(
    "BTCUSDT", "all",
    bids=[Level(Decimal(99), Decimal(1), "okx"), Level(Decimal(98), Decimal(2), "kraken")],
    asks=[Level(Decimal(101), Decimal(3), "binance")],
    timestamp=0.0,
)  # fmt: skip
HOSTILE = "<script>alert(1)</script>"


def order(**changed: object) -> Order:
    given = {
        "id": "1", "token_id": "mine", "symbol": "BTCUSDT", "side": "buy", "order_type": "limit", "status": "open",
        "quantity": Decimal("0.5"), "price": Decimal(100),
    }  # fmt: skip
    return Order(**{**given, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "shown"),
    [("95133.2", "95,133.20"), ("0.178412", "0.178412"), ("3299.695", "3,299.695"), ("0.00001234", "0.00001234")],
)
def test_prices_keep_their_digits(value: str, shown: str) -> None:
    assert words.price(Decimal(value)) == shown


def test_computed_prices_are_as_fine_as_others() -> None:
    assert words.average(Decimal("95070.72831648")) == "95,070.73"
    assert words.average(None) == words.NONE


@given(st.decimals("0.00000001", "90000000000", places=8))
def test_what_is_shown_for_typing_is_read_back_exactly(number: Decimal) -> None:
    assert words.amount(words.plain(number), "Price") == number
    assert words.amount(words.quantity(number), "Quantity") == number


@pytest.mark.parametrize("text", ["", "much", "0", "-1", "NaN", "Infinity"])
def test_what_is_no_amount_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"^Price: "):
        words.amount(text, "Price")


def test_an_optional_amount_may_be_missing() -> None:
    assert words.amount(" ", "Limit price", optional=True) is None


def test_candles_are_drawn_with_their_volume() -> None:
    bars = [
        Candle(60 * at, Decimal(10), Decimal(12), Decimal(9), Decimal(11 - at), Decimal(5 + at), 1, is_closed=True)
        for at in range(3)
    ]

    prices, volumes = charts.candles(bars, colours=LIGHT, revision="x").data

    assert list(prices.close) == [11, 10, 9]
    assert list(volumes.y) == [5, 6, 7]
    assert list(prices.x) == [datetime.fromtimestamp(60 * at, UTC) for at in range(3)]
    assert list(volumes.marker.color) == [LIGHT.up, LIGHT.up, LIGHT.down]


def test_depth_adds_up_from_the_touch_outwards() -> None:
    bids, asks = charts.depth(BOOK, colours=DARK, revision="x").data

    assert (list(bids.x), list(bids.y)) == ([99, 98], [1, 3])
    assert (list(asks.x), list(asks.y)) == ([101], [3])


def test_empty_figures_are_figures() -> None:
    assert len(charts.depth(None, colours=LIGHT, revision="x").data) == 0
    assert len(charts.candles([], colours=LIGHT, revision="x").data[0].x) == 0
    assert list(charts.equity([Worth(1.0, Decimal(5))], colours=LIGHT, revision="x").data[0].y) == [5]


def test_executions_stand_beside_their_benchmarks() -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    made = Slice(slice=0, quantity=Decimal(1), price=Decimal(100), exchange="okx", executed_at=when)
    twap = TwapOrder(
        order_id="1", token_id="mine", symbol="BTCUSDT", side="buy", status="filled", is_completed=True,
        total_quantity=Decimal(1), executed_quantity=Decimal(1), percent_executed=Decimal(100), executions=[made],
        duration_seconds=Decimal(5), slices=1, slices_executed=1, average_price=Decimal(100),
        arrival_price=Decimal(99), slippage_arrival_bps=Decimal("101.0101"),
    )  # fmt: skip
    figure = charts.executions(twap, colours=LIGHT, revision="x")

    assert list(figure.data[0].y) == [100]
    assert [shape.y0 for shape in figure.layout.shapes] == [100, 99]
    assert "+101.01 bps slippage" in pieces.twap_progress(twap)
    assert 'aria-valuenow="100"' in pieces.twap_progress(twap)


def test_the_ladder_has_asks_above_bids_each_with_its_exchange() -> None:
    html = pieces.ladder(BOOK, LIGHT)

    assert html.index("101.00") < html.index("spread 2") < html.index("99.00") < html.index("98.00")
    assert all(venue in html for venue in ("okx", "kraken", "binance"))


def test_a_light_tells_what_its_exchange_does() -> None:
    status = Status(
        "live",
        {
            "okx": VenueStatus("live", live=True, last_frame_age=0.012, pairs=["BTCUSDT"]),
            "kraken": VenueStatus("stale", reason="silent"),
            "binance": VenueStatus("live", live=True, pairs=["ETHUSDT"]),
        },
        {},
    )
    html = pieces.lights(status, "BTCUSDT", LIGHT)

    assert "12 ms" in html
    assert "kraken: stale silent" in html
    assert "not carried" in html


def test_what_others_wrote_is_text() -> None:
    written = [
        pieces.open_order(order(token_id=HOSTILE, symbol=HOSTILE)),
        pieces.history([order(status=HOSTILE, reason=HOSTILE, exchange=HOSTILE)], LIGHT),
        pieces.tape([Trade("BTCUSDT", HOSTILE, "1", Decimal(1), Decimal(1), "buy", 0.0)], LIGHT),
        pieces.lights(Status("live", {HOSTILE: VenueStatus("live", reason='"><script>')}, {}), "BTCUSDT", LIGHT),
        pieces.lost_banner("http://x/?" + HOSTILE, '"' + HOSTILE),
        pieces.name(HOSTILE),
    ]
    assert not [html for html in written if "<script" in html]


def test_each_theme_has_its_own_sheet() -> None:
    assert palette("dark") is DARK
    assert palette(None) is LIGHT
    assert sheet(DARK) != sheet(LIGHT)
