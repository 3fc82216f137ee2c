"""A run whose every weight is small, fixed to the bit, so that an input fits it on every machine."""

from __future__ import annotations

import numpy as np

from wire.manifest import manifest_digest
from wire.messages import Adapter, AdapterPart, RoundSpec
from wire.run import Base, RunInfo, TrainSettings, Weight
from wire.tensors import pack

RUN_ID = "fuzz"

VERSION_DIGEST = "0123456789abcdef"
"""The digest of version 1, as boards are told it."""

WEIGHTS = (
    Weight(name="q", rows=6, columns=9),
    Weight(name="wi", rows=10, columns=3),
    Weight(name="wo", rows=4, columns=10),
)

SETTINGS = TrainSettings(
    scope="decoder",
    learning_rate=0.1,
    batch=1,
    micro_batch=1,
    local_steps=1,
    max_source_tokens=8,
    max_target_tokens=8,
    sketch_batches=1,
    trains_a=True,
)

RUN = RunInfo(
    protocol=1,
    run_id=RUN_ID,
    state="training",
    base=Base(model="m", digest="0" * 64),
    weights=WEIGHTS,
    manifest=manifest_digest(WEIGHTS),
    settings=SETTINGS,
    max_rank=5,
    server_rank=2,
    rounds=3,
    round=1,
    version=1,
    values=((5.0, 4.0, 3.0, 2.0, 2.0), (3.0, 2.0, 0.0), (1.0, 1.0, 1.0, 0.0)),
)

RANKS = (5, 0, 2)
"""Strands of each weight that the board trains."""

SPEC = RoundSpec(round=1, version=1, version_digest=VERSION_DIGEST, seed=7, sketch=True, trains="both")
"""The open round."""


def adapter(version: int) -> Adapter:
    """A version as a board of RANKS is sent it."""
    rng = np.random.default_rng(version)
    parts = tuple(
        AdapterPart(
            name=weight.name,
            frozen_b=pack(rng.standard_normal((weight.rows, RUN.server_rank)), "int8"),
            frozen_a=pack(rng.standard_normal((RUN.server_rank, weight.columns)), "int8"),
            basis=pack(rng.standard_normal((rank, weight.columns)), "bf16"),
            start_b=pack(rng.standard_normal((weight.rows, rank)), "bf16"),
        )
        for weight, rank in zip(WEIGHTS, RANKS, strict=True)
    )
    return Adapter(protocol=1, run_id=RUN_ID, version=version, manifest=RUN.manifest, parts=parts)
