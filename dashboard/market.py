"""The live parts of the page: each a fragment that runs by itself and shows what has come."""

import streamlit as st

from dashboard import charts, pieces, style
from dashboard.feeds import Feeds
from dashboard.plot import plot
from dashboard.state import Watched

REFRESH_S = 1.0
BOOK_REFRESH_S = 0.5


@st.fragment(run_every=REFRESH_S)
def header(feeds: Feeds) -> None:
    """Show what is wrong, if anything, the touch and the exchanges' lights."""
    colours = style.palette(st.context.theme.type)
    st.html(style.sheet(colours))
    if feeds.refused is not None:
        st.rerun(scope="app")
    market = feeds.market
    if feeds.status is not None and feeds.status.simulated:
        st.html(pieces.simulated_banner())
    if (reason := feeds.lost) is not None:
        st.html(pieces.lost_banner(feeds.url, reason))
    if market is not None:
        trades = market.trades
        last = trades[0] if trades else None
        status = feeds.status if feeds.lost is None else None
        st.html(pieces.touch_strip(market.touch, last, status, market.watched.symbol, colours))


@st.fragment(run_every=REFRESH_S)
def candles(feeds: Feeds, symbol: str, exchange: str, intervals: list[str]) -> None:
    """Show the candles and let their interval be chosen."""
    colours = style.palette(st.context.theme.type)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.html(pieces.title(symbol, f"trades of {_named(exchange)}, UTC"), width="content")
        interval = st.segmented_control(
            "Interval", intervals, default=intervals[0], required=True, key="interval", bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
    feeds.watch(Watched(symbol, exchange, interval or intervals[0]))
    assert feeds.market is not None
    figure = charts.candles(feeds.market.candles, colours=colours, revision=f"{symbol} {exchange} {interval}")
    plot(figure, key="candles", label=f"Candles of {symbol}")


@st.fragment(run_every=REFRESH_S)
def depth(feeds: Feeds) -> None:
    """Show the book as a curve."""
    st.html(pieces.title("Depth", "quantity up to each price"))
    market = feeds.market
    if market is None:
        return
    revision = f"{market.watched.symbol} {market.watched.exchange}"
    figure = charts.depth(market.book, colours=style.palette(st.context.theme.type), revision=revision)
    plot(figure, key="depth", label=f"Depth of {market.watched.symbol}")


@st.fragment(run_every=BOOK_REFRESH_S)
def ladder(feeds: Feeds, exchange: str) -> None:
    """Show the book's best levels."""
    st.html(pieces.title("Order book", f"of {_named(exchange)}"))
    if feeds.market is not None:
        st.html(pieces.ladder(feeds.market.book, style.palette(st.context.theme.type)))


@st.fragment(run_every=REFRESH_S)
def tape(feeds: Feeds) -> None:
    """Show the last trades."""
    st.html(pieces.title("Trades"))
    if feeds.market is not None:
        st.html(pieces.tape(feeds.market.trades, style.palette(st.context.theme.type)))


def _named(exchange: str) -> str:
    return "all exchanges" if exchange == "all" else exchange
