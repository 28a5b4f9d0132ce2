from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from core.events import Quote, Side
from core.touch import EMPTY, Best, Touch, TouchBoard

VENUES = ("binance", "okx", "kraken")
PRICES = st.integers(1, 6).map(Decimal)
SIZES = st.integers(1, 3).map(Decimal)


def quote(bid: str | None, ask: str | None, size: str = "1") -> Quote:
    return Quote(
        bid and Decimal(bid), Decimal(size) if bid else None, ask and Decimal(ask), Decimal(size) if ask else None
    )


def live_board() -> TouchBoard:
    board = TouchBoard(VENUES)
    for venue in VENUES:
        board.set_live(venue, True)
    return board


def test_each_side_is_attributed_to_the_venue_that_shows_it() -> None:
    board = live_board()
    board.quote("binance", quote("99", "102", "1"), 1)
    board.quote("okx", quote("100", "103", "2"), 2)

    assert board.touch == Touch(Best(Decimal(100), Decimal(2), "okx", 2), Best(Decimal(102), Decimal(1), "binance", 1))


def test_a_venue_that_is_not_live_is_not_in_the_touch_and_comes_back_empty() -> None:
    board = live_board()
    board.quote("okx", quote("100", "101"), 1)

    assert board.set_live("okx", False)
    assert board.touch == EMPTY
    assert not board.quote("okx", quote("100", "101"), 2)
    assert not board.set_live("okx", True)
    assert board.touch == EMPTY
    assert board.quote("okx", quote("100", "101"), 3)


def test_a_touch_crossed_across_venues_is_reported_as_it_is() -> None:
    board = live_board()
    board.quote("binance", quote("100", "101"), 1)
    board.quote("kraken", quote("102", "103"), 1)

    assert board.touch.bid is not None
    assert board.touch.ask is not None
    assert board.touch.bid.price > board.touch.ask.price


def test_at_equal_prices_the_larger_size_is_shown_then_the_one_shown_longer() -> None:
    board = live_board()
    board.quote("binance", quote("100", "101", "1"), 5)
    board.quote("okx", quote("100", "101", "2"), 6)
    assert board.touch.bid is not None
    assert board.touch.bid.venue == "okx"
    board.quote("kraken", quote("100", "101", "2"), 4)
    assert board.touch.bid.venue == "kraken"
    assert [best.venue for best in board.at_best(Side.BUY)] == ["kraken", "okx", "binance"]


def test_a_repeated_quote_is_no_news() -> None:
    board = live_board()
    board.quote("okx", quote("100", "101"), 1)
    before = board.venue_touch("okx")

    assert not board.quote("okx", quote("100", "101"), 9)
    assert board.venue_touch("okx") is before


sides = st.one_of(st.none(), st.tuples(PRICES, SIZES))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("quote"), st.sampled_from(VENUES), st.tuples(sides, sides)),
        st.tuples(st.just("live"), st.sampled_from(VENUES), st.booleans()),
    ),
    max_size=60,
)


@given(steps)
def test_the_touch_is_the_best_of_the_live_venues_after_any_order_of_updates_stalls_and_recoveries(steps) -> None:
    board = TouchBoard(VENUES)
    live: set[str] = set()
    slots: dict[str, dict[str, tuple[Decimal, Decimal, int]]] = {venue: {} for venue in VENUES}  # side → what, since
    for now, (kind, venue, value) in enumerate(steps):
        before = board.touch
        if kind == "live":
            changed = board.set_live(venue, value)
            if value:
                live.add(venue)
            else:
                live.discard(venue)
                slots[venue] = {}
        else:
            bid, ask = value
            made = Quote(*(bid or (None, None)), *(ask or (None, None)))
            changed = board.quote(venue, made, now)
            if venue in live:
                old, slots[venue] = slots[venue], {}
                for side, told in (("bid", bid), ("ask", ask)):
                    if told is not None:
                        since = old[side][2] if side in old and old[side][:2] == told else now
                        slots[venue][side] = (*told, since)

        def best(side: str, sign: int) -> Best | None:
            rows = [
                (-sign * slot[side][0], -slot[side][1], slot[side][2], order, name, slot[side])
                for order, (name, slot) in enumerate(slots.items())
                if side in slot
            ]
            if not rows:
                return None
            *_, name, (price, size, since) = min(rows)
            return Best(price, size, name, since)

        assert board.touch == Touch(best("bid", 1), best("ask", -1))
        assert changed == (board.touch != before)
