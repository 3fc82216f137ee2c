"""How much disk the encoder's output may take, and in which dtype it is kept there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid_common.base.t5_config import T5Config
from edge_client.jobs.sizes import HEADER_BYTES
from edge_client.plan.cache_budget import CacheBudget, cache_dtype
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import RunInfo, Scope

CONFIG = {**SMALL_T5, "d_model": 96}
BASE = T5Config.parse(CONFIG)
EXAMPLE_BYTES = HEADER_BYTES + 40 * 96 * 2
"""Of one text in bf16."""


def make_run(scope: Scope = "decoder") -> RunInfo:
    """A round looks at 60 examples of 40 tokens."""
    return run_of(CONFIG, {"scope": scope, "batch": 12, "micro_batch": 4, "local_steps": 5, "max_source_tokens": 40})


@pytest.mark.parametrize(
    ("limit_bytes", "n_examples", "dtype"),
    [
        (60 * EXAMPLE_BYTES, 1000, "bf16"),
        (60 * EXAMPLE_BYTES - 1, 1000, "int8"),
        (60 * EXAMPLE_BYTES - 1, None, "int8"),
        (60 * EXAMPLE_BYTES // 2, 1000, "none"),
        (60 * EXAMPLE_BYTES // 2, 30, "bf16"),
        (0, 1, "none"),
    ],
)
def test_a_rounds_examples_decide_the_dtype(limit_bytes: int, n_examples: int | None, dtype: str) -> None:
    """bf16 if they fit, int8 with its scales if not, nothing where even that is too much or nothing was given."""
    assert cache_dtype(make_run(), BASE, CacheBudget(limit_bytes, n_examples)) == dtype


def test_held_out_examples_need_room_too() -> None:
    """They are evaluated in every round, so they are never evicted for training examples."""
    room = CacheBudget(60 * EXAMPLE_BYTES, n_train=50, n_evaluated=10)

    assert cache_dtype(make_run(), BASE, room) == "bf16"
    assert cache_dtype(make_run(), BASE, replace(room, n_evaluated=11)) == "int8"


def test_an_encoder_that_is_trained_is_never_cached() -> None:
    """Its output changes with every step."""
    assert cache_dtype(make_run("all"), BASE, CacheBudget(1 << 40, 10)) == "none"


@given(st.integers(0, 1 << 24), st.integers(0, 1 << 24), st.integers(1, 100))
def test_more_room_never_means_fewer_bits(one: int, other: int, n_examples: int) -> None:
    """The dtypes are ordered as the limits are."""
    bits = {"none": 0, "int8": 8, "bf16": 16}
    small, large = (cache_dtype(make_run(), BASE, CacheBudget(n, n_examples)) for n in sorted((one, other)))

    assert bits[small] <= bits[large]
