"""What the end-to-end tests ask of the router's processes, asked again through nginx."""

import pytest

from tests.end_to_end.test_malformed_orders import (  # noqa: F401
    http,
    test_a_body_in_pieces_is_read_whole,
    test_a_token_id_is_one_orders_however_many_ask_at_once,
    test_forms_and_texts_are_not_read,
    test_huge_deep_and_endless_bodies_are_refused_and_nothing_moves,
    test_odd_targets_are_told_in_json,
)
from tests.end_to_end.test_orders_ws import (  # noqa: F401
    test_a_number_with_more_decimals_is_rounded_and_an_exponent_is_fine,
    test_a_resting_order_that_the_market_reaches_is_told_on_every_web_process,
    test_a_storm_of_reconnects_under_load_loses_nothing,
    test_an_order_is_submitted_amended_and_cancelled_over_the_socket,
    test_an_order_over_rest_is_told_to_every_socket_of_its_user_alone,
    test_commands_of_every_kind_are_answered_in_their_order,
    test_every_malformed_order_gets_one_error_and_changes_nothing,
    test_nobody_trades_without_a_token,
    test_resume_tells_what_was_missed_and_goes_on_live,
    test_seq_is_gapless_under_orders_from_everywhere_at_once,
    test_the_answer_comes_before_the_updates_of_its_order,
    trader,
)
from tests.end_to_end.test_streams import (  # noqa: F401
    test_a_restart_tells_its_sockets_to_come_back_and_keeps_the_candles,
    test_a_stalled_venue_is_told_and_leaves_the_touch,
    test_candles_come_every_second_closed_once_and_are_the_same_over_rest,
    test_each_trade_arrives_once_in_order_and_to_the_digit,
    test_every_stream_moves_and_has_the_fields_of_the_contract,
    test_older_clients_get_their_own_words,
    test_the_public_book_socket_sends_an_image_a_second,
    test_the_public_routes_answer,
    test_the_touch_is_attributed_to_the_venue_that_quotes_it,
)
from tests.end_to_end.test_trading_matcher import (  # noqa: F401
    test_a_buy_under_the_ask_fills_at_the_ask_that_reaches_it,
    test_a_kill_forgets_no_order_and_fills_none_twice,
    test_a_lie_fills_nothing_and_is_told,
    test_one_venue_alone_fills_and_is_named_in_the_receipt,
    test_what_a_stale_venue_showed_fills_nothing,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
