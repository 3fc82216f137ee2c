"""Inner products of what the boards of a round changed, in the space of W itself: small matrices, no ΔW is formed.

    ⟨ΔW_i, ΔW_j⟩ = tr((B_iᵀB_j)(A_jA_iᵀ)),   Gram matrix G_ij = Σ over weights,   ‖ΔW_i − ΔW_j‖² = G_ii − 2·G_ij + G_jj

A board counts as zero on a weight, or a strand, that it did not train, as it does in a round's mean. If only what two
boards share were compared, a board could hide by training what nobody else does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aggregator.merge.state import F64
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Space


def gram(boards: Sequence[Contribution], space: Space) -> F64:
    """The Gram matrix of K boards' changes of the model, summed over all weights.

    Cost per weight O((m + n)·S²) for S = Σ r_k, memory O((m + n)·S + S·max r). Where all boards trained on the newest
    shared basis, their B alone tell: O(m·R·K²).

    Args:
        boards: K contributions.
        space: the merge rule's.

    Returns:
        (K, K) float64, symmetric.
    """
    total = np.zeros((len(boards), len(boards)))
    between = _on_one_basis if on_newest_basis(boards, space) else _of_products
    for name in trained(boards):
        places = [i for i, board in enumerate(boards) if name in board.strands]
        # A board that did not train the weight is zero there: its row and column get nothing.
        total[np.ix_(places, places)] += between([changed(boards[i], name) for i in places])
    symmetric: F64 = (total + total.T) / 2  # rounding makes the halves differ in the last bits
    return symmetric


def changed(board: Contribution, name: str) -> tuple[F64, F64]:
    """ΔW of a weight that the board trained, as factors: what it left minus what it began with.

    Args:
        board: the board's contribution.
        name: a weight that it trained; KeyError for any other.

    Returns:
        b (m, k) and a (k, n) in float64. k is the board's rank where it began at B = 0 or trained B alone, and twice
        that otherwise: ΔW = b·a − b₀·a₀ = [b − b₀ | b₀]·[a over a − a₀].
    """
    left, start = board.strands[name], board.start.get(name)
    if start is None:
        return left.b.astype(np.float64), left.a.astype(np.float64)
    if board.trains == "b" and np.array_equal(left.a, start.a):
        return left.b.astype(np.float64) - start.b, left.a.astype(np.float64)
    r = len(left.a)
    b, a = np.empty((len(left.b), 2 * r)), np.empty((2 * r, left.a.shape[1]))
    b[:, :r], b[:, r:] = left.b - start.b, start.b  # written once, as float64: this is done for every upload
    a[:r], a[r:] = left.a, left.a - start.a
    return b, a


def inner(one: tuple[F64, F64], other: tuple[F64, F64]) -> float:
    """⟨b₁·a₁, b₂·a₂⟩ = ⟨b₁ᵀb₂, a₁a₂ᵀ⟩ of two products of one shape."""
    return float(np.vdot(one[0].T @ other[0], one[1] @ other[1].T))


def squared_norm(product: tuple[F64, F64]) -> float:
    """‖b·a‖²_F; rounding may not make it negative."""
    return max(0.0, inner(product, product))


def trained(boards: Sequence[Contribution]) -> list[str]:
    """The weights that any board trained, in a fixed order."""
    return sorted({name for board in boards for name in board.strands})


def on_newest_basis(boards: Sequence[Contribution], space: Space) -> bool:
    """Whether the rows that each board trained on are the first ones of one and the same basis."""
    return space == "basis" and not any(board.staleness for board in boards)


def squared_distances(inner: F64) -> F64:
    """(K, K) ‖ΔW_i − ΔW_j‖² of a Gram matrix; rounding may not make them negative."""
    own = np.diag(inner)
    result: F64 = np.maximum(own[:, None] - 2 * inner + own, 0.0)
    np.fill_diagonal(result, 0.0)
    return result


def _of_products(changes: Sequence[tuple[F64, F64]]) -> F64:
    """One weight's Gram matrix; row by row, so that no S × S matrix is held."""
    all_b = np.concatenate([b for b, _ in changes], axis=1)  # (m, S)
    all_a = np.concatenate([a for _, a in changes])  # (S, n)
    starts = np.cumsum([0, *(len(a) for _, a in changes[:-1])])
    # tr((B_iᵀB_j)(A_jA_iᵀ)) is the sum over the (r_i, r_j) block of the entrywise product of B_iᵀB_j and A_iA_jᵀ:
    # summed down the columns for all j at once, then over the columns of each j.
    rows = [np.add.reduceat(((b.T @ all_b) * (a @ all_a.T)).sum(axis=0), starts) for b, a in changes]
    return np.stack(rows)


def _on_one_basis(changes: Sequence[tuple[F64, F64]]) -> F64:
    """One weight's Gram matrix where every a is the leading rows of the longest: its QR turns each B into coordinates,
    whose inner products are those of the changes."""
    longest = max((a for _, a in changes), key=len)
    # a = L·qᵀ with orthonormal columns q, so that ⟨b₁·a₁, b₂·a₂⟩ = ⟨b₁·L₁, b₂·L₂⟩: only the small L is needed.
    triangle: F64 = np.linalg.qr(longest.T)[1].T  # L (R, R), the identity to rounding and signs
    flat = np.zeros((len(changes), len(changes[0][0]), len(triangle)))
    for i, (b, a) in enumerate(changes):
        flat[i] = b @ triangle[: len(a)]
    points = flat.reshape(len(changes), -1)
    result: F64 = points @ points.T
    return result
