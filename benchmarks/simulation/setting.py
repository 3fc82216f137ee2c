"""What a simulated fleet is told, and what it says of its run."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

from benchmarks.simulation.texts import Partition
from braid_common.seeds import derive_seed
from wire.messages import Dtype

Mix = Literal["uniform", "heavy-tail light", "heavy-tail strong", "equal"]

RANKS: dict[Mix, tuple[int, ...]] = {
    "uniform": (2, 2, 2, 4, 4, 8, 8, 16, 16, 16),
    "heavy-tail light": (2, 2, 2, 2, 2, 2, 2, 2, 8, 16),
    "heavy-tail strong": (16, 16, 16, 16, 16, 16, 16, 16, 8, 2),
    "equal": (8,) * 10,
}
"""Ranks of ten boards. The shares are FlexLoRA's (arXiv 2402.11505, its released code) as nearly as ten boards allow:
a quarter each; 80 % smallest and 10 % largest; 80 % largest and 5 % smallest."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    `sketch_noise`: standard deviation of Gaussian noise on every board's sketch, as a part of that sketch's root mean
    square, per weight. `eta`: the server's step, 0 for the optimiser's own. `feedback`: boards of quantised uploads
    keep what these lacked. `differences`: boards keep what they were sent, and are sent what changed since.
    `n_written`: texts per board for ROUGE-L. Lengths are in tokens.
    """

    rule: str
    learning_rate: float
    seed: int
    mix: Mix = "heavy-tail light"
    partition: Partition = "library"
    rounds: int = 10
    local_steps: int = 5
    batch: int = 4
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
    n_train: int = 100
    n_held_out: int = 20
    evaluate_every: int = 2
    n_written: int = 0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The global adapter after `round` rounds, which took these bytes of encoded messages, all boards and rounds before
    it together. `losses`: in nats per target token, by board, on its own held-out text."""

    round: int
    up_bytes: int
    down_bytes: int
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over boards."""
        return sum(self.losses) / len(self.losses)

    @property
    def worst(self) -> float:
        """Of the worst tenth of boards."""
        count = max(1, len(self.losses) // 10)
        return sum(sorted(self.losses)[-count:]) / count


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave.

    `rouge_l`: mean F1 (0…1) of what the last adapter writes; None where nothing was written. `failed`: why it ended
    early, "" where it did not. `train_s`, `merge_s`: CPU seconds of the boards' jobs, and of the server's cutting and
    merging.
    """

    setting: Setting
    points: tuple[Point, ...]
    rouge_l: float | None = None
    failed: str = ""
    train_s: float = 0.0
    merge_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def last(self) -> Point:
        return self.points[-1]


def board_ranks(setting: Setting) -> tuple[int, ...]:
    """The boards' ranks: those of the mix, in an order drawn by the seed, so that no source is always the small one."""
    ranks = list(RANKS[setting.mix])
    random.Random(derive_seed(setting.seed, "ranks", setting.mix)).shuffle(ranks)
    return tuple(ranks)
