"""TWAP orders behind nginx: the prices that they get, and what a kill of the supervisor does to them."""

import pytest

from tests.end_to_end.test_twap import (  # noqa: F401
    deep,
    test_a_kill_in_the_middle_changes_no_total_and_runs_no_slice_twice,
    test_ten_slices_fill_at_prices_that_their_venues_showed,
    trader,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
