"""Choosing what a board does in a round: base format, arithmetic, micro-batch, checkpointing, cache and strands.

The rule: of all modes of training (edge_client/plan/training_mode.py), each with the strands that its memory and the
round's limits pay for (edge_client/plan/strand_selection.py), take the one whose round is worth most:

    worth = importance of its strands, as a share of the run's
            × what its base format leaves of the learning
            × (its operations / those of the quickest mode)^-1/4

and of equal ones the simplest: the larger micro-batch, without checkpointing, with the encoder's output on disk, with
an encoder that is trained. A smaller micro-batch changes no gradient, for gradients add up, so it costs nothing but
unpacking the base more often. Nothing here depends on the board's memory but which strands fit, so more memory never
makes a round worth less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from braid_common.base.t5_config import T5Config
from edge_client.errors import BaseModelError, ConfigError, RefusedError
from edge_client.host.board import Board
from edge_client.jobs.messages import TrainingMode
from edge_client.plan.candidates import Candidate, Candidates, RunnerUp
from edge_client.plan.explain import why_not
from edge_client.plan.infeasible import why_infeasible
from edge_client.plan.round_cost import RoundLimits
from edge_client.plan.situation import FREE, Constraints, Situation
from edge_client.plan.training_mode import FORMATS, is_slow_arithmetic
from wire.checks import basis_rank, check_ranks
from wire.errors import WireError
from wire.manifest import t5_weights
from wire.run import RunInfo


def choose(situation: Situation, constraints: Constraints = FREE) -> Candidate:
    """Choose the plan that is worth most. Where the run has one rank for all boards, only the mode is chosen.

    Args:
        situation: board, run and base, and what a round may cost.
        constraints: what narrows the choice.

    Returns:
        The plan with all that it costs.

    Raises:
        NoPlanError: nothing fits; says what is short.
        RefusedError: the ranking is not the run's.
        BaseModelError: the run trains what this base has not.
        ConfigError: kept ranks are not the run's, or time is limited where the board's speed is not known.
    """
    check_run_fits(situation.run, situation.base)
    _check_limits(situation.limits)
    if constraints.kept_ranks is not None:
        _check_kept(constraints.kept_ranks, situation.run)
    candidates = Candidates(situation, constraints)
    among = _usable(candidates.modes, situation.board)
    best = candidates.best(among)
    if best is None:
        raise why_infeasible(candidates, among, situation.limits).refusal(situation.board, situation.limits)
    return best


def runners_up(situation: Situation, chosen: Candidate) -> list[RunnerUp]:
    """The best candidate of every other kind, each once, and why it lost: other formats, with or without checkpointing
    and cache, another micro-batch, the encoder frozen or not."""
    candidates = Candidates(situation, Constraints(pruned=chosen.pruned))
    others: dict[TrainingMode, RunnerUp] = {}
    for kind, among in _other_kinds(chosen.plan.mode, candidates.modes).items():
        other = _runner_up(kind, among, candidates, situation, chosen)
        others.setdefault(other.candidate.plan.mode, other)
    return list(others.values())


def _runner_up(
    kind: str, among: Sequence[TrainingMode], candidates: Candidates, situation: Situation, chosen: Candidate
) -> RunnerUp:
    usable = [mode for mode in among if not is_slow_arithmetic(mode, situation.board)]
    best = candidates.best(usable)
    if best is not None:
        return RunnerUp(kind, best, why_not(best, chosen))
    if usable:
        infeasible = why_infeasible(candidates, usable, situation.limits)
        return RunnerUp(kind, infeasible.nearest, infeasible.reason(situation.limits))
    slow = candidates.with_ranks(among[0], chosen.plan.ranks)
    return RunnerUp(kind, slow, f"{chosen.plan.mode.compute} products are faster on this board")


def check_run_fits(run: RunInfo, base: T5Config) -> None:
    """Raise RefusedError for a ranking that is not of this run's weights or no ranking at all, BaseModelError for
    weights that this base does not have."""
    of_base = set(t5_weights(base, "all"))
    for weight in run.weights:
        if weight not in of_base:
            raise BaseModelError(
                f"the run ranks {weight.name} ({weight.rows}×{weight.columns}), which this base does not have",
                "give the run's own base with --model, or update the older of client and server",
            )
    hint = "update the older of client and server"
    if run.values and len(run.values) != len(run.weights):
        raise RefusedError(f"the ranking has {len(run.values)} weights, the run {len(run.weights)}", hint)
    for weight, values in zip(run.weights, run.values, strict=False):  # no values at all before the first ranking
        n_strands = basis_rank(weight, run.max_rank)
        if len(values) != n_strands:
            raise RefusedError(f"the ranking has {len(values)} strands of {weight.name}, the run {n_strands}", hint)
        if not all(math.isfinite(value) and value >= 0 for value in values):
            raise RefusedError(f"the ranking has a value of {weight.name} that is not zero or more", hint)


def _check_limits(limits: RoundLimits) -> None:
    for value, option in ((limits.round_s, "--round-time"), (limits.round_bytes, "--round-traffic")):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{option} {value} is no limit that a round could keep", "give more, or leave it out")
    if limits.round_s is not None and not any(limits.gflops.values()):
        raise ConfigError(
            "how fast this board multiplies is not known, so no time of a round can be promised",
            "install torch here (pip install 'braid-fl[client]'), with which it is measured, or leave --round-time out",
        )


def _check_kept(ranks: Sequence[int], run: RunInfo) -> None:
    try:
        check_ranks(ranks, run)
    except WireError as error:
        raise ConfigError(f"the plan that was begun is not of this run: {error}", "begin the round anew") from error


def _usable(among: Sequence[TrainingMode], board: Board) -> list[TrainingMode]:
    """Modes in the board's faster arithmetic; all of them where the other one was asked for."""
    return [mode for mode in among if not is_slow_arithmetic(mode, board)] or list(among)


def _other_kinds(chosen: TrainingMode, among: Sequence[TrainingMode]) -> dict[str, list[TrainingMode]]:
    """Modes that differ from the chosen one, by what they differ in; nothing where none does."""
    kinds = {f"{format} base": [mode for mode in among if mode.format == format] for format in FORMATS}
    del kinds[f"{chosen.format} base"]
    without = "without " if chosen.checkpointing else ""
    kinds[f"{without}checkpointing"] = [mode for mode in among if mode.checkpointing != chosen.checkpointing]
    kinds["another micro-batch"] = [mode for mode in among if mode.micro_batch != chosen.micro_batch]
    cached = chosen.cache != "none"
    kinds["without the cache" if cached else "with a cache"] = [m for m in among if (m.cache != "none") != cached]
    encoder = "trained" if chosen.frozen_encoder else "frozen"
    kinds[f"{encoder} encoder"] = [mode for mode in among if mode.frozen_encoder != chosen.frozen_encoder]
    return {kind: modes for kind, modes in kinds.items() if modes}
