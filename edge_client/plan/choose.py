"""What a board does in a round: base format, arithmetic, micro-batch, checkpointing, cache and strands.

The rule: of all ways of training (edge_client/plan/training_mode.py), each with the strands that its memory and the
round's limits pay for (edge_client/plan/strand_selection.py), take the one whose round is worth most:

    worth = importance of its strands, as a share of the run's
            × what its base format leaves of the learning
            × (its operations / those of the quickest way)^-1/4

and of equal ones the simplest: the larger micro-batch, without checkpointing, with the encoder's output on disk, with
an encoder that is trained. A smaller micro-batch changes no gradient, for gradients add up, so it costs nothing but
unpacking the base more often. Nothing here depends on the board's memory but which strands fit, so more memory never
makes a round worth less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from braid_common.t5_config import T5Config
from edge_client.errors import BaseModelError, ConfigError, RefusedError
from edge_client.host.board import Board
from edge_client.jobs.messages import Plan
from edge_client.plan.cache_budget import NO_ROOM, CacheRoom
from edge_client.plan.calibration import NO_CALIBRATION, Calibration
from edge_client.plan.candidates import CLIENT_BYTES as CLIENT_BYTES
from edge_client.plan.candidates import Candidates
from edge_client.plan.choice import Choice as Choice
from edge_client.plan.choice import RunnerUp as RunnerUp
from edge_client.plan.explain import explain as explain
from edge_client.plan.explain import facts as facts
from edge_client.plan.explain import why_not
from edge_client.plan.infeasible import find_shortage
from edge_client.plan.peak_memory import IMPORTS_BYTES
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits
from edge_client.plan.training_mode import FORMATS as FORMATS
from edge_client.plan.training_mode import Way, is_slow_arithmetic
from edge_client.plan.training_mode import compute_for as compute_for
from edge_client.state.pruned_ranks import NO_PRUNING
from wire.checks import basis_rank, check_ranks
from wire.errors import WireError
from wire.manifest import t5_weights
from wire.messages import RunInfo


def choose(
    board: Board,
    run: RunInfo,
    config: Mapping[str, Any],
    imports_bytes: int = IMPORTS_BYTES,
    room: CacheRoom = NO_ROOM,
    *,
    limits: RoundLimits = NO_LIMITS,
    calibration: Calibration = NO_CALIBRATION,
    kept_ranks: Sequence[int] | None = None,
    pruned: Mapping[str, int] = NO_PRUNING,
) -> Choice:
    """Choose the plan, with all that it costs.

    Args: imports_bytes, the worker's before it loads anything; limits, what a round may cost; calibration, what this
    board's own measurements make of predictions; kept_ranks, strands per weight of a round that was begun, which goes
    on in whatever way is best now, without limits on the round; pruned, ranks of weights by name that no candidate
    exceeds. Where the run has one rank for all boards, only the way is chosen.

    Raises NoPlanError that says what is short where nothing fits; RefusedError for a ranking that is not the run's;
    BaseModelError where the run trains what this base has not; ConfigError for kept ranks that are not the run's, or a
    limit on time where the board's speed is not known.
    """
    check_run_fits(run, config)
    _check_limits(limits)
    if kept_ranks is not None:
        _check_kept(kept_ranks, run)
    candidates = Candidates(board, run, config, imports_bytes, room, limits, calibration, kept_ranks, pruned)
    among = _usable(candidates.ways, board)
    best = candidates.best(among)
    if best is None:
        raise find_shortage(candidates, among, limits).refusal(board, limits)
    return best


def runners_up(
    choice: Choice,
    board: Board,
    run: RunInfo,
    config: Mapping[str, Any],
    room: CacheRoom = NO_ROOM,
    *,
    limits: RoundLimits = NO_LIMITS,
    calibration: Calibration = NO_CALIBRATION,
) -> list[RunnerUp]:
    """The best candidate of every other kind, each once, and why it lost: other formats, with or without checkpointing
    and cache, another micro-batch, the encoder frozen or not."""
    imports_bytes, pruned = choice.memory.imports_bytes, choice.pruned
    candidates = Candidates(board, run, config, imports_bytes, room, limits, calibration, pruned=pruned)
    found: dict[Plan, RunnerUp] = {}
    for kind, among in _other_kinds(choice.plan, candidates.ways).items():
        usable = _usable(among, board)
        best = candidates.best(usable)
        if best is not None:
            reason = why_not(best, choice)
        elif usable:
            shortage = find_shortage(candidates, usable, limits)
            best, reason = shortage.nearest, shortage.reason(limits)
        else:
            best = candidates.choice(among[0], choice.plan.ranks)
            reason = f"{choice.plan.compute} products are faster on this board"
        found.setdefault(best.plan, RunnerUp(kind, best, reason))
    return list(found.values())


def check_run_fits(run: RunInfo, config: Mapping[str, Any]) -> None:
    """Raise RefusedError for a ranking that is not of this run's weights or no ranking at all, BaseModelError for
    weights that a base with this config.json does not have."""
    try:
        known = set(t5_weights(T5Config.parse(config), "all"))
    except (ValueError, WireError) as error:
        raise BaseModelError(f"config.json: {error}", "give a folder with a FLAN-T5 with --model") from error
    for weight in run.weights:
        if weight not in known:
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
            "install torch here (pip install 'braid[client]'), with which it is measured, or leave --round-time out",
        )


def _check_kept(ranks: Sequence[int], run: RunInfo) -> None:
    try:
        check_ranks(ranks, run)
    except WireError as error:
        raise ConfigError(f"the plan that was begun is not of this run: {error}", "begin the round anew") from error


def _usable(among: Sequence[Way], board: Board) -> list[Way]:
    return [way for way in among if not is_slow_arithmetic(way, board)]


def _other_kinds(plan: Plan, among: Sequence[Way]) -> dict[str, list[Way]]:
    """Ways that differ from the plan, by what they differ in; nothing where no way does."""
    kinds = {f"{format} base": [way for way in among if way.format == format] for format in FORMATS}
    del kinds[f"{plan.format} base"]
    without = "without " if plan.checkpointing else ""
    kinds[f"{without}checkpointing"] = [way for way in among if way.checkpointing != plan.checkpointing]
    kinds["another micro-batch"] = [way for way in among if way.micro_batch != plan.micro_batch]
    cached = plan.cache != "none"
    kinds["without the cache" if cached else "with a cache"] = [way for way in among if (way.cache != "none") != cached]
    encoder = "trained" if plan.frozen_encoder else "frozen"
    kinds[f"{encoder} encoder"] = [way for way in among if way.frozen_encoder != plan.frozen_encoder]
    return {kind: found for kind, found in kinds.items() if found}
