"""An exchange on the real database, with a market that the test sets."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from accounts.models import User
from core.account import Fees, Market, Offer
from core.events import Side
from core.ids import new_uuid
from core.money import to_units
from core.orders import OrderType, Terms
from trading.commands import Command, Deposit, Place
from trading.exchange import Exchange, Witness
from trading.ledger import Outcome

BTC, ETH = "BTC-USDT", "ETH-USDT"


def units(text: str | int) -> int:
    return to_units(Decimal(text))


class Desk:
    """Commands in, results out, one transaction each; the touch is whatever `quote` said last."""

    def __init__(
        self, fees: Fees | None = None, *, new_id: Callable[[], str] = new_uuid, witness: Witness | None = None
    ) -> None:
        self.offers: dict[tuple[str, Side], tuple[Offer, ...]] = {}
        self.dead: set[str] = set()
        self.outcomes: list[Outcome] = []
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.clock_ns = 0
        self._tokens = count(1)
        self.exchange = Exchange(
            self.market,
            takes_part=self.takes_part,
            depth_of=self.depth,
            collar_bps=500,
            fees=fees or Fees(),
            told=self.outcomes.append,
            now=self._tick,
            clock_ns=lambda: self.clock_ns,
            new_id=new_id,
            witness=witness,
        )

    def _tick(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def quote(
        self, *, bid: Sequence[tuple[str, str, str]] = (), ask: Sequence[tuple[str, str, str]] = (), at: str = BTC
    ) -> None:
        """Set the best levels, (price, size, venue) each; a side that is not given has no live venue."""
        self.offers[at, Side.SELL] = tuple(Offer(units(price), units(size), venue) for price, size, venue in bid)
        self.offers[at, Side.BUY] = tuple(Offer(units(price), units(size), venue) for price, size, venue in ask)

    def takes_part(self, instrument: str, venue: str) -> bool:
        return venue not in self.dead

    def market(self, instrument: str, side: Side) -> Market:
        return Market(self.offers.get((instrument, side), ()), {"bid": None, "ask": None})

    def depth(self, instrument: str, side: Side, venue: str) -> Market:
        """Return what a venue shows, or all do: here the levels that `quote` was given are the whole book."""
        market = self.market(instrument, side)
        return Market(tuple(offer for offer in market.offers if venue in ("all", offer.venue)), market.touch)

    def do(self, *commands: Command) -> Any:
        """Run commands in one transaction; return the result, or the results; raise a lone refusal."""
        results, after = self.exchange.apply(commands)
        after()
        if len(commands) > 1:
            return results
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0]

    def trader(self, name: str = "alice", **deposits: str) -> int:
        user = User.objects.create(username=name, password="!")
        for asset, amount in deposits.items():
            self.do(Deposit(user.pk, asset, units(amount)))
        return int(user.pk)

    def order(
        self,
        account_id: int,
        side: str,
        quantity: str,
        price: str | None = None,
        *,
        kind: str = "limit",
        token: str | None = None,
        at: str = BTC,
    ) -> Any:
        terms = Terms(
            token or f"t-{next(self._tokens)}",
            at,
            Side(side),
            OrderType(kind),
            None if price is None else units(price),
            units(quantity),
        )
        return self.do(Place(account_id, terms))
