from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import Quote, Side
from core.touch import EMPTY, OUTLIER_SHARE, Best, Touch, TouchBoard
from tests.core.outliers import Outliers

VENUES = ("binance", "okx", "kraken")
MORE_VENUES = (*VENUES, "bybit", "gate")
PRICES = st.sampled_from((1, 90, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 110, 9_000)).map(Decimal)
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


def test_a_venue_that_strays_from_two_others_is_set_aside_until_it_is_near_again() -> None:
    board = live_board()
    board.quote("binance", quote("100", "101"), 1)
    board.quote("kraken", quote("99", "100"), 2)
    touch = board.touch

    assert not board.quote("okx", quote("150", "151"), 3)
    assert board.touch is touch
    assert set(board.aside) == {"okx"}
    assert board.in_play("okx") == EMPTY
    assert board.venue_touch("okx") == Touch(Best(Decimal(150), 1, "okx", 3), Best(Decimal(151), 1, "okx", 3))
    board.quote("okx", quote("103.5", "104"), 4)  # the middle is 100: this would be believed of a venue that is
    assert set(board.aside) == {"okx"}
    assert board.quote("okx", quote("102", "103"), 5)
    assert not board.aside
    assert board.touch.bid == Best(Decimal(102), 1, "okx", 5)
    assert board.times_aside == {"okx": 1}


@pytest.mark.parametrize("factor", ["0.001", "0.5", "0.9", "1.1", "1.5", "1000"])
@pytest.mark.parametrize("liar", VENUES)
def test_who_lies_is_found_whichever_way_and_whoever_quotes_first(liar: str, factor: str) -> None:
    for first in VENUES:
        board = live_board()
        for venue in (first, *(other for other in VENUES if other != first)):
            share = Decimal(factor) if venue == liar else Decimal(1)
            board.quote(venue, Quote(100 * share, Decimal(1), 101 * share, Decimal(1)), 1)
        assert set(board.aside) == {liar}
        for side in (board.touch.bid, board.touch.ask):
            assert side is not None
            assert side.venue != liar
            assert liar not in [best.venue for way in Side for best in board.at_best(way)]


def test_of_two_venues_that_disagree_both_are_believed_until_a_third_one_tells_who_is_right() -> None:
    board = live_board()
    board.quote("okx", quote("150", "151"), 1)
    board.quote("binance", quote("100", "101"), 2)
    assert board.touch.bid is not None
    assert board.touch.bid.venue == "okx"
    assert board.is_disputed

    assert board.quote("kraken", quote("99", "102"), 3)

    assert set(board.aside) == {"okx"}
    assert not board.is_disputed
    assert board.touch.bid == Best(Decimal(100), 1, "binance", 2)
    board.set_live("kraken", False)
    assert set(board.aside) == {"okx"}, "it did not become right"
    board.set_live("binance", False)
    assert not board.aside, "nobody contradicts it any more"
    assert board.touch == board.venue_touch("okx")


def test_when_only_those_remain_that_were_set_aside_they_are_believed() -> None:
    board = live_board()
    board.quote("binance", quote("100", "101"), 1)
    board.quote("okx", quote("112", "113"), 2)
    board.quote("kraken", quote("90", "91"), 3)
    assert set(board.aside) == {"okx", "kraken"}
    assert board.touch == board.venue_touch("binance")

    assert board.set_live("binance", False)

    assert not board.aside
    assert board.touch == Touch(board.venue_touch("okx").bid, board.venue_touch("kraken").ask)


def test_a_poor_offer_is_no_lie() -> None:
    board = live_board()
    board.quote("binance", quote("100", "101"), 1)
    board.quote("kraken", quote("100", "101"), 1)
    board.quote("okx", quote("1", "100.5"), 1)

    assert not board.aside
    assert board.touch.ask == Best(Decimal("100.5"), 1, "okx", 1)


@pytest.mark.parametrize("price", ["80", "94", "107", "130"])
def test_a_market_that_moves_leaves_nobody_aside_once_all_have_followed(price: str) -> None:
    board = live_board()
    for venue in VENUES:
        board.quote(venue, quote("100", "101"), 1)
    moved = [quote(price, str(int(price) + 1))] * 3

    board.quote("okx", moved[0], 2)
    assert set(board.aside) == {"okx"}, "so far it is alone"
    board.quote("kraken", moved[1], 3)
    assert set(board.aside) == {"binance"}, "now the one that stayed is"
    board.quote("binance", moved[2], 4)
    assert not board.aside
    assert board.touch.bid == Best(Decimal(price), 1, "okx", 2)


sides = st.one_of(st.none(), st.tuples(PRICES, SIZES))


def steps(venues: tuple[str, ...]) -> st.SearchStrategy:
    return st.lists(
        st.one_of(
            st.tuples(st.just("quote"), st.sampled_from(venues), st.tuples(sides, sides)),
            st.tuples(st.just("quote"), st.sampled_from(venues), st.tuples(sides, sides)),
            st.tuples(st.just("live"), st.sampled_from(venues), st.booleans()),
        ),
        max_size=60,
    )


@pytest.mark.parametrize("venues", [VENUES[:2], VENUES, MORE_VENUES], ids=len)
@given(data=st.data())
def test_the_touch_is_the_best_of_the_believed_venues_after_any_order_of_updates_stalls_and_recoveries(
    venues: tuple[str, ...], data: st.DataObject
) -> None:
    board = TouchBoard(venues)
    outliers = Outliers()
    live: set[str] = set()
    slots: dict[str, dict[str, tuple[Decimal, Decimal, int]]] = {venue: {} for venue in venues}  # side → what, since
    all_live = [("live", venue, True) for venue in venues]
    for now, (kind, venue, value) in enumerate([*all_live, *data.draw(steps(venues))]):
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
        outliers.judge(
            {name: (slot.get("bid", (None,))[0], slot.get("ask", (None,))[0]) for name, slot in slots.items()}
        )

        def best(side: str, sign: int) -> Best | None:
            rows = [
                (-sign * slot[side][0], -slot[side][1], slot[side][2], order, name, slot[side])
                for order, (name, slot) in enumerate(slots.items())
                if side in slot and name not in outliers.aside
            ]
            if not rows:
                return None
            *_, name, (price, size, since) = min(rows)
            return Best(price, size, name, since)

        assert set(board.aside) == outliers.aside
        assert board.touch == Touch(best("bid", 1), best("ask", -1))
        assert changed == (board.touch != before)
        for name, slot in slots.items():
            said = Touch(
                *(Best(*slot[side][:2], name, slot[side][2]) if side in slot else None for side in ("bid", "ask"))
            )
            assert board.venue_touch(name) == said
            assert board.in_play(name) == (EMPTY if name in outliers.aside else said)


NEAR = st.tuples(st.integers(9_900, 10_050), st.integers(1, 50)).map(lambda pair: (pair[0], sum(pair)))
ANYWHERE = st.tuples(st.integers(1, 10**7), st.integers(1, 10**7)).map(lambda pair: (pair[0], sum(pair)))


@given(
    st.sampled_from(VENUES),
    st.lists(st.tuples(st.sampled_from(VENUES), NEAR, ANYWHERE, st.sampled_from(("", "bid", "ask"))), min_size=3),
)
def test_a_lone_liar_of_three_neither_moves_the_touch_nor_sets_anybody_else_aside(liar, quotes) -> None:
    board = live_board()
    honest = {venue: (10_000, 10_010) for venue in VENUES if venue != liar}

    def tell(venue: str, bid: int, ask: int, missing: str = "") -> None:
        board.quote(venue, quote(None if missing == "bid" else str(bid), None if missing == "ask" else str(ask)), 1)

    for venue, (bid, ask) in honest.items():
        tell(venue, bid, ask)
    for venue, near, anywhere, missing in quotes:
        if venue == liar:
            tell(venue, *anywhere, missing)
        else:
            honest[venue] = near
            tell(venue, *near)
        assert set(board.aside) <= {liar}
        assert board.touch.bid is not None
        assert board.touch.ask is not None
        assert max(bid for bid, _ in honest.values()) <= board.touch.bid.price
        assert board.touch.bid.price <= max(ask for _, ask in honest.values()) * (1 + OUTLIER_SHARE)
        assert min(ask for _, ask in honest.values()) >= board.touch.ask.price
        assert board.touch.ask.price * (1 + OUTLIER_SHARE) >= min(bid for bid, _ in honest.values())
    tell(liar, 10_000, 10_010)
    assert not board.aside
