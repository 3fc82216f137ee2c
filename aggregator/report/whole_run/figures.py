"""All figures of a run's report, made of its record. Pure: what is written as JSON, and shown on the page.

The chapters are FedEval's dimensions (arXiv 2308.11841): utility, communication, time, robustness, privacy; and how
evenly the boards are served.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aggregator.report.whole_run.costs import communication, efficiency, time_spent
from aggregator.report.whole_run.fair_shares import fair_shares
from aggregator.report.whole_run.privacy import privacy
from aggregator.report.whole_run.record import Record
from aggregator.report.whole_run.robustness import robustness
from aggregator.report.whole_run.usefulness import usefulness

FORMAT = "braid-report-1"
"""The form of the figures; another one when a name changes its meaning."""


def figures(record: Record) -> dict[str, Any]:
    """The figures by chapter. Boards go by their device ids in `by_board`, and by a label for people in `boards`."""
    return {
        "format": FORMAT,
        "run": asdict(record.terms)
        | {
            "version": record.version,
            "merged_rounds": sum(row.state == "merged" for row in record.rounds),
            "finished": _is_finished(record),
        },
        "boards": labels(record),
        "usefulness": usefulness(record),
        "fairness": fair_shares(record),
        "communication": communication(record),
        "time": time_spent(record),
        "efficiency": efficiency(record),
        "robustness": robustness(record),
        "privacy": privacy(record),
    }


def labels(record: Record) -> dict[str, str]:
    """Each board's name for people, with the device id where another board has the same name."""
    names = [device.name for device in record.members]
    return {
        device.device: device.name if names.count(device.name) == 1 else f"{device.name} ({device.device})"
        for device in record.members
    }


def _is_finished(record: Record) -> bool:
    over = [row for row in record.rounds if row.closed_at is not None]
    return len(over) >= record.terms.rounds and len(over) == len(record.rounds)
