"""Planning: properties over boards and rankings, not single cases."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braid_common.base.t5_config import T5Config
from edge_client.errors import NoPlanError
from edge_client.host.board import Board
from edge_client.jobs.messages import Plan
from edge_client.plan.candidates import Candidate
from edge_client.plan.choose import choose, runners_up
from edge_client.plan.explain import explain, facts
from edge_client.plan.situation import CLIENT_BYTES, Situation
from edge_client.plan.strand_selection import basis_rows
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RunInfo

CONFIG = {**SMALL_T5, "num_layers": 2, "num_decoder_layers": 3}
BASE = T5Config.parse(CONFIG)
MIB = 1 << 20
MEMORY = st.integers(300 * MIB, 1200 * MIB)


def make_run(values: tuple[tuple[float, ...], ...] = ()) -> RunInfo:
    return run_of(CONFIG, {"batch": 16}, values=values)


def make_board(memory_bytes: int, bf16_fast: bool = True) -> Board:
    return Board(
        memory_bytes=memory_bytes,
        memory_source="given by --memory",
        cpu_count=2,
        machine="aarch64",
        bf16_fast=bf16_fast,
    )


def choice_or_none(memory_bytes: int, run: RunInfo, bf16_fast: bool = True) -> Candidate | None:
    try:
        return choose(Situation(make_board(memory_bytes, bf16_fast), run, BASE))
    except NoPlanError:
        return None


def plan_or_none(memory_bytes: int, run: RunInfo, bf16_fast: bool = True) -> Plan | None:
    try:
        return choose(Situation(make_board(memory_bytes, bf16_fast), run, BASE)).plan
    except NoPlanError:
        return None


def ranking(seed: int) -> tuple[tuple[float, ...], ...]:
    """σ² per strand and weight, falling, over many magnitudes, a tenth of the weights without any value."""
    rng = random.Random(seed)
    scales = [0.0 if rng.random() < 0.1 else 10 ** rng.uniform(-9, 6) for _ in make_run().weights]
    rows = zip(scales, basis_rows(make_run()), strict=True)
    return tuple(tuple(sorted((scale * rng.random() for _ in range(n)), reverse=True)) for scale, n in rows)


RANKINGS = st.integers(0, 2**32).map(ranking)


# --- choosing a plan -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.tuples(MEMORY, MEMORY), st.booleans(), st.none() | RANKINGS)
@settings(max_examples=20, deadline=None)
def test_more_memory_never_gives_a_round_of_less_worth(memory: tuple[int, int], bf16_fast: bool, values: Any) -> None:
    """And where the smaller board has a plan, so has the larger."""
    run = make_run(values=values or ())

    small, large = (choice_or_none(size, run, bf16_fast) for size in sorted(memory))

    if small is not None:
        assert large is not None
        assert small.worth <= large.worth


@pytest.mark.slow
@given(MEMORY, RANKINGS, st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_plan_never_exceeds_its_budget(memory_bytes: int, values: Any, bf16_fast: bool) -> None:
    """The predicted peak and the client's own memory fit; a plan trains something."""
    plan = plan_or_none(memory_bytes, make_run(values=values), bf16_fast)

    if plan is not None:
        assert plan.expected_peak_bytes <= plan.budget_bytes == memory_bytes - CLIENT_BYTES
        assert sum(plan.ranks) > 0
        assert plan.mode.micro_batch >= 1
        assert plan.mode.compute == ("bf16" if bf16_fast and plan.mode.format != "fp32" else "fp32")


def test_a_large_board_takes_everything_at_full_precision() -> None:
    """With memory to spare nothing is saved, where fp32 is the fast arithmetic."""
    run = make_run()

    plan = choose(Situation(make_board(8 << 30, bf16_fast=False), run, BASE)).plan

    assert (plan.mode.format, plan.mode.compute, plan.mode.micro_batch) == ("fp32", "fp32", 8)
    assert plan.ranks == basis_rows(run)


def test_memory_between_the_extremes_gives_smaller_micro_batches_and_other_formats() -> None:
    """A smaller micro-batch loses nothing but time, so importance is kept for as long as it helps."""
    run = make_run()
    sizes = range(300 * MIB, 1200 * MIB, 20 * MIB)
    found = [choice for size in sizes if (choice := choice_or_none(size, run, bf16_fast=False)) is not None]

    assert {"fp32", "bf16"} <= {choice.plan.mode.format for choice in found}
    assert {choice.plan.mode.micro_batch for choice in found} >= {1, 8}
    assert any(choice.share == 1.0 and choice.plan.mode.micro_batch == 1 for choice in found)


def test_a_refusal_says_what_the_smallest_plan_needs() -> None:
    """With one byte less than it names there is no plan, with just that much there is one."""
    run = make_run()
    with pytest.raises(NoPlanError) as caught:
        choose(Situation(make_board(200 * MIB), run, BASE))
    needed_bytes = caught.value.needed_bytes

    assert str(200 * MIB) in caught.value.message
    assert "--memory" in caught.value.hint
    assert plan_or_none(needed_bytes - 1, run) is None
    assert plan_or_none(needed_bytes, run) is not None


def test_the_same_board_gets_the_same_plan() -> None:
    """Nothing but its arguments decides."""
    board, run = make_board(500 * MIB), make_run()

    assert choose(Situation(board, run, BASE)).plan == choose(Situation(replace(board), run, replace(BASE))).plan


# --- saying why ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [420 * MIB, 8 << 30])
def test_the_explanation_names_the_plan_and_every_loser(memory_bytes: int) -> None:
    """Each other format is there with its reason, the parts add up, and the facts are JSON."""
    board, run = make_board(memory_bytes), make_run()
    choice = choose(Situation(board, run, BASE))

    others = runners_up(Situation(board, run, BASE), choice)

    lines, told = explain(choice, board, others), facts(choice, board, others)
    kinds = {other.kind for other in others}
    assert {f"{format} base" for format in ("fp32", "bf16", "int8", "nf4")} <= kinds | {
        f"{choice.plan.mode.format} base"
    }
    assert len({other.candidate.plan for other in others} | {choice.plan}) == len(others) + 1
    assert all(other.reason and any(other.reason in line for line in lines) for other in others)
    assert sum(told["memory"].values()) == told["predicted_peak_bytes"]
    assert json.loads(json.dumps(told)) == told
