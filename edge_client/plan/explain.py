"""A plan in people's words, and as plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from braid_common.units import show_seconds, show_size
from edge_client.host.board import Board
from edge_client.plan.candidates import Candidate, RunnerUp
from edge_client.plan.situation import CLIENT_BYTES
from edge_client.plan.training_mode import KEPT_LEARNING

PART_NAMES = {
    "imports_bytes": "Python and torch",
    "kernels_bytes": "torch's compute kernels",
    "base_bytes": "frozen base",
    "frozen_adapter_bytes": "global adapter, frozen",
    "strands_bytes": "strands with optimiser state",
    "local_bytes": "local strands with optimiser state",
    "sketch_bytes": "gradient sketches",
    "activations_bytes": "activations",
    "working_bytes": "largest short-lived buffers",
    "slack_bytes": "reserve of the allocator",
    "encoding_bytes": "more while the encoder runs",
    "after_bytes": "more while local strands are trained",
    "measured_bytes": "correction by a measured step",
}
"""The parts of a Breakdown in people's words."""

PLACES = {"cpu": "the processor", "cuda": "the GPU"}

SAME = 1e-6
"""Shares and speeds closer than this count as the same in words."""


def explain(candidate: Candidate, board: Board, others: Sequence[RunnerUp]) -> list[str]:
    """Lines for people: the plan, what it is worth and costs, its memory part by part, and why the others lost."""
    plan, mode = candidate.plan, candidate.plan.mode
    lines = [
        f"plan: {mode.format} base, {mode.compute} arithmetic on {PLACES[mode.device]}, {_batches(candidate)}, "
        f"{candidate.n_strands} of {candidate.n_strands_in_all} strands "
        f"on {sum(rank > 0 for rank in plan.ranks)} of {len(plan.ranks)} weights"
        + (f", rank {candidate.rank} on each as on every board" if candidate.rank else ""),
        *_pruning(candidate),
        f"importance: {_percent(candidate.share)} of the run's is trained here"
        + ("" if candidate.is_ranked else "; before there is a ranking, every strand counts the same"),
        f"memory: {show_size(plan.expected_peak_bytes)} predicted peak of {show_size(plan.budget_bytes)} to train in "
        f"({show_size(board.memory_bytes)} {board.memory_source}, less {show_size(CLIENT_BYTES)} for the client)",
        f"round: {_round(candidate)}",
        *_unusual(candidate),
    ]
    lines += [
        f"  {PART_NAMES.get(name, name):<32}{_signed(size):>10}" for name, size in memory_parts(candidate).items()
    ]
    return [*lines, *(f"not {other.kind}: {other.reason}" for other in others)]


def facts(candidate: Candidate, board: Board, others: Sequence[RunnerUp]) -> dict[str, Any]:
    """The same for programs: plain values only. `round_s` is null where the board's speed is not known,
    `rank_of_all_boards` where each board chooses its own ranks."""
    plan = candidate.plan
    return {
        **msgspec.structs.asdict(plan.mode),
        "accumulation": candidate.accumulation,
        "ranks": list(plan.ranks),
        "rank_of_all_boards": candidate.rank or None,
        "pruned_ranks": dict(candidate.pruned),
        "n_strands": candidate.n_strands,
        "n_strands_in_all": candidate.n_strands_in_all,
        "is_ranked": candidate.is_ranked,
        "importance_share": candidate.share,
        "worth": candidate.worth,
        "round_bytes": round(candidate.round_bytes),
        "round_s": candidate.round_s,
        "predicted_peak_bytes": plan.expected_peak_bytes,
        "kept_bytes": plan.kept_bytes,
        "budget_bytes": plan.budget_bytes,
        "board_memory_bytes": board.memory_bytes,
        "board_memory_source": board.memory_source,
        "memory": memory_parts(candidate),
        "runners_up": [_runner_up(other) for other in others],
    }


def _runner_up(other: RunnerUp) -> dict[str, Any]:
    plan, mode = other.candidate.plan, other.candidate.plan.mode
    return {
        "kind": other.kind,
        "format": mode.format,
        "micro_batch": mode.micro_batch,
        "checkpointing": mode.checkpointing,
        "cache": mode.cache,
        "frozen_encoder": mode.frozen_encoder,
        "n_strands": other.candidate.n_strands,
        "importance_share": other.candidate.share,
        "worth": other.candidate.worth,
        "predicted_peak_bytes": plan.expected_peak_bytes,
        "reason": other.reason,
    }


def memory_parts(candidate: Candidate) -> dict[str, int]:
    """Bytes by part, which add up to the plan's peak; a correction by a measured step is a part, and may be below
    zero."""
    measured_bytes = candidate.plan.expected_peak_bytes - candidate.plan.predicted_bytes
    return candidate.memory.parts() | ({"measured_bytes": measured_bytes} if measured_bytes else {})


def why_not(other: Candidate, chosen: Candidate) -> str:
    """Why a candidate that fits lost against the chosen one."""
    slower = other.operations / chosen.operations
    if other.share < chosen.share - SAME:
        return f"only {_percent(other.share)} of the importance fits, {_percent(chosen.share)} here" + _how_slow(slower)
    gain = "as much importance" if other.share <= chosen.share + SAME else f"{_percent(other.share)} of the importance"
    losses = []
    if KEPT_LEARNING[other.plan.mode.format] < KEPT_LEARNING[chosen.plan.mode.format]:
        losses.append("a base that learns less")
    if slower > 1 + SAME:
        losses.append(f"{slower:.2f} times the arithmetic")
    if not losses:
        losses.append("nothing gained by it")
    return f"{gain}, but {' and '.join(losses)}"


def _how_slow(slower: float) -> str:
    return f", at {slower:.2f} times the arithmetic" if slower > 1 + SAME else ""


def _batches(candidate: Candidate) -> str:
    batch = f"{candidate.plan.mode.micro_batch} examples at a time"
    return batch if candidate.accumulation == 1 else f"{batch}, {candidate.accumulation} times a step"


def _round(candidate: Candidate) -> str:
    traffic = f"moves {show_size(candidate.round_bytes)} at most"
    if candidate.round_s is None:
        return f"{traffic}; how long it takes is not known, for nobody measured this board's arithmetic"
    return f"{traffic}, trains for about {show_seconds(candidate.round_s)} at most"


def _pruning(candidate: Candidate) -> list[str]:
    own = sum(rank == 0 for rank in candidate.pruned.values())  # pruning leaves a weight one strand at least
    pruned, of_all = len(candidate.pruned) - own, f"of {len(candidate.plan.ranks)} weights"
    lines = [f"pruning: {pruned} {of_all} have lost strands in earlier rounds, and get none of them back"]
    return [*(lines if pruned else []), *([f"local: {own} {of_all} have strands of this board alone"] if own else [])]


def _unusual(candidate: Candidate) -> list[str]:
    mode, lines = candidate.plan.mode, list[str]()
    if mode.cache != "none":
        loaded = f"; it stays loaded, {show_size(candidate.plan.kept_bytes)} more" if candidate.plan.kept_bytes else ""
        lines.append(f"encoder: runs once per text; its output is kept on disk in {mode.cache}{loaded}")
    if mode.frozen_encoder:
        lines.append("encoder: stays as received and runs in every step; only the decoder is trained here")
    if mode.checkpointing:
        lines.append("checkpointing: every block is computed again on the way back, which saves memory and costs time")
    return lines


def _signed(size_bytes: int) -> str:
    return show_size(size_bytes) if size_bytes >= 0 else f"-{show_size(-size_bytes)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share > 0.1 or not share else f"{100 * share:.2g} %"
