"""The plans of one board for one base, made from memory that was measured before anything was loaded.

What is learnt on the way corrects them: what a probe really took, and that memory ran out at some plan.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from edge_client.errors import ConfigError, NoPlanError
from edge_client.host.board import Board, probe_board, show_size
from edge_client.jobs.messages import Plan
from edge_client.plan.cache_budget import NO_ROOM, CacheRoom
from edge_client.plan.calibration import NO_CALIBRATION, Calibration
from edge_client.plan.choose import CLIENT_BYTES, Choice, choose, explain, runners_up
from edge_client.plan.peak_memory import IMPORTS_BYTES
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits
from edge_client.state.pruned_ranks import NO_PRUNING, limited
from wire.messages import RunInfo

SHRINK_SHARE = 0.85
"""Of what a plan was to need above the imported libraries, the most that the next one may, when memory ran out all the
same: the prediction was too low, or another program has grown by more than is measured now."""


class Planner:
    """`config` is the base's config.json, `room` the disk for the encoder's output, `limits` what a round may cost;
    `keep` takes the calibration each time a probe has added to them; `measure` looks at the board anew."""

    def __init__(
        self,
        board: Board,
        config: Mapping[str, Any],
        room: CacheRoom = NO_ROOM,
        limits: RoundLimits = NO_LIMITS,
        calibration: Calibration = NO_CALIBRATION,
        *,
        keep: Callable[[Calibration], None] = lambda calibration: None,
        measure: Callable[[], Board] = probe_board,
    ) -> None:
        self._board, self._config, self._room, self._limits = board, config, room, limits
        self._corrections, self._keep, self._measure = calibration, keep, measure
        self._offered = board  # as measured; plans are made for less, once memory ran short
        self._ran_short_at: Plan | None = None
        self._newest: Choice | None = None

    def choose(self, run: RunInfo, pruned: Mapping[str, int] = NO_PRUNING) -> Plan:
        """The best plan that fits; the one at which memory ran short once more, where there is none below it and the
        board still offers what it needs. `pruned`: ranks that no plan exceeds, of weights by name. Raises NoPlanError,
        which says how much the smallest needs."""
        try:
            return self._take(self._choice(run, pruned))
        except NoPlanError as error:
            return self._once_more(error, run, pruned)

    def leaner(self, run: RunInfo, begun: Plan, pruned: Mapping[str, int] = NO_PRUNING) -> Plan:
        """As `choose`, for a task that was begun with `begun`, which no longer fits: the same strands in a way that
        takes less, or else some of these strands."""
        try:
            return self._take(self._choice(run, pruned, begun.ranks))
        except NoPlanError:
            pass
        try:
            ranks = tuple(map(min, begun.ranks, self._choice(run, pruned).plan.ranks))
            # All may be zero, where the run's values have changed so much that nothing of what was begun is wanted.
            return self._take(self._choice(run, pruned, ranks if any(ranks) else None))
        except NoPlanError as error:
            return self._once_more(error, run, pruned)

    def why(self, run: RunInfo, plan: Plan) -> list[str]:
        """Lines for people, where `plan` is the newest made: the plan, its memory, and why the others lost."""
        choice = self._newest
        if choice is None or choice.plan != plan:
            return []
        others = runners_up(
            choice,
            self._board,
            run,
            self._config,
            self._room,
            limits=self._limits,
            calibration=self._corrections,
        )
        return explain(choice, self._board, others)

    def fits(self, plan: Plan) -> bool:
        """Whether a plan made earlier still fits the board: its memory, its device, and the disk that it was given."""
        fits_disk = plan.cache == "none" or self._room.limit_bytes > 0
        fits_memory = plan.predicted_peak_bytes <= self._board.memory_bytes - CLIENT_BYTES
        return fits_memory and fits_disk and plan.device == self._board.device

    def is_measured(self, plan: Plan) -> bool:
        """Whether a probe has measured what `plan` takes, or one of its kind and about its size."""
        return self._corrections.knows(plan)

    def correct(self, plan: Plan, peak_bytes: int) -> None:
        """Plan from now on with what a probe of `plan` took."""
        self._corrections = self._corrections.with_measured(plan, peak_bytes)
        self._keep(self._corrections)

    def ran_short(self, plan: Plan) -> None:
        """Plan with less from now on, for memory ran out at `plan`. Call while no worker runs."""
        self._ran_short_at = plan
        with contextlib.suppress(ConfigError):  # a board that does not tell its memory, which was given with --memory
            now = self._measure()
            if now.memory_bytes < self._offered.memory_bytes:
                self._offered = _with_memory(self._offered, now.memory_bytes, now.memory_source)
        above_bytes = int(SHRINK_SHARE * max(0, plan.predicted_peak_bytes - IMPORTS_BYTES))
        less = _with_memory(
            self._offered,
            IMPORTS_BYTES + above_bytes + CLIENT_BYTES,
            f"memory ran short at a plan for {show_size(plan.predicted_peak_bytes)}",
        )
        self._board = min(self._board, self._offered, less, key=lambda board: board.memory_bytes)

    def _once_more(self, error: NoPlanError, run: RunInfo, pruned: Mapping[str, int]) -> Plan:
        """The plan at which memory ran short, where the board offers what it needs; else `error` is raised."""
        plan = self._ran_short_at
        if plan is None or plan.predicted_peak_bytes > self._offered.memory_bytes - CLIENT_BYTES:
            raise error
        return msgspec.structs.replace(plan, ranks=limited(plan.ranks, run.weights, pruned))

    def _choice(self, run: RunInfo, pruned: Mapping[str, int], kept_ranks: Sequence[int] | None = None) -> Choice:
        return choose(
            self._board,
            run,
            self._config,
            room=self._room,
            limits=self._limits,
            calibration=self._corrections,
            kept_ranks=kept_ranks,
            pruned=pruned,
        )

    def _take(self, choice: Choice) -> Plan:
        self._newest = choice
        return choice.plan


def _with_memory(board: Board, memory_bytes: int, source: str) -> Board:
    return replace(board, memory_bytes=memory_bytes, memory_source=source)
