"""`decide`: what opens, closes, extends and ends, as properties over simulated fleets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.run.schedule import (
    AbandonRound,
    BeginRound,
    BeginTraining,
    CloseRound,
    Extend,
    Finish,
    Phase,
    View,
    decide,
)
from aggregator.settings.config import RoundsSection
from tests.fakes.rounds import rounds_section

times = st.floats(min_value=0, max_value=1e6)
counts = st.integers(min_value=0, max_value=5)
names = st.frozensets(st.sampled_from("abcdef"))

rules_ = st.builds(
    rounds_section,
    total=st.integers(1, 4),
    min_devices=st.integers(1, 4),
    quorum=st.integers(1, 4),
    deadline_s=st.floats(1, 1000),
    grace_s=st.floats(0, 1000),
    profile_deadline_s=st.floats(1, 1000),
    is_asynchronous=st.booleans(),
)


@st.composite
def views(draw: st.DrawFn) -> View:
    answered = draw(names)
    refused = draw(st.frozensets(st.sampled_from(sorted(answered)))) if answered else frozenset()
    return View(
        phase=draw(st.sampled_from(["profiling", "between", "round", "finished"])),
        round=draw(counts),
        live=draw(names),
        answered=answered,
        accepted=draw(st.integers(0, len(answered - refused))),
        refused=refused,
        since_s=draw(st.none() | times),
        quorum_s=draw(st.none() | times),
        until_s=draw(st.none() | times),
    )


@given(views(), rules_, times)
def test_nothing_is_merged_without_its_quorum(view: View, rules: RoundsSection, now: float) -> None:
    """A round closes only with `quorum` accepted updates, and training begins only with a profile."""
    action = decide(view, rules, now).action

    if isinstance(action, CloseRound):
        assert view.accepted >= max(1, rules.quorum)
    if isinstance(action, BeginTraining):
        assert view.accepted >= 1


@given(views(), rules_, times)
def test_a_round_is_given_up_only_where_the_next_one_could_have_what_it_lacks(
    view: View, rules: RoundsSection, now: float
) -> None:
    """That is after its deadline, with nobody left who could answer it and enough live boards that were refused."""
    view = replace(view, phase="round", since_s=now - rules.deadline_s - 1, until_s=None)

    action = decide(view, rules, now).action

    lacks = rules.quorum - view.accepted
    could = view.live <= view.answered and 0 < lacks <= len(view.live & view.refused)
    assert isinstance(action, AbandonRound) == could
    early = decide(replace(view, since_s=now), rules, now).action
    assert not isinstance(early, AbandonRound)


@given(views(), rules_, times)
def test_it_is_deterministic_and_never_asks_to_wake_in_the_past(view: View, rules: RoundsSection, now: float) -> None:
    """Equal arguments give equal decisions; without an action the next look lies ahead."""
    decision = decide(view, rules, now)

    assert decision == decide(view, rules, now)
    assert decision.action is None or decision.wake_s is None
    assert decision.wake_s is None or decision.wake_s > now


@given(views(), rules_, times, st.integers(1, 5))
def test_nothing_ends_over_uploads_that_are_here_and_not_judged(
    view: View, rules: RoundsSection, now: float, unjudged: int
) -> None:
    """Neither quorum, grace nor deadline ends a round or profiling before they are judged, nor extends it; but an
    asynchronous round, whose quorum alone decides: what waits counts in the next."""
    waiting = replace(view, unjudged=unjudged)

    action = decide(waiting, rules, now).action

    assert not isinstance(action, BeginTraining | AbandonRound | Extend)
    if isinstance(action, CloseRound):
        assert rules.is_asynchronous and action == decide(view, rules, now).action


@given(views(), rules_, times)
def test_a_silent_board_holds_no_round_beyond_its_deadline(view: View, rules: RoundsSection, now: float) -> None:
    """With a quorum, whoever is missing: the round is closed once the deadline or the grace time is over."""
    view = replace(view, phase="round", accepted=rules.quorum, since_s=now - rules.deadline_s - 1, until_s=None)

    assert isinstance(decide(view, rules, now).action, CloseRound)


@given(views(), rules_, times)
def test_an_asynchronous_round_closes_with_its_quorum_and_never_without(
    view: View, rules: RoundsSection, now: float
) -> None:
    """Whoever is live, missing or late, and whatever the time is: the number of accepted updates alone decides."""
    rules = replace(rules, mode="asynchronous")
    view = replace(view, phase="round")

    action = decide(view, rules, now).action

    assert isinstance(action, CloseRound) == (view.accepted >= rules.quorum)
    if isinstance(action, Extend):
        assert action.until_s > now


def test_quorum_and_grace_close_a_round_before_its_deadline() -> None:
    """A live board that does not answer is waited for `grace_s` after the quorum, not until the deadline."""
    rules = rounds_section(total=1, min_devices=1, quorum=1, deadline_s=1000, grace_s=10, profile_deadline_s=10)
    view = View("round", 1, frozenset("ab"), frozenset("a"), 1, since_s=0.0, quorum_s=100.0)

    assert decide(view, rules, 105).wake_s == 110
    assert decide(view, rules, 110).action == CloseRound(1, "quorum and grace")


def test_all_live_boards_close_a_round_at_once() -> None:
    """Nobody is left to wait for."""
    rules = rounds_section(total=1, min_devices=1, quorum=1, deadline_s=1000, grace_s=10, profile_deadline_s=10)
    view = View("round", 1, frozenset("a"), frozenset("ab"), 2, since_s=0.0, quorum_s=1.0)

    assert decide(view, rules, 1.0).action == CloseRound(1, "all live boards answered")


@pytest.mark.slow
@settings(max_examples=60)
@given(rules_, st.data())
def test_a_run_ends_as_long_as_a_quorum_keeps_answering(rules: RoundsSection, data: st.DataObject) -> None:
    """A simulated fleet of which a quorum answers, late or not, and the rest comes and goes, reaches the end."""
    steady = frozenset("abcdef"[: max(rules.quorum, rules.min_devices)])
    phase: Phase = "profiling"
    round_id, now = 0, 0.0
    view = View(phase, 0, steady, frozenset(), 0, since_s=0.0)
    for _ in range(200):
        decision = decide(view, rules, now)
        match decision.action:
            case Finish():
                assert round_id == rules.total
                return
            case BeginRound(round=opened):
                assert opened == round_id + 1
                round_id = opened
                view = View("round", round_id, steady, frozenset(), 0, since_s=now)
            case CloseRound() | BeginTraining() | AbandonRound():
                view = View("between", round_id, view.live, frozenset(), 0, since_s=now)
            case Extend(until_s=until_s):
                assert until_s > now
                view = replace(view, until_s=until_s)
            case None:
                flaky = data.draw(names)
                waiting = sorted(steady - view.answered)
                late = data.draw(st.booleans())
                if waiting and not (late and decision.wake_s is not None):
                    answered = view.answered | {waiting[0]}
                    reached = len(answered) >= rules.quorum and view.quorum_s is None
                    view = replace(
                        view,
                        live=steady | flaky,
                        answered=answered,
                        accepted=len(answered),
                        quorum_s=now if reached else view.quorum_s,
                    )
                else:
                    assert decision.wake_s is not None, "nothing to wait for, and nobody to act"
                    now = decision.wake_s
    raise AssertionError("the run did not end")
