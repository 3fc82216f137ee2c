"""The rewards of a board together (PFIT, arXiv 2404.13238): each judges every answer, and their weighted sum is what is
learned from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from edge_client.errors import ConfigError
from edge_client.jobs.reward_spec import (
    LengthReward,
    ModelReward,
    OverlapReward,
    ProgramReward,
    Reward,
    ToolCallReward,
    WordsReward,
)
from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.errors import RewardFailed
from edge_client.rewards.program import RewardProgram
from edge_client.rewards.text_rewards import Overlap, length_reward, tool_call_reward, words_reward

Judge = Callable[[Sequence[JudgedAnswer]], Sequence[float]]
"""Gives a number for each answer; raises RewardFailed where it cannot."""

MAX_REWARD = 1e6
"""Largest amount of one reward: beyond it the others vanish beside it in double precision."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Rewards of some answers, in their order.

    Attributes:
        total: the weighted sums.
        each: by the reward's title; without those that have failed.
    """

    total: tuple[float, ...]
    each: Mapping[str, tuple[float, ...]]


class Panel:
    """The judges of one round.

    Args:
        rewards: the board's.
        judge_of_model: makes the judge of a reward model, which needs the base.

    Attributes:
        failed: why a reward was left out, by its title.
    """

    def __init__(self, rewards: Sequence[Reward], judge_of_model: Callable[[ModelReward], Judge]) -> None:
        self._rewards, self._judge_of_model = tuple(rewards), judge_of_model
        self._judges: dict[str, Judge] = {}
        self.failed: dict[str, str] = {}

    def __call__(self, answers: Sequence[JudgedAnswer]) -> Scores:
        """Score answers. Raises ConfigError where a reward fails that is not to be skipped, or the last one does."""
        each: dict[str, tuple[float, ...]] = {}
        for reward in self._rewards:
            if reward.title not in self.failed:
                try:
                    each[reward.title] = _finite(self._judge(reward)(answers))
                except RewardFailed as failure:
                    self.leave_out(reward.title, str(failure))
        weights = {reward.title: reward.weight for reward in self._rewards}
        total = tuple(
            math.fsum(weights[title] * values[i] for title, values in each.items()) for i in range(len(answers))
        )
        return Scores(total, each)

    def leave_out(self, title: str, why: str) -> None:
        """Do without a reward to the end of the round. Raises ConfigError as a call does."""
        reward = next(reward for reward in self._rewards if reward.title == title)
        self.failed[title] = why
        if reward.on_failure == "stop":
            raise ConfigError(f"reward {title} fails: {why}", 'mend it, or give it on_failure = "skip"')
        if len(self.failed) == len(self._rewards):
            raise ConfigError(f"every reward fails, at last {title}: {why}", "mend them, or configure another reward")

    def close(self) -> None:
        """End the programs that were started."""
        for judge in self._judges.values():
            if isinstance(judge, RewardProgram):
                judge.close()

    def _judge(self, reward: Reward) -> Judge:
        if reward.title not in self._judges:
            self._judges[reward.title] = self._new_judge(reward)
        return self._judges[reward.title]

    def _new_judge(self, reward: Reward) -> Judge:
        if isinstance(reward, OverlapReward):
            return Overlap()
        if isinstance(reward, ToolCallReward):
            return _one_by_one(tool_call_reward)
        if isinstance(reward, LengthReward):
            of_length = partial(length_reward, at_least=reward.at_least, at_most=reward.at_most)
            return _one_by_one(lambda answer: of_length(answer.text))
        if isinstance(reward, WordsReward):
            of_words = partial(words_reward, allow=reward.allow, block=reward.block)
            return _one_by_one(lambda answer: of_words(answer.text))
        if isinstance(reward, ProgramReward):
            return RewardProgram(reward.command, reward.timeout_s)
        return self._judge_of_model(reward)


def _one_by_one(reward_of: Callable[[JudgedAnswer], float]) -> Judge:
    return lambda answers: [reward_of(answer) for answer in answers]


def _finite(values: Sequence[float]) -> tuple[float, ...]:
    for value in values:
        if not -MAX_REWARD <= value <= MAX_REWARD:
            raise RewardFailed(f"it gives {value}, and a reward is a number from -{MAX_REWARD:g} to {MAX_REWARD:g}")
    return tuple(values)
