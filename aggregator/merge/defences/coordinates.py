"""The round as one board, each of whose numbers is a robust mean over the boards: what trimmed mean and median share.

Coordinates must mean the same for every board. Where all trained on one shared basis they are the entries of B. Else
they are those of ΔW·Vᵀ, V the orthonormal principal directions of all boards' changes, in which each board counts
alike: so that A and B are never compared across different bases.

A strand that a board did not train is absent: the mean is over the boards that trained it, and counts by how many these
are, as a plain mean would have it. Else whatever fewer than half of the boards can hold would be voted down to zero. In
the space of products a board is absent from whole weights only, and what most boards have nothing of is voted down.

An attacker may claim any strand. One that at most 2·f boards trained, f being how many may be bad, is not believed and
does not move: the bad boards could be half of them. Boards count alike, however many examples they claim, and however
stale they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aggregator.merge.defences.defence import Filtered, assumed_bad
from aggregator.merge.gram import changed, on_newest_basis, squared_norm, trained
from aggregator.merge.low_rank.approximation import significant
from aggregator.merge.state import F32, F64, Factors
from aggregator.merge.sums import Contribution, Gathered, gather
from aggregator.merge.traits import Traits

COLUMNS = 64
"""Principal directions handled at once: what is held of K boards is K·m·64 numbers, whatever their ranks."""


def fits(traits: Traits) -> bool:
    """Whether a merge rule can take such a mean: it must be told changes, and not look at A and B one by one."""
    return traits.is_change and traits.space != "factors"


@dataclass(frozen=True, slots=True)
class Voting:
    """`centre`: the robust mean of (K, …) along the boards, of which at most `n_bad` are bad. `n_all`: boards of the
    round; the mean over some of them counts by their share in it."""

    centre: Callable[[F64, int], F64]
    n_bad: int
    n_all: int

    def mean(self, stacked: F64) -> F64 | None:
        """The mean of (K, …) along the boards; None where they are too few to be believed."""
        if len(stacked) <= 2 * self.n_bad:
            return None
        return self.centre(stacked, self.n_bad) * (len(stacked) / self.n_all)


def one_board(
    boards: Sequence[Contribution], traits: Traits, attackers: float, centre: Callable[[F64, int], F64]
) -> Filtered:
    """The robust mean of what the boards changed, as the update of a board that began at zero and has the weight, and
    the mean sketches, of all."""
    voting = Voting(centre, assumed_bad(len(boards), attackers), len(boards))
    on_basis = on_newest_basis(boards, traits.space)
    strands = {}
    for name in trained(boards):
        changes = [changed(board, name) for board in boards if name in board.strands]
        mean = _on_basis(changes, voting) if on_basis else _of_products(changes, voting)
        if mean is not None:
            strands[name] = mean
    sums = Gathered()
    for board in boards:
        sums = Gathered(**gather(sums, board))
    whole = Contribution(
        weight=sums.weight,
        strands=strands,
        sketches={name: (sketch / sums.weight).astype(np.float32) for name, sketch in sums.sketches.items()},
        shares={name: share / sums.weight for name, share in sums.shares.items()},
        trains=boards[0].trains,
        staleness=0 if on_basis else max(board.staleness for board in boards),
    )
    return Filtered((whole,), (1.0,) * len(boards))


def _on_basis(changes: Sequence[tuple[F64, F64]], voting: Voting) -> Factors | None:
    """B (m, r) on the leading rows that enough boards trained, and those rows; strand by strand for unequal ranks."""
    blocks, low = [], 0
    for high in sorted({b.shape[1] for b, _ in changes}):
        block = voting.mean(np.stack([b[:, low:high] for b, _ in changes if b.shape[1] >= high]))
        if block is None:  # of the further ones there are fewer still
            break
        blocks.append(block)
        low = high
    rows = max((a for _, a in changes), key=len)[:low]
    return Factors(_single(np.concatenate(blocks, axis=1)), _single(rows)) if blocks else None


def _of_products(changes: Sequence[tuple[F64, F64]], voting: Voting) -> Factors | None:
    """The mean in the coordinates of ΔW·Vᵀ: (m, q), and V (q, n). None where nothing was changed, or by too few."""
    rows = _principal(changes)
    blocks = []
    for low in range(0, len(rows), COLUMNS):
        directions = rows[low : low + COLUMNS].T
        blocks.append(voting.mean(np.stack([b @ (a @ directions) for b, a in changes])))
    held = [block for block in blocks if block is not None]
    return Factors(_single(np.concatenate(held, axis=1)), _single(rows)) if held else None


def _principal(changes: Sequence[tuple[F64, F64]]) -> F64:
    """(q, n) right singular vectors of the changes below one another, each scaled to norm 1: they do not depend on the
    order of boards, nor does a huge board choose them alone."""
    scaled = []
    for b, a in changes:
        if norm := math.sqrt(squared_norm((b, a))):
            scaled.append(np.linalg.qr(b, mode="r") @ a / norm)
    if not scaled:
        return np.zeros((0, changes[0][1].shape[1]))
    # b·a = q·(r·a) with orthonormal columns of q: r·a has its right singular vectors and values, in k rows.
    _, s, vt = np.linalg.svd(np.concatenate(scaled), full_matrices=False)
    rows: F64 = vt[: significant(s)]
    return rows


def _single(array: F64) -> F32:
    return array.astype(np.float32)
