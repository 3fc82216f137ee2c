"""Every published rule as one would write it on a blackboard: dense float64 matrices, loops over boards and indices.

Each takes what the server had and what the boards did of one weight, and the Σ w of all boards, and gives the new W_g
(m, n) before it is cut to the server's rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """The server's factors of a weight, b (m, s) and a (s, n); `trains`: what this round trains."""

    b: F64
    a: F64
    trains: str

    @property
    def w(self) -> F64:
        return self.b @ self.a


@dataclass(frozen=True)
class Sent:
    """A board that trained the weight: its weight, and its factors after the round and before."""

    weight: float
    b: F64
    a: F64
    b0: F64
    a0: F64


def added(held: Held, boards: Sequence[Sent], total: float) -> F64:
    """W_g + Σ w_k·B_k·A_k / Σ w over all boards."""
    return held.w + sum(board.weight / total * (board.b @ board.a) for board in boards)


def delta(held: Held, boards: Sequence[Sent], total: float) -> F64:
    return held.w + sum(board.weight / total * (board.b @ board.a - board.b0 @ board.a0) for board in boards)


def flexlora(held: Held, boards: Sequence[Sent], _: float) -> F64:
    trained = sum(board.weight for board in boards)
    return np.asarray(sum(board.weight / trained * (board.b @ board.a) for board in boards))


def rank_partitioned(held: Held, boards: Sequence[Sent], _: float) -> F64:
    result = np.zeros_like(held.w)
    for i in range(max(len(board.a) for board in boards)):
        holders = [board for board in boards if len(board.a) > i]
        for board in holders:
            share = board.weight / sum(other.weight for other in holders)
            result += share * np.outer(board.b[:, i], board.a[i])
    return result


def padded(factor: F64, rank: int) -> F64:
    """Rows (r, x) with zero rows up to `rank`."""
    return np.vstack([factor, np.zeros((rank - len(factor), factor.shape[1]))])


def averaged(boards: Sequence[Sent], shares: Sequence[float]) -> F64:
    """mean(pad(B))·mean(pad(A))."""
    rank = max(len(board.a) for board in boards)
    b = sum(share * padded(board.b.T, rank).T for share, board in zip(shares, boards, strict=True))
    a = sum(share * padded(board.a, rank) for share, board in zip(shares, boards, strict=True))
    return np.asarray(b @ a)


def hetlora(held: Held, boards: Sequence[Sent], _: float) -> F64:
    norms = [board.weight * float(np.linalg.norm(board.b @ board.a)) for board in boards]
    return averaged(boards, [norm / sum(norms) for norm in norms])


def fedavg(held: Held, boards: Sequence[Sent], _: float) -> F64:
    weights = [board.weight for board in boards]
    return averaged(boards, [weight / sum(weights) for weight in weights])


def rolora(held: Held, boards: Sequence[Sent], _: float) -> F64:
    """Σ_i of the mean trained factor of index i times the other one, as it was sent."""
    result = np.zeros_like(held.w)
    largest = max(len(board.a) for board in boards)
    for i in range(max(largest, held.b.shape[1])):
        holders = [board for board in boards if len(board.a) > i]
        if not holders:
            result += np.outer(held.b[:, i], held.a[i])
            continue
        shares = [board.weight / sum(other.weight for other in holders) for board in holders]
        b, a = holders[0].b0[:, i], holders[0].a0[i]
        if held.trains == "b":
            b = sum(share * board.b[:, i] for share, board in zip(shares, holders, strict=True))
        else:
            a = sum(share * board.a[i] for share, board in zip(shares, holders, strict=True))
        result += np.outer(b, a)
    return result


def fed_plora(held: Held, boards: Sequence[Sent], _: float) -> F64:
    """W_g without the modules that anybody trained, and with the means of their b and a: Σ_i over the order of the
    round, in which what boards were sent begins alike."""
    result = held.w.copy()
    for i in range(max(len(board.a) for board in boards)):
        holders = [board for board in boards if len(board.a) > i]
        shares = [board.weight / sum(other.weight for other in holders) for board in holders]
        b = sum(share * board.b[:, i] for share, board in zip(shares, holders, strict=True))
        a = sum(share * board.a[i] for share, board in zip(shares, holders, strict=True))
        result += np.outer(b, a) - np.outer(holders[0].b0[:, i], holders[0].a0[i])
    return result


MERGED: Mapping[str, Callable[[Held, Sequence[Sent], float], F64]] = MappingProxyType(
    {
        **dict.fromkeys(("braid", "fresh", "flora", "ffa", "fedsvd"), added),
        **dict.fromkeys(("delta", "weave"), delta),
        "flexlora": flexlora,
        "rank-partitioned": rank_partitioned,
        "hetlora": hetlora,
        "fedavg": fedavg,
        "fed-plora": fed_plora,
        "rolora": rolora,
    }
)
