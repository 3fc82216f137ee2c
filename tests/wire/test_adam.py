"""How far a round's training can move a value."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_client.engines.lean.model.adam import Adam
from wire.adam import farthest

RATE = 0.01


def _moved(grads: list[float], n_others: int = 0) -> float:
    """How far the first of some values is after these gradients, as the board's own optimiser takes them."""
    value = torch.zeros(1 + n_others, requires_grad=True)
    adam = Adam({"w": value}, RATE)
    for grad in grads:
        value.grad = torch.full_like(value, grad)
        adam.step(1.0)
    return abs(float(value[0].detach()))


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.integers(0, 3),
)
def test_no_gradients_move_a_value_farther(grads: list[float], n_others: int) -> None:
    """Whatever they are, clipped or not."""
    assert _moved(grads, n_others) <= farthest(RATE, len(grads)) * (1 + 1e-5)


@pytest.mark.parametrize("steps", [1, 5, 20, 200])
def test_the_bound_is_nearly_reached(steps: int) -> None:
    """Or it would keep nobody from anything: gradients that grow as the squares are forgotten go far."""
    furthest = max(_moved([growth**step * 1e-3 for step in range(steps)]) for growth in (1.0, 1.05, 1.1))

    assert furthest >= 0.45 * farthest(RATE, steps)
