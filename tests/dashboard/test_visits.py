"""Who is logged in in which browser."""

from router_client.flows import Session

from dashboard.visits import KEPT_S, VISITS_MAX, Visits, script


def test_a_session_is_found_by_its_id_alone() -> None:
    visits, session = Visits(), Session(api_key="secret")
    visit = visits.remember(session, 0.0)

    assert visits.find(visit, 1.0) is session
    assert visits.find("another", 1.0) is None
    assert visits.find(None, 1.0) is None
    assert "secret" not in script(visit)


def test_who_logs_out_is_forgotten_in_each_window() -> None:
    visits, session, other = Visits(), Session(), Session()
    mine, again, others = (visits.remember(one, 0.0) for one in (session, session, other))

    visits.forget(session)

    assert visits.find(mine, 1.0) is visits.find(again, 1.0) is None
    assert visits.find(others, 1.0) is other


def test_a_visit_ends_when_nobody_came_for_long() -> None:
    visits, session = Visits(), Session()
    visit = visits.remember(session, 0.0)

    assert visits.find(visit, KEPT_S) is session
    assert visits.find(visit, 2 * KEPT_S) is session  # it was seen meanwhile
    assert visits.find(visit, 3 * KEPT_S + 1) is None


def test_the_oldest_gives_way() -> None:
    visits = Visits()
    ids = [visits.remember(Session(), 0.0) for _ in range(VISITS_MAX + 1)]

    assert visits.find(ids[0], 1.0) is None
    assert visits.find(ids[1], 1.0) is not None
