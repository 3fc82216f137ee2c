"""Privacy of a run's boards: what was spent of it, and what is on that keeps it. Pure."""

from __future__ import annotations

from typing import Any

from aggregator.report.whole_run.record import Record
from braid_common.metrics import PRIVACY_DELTA, PRIVACY_EPSILON


def privacy(record: Record) -> dict[str, Any]:
    """The (ε, δ) that boards say they have spent so far, the newest of each and the largest; None where none says so.
    What is sent without noise has no bound."""
    by_board: dict[str, dict[str, float | None]] = {}
    spent = []
    for device, versions in record.evaluations().items():
        told = [versions[number] for number in sorted(versions) if PRIVACY_EPSILON in versions[number]]
        if told:
            spent.append(told[-1][PRIVACY_EPSILON])
            by_board[device] = {"epsilon": told[-1][PRIVACY_EPSILON], "delta": told[-1].get(PRIVACY_DELTA)}
    return {
        "epsilon": max(spent, default=None),
        "boards_with_budget": len(by_board),
        "defence": record.terms.defence,
        "weight_bound": record.terms.weight_bound,
        "by_board": by_board,
    }
