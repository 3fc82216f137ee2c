"""Every plan that one board could make for one run: for each mode the strands that fit, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import mul

from edge_client.jobs.messages import Plan, TrainingMode
from edge_client.plan.memory_oracle import MemoryOracle
from edge_client.plan.peak_memory import Breakdown, predict_kept
from edge_client.plan.pruning import limited
from edge_client.plan.round_cost import (
    RoundLimits,
    RoundWork,
    fixed_traffic,
    operations_per_s,
    round_traffic,
    strand_traffic,
)
from edge_client.plan.situation import FREE, Constraints, Situation
from edge_client.plan.strand_selection import Budget, Selector, basis_rows
from edge_client.plan.training_mode import KEPT_LEARNING, SLOWNESS_EXPONENT, is_slow_arithmetic, possible_modes
from wire.checks import equal_ranks

ROOMY = 1.25
"""A budget of so many times the peak has room for what saves time only. A worker whose limit is a quarter above its
peak keeps its free memory from step to step (`host.worker_memory.CAREFUL_SHARE`), and must not lose that."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mode of training with its strands, and all that it would cost.

    Attributes:
        plan: what the board would do.
        memory: where its memory goes, as predicted from shapes.
        n_strands: that are trained here.
        n_strands_in_all: of the run.
        rank: that every board trains every weight at, as far as the weight can; 0 where boards choose, or this one has
            pruned weights.
        pruned: the ranks that earlier rounds have pruned weights to, by name, which no candidate exceeds.
        is_ranked: whether the run has a ranking; before that every strand counts the same.
        share: of the run's importance that these strands have.
        worth: the share, less what the format loses and what slowness counts; 0 to 1.
        operations: floating-point operations of a round whose texts are all as long as the run allows.
        round_bytes: down and up in a round at most.
        round_s: seconds of a round at most, None where the board's speed is not known.
        batch: examples of an optimiser step.
    """

    plan: Plan
    memory: Breakdown
    n_strands: int
    n_strands_in_all: int
    rank: int
    pruned: Mapping[str, int]
    is_ranked: bool
    share: float
    worth: float
    operations: float
    round_bytes: float
    round_s: float | None
    batch: int

    @property
    def fits(self) -> bool:
        """Whether its memory stays within the budget."""
        return self.plan.expected_peak_bytes <= self.plan.budget_bytes

    @property
    def accumulation(self) -> int:
        """Micro-batches whose gradients are added up for one optimiser step."""
        return -(-self.batch // self.plan.mode.micro_batch)

    def keeps(self, limits: RoundLimits) -> bool:
        """Whether a round stays within the limits on time and traffic."""
        in_time = limits.round_s is None or self.round_s is None or self.round_s <= limits.round_s
        return in_time and (limits.round_bytes is None or self.round_bytes <= limits.round_bytes)


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """A candidate that lost: in which it differs ("int8 base", "checkpointing"), and the sentence that says why."""

    kind: str
    candidate: Candidate
    reason: str


class Candidates:
    """Evaluates modes of training, each once.

    Where the run says at which rank every weight is trained, or a round was begun with `kept_ranks`, these are the
    strands of every candidate, and only the mode is chosen. A round that was begun is within its limits on time and
    traffic: they are not asked again.
    """

    def __init__(self, situation: Situation, constraints: Constraints = FREE) -> None:
        board, run = situation.board, situation.run
        if constraints.kept_ranks is not None:
            situation = replace(situation, limits=replace(situation.limits, round_s=None, round_bytes=None))
        self._situation, self._run, self._pruned = situation, run, constraints.pruned
        given = equal_ranks(run, run.settings.rank) if run.settings.rank else constraints.kept_ranks
        self._given = None if given is None else limited(given, run.weights, self._pruned)
        self._selector = Selector(run)
        self._work = RoundWork(situation.base, run, situation.cache)
        self._rows = basis_rows(run)
        self._nothing = (0,) * len(run.weights)
        self._encoder = frozenset(i for i, weight in enumerate(run.weights) if weight.is_encoder)
        self.budget_bytes = situation.budget_bytes
        self.modes = [m for m in possible_modes(situation) if constraints.allows(m) and self._may_be(m)]
        quick = [mode for mode in self.modes if not is_slow_arithmetic(mode, board)]
        self._least_operations = min(map(self._work.operations, quick or self.modes), default=0.0)
        self._evaluated: dict[TrainingMode, Candidate | None] = {}

    def best(self, among: Sequence[TrainingMode]) -> Candidate | None:
        """The fitting candidate of most worth, the first in `among` of equal ones; None where none fits."""
        best: Candidate | None = None
        for mode in sorted(among, key=self._most_worth, reverse=True):  # stable: the simpler mode stays first
            if best is not None and self._most_worth(mode) <= best.worth:
                break  # neither this one nor any behind it can be worth more
            candidate = self.of(mode)
            if candidate is not None and (best is None or candidate.worth > best.worth):
                best = candidate
        return best

    def of(self, mode: TrainingMode) -> Candidate | None:
        """The mode with the strands that serve it best; None where not one fits."""
        if mode not in self._evaluated:
            ranks = self._strands(mode)
            if ranks is not None:
                ranks = limited(ranks, self._run.weights, self._pruned)
            self._evaluated[mode] = None if ranks is None else self.with_ranks(mode, ranks)
        return self._evaluated[mode]

    def with_ranks(self, mode: TrainingMode, ranks: Sequence[int]) -> Candidate:
        """The candidate of a mode and strands, whether it fits or not."""
        situation, work = self._situation, self._work
        memory = self._memory(mode).predicted(ranks)
        share = self._selector.share(ranks)
        # Operations are known of a round with all strands: those of the missing ones are taken off.
        missing = (most - rank for most, rank in zip(self._most(mode), ranks, strict=True))
        operations = work.operations(mode) - sum(map(mul, work.strand_operations(mode), missing))
        rate = operations_per_s(mode.compute, situation.limits)
        expected_bytes = situation.calibration.expected_bytes(mode, memory.total_bytes)
        return Candidate(
            plan=Plan(
                mode=mode,
                ranks=tuple(ranks),
                predicted_bytes=memory.total_bytes,
                expected_peak_bytes=expected_bytes,
                budget_bytes=self.budget_bytes,
                kept_bytes=self._kept_bytes(mode, ranks, expected_bytes),
            ),
            memory=memory,
            n_strands=sum(ranks),
            n_strands_in_all=sum(self._rows),
            rank=0 if self._pruned else self._run.settings.rank,
            pruned=self._pruned,
            is_ranked=bool(self._run.values),
            share=share,
            worth=share * self._factor(mode),
            operations=operations,
            round_bytes=round_traffic(self._run, ranks, frozen_encoder=mode.frozen_encoder).total_bytes,
            round_s=(operations + work.encoding(mode)) / rate if rate else None,
            batch=self._run.settings.batch,
        )

    def least(self, mode: TrainingMode) -> Candidate:
        """The candidate with the given strands; where they are chosen, without any: what a round takes before the
        first."""
        return self.with_ranks(mode, self._given or self._nothing)

    def leanest(self, among: Sequence[TrainingMode]) -> tuple[int, TrainingMode]:
        """The mode that trains something in least memory, and the budget in bytes from which on it does."""
        fewest_examples = min(mode.micro_batch for mode in among)  # no peak falls where the micro-batch grows
        lean = [mode for mode in among if mode.micro_batch == fewest_examples]
        if self._given is not None:
            return min(((self._memory(mode).expected_bytes(self._given), mode) for mode in lean), key=_first)
        least: list[tuple[int, TrainingMode]] = []
        bare = ((self._memory(mode).expected_bytes(self._nothing), mode) for mode in lean)
        for bare_bytes, mode in sorted(bare, key=_first):
            if not least or bare_bytes < least[0][0]:  # with a strand it takes more than without
                memory = self._memory(mode).budget(self.budget_bytes)
                needed_bytes = math.ceil(self._selector.least_memory(memory, self._without(mode)))
                least = [min([*least, (needed_bytes, mode)], key=_first)]
        return least[0]

    def smallest(self, mode: TrainingMode, budget_bytes: int) -> Candidate:
        """The candidate that a budget of just so much leads to, limits on time and traffic aside."""
        ranks = self._given
        if ranks is None:
            ranks = self._selector.select(self._memory(mode).budget(budget_bytes), without=self._without(mode))
        return self.with_ranks(mode, self._nothing if ranks is None else ranks)

    def _kept_bytes(self, mode: TrainingMode, ranks: Sequence[int], expected_bytes: int) -> int:
        """Bytes that keeping the encoder loaded takes beyond the expected peak, where the budget has room for it
        and to spare; else 0."""
        if mode.cache == "none":
            return 0
        kept_bytes = predict_kept(self._situation.base, self._run, mode, ranks)
        return kept_bytes if ROOMY * (expected_bytes + kept_bytes) <= self.budget_bytes else 0

    # --- what a mode may train -------------------------------------------------------------------------------------

    def _may_be(self, mode: TrainingMode) -> bool:
        """Whether a mode trains something, and with given strands freezes the encoder just where none of them is its
        own."""
        if not any(self._most(mode)):
            return False
        if self._given is None or self._run.settings.scope != "all":
            return True
        return mode.frozen_encoder == (not any(self._given[index] for index in self._encoder))

    def _without(self, mode: TrainingMode) -> frozenset[int]:
        """Weights that the mode leaves out."""
        return self._encoder if mode.frozen_encoder else frozenset()

    def _most(self, mode: TrainingMode) -> list[int]:
        """Ranks of all strands that the mode can train."""
        without = self._without(mode)
        return [0 if index in without else rows for index, rows in enumerate(self._rows)]

    def _memory(self, mode: TrainingMode) -> MemoryOracle:
        return MemoryOracle(self._situation, mode)

    def _strands(self, mode: TrainingMode) -> Sequence[int] | None:
        memory, others = self._memory(mode), self._round_budgets(mode)
        if self._given is not None:
            fits = memory.expected_bytes(self._given) <= self.budget_bytes and _pay(others, self._given)
            return self._given if fits else None
        if memory.expected_bytes(self._nothing) > self.budget_bytes:
            return None
        most = self._most(mode)
        if any(budget.limit < min(filter(None, budget.costs)) for budget in others):
            return None
        if _pay(others, most) and memory.expected_bytes(most) <= self.budget_bytes:
            return most
        return self._selector.select(memory.budget(self.budget_bytes), others, self._without(mode))

    def _round_budgets(self, mode: TrainingMode) -> list[Budget]:
        """Budgets that a round's limits leave for strands; below zero where not even a round without strands keeps
        them."""
        budgets, limits = [], self._situation.limits
        if limits.round_bytes is not None:
            fixed_bytes = fixed_traffic(self._run, frozen_encoder=mode.frozen_encoder)
            budgets.append(Budget(strand_traffic(self._run), limits.round_bytes - fixed_bytes))
        if limits.round_s is not None:
            costs = self._work.strand_operations(mode)
            every = self._work.operations(mode) + self._work.encoding(mode)
            fixed = every - sum(map(mul, costs, self._most(mode)))
            budgets.append(Budget(costs, limits.round_s * operations_per_s(mode.compute, limits) - fixed))
        return budgets

    def _most_worth(self, mode: TrainingMode) -> float:
        """Worth of the mode where every strand of it fits."""
        ranks = self._most(mode) if self._given is None else self._given
        return self._selector.share(ranks) * self._factor(mode)

    def _factor(self, mode: TrainingMode) -> float:
        """Factor by which a strand's share counts, trained in this mode."""
        slowness = self._work.operations(mode) / self._least_operations
        return KEPT_LEARNING[mode.format] * float(slowness**-SLOWNESS_EXPONENT)


def _pay(budgets: Sequence[Budget], ranks: Sequence[int]) -> bool:
    return all(sum(map(mul, budget.costs, ranks)) <= budget.limit for budget in budgets)


def _first(pair: tuple[int, TrainingMode]) -> int:
    return pair[0]
