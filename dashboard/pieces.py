"""Data → HTML: the touch, the ladder, the tape, tables. Pure; everything that others wrote is escaped."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape

from router_client import (
    Balance,
    Balances,
    BestTouch,
    Fill,
    Level,
    Order,
    OrderBook,
    Status,
    Trade,
    TwapOrder,
    VenueStatus,
)

from dashboard import words
from dashboard.charts import cumulated
from dashboard.state import QUOTE, middle
from dashboard.style import Palette, venue_chip

LEVELS_SHOWN = 10
TRADES_SHOWN = 16
SLICES_SHOWN = 100
BPS = 10_000
NOBODY = "no exchange is live"


def boxed(body: str) -> str:
    return f'<div class="sr">{body}</div>'


def title(text: str, note: str = "") -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    return boxed(f'<span class="sr-title">{escape(text)}{small}</span>')


def name(text: str) -> str:
    return boxed(f'<span class="sr-muted">{escape(text)}</span>')


def simulated_banner() -> str:
    return boxed(
        '<div class="sr-banner warning" role="status"><b>SIMULATED MARKET</b> – no price here is real. '
        "The router serves its built-in market instead of the exchanges.</div>"
    )


def lost_banner(url: str, reason: str) -> str:
    return boxed(
        f'<div class="sr-banner lost" role="alert" title="{escape(reason, quote=True)}">Connection to the router lost. '
        f"What you see is the last that came from {escape(url)}. Trying again by itself …</div>"
    )


def touch_strip(
    touch: BestTouch | None, last: Trade | None, status: Status | None, symbol: str, colours: Palette
) -> str:
    """Return the best bid and ask, the spread, the last trade and the exchanges' lights.

    Without a status nothing is known of the exchanges now.
    """
    bid, ask = (touch.best_bid, touch.best_ask) if touch else (None, None)
    spread = touch.spread if touch else None
    mid = middle(bid, ask)
    share = f"{spread / mid * BPS:.2f} bps" if spread is not None and mid else ""
    cards = [
        _card(
            "Best bid",
            f'<span class="sr-up" data-testid="best-bid">{words.price(bid)}</span>',
            _shown(touch.best_bid_qty, touch.best_bid_exchange, colours) if touch and bid is not None else NOBODY,
        ),
        _card(
            "Best ask",
            f'<span class="sr-down" data-testid="best-ask">{words.price(ask)}</span>',
            _shown(touch.best_ask_qty, touch.best_ask_exchange, colours) if touch and ask is not None else NOBODY,
        ),
        _card("Spread", words.quantity(spread), f"{share} · middle {words.average(mid)}" if share else "&nbsp;"),
        _last_trade(last, colours),
        f'<div class="sr-card wide"><h4>Exchanges</h4>{lights(status, symbol, colours)}</div>',
    ]
    return boxed(f'<div class="sr-strip">{"".join(cards)}</div>')


def lights(status: Status | None, symbol: str, colours: Palette) -> str:
    """Return a light for each exchange: whether it is live, and how old its last frame is."""
    if status is None:
        return '<div class="sr-muted">not known</div>'
    each = "".join(_light(name, venue, symbol, colours) for name, venue in status.exchanges.items())
    return f'<div class="sr-lights">{each}</div>'


def ladder(book: OrderBook | None, colours: Palette) -> str:
    """Return the book's best levels, asks above bids; a bar in the exchange's colour shows what stands before each."""
    if book is None:
        return boxed('<div class="sr-muted">Waiting for the book …</div>')
    bids, asks = book.bids[:LEVELS_SHOWN], book.asks[:LEVELS_SHOWN]
    sums_bid, sums_ask = cumulated(bids), cumulated(asks)
    most = max([*sums_bid[-1:], *sums_ask[-1:], Decimal(0)]) or Decimal(1)
    rows = [
        *reversed([_level(*one, most, "sr-down", book.exchange, colours) for one in zip(asks, sums_ask, strict=True)]),
        _between(bids, asks),
        *(_level(*one, most, "sr-up", book.exchange, colours) for one in zip(bids, sums_bid, strict=True)),
    ]
    head = "<tr><th>Price</th><th>Quantity</th><th>Total</th><th>Exchange</th></tr>"
    return boxed(f'<table aria-label="Order book">{head}{"".join(rows)}</table>')


def tape(trades: Sequence[Trade], colours: Palette) -> str:
    """Return the last trades, newest first, in the colour of their taker's side."""
    if not trades:
        return boxed('<div class="sr-muted">Waiting for a trade …</div>')
    rows = "".join(
        f'<tr><td class="sr-muted">{words.clock(trade.timestamp)}</td>'
        f'<td class="sr-{"up" if trade.side == "buy" else "down"}">{words.price(trade.price)}</td>'
        f"<td>{words.size(trade.quantity)}</td><td>{venue_chip(trade.exchange, colours)}</td></tr>"
        for trade in trades[:TRADES_SHOWN]
    )
    head = "<tr><th>Time (UTC)</th><th>Price</th><th>Quantity</th><th>Exchange</th></tr>"
    return boxed(f'<table aria-label="Trades">{head}{rows}</table>')


def balances(held: Balances, prices: dict[str, Decimal]) -> str:
    """Return what the account has of each asset, the quote asset first; those of nothing are left out."""
    shown = [one for one in held.balances if one.total or one.asset == QUOTE]
    shown.sort(key=lambda one: (one.asset != QUOTE, one.asset))
    rows = "".join(_balance(one, prices.get(one.asset)) for one in shown)
    return boxed(f'<table class="lines" aria-label="Balances">{rows}</table>')


def history(orders: Iterable[Order], colours: Palette) -> str:
    """Return orders with their fills, newest first."""
    rows = "".join(_order_row(order, colours) for order in orders)
    if not rows:
        return boxed('<div class="sr-muted">No orders yet.</div>')
    head = (
        "<tr><th>Time (UTC)</th><th class='left'>Order</th><th class='left'>Pair</th><th>Quantity</th><th>Limit</th>"
        "<th>Filled</th><th>Average</th><th class='left'>Exchange</th><th class='left'>Status</th>"
        "<th class='left'>Fills</th></tr>"
    )
    return boxed(f'<div class="scroll"><table class="lines" aria-label="Order history">{head}{rows}</table></div>')


def open_order(order: Order) -> str:
    """Return one line about an open order."""
    return boxed(
        f"{_side(order.side)} <b>{words.quantity(order.quantity)} {escape(order.symbol)}</b> "
        f"at <b>{words.price(order.price)}</b> "
        f'<span class="sr-muted">· {escape(order.order_type)} · {words.day_and_clock(order.created_at)} · '
        f"{escape(order.token_id)}</span>"
    )


def twap_progress(order: TwapOrder) -> str:
    """Return how far a TWAP order is, and how well it fares."""
    percent = max(Decimal(0), min(Decimal(100), order.percent_executed))
    limit = f", limit {words.average(order.limit_price)}" if order.limit_price is not None else ""
    head = (
        f"{_side(order.side)} <b>{words.quantity(order.total_quantity)} {escape(order.symbol)}</b> "
        f'<span class="sr-muted">on {escape(order.exchange)} in {words.quantity(order.duration_seconds)} s{limit} · '
        f"{words.day_and_clock(order.created_at)}</span> {_status(order.status)}"
    )
    missed = f"{order.slices_missed} missed" if order.slices_missed else "&nbsp;"
    shown = [
        ("Executed", words.percent(order.percent_executed), words.quantity(order.executed_quantity)),
        ("Slices", f"{order.slices_executed} of {order.slices}", missed),
        ("Average price", words.average(order.average_price), "&nbsp;"),
        ("Arrival price", words.average(order.arrival_price), _slippage(order.slippage_arrival_bps)),
        ("Market TWAP", words.average(order.market_twap), _slippage(order.slippage_twap_bps)),
    ]
    return boxed(
        f'{head}<div class="sr-bar" style="margin-top:.5rem" role="progressbar" aria-label="Executed" '
        f'aria-valuenow="{percent:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<div style="width:{percent:.2f}%"></div></div><div class="sr-facts">{_facts(shown)}</div>'
    )


def twap_executions(order: TwapOrder, colours: Palette) -> str:
    """Return a TWAP order's last slices, the newest first."""
    rows = "".join(
        f"<tr><td>{one.slice + 1}</td><td>{words.clock(one.scheduled_at)}</td><td>{words.clock(one.executed_at)}</td>"
        f"<td>{words.quantity(one.quantity)}</td><td>{words.average(one.price)}</td>"
        f"<td>{venue_chip(one.exchange, colours)}</td></tr>"
        for one in reversed(order.executions[-SLICES_SHOWN:])
    )
    if not rows:
        return boxed('<div class="sr-muted">Nothing executed yet.</div>')
    head = "<tr><th>Slice</th><th>Due</th><th>Executed</th><th>Quantity</th><th>Price</th><th>Exchange</th></tr>"
    return boxed(f'<div class="scroll tall"><table class="lines" aria-label="Slices">{head}{rows}</table></div>')


def facts(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Return named values, each with a note."""
    return boxed(f'<div class="sr-facts" style="margin-top:0">{_facts(pairs)}</div>')


def signed_money(value: Decimal | None) -> str:
    """Return an amount of the quote asset with its sign, in its colour."""
    if value is None:
        return words.NONE
    tone, sign = ("up", "+") if value >= 0 else ("down", "")
    return f'<span class="sr-{tone}">{sign}{words.money(value)} {QUOTE}</span>'


# -- the pieces of pieces


def _facts(pairs: Iterable[tuple[str, str, str]]) -> str:
    return "".join(
        f"<div><h5>{name}</h5><span>{value}</span><small>{note}</small></div>" for name, value, note in pairs
    )


def _card(name: str, big: str, small: str) -> str:
    return f'<div class="sr-card"><h4>{name}</h4><div class="big">{big}</div><div class="sub">{small}</div></div>'


def _shown(quantity: Decimal | None, venue: str | None, colours: Palette) -> str:
    return f"{words.size(quantity)} on {venue_chip(venue, colours)}"


def _last_trade(last: Trade | None, colours: Palette) -> str:
    if last is None:
        return _card("Last trade", words.NONE, "&nbsp;")
    direction = "up" if last.side == "buy" else "down"
    big = f'<span class="sr-{direction}">{words.price(last.price)}</span>'
    return _card("Last trade", big, _shown(last.quantity, last.exchange, colours))


def _light(name: str, venue: VenueStatus, symbol: str, colours: Palette) -> str:
    if venue.live and venue.pairs and symbol not in venue.pairs:
        colour, told = colours.muted, "not carried"
    elif venue.live:
        colour, told = colours.up, words.age(venue.last_frame_age)
    else:
        colour, told = colours.down, venue.state
    hint = escape(f"{name}: {venue.state} {venue.reason}".strip(), quote=True)
    return (
        f'<div class="sr-light" title="{hint}" aria-label="{hint}">'
        f'<span class="sr-dot" style="background:{colour}"></span>'
        f'<span style="color:{colours.venue(name)};font-weight:600">{escape(name)}</span>'
        f'<span class="sr-muted">{escape(told)}</span></div>'
    )


def _balance(held: Balance, price: Decimal | None) -> str:
    """Return an asset's total, what of it is free, and what it is worth."""
    worth = f"≈ {words.money(held.total * price)} {QUOTE}" if price is not None and held.asset != QUOTE else ""
    return (
        f'<tr><td><b>{escape(held.asset)}</b><div class="sr-muted">{worth or "&nbsp;"}</div></td>'
        f'<td><b data-testid="total-{escape(held.asset)}">{words.quantity(held.total)}</b>'
        f'<div class="sr-muted">{words.quantity(held.available)} available</div>'
        f'<div class="sr-muted">{words.quantity(held.reserved)} reserved</div></td></tr>'
    )


def _level(level: Level, total: Decimal, most: Decimal, tone: str, exchange: str, colours: Palette) -> str:
    venue = level.exchange or exchange
    width = total / most * 100
    bar = f"background:linear-gradient(to left,{colours.venue(venue)}2b {width:.1f}%,transparent {width:.1f}%)"
    return (
        f'<tr style="{bar}"><td class="{tone}">{words.price(level.price)}</td><td>{words.size(level.quantity)}</td>'
        f'<td class="sr-muted">{words.size(total)}</td><td>{venue_chip(venue, colours)}</td></tr>'
    )


def _between(bids: Sequence[Level], asks: Sequence[Level]) -> str:
    if not bids or not asks:
        return '<tr class="middle"><td colspan="4" class="sr-muted">one side is empty</td></tr>'
    spread = asks[0].price - bids[0].price
    return (
        f'<tr class="middle"><td><b>{words.average(middle(bids[0].price, asks[0].price))}</b></td>'
        f'<td colspan="3" class="sr-muted">spread {words.quantity(spread)}</td></tr>'
    )


def _order_row(order: Order, colours: Palette) -> str:
    kind = f"{_side(order.side)} {escape(order.order_type)}"
    limit = words.average(order.price) if _shows_its_limit(order) else words.NONE
    venue = venue_chip(order.exchange, colours) if order.exchange else words.NONE
    reason = f' <span class="sr-muted">{escape(order.reason.replace("_", " "))}</span>' if order.reason else ""
    return (
        f'<tr><td class="sr-muted">{words.day_and_clock(order.created_at)}</td><td class="left">{kind}</td>'
        f'<td class="left"><b>{escape(order.symbol)}</b></td><td>{words.quantity(order.quantity)}</td><td>{limit}</td>'
        f"<td>{words.quantity(order.filled_quantity)}</td><td>{words.average(order.execution_price)}</td>"
        f'<td class="left">{venue}</td><td class="left">{_status(order.status)}{reason}</td>'
        f'<td class="left">{_fills(order.fills)}</td></tr>'
    )


def _shows_its_limit(order: Order) -> bool:
    """Whether `price` is the limit: of a filled market or ioc order it is what it cost."""
    return order.order_type in ("limit", "twap") or (order.order_type == "ioc" and order.status != "filled")


def _fills(fills: Sequence[Fill]) -> str:
    if not fills:
        return words.NONE
    lines = "".join(
        f"<div>{words.clock(fill.executed_at)} · {words.quantity(fill.quantity)} at {words.price(fill.price)} on "
        f"{escape(fill.exchange)} · fee {words.quantity(fill.fee)} {escape(fill.fee_asset)} · "
        f"{escape(fill.rule.replace('_', ' '))}</div>"
        for fill in fills
    )
    return f"<details><summary>{len(fills)}</summary>{lines}</details>"


def _side(side: str) -> str:
    return f'<b class="sr-{"up" if side == "buy" else "down"}">{escape(side.capitalize())}</b>'


def _status(status: str) -> str:
    return f'<span class="sr-status">{escape(status.replace("_", " "))}</span>'


def _slippage(value: Decimal | None) -> str:
    return f"{words.bps(value)} slippage" if value is not None else "&nbsp;"
