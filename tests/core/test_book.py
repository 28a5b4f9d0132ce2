"""The checked book against a naive model, and the checksum against values that others computed."""

import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.book import BadChecksum, Book, BookError, CrossedBook
from core.events import BookDelta, BookImage, Level

D = Decimal


def levels(*texts: str) -> tuple[Level, ...]:
    """Read "45285.2/0.00100000" as a level."""
    return tuple((D(price), D(size)) for price, size in (text.split("/") for text in texts))


def snapshot(bids: tuple[Level, ...], asks: tuple[Level, ...], checksum: int | None = None) -> BookDelta:
    return BookDelta(bids, asks, checksum, snapshot=True)


def delta(
    bids: tuple[Level, ...] = (), asks: tuple[Level, ...] = (), checksum: int | None = None, venue_ns: int | None = None
) -> BookDelta:
    return BookDelta(bids, asks, checksum, venue_ns=venue_ns)


GUIDE = snapshot(
    asks=levels(
        *("45285.2/0.00100000", "45286.4/1.54571953", "45286.6/1.54571109", "45289.6/1.54560911", "45290.2/0.15890660"),
        *("45291.8/1.54553491", "45294.7/0.04454749", "45296.1/0.35380000", "45297.5/0.09945542", "45299.5/0.18772827"),
    ),
    bids=levels(
        *("45283.5/0.10000000", "45283.4/1.54582015", "45282.1/0.10000000", "45281.0/0.10000000", "45280.3/1.54592586"),
        *("45279.0/0.07990000", "45277.6/0.03310103", "45277.5/0.30000000", "45277.3/1.54602737", "45276.6/0.15445238"),
    ),
    checksum=3310070434,
)


def test_the_checksum_of_the_venues_guide_is_reproduced() -> None:
    book = Book(10, 1, 8)

    book.apply(GUIDE)

    assert book.checksum() == 3310070434


def test_trimmed_digits_are_padded_to_the_pairs_decimals() -> None:
    book = Book(10, 1, 8)
    trimmed = [tuple((p.normalize(), s.normalize()) for p, s in side) for side in (GUIDE.bids, GUIDE.asks)]

    book.apply(snapshot(trimmed[0], trimmed[1], GUIDE.checksum))

    assert book.checksum() == GUIDE.checksum


def test_a_thin_book_below_one_loses_its_leading_zeros() -> None:
    book = Book(10, 5, 8)
    book.apply(snapshot(levels("0.25/4831.754", "0.24998/0.566"), levels("0.25012/1000", "0.2502/15.5")))

    assert book.checksum() == 1720210615
    assert book.checksum() == zlib.crc32(b"25012100000000000250201550000000250004831754000002499856600000")


def test_digits_beyond_the_announced_decimals_are_kept() -> None:
    book = Book(10, 1, 2)
    book.apply(snapshot(levels("10.25/1.5"), levels("10.5/0.0000001")))

    assert book.checksum() == zlib.crc32(b"105" + b"1" + b"1025" + b"150")


def test_only_ten_levels_a_side_are_summed_however_deep_the_book() -> None:
    shallow, deep = Book(10, 1, 8), Book(25, 1, 8)
    shallow.apply(GUIDE)

    deep.apply(snapshot((*GUIDE.bids, *levels("45000.0/1")), (*GUIDE.asks, *levels("46000.0/1")), GUIDE.checksum))

    assert deep.checksum() == shallow.checksum()
    assert len(deep.top(25).bids) == 11


@pytest.mark.parametrize("place", range(10))
@pytest.mark.parametrize("side", ["bids", "asks"])
def test_one_changed_digit_fails_the_checksum(side: str, place: int) -> None:
    changed = list(getattr(GUIDE, side))
    price, size = changed[place]
    changed[place] = (price, size + D("0.00000001"))
    bids, asks = (tuple(changed), GUIDE.asks) if side == "bids" else (GUIDE.bids, tuple(changed))

    with pytest.raises(BadChecksum):
        Book(10, 1, 8).apply(snapshot(bids, asks, GUIDE.checksum))


def test_a_delta_before_any_snapshot_is_refused() -> None:
    with pytest.raises(BookError):
        Book(10, 1, 8).apply(delta(bids=levels("1/1")))


def test_after_an_error_the_book_is_empty_until_the_next_snapshot() -> None:
    book = Book(10, 1, 8)
    book.apply(GUIDE)
    with pytest.raises(BadChecksum):
        book.apply(delta(asks=levels("45285.2/2"), checksum=1))

    assert book.top(10) == BookImage((), ())
    assert book.best() == (None, None)
    with pytest.raises(BookError):
        book.apply(delta(asks=levels("45285.2/2")))
    book.apply(GUIDE)
    assert book.best() == (GUIDE.bids[0], GUIDE.asks[0])


@pytest.mark.parametrize("bid", ["101", "100"])
def test_a_locked_or_crossed_book_is_refused(bid: str) -> None:
    book = Book(10, 0, 0)
    book.apply(snapshot(levels("99/1"), levels("100/1")))

    with pytest.raises(CrossedBook):
        book.apply(delta(bids=levels(f"{bid}/1")))


def test_a_book_that_is_crossed_only_inside_a_message_is_fine() -> None:
    book = Book(10, 0, 0)
    book.apply(snapshot(levels("99/1"), levels("100/1")))

    book.apply(delta(bids=levels("100/2"), asks=levels("100/0", "101/3")))

    assert book.best() == (levels("100/2")[0], levels("101/3")[0])


def test_deleting_an_unknown_level_changes_nothing() -> None:
    book = Book(10, 0, 0)
    book.apply(snapshot(levels("99/1"), levels("100/1")))

    book.apply(delta(bids=levels("98/0"), asks=levels("105/0.000")))

    assert book.top(10) == BookImage(levels("99/1"), levels("100/1"))


def test_the_last_of_two_changes_of_a_price_counts() -> None:
    book = Book(10, 0, 0)
    book.apply(snapshot(levels("99/1"), levels("100/1")))

    book.apply(delta(bids=levels("99/0", "99/7")))

    assert book.best()[0] == (D(99), D(7))


def test_levels_beyond_the_depth_are_dropped_and_do_not_come_back() -> None:
    book = Book(2, 0, 0)
    book.apply(snapshot(levels("99/1", "98/1"), levels("100/1", "101/1")))

    book.apply(delta(asks=levels("100.5/1"), bids=levels("98.5/1")))
    book.apply(delta(asks=levels("100/0"), bids=levels("99/0")))

    assert book.top(10) == BookImage(levels("98.5/1"), levels("100.5/1"))


def test_the_image_is_best_first_cut_to_size_and_timed() -> None:
    book = Book(10, 0, 0)
    book.apply(snapshot(levels("97/1", "99/1", "98/1"), levels("102/1", "100/1", "101/1")))
    book.apply(delta(bids=levels("96/1"), venue_ns=7))

    assert book.top(2) == BookImage(levels("99/1", "98/1"), levels("100/1", "101/1"), venue_ns=7)
    assert book.top(0) == BookImage((), (), venue_ns=7)


class Model:
    """The same rules the slow way: two dictionaries, sorted anew each time."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.bids: dict[Decimal, Decimal] | None = None
        self.asks: dict[Decimal, Decimal] = {}

    def apply(self, change: BookDelta) -> bool:
        """Return False where the book must refuse."""
        if change.snapshot:
            self.bids, self.asks = {}, {}
        if self.bids is None:
            return False
        for side, changes in ((self.bids, change.bids), (self.asks, change.asks)):
            for price, size in changes:
                side.pop(price, None)
                if size:
                    side[price] = size
        self.bids = dict(sorted(self.bids.items(), reverse=True)[: self.depth])
        self.asks = dict(sorted(self.asks.items())[: self.depth])
        if self.bids and self.asks and max(self.bids) >= min(self.asks):
            self.bids, self.asks = None, {}
            return False
        return True

    def text(self) -> bytes:
        sides = (sorted(self.asks.items())[:10], sorted((self.bids or {}).items(), reverse=True)[:10])
        numbers = [f"{p:.2f} {s:.3f}" for side in sides for p, s in side]
        return "".join(word.replace(".", "").lstrip("0") for number in numbers for word in number.split()).encode()


def changes(low: int, high: int) -> st.SearchStrategy[tuple[Level, ...]]:
    prices = st.integers(low, high).map(lambda cents: D(cents).scaleb(-2))
    sizes = st.integers(0, 5000).map(lambda thousandths: D(thousandths).scaleb(-3))
    return st.lists(st.tuples(prices, sizes), max_size=12).map(tuple)


# Bids and asks overlap a little, so that some sequences cross.
MESSAGES = st.builds(
    BookDelta,
    bids=changes(80, 102),
    asks=changes(100, 122),
    checksum=st.none(),
    snapshot=st.integers(0, 4).map(lambda number: number == 0),
)


@given(messages=st.lists(MESSAGES, max_size=30), depth=st.integers(1, 12))
def test_any_sequence_gives_the_book_of_the_naive_model(messages: list[BookDelta], depth: int) -> None:
    book, model = Book(depth, 2, 3), Model(depth)

    for message in messages:
        if model.apply(message):
            book.apply(message)
        else:
            with pytest.raises(BookError):
                book.apply(message)

        image = book.top(depth)
        assert image.bids == tuple(sorted((model.bids or {}).items(), reverse=True))
        assert image.asks == tuple(sorted(model.asks.items()))
        assert book.checksum() == zlib.crc32(model.text())
        assert book.best() == (image.bids[0] if image.bids else None, image.asks[0] if image.asks else None)


SIDE_SIZES = st.lists(st.integers(1, 5000).map(lambda thousandths: D(thousandths).scaleb(-3)), min_size=1, max_size=12)


@given(bid_sizes=SIDE_SIZES, ask_sizes=SIDE_SIZES, level=st.integers(0, 9), digit=st.integers(0, 2))
def test_any_changed_digit_fails_the_checksum(bid_sizes: list[D], ask_sizes: list[D], level: int, digit: int) -> None:
    bids = tuple((D(100) - D(number).scaleb(-2), size) for number, size in enumerate(bid_sizes))
    asks = [(D(101) + D(number).scaleb(-2), size) for number, size in enumerate(ask_sizes)]
    model = Model(10)
    model.apply(snapshot(bids, tuple(asks), None))
    checksum = zlib.crc32(model.text())
    Book(10, 2, 3).apply(snapshot(bids, tuple(asks), checksum))
    changed = level % min(len(asks), 10)
    price, size = asks[changed]
    asks[changed] = (price, size + D(1).scaleb(digit - 3))

    with pytest.raises(BadChecksum):
        Book(10, 2, 3).apply(snapshot(bids, tuple(asks), checksum))
