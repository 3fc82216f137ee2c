"""What each format costs and loses on a base, measured matrix by matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quantize.base import pack
from quantize.checkpoint import Checkpoint, open_checkpoint
from quantize.formats import FORMATS
from quantize.int8 import Int8Weight
from quantize.layout import is_matrix


@dataclass(frozen=True)
class FormatReport:
    """One format on one base.

    Attributes:
        matrix_bytes: linear and embedding matrices in this format.
        resident_bytes: the same with norms and position tables, which stay fp32: what the loaded base occupies.
        bits_per_value: of the matrices, scales included.
        relative_error: ‖W − Ŵ‖ / ‖W‖ over all matrices (Frobenius), against the stored values.
        worst_error: the largest such ratio of a single matrix.
        worst_weight: which one.
    """

    format: str
    matrix_bytes: int
    resident_bytes: int
    bits_per_value: float
    relative_error: float
    worst_error: float
    worst_weight: str


@dataclass
class _Sums:
    """Running sums of one format."""

    size_bytes: int = 0
    squared_error: float = 0.0
    worst: tuple[float, str] = (0.0, "")


def report(folder: Path) -> list[FormatReport]:
    """Measure every format on the base in `folder`; memory stays at a few copies of its largest matrix.

    Raises BaseFormatError as `load_base` does.
    """
    checkpoint = open_checkpoint(folder)
    sums = {format: _Sums() for format in FORMATS}
    squared_norm, n_values, plain_bytes = 0.0, 0, 0
    for name in checkpoint.names():
        if not is_matrix(name):
            plain_bytes += 4 * math.prod(checkpoint.entries[name].shape)
            continue
        values = _values(checkpoint, name)
        norm = _squared_norm(values)
        squared_norm, n_values = squared_norm + norm, n_values + values.numel()
        for format in FORMATS:
            _add(sums[format], name.removesuffix(".weight"), values, norm, format)
    return [_summary(format, sums[format], squared_norm, n_values, plain_bytes) for format in FORMATS]


def _values(checkpoint: Checkpoint, name: str) -> Tensor:
    with checkpoint.tensor(name) as stored:
        if isinstance(stored, Int8Weight):
            return stored.dense(torch.float32)
        return stored.to(torch.float32, copy=True)


def _add(sums: _Sums, key: str, values: Tensor, squared_norm: float, format: str) -> None:
    weight = pack(values, key, format)
    error = _squared_norm(weight.dense(torch.float32) - values)
    sums.size_bytes += weight.resident_bytes
    sums.squared_error += error
    sums.worst = max(sums.worst, (_ratio(error, squared_norm), key))


def _summary(format: str, sums: _Sums, squared_norm: float, n_values: int, plain_bytes: int) -> FormatReport:
    return FormatReport(
        format=format,
        matrix_bytes=sums.size_bytes,
        resident_bytes=sums.size_bytes + plain_bytes,
        bits_per_value=8 * sums.size_bytes / n_values,
        relative_error=_ratio(sums.squared_error, squared_norm),
        worst_error=sums.worst[0],
        worst_weight=sums.worst[1],
    )


def _squared_norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def _ratio(squared_error: float, squared_norm: float) -> float:
    return math.sqrt(squared_error / squared_norm) if squared_norm > 0 else 0.0
