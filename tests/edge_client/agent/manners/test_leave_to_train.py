"""Whether a board may train, decided for any time, temperature and supply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.agent.manners.leave_to_train import (
    ASK_AGAIN_S,
    DAY_S,
    HYSTERESIS_K,
    LOOK_EVERY_S,
    Facts,
    Objection,
    Rules,
    Window,
    objection,
)

seconds = st.integers(0, DAY_S - 1)
windows = st.tuples(seconds, seconds).filter(lambda pair: pair[0] != pair[1]).map(lambda pair: Window(*pair))
rules = st.builds(
    Rules,
    st.lists(windows, max_size=3).map(tuple),
    st.none() | st.floats(30, 110),
    st.booleans(),
)
facts = st.builds(Facts, seconds, st.none() | st.floats(-40, 150), st.booleans())

NIGHT = Rules(windows=(Window(22 * 3600, 6 * 3600),))


def at(hour: int, minute: int = 0) -> Facts:
    return Facts(3600 * hour + 60 * minute)


@pytest.mark.parametrize(
    ("facts", "waits_s"),
    [(at(22), 0), (at(5, 59), 0), (at(0), 0), (at(6), 16 * 3600), (at(21, 59), 60), (at(12), 10 * 3600)],
)
def test_a_window_may_go_over_midnight(facts: Facts, waits_s: int) -> None:
    """Its start is in it and its end is not; outside, the wait is until it opens."""
    found = objection(NIGHT, facts)

    assert (0 if found is None else found.least_s) == waits_s
    assert found is None or found.why == "waits for 22:00"


def test_of_several_windows_the_next_is_waited_for() -> None:
    two = Rules(windows=(Window(22 * 3600, 6 * 3600), Window(12 * 3600, 13 * 3600)))

    found = objection(two, at(8))

    assert found is not None and (found.why, found.least_s) == ("waits for 12:00", 4 * 3600)
    assert objection(two, at(12, 30)) is None


def test_a_clock_that_is_put_back_is_followed() -> None:
    """At the end of summer time the hour from 2 to 3 comes twice: the board trains in both, and a wait is never
    counted down from an older time."""
    early = Rules(windows=(Window(2 * 3600, 3 * 3600),))
    answers = [
        objection(early, at(2, 59)),
        objection(early, at(3)),
        objection(early, at(2)),
        objection(early, at(2, 59)),
    ]

    assert [answer is None for answer in answers] == [True, False, True, True]
    assert all(answer.ask_again_s <= ASK_AGAIN_S for answer in answers if answer is not None)


def test_heat_has_to_pass_by_a_margin() -> None:
    """Else a board at its limit would stop and start at every look."""
    limit = Rules(below_c=70.0)
    hot = objection(limit, Facts(0, 70.5))

    assert hot is not None and hot.why == "70.5 °C, waits for below 65 °C"
    assert objection(limit, Facts(0, 69.0)) is None, "it was not too hot before"
    assert objection(limit, Facts(0, 69.0), hot) is not None
    assert objection(limit, Facts(0, 65.0), hot) is not None
    assert objection(limit, Facts(0, 64.9), hot) is None


def test_all_that_speaks_against_it_is_told() -> None:
    every = Rules(windows=NIGHT.windows, below_c=70.0, only_on_mains=True)

    found = objection(every, Facts(12 * 3600, 80.0, on_battery=True))

    assert found is not None and found.kinds == {"hours", "battery", "heat"}
    assert found.why == "waits for 22:00; on battery, waits for mains; 80.0 °C, waits for below 65 °C"


def test_a_temperature_that_cannot_be_read_holds_nothing_up() -> None:
    """Also of a board that was too hot: a sensor that is gone would else stop it for good."""
    limit = Rules(below_c=70.0)

    assert objection(limit, Facts(0, None), objection(limit, Facts(0, 90.0))) is None


@given(rules, facts, st.none() | st.builds(Objection, st.sets(st.sampled_from(["heat"])).map(frozenset), st.just("")))
def test_an_objection_has_a_rule_that_is_broken(rules: Rules, facts: Facts, before: Objection | None) -> None:
    """Each kind only where its rule is set and the facts break it; and every broken rule objects."""
    found = objection(rules, facts, before)
    kinds = found.kinds if found is not None else frozenset()

    is_open = not rules.windows or any(window.holds(facts.second) for window in rules.windows)
    assert ("hours" in kinds) == (not is_open)
    assert ("battery" in kinds) == (rules.only_on_mains and facts.on_battery)
    if rules.below_c is None or facts.temperature_c is None:
        assert "heat" not in kinds
    elif facts.temperature_c >= rules.below_c:
        assert "heat" in kinds
    elif facts.temperature_c < rules.below_c - HYSTERESIS_K:
        assert "heat" not in kinds
    if found is not None:
        assert found.why and LOOK_EVERY_S <= found.ask_again_s <= ASK_AGAIN_S


@given(st.lists(windows, min_size=1, max_size=3), seconds)
def test_the_wait_ends_when_a_window_opens(open_at: list[Window], second: int) -> None:
    """Not earlier and not later: at its end training is allowed, and at no time before."""
    hours = Rules(windows=tuple(open_at))
    found = objection(hours, Facts(second))

    if found is not None:
        assert objection(hours, Facts((second + found.least_s) % DAY_S)) is None
        for part in range(1, 20):
            assert objection(hours, Facts((second + found.least_s * part // 20) % DAY_S)) is not None


@given(facts)
def test_without_rules_a_board_always_may(facts: Facts) -> None:
    assert objection(Rules(), facts) is None and not Rules()
