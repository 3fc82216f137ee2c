"""The models that a GPU trains: their sizes, where they begin, and how fast they learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builtin_base.training.settings import Settings

CARRIED = "small"
"""The size that the shipped base has; the run's weights of it are carried to the GPU."""


@dataclass(frozen=True, slots=True)
class Size:
    """A model of the builtin base's family.

    Attributes:
        shape: what differs from the builtin base's configuration, as `architecture.config` takes it.
        settings: of its run. Batches are four times those of the main line or more, so that a GPU has work; logs,
            checkpoints and evaluations come every minute or so, since a lent machine may go at any time.
    """

    shape: Mapping[str, int] = field(default_factory=dict)
    settings: Settings = field(
        default_factory=lambda: Settings(batch_tokens=16_384, log_every=50, checkpoint_every_s=60.0, eval_every_s=100.0)
    )


SIZES: Mapping[str, Size] = {
    CARRIED: Size(),
    # 22.4 million values: with its tokenizer it fits into the 24 MB that may be shipped.
    "large": Size({"d_model": 384, "num_heads": 10, "d_ff": 768, "num_layers": 5, "num_decoder_layers": 5}),
    # For trying the script where there is no GPU.
    "tiny": Size(
        {"d_model": 32, "d_kv": 8, "num_heads": 3, "d_ff": 40, "num_layers": 1, "num_decoder_layers": 1},
        Settings(batch_tokens=512, warmup_steps=4, log_every=1, checkpoint_every_s=2.0, eval_every_s=1_000.0),
    ),
}
"""Sizes by name."""
