"""The essence of a data set for people, in two lines, and for programs, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edge_client.data.dataset import Data, FileFacts
from edge_client.jobs.data_spec import DataSpec

SHOWN_NAMES = 8
"""Files or columns that a line names; the others are counted."""


def essence_lines(data: Data, spec: DataSpec) -> tuple[str, str]:
    """Two lines: files and how they are read; examples and what is skipped."""
    findings = data.findings
    how = "; ".join(distinct(file_words(file) for file in findings.files))
    names = [Path(file.path).name for file in findings.files]
    files = f" ({_names(names)})" if len(names) > 1 else ""
    return (
        f"data: {spec}{files}: {how}; {columns_words(data)}",
        f"data: {counted(data.n_examples, 'example')}: {len(data.train):,} to train on, {len(data.held_out):,} held "
        f"out; {data.n_skipped:,} skipped{_left_out(data)}",
    )


def essence_facts(data: Data) -> dict[str, Any]:
    """The same for programs. `columns` are those that are read and those that are written; `encoding` and `delimiter`
    are None where there is none. What differs from file to file is joined by commas."""
    findings = data.findings
    return {
        "format": _joined(file.format for file in findings.files),
        "compression": _joined(file.compression for file in findings.files),
        "encoding": _joined(file.encoding for file in findings.files),
        "delimiter": _joined(file.delimiter for file in findings.files),
        "shape": _joined(findings.shapes),
        "columns": {"source": list(findings.source_columns), "target": list(findings.target_columns)},
        "ignored_columns": list(findings.ignored_columns),
        "n_examples": data.n_examples,
        "n_train": len(data.train),
        "n_held_out": len(data.held_out),
        "n_skipped": data.n_skipped,
        "left_out_from": findings.left_out_from,
        "left_out_files": list(findings.left_out_files),
    }


def file_words(file: FileFacts) -> str:
    """Format, compression, encoding and delimiter of a file."""
    parts = [file.format, file.compression, file.encoding]
    parts += [f"delimiter {file.delimiter}"] if file.delimiter else []
    return ", ".join(part for part in parts if part)


def columns_words(data: Data) -> str:
    """The shape, and the columns that are read, written and ignored."""
    findings = data.findings
    if not findings.shapes:
        return "docstrings, their first lines as targets"
    words = (
        f"{', '.join(findings.shapes)}: {' + '.join(findings.source_columns)} → {', '.join(findings.target_columns)}"
    )
    return words + (f"; ignored: {_names(findings.ignored_columns)}" if findings.ignored_columns else "")


def counted(n: int, what: str) -> str:
    """A number with its noun: "1 example", "1,200 examples"."""
    return f"{n:,} {what}" + "s" * (n != 1)


def distinct(texts: Iterable[str]) -> list[str]:
    """The texts that are not empty, each once."""
    return [text for text in dict.fromkeys(texts) if text]


def _left_out(data: Data) -> str:
    findings = data.findings
    parts = (
        [f"; all from {findings.left_out_from} on is left out, for there are more"] if findings.left_out_from else []
    )
    if findings.left_out_files:
        parts.append(f"; not read: {_names([Path(path).name for path in findings.left_out_files])}")
    return "".join(parts)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _joined(texts: Iterable[str]) -> str | None:
    return ", ".join(distinct(texts)) or None
