"""Norm clipping: no board may change the model by more than the board in the middle of the cohort does.

    ΔW_k ← ΔW_k · min(1, C·√s_k / ‖ΔW_k‖_F)      C = median of ‖ΔW_k‖_F / √s_k,   s_k = strands that board k trained

Source: Sun et al., "Can You Really Backdoor Federated Learning?" (arXiv 1911.07963), whose C is a constant. Norms are
of the whole change in the space of W, over all weights. They are compared per √strand, else boards with much memory
would be cut down for what they are there for; a board can gain at most √(most strands / typical strands) by claiming
many. A board that changed nothing has no say in C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from aggregator.merge.defences.defence import Filtered, any_rule
from aggregator.merge.gram import changed, inner, squared_norm
from aggregator.merge.state import F64, Factors
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits

SUMMARY = "no board changes the model by more than the middle one of its cohort (Sun et al. 2019)"
MIN_BOARDS = 3
fits = any_rule

_HALVINGS = 50
"""Halvings of the interval in which the scale of a board is sought: 2⁻⁵⁰ is near a double's own resolution."""


def filtered(boards: Sequence[Contribution], traits: Traits, attackers: float) -> Filtered:
    """Every board, the larger ones drawn towards what they began with."""
    norms = [math.sqrt(sum(squared_norm(changed(board, name)) for name in board.strands)) for board in boards]
    roots = [math.sqrt(sum(len(strand.a) for strand in board.strands.values())) for board in boards]
    moved = [norm / root for norm, root in zip(norms, roots, strict=True) if norm > 0]
    limits = [root * median(moved) if moved else 0.0 for root in roots]
    scales = [
        _scale(board, limit) if norm > limit else 1.0 for board, norm, limit in zip(boards, norms, limits, strict=True)
    ]
    scaled = (_towards_start(board, scale) for board, scale in zip(boards, scales, strict=True))
    return Filtered(tuple(scaled), tuple(scales))


def _scale(board: Contribution, limit: float) -> float:
    """How far a board may go from its start, 0 to 1, for its change to be no larger than `limit`.

    With both factors on their way, ΔW(t) = t·X + t²·Y, X = dB·A₀ + B₀·dA, Y = dB·dA; else Y = 0.
    """
    # ‖ΔW(t)‖² = ‖X‖²·t² + 2⟨X, Y⟩·t³ + ‖Y‖²·t⁴. `low` keeps the limit throughout, even where this does not rise.
    squares = np.sum([_coefficients(board, name) for name in board.strands], axis=0)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        low, high = (t, high) if float(squares @ (t**2, t**3, t**4)) <= limit**2 else (low, t)
    return low


def _coefficients(board: Contribution, name: str) -> F64:
    """‖X‖², 2⟨X, Y⟩ and ‖Y‖² of one weight: those of t², t³ and t⁴ in ‖ΔW(t)‖²."""
    now, start = board.strands[name], board.start.get(name)
    if start is None:
        return np.array([squared_norm(changed(board, name)), 0.0, 0.0])
    b_0, a_0 = start.b.astype(np.float64), start.a.astype(np.float64)
    y = now.b - b_0, now.a - a_0
    # X = dB·A₀ + B₀·dA as one product: [dB | B₀]·[A₀ over dA]
    x = np.concatenate([y[0], b_0], axis=1), np.concatenate([a_0, y[1]])
    return np.array([squared_norm(x), 2 * inner(x, y), squared_norm(y)])


def _towards_start(board: Contribution, scale: float) -> Contribution:
    """The board with its factors moved on the straight line to what it began with. They keep their rank, so that every
    rule can take them; B = 0 is the start where the board was sent none, and a factor it did not train stays."""
    if scale == 1.0:
        return board
    strands = {name: _between(strand, board.start.get(name), scale) for name, strand in board.strands.items()}
    return replace(board, strands=strands)


def _between(now: Factors, start: Factors | None, scale: float) -> Factors:
    factor = np.float32(scale)
    if start is None:
        return Factors(now.b * factor, now.a)
    return Factors(start.b + factor * (now.b - start.b), start.a + factor * (now.a - start.a))
