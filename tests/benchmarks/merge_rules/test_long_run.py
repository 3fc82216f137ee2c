"""What a long run says of its rules."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks.merge_rules import long_run
from tests.fakes.histories import history, point


def test_what_boards_had_once_and_lost_is_forgotten() -> None:
    """Each board's last loss over its own lowest one, though the mean stayed where it was."""
    run = msgspec.structs.replace(history(0.1, []), points=(point(0, [5, 5]), point(1, [4, 3]), point(2, [3, 4])))

    assert long_run.forgotten(run) == pytest.approx(0.5)
    assert long_run.row(run)[-2] == "0.500"


def test_what_stands_beside_a_rule_is_tried_with_the_default_one_alone() -> None:
    """At the first rate that is named for it, and no run is there twice."""
    planned = list(long_run.settings([("fedsvd", 0.008), ("delta", 0.004), ("fedsvd", 0.004)], rounds=7))

    assert len(set(planned)) == len(planned) == 6
    beside = [setting for setting in planned if setting.optimiser != "none" or setting.cooldown]
    assert [(setting.rule, setting.learning_rate) for setting in beside] == [("fedsvd", 0.008)] * 3
    assert {setting.rounds for setting in planned} == {7}
    varied = {
        setting.rule for setting in long_run.settings([("fedsvd", 1), ("delta", 1)], 7, "delta") if setting.cooldown
    }
    assert varied == {"delta"}
