"""The state of the adapter at one version: per weight the global adapter's factors, the shared basis and its values.

Immutable. A version is encoded once, stored as a file named by its digest, and never changed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from wire.codec import decode, encode
from wire.errors import WireError
from wire.fields import Message, Name, NonNegative, RoundId
from wire.limits import MAX_RANK, MAX_WEIGHTS
from wire.messages import Tensor
from wire.run import Weight
from wire.tensors import pack, unpack

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """A low-rank matrix b·a."""

    b: F32  # (m, r)
    a: F32  # (r, n)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """A server optimiser's memory of one weight's changes: a running sum or mean, and a mean of their squares.

    Arrays become read-only. Raises ValueError where shapes or dtypes do not fit each other.
    """

    first: Factors
    second: F32 | None = None  # (m, n); None for an optimiser without squares

    def __post_init__(self) -> None:
        b, a = _read_only(self.first.b), _read_only(self.first.a)
        second = None if self.second is None else _read_only(self.second)
        arrays = [array for array in (b, a, second) if array is not None]
        if any(array.dtype != np.float32 or array.ndim != 2 for array in arrays) or b.shape[1] != len(a):
            raise ValueError("a first moment is b (m, s) and a (s, n) in float32, and so is a second one")
        if second is not None and second.shape != self.shape:
            raise ValueError(f"a second moment of shape {second.shape} does not fit a first one of {self.shape}")
        object.__setattr__(self, "first", Factors(b, a))
        object.__setattr__(self, "second", second)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n) of the weight."""
        return len(self.first.b), self.first.a.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class WeightState:
    """One weight W (m × n): its global adapter W_g = frozen_b·frozen_a, and the basis boards train on next.

    `values` says how much each strand is worth: σ² of its row, or with a `score` (the weight's share of all importance,
    by the profiles) that score divided among the strands in proportion to σ². Arrays become read-only.

    Raises ValueError where shapes or dtypes do not fit each other, or the score is negative or not finite.
    """

    frozen_b: F32  # (m, s)
    frozen_a: F32  # (s, n)
    basis: F32  # (R, n), orthonormal rows ordered by value
    values: F64  # (R,), descending
    score: float | None = None  # None: the run ranks by sketches alone
    moments: Moments | None = None  # None: no optimiser, or nobody has trained it yet

    def __post_init__(self) -> None:
        for field, dtype, dimensions in _FIELDS:
            array = getattr(self, field)
            if array.dtype != dtype or array.ndim != dimensions:
                raise ValueError(f"{field} is {array.ndim}-D {array.dtype}, {dimensions}-D {dtype} is needed")
            object.__setattr__(self, field, _read_only(array))
        rank, columns = self.frozen_a.shape
        if self.frozen_b.shape[1] != rank or self.basis.shape[1] != columns or len(self.values) != len(self.basis):
            shapes = [getattr(self, field).shape for field, _, _ in _FIELDS]
            raise ValueError(f"frozen_b, frozen_a, basis and values do not fit each other: shapes {shapes}")
        if self.score is not None and not 0 <= self.score < math.inf:
            raise ValueError(f"a score is at least 0 and finite, not {self.score}")
        if self.moments is not None and self.moments.shape != self.shape:
            raise ValueError(f"moments of shape {self.moments.shape} do not fit a {self.shape} weight")

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n) of the weight."""
        return self.frozen_b.shape[0], self.frozen_a.shape[1]


_FIELDS = (
    ("frozen_b", np.float32, 2),
    ("frozen_a", np.float32, 2),
    ("basis", np.float32, 2),
    ("values", np.float64, 1),
)


@dataclass(frozen=True, slots=True, eq=False)
class AdapterState:
    """The adapter at one version. `weights` is read-only and in manifest order.

    `ranked_at`: the version at which sketches last set strand values; 0 before any did.
    """

    version: int
    weights: Mapping[str, WeightState]
    ranked_at: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))


def initial_state(weights: Sequence[Weight]) -> AdapterState:
    """Version 0, the bare base: an adapter of rank 0 and no basis. `weights` is the manifest."""
    return AdapterState(version=0, weights={w.name: _bare(w.rows, w.columns) for w in weights})


def _bare(rows: int, columns: int) -> WeightState:
    empty = np.zeros((0, columns), np.float32)
    return WeightState(frozen_b=np.zeros((rows, 0), np.float32), frozen_a=empty, basis=empty, values=np.zeros(0))


def strand_values(state: AdapterState) -> tuple[tuple[float, ...], ...]:
    """Worth per weight (manifest order) and strand, as in `RunInfo.values`; () while no weight has a basis."""
    if not any(len(weight.basis) for weight in state.weights.values()):
        return ()
    return tuple(tuple(weight.values.tolist()) for weight in state.weights.values())


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view in C order, as a state that is read back has it: BLAS rounds by how an array lies in memory.

    The argument's own flag stays as it was.
    """
    view: NDArray[Any] = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


# --- on disk -------------------------------------------------------------------------------------------------------


class _StoredMoments(Message, frozen=True, kw_only=True):
    first_b: Tensor
    first_a: Tensor
    second: Tensor | None


class _StoredWeight(Message, frozen=True, kw_only=True):
    name: Name
    frozen_b: Tensor
    frozen_a: Tensor
    basis: Tensor
    values: Annotated[tuple[NonNegative, ...], Meta(max_length=MAX_RANK)]
    score: NonNegative | None
    moments: _StoredMoments | None


class _StoredState(Message, frozen=True, kw_only=True):
    version: RoundId
    ranked_at: RoundId
    weights: Annotated[tuple[_StoredWeight, ...], Meta(max_length=MAX_WEIGHTS)]


_MAGIC = b"braid-state-4\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


def encode_state(state: AdapterState) -> bytes:
    """The state as bytes: fp32 arrays, fp64 values, exact, preceded by a SHA-256 so that any damage is seen."""
    weights = tuple(_stored(name, weight) for name, weight in state.weights.items())
    stored = _StoredState(version=state.version, ranked_at=state.ranked_at, weights=weights)
    body = encode(stored)
    return _MAGIC + hashlib.sha256(body).digest() + body


def decode_state(data: bytes) -> AdapterState:
    """The state that `encode_state` wrote, bit for bit. Raises WireError for damaged bytes or another format."""
    start = len(_MAGIC) + _DIGEST_BYTES
    if not data.startswith(_MAGIC):
        raise WireError("this is no adapter state of a format that this version of Braid reads")
    body = memoryview(data)[start:]
    if hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise WireError("the adapter state is damaged: its SHA-256 differs from the one stored with it")
    stored = decode(body, _StoredState)
    try:
        weights = {weight.name: _restored(weight) for weight in stored.weights}
        return AdapterState(version=stored.version, weights=weights, ranked_at=stored.ranked_at)
    except ValueError as error:
        raise WireError(f"the adapter state is damaged: {error}") from error


def _stored(name: str, weight: WeightState) -> _StoredWeight:
    return _StoredWeight(
        name=name,
        frozen_b=pack(weight.frozen_b, "fp32"),
        frozen_a=pack(weight.frozen_a, "fp32"),
        basis=pack(weight.basis, "fp32"),
        values=tuple(weight.values.tolist()),
        score=weight.score,
        moments=None if weight.moments is None else _stored_moments(weight.moments),
    )


def _stored_moments(moments: Moments) -> _StoredMoments:
    return _StoredMoments(
        first_b=pack(moments.first.b, "fp32"),
        first_a=pack(moments.first.a, "fp32"),
        second=None if moments.second is None else pack(moments.second, "fp32"),
    )


def _restored(stored: _StoredWeight) -> WeightState:
    return WeightState(
        frozen_b=unpack(stored.frozen_b),
        frozen_a=unpack(stored.frozen_a),
        basis=unpack(stored.basis),
        values=np.array(stored.values, np.float64),
        score=stored.score,
        moments=None if stored.moments is None else _restored_moments(stored.moments),
    )


def _restored_moments(stored: _StoredMoments) -> Moments:
    first = Factors(unpack(stored.first_b), unpack(stored.first_a))
    return Moments(first, None if stored.second is None else unpack(stored.second))
