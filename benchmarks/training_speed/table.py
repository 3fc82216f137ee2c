"""The markdown table of benchmarks.training_speed: each trainer against the peer that it is to beat."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from benchmarks.study import tables
from benchmarks.training_speed.contest import EPOCHS, Row, find
from braid_common.units import MIB

_TITLES = (
    "trainer",
    "q,v of",
    "micro-batch",
    "tokens/s",
    f"tokens/s over {EPOCHS} epochs",
    "peak MiB",
    "MiB above imports",
    "speed ÷ PEFT all q,v",
    f"over {EPOCHS} epochs",
    "speed ÷ PEFT same weights",
    "PEFT all q,v's memory ÷ this",
)


def table(rows: Sequence[Row]) -> str:
    """One shape's rows. Speeds are divided by PEFT in fp32; memory is what is above the imported libraries."""
    notes = [f"- {row.contestant.name}, {row.contestant.scope}: {note}" for row in rows for note in _notes(row)]
    cells = tables.table(_TITLES, (_cells(row, rows) for row in rows), n_left=2)
    return "\n".join([cells, *([""] if notes else []), *notes])


def _notes(row: Row) -> list[str]:
    notes = [row.reason] if row.reason else []
    if row.contestant.cache != "none" and row.runs and not any(run.encode_s_per_token for run in row.runs):
        notes.append("the worker reported no encoding pass, so none is counted")
    return notes


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    head = [row.contestant.name, row.contestant.scope, str(row.workload.micro_batch)]
    if not row.runs:
        return [*head, "see below", *["–"] * (len(_TITLES) - len(head) - 1)]
    every = find(rows, "peft", "all")
    same = find(rows, "peft", row.contestant.scope)
    every_per_s, same_per_s = _speed(every), _speed(same)
    return [
        *head,
        f"{row.tokens_per_s:,.0f}",
        f"{row.amortised_tokens_per_s:,.0f}",
        f"{row.peak_bytes / MIB:,.0f}",
        f"{row.above_imports_bytes / MIB:,.0f}",
        _ratio(row.tokens_per_s, every_per_s),
        _ratio(row.amortised_tokens_per_s, every_per_s),
        _ratio(row.tokens_per_s, same_per_s),
        _ratio(every.above_imports_bytes, row.above_imports_bytes) if every else "–",
    ]


def _speed(row: Row | None) -> float | None:
    return row.tokens_per_s if row is not None else None


def _ratio(value: float, reference: float | None) -> str:
    return f"{value / reference:.2f}" if reference else "–"


def sketch_shares(rows: Sequence[Row]) -> list[str]:
    """Lines on how much a sketch in every batch lengthens the step, one for each pair of rows that differ in it."""
    lines = []
    for row in rows:
        plain = next((other for other in rows if other.runs and _is_plain_of(other, row)), None)
        if row.contestant.sketch and row.runs and plain is not None:
            share = plain.tokens_per_s / row.tokens_per_s - 1
            lines.append(f"Sketches of every batch, {plain.contestant.name}, {row.contestant.scope}: {share:+.1%} time")
    return lines


def _is_plain_of(plain: Row, sketched: Row) -> bool:
    without, with_sketch = plain.contestant, sketched.contestant
    return not without.sketch and msgspec.structs.replace(without, sketch=True) == with_sketch
