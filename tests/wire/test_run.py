"""What a run's settings say of each of its rounds."""

from __future__ import annotations

import msgspec
import pytest

from tests.wire.test_golden import RUN, SETTINGS
from wire.run import RunInfo


def run(rounds: int, **settings: float) -> RunInfo:
    return msgspec.structs.replace(RUN, rounds=rounds, settings=msgspec.structs.replace(SETTINGS, **settings))


def test_the_step_size_stays_where_no_cooldown_is_asked_for() -> None:
    """In the first round and in the last."""
    assert {run(15, learning_rate=0.1).learning_rate_in(round_id) for round_id in range(1, 16)} == {0.1}


def test_the_step_size_falls_in_a_line_over_the_last_rounds() -> None:
    """Half of seven rounds is three; none of them trains at 0."""
    falling = run(7, learning_rate=0.4, cooldown=0.5)

    assert [falling.learning_rate_in(n) for n in range(1, 8)] == pytest.approx([0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1])


def test_a_run_that_is_made_longer_trains_at_full_rate_again() -> None:
    """And a board that has not heard of it yet goes on at the last rate, not at one below 0."""
    assert run(40, learning_rate=0.4, cooldown=0.5).learning_rate_in(8) == 0.4
    assert run(7, learning_rate=0.4, cooldown=0.5).learning_rate_in(9) == pytest.approx(0.1)
