"""The dashboard's page: who it is, then the market and the account. `make dashboard` runs it."""

import os
from pathlib import Path

import streamlit as st
from router_client import DEFAULT_URL, Info
from router_client.models import ALL

from dashboard import account, market, pieces, style, tickets
from dashboard.feeds import Feeds

ROUTER_URL = os.environ.get("ROUTER_URL", DEFAULT_URL).rstrip("/")
ICON = Path(__file__).with_name("icon.svg")
INTERVALS = ["1s", "10s", "1m", "5m"]
COLUMNS = [2.15, 1, 0.95]  # charts, book, tickets


def main() -> None:
    st.set_page_config(page_title="Simple Router", page_icon=str(ICON), layout="wide")
    feeds = account.feeds_of(ROUTER_URL)
    if feeds is None:
        st.html(style.sheet(style.palette(st.context.theme.type)))
        account.log_in_page(ROUTER_URL)
        return
    if feeds.load() and feeds.info is not None:
        _page(feeds, feeds.info)
    else:
        _wait(feeds)


@st.fragment(run_every=1.0)
def _wait(feeds: Feeds) -> None:
    """Say that the router is away, until it is there."""
    st.html(style.sheet(style.palette(st.context.theme.type)))
    st.html(pieces.lost_banner(feeds.url, feeds.lost or "no answer yet"))
    if feeds.info is not None and feeds.status is not None:
        st.rerun(scope="app")


def _page(feeds: Feeds, info: Info) -> None:
    exchanges = [ALL, *info.exchanges]
    with st.container(horizontal=True, vertical_alignment="center", key="top"):
        st.html(pieces.boxed('<div class="sr-brand">Simple Router<small>paper trading</small></div>'), width="content")
        exchange = st.segmented_control(
            "Exchange", exchanges, default=ALL, required=True, key="exchange", bind="query-params",
            label_visibility="collapsed",
        )  # fmt: skip
        pair = st.selectbox(
            "Pair", info.pairs, key="pair", bind="query-params", label_visibility="collapsed", width=150
        )
        st.space("stretch")
        st.html(pieces.name(feeds.session.username or "by API key"), width="content")
        if st.button("Log out", key="log-out"):
            account.log_out()
    market.header(feeds)
    left, middle, right = st.columns(COLUMNS)
    with left:
        with st.container(key="panel-candles"):
            market.candles(feeds, pair, exchange, info.kline_intervals or INTERVALS)
        with st.container(key="panel-depth"):
            market.depth(feeds)
    with middle:
        with st.container(key="panel-book"):
            market.ladder(feeds, exchange)
        with st.container(key="panel-tape"):
            market.tape(feeds)
    with right:
        with st.container(key="panel-ticket"):
            tickets.available(feeds, pair)
            plain, twap = st.tabs(["Order", "TWAP"])
            with plain:
                tickets.order(feeds, pair)
            with twap:
                tickets.twap(feeds, pair, exchanges)
        with st.container(key="panel-balances"):
            account.balances(feeds)
            account.deposit(feeds, info.assets)
    account.keep_visit()
    with st.container(key="panel-account"):
        opened, sliced, past, worth = st.tabs(["Open orders", "TWAP orders", "History", "Equity"])
        with opened:
            account.open_orders(feeds)
        with sliced:
            account.twaps(feeds)
        with past:
            account.history(feeds)
        with worth:
            account.worth(feeds)


main()
