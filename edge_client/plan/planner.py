"""The plans of one board for one base, made from memory that was measured before anything was loaded.

What is learnt on the way corrects them: what a probe really took, and that memory ran out at some plan.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
from msgspec import UNSET

from braid_common.units import show_size
from edge_client.errors import ConfigError, NoPlanError
from edge_client.host.board import Board, probe_board
from edge_client.jobs.messages import Plan
from edge_client.jobs.sizes import IMPORTS_BYTES
from edge_client.plan.calibration import Calibration
from edge_client.plan.candidates import Candidate
from edge_client.plan.choose import choose, runners_up
from edge_client.plan.explain import explain
from edge_client.plan.peak_memory import predict_peak
from edge_client.plan.pruning import NO_PRUNING, limited
from edge_client.plan.situation import CLIENT_BYTES, Constraints, Situation
from wire.run import RunInfo

SHRINK_SHARE = 0.85
"""Of what a plan was to need above the imported libraries, the most that the next one may, when memory ran out all the
same: the prediction was too low, or another program has grown by more than is measured now."""


class Planner:
    """Makes plans for one board, and learns from what they took.

    `situation`: the board as it was measured before anything was loaded. `keep` takes the calibration each time a probe
    has added to it; `measure` looks at the board anew.
    """

    def __init__(
        self,
        situation: Situation,
        *,
        keep: Callable[[Calibration], None] = lambda calibration: None,
        measure: Callable[[], Board] = probe_board,
    ) -> None:
        self._situation, self._keep, self._measure = situation, keep, measure
        self._offered = situation.board  # as measured; plans are made for less, once memory ran short
        self._ran_short_at: Plan | None = None
        self._newest: Candidate | None = None

    def choose(self, run: RunInfo, pruned: Mapping[str, int] = NO_PRUNING) -> Plan:
        """The best plan that fits; the one at which memory ran short once more, where there is none below it and the
        board still offers what it needs. `pruned`: ranks that no plan exceeds, of weights by name. Raises NoPlanError,
        which says how much the smallest needs."""
        try:
            return self._take(self._choose(run, pruned))
        except NoPlanError as error:
            return self._once_more(error, run, pruned)

    def leaner(self, run: RunInfo, begun: Plan, pruned: Mapping[str, int] = NO_PRUNING) -> Plan:
        """A plan for a task whose plan `begun` no longer fits: the same strands in a mode that takes less, or else some
        of these strands. Raises NoPlanError as `choose` does."""
        try:
            return self._take(self._choose(run, pruned, begun.ranks))
        except NoPlanError:
            pass
        try:
            ranks = tuple(map(min, begun.ranks, self._choose(run, pruned).plan.ranks))
            # All may be zero, where the run's values have changed so much that nothing of what was begun is wanted.
            return self._take(self._choose(run, pruned, ranks if any(ranks) else None))
        except NoPlanError as error:
            return self._once_more(error, run, pruned)

    def why(self, run: RunInfo, plan: Plan) -> list[str]:
        """Lines for people, where `plan` is the newest made: the plan, its memory, and why the others lost."""
        newest = self._newest
        if newest is None or newest.plan != plan:
            return []
        situation = replace(self._situation, run=run)
        return explain(newest, situation.board, runners_up(situation, newest))

    def fits(self, plan: Plan, run: RunInfo) -> bool:
        """Whether a plan made earlier still fits the board: its memory, its device, and the disk that it was given.
        Where the run asks for more beside the plan's strands than it did (local ones), that counts too."""
        situation = self._situation
        fits_disk = plan.mode.cache == "none" or situation.cache.limit_bytes > 0
        now_bytes = predict_peak(situation.base, run, plan.mode, plan.ranks, situation.rewards).total_bytes
        more_bytes = max(0, now_bytes - plan.predicted_bytes)
        fits_memory = plan.whole_peak_bytes + more_bytes <= situation.budget_bytes
        return fits_memory and fits_disk and plan.mode.device == situation.board.device

    def is_measured(self, plan: Plan) -> bool:
        """Whether a probe has measured what `plan` takes, or one of its kind and about its size."""
        return self._situation.calibration.knows(plan)

    def correct(self, plan: Plan, peak_bytes: int, imports_bytes: int = IMPORTS_BYTES) -> None:
        """Plan from now on with what a probe of `plan` took, and with what its worker held before it loaded the base.

        A plan whose probe took more than its budget fits no more: what is expected of it is at least what it took.
        """
        calibration = self._situation.calibration.with_measured(
            plan, peak_bytes, imports_bytes, untried_bytes=self._untried_bytes(plan)
        )
        self._situation = replace(self._situation, calibration=calibration)
        self._keep(calibration)

    def _untried_bytes(self, plan: Plan) -> int:
        """The plan's bytes for learning from rewards: a probe writes and judges no answers, and keeps no copy of what
        was received."""
        base, run, mode = self._situation.base, self._situation.run, plan.mode
        plain = msgspec.structs.replace(run, settings=msgspec.structs.replace(run.settings, reward=UNSET))
        whole = predict_peak(base, run, mode, plan.ranks, self._situation.rewards)
        return whole.total_bytes - predict_peak(base, plain, mode, plan.ranks).total_bytes

    def ran_short(self, plan: Plan) -> None:
        """Plan with less from now on, for memory ran out at `plan`. Call while no worker runs."""
        self._ran_short_at = plan
        with contextlib.suppress(ConfigError):  # a board that does not tell its memory, which was given with --memory
            now = self._measure()
            if now.memory_bytes < self._offered.memory_bytes:
                self._offered = _with_memory(self._offered, now.memory_bytes, now.memory_source)
        imports_bytes = self._situation.calibration.imports_bytes
        above_bytes = int(SHRINK_SHARE * max(0, plan.whole_peak_bytes - imports_bytes))
        less = _with_memory(
            self._offered,
            imports_bytes + above_bytes + CLIENT_BYTES,
            f"memory ran short at a plan for {show_size(plan.whole_peak_bytes)}",
        )
        board = min(self._situation.board, self._offered, less, key=lambda board: board.memory_bytes)
        self._situation = replace(self._situation, board=board)

    def _once_more(self, error: NoPlanError, run: RunInfo, pruned: Mapping[str, int]) -> Plan:
        """The plan at which memory ran short, where the board offers what it needs; else `error` is raised."""
        plan = self._ran_short_at
        if plan is None:
            raise error
        # A probe may have come after it ran short: what it took then counts, not what was expected before.
        expected_bytes = self._situation.calibration.expected_bytes(plan.mode, plan.predicted_bytes)
        if expected_bytes > self._offered.memory_bytes - CLIENT_BYTES:
            raise error
        ranks = limited(plan.ranks, run.weights, pruned)
        return msgspec.structs.replace(plan, ranks=ranks, expected_peak_bytes=expected_bytes)

    def _choose(self, run: RunInfo, pruned: Mapping[str, int], kept_ranks: Sequence[int] | None = None) -> Candidate:
        self._situation = replace(self._situation, run=run)
        return choose(self._situation, Constraints(kept_ranks=kept_ranks, pruned=pruned))

    def _take(self, candidate: Candidate) -> Plan:
        self._newest = candidate
        return candidate.plan


def _with_memory(board: Board, memory_bytes: int, source: str) -> Board:
    return replace(board, memory_bytes=memory_bytes, memory_source=source)
