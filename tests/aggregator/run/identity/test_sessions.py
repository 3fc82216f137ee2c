"""Sessions of one identity: restarts are no copies, copies are seen whatever the order, and one of them is served."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aggregator.run.identity.sessions import KEPT, SHOWN_S, SILENT_S, TELL_AGAIN_S, Sessions


def heard(*calls: tuple[str, float]) -> Sessions:
    """The sessions after calls of (session, seconds); each session has an address of its own."""
    sessions = Sessions()
    for session, now in calls:
        sessions = sessions.heard(session, f"at-{session}", now)
    return sessions


def test_a_client_that_is_started_again_takes_over_at_once() -> None:
    """A power cut costs a board no waiting, and is no copy."""
    sessions = heard(("a", 0), ("a", 60), ("b", 61), ("b", 120))

    assert sessions.serves("b") and not sessions.serves("a") and sessions.copies is None


def test_two_clients_at_once_are_a_copy_and_the_newest_is_served() -> None:
    """The older one spoke again: both addresses are known."""
    sessions = heard(("a", 0), ("b", 1), ("a", 2))

    assert sessions.serves("b") and not sessions.serves("a")
    assert sessions.copies is not None
    assert (sessions.copies.served, sessions.copies.other, sessions.copies.at_s) == ("at-b", "at-a", 2)


def test_the_other_one_goes_on_once_the_one_that_was_served_is_silent() -> None:
    """Neither starves: whoever is left is served, and may be interrupted again."""
    sessions = heard(("a", 0), ("b", 1), ("a", 2), ("a", 1 + SILENT_S))
    assert sessions.serves("a")

    assert sessions.heard("b", "at-b", 2 + SILENT_S).serves("a")


def test_people_are_told_of_the_same_copy_once_an_hour() -> None:
    """A copy that polls each minute fills no log."""
    sessions = heard(("a", 0), ("b", 1), ("a", 2))
    told = [sessions.copies.told_s] if sessions.copies else []
    for now in range(60, int(2 * TELL_AGAIN_S), 60):
        sessions = sessions.heard("b", "at-b", now).heard("a", "at-a", now + 1)
        assert sessions.copies is not None
        told.append(sessions.copies.told_s)

    assert len(set(told)) == 2 and sessions.copies is not None and sessions.copies.at_s > told[-1]


def test_a_copy_of_the_day_before_is_not_shown() -> None:
    """It stays in the log."""
    sessions = heard(("a", 0), ("b", 1), ("a", 2))

    assert sessions.recent_copies(1 + SHOWN_S) is sessions.copies is not None
    assert sessions.recent_copies(2 + SHOWN_S) is None and Sessions().recent_copies(0) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 60)), min_size=1))
def test_somebody_is_always_served_and_memory_is_bounded(calls: list[tuple[str, float]]) -> None:
    """Whatever comes in whatever order; a session that is served is one that has called."""
    sessions, now = Sessions(), 0.0
    for session, pause_s in calls:
        now += pause_s
        sessions = sessions.heard(session, "x", now)
        assert sessions.current is not None and sum(sessions.serves(each) for each in "abc") == 1
    alone = {session for session, _ in calls}
    assert len(sessions.former) <= KEPT and (len(alone) > 1 or sessions.copies is None)


def test_a_client_that_starts_again_and_again_is_forgotten_in_order() -> None:
    """Only the last KEPT starts are remembered."""
    sessions = heard(*((f"{number}", float(number)) for number in range(50)))

    assert [each.id for each in sessions.former] == [f"{number}" for number in range(48, 48 - KEPT, -1)]
