"""Adapter patches: what changed between two versions, as tensors that are new and new directions of frozen factors.

The frozen adapter W (m × n) of a weight is the truncated sum of the one before and of what boards added, so each of its
factors spans little that a board does not hold:

    B' = [B | new]·mix,     A' = mix·[A over basis over new]

with at most as many new columns as strands were trained, and as many new rows as were trained by others alone. (W' − W
itself is of no low rank once W has the server's full rank: truncation drops as many directions as were added, and the
patch holds both.)
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from aggregator.merge.state import F32, F64
from wire.fields import Dtype
from wire.messages import AdapterPart, FactorPatch, Tensor, WeightPatch
from wire.tensors import pack, unpack

TOLERANCE: Mapping[Dtype, float] = {"bf16": 2.0**-9, "fp32": 2.0**-24}
"""Part of a factor's columns that a patch may leave out: half a step of the format it travels in, as much as
rounding takes of any one value. A format that is not here is sent whole."""

WEAKEST = 0.25
"""Singular value of held columns of norm 1, below which their direction is not mixed from but sent: what rounding did
to them would be multiplied by its inverse."""

MAX_KEPT_BYTES = 64 * 1024**2
"""Patches of frozen factors that are kept for boards of other ranks, for which they are mostly the same. FLAN-T5-base
has 27 MB of frozen factors at rank 32 in bf16."""

Changes = tuple[FactorPatch | None, FactorPatch | None]
"""The patches of the frozen B and A; None: as held."""


class PatchMaker:
    """Makes patches, weight by weight. One thread at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Changes] = OrderedDict()
        self._kept_bytes = 0

    def parts(
        self, held: Sequence[AdapterPart], sent: Sequence[AdapterPart], exact: Sequence[AdapterPart]
    ) -> tuple[WeightPatch, ...] | None:
        """The patches that lead from `held` to `sent`, which is `exact` before rounding, in fp32; in manifest order.

        None where a weight begins or ceases to have a start_b: no patch says that.
        """
        patches = []
        for before, after, unrounded in zip(held, sent, exact, strict=True):
            if (before.start_b is None) != (after.start_b is None):
                return None
            patches.append(self._part(before, after, unrounded))
        return tuple(part for part in patches if part != WeightPatch(name=part.name))

    def _part(self, held: AdapterPart, sent: AdapterPart, exact: AdapterPart) -> WeightPatch:
        frozen_b, frozen_a = self._frozen(held, sent, exact)
        return WeightPatch(
            name=sent.name,
            frozen_b=frozen_b,
            frozen_a=frozen_a,
            basis=None if sent.basis == held.basis else sent.basis,
            start_b=None if sent.start_b == held.start_b else sent.start_b,
        )

    def _frozen(self, held: AdapterPart, sent: AdapterPart, exact: AdapterPart) -> Changes:
        if (held.frozen_b, held.frozen_a) == (sent.frozen_b, sent.frozen_a):
            return None, None
        key = _digest(held.frozen_b, held.frozen_a, held.basis, exact.frozen_b, exact.frozen_a)
        if key not in self._kept:
            self._keep(key, frozen_patches(held, sent, exact))
        self._kept.move_to_end(key)
        return self._kept[key]

    def _keep(self, key: bytes, changes: Changes) -> None:
        self._kept[key] = changes
        self._kept_bytes += _size_bytes(changes)
        while self._kept_bytes > MAX_KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= _size_bytes(self._kept.popitem(last=False)[1])


def frozen_patches(held: AdapterPart, sent: AdapterPart, exact: AdapterPart) -> Changes:
    """The patches of both frozen factors for a board that holds `held`: none, a mix with new strands, or the whole."""
    b, a = unpack(exact.frozen_b), unpack(exact.frozen_a)
    change_b = change_a = None
    if sent.frozen_b != held.frozen_b:
        mixed = _mixed(unpack(held.frozen_b), b, sent.frozen_b.dtype)
        change_b = _smaller(sent.frozen_b, mixed)
    if sent.frozen_a != held.frozen_a:
        rows = np.concatenate([unpack(held.frozen_a), unpack(held.basis)])
        mixed = _mixed(rows.T, a.T, sent.frozen_a.dtype)
        change_a = _smaller(sent.frozen_a, mixed and (mixed[0].T, mixed[1].T))
    return change_b, change_a


def _mixed(held: F32, factor: F32, dtype: Dtype) -> tuple[F64, F64] | None:
    return mixture(held, factor, dtype) if dtype in TOLERANCE else None


def _smaller(factor: Tensor, mixed: tuple[F64, F64] | None) -> FactorPatch:
    """The factor whole, or as new strands and a mix where these take fewer bytes."""
    whole = FactorPatch(new=factor)
    if mixed is None:
        return whole
    new, mix = (pack(one, factor.dtype) for one in mixed)
    return min(whole, FactorPatch(new=new, mix=mix), key=lambda one: _size_bytes((one, None)))


def mixture(held: F32, factor: F32, dtype: Dtype) -> tuple[F64, F64] | None:
    """New columns, and a mix of held and new ones that gives a factor: factor ≈ [held | new]·mix.

    What is left out is at most TOLERANCE[dtype] of each column's norm, in the mean of squares. Columns count, and not
    only their share of the product: the smallest may be mixed into the largest of the next patch.

    Args:
        held: (m, s0), as the board has it.
        factor: (m, s), exact.
        dtype: the number format in which both results travel.

    Returns:
        new (m, k) and mix (s0 + k, s) in float64, k as small as TOLERANCE allows; None where rounding the mix costs
        more than as much again.
    """
    # In the basis q of all columns, [held | factor] = q·r: what follows works on r, (s0 + s) square at most.
    q, r = np.linalg.qr(np.concatenate([held, factor], axis=1).astype(np.float64))
    old, old_norms = _unit_columns(r[:, : held.shape[1]])
    made, norms = _unit_columns(r[:, held.shape[1] :])
    # Columns of norm 1 on both sides: tolerances are parts of each column's own norm. old = u·diag(s)·vt
    u, s, vt = np.linalg.svd(old, full_matrices=False)
    strong = s > WEAKEST
    in_old = u[:, strong].T @ made  # the part of the factor within what is held, in coordinates of u
    new = _leading(made - u[:, strong] @ in_old, TOLERANCE[dtype])
    # old·x = u·in_old for x = V·diag(1/s)·in_old: the pseudoinverse, on strong directions alone
    old_mix = (vt[strong].T / s[strong]) @ in_old
    mix = np.concatenate([old_mix / old_norms[:, None], new.T @ made]) * norms
    # As the board will make it, with the mix rounded on its way, against what it should be.
    error = np.concatenate([old * old_norms, new], axis=1) @ (unpack(pack(mix, dtype)) / norms) - made
    return (q @ new, mix) if _mean_norm(error) <= 2 * TOLERANCE[dtype] else None


def _leading(rest: F64, tolerance: float) -> F64:
    """The fewest orthonormal columns that leave out at most `tolerance` of `rest`, in the mean norm of its columns."""
    u, s, _ = np.linalg.svd(rest, full_matrices=False)
    # left_out[i]: the mean norm of what is lost if the i-th and all further directions are; the last entry is 0.
    left_out = np.sqrt(np.append(np.cumsum(s[::-1] ** 2)[::-1], 0.0) / max(1, rest.shape[1]))
    return u[:, : int(np.argmax(left_out <= tolerance))]


def _mean_norm(columns: F64) -> float:
    """Root of the mean of the columns' squared norms."""
    return float(np.sqrt(np.square(columns).sum() / max(1, columns.shape[1])))


def _unit_columns(columns: F64) -> tuple[F64, F64]:
    """Columns of norm 1, those of zeros left so, and what they were divided by."""
    norms: F64 = np.linalg.norm(columns, axis=0)
    norms = np.where(norms > 0, norms, 1.0)
    return columns / norms, norms


def _size_bytes(changes: Changes) -> int:
    tensors = chain.from_iterable((change.new, change.mix) for change in changes if change is not None)
    return sum(len(tensor.data) for tensor in tensors if tensor is not None)


def _digest(*tensors: Tensor) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.data)
    return digest.digest()
