"""Plans that follow one at which memory ran short."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from braid_common.base.t5_config import T5Config
from edge_client.errors import ConfigError, NoPlanError
from edge_client.host.board import Board
from edge_client.jobs.messages import Plan
from edge_client.jobs.reward_spec import OverlapReward
from edge_client.jobs.sizes import IMPORTS_BYTES
from edge_client.plan.calibration import Calibration
from edge_client.plan.peak_memory import predict_peak
from edge_client.plan.planner import Planner
from edge_client.plan.pruning import limited
from edge_client.plan.situation import CLIENT_BYTES, Situation
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RewardLearning, RunInfo

CONFIG = {**SMALL_T5, "num_layers": 5, "num_decoder_layers": 6}
BASE = T5Config.parse(CONFIG)
MIB = 1 << 20
BOARD = Board(1 << 30, "as the test says", 2, "aarch64", True)


def make_run() -> RunInfo:
    return run_of(CONFIG, {"scope": "all", "batch": 16, "micro_batch": 16, "max_source_tokens": 256})


def make_planner(left_bytes: int, board: Board = BOARD) -> Planner:
    """On a board that offers `left_bytes` when it is measured again."""
    return Planner(
        Situation(board, make_run(), BASE),
        measure=lambda: replace(board, memory_bytes=left_bytes, memory_source="what is left"),
    )


def smallest_bytes() -> int:
    """What the board must have at least."""
    try:
        Planner(Situation(replace(BOARD, memory_bytes=MIB), make_run(), BASE)).choose(make_run())
    except NoPlanError as error:
        return error.needed_bytes
    raise AssertionError("a megabyte was enough")


@pytest.mark.slow
@given(left_bytes=st.integers(300 * MIB, 1 << 31))
@settings(max_examples=30, deadline=None)
def test_the_next_plan_fits_what_is_left_and_keeps_what_it_can(left_bytes: int) -> None:
    """Below what was measured and below the plan that failed, with all strands if a way fits, else with some of them;
    or refused."""
    run, planner = make_run(), make_planner(left_bytes)
    begun = planner.choose(run)
    planner.ran_short(begun)
    assert not planner.fits(begun, run)

    try:
        plan = planner.leaner(run, begun)
    except NoPlanError:
        assert left_bytes < smallest_bytes() + MIB
        return

    assert plan.expected_peak_bytes < begun.expected_peak_bytes
    assert plan.expected_peak_bytes <= left_bytes - CLIENT_BYTES
    assert all(kept <= before for kept, before in zip(plan.ranks, begun.ranks, strict=True))
    assert planner.fits(plan, run)
    assert planner.why(run, plan)[0].startswith("plan:")


def test_all_strands_are_kept_while_some_way_holds_them() -> None:
    """Far more memory than the leanest way needs is left: no strand is given up."""
    run, planner = make_run(), make_planner(500 * MIB)
    begun = planner.choose(run)
    planner.ran_short(begun)

    assert planner.leaner(run, begun).ranks == begun.ranks


@pytest.mark.slow
def test_each_shortage_lowers_the_plan_and_the_last_one_is_tried_again() -> None:
    """A board that tells of plenty, and runs short all the same, comes down step by step; at the bottom the smallest
    plan goes once more, for the board says that it fits."""
    run, planner = make_run(), make_planner(1 << 30)
    plan = planner.choose(run)
    seen: list[Plan] = []
    while plan not in seen:
        seen.append(plan)
        planner.ran_short(plan)
        plan = planner.leaner(run, plan)

    sizes = [one.expected_peak_bytes for one in seen]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(seen) > 3
    assert plan == seen[-1] == planner.choose(run)
    assert sizes[-1] < smallest_bytes()


@pytest.mark.slow
@given(
    st.integers(300 * MIB, 1 << 30),
    st.lists(st.integers(1, 20), min_size=1, max_size=7),
    st.sampled_from([0, 6]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_no_plan_gives_back_what_was_pruned(left_bytes: int, limits: list[int], rank: int, runs_short: bool) -> None:
    """Each weight has the lesser of what the plan has without pruning and what pruning left, in the same way of
    training or a simpler one that has become possible, for no more memory; whether boards choose their ranks or the
    run does. What was begun with pruned weights goes on with no more."""
    run = run_of(CONFIG, {"scope": "all", "batch": 16, "micro_batch": 16, "trains_a": True, "rank": rank})
    pruned = {weight.name: limits[i % len(limits)] for i, weight in enumerate(run.weights) if i % 3}
    planner = make_planner(left_bytes)
    whole = planner.choose(run)

    plan = planner.choose(run, pruned)
    if (plan.mode.format, plan.mode.frozen_encoder, plan.mode.micro_batch) == (
        whole.mode.format,
        whole.mode.frozen_encoder,
        whole.mode.micro_batch,
    ):
        assert plan.ranks == limited(whole.ranks, run.weights, pruned)
        assert plan.expected_peak_bytes <= whole.expected_peak_bytes
    assert plan.ranks == limited(plan.ranks, run.weights, pruned)
    assert any("pruning: " in line for line in planner.why(run, plan))

    if runs_short:
        planner.ran_short(plan)
        with contextlib.suppress(NoPlanError):
            leaner = planner.leaner(run, plan, pruned)
            assert all(kept <= before for kept, before in zip(leaner.ranks, plan.ranks, strict=True))


def test_a_board_without_room_refuses() -> None:
    """Where not even the smallest plan fits what is left, the sentence says what the board has now."""
    run, planner = make_run(), make_planner(smallest_bytes() - MIB)
    plan = planner.choose(run)
    planner.ran_short(plan)

    with pytest.raises(NoPlanError, match="what is left"):
        planner.leaner(run, plan)


def test_a_board_that_does_not_tell_its_memory_lowers_what_it_was_given() -> None:
    """--memory on a system without /proc: the shortage itself is the only measurement."""

    def nothing_to_read() -> Board:
        raise ConfigError("the board does not tell how much memory it has")

    run, planner = make_run(), Planner(Situation(BOARD, make_run(), BASE), measure=nothing_to_read)
    plan = planner.choose(run)
    planner.ran_short(plan)

    assert planner.leaner(run, plan).expected_peak_bytes < plan.expected_peak_bytes


def test_a_measured_step_changes_the_next_plan() -> None:
    """What a probe took above the prediction is kept, and plans of that way need more from then on."""
    kept: list[Calibration] = []
    run, planner = make_run(), Planner(Situation(BOARD, make_run(), BASE), keep=kept.append)
    plan = planner.choose(run)
    assert not planner.is_measured(plan)

    planner.correct(plan, plan.expected_peak_bytes + 100 * MIB)

    assert planner.is_measured(plan)
    again = Planner(Situation(BOARD, make_run(), BASE, calibration=kept[0])).choose(run)
    assert again == planner.choose(run)
    if (again.mode.format, again.ranks, again.mode.micro_batch) == (
        plan.mode.format,
        plan.ranks,
        plan.mode.micro_batch,
    ):
        assert abs(again.expected_peak_bytes - plan.expected_peak_bytes - 100 * MIB) <= 1


@pytest.mark.parametrize("learns", [False, True])
def test_a_probe_of_a_round_that_learns_from_rewards_tells_of_its_training_alone(learns: bool) -> None:
    """It writes no answers and loads no judge: where it took exactly what is predicted without these, nothing changes;
    where it took half as much again, the whole plan needs more, by that half at least."""
    run = make_run()
    settings = msgspec.structs.replace(run.settings, reward=RewardLearning() if learns else UNSET)
    rewarded = msgspec.structs.replace(run, settings=settings)
    kept: list[Calibration] = []
    planner = Planner(Situation(BOARD, run, BASE, rewards=(OverlapReward(),)), keep=kept.append)
    plan = planner.choose(rewarded)
    tried_bytes = predict_peak(BASE, run, plan.mode, plan.ranks).total_bytes
    assert (plan.predicted_bytes > tried_bytes + 50 * MIB) == learns

    planner.correct(plan, tried_bytes)
    assert planner.choose(rewarded) == plan

    half_bytes = (tried_bytes - IMPORTS_BYTES) // 2
    planner.correct(plan, tried_bytes + half_bytes)
    expected_bytes = kept[-1].expected_bytes(plan.mode, plan.predicted_bytes)
    assert expected_bytes >= plan.predicted_bytes + half_bytes
