"""The effect of `merge.fairness` on a run: how much each board counted, and would have counted without it. Pure.

Shares are worked out again from what is on record, before a defence and without `merge.drift`: examples, staleness, and
the losses that boards told of the versions that they trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aggregator.merge.fairness import fair_weights
from aggregator.merge.weights import bounded_claims
from aggregator.report.whole_run.record import Record
from aggregator.report.whole_run.usefulness import Scored
from aggregator.run.staleness import staleness_weight
from aggregator.store.records import Answer, Arrival, Round


def fair_shares(record: Record) -> dict[str, Any]:
    """`q`, and each merged round's shares by board, `plain` without and `fair` with it; `by_board` has their means over
    the rounds in which the board counted. Without fairness there are no rounds to tell of."""
    q = record.terms.fairness
    merged = [row for row in record.rounds if row.state == "merged"] if q else []
    arrivals, evaluations = record.by_round(), record.evaluations()
    rounds = [_shares(record, row, arrivals[row.round], evaluations) for row in merged]
    by_board = {}
    for device in record.members:
        own = [row["by_board"][device.device] for row in rounds if device.device in row["by_board"]]
        if own:
            by_board[device.device] = {name: sum(row[name] for row in own) / len(own) for name in ("plain", "fair")}
    return {"q": q, "rounds": rounds, "by_board": by_board}


def _shares(record: Record, row: Round, arrivals: Sequence[Arrival], evaluations: Scored) -> dict[str, Any]:
    counted = [arrival.answer for arrival in arrivals if arrival.answer.accepted]
    terms, losses = record.terms, _losses(evaluations, counted, row.version)
    claims = {a.device: a.n_examples * staleness_weight(a.staleness, terms.staleness_power) for a in counted}
    plain, fair = (bounded_claims(fair_weights(claims, losses, q), terms.weight_bound) for q in (0.0, terms.fairness))
    totals = {"plain": sum(plain.values()), "fair": sum(fair.values())}
    by_board = {
        device: {"plain": plain[device] / totals["plain"], "fair": fair[device] / totals["fair"]} for device in claims
    }
    return {"round": row.round, "by_board": by_board}


def _losses(evaluations: Scored, counted: Sequence[Answer], version: int) -> dict[str, float]:
    trained_on = {answer.device: version - answer.staleness for answer in counted}
    return {
        device: evaluations[device][number]["loss"]
        for device, number in trained_on.items()
        if "loss" in evaluations.get(device, {}).get(number, {})
    }
