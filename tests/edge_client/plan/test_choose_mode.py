"""The planner's newer choices: arithmetic, device, checkpointing, and the cache of encoder outputs."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braid_common.base.t5_config import T5Config
from edge_client.errors import NoPlanError
from edge_client.host.board import Board
from edge_client.jobs.messages import Device, Plan
from edge_client.jobs.sizes import CUDA_CONTEXT_BYTES, entry_bytes
from edge_client.plan.cache_budget import NO_CACHE, CacheBudget
from edge_client.plan.candidates import Candidate
from edge_client.plan.choose import choose, runners_up
from edge_client.plan.explain import explain, facts
from edge_client.plan.planner import Planner
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits
from edge_client.plan.situation import Situation
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RunInfo, Scope

CONFIG = {**SMALL_T5, "num_layers": 5, "num_decoder_layers": 6}
BASE = T5Config.parse(CONFIG)
MIB = 1 << 20
ROOM = CacheBudget(1 << 30, 500)
SCOPES: tuple[Scope, ...] = ("all", "decoder")


def make_run(scope: Scope, source: int = 256) -> RunInfo:
    return run_of(CONFIG, {"scope": scope, "batch": 16, "local_steps": 4, "max_source_tokens": source})


def make_board(memory_bytes: int, bf16_fast: bool = True, device: Device = "cpu") -> Board:
    return Board(
        memory_bytes=memory_bytes,
        memory_source="given by --memory",
        cpu_count=2,
        machine="aarch64",
        bf16_fast=bf16_fast,
        device=device,
    )


def choice_or_none(
    memory_bytes: int,
    run: RunInfo,
    room: CacheBudget = ROOM,
    bf16_fast: bool = True,
    limits: RoundLimits = NO_LIMITS,
) -> Candidate | None:
    try:
        return choose(Situation(make_board(memory_bytes, bf16_fast), run, BASE, cache=room, limits=limits))
    except NoPlanError:
        return None


@cache
def plans(scope: Scope, source: int = 256, room: CacheBudget = ROOM) -> tuple[Plan, ...]:
    """From the smallest board that has one to the largest."""
    sizes = range(300 * MIB, 1600 * MIB, 25 * MIB)
    run = make_run(scope, source)
    return tuple(choice.plan for size in sizes if (choice := choice_or_none(size, run, room)) is not None)


@pytest.mark.slow
@given(
    st.tuples(*[st.integers(300 * MIB, 1200 * MIB)] * 2),
    st.sampled_from(SCOPES),
    st.booleans(),
    st.sampled_from([NO_CACHE, ROOM]),
    st.sampled_from([NO_LIMITS, RoundLimits(round_bytes=3_500_000)]),
)
@settings(max_examples=15, deadline=None)
def test_more_memory_never_gives_a_round_of_less_worth(
    memory: tuple[int, int], scope: Scope, bf16_fast: bool, room: CacheBudget, limits: RoundLimits
) -> None:
    """In either scope, with a cache and without, with a limit on traffic and without."""
    run = make_run(scope)

    small, large = (choice_or_none(size, run, room, bf16_fast, limits) for size in sorted(memory))

    if small is not None:
        assert large is not None
        assert small.worth <= large.worth


@pytest.mark.slow
@pytest.mark.parametrize("scope", SCOPES)
def test_a_board_that_multiplies_bf16_fast_never_trains_in_fp32(scope: Scope) -> None:
    """However much memory it has; a board that does not takes fp32 first."""
    assert {plan.mode.compute for plan in plans(scope)} == {"bf16"}

    plan = choose(Situation(make_board(8 << 30, bf16_fast=False), make_run(scope), BASE, cache=ROOM)).plan

    assert (plan.mode.format, plan.mode.compute) == ("fp32", "fp32")


@pytest.mark.slow
def test_checkpointing_comes_where_nothing_cheaper_helps() -> None:
    """A large board does without; the boards that use it have less memory than any that trains as much without."""
    found = plans("all", source=512)

    again = [plan for plan in found if plan.mode.checkpointing]
    without = [plan for plan in found if not plan.mode.checkpointing and sum(plan.ranks) >= max(map(_n_strands, again))]
    assert again and without
    assert max(plan.budget_bytes for plan in again) < min(plan.budget_bytes for plan in without)


def _n_strands(plan: Plan) -> int:
    return sum(plan.ranks)


def test_decoder_scope_keeps_the_encoders_output_where_there_is_room() -> None:
    """bf16 with room, int8 with little, none without; scope "all" never."""
    run, board = make_run("decoder"), make_board(2 << 30)
    example_bytes = entry_bytes(256, CONFIG["d_model"], "bf16")

    def cache(limit_bytes: int) -> str:
        return choose(Situation(board, run, BASE, cache=CacheBudget(limit_bytes, 1000))).plan.mode.cache

    assert cache(64 * example_bytes) == "bf16"
    assert cache(40 * example_bytes) == "int8"
    assert cache(20 * example_bytes) == "none"
    assert {plan.mode.cache for plan in plans("all")} == {"none"}


def test_a_cache_needs_less_memory() -> None:
    """FLAN-T5-base trains on a smaller board with it, for its encoder is not resident."""
    base = {**CONFIG, "vocab_size": 32128, "d_model": 768, "d_kv": 64, "num_heads": 12, "d_ff": 2048}
    base |= {"num_layers": 12, "num_decoder_layers": 12}
    run = run_of(base, {"scope": "decoder"})
    board = make_board(4 << 30)

    with_cache, without = (
        choose(Situation(board, run, T5Config.parse(base), cache=room)).plan for room in (ROOM, NO_CACHE)
    )

    assert with_cache.mode.cache != "none"
    assert with_cache.expected_peak_bytes < without.expected_peak_bytes - 100 * MIB


def test_on_a_gpu_its_context_is_counted() -> None:
    """A board that just fits on the processor needs that much more where the GPU shares its memory."""
    run = make_run("decoder")
    on_cpu = choose(Situation(make_board(2 << 30), run, BASE, cache=ROOM)).plan
    on_gpu = choose(Situation(make_board(2 << 30, device="cuda"), run, BASE, cache=ROOM)).plan

    assert (on_cpu.mode.device, on_gpu.mode.device) == ("cpu", "cuda")
    assert on_gpu.expected_peak_bytes >= on_cpu.expected_peak_bytes + CUDA_CONTEXT_BYTES


def test_the_explanation_says_what_is_unusual() -> None:
    """Device, cache and checkpointing are told to people and programs."""
    run, board = make_run("decoder", source=512), make_board(2 << 30, device="cuda")
    choice = choose(Situation(board, run, BASE, cache=ROOM))
    others = runners_up(Situation(board, run, BASE, cache=ROOM), choice)

    text = "\n".join(explain(choice, board, others))
    told = facts(choice, board, others)

    assert "the GPU" in text
    assert f"kept on disk in {choice.plan.mode.cache}" in text
    assert "not fp32 base: bf16 products are faster" in text
    assert (told["device"], told["cache"], told["checkpointing"]) == ("cuda", choice.plan.mode.cache, False)


def test_a_kept_plan_is_given_up_where_its_device_or_disk_is_gone() -> None:
    """A plan with a cache does not survive --cache 0, nor one for a GPU the loss of the GPU."""
    run = make_run("decoder")
    plan = Planner(Situation(make_board(2 << 30, device="cuda"), run, BASE, cache=ROOM)).choose(run)

    assert Planner(Situation(make_board(2 << 30, device="cuda"), run, BASE, cache=ROOM)).fits(plan, run)
    assert not Planner(Situation(make_board(2 << 30, device="cpu"), run, BASE, cache=ROOM)).fits(plan, run)
    assert not Planner(Situation(make_board(2 << 30, device="cuda"), run, BASE, cache=NO_CACHE)).fits(plan, run)
    assert not Planner(Situation(make_board(plan.expected_peak_bytes, device="cuda"), run, BASE, cache=ROOM)).fits(
        plan, run
    )
