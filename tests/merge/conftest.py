"""A small manifest of non-square weights, and updates for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from aggregator.merge.braid import random_basis
from aggregator.merge.state import AdapterState, initial_state
from wire.manifest import manifest_digest
from wire.messages import Update, UpdatePart, Weight
from wire.tensors import pack

MAX_RANK = 12
UpdateMaker = Callable[..., Update]


@pytest.fixture
def weights() -> tuple[Weight, ...]:
    """Wide, tall, and one that is narrower than the largest rank."""
    shapes = {"decoder.q": (48, 64), "decoder.wi": (80, 64), "decoder.o": (64, 8)}
    return tuple(Weight(name=name, rows=m, columns=n) for name, (m, n) in shapes.items())


@pytest.fixture
def state(weights: tuple[Weight, ...]) -> AdapterState:
    """Version 1 with a random basis."""
    return random_basis(initial_state(weights), max_rank=MAX_RANK, seed=5)


@pytest.fixture
def make_update(weights: tuple[Weight, ...]) -> UpdateMaker:
    """Builds an update from arrays: b (m, r) and sketches (R, n) by name; fp32, so that nothing is rounded."""

    def make(n_examples: int, b: Mapping[str, np.ndarray], sketches: Mapping[str, np.ndarray] | None = None) -> Update:
        sketches = sketches or {}
        parts = tuple(
            UpdatePart(
                name=w.name,
                b=pack(b.get(w.name, np.zeros((w.rows, 0))), "fp32"),
                sketch=pack(sketches[w.name], "fp32") if w.name in sketches else None,
            )
            for w in weights
            if w.name in b or w.name in sketches
        )
        return Update(
            protocol=1,
            run_id="run",
            round=1,
            version=1,
            manifest=manifest_digest(weights),
            n_examples=n_examples,
            parts=parts,
        )

    return make
