"""A plan in people's words, and as plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_client.host.board import Board, show_size
from edge_client.plan.candidates import CLIENT_BYTES
from edge_client.plan.choice import Choice, RunnerUp
from edge_client.plan.round_cost import show_duration
from edge_client.plan.training_mode import KEPT_LEARNING

PART_NAMES = {
    "imports_bytes": "Python and torch",
    "kernels_bytes": "torch's compute kernels",
    "base_bytes": "frozen base",
    "context_bytes": "global adapter, frozen",
    "strands_bytes": "strands with optimiser state",
    "sketch_bytes": "gradient sketches",
    "activations_bytes": "activations",
    "working_bytes": "largest short-lived buffers",
    "slack_bytes": "reserve of the allocator",
    "encoding_bytes": "more while the encoder runs",
    "measured_bytes": "correction by a measured step",
}
"""The parts of a Breakdown in people's words."""

PLACES = {"cpu": "the processor", "cuda": "the GPU"}

SAME = 1e-6
"""Shares and speeds closer than this count as the same in words."""


def explain(choice: Choice, board: Board, others: Sequence[RunnerUp]) -> list[str]:
    """Lines for people: the plan, what it is worth and costs, its memory part by part, and why the others lost."""
    plan = choice.plan
    lines = [
        f"plan: {plan.format} base, {plan.compute} arithmetic on {PLACES[plan.device]}, {_batches(choice)}, "
        f"{choice.n_strands} of {choice.n_strands_in_all} strands "
        f"on {sum(rank > 0 for rank in plan.ranks)} of {len(plan.ranks)} weights"
        + (f", rank {choice.rank} on each as on every board" if choice.rank else ""),
        *_pruning(choice),
        f"importance: {_percent(choice.share)} of the run's is trained here"
        + ("" if choice.is_ranked else "; before there is a ranking, every strand counts the same"),
        f"memory: {show_size(plan.predicted_peak_bytes)} predicted peak of {show_size(plan.budget_bytes)} to train in "
        f"({show_size(board.memory_bytes)} {board.memory_source}, less {show_size(CLIENT_BYTES)} for the client)",
        f"round: {_round(choice)}",
        *_unusual(choice),
    ]
    lines += [f"  {PART_NAMES.get(name, name):<32}{_signed(size):>10}" for name, size in memory_parts(choice).items()]
    return [*lines, *(f"not {other.kind}: {other.reason}" for other in others)]


def facts(choice: Choice, board: Board, others: Sequence[RunnerUp]) -> dict[str, Any]:
    """The same for programs: plain values only. `round_s` is null where the board's speed is not known,
    `rank_of_all_boards` where each board chooses its own ranks."""
    plan = choice.plan
    return {
        "format": plan.format,
        "compute": plan.compute,
        "device": plan.device,
        "checkpointing": plan.checkpointing,
        "cache": plan.cache,
        "frozen_encoder": plan.frozen_encoder,
        "micro_batch": plan.micro_batch,
        "accumulation": choice.accumulation,
        "ranks": list(plan.ranks),
        "rank_of_all_boards": choice.rank or None,
        "pruned_ranks": dict(choice.pruned),
        "n_strands": choice.n_strands,
        "n_strands_in_all": choice.n_strands_in_all,
        "is_ranked": choice.is_ranked,
        "importance_share": choice.share,
        "worth": choice.worth,
        "round_bytes": round(choice.round_bytes),
        "round_s": choice.round_s,
        "predicted_peak_bytes": plan.predicted_peak_bytes,
        "budget_bytes": plan.budget_bytes,
        "board_memory_bytes": board.memory_bytes,
        "board_memory_source": board.memory_source,
        "memory": memory_parts(choice),
        "runners_up": [
            {
                "kind": other.kind,
                "format": other.choice.plan.format,
                "micro_batch": other.choice.plan.micro_batch,
                "checkpointing": other.choice.plan.checkpointing,
                "cache": other.choice.plan.cache,
                "frozen_encoder": other.choice.plan.frozen_encoder,
                "n_strands": other.choice.n_strands,
                "importance_share": other.choice.share,
                "worth": other.choice.worth,
                "predicted_peak_bytes": other.choice.plan.predicted_peak_bytes,
                "reason": other.reason,
            }
            for other in others
        ],
    }


def memory_parts(choice: Choice) -> dict[str, int]:
    """Bytes by part, which add up to the plan's peak; a correction by a measured step is a part, and may be below
    zero."""
    measured_bytes = choice.plan.predicted_peak_bytes - choice.memory.total_bytes
    return choice.memory.parts() | ({"measured_bytes": measured_bytes} if measured_bytes else {})


def why_not(other: Choice, chosen: Choice) -> str:
    """Why a candidate that fits lost against the chosen one."""
    slower = other.operations / chosen.operations
    if other.share < chosen.share - SAME:
        return f"only {_percent(other.share)} of the importance fits, {_percent(chosen.share)} here" + _how_slow(slower)
    gain = "as much importance" if other.share <= chosen.share + SAME else f"{_percent(other.share)} of the importance"
    losses = []
    if KEPT_LEARNING[other.plan.format] < KEPT_LEARNING[chosen.plan.format]:
        losses.append("a base that learns less")
    if slower > 1 + SAME:
        losses.append(f"{slower:.2f} times the arithmetic")
    if not losses:
        losses.append("nothing gained by it")
    return f"{gain}, but {' and '.join(losses)}"


def _how_slow(slower: float) -> str:
    return f", at {slower:.2f} times the arithmetic" if slower > 1 + SAME else ""


def _batches(choice: Choice) -> str:
    one = f"{choice.plan.micro_batch} examples at a time"
    return one if choice.accumulation == 1 else f"{one}, {choice.accumulation} times a step"


def _round(choice: Choice) -> str:
    traffic = f"moves {show_size(choice.round_bytes)} at most"
    if choice.round_s is None:
        return f"{traffic}; how long it takes is not known, for nobody measured this board's arithmetic"
    return f"{traffic}, trains for about {show_duration(choice.round_s)} at most"


def _pruning(choice: Choice) -> list[str]:
    if not choice.pruned:
        return []
    weights = f"{len(choice.pruned)} of {len(choice.plan.ranks)} weights"
    return [f"pruning: {weights} have lost strands in earlier rounds, and get none of them back"]


def _unusual(choice: Choice) -> list[str]:
    plan, lines = choice.plan, []
    if plan.cache != "none":
        lines.append(f"encoder: runs once per text; its output is kept on disk in {plan.cache}")
    if plan.frozen_encoder:
        lines.append("encoder: stays as received and runs in every step; only the decoder is trained here")
    if plan.checkpointing:
        lines.append("checkpointing: every block is computed again on the way back, which saves memory and costs time")
    return lines


def _signed(size_bytes: int) -> str:
    return show_size(size_bytes) if size_bytes >= 0 else f"-{show_size(-size_bytes)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share > 0.1 or not share else f"{100 * share:.2g} %"
