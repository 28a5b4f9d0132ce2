"""The market behind the wires: deterministic, plausible, exact."""

import math
import statistics
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdata.simulated.dialect import changes, fixed, timestamp, to_units, trimmed
from marketdata.simulated.flow import PHASES, Change, Flow
from marketdata.simulated.maker import LEVELS, Maker, Touch
from marketdata.simulated.prices import STEP_S, PricePath, reference_price

VENUES = ("binance", "okx", "kraken")
NAMES = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT", "DOGE-USDT", "ADA-USDT", "LTC-USDT", "LINK-USDT")
PHASES_PER_S = round(PHASES / STEP_S)


def run(flow: Flow, seconds: float) -> list[Change]:
    return [change for _ in range(round(seconds * PHASES_PER_S)) for change in flow.advance()]


def tape(seed: int, seconds: float = 5) -> list[object]:
    flow = Flow(NAMES, VENUES, seed, {})
    return [
        (change.maker.venue, change.maker.instrument, tuple(change.prints), change.maker.touch)
        for _ in range(round(seconds * PHASES_PER_S))
        for change in flow.advance()
    ]


def mid(maker: Maker) -> float:
    return (maker.touch.bid + maker.touch.ask) / 2 / 10**maker.price_decimals


def test_the_same_seed_makes_the_same_market() -> None:
    assert tape(5) == tape(5)


def test_another_seed_makes_another_market() -> None:
    assert tape(5) != tape(6)


def test_a_path_depends_on_seed_and_instrument_alone() -> None:
    alone, among = Flow(("ETH-USDT",), ("okx",), 1, {}), Flow(NAMES, VENUES, 1, {})
    run(alone, 3)
    run(among, 3)
    assert alone.makers["okx"]["ETH-USDT"].touch == among.makers["okx"]["ETH-USDT"].touch


def test_prices_start_at_their_references() -> None:
    for name, price in (("BTC-USDT", 95_000), ("ETH-USDT", 3_300), ("XRP-USDT", 1.4), ("ETH-BTC", 3_300 / 95_000)):
        assert reference_price(name, 1) == pytest.approx(price)
    assert reference_price("NEWCOIN-USDT", 1) == reference_price("NEWCOIN-USDT", 1)
    assert reference_price("NEWCOIN-USDT", 1) != reference_price("NEWCOIN-USDT", 2)


def test_the_price_stays_within_a_tenth_of_its_reference() -> None:
    path = PricePath("SOL-USDT", 9)
    for _ in range(round(1800 / STEP_S)):
        path.advance()
        assert path.reference * 0.9 < path.mid() < path.reference * 1.1


def test_books_are_never_crossed_and_always_deep() -> None:
    flow = Flow(NAMES, VENUES, 2, {})
    for change in run(flow, 30):
        maker = change.maker
        assert maker.touch.bid < maker.touch.ask
        for ladder in (maker.bids, maker.asks):
            assert len(ladder.keys) == LEVELS
            assert ladder.keys == sorted(set(ladder.keys))
            assert all(size > 0 for size in ladder.sizes.values())
            assert set(ladder.keys) == ladder.sizes.keys()


def test_trades_print_at_the_touch_on_the_takers_side() -> None:
    flow = Flow(("BTC-USDT", "ETH-USDT"), VENUES, 4, {})
    before: dict[Maker, Touch] = {m: m.touch for makers in flow.makers.values() for m in makers.values()}
    count = 0
    for _ in range(60 * PHASES_PER_S):
        for change in flow.advance():
            touch = before[change.maker]
            for printed in change.prints[:1]:  # a second trade of a step may meet the next level
                assert printed.price == (touch.ask if printed.taker_buys else touch.bid)
                assert 0 < printed.size <= (touch.ask_size if printed.taker_buys else touch.bid_size)
                count += 1
            before[change.maker] = change.maker.touch
    assert count > 100


def test_buyers_take_when_the_price_rises() -> None:
    flow = Flow(("BTC-USDT",), ("binance",), 8, {})
    maker = flow.makers["binance"]["BTC-USDT"]
    bought: list[float] = []
    moved: list[float] = []
    for _ in range(120):
        before = mid(maker)
        prints = [printed for change in run(flow, 2) for printed in change.prints]
        if prints:
            bought.append(statistics.fmean(1.0 if printed.taker_buys else -1.0 for printed in prints))
            moved.append(math.log(mid(maker) / before))
    assert statistics.correlation(bought, moved) > 0.3


def test_trades_come_in_bursts() -> None:
    flow = Flow(("BTC-USDT",), ("binance",), 8, {})
    counts = [sum(len(change.prints) for change in run(flow, 1)) for _ in range(240)]
    assert statistics.pvariance(counts) > 1.2 * statistics.fmean(counts)  # a Poisson flow's would be equal


def test_venues_agree_on_the_price_but_not_exactly() -> None:
    flow = Flow(NAMES, VENUES, 1, {})
    mids: dict[tuple[str, str], list[float]] = {}
    crossed = checked = 0
    for _ in range(120):
        run(flow, 1)
        for name in NAMES:
            for venue in VENUES:
                mids.setdefault((venue, name), []).append(mid(flow.makers[venue][name]))
        makers = [flow.makers[venue]["BTC-USDT"] for venue in VENUES]
        checked += 1
        crossed += max(m.touch.bid / 10**m.price_decimals for m in makers) > min(
            m.touch.ask / 10**m.price_decimals for m in makers
        )
    for name in NAMES:
        for venue in ("okx", "kraken"):
            assert statistics.correlation(mids["binance", name], mids[venue, name]) > 0.9
    assert crossed < 0.25 * checked  # across venues for moments, not for long
    assert mids["binance", "BTC-USDT"] != mids["okx", "BTC-USDT"]


def test_a_missing_instrument_is_made_by_nobody() -> None:
    flow = Flow(NAMES, VENUES, 1, {"kraken": ("ETH-USDT",)})
    assert "ETH-USDT" not in flow.makers["kraken"]
    assert "ETH-USDT" in flow.makers["okx"]


def test_a_paused_venue_stands_still_while_the_others_go_on() -> None:
    flow = Flow(("BTC-USDT",), VENUES, 1, {})
    flow.paused.add("okx")
    still = flow.makers["okx"]["BTC-USDT"].version
    moved = {change.maker.venue for change in run(flow, 5)}
    assert moved == {"binance", "kraken"}
    assert flow.makers["okx"]["BTC-USDT"].version == still


def test_a_raised_rate_multiplies_a_venues_changes() -> None:
    def touches(rate: float) -> int:
        flow = Flow(("BTC-USDT",), ("okx",), 1, {})
        flow.rates["okx"] = rate
        return sum(1 for change in run(flow, 20) if change.maker.version)

    assert touches(10) > 4 * touches(1)


@settings(max_examples=50)
@given(bid=st.integers(1, 10**7), gap=st.integers(-50, 50), size=st.integers(1, 10**14), steps=st.integers(0, 40))
def test_a_pinned_touch_shows_and_its_levels_fit_it(bid: int, gap: int, size: int, steps: int) -> None:
    flow = Flow(("BTC-USDT",), ("kraken",), 1, {})
    maker = flow.makers["kraken"]["BTC-USDT"]
    touch = Touch(bid, size, max(bid + gap, 1), size + 1)
    maker.pin(touch)
    list(islice((change for _ in range(steps) for change in flow.advance()), 1000))
    assert maker.touch == touch
    assert maker.bids.keys == sorted(maker.bids.keys)
    assert all(price >= 1 for price, _ in maker.bids.levels())
    maker.release()
    assert maker.touch.bid < maker.touch.ask
    assert abs(mid(maker) / 95_000 - 1) < 0.1
    for ladder in (maker.bids, maker.asks):
        assert all(
            abs(price / ladder.best - 1) < 0.01 for price, _ in ladder.levels()
        )  # none is left where it was pinned


@given(
    before=st.dictionaries(st.integers(1, 60), st.integers(1, 5), max_size=30),
    after=st.dictionaries(st.integers(1, 60), st.integers(1, 5), max_size=30),
    window=st.sampled_from([1, 3, 10, 25]),
    best_is_high=st.booleans(),
    silent_fall=st.booleans(),
)
def test_changes_turn_one_window_into_the_other(
    before: dict[int, int], after: dict[int, int], window: int, best_is_high: bool, silent_fall: bool
) -> None:
    def cut(levels: dict[int, int]) -> list[tuple[int, int]]:
        return sorted(levels.items(), reverse=best_is_high)[:window]

    held = dict(cut(before))
    for price, size in changes(dict(held), cut(after), window, best_is_high=best_is_high, silent_fall=silent_fall):
        if size:
            held[price] = size
        else:
            held.pop(price, None)
    assert cut(held) == cut(after)
    if not silent_fall:
        assert held == dict(cut(after))


@given(units=st.integers(0, 10**20), decimals=st.integers(0, 10))
def test_numbers_are_written_without_loss_or_exponent(units: int, decimals: int) -> None:
    from decimal import Decimal

    for text in (fixed(units, decimals), trimmed(units, decimals)):
        assert "e" not in text.lower()
        assert Decimal(text) * 10**decimals == units
    assert len(fixed(units, decimals).partition(".")[2]) == decimals
    assert not (decimals and "." in trimmed(units, decimals) and trimmed(units, decimals).endswith("0"))
    assert to_units(Decimal(fixed(units, decimals)), decimals) == units


def test_times_are_written_to_the_microsecond() -> None:
    assert timestamp(1_800_000_000_123_456_789) == "2027-01-15T08:00:00.123456Z"
