"""How often a venue that is away is asked: soon at first, rarely later, and for ever."""

from marketdata.connection import BACKOFF_FIRST_S, BACKOFF_MAX_S, BACKOFF_SOON_MAX_S, SOON_ATTEMPTS, longest_wait_s

KRAKENS_ATTEMPTS = 150  # in ten minutes, from one address


def test_a_venue_is_asked_again_soon_at_first_and_for_ever() -> None:
    assert longest_wait_s(0) == BACKOFF_FIRST_S
    assert longest_wait_s(SOON_ATTEMPTS - 1) == BACKOFF_SOON_MAX_S
    assert longest_wait_s(SOON_ATTEMPTS) == BACKOFF_MAX_S
    assert longest_wait_s(1_000_000) == BACKOFF_MAX_S  # away for half a year


def test_the_attempts_of_ten_minutes_are_fewer_than_a_venue_allows() -> None:
    attempts, passed_s = 0, 0.0
    while passed_s < 600:
        passed_s += longest_wait_s(attempts) / 2  # the shortest there may be
        attempts += 1
    assert attempts < KRAKENS_ATTEMPTS
