"""Adapters as tensors, read from a file of the server or from an exported PEFT folder; strict about keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.model.peft_folder import read_peft
from edge_client.errors import ConfigError, RefusedError
from wire.checks import check_adapter
from wire.codec import decode
from wire.errors import WireError
from wire.messages import Adapter
from wire.messages import Tensor as WireTensor
from wire.run import RunInfo
from wire.tensors import unpack


@dataclass(frozen=True, slots=True)
class AdapterTensors:
    """An adapter's matrices by weight, fp32.

    Attributes:
        frozen: factors b (m, s) and a (s, n) that are added to the weight and not trained.
        basis: the rows A (r, n) that the weight's strands begin with.
        start_b: the B (m, r) that they begin with, where that is not zero.
    """

    frozen: Mapping[str, Factors] = field(default_factory=dict)
    basis: Mapping[str, Tensor] = field(default_factory=dict)
    start_b: Mapping[str, Tensor] = field(default_factory=dict)

    def product_factors(self) -> dict[str, Factors]:
        """Factors of all that the adapter adds to each weight before any training: frozen ones and strands together."""
        factors = dict(self.frozen)
        for name, start_b in self.start_b.items():
            strands = Factors(start_b, self.basis[name])
            frozen = factors.get(name)
            factors[name] = strands if frozen is None else beside(frozen, strands)
        return factors


def read_adapter(path: Path, run: RunInfo, version: int, ranks: Sequence[int] | None) -> AdapterTensors:
    """Read a `wire.messages.Adapter` of `version`, with `ranks` (manifest order) or, if None, whatever ranks it has.

    Values are fp32. In a run whose boards draw their own A the bases have no rows. Raises RefusedError where the file
    is not what the run's manifest says.
    """
    try:
        adapter = decode(_read(path), Adapter)
        ranks = [part.basis.shape[0] for part in adapter.parts] if ranks is None else ranks
        check_adapter(adapter, run, ranks, version=version, own_basis=run.settings.own_basis)
        return _tensors(adapter)
    except WireError as error:
        raise RefusedError(
            f"the adapter of version {version} does not fit this run: {error}",
            "update edge-client and the server to the same version, then join again",
        ) from error


def read_any_adapter(path: Path, weights: Collection[str]) -> AdapterTensors:
    """Read a PEFT LoRA folder for a base with these weights, or an adapter file of any run.

    Raises ConfigError where it is neither, or a folder whose adapter is more than plain LoRA.
    """
    if path.is_dir():
        return AdapterTensors(read_peft(path, weights))
    try:
        return _tensors(decode(_read(path), Adapter))
    except WireError as error:
        raise ConfigError(f"{path} is no adapter: {error}", "name a folder that `aggregator export` wrote") from error


def beside(one: Factors, other: Factors) -> Factors:
    """The factors of the sum of two products."""
    return Factors(torch.cat([one.b, other.b], 1), torch.cat([one.a, other.a]))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "check that the file is there") from error


def _tensors(adapter: Adapter) -> AdapterTensors:
    return AdapterTensors(
        {part.name: Factors(_tensor(part.frozen_b), _tensor(part.frozen_a)) for part in adapter.parts},
        {part.name: _tensor(part.basis) for part in adapter.parts},
        {part.name: _tensor(part.start_b) for part in adapter.parts if part.start_b is not None},
    )


def _tensor(tensor: WireTensor) -> Tensor:
    # numpy's view of the message is read-only, which torch tensors cannot be: copied once, here.
    return torch.from_numpy(unpack(tensor).copy())
