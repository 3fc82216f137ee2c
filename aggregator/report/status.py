"""The run as facts for people: what `aggregator status`, the page and the metrics show. Plain values."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aggregator.merge.weights import bounded_weights
from aggregator.report.ranking import WORTH_SHARE, ranking
from aggregator.run.fleet import NUMBERS, Board
from aggregator.run.identity.copies import copies_text
from aggregator.run.run import Run
from aggregator.run.tasks import time_left_s
from wire.limits import MAX_EXAMPLES
from wire.rounds import RunState

SHOWN_ROUNDS = 50
"""Rounds in the history; older ones are in the database."""

SHOWN_EVENTS = 30


def describe(run: Run) -> dict[str, Any]:
    """Everything at once. Losses are means over target tokens in nats; a mean over boards is weighted by examples."""
    open_round = run.open_round
    boards = [_board(run, board) for board in run.boards]
    return {
        "run": {
            "id": run.terms.run_id,
            "name": run.config.name,
            "state": run.run_state.value,
            "round": open_round.round if open_round else run.closed,
            "rounds": run.config.rounds.total,
            "version": run.state.version,
            "mode": run.config.rounds.mode,
            "staleness_limit": run.config.rounds.staleness_limit,
            "accepted": open_round.accepted if open_round else 0,
            "stale": open_round.stale if open_round else 0,
            "max_weight": run.config.merge.max_weight,
            "quorum": run.config.rounds.quorum if run.state.version else run.config.rounds.min_devices,
            "time_left_s": time_left_s(run),
            "complete": _complete(run),
            "max_source_tokens": run.train.max_source_tokens,
            "max_target_tokens": run.train.max_target_tokens,
            "waiting_for": run.waiting_for,
            "warnings": run.warnings,
        },
        "base": {
            "model": run.config.model.id,
            "digest": run.config.model.digest,
            "revision": run.config.model.revision,
        },
        "ranking": _ranking(run),
        "boards": boards,
        "evaluations": _evaluations(run),
        "rounds": _rounds(run),
        "events": list(run.events)[-SHOWN_EVENTS:],
    }


def _complete(run: Run) -> bool:
    """All rounds are done, and every live board has evaluated the result."""
    if run.run_state is not RunState.FINISHED:
        return False
    live = run.boards.live(run.clock())
    return all(run.state.version in run.boards[device].losses for device in live)


def _ranking(run: Run) -> dict[str, Any]:
    """All weights, the most important first; `share` is of all importance. Empty before the first basis."""
    return {
        "importance": run.terms.importance,
        "version": run.state.ranked_at,
        "worth_share": WORTH_SHARE,
        "weights": [asdict(weight) for weight in ranking(run.state)],
    }


def _board(run: Run, board: Board) -> dict[str, Any]:
    now = run.clock()
    newest = max(board.losses, default=None)
    return {
        "device": board.device,
        "name": board.name,
        "label": run.boards.label(board),
        "live": run.boards.is_live(board, now),
        "revoked": board.revoked,
        "has_left": board.has_left,
        "silent_s": None if board.seen_s is None else round(max(0.0, now - board.seen_s), 1),
        "text": None if board.lengths is None else board.lengths.values(),
        "plan": board.plan,
        "format": board.format,
        "strands": sum(board.ranks),
        "weights": sum(rank > 0 for rank in board.ranks),
        "max_rank": max(board.ranks, default=0),
        "phase": board.progress_text,
        **{name: board.progress.get(name) for name in NUMBERS},
        "bytes_up": board.bytes_up,
        "bytes_down": board.bytes_down,
        "answered": run.open_round is not None and board.device in run.open_round.answers,
        "accepted": board.accepted,
        "refused": board.refused,
        "reason": board.reason,
        "staleness": board.staleness,
        "claims": board.claims,
        "counts_as": board.counts_as,
        "is_by_loss": run.config.merge.fairness > 0,
        "is_by_strands": run.config.merge.drift > 0,
        "event": board.event,
        "ended": _ending(board),
        "copies": _copies(board, now),
        "finished": run.run_state is RunState.FINISHED and run.state.version in board.losses,
        "evaluated_version": newest,
        "evaluation": dict(board.losses[newest]) if newest is not None else {},
    }


def _ending(board: Board) -> dict[str, Any] | None:
    """Why a board left, when (seconds since 1970), and how many seconds ago that was."""
    ending = board.ending
    return None if ending is None else {**asdict(ending), "ago_s": round(max(0.0, time.time() - ending.at), 1)}


def _copies(board: Board, now: float) -> dict[str, Any] | None:
    """The last sign of another client with this board's identity, and how many seconds ago that was."""
    copies = board.sessions.recent_copies(now)
    if copies is None:
        return None
    return {"served": copies.served, "other": copies.other, "text": copies_text(copies), "ago_s": now - copies.at_s}


def _evaluations(run: Run) -> list[dict[str, Any]]:
    """Per version: the weighted mean over boards, and the worst board, whom a mean hides."""
    versions = sorted({version for board in run.boards for version in board.losses})
    return [_evaluation(run, version) for version in versions[-SHOWN_ROUNDS:]]


def _evaluation(run: Run, version: int) -> dict[str, Any]:
    losses = {board: board.losses[version] for board in run.boards if "loss" in board.losses.get(version, {})}
    worst = max(losses, key=lambda board: losses[board]["loss"], default=None) if losses else None
    return {
        "version": version,
        "boards": len(losses),
        "mean_loss": _mean(run, losses, "loss"),
        "worst_loss": losses[worst]["loss"] if worst else None,
        "worst_board": worst.name if worst else None,
        "worst_device": worst.device if worst else None,
        "worst_label": run.boards.label(worst) if worst else None,
        **{name: _mean(run, losses, name) for name in ("rouge1", "rouge2", "rougeL")},
    }


def _examples(values: Mapping[str, float]) -> float:
    return min(max(1.0, values.get("n_examples", 1.0)), MAX_EXAMPLES)


def _mean(run: Run, by_board: Mapping[Board, Mapping[str, float]], name: str) -> float | None:
    """The mean over boards, none of which counts as much more than the middle one, whatever it claims."""
    found = [values for values in by_board.values() if name in values]
    weights = bounded_weights([_examples(values) for values in found], run.config.merge.weight_bound)
    weighed = sum(weight * values[name] for weight, values in zip(weights, found, strict=True))
    return weighed / sum(weights) if found else None


def _rounds(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "round": row.round,
            "state": row.state,
            "version": row.version,
            "accepted": counts.accepted,
            "refused": counts.refused,
            "stale": counts.stale,
            "opened_at": row.opened_at,
            "closed_at": row.closed_at,
            "reason": row.reason,
        }
        for row, counts in run.rounds()[-SHOWN_ROUNDS:]
    ]
