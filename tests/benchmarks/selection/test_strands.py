"""Selections of strands train equal numbers of parameters, or as nearly as strands allow."""

from __future__ import annotations

from typing import get_args

import pytest

from benchmarks.selection.strands import Selection, budget, chosen, qv_ranks
from benchmarks.simulation.strands import n_parameters
from wire.default_run import run_info
from wire.run import RunInfo, Weight

WEIGHTS = tuple(
    Weight(name=f"{side}.block.{block}.{module}", rows=rows, columns=columns)
    for side in ("encoder", "decoder")
    for block in range(2)
    for module, rows, columns in (
        ("SelfAttention.q", 24, 32),
        ("SelfAttention.v", 24, 32),
        ("wi_0", 40, 32),
        ("wo", 32, 40),
    )
)


def run() -> RunInfo:
    """A run in which every weight's strands are worth less one after the other, and weights differ."""
    values = tuple(tuple((1 + w) / 2**i for i in range(8)) for w in range(len(WEIGHTS)))
    return run_info(WEIGHTS, max_rank=8, values=values)


def test_q_and_v_alone_are_what_peft_takes() -> None:
    ranks = qv_ranks(WEIGHTS, 4)
    assert {weight.name.rsplit(".", 1)[-1] for weight, rank in zip(WEIGHTS, ranks, strict=True) if rank} == {"q", "v"}
    assert budget(WEIGHTS, 4) == 8 * 4 * 24


@pytest.mark.parametrize("selection", get_args(Selection))
def test_no_selection_trains_more_and_none_much_less(selection: Selection) -> None:
    most = budget(WEIGHTS, 3)
    n_values = n_parameters(WEIGHTS, chosen(run(), selection, 3, seed=2))

    assert most - min(weight.rows for weight in WEIGHTS) < n_values <= most


def test_a_score_takes_the_most_valuable_per_value() -> None:
    """The last weight's first strand is worth most of all of its length."""
    ranks = chosen(run(), "sketch", 1, seed=2)
    by_rows = {
        rows: [r for r, weight in zip(ranks, WEIGHTS, strict=True) if weight.rows == rows] for rows in (24, 32, 40)
    }

    assert all(ranks_of == sorted(ranks_of) for ranks_of in by_rows.values())  # values grow with the weight's place


def test_random_strands_are_drawn_by_the_seed() -> None:
    one, again, other = (chosen(run(), "random", 3, seed) for seed in (2, 2, 3))
    assert one == again
    assert one != other
