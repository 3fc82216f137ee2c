"""Runs of benchmarks.rewards: their conditions, texts and outcomes. Loads no tensor library."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

import builtin_base
from benchmarks.simulation.text_sets import read_clients, shared_out, subset
from benchmarks.study.runner import Study
from braid_common.base.files import read_t5_config
from braid_common.example import Example
from braid_common.text_form import DEFAULT_PREFIX, TextForm
from edge_client.data.tokeniser import Tokeniser
from edge_client.jobs.reward_spec import LengthReward, OverlapReward, Reward, ToolCallReward
from wire.run import Advantage

RIGHT = (OverlapReward(), ToolCallReward())
"""Two rewards that both ask for the right answer: by its words, and as a call."""

LONG = LengthReward(name="long", at_least=10, at_most=60)
SHORT = LengthReward(name="short", at_least=1, at_most=3)
"""Opposites: most of the right answers have four words, `call: get_menu_items {"query": "Latte"}`."""

LONG_BOARD = (OverlapReward(), ToolCallReward(), LONG)
SHORT_BOARD = (OverlapReward(), ToolCallReward(), SHORT)

JUDGED = (OverlapReward(), ToolCallReward(), LONG, SHORT)
"""What all answers are judged by, whatever their board learned from."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A way of going on after the warm start.

    Attributes:
        learns: from rewards, or on from right answers.
        advantage, kl: as in run.toml's [reward].
        rewards: of each board; there are as many boards as these.
    """

    learns: bool = True
    advantage: Advantage = "group"
    kl: float = 0.05
    rewards: tuple[tuple[Reward, ...], ...] = (RIGHT,)


CONDITIONS = {
    "right answers": Condition(learns=False),
    "rewards": Condition(),
    "rewards, kl 0": Condition(kl=0.0),
    "rewards, baseline": Condition(advantage="baseline"),
    "opposite boards": Condition(rewards=(LONG_BOARD, SHORT_BOARD)),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that all runs of a study share.

    Attributes:
        warm_rounds, warm_steps, warm_batch, warm_learning_rate: learning from right answers, before all else.
        rounds, local_steps, batch: what comes after it; learning_rate: of learning from rewards.
        own_steps: of a board by itself after the last merge, where boards want different things.
        n_boards: each has scenarios of its own, and `n_train` examples.
        n_test: contexts of dialogues that no board has.
        samples: answers to each context, in training and where it is judged.
        n_strands: of each weight.
    """

    warm_rounds: int
    warm_steps: int
    warm_batch: int
    warm_learning_rate: float
    rounds: int
    local_steps: int
    own_steps: int
    batch: int
    learning_rate: float
    samples: int
    n_boards: int
    n_train: int
    n_test: int
    n_strands: int
    seeds: tuple[int, ...]
    max_source_tokens: int
    max_target_tokens: int


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter's answers, judged. A word is what stands between spaces.

    Attributes:
        greedy, sampled: the mean of each reward, by its title, over the likeliest answers and over drawn ones.
        greedy_words, sampled_words: mean lengths.
        kl: nats per token of the drawn answers to the adapter that they are compared with; 0 where that is the same.
        loss: nats per token of the right answers.
    """

    greedy: dict[str, float]
    sampled: dict[str, float]
    greedy_words: float
    sampled_words: float
    kl: float
    loss: float


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a run."""

    condition: str
    seed: int


class Run(Work, frozen=True, kw_only=True):
    """A run's outcome: the adapter after the warm start, the merged one at the end, and where boards want different
    things each one's own, `own_steps` after that."""

    warm: Judged
    merged: Judged
    own: tuple[Judged, ...]
    cpu_s: float

    @property
    def key(self) -> Work:
        """The run's name in the study."""
        return Work(condition=self.condition, seed=self.seed)

    @property
    def line(self) -> str:
        """The run in one line."""
        rewards = ", ".join(
            f"{title} {self.warm.sampled[title]:.3f} → {value:.3f}" for title, value in self.merged.sampled.items()
        )
        return f"{self.condition}, seed {self.seed}: {rewards}; kl {self.merged.kl:.3f}; {self.cpu_s:.0f} CPU s"


class RewardStudy(Study, frozen=True, kw_only=True):
    """All that is known."""

    settings: Settings
    runs: tuple[Run, ...] = ()


# --- text ------------------------------------------------------------------------------------------------------------


def texts(folder: Path, settings: Settings) -> tuple[list[list[Example]], list[Example]]:
    """Training text of each board, of scenarios of its own, and contexts to judge by. None is longer than is read: what
    is cut cannot be answered. Raises DataError where the files are not there."""
    train, test = (_short(folder / f"coffee.{part}.jsonl", settings) for part in ("train", "test"))
    boards = shared_out(train, settings.n_boards, settings.n_train)
    return boards, subset([example for _, example in test], settings.n_test, 0)


@cache
def _short(path: Path, settings: Settings) -> list[tuple[str, Example]]:
    config = read_t5_config(builtin_base.folder())
    tokeniser = Tokeniser(builtin_base.folder(), config.eos_id, config.vocab_size)
    form = TextForm(DEFAULT_PREFIX, settings.max_source_tokens, settings.max_target_tokens, "end")
    return [
        (client, example)
        for client, example in read_clients(path)
        if not tokeniser.cuts(example.source, form)
        and tokeniser.count(example.target, form.max_target_tokens + 1) <= form.max_target_tokens
    ]
