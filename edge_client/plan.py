"""What a board does in a round: format, compute type, micro-batch, checkpointing, cache and strands, the most that its
memory holds.

The rule: with the run's micro-batch, most strands first. For as many strands, the first of these that fits:

1. a base of 8 bits or more, the highest precision first. Where bf16 products are the faster ones, fp32 is left out: it
   costs most of the board's speed, and bf16 moved the builtin base's held-out loss by 0.0003 nats per token at most.
2. the same with checkpointing, which changes no result and costs about a third more arithmetic.
3. a base of 4 bits, without checkpointing and with it: its unpacking costs time, and it costs quality (the same loss
   rose by 0.008 and 0.016 on two data sets).
4. all of this without the encoder's output on disk, so that the encoder runs in every step: only where the encoding
   pass is what does not fit.

Where not even a quarter of the strands fits, the micro-batch is halved, again and again, with that quarter; at a
micro-batch of one, fewer will do. So a board with more memory never trains fewer strands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge_client.allot import allot, strand_order
from edge_client.board import Board, show_size
from edge_client.cache_room import NO_ROOM, CacheRoom, cache_dtype
from edge_client.errors import NoPlanError
from edge_client.jobs import CacheDtype, Compute, Format, Plan
from edge_client.memory import IMPORTS_BYTES, Breakdown, predict_peak
from wire.messages import RunInfo

STEPS = 16
"""Strand counts that are tried: sixteenths of all strands. Finer steps would gain a board less than 6 %."""

FEWEST_STEPS = STEPS // 4
"""Below this share of the strands a smaller micro-batch, which costs only time, is the better bargain."""

CLIENT_BYTES = 45 << 20
"""Kept for the network side, which lives beside the worker: what an idle client may take."""

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
}
"""The parts of a Breakdown in people's words."""

PLACES = {"cpu": "the processor", "cuda": "the GPU"}

FORMATS: tuple[Format, ...] = ("fp32", "bf16", "int8", "nf4")
"""Highest precision first (quantize.formats.FORMATS)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate that was looked at: a plan, and where its memory goes."""

    plan: Plan
    memory: Breakdown
    n_strands: int
    n_strands_in_all: int

    @property
    def fits(self) -> bool:
        return self.plan.predicted_peak_bytes <= self.plan.budget_bytes


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """A candidate that lost, and the sentence that says why."""

    choice: Choice
    reason: str


def choose_plan(
    board: Board,
    run: RunInfo,
    config: Mapping[str, Any],
    imports_bytes: int = IMPORTS_BYTES,
    room: CacheRoom = NO_ROOM,
) -> Plan:
    """Choose for `board` the plan of a run whose base has `config` (config.json).

    `room`: disk for the encoder's output. Raises NoPlanError that says what the smallest plan needs where none fits.
    """
    return choose(board, run, config, imports_bytes, room).plan


def choose(
    board: Board,
    run: RunInfo,
    config: Mapping[str, Any],
    imports_bytes: int = IMPORTS_BYTES,
    room: CacheRoom = NO_ROOM,
) -> Choice:
    """As `choose_plan`, with the memory behind it."""
    smallest: Choice | None = None
    for choice in _Candidates(board, run, config, imports_bytes, room).by_preference():
        if choice.fits:
            return choice
        if smallest is None or choice.plan.predicted_peak_bytes < smallest.plan.predicted_peak_bytes:
            smallest = choice
    assert smallest is not None, "a run has at least one weight, and so one candidate"
    needed_bytes = smallest.plan.predicted_peak_bytes + CLIENT_BYTES
    raise NoPlanError(
        f"no plan fits: the smallest needs {show_size(needed_bytes)} ({needed_bytes} bytes), "
        f"the board has {show_size(board.memory_bytes)} ({board.memory_bytes} bytes, {board.memory_source})",
        "free or give more memory (--memory), or ask for a run with shorter texts or a smaller base",
    )


def runners_up(
    choice: Choice, board: Board, run: RunInfo, config: Mapping[str, Any], room: CacheRoom = NO_ROOM
) -> list[RunnerUp]:
    """The best candidate of every other format at the chosen plan's micro-batch, and why it lost."""
    candidates = _Candidates(board, run, config, choice.memory.imports_bytes, room)
    others = [candidates.best_of(format, choice.plan.micro_batch) for format in FORMATS if format != choice.plan.format]
    return [RunnerUp(other, _why_not(other, choice)) for other in others]


def explain(choice: Choice, board: Board, others: list[RunnerUp]) -> list[str]:
    """Lines for people: the plan, its memory part by part, and why the others lost."""
    plan = choice.plan
    lines = [
        f"plan: {plan.format} base, {plan.compute} arithmetic on {PLACES[plan.device]}, "
        f"{plan.micro_batch} examples at a time, {choice.n_strands} of {choice.n_strands_in_all} strands "
        f"on {sum(rank > 0 for rank in plan.ranks)} of {len(plan.ranks)} weights",
        f"memory: {show_size(plan.predicted_peak_bytes)} predicted peak of {show_size(plan.budget_bytes)} to train in "
        f"({show_size(board.memory_bytes)} {board.memory_source}, less {show_size(CLIENT_BYTES)} for the client)",
    ]
    if plan.cache != "none":
        lines.append(f"encoder: runs once per text; its output is kept on disk in {plan.cache}")
    if plan.checkpointing:
        lines.append("checkpointing: every block is computed again on the way back, which saves memory and costs time")
    lines += [
        f"  {PART_NAMES.get(name, name.removesuffix('_bytes')):<32}{show_size(size):>10}"
        for name, size in choice.memory.parts().items()
    ]
    lines += [f"not {other.choice.plan.format}: {other.reason}" for other in others]
    return lines


def facts(choice: Choice, board: Board, others: list[RunnerUp]) -> dict[str, Any]:
    """The same for programs: plain values only."""
    plan = choice.plan
    return {
        "format": plan.format,
        "compute": plan.compute,
        "device": plan.device,
        "checkpointing": plan.checkpointing,
        "cache": plan.cache,
        "micro_batch": plan.micro_batch,
        "ranks": list(plan.ranks),
        "n_strands": choice.n_strands,
        "n_strands_in_all": choice.n_strands_in_all,
        "predicted_peak_bytes": plan.predicted_peak_bytes,
        "budget_bytes": plan.budget_bytes,
        "board_memory_bytes": board.memory_bytes,
        "board_memory_source": board.memory_source,
        "memory": choice.memory.parts(),
        "runners_up": [
            {
                "format": other.choice.plan.format,
                "n_strands": other.choice.n_strands,
                "predicted_peak_bytes": other.choice.plan.predicted_peak_bytes,
                "reason": other.reason,
            }
            for other in others
        ],
    }


def compute_for(format: Format, board: Board) -> Compute:
    """fp32 bases compute in fp32; the others in bf16 where the processor has it, for emulated bf16 is slow."""
    return "bf16" if format != "fp32" and board.bf16_fast else "fp32"


@dataclass(frozen=True, slots=True)
class _Way:
    """How a number of strands may be trained."""

    format: Format
    checkpointing: bool
    cache: CacheDtype


def _ways(cache: CacheDtype) -> list[_Way]:
    """The most wanted first (this module's text)."""
    large = [_Way(format, checkpointing, cache) for checkpointing in (False, True) for format in FORMATS[:-1]]
    ways = [*large, _Way("nf4", False, cache), _Way("nf4", True, cache)]
    return ways if cache == "none" else [*ways, *_ways("none")]


class _Candidates:
    """Every plan that the rule looks at, for one board and run."""

    def __init__(
        self, board: Board, run: RunInfo, config: Mapping[str, Any], imports_bytes: int, room: CacheRoom
    ) -> None:
        self._board, self._run, self._config, self._imports_bytes = board, run, config, imports_bytes
        self._order = strand_order(run)
        self._all_ways = _ways(cache_dtype(run, config, room))

    def by_preference(self) -> Iterator[Choice]:
        """The most wanted first."""
        ways = [way for way in self._all_ways if not (way.format == "fp32" and self._board.bf16_fast)]
        micro_batch, most_steps = self._run.settings.micro_batch, STEPS
        while micro_batch:
            fewest_steps = FEWEST_STEPS if micro_batch > 1 else 1
            for step in range(most_steps, fewest_steps - 1, -1):
                for way in ways:
                    yield self._candidate(way, micro_batch, step)
            micro_batch, most_steps = micro_batch // 2, FEWEST_STEPS

    def best_of(self, format: Format, micro_batch: int) -> Choice:
        """The fitting candidate of a format with most strands, or the smallest one where none fits."""
        ways = [way for way in self._all_ways if way.format == format]
        choices = [self._candidate(way, micro_batch, step) for step in range(STEPS, 0, -1) for way in ways]
        smallest = min(choices, key=lambda choice: choice.plan.predicted_peak_bytes)
        return next((choice for choice in choices if choice.fits), smallest)

    def _candidate(self, way: _Way, micro_batch: int, step: int) -> Choice:
        n_strands = -(-len(self._order) * step // STEPS)
        ranks = allot(self._order, len(self._run.weights), n_strands)
        compute = compute_for(way.format, self._board)
        memory = predict_peak(
            self._config,
            self._run,
            way.format,
            compute,
            micro_batch,
            ranks,
            self._imports_bytes,
            checkpointing=way.checkpointing,
            cache=way.cache,
            device=self._board.device,
        )
        plan = Plan(
            format=way.format,
            compute=compute,
            micro_batch=micro_batch,
            ranks=ranks,
            predicted_peak_bytes=memory.total_bytes,
            budget_bytes=max(0, self._board.memory_bytes - CLIENT_BYTES),
            device=self._board.device,
            checkpointing=way.checkpointing,
            cache=way.cache,
        )
        return Choice(plan, memory, n_strands, len(self._order))


def _why_not(other: Choice, chosen: Choice) -> str:
    missing_bytes = other.plan.predicted_peak_bytes - other.plan.budget_bytes
    if missing_bytes > 0:
        return f"with its fewest strands ({other.n_strands}) it lacks {show_size(missing_bytes)}"
    if other.n_strands < chosen.n_strands:
        return f"only {other.n_strands} strands fit, {chosen.n_strands - other.n_strands} fewer"
    if other.plan.compute != chosen.plan.compute:
        return f"{chosen.plan.compute} products are faster on this board"
    if other.plan.checkpointing and not chosen.plan.checkpointing:
        return "as many strands fit, but only with checkpointing, which costs time"
    return f"as many strands fit, at lower precision than {chosen.plan.format}"
