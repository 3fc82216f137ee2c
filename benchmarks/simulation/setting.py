"""Settings of simulated federations, and the history of a run: losses and bytes, round by round."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

from benchmarks.simulation.texts import Partition
from braid_common.seeds import derive_seed
from braid_common.text_form import Cut
from wire.fields import Dtype
from wire.run import Keep, Personal, RewardLearning, Scope

Basis = Literal["drawn", "sketched"]
"""Where a run's first basis comes from: random rows, or the gradient sketches of the boards' profiles."""

Mix = Literal["uniform", "heavy-tail light", "heavy-tail strong", "equal"]

RANKS: dict[Mix, tuple[int, ...]] = {
    "uniform": (2, 2, 2, 4, 4, 8, 8, 16, 16, 16),
    "heavy-tail light": (2, 2, 2, 2, 2, 2, 2, 2, 8, 16),
    "heavy-tail strong": (16, 16, 16, 16, 16, 16, 16, 16, 8, 2),
    "equal": (8,) * 10,
}
"""Ranks of ten boards. The shares are FlexLoRA's (arXiv 2402.11505, its released code) as nearly as ten boards allow:
a quarter each; 80 % smallest and 10 % largest; 80 % largest and 5 % smallest."""


OPEN_END = 100_000
"""Rounds of a federation whose benchmark says when it ends. No round of it is the last, which asks for no sketches."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a federation trains the builtin base, whoever its boards are.

    Attributes:
        rule: how the server merges, which says what boards train.
        rounds: how many the run has.
        local_steps: optimiser steps of a round, of `batch` examples each.
        reward: how boards learn from rewards; None where they learn from right answers.
        max_rank: strands that each weight has.
        sketch_noise: standard deviation of Gaussian noise on every board's sketch, as a part of that sketch's root mean
            square, per weight.
        eta: the server's step; 0 for the optimiser's own.
        feedback: boards of quantised uploads keep what these lacked.
        differences: boards keep what they were sent, and are sent what changed since.
        max_source_tokens, max_target_tokens: what longer texts are cut to.
        truncate_source: the part that a longer source loses.
        personal: strands that each board has for itself; None for none.
        keep: what holds boards near the received model; None for nothing.
        nested: ranks that a pass of training draws from (train.nested); 0: it trains all strands.
        drift: how much less boards count that train a part of the model alone (merge.drift).
        cooldown: share of the rounds, the last ones, over which the learning rate falls (train.cooldown).
        basis: where the first basis comes from, if not from where the rule takes it.
    """

    rule: str
    learning_rate: float
    seed: int
    scope: Scope = "decoder"
    rounds: int = 10
    local_steps: int = 5
    batch: int = 4
    reward: RewardLearning | None = None
    max_rank: int = 16
    server_rank: int = 32
    sketch_every: int = 2
    sketch_noise: float = 0.0
    optimiser: str = "none"
    eta: float = 0.0
    upload: Dtype = "bf16"
    feedback: bool = True
    differences: bool = False
    max_source_tokens: int = 64
    max_target_tokens: int = 16
    truncate_source: Cut = "end"
    personal: Personal | None = None
    keep: Keep | None = None
    nested: int = 0
    drift: float = 0.0
    cooldown: float = 0.0
    basis: Basis | None = None


class Setting(Recipe, frozen=True, kw_only=True):
    """One run of a fleet of ten boards: its recipe, its boards, and when it is evaluated.

    Attributes:
        mix: the boards' ranks.
        partition: how text is spread over the boards; each has `n_train` and `n_held_out` examples.
        evaluate_every: rounds between evaluations.
        n_written: texts per board for ROUGE-L, after the last round.
        rank_factor: boards' ranks are so many times those of the mix.
        n_values: where it is not 0, boards have no ranks of the mix but as many strands as train at most so many
            values: a rule that trains B alone has more of them.
        missing: chance (0…1) that a board takes no part in a round.
        late: chance that a board's update comes a round late.
    """

    mix: Mix = "heavy-tail light"
    partition: Partition = "library"
    n_train: int = 100
    n_held_out: int = 20
    evaluate_every: int = 2
    n_written: int = 0
    rank_factor: int = 1
    n_values: int = 0
    missing: float = 0.0
    late: float = 0.0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The global adapter after `round` rounds.

    Attributes:
        up_bytes, down_bytes: encoded messages of all boards and of all rounds so far.
        train_s: CPU seconds of the boards' training so far.
        losses: in nats per target token, by board, on its own held-out text.
    """

    round: int
    up_bytes: int
    down_bytes: int
    losses: tuple[float, ...]
    train_s: float = 0.0

    @property
    def mean(self) -> float:
        """The mean loss over boards."""
        return sum(self.losses) / len(self.losses)

    @property
    def worst(self) -> float:
        """The mean loss of the worst tenth of boards."""
        count = max(1, len(self.losses) // 10)
        return sum(sorted(self.losses)[-count:]) / count


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one run.

    Attributes:
        rouge_l: mean F1 (0…1) of what the last adapter writes; None where nothing was written.
        failed: why the run ended early, "" where it did not.
        train_s, merge_s, cpu_s: CPU seconds of the boards' jobs, of the server's cutting and merging, and in all.
    """

    setting: Setting
    points: tuple[Point, ...]
    rouge_l: float | None = None
    failed: str = ""
    train_s: float = 0.0
    merge_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def key(self) -> Setting:
        """The run's name in the study."""
        return self.setting

    @property
    def line(self) -> str:
        """The run in one line."""
        loss = f"{self.points[0].mean:.4f} → {self.last.mean:.4f} mean, {self.last.worst:.4f} worst"
        failed = f", FAILED: {self.failed}" if self.failed else ""
        return f"{changed(self.setting, _DEFAULTS)}: {loss}{failed}; {self.cpu_s:.0f} CPU s"

    @property
    def last(self) -> Point:
        return self.points[-1]


_DEFAULTS = Setting(rule="", learning_rate=0, seed=0)


def changed(setting: Setting, base: Setting) -> str:
    """The values of `setting` that are not those of `base`, by name."""
    values, others = msgspec.to_builtins(setting), msgspec.to_builtins(base)
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != others[name])


def board_ranks(setting: Setting) -> tuple[int, ...]:
    """The boards' ranks: those of the mix or a multiple, in an order drawn by the seed, so that no source is always the
    small one."""
    ranks = [setting.rank_factor * rank for rank in RANKS[setting.mix]]
    random.Random(derive_seed(setting.seed, "ranks", setting.mix)).shuffle(ranks)
    return tuple(ranks)
