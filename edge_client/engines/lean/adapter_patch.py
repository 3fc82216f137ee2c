"""An adapter that came as its difference to the one of an earlier round, made whole again. Needs numpy, not torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from braid_common.atomic_file import write_atomically
from edge_client.errors import RefusedError
from edge_client.host.worker_memory import return_free_memory
from edge_client.state.folder import disk_errors
from wire.adapter_patch import is_patch
from wire.checks import check_adapter, check_patch
from wire.codec import decode, encode
from wire.errors import WireError
from wire.messages import Adapter, AdapterPart, AdapterPatch, FactorPatch, RunInfo, Tensor, WeightPatch
from wire.tensors import pack, unpack


def make_whole(path: Path, held: Path, run: RunInfo, version: int, ranks: Sequence[int]) -> None:
    """Replace the difference in `path` by the adapter of `version`, cut to `ranks`, that it makes of the one in `held`.

    A file that is whole stays as it is, so that a round which is gone on with reads the same bits. Raises DiskError,
    and RefusedError where the two do not fit each other or the run; `path` is then as it was.
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
            f"the difference that leads to version {version} cannot be used: {error}",
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


def _whole(difference: AdapterPatch, held: Adapter, run: RunInfo, version: int, ranks: Sequence[int]) -> Adapter:
    check_patch(difference, held, run, version=version)
    adapter = msgspec.structs.replace(held, version=version, parts=changed_parts(held.parts, difference.parts))
    check_adapter(adapter, run, ranks, version=version, own_basis=run.settings.own_basis)
    return adapter


def changed_parts(held: Sequence[AdapterPart], changes: Sequence[WeightPatch]) -> tuple[AdapterPart, ...]:
    """The parts that are held, with the changes, which were checked against them. Raises WireError where a value that
    comes of it is not finite."""
    by_name = {change.name: change for change in changes}
    return tuple(_changed(part, by_name[part.name]) if part.name in by_name else part for part in held)


def _changed(held: AdapterPart, change: WeightPatch) -> AdapterPart:
    """What is not mixed is taken bit for bit."""
    return AdapterPart(
        name=held.name,
        frozen_b=_factor_b(held, change.frozen_b),
        frozen_a=_factor_a(held, change.frozen_a),
        basis=held.basis if change.basis is None else change.basis,
        start_b=held.start_b if change.start_b is None else change.start_b,
    )


def _factor_b(held: AdapterPart, change: FactorPatch | None) -> Tensor:
    if change is None:
        return held.frozen_b
    if change.mix is None:
        return change.new
    made = np.concatenate([_values(held.frozen_b), _values(change.new)], axis=1) @ _values(change.mix)
    return pack(made, change.new.dtype)


def _factor_a(held: AdapterPart, change: FactorPatch | None) -> Tensor:
    if change is None:
        return held.frozen_a
    if change.mix is None:
        return change.new
    rows = np.concatenate([_values(held.frozen_a), _values(held.basis), _values(change.new)])
    return pack(_values(change.mix) @ rows, change.new.dtype)


def _values(tensor: Tensor) -> NDArray[np.float64]:
    """float64: in a run in fp32, sums in float32 would cost more than the difference leaves out."""
    return unpack(tensor).astype(np.float64)
