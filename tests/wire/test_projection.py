"""Ω and the seeds: equal for equal names, independent for different ones, and a sketch keeps lengths on average."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from braid_common.seeds import derive_seed
from wire.projection import projection

seeds = st.integers(0, 2**53)


@given(seeds, st.text(max_size=8), st.integers(1, 20), st.integers(1, 60))
def test_entries_are_signs_of_the_right_size(seed: int, name: str, sketch_rank: int, rows: int) -> None:
    """Every entry is ±1/√R in float32, the same again for the same arguments, and the result has shape (R, m)."""
    omega = projection(seed, name, sketch_rank, rows)

    assert (omega.shape, omega.dtype) == ((sketch_rank, rows), np.dtype(np.float32))
    assert set(np.abs(omega).ravel()) == {np.float32(1) / np.sqrt(np.float32(sketch_rank))}
    assert np.array_equal(omega, projection(seed, name, sketch_rank, rows))


def test_sketch_keeps_the_norm_on_average() -> None:
    """E‖Ω·G‖² = ‖G‖² (Achlioptas 2003): over 400 seeds the mean is within 4 standard errors, and signs are balanced."""
    gradient = np.random.default_rng(0).standard_normal((37, 11))
    omegas = [projection(seed, "w", 6, 37).astype(np.float64) for seed in range(400)]

    ratios = [np.sum((omega @ gradient) ** 2) / np.sum(gradient**2) for omega in omegas]
    standard_error = np.std(ratios) / np.sqrt(len(ratios))

    assert abs(np.mean(ratios) - 1) < 4 * standard_error < 0.1
    assert abs(np.mean(np.sign(omegas))) < 4 / np.sqrt(400 * 6 * 37)


def test_names_and_seeds_give_independent_signs() -> None:
    """Another weight, seed or size gives another matrix: correlation of two of them is near zero."""
    base = projection(1, "q", 64, 64)

    for other in (projection(2, "q", 64, 64), projection(1, "k", 64, 64), projection(1, "q", 64, 65)[:, :64]):
        assert abs(np.mean(np.sign(base) * np.sign(other))) < 5 / 64


@given(seeds, st.lists(st.one_of(st.integers(-9, 9), st.sampled_from(["order", "sketch", "d-1"])), max_size=4))
def test_seeds_fit_every_language(run_seed: int, parts: list[int | str]) -> None:
    """A derived seed is the same again, and a whole number that a double holds exactly."""
    seed = derive_seed(run_seed, *parts)

    assert seed == derive_seed(run_seed, *parts)
    assert 0 <= seed < 2**53


def test_seeds_differ_for_what_they_are_for() -> None:
    """Rounds, devices and purposes do not share a seed, and parts do not run together."""
    parts = [
        (),
        (1,),
        (2,),
        (1, 2),
        (12,),
        ("a", 12),
        ("a1", 2),
        ("order", 1, "d"),
        ("order", 1, "e"),
        ("sketch", 1, "d"),
    ]

    assert len({derive_seed(7, *one) for one in parts} | {derive_seed(8)}) == len(parts) + 1
