"""A board's training reduced to arithmetic: what it sends is a function of the board, the round, and what it was sent.

It depends on every bit of the strands that the board was sent, so that one that was sent those of another version, or
damaged ones, sends another update, and the final model shows it. It does not depend on the frozen factors: they are
rounded differently where they came as a patch, and which board gets one depends on what it was killed at.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from wire.checks import basis_rank
from wire.messages import Adapter, AdapterPart, NamedTensor, Profile, RoundSpec, Tensor, Update, UpdatePart
from wire.run import RunInfo, Weight
from wire.tensors import pack, unpack

STEP = 0.2
"""How far a value moves in a round, in learning rates: well within what screening believes of one optimiser step."""

F32 = NDArray[np.float32]


def profile(run: RunInfo, board: str) -> Profile:
    """Sketches of every weight, the board's own."""
    sketches = tuple(
        NamedTensor(name=weight.name, tensor=pack(_sketch(run, weight, board, 0), "fp32")) for weight in run.weights
    )
    scores = () if run.settings.importance == "sketch" else (1.0,) * len(sketches)
    return Profile(
        protocol=run.protocol,
        run_id=run.run_id,
        manifest=run.manifest,
        n_examples=n_examples(board),
        sketches=sketches,
        scores=scores,
    )


def update(run: RunInfo, spec: RoundSpec, adapter: Adapter, ranks: Sequence[int], board: str) -> Update:
    """The update that a board sends of a round: every strand moved by its own draw, scaled by what it was sent.

    Args:
        run: what the server asks.
        spec: the round.
        adapter: as sent, cut to `ranks`.
        ranks: strands per weight of the manifest.
        board: the board's id.
    """
    parts = [
        _part(run, spec, weight, part, board)
        for weight, part, rank in zip(run.weights, adapter.parts, ranks, strict=True)
        if rank
    ]
    fields: dict[str, Any] = {
        "run_id": run.run_id,
        "round": spec.round,
        "version": spec.version,
        "manifest": run.manifest,
        "n_examples": n_examples(board),
    }
    shared = set(Update.__struct_fields__) & set(RoundSpec.__struct_fields__)
    fields |= {name: getattr(spec, name) for name in shared}
    return Update(protocol=run.protocol, parts=tuple(parts), **fields)


def n_examples(board: str) -> int:
    """A board's weight in the mean: 8 to 15, by its name."""
    return 8 + zlib.crc32(board.encode()) % 8


def values() -> Mapping[str, float]:
    """The numbers that a training ends with; nothing is measured here."""
    return {"loss": 2.0, "held_out_loss": 1.9, "n_examples": 2.0, "tokens_per_s": 1.0}


def _part(run: RunInfo, spec: RoundSpec, weight: Weight, part: AdapterPart, board: str) -> UpdatePart:
    a = unpack(part.basis)
    start_b = np.zeros((weight.rows, a.shape[0]), np.float32) if part.start_b is None else unpack(part.start_b)
    seen = _seen(part)
    step = STEP * run.settings.learning_rate * seen
    b = start_b + step * _draws(board, spec.round, f"{weight.name} b").random(start_b.shape, np.float32)
    moved_a = a + step * _draws(board, spec.round, f"{weight.name} a").random(a.shape, np.float32)
    return UpdatePart(
        name=weight.name,
        b=_packed(b if spec.trains != "a" else b[:, :0]),
        a=_packed(moved_a) if spec.trains != "b" else None,
        sketch=_packed(_sketch(run, weight, board, spec.round)) if spec.sketch else None,
    )


def _seen(part: AdapterPart) -> np.float32:
    """A number from 0.5 to 1 that depends on every bit of the strands."""
    strands = (part.basis, part.start_b)
    seen: np.float32 = np.float32(0.5 + zlib.crc32(msgspec.msgpack.encode(strands)) / 2**33)
    return seen


def _sketch(run: RunInfo, weight: Weight, board: str, round_id: int) -> F32:
    shape = (basis_rank(weight, run.max_rank), weight.columns)
    return _draws(board, round_id, f"{weight.name} sketch").random(shape, np.float32)


def _draws(*what: object) -> np.random.Generator:
    return np.random.default_rng(list(" ".join(map(str, what)).encode()))


def _packed(values: NDArray[Any]) -> Tensor:
    return pack(values, "fp32")
