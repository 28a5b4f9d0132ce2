"""Data → figure. Pure."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any

import plotly.graph_objects as go
from router_client import Candle, Level, OrderBook, TwapOrder

from dashboard import words
from dashboard.equity import Worth
from dashboard.style import Palette

CANDLES_SHOWN = 90
MINUTE_S = 60
DATED = 40  # pixels below an axis that also tells the day
FONT = "'Source Sans', 'Source Sans Pro', sans-serif"


def candles(bars: Sequence[Candle], *, colours: Palette, revision: str) -> go.Figure:
    """Return candles over their volumes. A zoom stays as long as `revision` does."""
    shown = bars[-CANDLES_SHOWN:]
    times = [_moment(bar.timestamp) for bar in shown]
    tones = [colours.up if bar.close >= bar.open else colours.down for bar in shown]
    step_s = min((after.timestamp - before.timestamp for before, after in pairwise(shown)), default=60)
    prices = {
        "type": "candlestick",
        "name": "price",
        "x": times,
        "open": _floats(bar.open for bar in shown),
        "high": _floats(bar.high for bar in shown),
        "low": _floats(bar.low for bar in shown),
        "close": _floats(bar.close for bar in shown),
        "increasing": {"line": {"color": colours.up, "width": 1}, "fillcolor": colours.up},
        "decreasing": {"line": {"color": colours.down, "width": 1}, "fillcolor": colours.down},
    }
    volumes = {
        "type": "bar",
        "name": "volume",
        "x": times,
        "y": _floats(bar.volume for bar in shown),
        "yaxis": "y2",
        "marker": {"color": tones, "opacity": 0.55, "line": {"width": 0}},
    }
    layout = _layout(colours, revision, height=500)
    layout["xaxis"] |= {
        "rangeslider": {"visible": False},
        "tickformat": "%H:%M:%S" if step_s < MINUTE_S else "%H:%M",
        "nticks": 5,
        "anchor": "y2",
    }
    layout["yaxis2"] = layout["yaxis"] | {"domain": [0, 0.2], "nticks": 3}
    layout["yaxis"] |= {"domain": [0.24, 1], "nticks": 6}
    if shown:
        close = float(shown[-1].close)
        layout["shapes"] = [_line(close, tones[-1], "dot")]
        layout["annotations"] = [
            {
                "x": 1, "xref": "paper", "xanchor": "left", "y": close, "yref": "y", "showarrow": False,
                "text": f" {words.price(shown[-1].close)} ", "bgcolor": tones[-1], "borderpad": 2,
                "font": {"color": colours.panel, "size": 11},
            }
        ]  # fmt: skip
    return go.Figure([prices, volumes], layout)


def depth(book: OrderBook | None, *, colours: Palette, revision: str) -> go.Figure:
    """Return what is offered up to each price, both sides of the touch."""
    sides = (("bids", book.bids, colours.up), ("asks", book.asks, colours.down)) if book else ()
    traces = [
        {
            "type": "scatter",
            "name": name,
            "x": _floats(level.price for level in levels),
            "y": _floats(cumulated(levels)),
            "mode": "lines",
            "line": {"color": colour, "width": 2, "shape": "hv"},
            "fill": "tozeroy",
            "fillcolor": f"{colour}29",
            "hovertemplate": "%{y:,.4f} up to %{x:,}<extra>" + name + "</extra>",
        }
        for name, levels, colour in sides
    ]
    layout = _layout(colours, revision, height=310)
    layout["hovermode"] = "closest"
    layout["xaxis"] |= {"nticks": 5, "tickformat": ",.8~f"}
    layout["yaxis"] |= {"nticks": 4, "rangemode": "tozero"}
    return go.Figure(traces, layout)


def cumulated(levels: Sequence[Level]) -> list[Decimal]:
    """Return how much is shown down to each level, the best first."""
    return list(accumulate(level.quantity for level in levels))


def equity(points: Sequence[Worth], *, colours: Palette, revision: str) -> go.Figure:
    """Return the account's value over time."""
    trace = {
        "type": "scatter",
        "x": [_moment(point.at) for point in points],
        "y": _floats(point.value for point in points),
        "mode": "lines",
        "line": {"color": colours.accent, "width": 2, "shape": "hv"},
        "hovertemplate": "%{y:,.2f} USDT<extra></extra>",
    }
    layout = _layout(colours, revision, height=260)
    layout["margin"] |= {"b": DATED, "r": 84}
    layout["yaxis"] |= {"tickformat": ",.2f", "nticks": 5}
    return go.Figure([trace], layout)


def executions(order: TwapOrder, *, colours: Palette, revision: str) -> go.Figure:
    """Return what each slice of a TWAP order paid, beside its average and the price at its arrival."""
    made = [(one, one.price) for one in order.executions if one.price is not None]
    trace = {
        "type": "scatter",
        "x": [one.executed_at for one, _ in made],
        "y": _floats(price for _, price in made),
        "mode": "markers",
        "marker": {
            "size": 11,
            "color": [colours.venue(one.exchange) for one, _ in made],
            "line": {"color": colours.panel, "width": 1.5},
        },
        "customdata": [[words.quantity(one.quantity), one.exchange or "", one.slice + 1] for one, _ in made],
        "hovertemplate": "slice %{customdata[2]}: %{customdata[0]} at %{y:,} on %{customdata[1]}<extra></extra>",
    }
    benchmarks = [
        (float(value), name, dash, colour)
        for value, name, dash, colour in (
            (order.average_price, "average", "solid", colours.accent),
            (order.arrival_price, "arrival", "dot", colours.muted),
            (order.market_twap, "market TWAP", "dash", colours.muted),
        )
        if value is not None
    ]
    layout = _layout(colours, revision, height=230)
    layout["hovermode"] = "closest"
    layout["margin"] |= {"b": DATED, "r": 84}
    layout["yaxis"] |= {"nticks": 5}
    layout["shapes"] = [_line(value, colour, dash) for value, _, dash, colour in benchmarks]
    layout["annotations"] = [
        {
            "x": place, "xref": "paper", "xanchor": "center", "y": value, "yref": "y", "yanchor": "bottom",
            "showarrow": False, "text": name, "font": {"color": colour, "size": 11},
        }
        for place, (value, name, _, colour) in zip((0.14, 0.5, 0.86), benchmarks, strict=False)
    ]  # fmt: skip
    if order.starts_at is not None and order.ends_at is not None:
        edge = (order.ends_at - order.starts_at) / 40
        layout["xaxis"] |= {"range": [order.starts_at - edge, order.ends_at + edge]}
    return go.Figure([trace], layout)


def _layout(colours: Palette, revision: str, *, height: int) -> dict[str, Any]:
    """Return what all charts have in common. One dictionary, for Plotly checks each change of a figure anew."""
    axis = {"gridcolor": colours.grid, "linecolor": colours.line, "zeroline": False, "automargin": False}
    return {
        "template": "none",
        "height": height,
        "margin": {"l": 4, "r": 70, "t": 6, "b": 24},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": colours.muted},
        "showlegend": False,
        "uirevision": revision,
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": colours.panel, "bordercolor": colours.line, "font": {"color": colours.text}},
        "bargap": 0.25,
        "xaxis": axis | {"tickangle": 0},
        "yaxis": axis | {"side": "right", "exponentformat": "none", "tickformat": ",.8~f"},
    }


def _line(value: float, colour: str, dash: str) -> dict[str, Any]:
    """Return a level line across the chart."""
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": value, "y1": value,
        "line": {"color": colour, "width": 1.2, "dash": dash},
    }  # fmt: skip


def _floats(values: Iterable[Decimal]) -> list[float]:
    """Return what is drawn: a screen has no more digits than a float."""
    return [float(value) for value in values]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
