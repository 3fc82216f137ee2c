"""Settings that the memory model is measured on: one round of training, or one encoding pass, each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from braid_common.base.t5_config import T5Config
from braid_common.seeds import derive_seed
from edge_client.jobs.messages import CacheDtype, Compute, Format, TrainingMode
from wire.checks import basis_rank
from wire.default_run import run_info
from wire.fields import Dtype
from wire.manifest import t5_weights
from wire.messages import Trains
from wire.run import RunInfo, Scope, TrainSettings

BUILTIN = "builtin"
SEED = 7
MAX_RANK = 32

ENCODED_SOURCES = 32
"""Sources that the encoding pass reads: of 512 tokens more than run through a block together, and than wait for it."""

Work = Literal["decoder", "all", "all, encoder frozen", "encoding"]
"""The weights that a round trains, or "encoding": the pass over the sources before a profile or a round, alone."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One round of one board.

    Attributes:
        source, target: lengths in tokens, which no text falls short of but the builtin base's.
        share: part (0…1) of all strands that could be trained.
        uneven: they are spread over the weights as a ranking might, from none of a weight to all of it; else evenly.
        trains: the factors that the round trains. Where A is one, boards begin at the global adapter.
        upload: of what was trained. Quantised ones have residuals: two rounds before are then run as well.
        compute: "" for what a board with bf16 products takes: fp32 for an fp32 base, bf16 for the others.
        quick: whether it belongs to the few that show a mistake soonest.
    """

    base: str
    format: Format
    work: Work
    micro_batch: int
    source: int
    target: int
    share: float = 0.25
    uneven: bool = False
    cache: CacheDtype = "none"
    checkpointing: bool = False
    trains: Trains = "b"
    upload: Dtype = "bf16"
    compute: Compute | Literal[""] = ""
    max_rank: int = MAX_RANK
    steps: int = 2
    quick: bool = False

    @property
    def mode(self) -> TrainingMode:
        """How the board trains."""
        return TrainingMode(
            format=self.format,
            compute=self.compute or ("fp32" if self.format == "fp32" else "bf16"),
            micro_batch=self.micro_batch,
            checkpointing=self.checkpointing,
            cache="bf16" if self.work == "encoding" else self.cache,
            frozen_encoder=self.frozen_encoder,
        )

    @property
    def scope(self) -> Scope:
        return "all" if self.work.startswith("all") else "decoder"

    @property
    def frozen_encoder(self) -> bool:
        return self.work == "all, encoder frozen"


SETTINGS = (
    # The builtin base, on texts of all lengths.
    Setting(BUILTIN, "bf16", "all", 16, 192, 32, 1.0, steps=12, quick=True),
    Setting(BUILTIN, "fp32", "all", 32, 192, 32, 1.0, steps=6),
    Setting(BUILTIN, "nf4", "all", 32, 192, 32, 0.25, steps=12),
    Setting(BUILTIN, "int8", "all", 32, 192, 32, 1.0, checkpointing=True, steps=12),
    Setting(BUILTIN, "bf16", "decoder", 16, 192, 32, 0.5, steps=12),
    Setting(BUILTIN, "bf16", "decoder", 32, 192, 32, 1.0, cache="bf16", steps=12, quick=True),
    Setting(BUILTIN, "fp32", "decoder", 32, 192, 32, 1.0, cache="int8", steps=12),
    Setting(BUILTIN, "int8", "decoder", 1, 64, 16, 1 / 16, cache="int8"),
    Setting(BUILTIN, "nf4", "all, encoder frozen", 8, 512, 64, 0.5, uneven=True, steps=12),
    Setting(BUILTIN, "int8", "decoder", 2, 192, 32, 0.25, compute="fp32", steps=12),
    Setting(BUILTIN, "bf16", "encoding", 1, 192, 32),
    # The small shape.
    Setting("small", "bf16", "all", 4, 512, 64, 0.5, quick=True),
    Setting("small", "nf4", "all", 4, 512, 64, 0.5, checkpointing=True),
    Setting("small", "fp32", "all", 2, 512, 64, 0.25),
    Setting("small", "int8", "all", 1, 64, 16, 1.0, uneven=True, max_rank=64, quick=True),
    Setting("small", "nf4", "all", 2, 1024, 64, 1 / 16),
    Setting("small", "fp32", "all", 4, 192, 32, 1.0, uneven=True, checkpointing=True),
    Setting("small", "bf16", "all", 8, 50, 10, 0.25, checkpointing=True),
    Setting("small", "int8", "all", 2, 192, 32, 0.5, compute="fp32", quick=True),
    Setting("small", "bf16", "decoder", 4, 512, 64, 0.5),
    Setting("small", "fp32", "decoder", 1, 1024, 64, 1 / 16, uneven=True),
    Setting("small", "nf4", "decoder", 8, 192, 32, 1.0, max_rank=8, checkpointing=True),
    Setting("small", "nf4", "decoder", 4, 512, 64, 0.5, cache="bf16", quick=True),
    Setting("small", "int8", "decoder", 4, 512, 64, 0.5, cache="int8", checkpointing=True),
    Setting("small", "fp32", "decoder", 4, 512, 64, 0.25, cache="bf16"),
    Setting("small", "bf16", "decoder", 8, 1024, 64, 1.0, uneven=True, cache="int8"),
    Setting("small", "nf4", "decoder", 1, 64, 16, 0.25, cache="bf16", compute="fp32", quick=True),
    Setting("small", "bf16", "all, encoder frozen", 4, 512, 64, 0.5, quick=True),
    Setting("small", "int8", "all, encoder frozen", 1, 192, 32, 1.0, checkpointing=True),
    Setting("small", "fp32", "all, encoder frozen", 2, 64, 16, 1 / 16, uneven=True),
    Setting("small", "bf16", "all", 4, 512, 64, 0.5, trains="both", quick=True),
    Setting("small", "nf4", "decoder", 4, 512, 64, 0.25, cache="bf16", trains="both"),
    Setting("small", "int8", "all", 1, 64, 16, 1.0, uneven=True, trains="a"),
    Setting("small", "nf4", "decoder", 1, 64, 16, 1.0, cache="bf16", upload="int8", quick=True),
    Setting("small", "nf4", "decoder", 1, 64, 16, 1.0, cache="bf16", trains="both", upload="int4"),
    Setting("small", "fp32", "encoding", 1, 1024, 64),
    Setting("small", "int8", "encoding", 1, 512, 64, compute="fp32"),
    # The base shape.
    Setting("base", "int8", "all", 2, 512, 64, 0.25),
    Setting("base", "nf4", "all", 4, 512, 64, 0.25, checkpointing=True),
    Setting("base", "bf16", "all", 1, 1024, 64, 1 / 16, uneven=True),
    Setting("base", "nf4", "all", 1, 64, 16, 1.0, quick=True),
    Setting("base", "fp32", "all", 2, 192, 32, 0.5, checkpointing=True),
    Setting("base", "bf16", "decoder", 4, 512, 64, 0.5, cache="bf16"),
    Setting("base", "nf4", "decoder", 4, 512, 64, 0.25, cache="int8", checkpointing=True, quick=True),
    Setting("base", "int8", "decoder", 8, 192, 32, 1.0, uneven=True, cache="int8"),
    Setting("base", "fp32", "decoder", 1, 192, 32, 0.5, cache="bf16"),
    Setting("base", "nf4", "decoder", 4, 512, 64, 0.25),
    Setting("base", "int8", "decoder", 2, 1024, 64, 0.25, checkpointing=True),
    Setting("base", "bf16", "decoder", 8, 64, 16, 1 / 16),
    Setting("base", "nf4", "all, encoder frozen", 8, 192, 32, 0.25),
    Setting("base", "bf16", "all, encoder frozen", 1, 512, 64, 1.0, uneven=True, checkpointing=True),
    Setting("base", "bf16", "encoding", 1, 512, 64),
    # The large shape.
    Setting("large", "nf4", "decoder", 1, 512, 64, 0.25, cache="int8", checkpointing=True, quick=True),
    Setting("large", "int8", "decoder", 2, 192, 32, 0.5, cache="bf16"),
    Setting("large", "nf4", "decoder", 4, 64, 16, 1 / 16, uneven=True),
    Setting("large", "nf4", "all", 1, 192, 32, 0.25, uneven=True),
    Setting("large", "int8", "all", 2, 512, 64, 1 / 16, checkpointing=True),
    Setting("large", "nf4", "all, encoder frozen", 2, 192, 32, 0.25),
    Setting("large", "nf4", "encoding", 1, 512, 16),
)


def run_of(setting: Setting, base: T5Config) -> RunInfo:
    """The run of a server that asks for `setting` on a base of these sizes."""
    settings = TrainSettings(
        scope=setting.scope,
        learning_rate=0.002,
        batch=setting.micro_batch,
        micro_batch=setting.micro_batch,
        local_steps=setting.steps,
        max_source_tokens=setting.source,
        max_target_tokens=setting.target,
        upload=setting.upload,
        trains_a=setting.trains != "b",
        sketch_batches=ENCODED_SOURCES if setting.work == "encoding" else 2,
        seed=SEED,
    )
    weights = t5_weights(base, setting.scope)
    return run_info(weights, settings, max_rank=setting.max_rank, server_rank=setting.max_rank)


def ranks_of(setting: Setting, run: RunInfo) -> tuple[int, ...]:
    """Strands of every weight, none of a frozen encoder's."""
    rng = random.Random(derive_seed(SEED, "ranks"))
    ranks = []
    for weight in run.weights:
        most = basis_rank(weight, run.max_rank)
        # 5·u⁴ has mean 1: of most weights few strands, of some all.
        wanted = setting.share * most * (5 * rng.random() ** 4 if setting.uneven else 1)
        is_trained = not (setting.frozen_encoder and weight.is_encoder)
        ranks.append(min(most, round(wanted)) if is_trained else 0)
    return tuple(ranks)
