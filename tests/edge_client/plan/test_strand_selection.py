"""Selecting strands: properties over budgets and rankings, and the exact solver beside the greedy rule."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from operator import mul

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.plan.round_cost import kind_of, strand_traffic
from edge_client.plan.strand_selection import (
    Budget,
    Memory,
    Selector,
    allot,
    basis_rows,
    ranking,
    strand_bytes,
    strand_order,
    strand_values,
)
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RunInfo

CONFIG = {**SMALL_T5, "num_layers": 2, "num_decoder_layers": 3}
SEEDS = st.integers(0, 2**32)


def random_run(rng: random.Random) -> RunInfo:
    """A run on a T5 of any shape, with power laws for values, within weights and between them."""
    config = {
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu",
        "vocab_size": 8000,
        "d_model": rng.choice([256, 512, 768]),
        "d_kv": rng.choice([32, 64]),
        "num_heads": rng.choice([3, 6, 12]),
        "d_ff": rng.choice([640, 1024, 2048]),
        "num_layers": rng.randint(2, 6),
        "num_decoder_layers": rng.randint(2, 6),
    }
    run = run_of(config, {"scope": rng.choice(["all", "decoder"])}, max_rank=rng.choice([8, 16, 32]))
    falls, spread = rng.uniform(0.3, 2.5), rng.uniform(0.0, 1.5)
    values = []
    for n_strands in basis_rows(run):
        scale = 10 ** rng.gauss(0, spread)
        row = [scale * (strand + 1) ** -falls * rng.uniform(0.8, 1.2) for strand in range(n_strands)]
        values.append(tuple(sorted(row, reverse=True)))
    return run_of(config, {"scope": run.settings.scope}, max_rank=run.max_rank, values=tuple(values))


def random_costs(run: RunInfo, rng: random.Random) -> list[list[float]]:
    """Of one strand of each weight: bytes of memory, bytes of a round, operations. Memory is what training takes where
    it is short: then planned micro-batches are of one example."""
    micro_batch, lengths = 1, {True: rng.choice([128, 512]), False: rng.choice([32, 64])}
    value_bytes, keeps = rng.choice([2, 4]), rng.random() < 0.6  # fp32 or bf16, without checkpointing or with it
    memory, work = [], []
    for weight in run.weights:
        tokens = lengths[kind_of(weight)[2]]
        kept = micro_batch * tokens if keeps else 0
        memory.append(1.1 * (16 * weight.rows + value_bytes * (weight.columns + kept)))
        work.append(float(tokens * (3 * weight.rows + 2 * weight.columns)))
    return [memory, strand_traffic(run), work]


def linear(costs: Sequence[float], limit: float) -> Memory:
    return Memory(lambda ranks: sum(map(mul, costs, ranks)), limit, costs)


def random_problem(seed: int) -> tuple[RunInfo, Memory, list[Budget]]:
    """With 1 to 3 budgets that bind, each paying for 5 % to all of what every strand costs."""
    rng = random.Random(seed)
    run = random_run(rng)
    kinds = random_costs(run, rng)[: rng.randint(1, 3)]
    limits = [10 ** rng.uniform(-1.3, 0) * sum(map(mul, costs, basis_rows(run))) for costs in kinds]
    return run, linear(kinds[0], limits[0]), [Budget(*pair) for pair in zip(kinds[1:], limits[1:], strict=True)]


def exact_bound(run: RunInfo, budgets: Sequence[Budget]) -> float:
    """What no strands within all budgets can exceed in importance: the dual bound of HiGHS' branch and bound, which
    stops within 0.1 % of the optimum."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import: collecting the tests does without

    rows = basis_rows(run)
    values = np.concatenate([np.array(row) for row in run.values])
    costs = np.array([np.repeat(np.array(budget.costs) / budget.limit, rows) for budget in budgets])
    found = milp(
        -values / values.sum(),
        integrality=np.ones(len(values)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(costs, -np.inf, 1.0),
        options={"mip_rel_gap": 1e-3, "time_limit": 30},
    )
    assert found.success, found.message
    return float(-found.mip_dual_bound)


# --- against the exact solver --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_the_greedy_choice_is_within_one_percent_of_the_exact_one(seed: int) -> None:
    """On random shapes, spectra and budgets, with one to three budgets that bind; and it keeps every budget."""
    run, memory, others = random_problem(seed)
    selector = Selector(run)

    ranks = selector.select(memory, others)

    assert ranks is not None
    budgets = [Budget(memory.most, memory.limit), *others]
    assert all(sum(map(mul, budget.costs, ranks)) <= budget.limit for budget in budgets)
    assert selector.share(ranks) >= 0.99 * exact_bound(run, budgets)


# --- properties ----------------------------------------------------------------------------------------------------


@given(SEEDS, st.data())
@settings(max_examples=25, deadline=None)
def test_choices_of_boards_nest(seed: int, data: st.DataObject) -> None:
    """Fewer strands are always the leading ones of more, on every weight."""
    run = random_run(random.Random(seed))
    order = strand_order(run)
    few, many = sorted(data.draw(st.tuples(*[st.integers(0, len(order))] * 2)))

    small, large = (allot(order, len(run.weights), n) for n in (few, many))

    assert sum(small) == few
    assert all(a <= b <= most for a, b, most in zip(small, large, basis_rows(run), strict=True))


@given(SEEDS, st.data())
@settings(max_examples=25, deadline=None)
def test_the_most_valuable_strands_per_byte_are_taken(seed: int, data: st.DataObject) -> None:
    """No strand left out is worth more per byte than one that was taken."""
    run = random_run(random.Random(seed))
    order = strand_order(run)
    ranks = allot(order, len(run.weights), data.draw(st.integers(1, len(order) - 1)))

    worth = [[v / strand_bytes(weight) for v in row] for row, weight in zip(run.values, run.weights, strict=True)]
    taken = min(row[i] for row, rank in zip(worth, ranks, strict=True) for i in range(rank))
    left = max((row[rank] for row, rank in zip(worth, ranks, strict=True) if rank < len(row)), default=0.0)
    assert taken >= left


def test_without_a_ranking_every_weight_gets_the_same() -> None:
    """Before the first profile nothing is known, so ranks differ by one at most."""
    run = run_of(CONFIG)

    ranks = allot(strand_order(run), len(run.weights), 100)

    assert sum(ranks) == 100
    assert max(ranks) - min(ranks) <= 1


@given(SEEDS, st.floats(0.01, 1.5), st.floats(1.0, 1.3))
@settings(max_examples=25, deadline=None)
def test_more_memory_never_gives_less(seed: int, scale: float, more: float) -> None:
    """Whatever else is short."""
    run, memory, others = random_problem(seed)
    selector, limit = Selector(run), scale * memory.limit

    found = [selector.select(replace(memory, limit=limit * factor), others) for factor in (1.0, more)]

    shares = [selector.share(ranks or [0] * len(run.weights)) for ranks in found]
    assert shares[0] <= shares[1] + 1e-12


@pytest.mark.slow
@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_boards_of_all_sizes_share_one_order_where_it_serves_them(seed: int) -> None:
    """Where a board's own costs are in proportion to the shared ones, its strands are that order's first ones, and of
    those behind some that still fitted, worth no more than the one that did not."""
    run = random_run(random.Random(seed))
    costs = [1.1 * strand_bytes(weight) for weight in run.weights]
    order, memory = strand_order(run), linear(costs, 0.3 * sum(map(mul, costs, basis_rows(run))))

    ranks = Selector(run).select(memory)

    assert ranks is not None
    n_first = next(n for n in range(len(order), -1, -1) if memory.peak(allot(order, len(ranks), n)) <= memory.limit)
    first, values = allot(order, len(ranks), n_first), strand_values(run)
    assert all(a <= b for a, b in zip(first, ranks, strict=True))
    left_out = values[order[n_first]][first[order[n_first]]]
    assert sum(sum(row[a:b]) for row, a, b in zip(values, first, ranks, strict=True)) <= left_out * (1 + 1e-9)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_least_memory_is_just_enough_for_a_strand(seed: int) -> None:
    """With that limit there is a choice, with a little less there is none."""
    run, memory, _ = random_problem(seed)
    selector = Selector(run)

    least = selector.least_memory(memory)

    assert any(selector.select(replace(memory, limit=least)) or ())
    assert selector.select(replace(memory, limit=least * (1 - 1e-9))) is None


def test_what_is_left_out_gets_no_strand() -> None:
    """And the others are chosen as if it were not there."""
    run, memory, _ = random_problem(3)
    encoder = {index for index, weight in enumerate(run.weights) if index % 3 == 0}

    ranks = Selector(run).select(memory, without=encoder)

    assert ranks is not None
    assert not any(ranks[index] for index in encoder)
    assert any(ranks)


# --- the ranking that people see -----------------------------------------------------------------------------------


def test_the_ranking_lists_every_weight_by_its_share() -> None:
    """Shares add up to one, the largest first; before a profile there is no ranking."""
    run = random_run(random.Random(1))

    table = ranking(run)

    assert math.isclose(sum(weight.share for weight in table), 1.0)
    assert [weight.share for weight in table] == sorted((weight.share for weight in table), reverse=True)
    assert {weight.name for weight in table} == {weight.name for weight in run.weights}
    assert ranking(run_of(CONFIG)) == []


def test_rows_of_a_count_where_they_are_trained() -> None:
    """Without that a wide weight's strands are cheaper than a tall one's and come first; with it they cost the same."""
    q, _, _, o = run_of(CONFIG, {"scope": "decoder"}).weights[:4]
    assert (q.rows, q.columns) == (o.columns, o.rows)

    def first_weight(trains_a: bool) -> str:
        run = run_of(CONFIG, {"scope": "decoder", "trains_a": trains_a}, weights=(o, q), values=((1.0,) * 32,) * 2)
        return run.weights[strand_order(run)[0]].name

    assert strand_bytes(q) < strand_bytes(o)
    assert strand_bytes(q, trains_a=True) == strand_bytes(o, trains_a=True) == 16 * (q.rows + q.columns)
    assert (first_weight(False), first_weight(True)) == (q.name, o.name)
