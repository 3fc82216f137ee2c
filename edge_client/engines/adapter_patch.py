"""Adapter patches: an adapter that came as its changes since an earlier version is made whole again.

Needs numpy, not torch; the worker calls it, so that every engine reads whole adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from braid_common.atomic_file import write_atomically
from edge_client.errors import RefusedError, disk_errors
from edge_client.host.worker_memory import return_free_memory
from wire.adapter_patch import is_patch
from wire.checks import check_adapter, check_patch
from wire.codec import decode, encode
from wire.errors import WireError
from wire.messages import Adapter, AdapterPart, AdapterPatch, FactorPatch, Tensor, WeightPatch
from wire.run import RunInfo
from wire.tensors import pack, unpack


def make_whole(path: Path, held: Path, run: RunInfo, version: int, ranks: Sequence[int]) -> None:
    """Replace a patch by the adapter that it makes of an earlier one.

    A file that is whole stays as it is, so that a round that is resumed reads the same bits.

    Args:
        path: the file with an `AdapterPatch`, or with an `Adapter`.
        held: the file with the `Adapter` that the patch changes.
        run: what both are checked against.
        version: which one the result must be.
        ranks: which ranks it must be cut to, in manifest order.

    Raises:
        DiskError: a file cannot be read or written.
        RefusedError: the two do not fit each other or the run; `path` is then as it was.
    """
    with disk_errors(path):
        data = path.read_bytes()
    if not is_patch(data):
        return
    try:
        adapter = _whole(decode(data, AdapterPatch), _held(held, run), run, version, ranks)
        del data
        return_free_memory()  # before the adapter is encoded, for which it is there three times
        whole = encode(adapter)
    except WireError as error:
        raise RefusedError(
            f"the patch that leads to version {version} cannot be used: {error}",
            "the whole adapter is fetched instead",
        ) from error
    with disk_errors(path):
        write_atomically(path, whole)


def _held(path: Path, run: RunInfo) -> Adapter:
    """The adapter that the board kept, checked against the run."""
    with disk_errors(path):
        adapter = decode(path.read_bytes(), Adapter)
    ranks = [part.basis.shape[0] for part in adapter.parts]
    check_adapter(adapter, run, ranks, version=adapter.version, own_basis=run.settings.own_basis)
    return adapter


def _whole(patch: AdapterPatch, held: Adapter, run: RunInfo, version: int, ranks: Sequence[int]) -> Adapter:
    check_patch(patch, held, run, version=version)
    adapter = msgspec.structs.replace(held, version=version, parts=changed_parts(held.parts, patch.parts))
    check_adapter(adapter, run, ranks, version=version, own_basis=run.settings.own_basis)
    return adapter


def changed_parts(held: Sequence[AdapterPart], changes: Sequence[WeightPatch]) -> tuple[AdapterPart, ...]:
    """The parts that are held, with the changes, which were checked against them.

    Weights without a change are taken bit for bit. Raises WireError where a value that comes of it is not finite.
    """
    by_name = {change.name: change for change in changes}
    return tuple(_changed(part, by_name[part.name]) if part.name in by_name else part for part in held)


def _changed(held: AdapterPart, change: WeightPatch) -> AdapterPart:
    """One weight's part with its change; matrices that are not mixed are taken bit for bit."""
    return AdapterPart(
        name=held.name,
        frozen_b=_factor_b(held, change.frozen_b),
        frozen_a=_factor_a(held, change.frozen_a),
        basis=held.basis if change.basis is None else change.basis,
        start_b=held.start_b if change.start_b is None else change.start_b,
    )


def _factor_b(held: AdapterPart, change: FactorPatch | None) -> Tensor:
    """The new frozen B (m, s'): as it was, sent whole, or [B | new]·M, columns of the old and the new mixed by M.

    The server's merge leaves B's column space nearly as it was, so that M (s + k, s') and k new columns say nearly all.
    """
    if change is None:
        return held.frozen_b
    if change.mix is None:
        return change.new
    columns = np.concatenate([_values(held.frozen_b), _values(change.new)], axis=1)
    return pack(columns @ _values(change.mix), change.new.dtype)


def _factor_a(held: AdapterPart, change: FactorPatch | None) -> Tensor:
    """The new frozen A (s', n): as it was, sent whole, or M·[A; basis; new], a mixture of rows that the board has.

    The rows of the old basis are among them, because a round's strands are merged into the frozen factors.
    """
    if change is None:
        return held.frozen_a
    if change.mix is None:
        return change.new
    rows = np.concatenate([_values(held.frozen_a), _values(held.basis), _values(change.new)])
    return pack(_values(change.mix) @ rows, change.new.dtype)


def _values(tensor: Tensor) -> NDArray[np.float64]:
    """A matrix in float64: in a run in fp32, sums in float32 would cost more than the patch leaves out."""
    return unpack(tensor).astype(np.float64)
