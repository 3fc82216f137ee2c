"""Truncation and completion from factors, against dense SVDs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.low_rank import approximation, lanczos
from aggregator.merge.low_rank.approximation import completed, truncate, truncate_dense, truncate_sum
from aggregator.merge.low_rank.matrix_sum import Dense, Product, multiplied
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


@pytest.mark.slow
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
    or of the factors' product if nothing in it cancelled; rows orthonormal, columns as long as singular values."""
    rng = np.random.default_rng(seed)
    m, n = shape
    s = np.logspace(0, decades, min(m, n, k))
    u, v = (np.linalg.qr(rng.standard_normal((side, len(s))))[0] for side in (m, n))
    mix = rng.standard_normal((len(s), k))
    w, b, a = (u * s) @ v.T, (u * s) @ mix, np.linalg.pinv(mix) @ v.T

    whole = np.linalg.norm(np.abs(b) @ np.abs(a))
    for (new_b, new_a), size in ((truncate(b, a, rank), whole), (truncate_dense(w, rank), np.linalg.norm(s))):
        new_b, new_a = new_b.astype(np.float64), new_a.astype(np.float64)
        error = np.linalg.norm(w - new_b @ new_a)
        assert error <= np.linalg.norm(s[rank:]) + 2e-7 * size
        np.testing.assert_allclose(new_a @ new_a.T, np.eye(len(new_a)), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(new_b, axis=0), s[: len(new_a)], atol=2e-7 * size)


SIDE = 160
SPECTRA = {
    "flat": np.ones(SIDE),
    "slow decay": 0.99 ** np.arange(SIDE),
    "fast decay": 0.5 ** np.arange(SIDE),
    "a gap": np.where(np.arange(SIDE) < 8, 1.0, 1e-3),
    "equal across the cut": np.where(np.arange(SIDE) < 20, 1.0, 0.9),
    "clusters": np.repeat(0.7 ** np.arange(16), 10),
    "nearly equal": 1 + 1e-9 * np.arange(SIDE)[::-1],
    "deficient": np.where(np.arange(SIDE) < 5, 1.0, 0.0),
    "twelve decades": np.logspace(0, -12, SIDE),
    "one huge": np.where(np.arange(SIDE) < 1, 1e12, 0.99 ** np.arange(SIDE)),
    "zero": np.zeros(SIDE),
}


def with_spectrum(s: np.ndarray, m: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix (m, n) of these singular values as factors that hide them, times a random orthogonal matrix."""
    rng = np.random.default_rng(seed)
    u, v, mix = (np.linalg.qr(rng.standard_normal((side, len(s))))[0] for side in (m, n, len(s)))
    return (u * s) @ mix, mix.T @ v.T


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize(("m", "n"), [(190, 170), (170, 190), (160, 300)])
def test_a_large_matrix_is_cut_as_well_as_by_a_full_svd(name: str, m: int, n: int) -> None:
    """Whatever the spectrum, and whether it is searched for its leading directions or decomposed: a millionth more than
    the least error, and what float32 does not resolve; from factors, and from the matrix."""
    s = SPECTRA[name]
    b, a = with_spectrum(s, m, n, seed=4)

    for new_b, new_a in (truncate(b, a, 8), truncate_dense(b @ a, 8)):
        new_b, new_a = new_b.astype(np.float64), new_a.astype(np.float64)
        error = np.linalg.norm(b @ a - new_b @ new_a)
        assert error <= (1 + 1e-6) * np.linalg.norm(s[8:]) + 2.0**-21 * np.linalg.norm(s)
        np.testing.assert_allclose(new_a @ new_a.T, np.eye(len(new_a)), atol=1e-6)
        norms = np.linalg.norm(new_b, axis=0)
        assert (np.diff(norms) <= 1e-6 * s[0]).all()
        np.testing.assert_allclose(norms, s[: len(norms)], rtol=0, atol=2e-6 * s[0])


@pytest.mark.parametrize("name", ["a gap", "fast decay", "deficient"])
def test_a_search_finds_what_stands_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spectra of a sum that boards agree on, or that decays, need no full decomposition."""
    b, a = with_spectrum(SPECTRA[name], 190, 170, seed=4)
    monkeypatch.setattr(approximation, "_decomposed", None)

    truncate(b, a, 8)
    truncate_dense(b @ a, 8)


def test_a_search_gives_up_where_nothing_stands_out() -> None:
    """Noise as far as the eye can see: it says so instead of giving the best it has."""
    rng = np.random.default_rng(5)
    w = rng.standard_normal((200, 160))
    start = rng.standard_normal((160, 12))

    assert lanczos.leading(lambda x: w @ x, lambda y: w.T @ y, start, 8, depths=4) is None


def test_what_the_random_start_misses_is_found() -> None:
    """Someone who knows the drawn numbers sends a direction that is orthogonal to them, and to all others: it is the
    largest, and is kept."""
    drawn = np.linalg.qr(np.random.default_rng(approximation._SEED).standard_normal((170, 16)))[0]
    u, v = np.random.default_rng(6).standard_normal(170), np.eye(190)[3]
    u -= drawn @ (drawn.T @ u)
    u /= np.linalg.norm(u)
    b, a = with_spectrum(SPECTRA["flat"], 170, 190, seed=7)
    b, a = b - np.outer(u, u @ b), a - np.outer(a @ v, v)

    new_b, _ = truncate(np.column_stack([b, 2 * u]), np.vstack([a, v]), 8)

    np.testing.assert_allclose(np.linalg.norm(new_b[:, 0]), 2, rtol=1e-6)


@pytest.mark.parametrize("name", ["slow decay", "fast decay", "twelve decades"])
def test_a_search_has_the_same_bits_again_and_moves_little(name: str) -> None:
    """A restart cuts the same sum the same way; a sum that differs by rounding, so that boards may come in any order,
    differs by rounding after it."""
    b, a = with_spectrum(SPECTRA[name], 190, 170, seed=8)
    order = np.random.default_rng(9).permutation(len(a))

    first_b, first_a = truncate(b, a, 8)
    again_b, again_a = truncate(b.copy(), a.copy(), 8)
    other_b, other_a = truncate(b[:, order], a[order], 8)

    assert (first_b.tobytes(), first_a.tobytes()) == (again_b.tobytes(), again_a.tobytes())
    np.testing.assert_allclose(other_b @ other_a, first_b @ first_a, rtol=0, atol=1e-6)


def test_a_sum_of_matrices_and_products_is_cut_as_one() -> None:
    """Tall and wide, large enough for a search and not, in any order: as the matrix of them all."""
    rng = np.random.default_rng(10)
    for m, n in ((30, 20), (20, 30), (190, 170)):
        terms = (
            Product(0.5, rng.standard_normal((m, 3)), rng.standard_normal((3, n))),
            Dense(1e-2, rng.standard_normal((m, n))),
            Dense(2e-2, rng.standard_normal((m, n))),
            Product(3.0, rng.standard_normal((m, 4)), rng.standard_normal((4, n)), rng.standard_normal((m, 6))),
        )
        whole = multiplied(terms, np.float64)
        for order in (terms, terms[::-1]):
            new_b, new_a = truncate_sum(order, 7)
            np.testing.assert_allclose(new_b @ new_a, best_approximation(whole, 7), atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, 1e200])
@pytest.mark.parametrize("k", [2, 30, 80])
def test_what_has_no_finite_squares_is_refused(value: float, k: int) -> None:
    """NaN, and overflow, raise LinAlgError instead of leaving directions out."""
    b, a = np.ones((90, k)), np.ones((k, 85))
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
