"""The report on a base: size, error of the weights and loss on sample text of each format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from braid_common.base.files import BaseFilesError
from braid_common.base.t5_layout import is_matrix
from quantize.base import pack
from quantize.checkpoint import Checkpoint, open_checkpoint
from quantize.errors import BaseFormatError
from quantize.formats import FORMATS, Format
from quantize.sample import SAMPLE, read_texts
from quantize.writer import silent, written_bytes


class Loss(Protocol):
    """A measurement of a base in one format on pairs of source and target, as the training engine offers it."""

    def __call__(self, folder: Path, format: Format, texts: Sequence[tuple[str, str]]) -> tuple[float, int]:
        """Negative log-likelihood per target token in nats, fp32, and how many tokens they are.

        Raises BaseFilesError where the base's tokenizer, or room for the base, is missing.
        """


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

    format: Format
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
    """Counter of the values that were worked through, over all passes."""

    total: int
    tell: Callable[[int, int], object]
    done: int = 0

    def add(self, n_values: int) -> None:
        self.done += n_values
        self.tell(min(self.done, self.total), self.total)

    def finish(self) -> None:
        self.add(self.total - self.done)


def report(
    folder: Path, text: Path | None = None, *, loss: Loss | None = None, tell: Callable[[int, int], object] = silent
) -> Report:
    """Measure every format on the base in `folder`.

    Sizes and errors take a few copies of the base's largest matrix. `loss` takes the whole base in each format, on the
    JSONL file `text`, or on a sample of our own; where there is no `loss`, or it cannot be measured, the column is left
    out with a note, unless `text` was given. `tell` hears after each matrix of values worked through, and of all.
    Raises BaseFormatError as `load_base` does, and for a `text` that cannot be used.
    """
    checkpoint = open_checkpoint(folder)
    texts, notes = read_texts(text or SAMPLE), _words_on(checkpoint)
    n_values = sum(math.prod(shape) for name, shape in checkpoint.shapes.items() if is_matrix(name))
    progress = _Progress(n_values * (1 + len(FORMATS)), tell)
    rows, n_tokens = _measure_weights(checkpoint, progress), 0
    try:
        rows, n_tokens = _with_losses(rows, folder, texts, loss, partial(progress.add, n_values))
        notes += _untrained(rows[0].loss or 0.0, checkpoint.config.vocab_size)
    except BaseFilesError as error:
        if text is not None:
            raise BaseFormatError(f"no loss: {error}") from error
        notes.append(f"no loss: {error}")
    progress.finish()
    return Report(checkpoint.stored_format, n_tokens, tuple(notes), tuple(rows))


def _with_losses(
    rows: Sequence[FormatReport],
    folder: Path,
    texts: Sequence[tuple[str, str]],
    loss: Loss | None,
    count: Callable[[], object],
) -> tuple[list[FormatReport], int]:
    if loss is None:
        raise BaseFormatError("it is computed by edge_client's training engine, which is not installed here")
    losses, n_tokens = [], 0
    for row in rows:
        value, n_tokens = loss(folder, row.format, texts)
        losses.append(value)
        count()
    changed = [replace(row, loss=of, loss_change=of - losses[0]) for row, of in zip(rows, losses, strict=True)]
    return changed, n_tokens


def _words_on(checkpoint: Checkpoint) -> list[str]:
    if checkpoint.stored_format != "nf4":
        return []
    return ["the files hold nf4: the other formats show its values, not those of the base it was made of"]


def _untrained(loss: float, vocabulary: int) -> list[str]:
    uniform = math.log(vocabulary)
    if loss < uniform:
        return []
    return [
        f"a loss of {loss:.2f} is no better than a guess among all {vocabulary} tokens ({uniform:.2f}): "
        "this base knows nothing of the text, and its loss changes mean nothing"
    ]


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
