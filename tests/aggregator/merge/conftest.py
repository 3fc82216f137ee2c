"""A small manifest of non-square weights, a state to begin with, and every rule in turn."""

from __future__ import annotations

import pytest

from aggregator.merge.bases import random_basis
from aggregator.merge.state import AdapterState, initial_state
from wire.run import Weight

MAX_RANK = 12


@pytest.fixture
def weights() -> tuple[Weight, ...]:
    """Wide, tall, and one that is narrower than the largest rank."""
    shapes = {"decoder.q": (48, 64), "decoder.wi": (80, 64), "decoder.o": (64, 8)}
    return tuple(Weight(name=name, rows=m, columns=n) for name, (m, n) in shapes.items())


@pytest.fixture
def state(weights: tuple[Weight, ...]) -> AdapterState:
    """Version 1 with a random basis."""
    return random_basis(initial_state(weights), max_rank=MAX_RANK, seed=5)
