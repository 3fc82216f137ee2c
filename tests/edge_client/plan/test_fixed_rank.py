"""Planning in a run that gives every board one rank: only the way of training is chosen, or the board is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braid_common.base.t5_config import T5Config
from edge_client.errors import NoPlanError
from edge_client.host.board import Board
from edge_client.plan.cache_budget import NO_CACHE, CacheBudget
from edge_client.plan.candidates import Candidate
from edge_client.plan.choose import choose, runners_up
from edge_client.plan.explain import explain, facts
from edge_client.plan.planner import Planner
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits
from edge_client.plan.situation import CLIENT_BYTES, Situation
from tests.fakes.runs import SMALL_T5, run_of
from wire.checks import equal_ranks
from wire.run import RunInfo

CONFIG = {**SMALL_T5, "num_layers": 3, "num_decoder_layers": 2}
BASE = T5Config.parse(CONFIG)
MIB = 1 << 20
ROOM = CacheBudget(1 << 30, 500)
BOARD = Board(2 << 30, "given by --memory", 2, "aarch64", True)


def make_run(rank: int, scope: str = "all", trains_a: bool = True, **fields: Any) -> RunInfo:
    sizes = {"batch": 16, "local_steps": 4, "rank": rank, "trains_a": trains_a}
    return run_of(CONFIG, {"scope": scope, **sizes}, **fields)


def with_memory(memory_bytes: int) -> Board:
    return replace(BOARD, memory_bytes=memory_bytes)


def limited(round_s: float | None = None, round_bytes: int | None = None) -> RoundLimits:
    return RoundLimits(round_s, round_bytes, {"bf16": 400.0, "fp32": 80.0})


limits_of_any_kind = st.builds(limited, st.none() | st.floats(0.1, 60), st.none() | st.integers(10**5, 10**8))


@pytest.mark.slow
@given(
    st.tuples(*[st.integers(300 * MIB, 1200 * MIB)] * 2),
    st.integers(1, 256),
    st.sampled_from(["all", "decoder"]),
    st.booleans(),
    st.sampled_from([NO_CACHE, ROOM]),
    limits_of_any_kind,
)
@settings(max_examples=25, deadline=None)
def test_every_plan_has_just_that_rank(
    memory: tuple[int, int], rank: int, scope: str, trains_a: bool, room: CacheBudget, limits: RoundLimits
) -> None:
    """Whatever the memory and the limits: all weights at min(rank, R), none left out, the encoder's neither; within the
    budget and the limits. A board with more memory has a plan where a smaller one has, and a better one."""
    run = make_run(rank, scope, trains_a)
    worth = 0.0
    for memory_bytes in sorted(memory):
        try:
            choice = choose(Situation(with_memory(memory_bytes), run, BASE, cache=room, limits=limits))
        except NoPlanError:
            assert not worth
            continue
        assert choice.plan.ranks == equal_ranks(run, rank)
        assert min(choice.plan.ranks) > 0
        assert not choice.plan.mode.frozen_encoder
        assert choice.fits and choice.keeps(limits)
        assert choice.worth >= worth
        worth = choice.worth


def test_ranks_do_not_depend_on_what_weights_are_worth() -> None:
    """A ranking that names one weight alone changes nothing."""
    run = make_run(4)
    values = tuple((float(i == 0),) * rows for i, rows in enumerate(equal_ranks(run, run.max_rank)))

    plans = [choose(Situation(BOARD, one, BASE)).plan for one in (run, make_run(4, values=values))]

    assert plans[0].ranks == plans[1].ranks == (4,) * len(run.weights)


# --- boards that cannot --------------------------------------------------------------------------------------------


def refused(board: Board, run: RunInfo, limits: RoundLimits = NO_LIMITS) -> NoPlanError:
    with pytest.raises(NoPlanError) as caught:
        choose(Situation(board, run, BASE, limits=limits))
    return caught.value


def test_a_board_with_too_little_memory_is_told_the_rank_and_what_it_takes() -> None:
    """With just as many bytes as the sentence names there is a plan, with one less there is none."""
    run, board = make_run(8), with_memory(300 * MIB)

    error = refused(board, run)

    needed_bytes = error.needed_bytes
    assert "rank 8" in error.message
    assert str(board.memory_bytes) in error.message
    assert all(words in error.hint for words in ("--memory", "train.rank", "merge.rule"))
    assert (
        choose(Situation(with_memory(needed_bytes), run, BASE)).plan.expected_peak_bytes == needed_bytes - CLIENT_BYTES
    )
    refused(with_memory(needed_bytes - 1), run)


def test_a_round_that_cannot_keep_its_limits_is_refused_with_the_rank() -> None:
    """It may not train less to keep them."""
    run = make_run(8)
    free = choose(Situation(BOARD, run, BASE, limits=limited()))
    assert free.round_s is not None

    traffic = refused(BOARD, run, limited(round_bytes=int(free.round_bytes) - 1))
    time = refused(BOARD, run, limited(round_s=free.round_s / 10))

    assert "with every weight at rank 8" in traffic.message
    assert "train.rank" in traffic.hint
    assert "with every weight at rank 8" in time.message
    assert choose(Situation(BOARD, run, BASE, limits=limited(round_bytes=int(free.round_bytes) + 1))).plan == free.plan


def test_a_round_that_was_begun_goes_on_at_its_rank_or_not_at_all() -> None:
    """After memory ran short the same strands go on in a leaner way; no strand is given up."""
    run = make_run(16)
    least = refused(with_memory(MIB), run).needed_bytes
    planner = Planner(Situation(BOARD, run, BASE), measure=lambda: with_memory(least))
    begun = planner.choose(run)
    planner.ran_short(begun)

    assert planner.leaner(run, begun).ranks == begun.ranks

    planner = Planner(Situation(BOARD, run, BASE), measure=lambda: with_memory(least - 1))
    planner.ran_short(begun)
    with pytest.raises(NoPlanError, match="rank 16"):
        planner.leaner(run, begun)


# --- saying so -----------------------------------------------------------------------------------------------------


def told(choice: Candidate, run: RunInfo) -> tuple[str, dict[str, Any]]:
    others = runners_up(Situation(BOARD, run, BASE), choice)
    return "\n".join(explain(choice, BOARD, others)), facts(choice, BOARD, others)


def test_the_plan_says_that_the_rank_is_everybodys() -> None:
    """To people and to programs; runners-up have it too. Where boards choose their ranks nothing is said."""
    run = make_run(8)

    text, values = told(choose(Situation(BOARD, run, BASE)), run)
    free_text, free_values = told(choose(Situation(BOARD, make_run(0), BASE)), make_run(0))

    assert "rank 8 on each as on every board" in text
    assert values["rank_of_all_boards"] == 8
    assert {other["n_strands"] for other in values["runners_up"]} == {values["n_strands"]}
    assert "every board" not in free_text
    assert free_values["rank_of_all_boards"] is None
