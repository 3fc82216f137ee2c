"""Messages of a small run that pass every check; nothing is square, and every weight has a rank of its own."""

from __future__ import annotations

from collections.abc import Sequence

from wire.checks import (
    basis_rank,
)
from wire.manifest import manifest_digest
from wire.messages import Adapter, AdapterPart, NamedTensor, Profile, Tensor, Update, UpdatePart, tensor_bytes
from wire.run import Base, RunInfo, TrainSettings, Weight

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
)
RUN = RunInfo(
    protocol=1,
    run_id="run-1",
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


def tensor(rows: int, columns: int) -> Tensor:
    return Tensor(dtype="bf16", shape=(rows, columns), data=bytes(tensor_bytes("bf16", rows * columns)[0]))


def adapter_part(weight: Weight, rank: int, frozen_rank: int = 2) -> AdapterPart:
    return AdapterPart(
        name=weight.name,
        frozen_b=tensor(weight.rows, frozen_rank),
        frozen_a=tensor(frozen_rank, weight.columns),
        basis=tensor(rank, weight.columns),
    )


def adapter(parts: Sequence[AdapterPart]) -> Adapter:
    return Adapter(protocol=1, run_id="run-1", version=1, manifest=RUN.manifest, parts=tuple(parts))


def sketched(weight: Weight) -> Tensor:
    return tensor(basis_rank(weight, RUN.max_rank), weight.columns)


def update(parts: Sequence[UpdatePart]) -> Update:
    return Update(
        protocol=1, run_id="run-1", round=2, version=1, manifest=RUN.manifest, n_examples=3, parts=tuple(parts)
    )


def profile(sketches: Sequence[NamedTensor]) -> Profile:
    return Profile(protocol=1, run_id="run-1", manifest=RUN.manifest, n_examples=3, sketches=tuple(sketches))


ADAPTER = adapter([adapter_part(w, r) for w, r in zip(WEIGHTS, RANKS, strict=True)])
Q, WI, WO = (UpdatePart(name=w.name, b=tensor(w.rows, r)) for w, r in zip(WEIGHTS, (5, 0, 2), strict=True))
UPDATE = update([Q, WO])
PROFILE = profile([NamedTensor(name=w.name, tensor=sketched(w)) for w in WEIGHTS])
