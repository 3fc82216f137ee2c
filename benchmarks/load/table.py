"""Tables of what fleets cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FLEET_HEADS = (
    "boards",
    "acknowledged",
    "recorded",
    "lost",
    "timeouts",
    "errors",
    "429",
    "seconds",
    "requests/s",
    "idle MiB",
    "peak MiB",
    "after",
    "CPU ms per update",
)

CALL_HEADS = ("call", "times", "p50 ms", "p99 ms", "longest ms")


def fleet_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each fleet, and below it what went wrong."""
    lines = _head(FLEET_HEADS)
    for row in rows:
        counts = ("boards", "acknowledged", "recorded", "lost", "timeouts", "errors", "throttled")
        sizes = ("seconds", "requests_per_s", "idle_mib", "peak_mib", "after_mib")
        cells = [f"{row[name]:,}" for name in counts] + [f"{row[name]:,.0f}" for name in sizes]
        lines.append(_line([*cells, f"{1000 * row['cpu_s_per_update']:.1f}"]))
    return [*lines, *(f"{row['boards']:,} boards: {count} × {what}" for row in rows for what, count in _details(row))]


def call_table(row: dict[str, Any]) -> list[str]:
    """A line for each kind of call of one fleet."""
    kinds = sorted(row["calls"], key=lambda name: -row["calls"][name])
    return _head(CALL_HEADS) + [
        _line([name, f"{row['calls'][name]:,}", *(f"{1000 * row[key][name]:,.1f}" for key in _TIMES)]) for name in kinds
    ]


_TIMES = ("p50_s", "p99_s", "longest_s")


def _details(row: dict[str, Any]) -> list[tuple[str, int]]:
    return sorted(row["details"].items(), key=lambda detail: -detail[1])


def _head(heads: Sequence[str]) -> list[str]:
    return [_line(heads), "|" + " --- |" * len(heads)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
