"""The tickets: what to buy or sell, and how."""

from functools import partial

import streamlit as st

from dashboard import pieces, words
from dashboard.account import REFRESH_S, act, outcome, show_told
from dashboard.feeds import Feeds
from dashboard.state import assets_of, middle

SIDES = ["Buy", "Sell"]
TYPES = {"Limit": "limit", "Market": "market", "IOC": "ioc"}
EXPLAINED = {
    "Limit": "Executes whole at the touch once it is no worse than the price; until then it rests.",
    "Market": "Executes whole, at once, at the touch.",
    "IOC": "Executes at once what the touch shows; the rest is cancelled. The price is optional.",
}
DURATION_S, DURATION_MAX_S = 60, 7 * 86_400
SLICES, SLICES_MAX = 6, 10_000


@st.fragment(run_every=REFRESH_S)
def available(feeds: Feeds, symbol: str) -> None:
    """Show what can be spent and sold."""
    base, quote = assets_of(symbol, feeds.info.assets if feeds.info else ())
    if feeds.account is None:
        return
    free = {balance.asset: balance.available for balance in feeds.account.balances.balances}
    st.html(
        pieces.boxed(
            f'<span class="sr-muted">Available: <b>{words.quantity(free.get(quote))}</b> {quote} · '
            f"<b>{words.quantity(free.get(base))}</b> {base}</span>"
        )
    )


@st.fragment
def order(feeds: Feeds, symbol: str) -> None:
    """Place a limit, market or ioc order."""
    base, quote = assets_of(symbol, feeds.info.assets if feeds.info else ())
    side = st.segmented_control("Side", SIDES, default="Buy", required=True, key="order-side", width="stretch")
    kind = st.segmented_control("Type", list(TYPES), default="Limit", required=True, key="order-type", width="stretch")
    price_key = f"order-price-{symbol}"
    touch = feeds.status.symbols.get(symbol) if feeds.status else None
    if touch and not st.session_state.get(price_key) and (mid := middle(touch.best_bid, touch.best_ask)):
        st.session_state[price_key] = words.plain(mid.quantize(touch.best_bid or mid))
    with st.container(key=f"ticket-{side.lower()}"), st.form("order", border=False):
        quantity = st.text_input(f"Quantity, {base}", key=f"order-quantity-{symbol}", placeholder="0.01")
        price = st.text_input(f"Price, {quote}", key=price_key, disabled=kind == "Market")
        if st.form_submit_button(f"{side} {base}", type="primary", width="stretch"):
            act("order", feeds, partial(_place, feeds, symbol, side, kind, quantity, price))
    show_told("order")
    st.caption(EXPLAINED[kind])


def _place(feeds: Feeds, symbol: str, side: str, kind: str, quantity: str, price: str) -> str:
    amount = words.amount(quantity, "Quantity") or 0
    limit = None if kind == "Market" else words.amount(price, "Price", optional=kind == "IOC")
    placed = feeds.ask(feeds.client.place_order(symbol, side.lower(), amount, limit, order_type=TYPES[kind]))
    return f"Order placed: {outcome(placed)}"


@st.fragment
def twap(feeds: Feeds, symbol: str, exchanges: list[str]) -> None:
    """Place an order that executes in equal slices over a time."""
    base, quote = assets_of(symbol, feeds.info.assets if feeds.info else ())
    side = st.segmented_control("Side", SIDES, default="Buy", required=True, key="twap-side", width="stretch")
    with st.container(key=f"twap-ticket-{side.lower()}"), st.form("twap", border=False):
        quantity = st.text_input(f"Total quantity, {base}", key=f"twap-quantity-{symbol}", placeholder="0.5")
        left, right = st.columns(2)
        duration = left.number_input("Duration, s", 1, DURATION_MAX_S, DURATION_S, key="twap-duration")
        slices = right.number_input("Slices", 1, SLICES_MAX, SLICES, key="twap-slices")
        limit = st.text_input(f"Limit price, {quote} (optional)", key=f"twap-limit-{symbol}")
        exchange = st.selectbox("Exchange", exchanges, key="twap-exchange")
        if st.form_submit_button(f"Start TWAP: {side.lower()} {base}", type="primary", width="stretch"):
            act("twap", feeds, partial(_start, feeds, symbol, side, quantity, duration, slices, limit, exchange))
    show_told("twap")
    st.caption("One slice now, the others evenly over the duration. Its progress is below, under TWAP.")


def _start(
    feeds: Feeds, symbol: str, side: str, quantity: str, duration: int, slices: int, limit: str, exchange: str
) -> str:
    placed = feeds.ask(
        feeds.client.place_twap(
            symbol,
            side.lower(),
            words.amount(quantity, "Total quantity") or 0,
            duration_seconds=duration,
            slices=slices,
            limit_price=words.amount(limit, "Limit price", optional=True),
            exchange=exchange,
        )
    )
    return f"TWAP started: {side.lower()} {words.quantity(placed.total_quantity)} {symbol} in {slices} slices."
