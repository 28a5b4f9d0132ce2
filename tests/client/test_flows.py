"""What calls do when answers fail or get lost, without a network: each request gets the answer of the script."""

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_client import calls, flows
from router_client.errors import (
    AnswerLost,
    ConnectionFailed,
    DuplicateTokenId,
    InvalidRequest,
    NotFound,
    Refused,
    RouterError,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    error_for,
)
from router_client.flows import Answer, Flow, Renew, Retries, Send, Session, Wait
from router_client.models import RateLimit, Tokens

T = TypeVar("T")

LOST = AnswerLost("lost")
NOBODY = ConnectionFailed("nobody there")
NEW = calls.new_order("btc-usdt", "buy", "0.1", "100", order_type="limit", token_id="mine")
ORDER = {
    "id": "1", "token_id": "mine", "symbol": "BTCUSDT", "side": "buy", "order_type": "limit", "status": "open",
    "quantity": 0.1, "price": 100,
}  # fmt: skip
RETRIES = Retries(attempts=4, first_s=1, max_s=8, patience_s=30)


def session() -> Session:
    return Session(token="token")


def ok(body: Any, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(body).encode())


def error(status: int, code: str, headers: dict[str, str] | None = None, **members: Any) -> Answer:
    body = {"detail": "words", "message": "words", "code": code, **members}
    return Answer(status, headers or {}, json.dumps(body).encode())


def play(
    flow: Flow[T], script: Iterable[Answer | RouterError], known: Session | None = None
) -> tuple[T, list[str], list[float]]:
    """Run a flow to its end over the whole script; return its result, its requests and its waits."""
    answers = iter(script)
    asked: list[str] = []
    waits: list[float] = []
    result = _run(flow, answers, known, asked, waits)
    assert list(answers) == [], "the script had more answers"
    return result, asked, waits


def _run(flow: Flow[T], answers: Iterator[Any], known: Session | None, asked: list[str], waits: list[float]) -> T:
    def do(step: Send | Wait | Renew) -> Any:
        if isinstance(step, Wait):
            waits.append(step.seconds)
            return None
        if isinstance(step, Renew):
            renewal = flows.renew(known or session(), RETRIES, seen=step.seen)
            return _run(renewal, answers, known, asked, waits)
        asked.append(f"{step.method} {step.path}")
        answer = next(answers)
        if isinstance(answer, RouterError):
            raise answer
        return answer

    try:
        step = next(flow)
        while True:
            try:
                done = do(step)
            except RouterError as failed:
                step = flow.throw(failed)
            else:
                step = flow.send(done)
    except StopIteration as end:
        result: T = end.value
        return result


def test_a_lost_order_is_asked_for_and_found() -> None:
    order, asked, _ = play(flows.place_order(NEW, session(), RETRIES), [LOST, ok(ORDER)])

    assert order.id == "1"
    assert asked == ["POST /orders", "GET /orders/mine"]


def test_an_order_that_never_arrived_is_sent_again() -> None:
    script = [LOST, error(404, "order_not_found"), ok(ORDER, 201)]

    _, asked, _ = play(flows.place_order(NEW, session(), RETRIES), script)

    assert asked == ["POST /orders", "GET /orders/mine", "POST /orders"]


def test_an_order_that_arrives_late_is_not_sent_twice() -> None:
    duplicate = error(400, "duplicate_token_id", order=ORDER)
    script = [error(503, "unavailable"), error(404, "order_not_found"), duplicate, ok({**ORDER, "status": "filled"})]

    order, asked, _ = play(flows.place_order(NEW, session(), RETRIES), script)

    assert order.status == "filled"
    assert asked[-1] == "GET /orders/mine"


def test_an_order_that_was_never_sent_needs_no_question() -> None:
    _, asked, waits = play(flows.place_order(NEW, session(), RETRIES), [NOBODY, NOBODY, ok(ORDER, 201)])

    assert asked == ["POST /orders"] * 3
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2


def test_a_used_token_id_is_told_with_its_order() -> None:
    with pytest.raises(DuplicateTokenId) as refused:
        play(flows.place_order(NEW, session(), RETRIES), [error(400, "duplicate_token_id", order=ORDER)])

    assert refused.value.order is not None
    assert refused.value.order.price == Decimal(100)


def test_another_order_under_the_name_of_a_lost_one_is_not_taken_for_it() -> None:
    with pytest.raises(DuplicateTokenId):
        play(flows.place_order(NEW, session(), RETRIES), [LOST, ok({**ORDER, "quantity": 7})])


def test_a_lost_market_order_is_known_by_its_terms_though_it_has_a_price_now() -> None:
    new = calls.new_order("BTCUSDT", "buy", "0.1", None, order_type="market", token_id="mine")
    filled = {**ORDER, "order_type": "market", "status": "filled", "price": 99.5}

    order, _, _ = play(flows.place_order(new, session(), RETRIES), [LOST, ok(filled)])

    assert order.price == Decimal("99.5")


def test_a_deposit_whose_answer_is_lost_is_not_repeated() -> None:
    for failure in (LOST, error(503, "unavailable")):
        with pytest.raises((AnswerLost, Unavailable)):
            play(flows.call(calls.deposit("USDT", 1), session(), RETRIES), [failure])


def test_a_deposit_that_was_not_sent_is_repeated() -> None:
    done = {"asset": "USDT", "amount": 1, "new_balance": 1}

    _, asked, _ = play(flows.call(calls.deposit("USDT", 1), session(), RETRIES), [NOBODY, ok(done)])

    assert len(asked) == 2


def test_a_question_is_repeated_whatever_happened() -> None:
    script = [LOST, error(503, "busy", {"retry-after": "2"}), error(429, "rate_limited", {"retry-after": "7"}), ok([])]

    _, _, waits = play(flows.call(calls.exchanges(), session(), RETRIES), script)

    assert 2 <= waits[1] <= 3
    assert 7 <= waits[2] <= 8


def test_tries_come_to_an_end() -> None:
    with pytest.raises(AnswerLost):
        play(flows.call(calls.exchanges(), session(), RETRIES), [LOST] * 4)


def test_a_long_wait_is_the_callers_to_decide() -> None:
    with pytest.raises(TooManyRequests) as refused:
        play(flows.call(calls.exchanges(), session(), RETRIES), [error(429, "rate_limited", {"retry-after": "31"})])

    assert refused.value.retry_after == 31


def test_what_the_last_answer_says_of_the_limit_is_kept() -> None:
    known = session()

    def told(remaining: str) -> dict[str, str]:
        return {"x-ratelimit-limit": "600", "x-ratelimit-remaining": remaining, "x-ratelimit-reset": "12"}

    play(flows.call(calls.exchanges(), known, RETRIES), [Answer(200, told("7"), b"[]")])
    assert known.rate_limit == RateLimit(600, 7, 12.0)
    play(flows.call(calls.exchanges(), known, RETRIES), [ok([])])
    assert known.rate_limit == RateLimit(600, 7, 12.0), "an answer that says nothing of it changes nothing"
    turned_away = error(429, "rate_limited", {**told("0"), "retry-after": "12"})
    _, _, waits = play(flows.call(calls.exchanges(), known, RETRIES), [turned_away, Answer(200, told("?"), b"[]")])
    assert known.rate_limit == RateLimit(600, 0, 12.0)
    assert 12 <= waits[0] <= 13


def test_an_expired_token_is_renewed_once_and_the_call_repeated() -> None:
    known = Session(token="old", refresh_token="refresh")
    tokens = {"access_token": "new", "refresh_token": "refresh", "expires_in": 600}
    script = [error(401, "unauthorized"), ok(tokens), ok({"balances": []})]

    _, asked, _ = play(flows.call(calls.balance(), known, RETRIES), script, known)

    assert asked == ["GET /balance", "POST /token/refresh", "GET /balance"]
    assert known.headers() == {"Authorization": "Bearer new"}


def test_a_refresh_token_that_ended_leaves_the_password() -> None:
    known = Session(username="alice", password="password123", token="old", refresh_token="old")
    script = [
        error(401, "unauthorized"),
        error(401, "unauthorized"),
        ok({"access_token": "new"}),
        ok({"balances": []}),
    ]

    _, asked, _ = play(flows.call(calls.balance(), known, RETRIES), script, known)

    assert asked == ["GET /balance", "POST /token/refresh", "POST /login", "GET /balance"]


def test_without_a_way_back_in_the_caller_is_told() -> None:
    with pytest.raises(Unauthorized):
        play(flows.call(calls.balance(), session(), RETRIES), [error(401, "unauthorized")])


def test_a_token_is_renewed_before_it_ends() -> None:
    known = Session()
    known.take(Tokens(access_token="short", refresh_token="refresh", expires_in=600))
    assert not known.is_due
    assert known.renew_in_s is not None
    assert 530 < known.renew_in_s <= 540

    known._renew_at = 0.0
    tokens = {"access_token": "new", "expires_in": 600}
    _, asked, _ = play(flows.call(calls.balance(), known, RETRIES), [ok(tokens), ok({"balances": []})], known)

    assert asked == ["POST /token/refresh", "GET /balance"]


def test_a_registration_whose_answer_is_lost_is_found_by_logging_in() -> None:
    known = Session()

    play(flows.register("alice", "password123", known, RETRIES), [LOST, ok({"access_token": "new"})])

    assert known.token == "new"


def test_a_registration_that_comes_at_a_busy_time_is_tried_again() -> None:
    known = Session()
    busy, wrong = error(503, "busy", {"retry-after": "1"}), error(401, "unauthorized")

    _, asked, _ = play(
        flows.register("alice", "password123", known, RETRIES), [busy, wrong, busy, wrong, ok({"access_token": "new"})]
    )

    assert asked == ["POST /register", "POST /login"] * 2 + ["POST /register"]


def test_a_cancellation_whose_answer_is_lost_is_looked_up() -> None:
    cancelled = ok({**ORDER, "status": "cancelled"})

    _, asked, _ = play(flows.cancel_order("mine", session(), RETRIES), [LOST, cancelled])

    assert asked == ["DELETE /orders/mine", "GET /orders/mine"]


def test_a_cancellation_that_comes_after_the_fill_is_refused() -> None:
    filled = ok({**ORDER, "status": "filled"})
    script = [LOST, ok(ORDER), error(400, "order_not_open"), filled]

    with pytest.raises(Refused):
        play(flows.cancel_order("mine", session(), RETRIES), script)


def test_a_change_whose_answer_is_lost_is_looked_up() -> None:
    change = calls.change("101", None)

    order, asked, _ = play(flows.amend_order("mine", change, session(), RETRIES), [LOST, ok({**ORDER, "price": 101})])

    assert order.price == 101
    assert asked == ["PUT /orders/mine", "GET /orders/mine"]


def test_an_answer_of_another_server_is_told_as_such() -> None:
    with pytest.raises(UnexpectedAnswer):
        play(flows.call(calls.info(), session(), RETRIES), [Answer(200, {}, b"<html>")])


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "insufficient_funds", Refused),
        (400, "duplicate_token_id", DuplicateTokenId),
        (401, "unauthorized", Unauthorized),
        (404, "not_found", NotFound),
        (405, "method_not_allowed", Refused),
        (422, "invalid", InvalidRequest),
        (429, "rate_limited", TooManyRequests),
        (500, "internal", ServerError),
        (503, "busy", Unavailable),
        (507, "storage_full", Unavailable),
        (None, "insufficient_funds", Refused),
        (None, "invalid", InvalidRequest),
        (None, "order_not_found", NotFound),
    ],
)
def test_errors_are_told_by_status_and_code(status: int | None, code: str, kind: type[RouterError]) -> None:
    found = error_for(json.dumps({"detail": "d", "message": "m", "code": code}).encode(), status=status)

    assert type(found) is kind
    assert (found.message, found.code, found.status) == ("m", code, status)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["detail", "code", "loc", "order"]), inner),
)
members = st.dictionaries(st.sampled_from(["detail", "message", "code", "order", "retry_after"]), json_values)


@given(st.binary() | members.map(lambda body: json.dumps(body).encode()), st.none() | st.integers(400, 599), st.text())
def test_no_error_body_is_too_strange(body: bytes, status: int | None, retry_after: str) -> None:
    found = error_for(body, status=status, headers={"retry-after": retry_after})

    assert isinstance(found, RouterError)
    assert isinstance(found.message, str)
    str(found)
