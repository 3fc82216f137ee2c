"""Rounds in which nobody learns anything: who leaves the model alone, and who forgets.

The fleet of RESEARCH's example: eight boards of rank 4, one of rank 8, one of rank 16, all of equal weight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from aggregator.merge.bases import random_basis
from aggregator.merge.low_rank.approximation import truncate
from aggregator.merge.rules import RULES, Rule
from aggregator.merge.state import AdapterState, initial_state
from aggregator.merge.step import MergeSettings
from tests.reference.board import Board
from tests.reference.rounds import closed, product
from wire.fields import Dtype
from wire.run import Weight

M, N, RANK, ROUNDS = 48, 64, 16, 5
MIX = [4] * 8 + [8, 16]
SETTINGS = MergeSettings(server_rank=RANK, max_rank=RANK)

Holds = Literal["bits", "rounding", "lost"]
HOLDS: dict[str, Holds] = {
    "braid": "bits",
    "fresh": "bits",
    "delta": "bits",
    "weave": "bits",
    "flexlora": "lost",
    "flora": "bits",
    "hetlora": "lost",
    "fedavg": "rounding",  # its boards have equal ranks
    "rank-partitioned": "rounding",
    "fed-plora": "rounding",
    "ffa": "bits",
    "fedsvd": "bits",
    "rolora": "rounding",
}
"""The same bits, the same to the rounding of the download, or not the same."""


def learned() -> AdapterState:
    """One weight with an adapter of rank 16, each singular value 15 % smaller than the one before."""
    state = random_basis(initial_state([Weight(name="w", rows=M, columns=N)]), max_rank=RANK, seed=1)
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((side, RANK)))[0] for side in (M, N))
    b, a = truncate(u * 0.85 ** np.arange(RANK), v.T, RANK)
    return replace(state, weights={"w": replace(state.weights["w"], frozen_b=b, frozen_a=a)})


def after(rule: Rule[Any], state: AdapterState, dtype: Dtype) -> AdapterState:
    """Five rounds of boards that send back what they were sent, and sketches with it."""
    mix = [RANK] * len(MIX) if rule.TRAITS.needs_equal_ranks else MIX
    for round_id in range(ROUNDS):
        boards = [
            Board((rank,), seed=100 * round_id + i, size=0.0, sketches=True, download=dtype, upload=dtype)
            for i, rank in enumerate(mix)
        ]
        state, _ = closed(rule, state, boards, SETTINGS)
    return state


def kept(before: AdapterState, after: AdapterState) -> tuple[float, float]:
    """What part of the squared singular values is left, of all and of those beyond the smallest boards' rank."""
    one, other = (np.linalg.svd(product(state, "w"), compute_uv=False) ** 2 for state in (before, after))
    return float(other.sum() / one.sum()), float(other[min(MIX) :].sum() / one[min(MIX) :].sum())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", RULES)
def test_who_keeps_the_model_when_nobody_trains(name: str, dtype: Dtype) -> None:
    """The table says so of every rule, and this test says so of the table."""
    before = learned()

    left = after(RULES[name], before, dtype)

    one, other = before.weights["w"], left.weights["w"]
    same_bits = [one.frozen_b.tobytes(), one.frozen_a.tobytes()] == [
        other.frozen_b.tobytes(),
        other.frozen_a.tobytes(),
    ]
    off = float(np.linalg.norm(product(left, "w") - product(before, "w")) / np.linalg.norm(product(before, "w")))
    energy, beyond = kept(before, left)
    print(f"{name:16} {dtype}: energy kept {energy:.3f}, beyond rank 4 {beyond:.1e}, off by {off:.1e}")
    if HOLDS[name] == "bits":
        assert same_bits
    elif HOLDS[name] == "rounding":
        assert off < {"fp32": 1e-5, "bf16": 1e-2}[dtype]
    else:
        assert beyond < 0.01


def test_the_table_names_every_rule() -> None:
    """A new rule says what it does."""
    assert set(HOLDS) == set(RULES)
