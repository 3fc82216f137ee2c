"""Messages of boards that do not train: random numbers of the right shapes, a step from where the round begins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from wire.checks import basis_rank
from wire.codec import decode, encode
from wire.limits import PROTOCOL_VERSION
from wire.messages import Adapter, AdapterPart, NamedTensor, Profile, Tensor, Update, UpdatePart
from wire.messages import RoundSpec as Spec
from wire.run import RunInfo
from wire.tensors import pack, unpack

STEP = 1e-3
"""Standard deviation of what is added to each value: less than a round's training at the default rate."""

EXAMPLES = 256
"""Examples that the first board claims; each further one claims one more: no two uploads have the same bytes."""


class Prepared:
    """The messages of a fleet. Boards of one rank send the same numbers: making them costs more than a server takes."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._profile: Profile | None = None
        self._updates: dict[tuple[int, Sequence[int]], Update] = {}
        self._making = asyncio.Lock()

    async def profile(self, run: RunInfo, number: int) -> bytes:
        """The profile of a board."""
        async with self._making:
            if self._profile is None:
                self._profile = await asyncio.to_thread(_profile, run, self._seed)
        return encode(replace(self._profile, n_examples=EXAMPLES + number))

    def knows(self, spec: Spec, ranks: Sequence[int]) -> bool:
        """Whether a board of these ranks can be given an update without a whole adapter."""
        return (spec.round, ranks) in self._updates

    async def update(self, run: RunInfo, spec: Spec, ranks: Sequence[int], adapter: Path, number: int) -> bytes:
        """The update of a board that was sent this adapter, which is read where no other board of its ranks came before
        it in the round."""
        async with self._making:
            if not self.knows(spec, ranks):
                self._updates = {key: update for key, update in self._updates.items() if key[0] == spec.round}
                made = await asyncio.to_thread(_update, run, spec, adapter, self._seed)
                self._updates[spec.round, ranks] = made
        return encode(replace(self._updates[spec.round, ranks], n_examples=EXAMPLES + number))


def ranks_of(run: RunInfo, rank: int) -> tuple[int, ...]:
    """Ranks (manifest order) of a board that trains every weight at `rank`, as far as the weight can."""
    return tuple(min(rank, basis_rank(weight, run.max_rank)) for weight in run.weights)


def _profile(run: RunInfo, seed: int) -> Profile:
    drawn = np.random.default_rng([seed, 0])
    shapes = {weight.name: (basis_rank(weight, run.max_rank), weight.columns) for weight in run.weights}
    sketches = [
        NamedTensor(name=name, tensor=pack(drawn.standard_normal(shape, np.float32), "bf16"))
        for name, shape in shapes.items()
    ]
    scores = () if run.settings.importance == "sketch" else tuple(drawn.random(len(shapes)).tolist())
    return Profile(
        protocol=PROTOCOL_VERSION,
        run_id=run.run_id,
        manifest=run.manifest,
        n_examples=EXAMPLES,
        sketches=tuple(sketches),
        scores=scores,
    )


def _update(run: RunInfo, spec: Spec, adapter: Path, seed: int) -> Update:
    drawn = np.random.default_rng([seed, spec.round])
    sent = decode(adapter.read_bytes(), Adapter)
    rows = {weight.name: weight.rows for weight in run.weights}
    return Update(
        protocol=PROTOCOL_VERSION,
        run_id=run.run_id,
        round=spec.round,
        version=spec.version,
        version_digest=spec.version_digest,
        manifest=run.manifest,
        n_examples=EXAMPLES,
        parts=tuple(_moved(part, rows[part.name], spec, run, drawn) for part in sent.parts),
    )


def _moved(part: AdapterPart, rows: int, spec: Spec, run: RunInfo, drawn: np.random.Generator) -> UpdatePart:
    """One weight a step away from what was sent."""
    basis = unpack(part.basis)
    start_b = np.zeros((rows, len(basis)), np.float32) if part.start_b is None else unpack(part.start_b)

    def moved(values: NDArray[np.float32]) -> Tensor:
        return pack(values + STEP * drawn.standard_normal(values.shape, np.float32), run.settings.upload)

    return UpdatePart(
        name=part.name,
        b=moved(start_b),
        a=moved(basis) if spec.trains != "b" else None,
        sketch=pack(drawn.standard_normal((run.max_rank, basis.shape[1]), np.float32), "bf16") if spec.sketch else None,
    )
