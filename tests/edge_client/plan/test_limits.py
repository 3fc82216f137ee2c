"""Planning under limits on a round, with strands that are given, with calibration, and with a frozen encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from braid_common.base.t5_config import T5Config
from edge_client.errors import BaseModelError, ConfigError, NoPlanError, RefusedError
from edge_client.host.board import Board
from edge_client.jobs.messages import Compute, TrainingMode
from edge_client.jobs.sizes import IMPORTS_BYTES
from edge_client.plan.cache_budget import CacheBudget
from edge_client.plan.calibration import NO_CALIBRATION
from edge_client.plan.candidates import Candidate, Candidates
from edge_client.plan.choose import choose, runners_up
from edge_client.plan.explain import explain, facts
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits, kind_of
from edge_client.plan.situation import CLIENT_BYTES, Constraints, Situation
from edge_client.plan.strand_selection import basis_rows
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RunInfo, Weight

CONFIG = {**SMALL_T5, "num_layers": 3, "num_decoder_layers": 2}
BASE = T5Config.parse(CONFIG)
MIB = 1 << 20
GFLOPS: Mapping[Compute, float] = {"bf16": 400.0, "fp32": 80.0}
ROOM = CacheBudget(1 << 30, 500)


def make_run(scope: str = "all", **fields: Any) -> RunInfo:
    """Values fall from strand to strand, and from the last weight of the manifest to the first."""
    run = run_of(CONFIG, {"scope": scope, "batch": 16, "local_steps": 4}, **fields)
    rows = basis_rows(run)
    values = [[(index + 1) / (strand + 1) ** 1.5 for strand in range(n)] for index, n in enumerate(rows)]
    return msgspec.structs.replace(run, values=tuple(map(tuple, values)))


def make_board(memory_bytes: int = 2 << 30) -> Board:
    return Board(
        memory_bytes=memory_bytes,
        memory_source="given by --memory",
        cpu_count=2,
        machine="aarch64",
        bf16_fast=True,
    )


def limited(round_s: float | None = None, round_bytes: int | None = None) -> RoundLimits:
    return RoundLimits(round_s, round_bytes, GFLOPS)


# --- limits on a round ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["all", "decoder"])
@pytest.mark.parametrize("part", [0.99, 0.5, 0.1])
def test_a_plan_keeps_the_limits_of_a_round(scope: str, part: float) -> None:
    """With less time or traffic than the best plan takes, another is found that keeps both."""
    run, board = make_run(scope), make_board()
    free = choose(Situation(board, run, BASE, limits=limited()))
    bare = bare_round(run, free)
    assert free.round_s is not None and bare.round_s is not None
    limits = limited(
        round_s=bare.round_s + part * (free.round_s - bare.round_s),
        round_bytes=int(bare.round_bytes + part * (free.round_bytes - bare.round_bytes)),
    )

    in_time = choose(Situation(board, run, BASE, limits=replace(limits, round_bytes=None)))
    on_link = choose(Situation(board, run, BASE, limits=replace(limits, round_s=None)))
    both = choose(Situation(board, run, BASE, limits=limits))

    assert free.share == 1.0
    assert in_time.keeps(replace(limits, round_bytes=None))
    assert on_link.keeps(replace(limits, round_s=None))
    assert both.keeps(limits)
    assert both.worth <= min(in_time.worth, on_link.worth) * 1.01  # two limits leave no more than one
    assert max(in_time.share, on_link.share, both.share) < 1.0


def bare_round(run: RunInfo, choice: Candidate) -> Candidate:
    """The same mode without any strand."""
    candidates, chosen = all_candidates(run, limits=limited()), choice.plan.mode
    mode = next(
        mode
        for mode in candidates.modes
        if (mode.format, mode.micro_batch, mode.checkpointing, mode.frozen_encoder)
        == (chosen.format, chosen.micro_batch, chosen.checkpointing, chosen.frozen_encoder)
    )
    return candidates.with_ranks(mode, [0] * len(run.weights))


def test_a_refusal_names_the_limit_that_cannot_be_kept() -> None:
    """Time, traffic and memory each with their own sentence and option."""
    run, board = make_run(), make_board()

    for limits, words in (
        (limited(round_s=1e-3), ("quickest round", "--round-time")),
        (limited(round_bytes=1000), ("a round moves", "--round-traffic")),
    ):
        with pytest.raises(NoPlanError) as caught:
            choose(Situation(board, run, BASE, limits=limits))
        assert words[0] in caught.value.message
        assert words[1] in caught.value.hint
    with pytest.raises(NoPlanError, match="smallest needs"):
        choose(Situation(make_board(200 * MIB), run, BASE, limits=limited(round_s=0.001)))


def test_time_is_promised_only_where_speed_was_measured() -> None:
    """Without a measurement a limit on time is an error that says what to install, and a plan shows no time."""
    run, board = make_run(), make_board()

    with pytest.raises(ConfigError) as caught:
        choose(Situation(board, run, BASE, limits=RoundLimits(round_s=60.0)))

    assert "not known" in caught.value.message
    assert "--round-time" in caught.value.hint
    assert choose(Situation(board, run, BASE)).round_s is None


@pytest.mark.parametrize("limits", [limited(round_s=0.0), limited(round_s=-1.0), limited(round_s=math.nan)])
def test_a_limit_that_is_no_limit_is_refused(limits: RoundLimits) -> None:
    """Zero, negative, not a number."""
    with pytest.raises(ConfigError, match="--round-time"):
        choose(Situation(make_board(), make_run(), BASE, limits=limits))


# --- strands that are given ----------------------------------------------------------------------------------------


def test_a_round_that_was_begun_goes_on_with_its_strands() -> None:
    """With less memory in a leaner mode, with far too little not at all; limits on the round are not asked again."""
    run = make_run()
    begun = choose(Situation(make_board(), run, BASE))
    tight = make_board(begun.plan.expected_peak_bytes + CLIENT_BYTES - 40 * MIB)

    again = choose(Situation(tight, run, BASE, limits=limited(round_bytes=1)), Constraints(kept_ranks=begun.plan.ranks))

    assert again.plan.ranks == begun.plan.ranks
    assert again.fits
    assert again.plan.mode.micro_batch < begun.plan.mode.micro_batch or again.plan.mode.checkpointing
    with pytest.raises(NoPlanError, match="smallest needs"):
        choose(Situation(make_board(300 * MIB), run, BASE), Constraints(kept_ranks=begun.plan.ranks))


def test_the_encoder_stays_as_it_was_when_the_round_was_begun() -> None:
    """Frozen where no strand of it is kept, trained where one is."""
    run = make_run()
    decoder_only = [0 if weight.is_encoder else 4 for weight in run.weights]

    assert choose(Situation(make_board(), run, BASE), Constraints(kept_ranks=decoder_only)).plan.mode.frozen_encoder
    assert not choose(
        Situation(make_board(), run, BASE), Constraints(kept_ranks=[1] * len(run.weights))
    ).plan.mode.frozen_encoder


@pytest.mark.parametrize("ranks", [[1], [10_000] * 43, [-1] * 43])
def test_kept_strands_of_another_run_are_refused(ranks: list[int]) -> None:
    """Too few weights, more strands than the run has, fewer than none."""
    run = make_run()
    assert len(run.weights) == 43

    with pytest.raises(ConfigError, match="not of this run"):
        choose(Situation(make_board(), run, BASE), Constraints(kept_ranks=ranks))


# --- calibration ---------------------------------------------------------------------------------------------------


def test_a_measured_step_corrects_what_fits() -> None:
    """Where every mode took half as much again as predicted, the same plan needs as much more; the parts add up."""
    run, calibration = make_run(), NO_CALIBRATION
    candidates = all_candidates(run)
    for mode in (mode for mode in candidates.modes if mode.micro_batch == 1):  # a probe speaks for every micro-batch
        plan = candidates.with_ranks(mode, [0] * len(run.weights)).plan
        calibration = calibration.with_measured(plan, half_more(plan.expected_peak_bytes))

    plain, corrected = (
        choose(Situation(make_board(), run, BASE, calibration=one)) for one in (NO_CALIBRATION, calibration)
    )
    small, smaller = (
        choose(Situation(make_board(500 * MIB), run, BASE, calibration=one)) for one in (NO_CALIBRATION, calibration)
    )

    assert corrected.plan.ranks == plain.plan.ranks
    assert corrected.plan.expected_peak_bytes == pytest.approx(half_more(plain.plan.expected_peak_bytes), rel=1e-6)
    assert sum(facts(corrected, make_board(), [])["memory"].values()) == corrected.plan.expected_peak_bytes
    assert smaller.worth < small.worth
    assert smaller.fits


def half_more(predicted_bytes: int) -> int:
    return IMPORTS_BYTES + int(1.5 * (predicted_bytes - IMPORTS_BYTES))


def all_candidates(run: RunInfo, memory_bytes: int = 2 << 30, limits: RoundLimits = NO_LIMITS) -> Candidates:
    return Candidates(Situation(make_board(memory_bytes), run, BASE, limits=limits))


# --- a frozen encoder ----------------------------------------------------------------------------------------------


def test_a_board_that_cannot_train_the_encoder_leaves_it() -> None:
    """With too little time for the encoder's backward pass the decoder alone is trained, and people are told."""
    run, board = make_run(), make_board()
    free = choose(Situation(board, run, BASE, limits=limited()))
    assert free.round_s is not None
    assert not free.plan.mode.frozen_encoder

    found = choose(Situation(board, run, BASE, limits=limited(round_s=0.55 * free.round_s)))

    assert found.plan.mode.frozen_encoder
    assert found.plan.mode.cache == "none"
    assert not any(r for w, r in zip(run.weights, found.plan.ranks, strict=True) if w.is_encoder)
    others = runners_up(Situation(board, run, BASE, limits=limited(round_s=0.55 * free.round_s)), found)
    assert "stays as received" in "\n".join(explain(found, board, others))
    assert any("takes" in other.reason for other in others if other.kind == "trained encoder")


def test_in_decoder_scope_no_plan_freezes_the_encoder() -> None:
    """There it is frozen anyway."""
    run = make_run("decoder")

    assert not any(mode.frozen_encoder for mode in all_candidates(run).modes)


# --- bad input -----------------------------------------------------------------------------------------------------


def with_values(run: RunInfo, change: Any) -> RunInfo:
    return msgspec.structs.replace(run, values=change(run.values))


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values[:-1],
        lambda values: (*values, values[0]),
        lambda values: (values[0][:-1], *values[1:]),
        lambda values: ((math.nan, *values[0][1:]), *values[1:]),
        lambda values: ((math.inf, *values[0][1:]), *values[1:]),
        lambda values: ((*values[0][:-1], -1.0), *values[1:]),
    ],
    ids=["shorter", "longer", "fewer strands", "nan", "infinite", "negative"],
)
def test_a_ranking_that_is_not_the_runs_is_refused(change: Any) -> None:
    """Of fewer or more weights than the manifest, of fewer strands, or with values that are none."""
    with pytest.raises(RefusedError, match="ranking"):
        choose(Situation(make_board(), with_values(make_run(), change), BASE))


def test_a_run_over_weights_that_the_base_has_not_is_refused() -> None:
    """An unknown name, and a known one of another shape."""
    run = make_run()
    for stranger in (
        Weight(name="decoder.block.99.layer.0.SelfAttention.q", rows=192, columns=256),
        Weight(name=run.weights[0].name, rows=191, columns=256),
    ):
        strange = msgspec.structs.replace(run, weights=(stranger, *run.weights[1:]))
        with pytest.raises(BaseModelError) as caught:
            choose(Situation(make_board(), strange, BASE))
        assert stranger.name in caught.value.message
        assert "--model" in caught.value.hint


# --- the whole programme, beside an exact solver --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory_mib", "limits"),
    [
        (390, NO_LIMITS),
        (410, limited(round_bytes=2_500_000)),
        (500, limited(round_s=1.35, round_bytes=2_500_000)),
    ],
)
def test_the_plan_is_within_one_percent_of_the_exact_one(memory_mib: int, limits: RoundLimits) -> None:
    """The best mode and strands that HiGHS finds, one integer programme per mode, are worth at most 1 % more."""
    run, board = make_run(), make_board(memory_mib * MIB)
    candidates = all_candidates(run, memory_mib * MIB, limits)

    found = choose(Situation(board, run, BASE, limits=limits))

    exact = max(exact_worth(run, mode, candidates, limits) for mode in candidates.modes if mode.format != "fp32")
    assert 0.05 < found.share < 1.0
    assert found.worth >= 0.99 * exact


def exact_worth(run: RunInfo, mode: TrainingMode, candidates: Candidates, limits: RoundLimits) -> float:
    """What no strands trained in this mode can exceed, by the solver's dual bound.

    Costs are differences between candidates with and without strands of a kind of weight, beyond all the others and
    beyond none, and the smaller difference counts: so no budget is drawn too tight.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import: collecting the tests does without

    most = [
        0 if mode.frozen_encoder and weight.is_encoder else rows
        for weight, rows in zip(run.weights, basis_rows(run), strict=True)
    ]
    bare, full = candidates.with_ranks(mode, [0] * len(most)), candidates.with_ranks(mode, most)
    if not fits(bare, limits):
        return 0.0
    costs: dict[tuple[int, int, bool], list[float]] = {}
    for index, weight in enumerate(run.weights):
        if most[index] and kind_of(weight) not in costs:
            alone = candidates.with_ranks(mode, [rank if index == at else 0 for at, rank in enumerate(most)])
            without = candidates.with_ranks(mode, [0 if index == at else rank for at, rank in enumerate(most)])
            pairs = [(a - b, c - d) for a, b, c, d in zip(*map(totals, (alone, bare, full, without)), strict=True)]
            costs[kind_of(weight)] = [min(pair) / most[index] for pair in pairs]
    left = [limit - used for limit, used in zip(limits_of(bare, limits), totals(bare), strict=True)]
    table = [[costs.get(kind_of(w), [0.0] * 3) for w, n in zip(run.weights, most, strict=True) for _ in range(n)]]
    values = np.concatenate([np.array(row[:n]) for row, n in zip(run.values, most, strict=True)])
    solved = milp(
        -values / sum(map(sum, run.values)),
        integrality=np.ones(len(values)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(np.array(table[0])[:, i] / limit, -np.inf, 1.0)
            for i, limit in enumerate(left)
            if math.isfinite(limit)
        ],
        options={"mip_rel_gap": 1e-3, "time_limit": 30},
    )
    return float(-solved.mip_dual_bound) * (bare_factor(full))


def totals(choice: Candidate) -> list[float]:
    assert choice.round_s is None or choice.round_s > 0
    return [choice.plan.expected_peak_bytes, choice.round_bytes, choice.round_s or 0.0]


def limits_of(choice: Candidate, limits: RoundLimits) -> list[float]:
    return [choice.plan.budget_bytes, limits.round_bytes or math.inf, limits.round_s or math.inf]


def fits(choice: Candidate, limits: RoundLimits) -> bool:
    return all(used < limit for used, limit in zip(totals(choice), limits_of(choice, limits), strict=True))


def bare_factor(full: Candidate) -> float:
    """What a mode's share counts for."""
    return full.worth / full.share
