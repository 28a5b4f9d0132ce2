"""The command `router`: the router from a terminal."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NoReturn

import click
import msgspec
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from router_client import wire
from router_client.background import SyncStream
from router_client.client import DEFAULT_URL, APIClient
from router_client.errors import (
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    Refused,
    RouterError,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from router_client.flows import Retries
from router_client.models import ALL, BestTouch, Order, OrderUpdate, Trade, TwapOrder

EXIT_REFUSED = 1  # the router says no
EXIT_USAGE = 2  # click's own
EXIT_UNREACHABLE = 3
EXIT_CREDENTIALS = 4
EXIT_INTERRUPTED = 130  # the shell's word for Ctrl-C
EXIT_CODES: Sequence[tuple[type[RouterError], int]] = (  # the first that fits
    (Unauthorized, EXIT_CREDENTIALS),
    (ConnectionFailed, EXIT_UNREACHABLE),
    (TooManyRequests, EXIT_UNREACHABLE),
    (ServerError, EXIT_UNREACHABLE),
    (RouterError, EXIT_REFUSED),
)

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
NUMBERS = frozenset(
    {
        "price",
        "quantity",
        "filled",
        "total",
        "available",
        "reserved",
        "fee",
        "last frame",
        "frames/s",
        "reconnects",
        "gaps",
        "slice",
    }
)
IDS = frozenset({"token id"})
WIDTH_OF_FILES = 160  # columns, where the output is no terminal
TRADES_SHOWN = 12
POLL_S = 0.5
ASK_S = 2.0  # how often a TWAP order is asked for where no update tells of it
PATIENT = Retries()
BRISK = Retries(attempts=3)  # a person waits


class Credentials(Struct, omit_defaults=True):
    """What `login` keeps, by the router's address."""

    username: str = ""
    access_token: str = ""
    refresh_token: str = ""
    api_key: str = ""


class Keeper:
    """The file of credentials, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, url: str) -> Credentials:
        return self._all().get(url, Credentials())

    def save(self, url: str, credentials: Credentials | None) -> None:
        known = self._all()
        known.pop(url, None)
        if credentials is not None:
            known[url] = credentials
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.format(wire.encode(known), indent=2))
        new.replace(self.path)

    def _all(self) -> dict[str, Credentials]:
        try:
            return wire.decode(self.path.read_bytes(), dict[str, Credentials])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}


class Terminal(Struct):
    """What the commands share."""

    url: str
    as_json: bool
    keeper: Keeper
    console: Console
    api_key: str | None = None

    @contextmanager
    def client(self, *, retries: Retries = BRISK) -> Iterator[APIClient]:
        """Open a client with the credentials that are kept, and keep the ones that it renewed."""
        kept = self.keeper.load(self.url)
        client = APIClient(
            self.url,
            token=kept.access_token or None,
            refresh_token=kept.refresh_token or None,
            api_key=self.api_key or kept.api_key or None,
            retries=retries,
        )
        try:
            yield client
        finally:
            client.close()
            if client.session.version and client.session.token and kept.access_token:
                self.keep(client)

    def keep(self, client: APIClient) -> None:
        session = client.session
        made = Credentials(session.username or "", session.token or "", session.refresh_token or "")
        self.keeper.save(self.url, made)

    def show(self, value: Any, draw: Callable[[], Any]) -> None:
        """Write a value as JSON where that was asked for, else what `draw` returns."""
        if self.as_json:
            click.echo(msgspec.json.format(wire.encode(value), indent=2).decode())
        else:
            self.console.print(draw())


class Commands(click.Group):
    """Turns the client's errors into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except RouterError as error:
            _give_up(error, as_json="json" in (context.params.get("output"),))
        except (ValueError, TypeError) as error:
            raise click.UsageError(str(error)) from None


def _give_up(error: RouterError, *, as_json: bool) -> NoReturn:
    code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    if as_json:
        body = {"code": error.code, "message": error.message, "detail": error.detail}
        click.echo(wire.encode(body).decode(), err=True)
    else:
        click.echo(f"router: {error}", err=True)
        if isinstance(error, InvalidRequest) and len(error.problems) > 1:
            for problem in error.problems:
                click.echo(f"  {problem}", err=True)
        hint = _hint(error)
        if hint:
            click.echo(f"  {hint}", err=True)
    sys.exit(code)


def _hint(error: RouterError) -> str:
    if isinstance(error, Unauthorized):
        return "log in first: router login NAME, or router register NAME"
    if isinstance(error, ConnectionFailed):
        return "is it running? --url or ROUTER_URL say where"
    if isinstance(error, NotFound):
        return "router orders lists your orders"
    if isinstance(error, Refused) and error.code == "insufficient_funds":
        return "router balance shows what you have; router deposit adds paper money"
    return ""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", envvar="ROUTER_URL", default=DEFAULT_URL, show_default=True, help="Where the router is.")
@click.option("--api-key", envvar="ROUTER_API_KEY", help="Use this key instead of a log-in.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="What to write.")
@click.version_option(package_name="router-client")
@click.pass_context
def main(context: click.Context, url: str, api_key: str | None, output: str) -> None:
    """Look at the router's market, and trade on its paper exchange.

    Exit codes: 1 the router refuses, 2 wrong usage, 3 it cannot be reached, 4 not logged in, 130 interrupted.
    """
    folder = Path(os.environ.get("ROUTER_CONFIG_DIR") or click.get_app_dir("router-client"))
    keeper = Keeper(folder / "credentials.json")
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    context.obj = Terminal(url.rstrip("/"), output == "json", keeper, console, api_key)


passes = click.make_pass_decorator(Terminal)


class Amount(click.ParamType[Decimal]):
    """An exact number."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            return wire.exact(value, param.human_readable_name if param else "amount")
        except (ValueError, TypeError) as error:
            self.fail(str(error), param, ctx)


AMOUNT = Amount()
ORDER_TYPE = click.Choice(["limit", "market", "ioc"])
SIDE = click.Choice(["buy", "sell"])


# -- the router


@main.command()
@passes
def status(terminal: Terminal) -> None:
    """How the exchanges and the symbols fare."""
    with terminal.client() as client:
        state = client.status()

    def draw() -> Group:
        table = _table("exchange", "state", "last frame", "frames/s", "reconnects", "gaps")
        for name, venue in state.exchanges.items():
            colour = "green" if venue.live else "red"
            age = "–" if venue.last_frame_age is None else f"{venue.last_frame_age:.1f} s"
            words = f"[{colour}]{venue.state}[/] {venue.reason}"
            rate = f"{venue.frames_per_second:.0f}"
            table.add_row(name, words, age, rate, str(venue.reconnects), str(venue.gaps))
        return Group(_banner(state.simulated, state.version), table)

    terminal.show(state, draw)


@main.command()
@passes
def info(terminal: Terminal) -> None:
    """What is served: pairs, exchanges, streams."""
    with terminal.client() as client:
        served = client.info()

    def draw() -> Group:
        table = Table(show_header=False, box=None, pad_edge=False)
        for name in ("pairs", "assets", "exchanges", "kline_intervals", "streams", "order_types"):
            table.add_row(name, ", ".join(getattr(served, name)))
        return Group(_banner(served.simulated, served.version), table)

    terminal.show(served, draw)


# -- who you are


@main.command()
@click.argument("username")
@click.option("--password", envvar="ROUTER_PASSWORD", prompt=True, hide_input=True, confirmation_prompt=True)
@passes
def register(terminal: Terminal, username: str, password: str) -> None:
    """Make a user and log in."""
    with terminal.client() as client:
        tokens = client.register(username, password)
        terminal.keep(client)
    terminal.show({"username": tokens.username}, lambda: f"registered and logged in as {tokens.username}")


@main.command()
@click.argument("username")
@click.option("--password", envvar="ROUTER_PASSWORD", prompt=True, hide_input=True)
@passes
def login(terminal: Terminal, username: str, password: str) -> None:
    """Log in; the token is kept for the next commands."""
    with terminal.client() as client:
        tokens = client.login(username, password)
        terminal.keep(client)
    terminal.show({"username": tokens.username}, lambda: f"logged in as {tokens.username}")


@main.command()
@passes
def logout(terminal: Terminal) -> None:
    """Forget the token."""
    terminal.keeper.save(terminal.url, None)
    terminal.show({"status": "ok"}, lambda: "logged out")


# -- the account


@main.command()
@click.option("--all", "everything", is_flag=True, help="Also what you have nothing of.")
@passes
def balance(terminal: Terminal, everything: bool) -> None:
    """What you have."""
    with terminal.client() as client:
        found = client.balance()

    def draw() -> Table:
        table = _table("asset", "total", "available", "reserved")
        for row in found.balances:
            if row.total or everything:
                table.add_row(row.asset, *map(wire.plain, (row.total, row.available, row.reserved)))
        return table

    terminal.show(found, draw)


@main.command()
@click.argument("asset")
@click.argument("amount", type=AMOUNT)
@passes
def deposit(terminal: Terminal, asset: str, amount: Decimal) -> None:
    """Add paper money, such as: deposit USDT 10000."""
    with terminal.client() as client:
        made = client.deposit(asset, amount)
    terminal.show(made, lambda: f"{wire.plain(made.amount)} {made.asset} in, now {wire.plain(made.new_balance)}")


# -- orders


@main.command()
@click.argument("side", type=SIDE)
@click.argument("symbol")
@click.argument("quantity", type=AMOUNT)
@click.argument("price", type=AMOUNT, required=False)
@click.option(
    "--type", "order_type", type=click.Choice(["limit", "market", "ioc"]), help="[limit, or market without a price]"
)
@click.option("--token-id", help="Your own name for it; one is made if absent.")
@passes
def order(
    terminal: Terminal,
    side: str,
    symbol: str,
    quantity: Decimal,
    price: Decimal | None,
    order_type: str | None,
    token_id: str | None,
) -> None:
    """Place an order, such as: order buy BTCUSDT 0.01 95000."""
    kind = order_type or ("market" if price is None else "limit")
    with terminal.client(retries=PATIENT) as client:
        placed = client.place_order(symbol, side, quantity, price, order_type=kind, token_id=token_id)
    terminal.show(placed, lambda: _orders([placed]))


@main.command()
@click.argument("token_id")
@click.option("--price", type=AMOUNT)
@click.option("--quantity", type=AMOUNT)
@passes
def amend(terminal: Terminal, token_id: str, price: Decimal | None, quantity: Decimal | None) -> None:
    """Change the price or quantity of an open order."""
    if price is None and quantity is None:
        raise click.UsageError("say --price or --quantity")
    with terminal.client(retries=PATIENT) as client:
        changed = client.amend_order(token_id, price=price, quantity=quantity)
    terminal.show(changed, lambda: _orders([changed]))


@main.command()
@click.argument("token_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Cancel all open orders.")
@click.option("--symbol", help="With --all: only those of this symbol.")
@passes
def cancel(terminal: Terminal, token_ids: Sequence[str], everything: bool, symbol: str | None) -> None:
    """End open orders."""
    if bool(token_ids) == everything:
        raise click.UsageError("name the orders, or say --all")
    with terminal.client(retries=PATIENT) as client:
        ended = client.cancel_all(symbol) if everything else [client.cancel_order(one) for one in token_ids]
    terminal.show(ended, lambda: _orders(ended) if ended else "nothing was open")


@main.command()
@click.option("--status", type=click.Choice(["open", "filled", "partially_filled", "cancelled", "rejected"]))
@click.option("--symbol")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@passes
def orders(terminal: Terminal, status: str | None, symbol: str | None, limit: int) -> None:
    """Your orders, newest first."""
    with terminal.client() as client:
        page = client.orders(status=status, symbol=symbol, limit=limit)
    terminal.show(page, lambda: _orders(page.orders) if page.orders else "no orders")


@main.command()
@click.option("--symbol")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--csv", "as_csv", is_flag=True, help="All of them, as CSV.")
@passes
def fills(terminal: Terminal, symbol: str | None, limit: int, as_csv: bool) -> None:
    """Your executions, newest first."""
    with terminal.client() as client:
        if as_csv:
            click.echo(client.fills_csv(), nl=False)
            return
        page = client.fills(symbol=symbol, limit=limit)

    def draw() -> Any:
        table = _table("time", "symbol", "side", "quantity", "price", "exchange", "fee", "token id")
        for fill in page.fills:
            table.add_row(
                f"{fill.executed_at:%Y-%m-%d %H:%M:%S}", fill.symbol, _side(fill.side), wire.plain(fill.quantity),
                wire.plain(fill.price), fill.exchange, f"{wire.plain(fill.fee)} {fill.fee_asset}", fill.token_id,
            )  # fmt: skip
        return table if page.fills else "no fills"

    terminal.show(page, draw)


@main.command()
@click.argument("side", type=SIDE)
@click.argument("symbol")
@click.argument("quantity", type=AMOUNT)
@click.option("--seconds", type=AMOUNT, required=True, help="Over how long.")
@click.option("--slices", type=click.IntRange(1), required=True, help="In how many executions.")
@click.option("--limit", "limit_price", type=AMOUNT, help="No slice at a worse price.")
@click.option("--exchange", default=ALL, show_default=True)
@click.option("--token-id")
@click.option("--no-wait", is_flag=True, help="Only start it.")
@passes
def twap(
    terminal: Terminal, side: str, symbol: str, quantity: Decimal, seconds: Decimal, slices: int,
    limit_price: Decimal | None, exchange: str, token_id: str | None, no_wait: bool,
) -> None:  # fmt: skip
    """Execute in equal slices over a time, and watch it.

    Ctrl-C asks on a terminal whether to stop the order, else leaves it running: `router show` tells how far it is,
    `router cancel` stops it.
    """
    with terminal.client(retries=PATIENT) as client:
        placed = client.place_twap(
            symbol, side, quantity, duration_seconds=seconds, slices=slices, limit_price=limit_price,
            exchange=exchange, token_id=token_id,
        )  # fmt: skip
        if not no_wait:
            try:
                placed = _follow(terminal, client, placed)
            except KeyboardInterrupt:
                placed = _leave(client, placed)
    terminal.show(placed, lambda: _twap(placed))


@main.command()
@click.argument("token_id")
@passes
def show(terminal: Terminal, token_id: str) -> None:
    """One order; of a TWAP order how far it is, and what each slice did."""
    with terminal.client() as client:
        found: Order | TwapOrder = client.order(token_id)
        if isinstance(found, Order) and found.order_type == "twap":
            found = client.twap(token_id)
    terminal.show(found, lambda: _twap(found) if isinstance(found, TwapOrder) else _orders([found]))


def _follow(terminal: Terminal, client: APIClient, running: TwapOrder) -> TwapOrder:
    """Show how far the order is until it has ended; updates tell of it, and where they do not it is asked for."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), disable=terminal.as_json)
    with progress, client.order_updates() as updates:
        running = client.twap(running.order_id)  # the first slice came before the updates began
        task = progress.add_task(f"{running.side} {running.symbol}", total=100.0, words="")
        while True:
            words = f"{running.slices_executed}/{running.slices} slices"
            progress.update(task, completed=float(running.percent_executed), words=words)
            if not running.is_open:
                return client.twap(running.order_id)
            running = _news(updates, client, running)


def _news(updates: SyncStream[OrderUpdate], client: APIClient, running: TwapOrder) -> TwapOrder:
    try:
        update = updates.next(ASK_S)
    except TimeoutError:
        return client.twap(running.order_id)
    is_ours = update.twap is not None and update.twap.order_id == running.order_id
    return update.twap if is_ours and update.twap is not None else running


def _leave(client: APIClient, order: TwapOrder) -> TwapOrder:
    """Stop the order where a person says so; otherwise leave it running, and say how to get back to it."""
    click.echo(err=True)
    if sys.stdin.isatty() and click.confirm("Stop the order?", err=True):
        return client.stop_twap(order.order_id)
    click.echo(f"router: {order.token_id} goes on; router show or router cancel {order.token_id}", err=True)
    sys.exit(EXIT_INTERRUPTED)


def _twap(order: TwapOrder) -> Group:
    price = "–" if order.average_price is None else wire.plain(order.average_price)
    done = f"{wire.plain(order.executed_quantity)} of {wire.plain(order.total_quantity)}"
    lines = [f"{order.token_id}: {order.status}, {done} {order.symbol} at {price} on average"]
    for name, benchmark, slippage in (
        ("the market on arrival", order.arrival_price, order.slippage_arrival_bps),
        ("the market over its time", order.market_twap, order.slippage_twap_bps),
    ):
        if benchmark is not None and slippage is not None:
            lines.append(f"{name} {wire.plain(benchmark)}, slippage {wire.plain(slippage)} basis points")
    table = _table("slice", "due", "executed", "quantity", "price", "exchange")
    for one in order.executions:
        table.add_row(
            str(one.slice), _moment(one.scheduled_at), _moment(one.executed_at), wire.plain(one.quantity),
            _number(one.price), one.exchange or "–",
        )  # fmt: skip
    return Group(*lines, table) if order.executions else Group(*lines)


# -- the market, live


@main.command()
@click.argument("symbol")
@click.option("--exchange", default=ALL, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after so long.")
@passes
def watch(terminal: Terminal, symbol: str, exchange: str, seconds: float | None) -> None:
    """The touch and the trades of a symbol, live; with -o json one item a line."""
    end = None if seconds is None else time.monotonic() + seconds
    with (
        terminal.client(retries=PATIENT) as client,
        client.best_touch(symbol, exchange) as touches,
        client.trades(symbol, exchange) as trades,
        Live(console=terminal.console, auto_refresh=False, transient=False) as live,
    ):
        if terminal.as_json:
            live.stop()
        colour_of = _Colours(client.exchanges())
        touch: BestTouch | None = None
        seen: list[Trade] = []
        while end is None or time.monotonic() < end:
            news = _next(touches, POLL_S / 5)
            touch = news or touch
            new_trades = []
            while (trade := _next(trades, 0.001)) is not None:
                new_trades.append(trade)
            if terminal.as_json:
                for item in (news, *new_trades):
                    if item is not None:
                        click.echo(wire.encode({"type": type(item).__name__, **msgspec.structs.asdict(item)}))
                continue
            seen = [*reversed(new_trades), *seen][:TRADES_SHOWN]
            if news is not None or new_trades:
                live.update(_board(symbol, touch, seen, colour_of), refresh=True)


class _Colours:
    """One colour for each exchange."""

    def __init__(self, exchanges: Sequence[str]) -> None:
        self._of = dict(zip(exchanges, COLOURS * (len(exchanges) // len(COLOURS) + 1), strict=False))

    def __call__(self, exchange: str | None) -> Text:
        return Text(exchange or "–", style=self._of.get(exchange or "", ""))


def _next(stream: Any, timeout_s: float) -> Any:
    try:
        return stream.next(timeout_s)
    except TimeoutError:
        return None


def _board(symbol: str, touch: BestTouch | None, trades: Sequence[Trade], colour_of: _Colours) -> Group:
    quotes = _table("", "price", "quantity", "exchange", title=symbol)
    if touch is not None:
        for name, price, quantity, exchange in (
            ("ask", touch.best_ask, touch.best_ask_qty, touch.best_ask_exchange),
            ("bid", touch.best_bid, touch.best_bid_qty, touch.best_bid_exchange),
        ):
            quotes.add_row(_side(name), _number(price), _number(quantity), colour_of(exchange))
        quotes.caption = f"spread {_number(touch.spread)}"
    prints = _table("time", "side", "price", "quantity", "exchange", title="trades")
    for trade in trades:
        moment = time.strftime("%H:%M:%S", time.localtime(trade.timestamp))
        prints.add_row(
            moment, _side(trade.side), _number(trade.price), _number(trade.quantity), colour_of(trade.exchange)
        )  # fmt: skip
    return Group(quotes, prints)


# -- words and tables


def _banner(simulated: bool, version: str) -> str:
    market = "[bold red]simulated market: no price is real[/]" if simulated else "live market"
    return f"Simple Router {version}, paper trading, {market}"


def _table(*columns: str, title: str = "") -> Table:
    table = Table(title=title or None, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in NUMBERS else "left"
        # The one to be copied is never cut off.
        table.add_column(column, justify=justify, no_wrap=column not in IDS, overflow="fold")
    return table


def _orders(found: Sequence[Order]) -> Table:
    table = _table("symbol", "side", "type", "price", "quantity", "filled", "status", "exchange", "token id")
    for one in found:
        table.add_row(
            one.symbol, _side(one.side), one.order_type, _number(one.price), _number(one.quantity),
            _number(one.filled_quantity), one.status, one.exchange or "–", one.token_id,
        )  # fmt: skip
    return table


def _moment(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment.astimezone():%H:%M:%S.%f}"[:-3]


def _side(side: str) -> Text:
    return Text(side, style="green" if side in ("buy", "bid") else "red")


def _number(value: Decimal | None) -> str:
    return "–" if value is None else wire.plain(value)


if __name__ == "__main__":
    main()
