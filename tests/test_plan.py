"""Planning: properties over boards and rankings, not single cases."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.allot import allot, basis_rows, strand_bytes, strand_order
from edge_client.board import Board
from edge_client.errors import NoPlanError
from edge_client.jobs import Plan
from edge_client.plan import CLIENT_BYTES, choose, choose_plan, explain, facts, runners_up
from tests.runs import SMALL_T5, run_of
from wire.messages import RunInfo

CONFIG = {**SMALL_T5, "num_layers": 2, "num_decoder_layers": 3}
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


def plan_or_none(memory_bytes: int, run: RunInfo, bf16_fast: bool = True) -> Plan | None:
    try:
        return choose_plan(make_board(memory_bytes, bf16_fast), run, CONFIG)
    except NoPlanError:
        return None


def ranking(seed: int) -> tuple[tuple[float, ...], ...]:
    """σ² per strand and weight, falling, over many magnitudes, a tenth of the weights without any value."""
    rng = random.Random(seed)
    scales = [0.0 if rng.random() < 0.1 else 10 ** rng.uniform(-9, 6) for _ in make_run().weights]
    rows = zip(scales, basis_rows(make_run()), strict=True)
    return tuple(tuple(sorted((scale * rng.random() for _ in range(n)), reverse=True)) for scale, n in rows)


RANKINGS = st.integers(0, 2**32).map(ranking)


# --- allotting strands ---------------------------------------------------------------------------------------------


@given(RANKINGS, st.data())
@settings(max_examples=30, deadline=None)
def test_choices_of_boards_nest(values: tuple[tuple[float, ...], ...], data: st.DataObject) -> None:
    """Fewer strands are always the leading ones of more, on every weight."""
    run = make_run(values=values)
    order = strand_order(run)
    few, many = sorted(data.draw(st.tuples(*[st.integers(0, len(order))] * 2)))

    small, large = (allot(order, len(run.weights), n) for n in (few, many))

    assert sum(small) == few
    assert all(a <= b <= most for a, b, most in zip(small, large, basis_rows(run), strict=True))


@given(RANKINGS, st.data())
@settings(max_examples=30, deadline=None)
def test_the_most_valuable_strands_per_byte_are_taken(values: Any, data: st.DataObject) -> None:
    """No strand left out is worth more per byte than one that was taken."""
    run = make_run(values=values)
    order = strand_order(run)
    ranks = allot(order, len(run.weights), data.draw(st.integers(1, len(order) - 1)))

    worth = [[value / strand_bytes(weight) for value in row] for row, weight in zip(values, run.weights, strict=True)]
    taken = min(row[i] for row, rank in zip(worth, ranks, strict=True) for i in range(rank))
    left = max((row[rank] for row, rank in zip(worth, ranks, strict=True) if rank < len(row)), default=0.0)
    assert taken >= left


def test_without_a_ranking_every_weight_gets_the_same() -> None:
    """Before the first profile nothing is known, so ranks differ by one at most."""
    run = make_run()

    ranks = allot(strand_order(run), len(run.weights), 100)

    assert sum(ranks) == 100
    assert max(ranks) - min(ranks) <= 1


# --- choosing a plan -----------------------------------------------------------------------------------------------


@given(st.tuples(MEMORY, MEMORY), st.booleans())
@settings(max_examples=40, deadline=None)
def test_more_memory_never_gives_fewer_strands(memory: tuple[int, int], bf16_fast: bool) -> None:
    """And where the smaller board has a plan, so has the larger, with at least its strand of each weight."""
    run = make_run()

    small, large = (plan_or_none(size, run, bf16_fast) for size in sorted(memory))

    if small is not None:
        assert large is not None
        assert all(a <= b for a, b in zip(small.ranks, large.ranks, strict=True))
        assert small.micro_batch <= large.micro_batch


@given(MEMORY, RANKINGS, st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_plan_never_exceeds_its_budget(memory_bytes: int, values: Any, bf16_fast: bool) -> None:
    """The predicted peak and the client's own memory fit; a plan trains something."""
    plan = plan_or_none(memory_bytes, make_run(values=values), bf16_fast)

    if plan is not None:
        assert plan.predicted_peak_bytes <= plan.budget_bytes == memory_bytes - CLIENT_BYTES
        assert sum(plan.ranks) > 0
        assert plan.micro_batch >= 1
        assert plan.compute == ("bf16" if bf16_fast and plan.format != "fp32" else "fp32")


def test_a_large_board_takes_everything_at_full_precision() -> None:
    """With memory to spare nothing is saved, where fp32 is the fast arithmetic."""
    run = make_run()

    plan = choose_plan(make_board(8 << 30, bf16_fast=False), run, CONFIG)

    assert (plan.format, plan.compute, plan.micro_batch) == ("fp32", "fp32", 8)
    assert plan.ranks == basis_rows(run)


def test_memory_between_the_extremes_gives_other_formats() -> None:
    """As memory falls the precision falls before the strands do, and both before the micro-batch."""
    run = make_run()
    sizes = range(300 * MIB, 1200 * MIB, 4 * MIB)
    plans = [plan for size in sizes if (plan := plan_or_none(size, run, bf16_fast=False)) is not None]

    assert {"fp32", "bf16"} <= {plan.format for plan in plans}
    assert {plan.micro_batch for plan in plans} >= {1, 8}
    assert len({sum(plan.ranks) for plan in plans if 1 < plan.micro_batch < 8}) == 1


def test_a_refusal_says_what_the_smallest_plan_needs() -> None:
    """With one byte less than it names there is no plan, with just that much there is one."""
    run = make_run()
    with pytest.raises(NoPlanError) as caught:
        choose_plan(make_board(200 * MIB), run, CONFIG)
    needed_bytes = int(caught.value.message.split("(")[1].split(" bytes")[0])

    assert str(200 * MIB) in caught.value.message
    assert "--memory" in caught.value.hint
    assert plan_or_none(needed_bytes - 1, run) is None
    assert plan_or_none(needed_bytes, run) is not None


def test_the_same_board_gets_the_same_plan() -> None:
    """Nothing but its arguments decides."""
    board, run = make_board(500 * MIB), make_run()

    assert choose_plan(board, run, CONFIG) == choose_plan(replace(board), run, dict(CONFIG))


# --- saying why ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_bytes", [420 * MIB, 8 << 30])
def test_the_explanation_names_the_plan_and_every_loser(memory_bytes: int) -> None:
    """Each other format is there with its reason, the parts add up, and the facts are JSON."""
    board, run = make_board(memory_bytes), make_run()
    choice = choose(board, run, CONFIG)

    others = runners_up(choice, board, run, CONFIG)

    lines, told = explain(choice, board, others), facts(choice, board, others)
    assert {other.choice.plan.format for other in others} | {choice.plan.format} == {"fp32", "bf16", "int8", "nf4"}
    assert all(other.reason and any(other.reason in line for line in lines) for other in others)
    assert sum(told["memory"].values()) == told["predicted_peak_bytes"]
    assert json.loads(json.dumps(told)) == told
