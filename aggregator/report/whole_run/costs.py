"""Costs of a run: bytes, requests and rounds, time and where it went, speed, energy and memory. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from aggregator.report.whole_run.record import Record, believable
from aggregator.store.records import Arrival, Round
from braid_common import metrics


def communication(record: Record) -> dict[str, Any]:
    """Bytes of bodies and requests by board, and the sizes of uploads. Bytes of a board are those stored when a round
    was merged, or the server stopped, for the last time."""
    sent = [arrival.answer for arrival in record.arrivals if arrival.answer.round]
    by_device = record.by_device()
    sizes = [answer.size_bytes for answer in sent]
    up, down = (sum(getattr(device, name) for device in record.members) for name in ("bytes_up", "bytes_down"))
    merged = sum(row.state == "merged" for row in record.rounds)
    return {
        "bytes_up": up,
        "bytes_down": down,
        "requests": sum(device.requests for device in record.members),
        "merged_rounds": merged,
        "bytes_per_merged_round": (up + down) / merged if merged else None,
        "updates": len(sizes),
        "update_bytes": fmean(sizes) if sizes else None,
        "by_board": {
            device.device: {
                "bytes_up": device.bytes_up,
                "bytes_down": device.bytes_down,
                "requests": device.requests,
                "updates": sum(answer.round > 0 for answer in by_device[device.device]),
            }
            for device in record.members
        },
    }


def time_spent(record: Record) -> dict[str, Any]:
    """The time that went by, in seconds: of the whole run by its phases, of each round, and of each board since it
    enrolled. `waiting_s` of a round is from its middle answer to its last: what the slow ones have cost the others."""
    begun = min((device.enrolled_at for device in record.devices), default=record.now)
    opened = min((row.opened_at for row in record.rounds), default=record.now)
    arrivals = record.by_round()
    rounds = [_round(row, arrivals[row.round], record.now) for row in record.rounds]
    last = max((row.closed_at or record.now for row in record.rounds), default=opened)
    in_rounds = sum(row["took_s"] for row in rounds)
    return {
        "began_at": begun,
        "read_at": record.now,
        "profiling_s": _seconds(begun, opened),
        "rounds_s": in_rounds,
        "between_rounds_s": max(0.0, _seconds(opened, last) - in_rounds),
        "waiting_s": sum(row["waiting_s"] or 0.0 for row in rounds),
        "rounds": rounds,
        "by_board": _time_by_board(record),
    }


def _round(row: Round, arrivals: Sequence[Arrival], now: float) -> dict[str, Any]:
    arrived = sorted(arrival.received_at for arrival in arrivals)
    answers = [arrival.answer for arrival in arrivals]
    return {
        "round": row.round,
        "state": row.state,
        "reason": row.reason,
        "version": row.version,
        "took_s": _seconds(row.opened_at, row.closed_at or now),
        "waiting_s": _seconds(median(arrived), arrived[-1]) if arrived else None,
        "accepted": sum(answer.accepted for answer in answers),
        "late": sum(answer.accepted and answer.staleness > 0 for answer in answers),
        "refused": sum(not answer.accepted for answer in answers),
    }


def _time_by_board(record: Record) -> dict[str, Any]:
    """Seconds of training, of the encoder and of evaluating that a board has told of, and what is left of the time
    from its enrolment to the last that was heard of its work: transfers, profiling, waiting for others."""
    heard: dict[str, float] = {}
    for arrival in record.arrivals:
        heard[arrival.answer.device] = max(heard.get(arrival.answer.device, 0.0), arrival.received_at)
    for report in record.reports:
        heard[report.device] = max(heard.get(report.device, 0.0), report.received_at)
    evaluations, found = record.evaluations(), {}
    for device in record.members:
        told = evaluations[device.device].values()
        parts = {
            "train_s": _sum(told, metrics.TRAIN_S),
            "encode_s": _sum(told, metrics.ENCODE_S),
            "evaluate_s": _sum(told, metrics.EVALUATE_S),
        }
        known = sum(part for part in parts.values() if part is not None)
        whole = _seconds(device.enrolled_at, heard.get(device.device, device.enrolled_at))
        found[device.device] = parts | {"whole_s": whole, "other_s": max(0.0, whole - known)}
    return found


def efficiency(record: Record) -> dict[str, Any]:
    """Speed, energy and memory of training, by board: means over rounds of tokens/s and J/token, the largest peak, and
    what the board's last plan had predicted and allowed. None is what a board has not told."""
    evaluations, plans = record.evaluations(), record.last("plan")
    by_board = {}
    for device in record.members:
        told = list(evaluations[device.device].values())
        plan = believable(plans[device.device].values) if device.device in plans else {}
        speeds, peaks = _told(told, metrics.TRAIN_TOKENS_PER_S), _told(told, metrics.TRAIN_PEAK_BYTES)
        peak, predicted = max(peaks, default=None), plan.get("predicted_peak_bytes")
        by_board[device.device] = {
            "tokens_per_s": fmean(speeds) if speeds else None,
            "joules_per_token": _joules_per_token(told),
            "peak_bytes": peak,
            "predicted_peak_bytes": predicted,
            "budget_bytes": plan.get("budget_bytes"),
            "peak_of_predicted": peak / predicted if peak is not None and predicted else None,
        }
    return {name: _mean(row[name] for row in by_board.values()) for name in ("tokens_per_s", "joules_per_token")} | {
        "above_prediction": sum((row["peak_of_predicted"] or 0.0) > 1 for row in by_board.values()),
        "by_board": by_board,
    }


def _joules_per_token(told: Iterable[Mapping[str, float]]) -> float | None:
    names = (metrics.TRAIN_JOULES, metrics.TRAIN_S, metrics.TRAIN_TOKENS_PER_S)
    rounds = [[values[name] for name in names] for values in told if all(name in values for name in names)]
    tokens = sum(seconds * speed for _, seconds, speed in rounds)
    return sum(joules for joules, _, _ in rounds) / tokens if tokens else None


def _told(told: Iterable[Mapping[str, float]], name: str) -> list[float]:
    return [values[name] for values in told if name in values]


def _sum(told: Iterable[Mapping[str, float]], name: str) -> float | None:
    found = _told(told, name)
    return sum(found) if found else None


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def _seconds(since: float, until: float) -> float:
    """Never below 0, whatever the clock did meanwhile."""
    return max(0.0, until - since)
