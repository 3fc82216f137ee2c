"""Messages of a small run that pass every check; nothing is square, and every weight has a rank of its own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fuzz.targets import small_run
from fuzz.targets.small_run import RANKS, WEIGHTS
from wire.checks import basis_rank
from wire.messages import Adapter, AdapterPart, NamedTensor, Profile, Tensor, Update, UpdatePart, tensor_bytes
from wire.run import Weight

SETTINGS = msgspec.structs.replace(small_run.SETTINGS, trains_a=False)
RUN = msgspec.structs.replace(small_run.RUN, run_id="run-1", settings=SETTINGS)


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
