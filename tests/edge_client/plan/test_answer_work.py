"""The time of a round that learns from rewards: it is planned for as what it does more."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import TrainingMode
from edge_client.plan.cache_budget import NO_CACHE
from edge_client.plan.round_cost import AnswerWork, RoundWork
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RewardLearning


def operations(**learning: Any) -> float:
    """Of a round; without arguments of one that learns from right answers."""
    run = run_of(SMALL_T5, {"scope": "decoder", "reward": RewardLearning(**learning) if learning else UNSET})
    mode = TrainingMode(format="int8", compute="fp32", micro_batch=4)
    return RoundWork(T5Config.parse(SMALL_T5), run, NO_CACHE).operations(mode)


def test_each_answer_costs_more_than_an_example() -> None:
    """It is trained on like one, and written and compared with the received adapter besides."""
    plain = operations()

    assert operations(samples=4) > 4 * plain
    assert operations(samples=8) > 1.8 * operations(samples=4)


def test_answers_that_are_used_again_are_written_less_often() -> None:
    assert operations(samples=4, reuse=4) < operations(samples=4)
    assert operations(samples=4, kl=0.0) < operations(samples=4)


@pytest.mark.parametrize(
    ("learning", "passes"), [({}, 2.0), ({"kl": 0.0}, 1.0), ({"reuse": 2}, 1.5), ({"reuse": 2, "kl": 0.0}, 1.0)]
)
def test_passes_without_gradients_are_counted(learning: dict[str, Any], passes: float) -> None:
    """Writing, the received adapter where a round stays near it, the policy that wrote where answers are used again."""
    settings = run_of(SMALL_T5, {"reward": RewardLearning(**learning)}).settings

    assert AnswerWork.of(settings).forward_passes == passes
