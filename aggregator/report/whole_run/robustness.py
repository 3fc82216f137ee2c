"""Troubles of a run that were survived: refused, late, lost and missing updates, boards that left. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aggregator.report.whole_run.record import Record

SHOWN_REASONS = 10
"""Reasons of refusals, the most frequent ones."""


def robustness(record: Record) -> dict[str, Any]:
    """Counts over the run and by board.

    `late` updates were trained on an older version and counted all the same; `lost` files were accepted, and gone when
    they were needed; `missed` are rounds that were merged without a board that had enrolled before they opened.
    """
    answers = [arrival.answer for arrival in record.arrivals]
    updates = [answer for answer in answers if answer.round]
    refused = [answer for answer in answers if not answer.accepted]
    by_board = _by_board(record)
    return {
        "accepted": sum(answer.accepted for answer in updates),
        "refused": len(refused),
        "refused_profiles": sum(not answer.round for answer in refused),
        "late": sum(answer.accepted and answer.staleness > 0 for answer in updates),
        "lost": len(record.losses),
        "losses": [f"{loss.what}: {loss.reason}" for loss in record.losses],
        "missed": sum(row["missed"] for row in by_board.values()),
        "abandoned_rounds": sum(row.state == "abandoned" for row in record.rounds),
        "gave_up": sum(row["ended"] == "gave up" for row in by_board.values()),
        "left": sum(row["ended"] in ("left", "stopped") for row in by_board.values()),
        "revoked": sum(row["ended"] == "revoked" for row in by_board.values()),
        "removed": sum(device.removed for device in record.devices),
        "reasons": [
            {"reason": reason, "count": count}
            for reason, count in Counter(answer.reason for answer in refused if answer.reason).most_common(
                SHOWN_REASONS
            )
        ],
        "by_board": by_board,
    }


def _by_board(record: Record) -> dict[str, Any]:
    ended, sent, found = record.last("ended"), record.by_device(), {}
    for device in record.members:
        own = sent[device.device]
        updates = [answer for answer in own if answer.round]
        answered = {answer.counted_in for answer in updates}
        asked = {row.round for row in record.rounds if row.state == "merged" and row.opened_at >= device.enrolled_at}
        ending = ended.get(device.device)
        gave_up = ending is not None and ending.values.get("exit_status", 1.0) != 0
        words = "revoked" if device.revoked else "left" if device.has_left else ""
        found[device.device] = {
            "accepted": sum(answer.accepted for answer in updates),
            "refused": sum(not answer.accepted for answer in own),
            "late": sum(answer.accepted and answer.staleness > 0 for answer in updates),
            "missed": len(asked - answered),
            "ended": words or ("" if ending is None else "gave up" if gave_up else "stopped"),
            "why": ending.text if ending is not None and gave_up else "",
        }
    return found
