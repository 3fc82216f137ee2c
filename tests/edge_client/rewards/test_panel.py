"""The rewards of a board together, and what becomes of one that fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_client.errors import ConfigError
from edge_client.jobs.reward_spec import ModelReward, Reward, read_rewards
from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.panel import Judge, Panel

ANSWERS = [JudgedAnswer("what?", ("one tea",), ("one tea",), text) for text in ("one tea", "one big beer", "")]
LENGTH = {"kind": "length", "at_most": 2, "weight": 2.0}
NO_BEER = {"kind": "words", "block": ["beer"], "weight": -1.0, "name": "no-beer"}
BROKEN = {"kind": "program", "command": ["/no/such/judge"], "weight": 5.0}


def panel(*tables: dict[str, object], model: Judge | None = None) -> Panel:
    def judge_of_model(reward: ModelReward) -> Judge:
        assert model is not None, reward
        return model

    return Panel(rewards(*tables), judge_of_model)


def rewards(*tables: dict[str, object]) -> tuple[Reward, ...]:
    return read_rewards(list(tables), Path("edge-client.toml"))


def test_the_total_is_the_weighted_sum() -> None:
    """A weight below zero makes a price of a reward: two boards may want opposite things."""
    scores = panel(LENGTH, NO_BEER)(ANSWERS)

    assert scores.each == {"length": (1.0, 0.5, 1.0), "no-beer": (1.0, 0.0, 1.0)}
    assert scores.total == (1.0, 1.0, 1.0)


def test_a_failing_reward_is_left_out_to_the_rounds_end() -> None:
    """The round goes on with the others, and the reason is kept for the board's log."""
    judges = panel(BROKEN, LENGTH)

    assert judges(ANSWERS).total == (2.0, 1.0, 2.0)
    assert judges(ANSWERS).each.keys() == {"length"}
    assert judges.failed == {"program": "/no/such/judge cannot be started: No such file or directory"}


def test_a_failing_reward_ends_the_round_where_that_is_configured() -> None:
    with pytest.raises(ConfigError, match=r"reward program fails: /no/such/judge cannot be started"):
        panel(BROKEN | {"on_failure": "stop"}, LENGTH)(ANSWERS)


def test_a_round_without_any_reward_ends() -> None:
    """There would be nothing to learn from, and a board that trains on nothing looks like one that is fine."""
    with pytest.raises(ConfigError, match="every reward fails, at last program: "):
        panel(BROKEN)(ANSWERS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e7])
def test_rewards_that_are_not_finite_count_as_failed(value: float) -> None:
    """One NaN would make the advantage of every answer of its group NaN, and the update with it."""

    def broken(answers: Sequence[JudgedAnswer]) -> list[float]:
        return [0.5, value, 0.5]

    judges = panel({"kind": "model", "path": "head"}, LENGTH, model=broken)

    assert judges(ANSWERS).each.keys() == {"length"}
    assert "it gives" in judges.failed["model"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"kind": "taste"}, "Invalid value 'taste'"),
        ({"kind": "overlap", "weigth": 1}, "weigth"),
        ({"kind": "overlap", "weight": 0}, "weighs nothing"),
        ({"kind": "overlap", "weight": math.nan}, "weight"),
        ({"kind": "length"}, "at_most"),
        ({"kind": "length", "at_least": 5, "at_most": 2}, "at least 5 words and at most 2"),
        ({"kind": "words"}, "has no words"),
        ({"kind": "program", "command": []}, "command"),
        ({"kind": "program", "command": "judge"}, "command"),
        ({"kind": "program", "command": ["judge"], "timeout_s": 0}, "timeout_s"),
        ({"kind": "overlap", "on_failure": "retry"}, "retry"),
    ],
)
def test_a_wrong_table_is_refused_with_its_file(table: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rewards(table)

    assert refused.value.message.startswith("edge-client.toml: ")
    assert says in refused.value.message


def test_two_rewards_of_a_name_are_refused() -> None:
    """Their means could not be told apart in what a board reports."""
    with pytest.raises(ConfigError, match="two rewards are called 'overlap'"):
        rewards({"kind": "overlap"}, {"kind": "overlap", "weight": 2})
