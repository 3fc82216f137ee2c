"""Every plan that one board could make for one run: for each way the strands that fit, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import mul
from typing import Any

from edge_client.host.board import Board
from edge_client.jobs.messages import Plan
from edge_client.plan.cache_budget import CacheRoom
from edge_client.plan.calibration import Calibration
from edge_client.plan.choice import Choice
from edge_client.plan.peak_memory import Breakdown, predict_peak, strand_marginal_bytes
from edge_client.plan.round_cost import (
    RoundLimits,
    RoundWork,
    fixed_traffic,
    kind_of,
    operations_per_s,
    strand_traffic,
)
from edge_client.plan.strand_selection import Budget, Memory, Selector, basis_rows
from edge_client.plan.training_mode import KEPT_LEARNING, SLOWNESS_EXPONENT, Way, is_slow_arithmetic, ways
from edge_client.state.pruned_ranks import NO_PRUNING, limited
from wire.checks import equal_ranks
from wire.messages import RunInfo

CLIENT_BYTES = 45 << 20
"""Kept for the network side, which lives beside the worker: what an idle client may take."""


class Candidates:
    """Evaluates ways, each once. Where the run says at which rank every weight is trained, or a round was begun with
    `kept_ranks`, these are the strands of every candidate, and only the way is chosen. A round that was begun is within
    its limits on time and traffic: they are not asked again.

    `pruned` are ranks of weights by name that no candidate exceeds. What they leave of the budgets is not spent on
    other weights: pruning is to make the board's share smaller, not another."""

    def __init__(
        self,
        board: Board,
        run: RunInfo,
        config: Mapping[str, Any],
        imports_bytes: int,
        room: CacheRoom,
        limits: RoundLimits,
        calibration: Calibration,
        kept_ranks: Sequence[int] | None = None,
        pruned: Mapping[str, int] = NO_PRUNING,
    ) -> None:
        self._board, self._run, self._config, self._imports_bytes = board, run, config, imports_bytes
        self._limits, self._corrections = limits, calibration
        if kept_ranks is not None:
            self._limits = replace(limits, round_s=None, round_bytes=None)
        self._pruned, rank = pruned, run.settings.rank
        given = equal_ranks(run, rank) if rank else kept_ranks
        self._given = None if given is None else limited(given, run.weights, pruned)
        self._selector = Selector(run)
        self._work = RoundWork(config, run, room)
        self._rows = basis_rows(run)
        self._nothing = (0,) * len(run.weights)
        self._encoder = frozenset(i for i, weight in enumerate(run.weights) if weight.is_encoder)
        self.budget_bytes = max(0, board.memory_bytes - CLIENT_BYTES)
        self.ways = [way for way in ways(board, run, config, room) if self._may_be(way)]
        quick = [way for way in self.ways if not is_slow_arithmetic(way, board)]
        self._least_operations = min(map(self._work.operations, quick))
        self._evaluated: dict[Way, Choice | None] = {}
        self._costs: dict[Way, list[float]] = {}
        self._bounds: dict[Way, float] = {}

    def best(self, among: Sequence[Way]) -> Choice | None:
        """The fitting candidate of most worth, the first in `among` of equal ones; None where none fits."""
        best: Choice | None = None
        for way in sorted(among, key=self._most_worth, reverse=True):  # stable: the simpler way stays first
            if best is not None and self._most_worth(way) <= best.worth:
                break
            choice = self.evaluate(way)
            if choice is not None and (best is None or choice.worth > best.worth):
                best = choice
        return best

    def evaluate(self, way: Way) -> Choice | None:
        """With the strands that serve it best; None where not one fits."""
        if way not in self._evaluated:
            ranks = self._strands(way)
            if ranks is not None:
                ranks = limited(ranks, self._run.weights, self._pruned)
            self._evaluated[way] = None if ranks is None else self.choice(way, ranks)
        return self._evaluated[way]

    def choice(self, way: Way, ranks: Sequence[int]) -> Choice:
        """The candidate of a way and strands, whether it fits or not."""
        memory = self._predicted(way, ranks)
        share = self._selector.share(ranks)
        missing = (most - rank for most, rank in zip(self._most(way), ranks, strict=True))
        operations = self._work.operations(way) - sum(map(mul, self._work.strand_operations(way), missing))
        rate = operations_per_s(way.compute, self._limits)
        return Choice(
            plan=Plan(
                format=way.format,
                compute=way.compute,
                micro_batch=way.micro_batch,
                ranks=tuple(ranks),
                predicted_peak_bytes=self._corrected(way, memory.total_bytes),
                budget_bytes=self.budget_bytes,
                device=self._board.device,
                checkpointing=way.checkpointing,
                cache=way.cache,
                frozen_encoder=way.frozen_encoder,
            ),
            memory=memory,
            n_strands=sum(ranks),
            n_strands_in_all=sum(self._rows),
            rank=0 if self._pruned else self._run.settings.rank,
            pruned=self._pruned,
            is_ranked=bool(self._run.values),
            share=share,
            worth=share * self._factor(way),
            operations=operations,
            round_bytes=fixed_traffic(self._run, frozen_encoder=way.frozen_encoder)
            + sum(map(mul, strand_traffic(self._run), ranks)),
            round_s=(operations + self._work.encoding(way)) / rate if rate else None,
            batch=self._run.settings.batch,
        )

    def least(self, way: Way) -> Choice:
        """The candidate with the given strands; where they are chosen, without any: what a round takes before the
        first."""
        return self.choice(way, self._given or self._nothing)

    def leanest(self, among: Sequence[Way]) -> tuple[int, Way]:
        """The way that trains something in least memory, and the budget from which on it does."""
        fewest_examples = min(way.micro_batch for way in among)  # no peak falls where the micro-batch grows
        lean = [way for way in among if way.micro_batch == fewest_examples]
        if self._given is not None:
            return min(((self._peak(way, self._given), way) for way in lean), key=_first)
        found: list[tuple[int, Way]] = []
        for bare_bytes, way in sorted(((self._peak(way, self._nothing), way) for way in lean), key=_first):
            if not found or bare_bytes < found[0][0]:
                least = self._selector.least_memory(self._memory(way), self._without(way))
                found = [min([*found, (math.ceil(least), way)], key=_first)]
        return found[0]

    def smallest(self, way: Way, budget_bytes: int) -> Choice:
        """The candidate that a budget of just so much leads to, limits on time and traffic aside."""
        ranks = self._given
        if ranks is None:
            memory = replace(self._memory(way), limit=budget_bytes)
            ranks = self._selector.select(memory, without=self._without(way))
        return self.choice(way, self._nothing if ranks is None else ranks)

    # --- what a way may train --------------------------------------------------------------------------------------

    def _may_be(self, way: Way) -> bool:
        """A way trains something; with given strands the encoder is frozen just where none of them is its."""
        if not any(self._most(way)):
            return False
        if self._given is None or self._run.settings.scope != "all":
            return True
        return way.frozen_encoder == (not any(self._given[index] for index in self._encoder))

    def _without(self, way: Way) -> frozenset[int]:
        return self._encoder if way.frozen_encoder else frozenset()

    def _most(self, way: Way) -> list[int]:
        """Ranks of all strands that the way can train."""
        without = self._without(way)
        return [0 if index in without else rows for index, rows in enumerate(self._rows)]

    def _strands(self, way: Way) -> Sequence[int] | None:
        others = self._round_budgets(way)
        if self._given is not None:
            fits = self._peak(way, self._given) <= self.budget_bytes and _pay(others, self._given)
            return self._given if fits else None
        if self._peak(way, self._nothing) > self.budget_bytes:
            return None
        most = self._most(way)
        if any(budget.limit < min(filter(None, budget.costs)) for budget in others):
            return None
        if _pay(others, most) and self._peak(way, most) <= self.budget_bytes:
            return most
        return self._selector.select(self._memory(way), others, self._without(way))

    def _round_budgets(self, way: Way) -> list[Budget]:
        """What a round's limits leave for strands; below zero where not even a round without strands keeps them."""
        budgets, limits = [], self._limits
        if limits.round_bytes is not None:
            fixed_bytes = fixed_traffic(self._run, frozen_encoder=way.frozen_encoder)
            budgets.append(Budget(strand_traffic(self._run), limits.round_bytes - fixed_bytes))
        if limits.round_s is not None:
            costs = self._work.strand_operations(way)
            fixed = self._work.operations(way) + self._work.encoding(way) - sum(map(mul, costs, self._most(way)))
            budgets.append(Budget(costs, limits.round_s * operations_per_s(way.compute, limits) - fixed))
        return budgets

    # --- memory ----------------------------------------------------------------------------------------------------

    def _predicted(self, way: Way, ranks: Sequence[int]) -> Breakdown:
        return predict_peak(
            self._config,
            self._run,
            way.format,
            way.compute,
            way.micro_batch,
            ranks,
            self._imports_bytes,
            checkpointing=way.checkpointing,
            cache=way.cache,
            device=self._board.device,
            frozen_encoder=way.frozen_encoder,
        )

    def _peak(self, way: Way, ranks: Sequence[int]) -> int:
        return self._corrected(way, self._predicted(way, ranks).total_bytes)

    def _corrected(self, way: Way, predicted_bytes: int) -> int:
        return self._corrections.peak_bytes(
            way.format, way.compute, way.checkpointing, way.cache, way.frozen_encoder, predicted_bytes
        )

    def _memory(self, way: Way) -> Memory:
        marginals = strand_marginal_bytes(
            self._config,
            self._run,
            way.format,
            way.compute,
            way.micro_batch,
            checkpointing=way.checkpointing,
            frozen_encoder=way.frozen_encoder,
        )
        bare_bytes = self._predicted(way, self._nothing).total_bytes
        corrected_bytes = self._corrected(way, bare_bytes)
        # One byte more: a correction is rounded to whole bytes.
        most = [self._corrected(way, bare_bytes + size) - corrected_bytes + 1 for size in marginals]
        return Memory(partial(self._peak, way), self.budget_bytes, self._strand_costs(way), most)

    def _strand_costs(self, way: Way) -> list[float]:
        """Bytes that a strand of each weight adds: what leaving a weight out of all strands saves, found once for all
        weights of a kind. The same for every format, whose strands are the same."""
        way = replace(way, format="bf16")
        if way not in self._costs:
            most, found = self._most(way), dict[tuple[int, int, bool], float]()
            every = self._predicted(way, most).total_bytes
            for index, weight in enumerate(self._run.weights):
                if most[index] and kind_of(weight) not in found:
                    fewer = [0 if other == index else rank for other, rank in enumerate(most)]
                    saved_bytes = every - self._predicted(way, fewer).total_bytes
                    found[kind_of(weight)] = max(1.0, saved_bytes / most[index])
            self._costs[way] = [found.get(kind_of(weight), 1.0) for weight in self._run.weights]
        return self._costs[way]

    # --- worth -----------------------------------------------------------------------------------------------------

    def _most_worth(self, way: Way) -> float:
        """What the way cannot exceed, whatever memory there is."""
        if self._given is not None:
            return self._selector.share(self._given) * self._factor(way)
        if way not in self._bounds:
            without = self._without(way)
            shares = [self._selector.most_share(budget, without) for budget in self._round_budgets(way)]
            share = min([self._selector.share(self._most(way)), *shares])
            self._bounds[way] = share * self._factor(way)
        return self._bounds[way]

    def _factor(self, way: Way) -> float:
        """What a strand's share counts for, trained in this way."""
        slowness = self._work.operations(way) / self._least_operations
        return KEPT_LEARNING[way.format] * float(slowness**-SLOWNESS_EXPONENT)


def _pay(budgets: Sequence[Budget], ranks: Sequence[int]) -> bool:
    return all(sum(map(mul, budget.costs, ranks)) <= budget.limit for budget in budgets)


def _first(pair: tuple[int, Way]) -> int:
    return pair[0]
