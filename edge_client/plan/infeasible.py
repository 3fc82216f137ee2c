"""Why no plan fits, or none of a kind: which budget is short, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from braid_common.units import show_seconds, show_size
from edge_client.errors import NoPlanError
from edge_client.host.board import Board
from edge_client.jobs.messages import TrainingMode
from edge_client.plan.candidates import Candidate, Candidates
from edge_client.plan.round_cost import RoundLimits
from edge_client.plan.situation import CLIENT_BYTES


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Reason why no mode of training trains anything.

    Attributes:
        of: the budget that none of them keeps; "all together" where each is kept by some.
        needed: the least that it would have to be: bytes for the worker, bytes of a round, or seconds.
        nearest: the candidate that needs so little.
    """

    of: Literal["memory", "traffic", "time", "all together"]
    needed: float
    nearest: Candidate

    def reason(self, limits: RoundLimits) -> str:
        """Sentence for people about a runner-up: what it would need more."""
        if self.of == "memory":
            return f"it needs {show_size(self.needed - self.nearest.plan.budget_bytes)} more memory"
        if self.of == "traffic":
            return f"a round moves {show_size(self.needed)} of {show_size(limits.round_bytes or 0)} allowed"
        if self.of == "time":
            return f"a round takes {show_seconds(self.needed)} of {show_seconds(limits.round_s or 0)} allowed"
        return "memory and the limits on a round together leave nothing to train"

    def refusal(self, board: Board, limits: RoundLimits) -> NoPlanError:
        """The error where there is no plan at all. A board cannot choose the rank in a run that gives every board one:
        the hint then says what its server could."""
        rank = self.nearest.rank
        strands = f"with every weight at rank {rank}" if rank else "before the first strand"
        if self.of == "memory":
            return self._too_little_memory(board)
        if self.of == "traffic":
            smaller = "max_rank" if not rank else "train.rank"
            return NoPlanError(
                f"no plan fits: a round moves {show_size(self.needed)} {strands}, "
                f"{show_size(limits.round_bytes or 0)} are allowed",
                f"allow more with --round-traffic, or ask for a run with a smaller server_rank or {smaller}",
            )
        if self.of == "time":
            return NoPlanError(
                f"no plan fits: the quickest round that the memory allows takes about {show_seconds(self.needed)} "
                f"{strands}, {show_seconds(limits.round_s or 0)} are allowed",
                "allow more with --round-time, or ask for a run with fewer local_steps or shorter texts",
            )
        return NoPlanError(
            "no plan keeps the limits on memory, time and traffic together, though each alone could be kept",
            "raise one of --memory, --round-time and --round-traffic",
        )

    def _too_little_memory(self, board: Board) -> NoPlanError:
        needed_bytes, rank = int(self.needed) + CLIENT_BYTES, self.nearest.rank
        smallest = f"to train every weight at rank {rank}, as this run asks, takes" if rank else "the smallest needs"
        fewer = "a lower train.rank or a merge.rule that takes unequal ranks" if rank else "shorter texts"
        return NoPlanError(
            f"no plan fits: {smallest} {show_size(needed_bytes)} ({needed_bytes} bytes), "
            f"the board has {show_size(board.memory_bytes)} ({board.memory_bytes} bytes, {board.memory_source})",
            f"free or give more memory (--memory), or ask for a run with {fewer} or a smaller base",
            needed_bytes=needed_bytes,
        )


def why_infeasible(candidates: Candidates, among: Sequence[TrainingMode], limits: RoundLimits) -> Infeasible:
    """Find what is short for modes of which none trains anything. Memory is named first, then traffic, then time."""
    needed_bytes, mode = candidates.leanest(among)
    leanest = candidates.smallest(mode, needed_bytes)
    if needed_bytes > candidates.budget_bytes:
        return Infeasible("memory", needed_bytes, leanest)
    fitting = [candidate for candidate in map(candidates.least, among) if candidate.fits]
    lightest = min(fitting, key=lambda candidate: candidate.round_bytes)
    if limits.round_bytes is not None and lightest.round_bytes >= limits.round_bytes:
        return Infeasible("traffic", lightest.round_bytes, lightest)
    quickest = min(fitting, key=lambda candidate: candidate.round_s or 0.0)
    if limits.round_s is not None and (quickest.round_s or 0.0) >= limits.round_s:
        return Infeasible("time", quickest.round_s or 0.0, quickest)
    return Infeasible("all together", 0.0, leanest)
