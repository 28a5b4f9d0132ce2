"""Who looks, and what they have: log-in, balances, orders, TWAP orders, equity."""

import time
from collections.abc import Callable
from functools import partial

import streamlit as st
from router_client import APIClient, Order, Refused, Retries, RouterError, TwapOrder, Unauthorized
from router_client.flows import Session
from streamlit.delta_generator import DeltaGenerator

from dashboard import charts, equity, pieces, style, visits, words
from dashboard.feeds import Feeds
from dashboard.plot import plot
from dashboard.state import QUOTE, marks
from dashboard.visits import Visits

LOG_IN_RETRIES = Retries(attempts=1)  # a person presses the button again
LOG_IN_S = 8.0
REFRESH_S = 1.0
HISTORY_SHOWN = 50


@st.cache_resource(scope="session", on_release=Feeds.close, show_spinner=False)
def _feeds(url: str, _session: Session) -> Feeds:
    feeds = Feeds(url, _session)
    feeds.start()
    return feeds


@st.cache_resource(show_spinner=False)
def _visits() -> Visits:
    return Visits()


def feeds_of(url: str) -> Feeds | None:
    """Return the running client of who is logged in, None where nobody is."""
    if "who" not in st.session_state:
        known = _visits().find(st.context.cookies.get(visits.COOKIE), time.monotonic())
        if known is None:
            return None
        st.session_state["who"] = known
    feeds = _feeds(url, st.session_state["who"])
    if feeds.refused is not None:
        log_out(f"Logged out by the router: {feeds.refused}")
    return feeds


def keep_visit() -> None:
    """Let the browser keep who has just logged in, over reloads."""
    if "visit" in st.session_state:
        st.html(visits.script(st.session_state["visit"]), unsafe_allow_javascript=True)


def log_out(reason: str = "") -> None:
    """Forget who it was, and end the client."""
    session: Session | None = st.session_state.pop("who", None)
    st.session_state.pop("visit", None)
    _feeds.clear()
    if session is not None:
        _visits().forget(session)
        session.forget()
    st.session_state["log-in-told"] = reason
    st.rerun(scope="app")


def log_in_page(url: str) -> None:
    """Ask who it is."""
    with st.container(horizontal_alignment="center"), st.container(key="login", width=420):
        st.html(pieces.boxed('<div class="sr-brand">Simple Router<small>paper trading</small></div>'))
        st.caption(f"Binance, OKX and Kraken as one market. There is no real money anywhere. Router: {url}")
        told = st.empty()
        known, new, key = st.tabs(["Log in", "Register", "API key"])
        with known, st.form("log-in", border=False):
            name = st.text_input("Username", key="log-in-name", autocomplete="username")
            password = st.text_input("Password", key="log-in-password", type="password")
            if st.form_submit_button("Log in", type="primary", width="stretch"):
                _enter(url, told, lambda client: client.login(name.strip(), password))
        with new, st.form("register", border=False):
            name = st.text_input("New username", key="register-name", autocomplete="username")
            password = st.text_input("New password", key="register-password", type="password")
            if st.form_submit_button("Register", type="primary", width="stretch"):
                _enter(url, told, lambda client: client.register(name.strip(), password))
        with key, st.form("api-key", border=False):
            secret = st.text_input("API key", key="api-key-text", type="password")
            if st.form_submit_button("Use this key", type="primary", width="stretch"):
                _enter(url, told, lambda client: _show_key(client, secret.strip()))
        if reason := st.session_state.pop("log-in-told", ""):
            told.warning(reason)


def _show_key(client: APIClient, secret: str) -> None:
    if not secret:
        raise Unauthorized("enter a key")
    client.session.api_key = secret
    client.balance()


def _enter(url: str, told: DeltaGenerator, show: Callable[[APIClient], object]) -> None:
    try:
        with APIClient(url, timeout_s=LOG_IN_S, retries=LOG_IN_RETRIES) as client:
            show(client)
            st.session_state["who"] = client.session
            st.session_state["visit"] = _visits().remember(client.session, time.monotonic())
    except RouterError as error:
        told.error(explained(error))
        return
    st.rerun()


def explained(error: RouterError) -> str:
    """Return what went wrong in a sentence."""
    text = error.message[:1].upper() + error.message[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


# -- what the account has


@st.fragment(run_every=REFRESH_S)
def balances(feeds: Feeds) -> None:
    """Show the balances."""
    st.html(pieces.title("Balances"))
    if feeds.account is None:
        st.caption("…")
        return
    st.html(pieces.balances(feeds.account.balances, marks(feeds.status)))


@st.fragment
def deposit(feeds: Feeds, assets: list[str]) -> None:
    """Take in paper money."""
    with st.popover("Deposit paper money", width="stretch"), st.form("deposit", border=False, clear_on_submit=True):
        asset = st.selectbox("Asset", assets, index=assets.index(QUOTE) if QUOTE in assets else 0, key="deposit-asset")
        text = st.text_input("Amount", key="deposit-amount", placeholder="10000")
        if st.form_submit_button("Deposit", type="primary", width="stretch"):
            act("deposit", feeds, partial(_deposit, feeds, asset, text))
    show_told("deposit")


def _deposit(feeds: Feeds, asset: str, text: str) -> str:
    made = feeds.ask(feeds.client.deposit(asset, words.amount(text, "Amount") or 0))
    return f"{words.quantity(made.amount)} {made.asset} in, now {words.quantity(made.new_balance)}."


# -- orders


@st.fragment(run_every=REFRESH_S)
def open_orders(feeds: Feeds) -> None:
    """Show the open orders, each to be amended or cancelled."""
    show_told("open-orders")
    if feeds.account is None or not feeds.account.open_orders:
        st.html(pieces.boxed('<div class="sr-muted">No open orders.</div>'))
        return
    for order in feeds.account.open_orders:
        with st.container(horizontal=True, vertical_alignment="center", key=f"row-{order.id}"):
            st.html(pieces.open_order(order), width="stretch")
            _amend(feeds, order)
            if st.button("Cancel", key=f"cancel-{order.id}"):
                act("open-orders", feeds, partial(_cancel, feeds, order))
                st.rerun(scope="fragment")
    if len(feeds.account.open_orders) > 1 and st.button("Cancel all orders", key="cancel-all"):
        act("open-orders", feeds, partial(_cancel_all, feeds))
        st.rerun(scope="fragment")


def _amend(feeds: Feeds, order: Order) -> None:
    key = f"amend-{order.id}"
    if st.session_state.pop(f"{key}-is-done", False):
        st.session_state[key] = False
    popover = st.popover("Amend", key=key, on_change="rerun")
    if not popover.open:
        return
    with popover, st.form(f"{key}-form", border=False):
        price = st.text_input("New price", words.plain(order.price), key=f"{key}-price")
        quantity = st.text_input("New quantity", words.plain(order.quantity), key=f"{key}-quantity")
        if st.form_submit_button("Amend order", type="primary", width="stretch"):
            act("open-orders", feeds, partial(_change, feeds, order, price, quantity))
            st.session_state[f"{key}-is-done"] = True
            st.rerun(scope="fragment")


def _change(feeds: Feeds, order: Order, price: str, quantity: str) -> str:
    wanted = words.amount(price, "New price"), words.amount(quantity, "New quantity")
    changed = feeds.ask(
        feeds.client.amend_order(
            order.token_id,
            price=None if wanted[0] == order.price else wanted[0],
            quantity=None if wanted[1] == order.quantity else wanted[1],
        )
    )
    return f"Amended: {outcome(changed)}"


def _cancel(feeds: Feeds, order: Order) -> str:
    return f"Cancelled: {outcome(feeds.ask(feeds.client.cancel_order(order.token_id)))}"


def _cancel_all(feeds: Feeds) -> str:
    return f"{len(feeds.ask(feeds.client.cancel_all()))} orders cancelled."


def outcome(order: Order) -> str:
    """Return what became of an order in a sentence."""
    text = f"{order.side} {words.quantity(order.quantity)} {order.symbol}"
    if order.filled_quantity:
        text += (
            f", {words.quantity(order.filled_quantity)} at {words.average(order.execution_price)} on {order.exchange}"
        )
    elif order.price is not None:
        text += f" at {words.price(order.price)}"
    return f"{text} – {order.status.replace('_', ' ')}."


@st.fragment(run_every=REFRESH_S)
def history(feeds: Feeds) -> None:
    """Show what became of the last orders."""
    orders = feeds.account.history[:HISTORY_SHOWN] if feeds.account else []
    st.html(pieces.history(orders, style.palette(st.context.theme.type)))


# -- TWAP orders


@st.fragment(run_every=REFRESH_S)
def twaps(feeds: Feeds) -> None:
    """Show the running and the last TWAP orders: progress, slices, and how they compare."""
    show_told("twaps")
    if not feeds.twaps:
        st.html(pieces.boxed('<div class="sr-muted">No TWAP orders yet.</div>'))
        return
    for number, order in enumerate(feeds.twaps):
        with st.container(key=f"row-twap-{order.order_id}"):
            st.html(pieces.twap_progress(order))
            if order.is_open and st.button("Stop", key=f"stop-{order.order_id}"):
                act("twaps", feeds, partial(_stop, feeds, order))
                st.rerun(scope="fragment")
            with st.expander("Executions", expanded=number == 0, key=f"executions-{order.order_id}"):
                _executions(order)
    st.caption("Slippage: by how much the average is worse than a benchmark; below 0 it is better.")


def _executions(order: TwapOrder) -> None:
    colours = style.palette(st.context.theme.type)
    chart, table = st.columns([3, 2])
    with chart:
        figure = charts.executions(order, colours=colours, revision=order.order_id)
        plot(figure, key=f"executions-chart-{order.order_id}", label="Executions")
    with table:
        st.html(pieces.twap_executions(order, colours))


def _stop(feeds: Feeds, order: TwapOrder) -> str:
    stopped = feeds.ask(feeds.client.stop_twap(order.order_id))
    return f"Stopped after {words.quantity(stopped.executed_quantity)} of {words.quantity(stopped.total_quantity)}."


# -- equity


@st.fragment(run_every=2 * REFRESH_S)
def worth(feeds: Feeds) -> None:
    """Show what the account was worth over time."""
    points = feeds.worths
    if feeds.account is None or not points:
        st.html(pieces.boxed('<div class="sr-muted">Nothing yet: deposit paper money to begin.</div>'))
        return
    now, paid = points[-1].value, feeds.paid_in
    profit = now - paid if paid is not None else None
    share = f"{profit / paid * 100:+.2f} %" if profit is not None and paid else "&nbsp;"
    shown = [
        ("Worth now", f"{words.money(now)} {QUOTE}", "at the middle of the touch"),
        ("Paid in", f"{words.money(paid)} {QUOTE}", "deposits and credits"),
        ("Profit", pieces.signed_money(profit), share),
    ]
    st.html(pieces.facts(shown))
    figure = charts.equity(points, colours=style.palette(st.context.theme.type), revision="equity")
    plot(figure, key="equity-chart", label="Equity over time")
    totals = {balance.asset: balance.total for balance in feeds.account.balances.balances}
    left_out = equity.unpriced(totals, marks(feeds.status))
    note = f" Not priced and left out: {', '.join(left_out)}." if left_out else ""
    st.caption(
        f"All balances in {QUOTE}. While this page is open: at the middle of each touch. Before: rebuilt from the "
        f"ledger, priced by the closes of the candles over all exchanges.{note}"
    )


# -- doing what was asked for


def act(place: str, feeds: Feeds, do: Callable[[], str]) -> None:
    """Do what a person asked for, and keep what there is to tell about it, for `show_told` at this place."""
    try:
        told = ("success", do())
        feeds.refresh()
    except Refused as refused:
        told = ("error", f"Refused: {refused.message}")
    except (RouterError, ValueError) as error:
        told = ("error", explained(error) if isinstance(error, RouterError) else str(error))
    st.session_state[f"told-{place}"] = told


def show_told(place: str) -> None:
    """Show how the last thing asked for here went."""
    kind, text = st.session_state.get(f"told-{place}", ("", ""))
    if kind == "success":
        st.success(text, icon=":material/check_circle:")
    elif kind == "error":
        st.error(text, icon=":material/error:")
