"""Truncation and completion from factors, against dense SVDs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.lowrank import completed, truncate, truncate_dense
from tests.reference.braid import best_approximation

M, N = 48, 80


@st.composite
def factors(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Factors of odd kinds: more rows than the matrix has, repeated, zero and wildly scaled directions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    m, n, k = draw(st.integers(1, 20)), draw(st.integers(1, 20)), draw(st.integers(0, 30))
    b, a = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    if k:
        a[rng.integers(0, k, draw(st.integers(0, k)))] = a[0]
        b[:, rng.integers(0, k, draw(st.integers(0, k)))] = 0
        b *= 10.0 ** rng.uniform(-3, 3, k)
    return b.astype(np.float32), a.astype(np.float32), draw(st.integers(0, 25))


@given(factors())
@settings(max_examples=150, deadline=None)
def test_truncate_is_the_best_approximation(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    """The error equals the tail singular values of the dense product, to float32 rounding; a's rows are orthonormal."""
    b, a, rank = case
    w = b.astype(np.float64) @ a.astype(np.float64)

    new_b, new_a = truncate(b, a, rank)

    tail = np.linalg.svd(w, compute_uv=False)[rank:]
    error = np.linalg.norm(w - new_b.astype(np.float64) @ new_a)
    scale = np.linalg.norm(w)
    assert new_b.dtype == new_a.dtype == np.float32
    assert new_b.shape[1] == new_a.shape[0] <= rank
    assert error <= np.linalg.norm(tail) + 1e-6 * scale
    np.testing.assert_allclose(new_a @ new_a.T, np.eye(len(new_a)), atol=1e-5)


@pytest.mark.parametrize(("m", "n"), [(M, N), (N, M)])
def test_truncate_equals_the_dense_svd(m: int, n: int) -> None:
    """Tall and wide: the same matrix as the dense truncation, whose ranks nest."""
    rng = np.random.default_rng(1)
    b, a = rng.standard_normal((m, 40)), rng.standard_normal((40, n))

    new_b, new_a = truncate(b, a, 12)

    np.testing.assert_allclose(new_b @ new_a, best_approximation(b @ a, 12), atol=1e-4)
    np.testing.assert_allclose(new_b[:, :5] @ new_a[:5], best_approximation(b @ a, 5), atol=1e-4)


@given(
    st.sampled_from([(60, 90), (90, 60), (60, 60)]),
    st.sampled_from([30, 75, 100]),
    st.sampled_from([0, -4, -6, -8, -12]),
    st.sampled_from([1, 5, 20, 60, 100]),
    st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_no_spectrum_costs_more_than_rounding(
    shape: tuple[int, int], k: int, decades: int, rank: int, seed: int
) -> None:
    """Singular values over up to twelve decades, from factors that hide them: the tail's error and 2e-7 of the whole,
    rows orthonormal and columns as long as the singular values."""
    rng = np.random.default_rng(seed)
    m, n = shape
    s = np.logspace(0, decades, min(m, n, k))
    u, v = (np.linalg.qr(rng.standard_normal((side, len(s))))[0] for side in (m, n))
    mix = rng.standard_normal((len(s), k))
    w, b, a = (u * s) @ v.T, (u * s) @ mix, np.linalg.pinv(mix) @ v.T

    for new_b, new_a in (truncate(b, a, rank), truncate_dense(w, rank)):
        new_b, new_a = new_b.astype(np.float64), new_a.astype(np.float64)
        error = np.linalg.norm(w - new_b @ new_a)
        assert error <= np.linalg.norm(s[rank:]) + 2e-7 * np.linalg.norm(s)
        np.testing.assert_allclose(new_a @ new_a.T, np.eye(len(new_a)), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(new_b, axis=0), s[: len(new_a)], atol=2e-7)


@pytest.mark.parametrize("value", [np.nan, 1e200])
@pytest.mark.parametrize("k", [2, 30])
def test_what_has_no_finite_squares_is_refused(value: float, k: int) -> None:
    """NaN, and overflow, raise LinAlgError instead of leaving directions out."""
    b, a = np.ones((8, k)), np.ones((k, 9))
    b[3, 1] = value

    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(np.linalg.LinAlgError, match="NaN"):
        truncate(b, a, 4)


def test_truncate_drops_directions_that_are_zero() -> None:
    """A product of rank 3, written with 12 directions of which some repeat, comes back with 3."""
    rng = np.random.default_rng(2)
    b, a = rng.standard_normal((M, 3)), rng.standard_normal((3, N))

    new_b, new_a = truncate(np.tile(b, 4), np.tile(a, (4, 1)), 8)
    zero_b, zero_a = truncate(np.zeros((M, 2)), rng.standard_normal((2, N)), 8)

    assert new_a.shape == (3, N)
    np.testing.assert_allclose(new_b @ new_a, 4 * b @ a, atol=1e-4)
    assert (zero_b.shape, zero_a.shape) == ((M, 0), (0, N))


def test_truncate_is_deterministic_in_sign() -> None:
    """The same product from factors of opposite sign and other order gives the same factors."""
    rng = np.random.default_rng(3)
    b, a = rng.standard_normal((M, 6)), rng.standard_normal((6, N))

    first = truncate(b, a, 4)
    second = truncate(-b[:, ::-1], -a[::-1], 4)

    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(12, 30), st.integers(0, 2**53))
@settings(max_examples=60, deadline=None)
def test_completed_rows_are_orthonormal(given_rows: int, count: int, n: int, seed: int) -> None:
    """Given rows stay first and unchanged, the rest is orthonormal to them; the same seed gives the same rows."""
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(rng.standard_normal((n, given_rows)))[0].T

    result = completed(rows, count, seed)

    assert result.shape == (count, n)
    np.testing.assert_array_equal(result[:given_rows], rows[:count])
    np.testing.assert_allclose(result @ result.T, np.eye(count), atol=1e-12)
    np.testing.assert_array_equal(result, completed(rows, count, seed))
