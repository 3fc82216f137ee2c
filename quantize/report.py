"""What each format costs and loses on a base: sizes, error of the weights, and loss on sample text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from quantize.base import pack, read_weight
from quantize.checkpoint import Checkpoint, open_checkpoint
from quantize.errors import BaseFormatError
from quantize.formats import FORMATS
from quantize.forward import Forward, Texts, check_runs
from quantize.layout import HEAD, is_matrix
from quantize.sample import SAMPLE, read_texts
from quantize.weight import FrozenWeight, Scratch
from quantize.writer import silent, written_bytes


@dataclass(frozen=True)
class FormatReport:
    """One format on one base.

    Attributes:
        disk_bytes: the weights file that `quantize convert` would write.
        matrix_bytes: linear and embedding matrices in this format.
        resident_bytes: the same with norms and position tables, which stay fp32: what the loaded base occupies.
        bits_per_value: of the matrices, scales included.
        relative_error: ‖W − Ŵ‖ / ‖W‖ over all matrices (Frobenius), against the stored values.
        worst_error: the largest such ratio of a single matrix.
        worst_weight: which one.
        loss: negative log-likelihood per target token in nats, computed in fp32; None where it was left out.
        loss_change: the same, less that of the stored values.
    """

    format: str
    disk_bytes: int
    matrix_bytes: int
    resident_bytes: int
    bits_per_value: float
    relative_error: float
    worst_error: float
    worst_weight: str
    loss: float | None = None
    loss_change: float | None = None


@dataclass(frozen=True)
class Report:
    """Every format on one base.

    Attributes:
        stored: format of the base's files, with whose values the others are compared.
        n_loss_tokens: target tokens under `loss`, 0 where it was left out.
        notes: what a reader must know about the numbers, in sentences.
        formats: in the order of FORMATS.
    """

    stored: str
    n_loss_tokens: int
    notes: tuple[str, ...]
    formats: tuple[FormatReport, ...]


@dataclass
class _Sums:
    """Running sums of one format."""

    size_bytes: int = 0
    squared_error: float = 0.0
    worst: tuple[float, str] = (0.0, "")


@dataclass
class _Progress:
    """Counts values that were worked through, over all passes."""

    total: int
    tell: Callable[[int, int], object]
    done: int = 0

    def add(self, n_values: int) -> None:
        self.done += n_values
        self.tell(min(self.done, self.total), self.total)


def report(folder: Path, text: Path | None = None, *, tell: Callable[[int, int], object] = silent) -> Report:
    """Measure every format on the base in `folder`; memory stays at a few copies of its largest matrix.

    The loss is measured on the JSONL file `text`, or on a sample of our own. Where the base allows none, it is left out
    with a note, unless `text` was given. `tell` hears after each matrix of values worked through, and of all.
    Raises BaseFormatError as `load_base` does, and for a `text` that cannot be used.
    """
    checkpoint = open_checkpoint(folder)
    texts, notes = _texts(folder, text, checkpoint)
    n_values = sum(math.prod(shape) for name, shape in checkpoint.shapes.items() if is_matrix(name))
    progress = _Progress(n_values * (1 + len(FORMATS) * (texts is not None)), tell)
    rows = _measure_weights(checkpoint, progress)
    if texts is not None:
        losses = [_loss(checkpoint, texts, row.format, progress) for row in rows]
        rows = [replace(row, loss=loss, loss_change=loss - losses[0]) for row, loss in zip(rows, losses, strict=True)]
        notes += _untrained(losses[0], checkpoint.config["vocab_size"])
    n_tokens = 0 if texts is None else texts.n_target_tokens
    return Report(checkpoint.stored_format, n_tokens, tuple(notes), tuple(rows))


def _texts(folder: Path, text: Path | None, checkpoint: Checkpoint) -> tuple[Texts | None, list[str]]:
    notes = []
    if checkpoint.stored_format == "nf4":
        notes.append("the files hold nf4: the other formats show its values, not those of the base it was made of")
    try:
        check_runs(checkpoint.config)
        return read_texts(text or SAMPLE, folder, checkpoint.config), notes
    except BaseFormatError as error:
        if text is not None:
            raise
        return None, [*notes, f"no loss: {error}"]


def _untrained(loss: float, vocabulary: int) -> list[str]:
    uniform = math.log(vocabulary)
    if loss < uniform:
        return []
    return [
        f"a loss of {loss:.2f} is no better than a guess among all {vocabulary} tokens ({uniform:.2f}): "
        "this base knows nothing of the text, and its loss changes mean nothing"
    ]


def _loss(checkpoint: Checkpoint, texts: Texts, format: str, progress: _Progress) -> float:
    scratch = Scratch()

    def weight(key: str) -> FrozenWeight:
        name = f"{key}.weight"
        stored = "shared.weight" if name == HEAD and checkpoint.is_tied else name
        found = read_weight(checkpoint, stored, format, scratch)
        progress.add(math.prod(found.shape))
        return found

    return Forward(checkpoint.config, weight, partial(checkpoint.floats, dtype=torch.float32)).loss(texts)


def _measure_weights(checkpoint: Checkpoint, progress: _Progress) -> list[FormatReport]:
    sums = {format: _Sums() for format in FORMATS}
    squared_norm, n_values, plain_bytes = 0.0, 0, 0
    for name, shape in checkpoint.shapes.items():
        if not is_matrix(name):
            plain_bytes += 4 * math.prod(shape)
            continue
        values = checkpoint.floats(name, torch.float32)
        norm = _squared_norm(values)
        squared_norm, n_values = squared_norm + norm, n_values + values.numel()
        for format in FORMATS:
            _add(sums[format], name.removesuffix(".weight"), values, norm, format)
        progress.add(values.numel())
    return [
        FormatReport(
            format=format,
            disk_bytes=written_bytes(checkpoint, format),
            matrix_bytes=total.size_bytes,
            resident_bytes=total.size_bytes + plain_bytes,
            bits_per_value=8 * total.size_bytes / n_values,
            relative_error=_ratio(total.squared_error, squared_norm),
            worst_error=total.worst[0],
            worst_weight=total.worst[1],
        )
        for format, total in sums.items()
    ]


def _add(sums: _Sums, key: str, values: Tensor, squared_norm: float, format: str) -> None:
    weight = pack(values, key, format)
    error = _squared_norm(weight.dense(torch.float32) - values)
    sums.size_bytes += weight.resident_bytes
    sums.squared_error += error
    sums.worst = max(sums.worst, (_ratio(error, squared_norm), key))


def _squared_norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def _ratio(squared_error: float, squared_norm: float) -> float:
    return math.sqrt(squared_error / squared_norm) if squared_norm > 0 else 0.0
