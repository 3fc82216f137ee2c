"""Token buckets: how often somebody may do something."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.http.guard import buckets
from aggregator.http.guard.buckets import Buckets, Rate

RATE = Rate(per_s=2.0, burst=5.0)

steps = st.lists(st.floats(0.0, 10.0), max_size=60)


@given(pauses=steps)
def test_nobody_gets_more_than_the_rate(pauses: Sequence[float]) -> None:
    """Over any time, at most the burst and what time has added since; and nothing less where it is asked for."""
    one, now, taken = Buckets(RATE), 0.0, 0
    for pause in pauses:
        now += pause
        taken += one.take("ada", now) == 0.0
        assert taken <= RATE.burst + RATE.per_s * now + 1e-9

    assert taken >= min(len(pauses), RATE.burst)


@given(pauses=steps)
def test_whoever_waits_as_long_as_told_is_let_through(pauses: Sequence[float]) -> None:
    """The time that is named is enough, and no less would be."""
    one, now = Buckets(RATE), 0.0
    for pause in pauses:
        now += pause / 100
        wait_s = one.take("ada", now)
        if wait_s:
            assert one.wait_s("ada", now + wait_s / 2) > 0
            now += wait_s + 1e-9
            assert one.take("ada", now) == 0.0


def test_keys_have_buckets_of_their_own() -> None:
    one = Buckets(RATE)
    for _ in range(5):
        assert one.take("ada", 0.0) == 0.0

    assert one.take("ada", 0.0) > 0.0 and one.take("bo", 0.0) == 0.0


def test_what_was_used_can_be_charged_afterwards() -> None:
    """Debt is paid back by time, and is never more than a burst."""
    one = Buckets(RATE)
    one.spend("ada", 0.0, 7.0)
    assert one.wait_s("ada", 0.0, amount=0.0) == pytest.approx(1.0)

    one.spend("ada", 0.0, 1e9)
    assert one.wait_s("ada", 0.0, amount=0.0) == pytest.approx(2.5)
    assert one.wait_s("ada", 3.0, amount=0.0) == 0.0


def test_memory_is_bounded_whatever_keys_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket that was unused for longest is forgotten; those in use are not."""
    monkeypatch.setattr(buckets, "MAX_KEYS", 10)
    one = Buckets(RATE)
    for number in range(1000):
        one.take(str(number), float(number))
        for _ in range(5):
            one.take("ada", float(number))

    assert len(one._levels) == 10 and one.take("ada", 999.0) > 0.0


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    one = Buckets(RATE)
    one.take("ada", 100.0)

    assert one.take("ada", 50.0) == 0.0
