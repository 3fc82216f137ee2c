"""Facts as short words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from braid_common.units import show_seconds


def lengths_text(run: Mapping[str, Any]) -> str:
    """How long sources and targets of the run may be; "?" stands for what is still to be chosen."""
    return f"{run['max_source_tokens'] or '?'} + {run['max_target_tokens'] or '?'}"


def text_cells(text: Mapping[str, float] | None) -> tuple[str, str, str]:
    """A board's examples, the lengths that hold 95 % of its sources and targets, and the parts of them that are cut."""
    if text is None:
        return "", "", ""
    return (
        f"{text['n_examples']:.0f}",
        f"{text['source_p95']:.0f} + {text['target_p95']:.0f}",
        f"{text['sources_cut']:.0%} + {text['targets_cut']:.0%}",
    )


def took_text(row: Mapping[str, Any]) -> str:
    """How long a round took; "" while it is open. Never below 0, whatever the clock did meanwhile."""
    return show_seconds(round(max(0.0, row["closed_at"] - row["opened_at"]))) if row["closed_at"] else ""


def turned_away_text(guard: Mapping[str, Any] | None) -> str:
    """Words about those whom the server has turned away since it started; "" where that is nobody."""
    found = [nuisance for nuisance in (guard or {}).get("turned_away", ()) if nuisance["count"]]
    if not found:
        return ""
    return "turned away: " + "; ".join(f"{nuisance['count']:,} {nuisance['words']}" for nuisance in found)
