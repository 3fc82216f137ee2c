"""Contestants of benchmarks.merge_speed: ways to sum a round's adapters and cut the sum to rank 32.

All get the same boards, one after the other and fully decoded; a board is dropped once it is folded. Peers work in
float32 and in torch, as the papers' programs do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from aggregator.merge.bases import random_basis
from aggregator.merge.rules import RULES
from aggregator.merge.state import F32, F64, AdapterState, Factors, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from braid_common.seeds import derive_seed
from wire.run import Weight
from wire.tensors import unpack

RANK = 32
"""Rank of the global adapter, and of the largest board."""

RANKS = (4, 8, 16, 32)
"""Ranks of the boards, in turn."""

DECAY = 0.9
"""Each strand of a board is this much shorter than the one before, as singular values of a trained adapter are."""

CHANGE = 0.1
"""Entries of a start change by this part of the root mean square of its first strand's, in A and in B: every strand's
alike, as Adam changes them. Strands from the 23rd on are shorter than that."""

SEED = 11


class Contestant(Protocol):
    """A way to merge: `fold` every board, then `merge`.

    Attributes:
        sent: the factors that boards share of each weight, in RANK strands: what they begin with, or rows of A beside
            an empty B (m, 0). Empty where they draw A.
    """

    sent: Mapping[str, Factors]

    def fold(self, board: Contribution) -> None: ...
    def merge(self) -> None: ...
    def result(self, name: str) -> tuple[F32, F32]:
        """The merged b (m, 32), a (32, n) of a weight."""


def board(weights: Sequence[Weight], number: int, sent: Mapping[str, Factors], sketch: bool) -> Contribution:
    """The contribution of board `number`: B (m, r), A (r, n) of its rank r of each weight, sketches (32, n) if wanted.

    The first weights are the same whichever come after.
    """
    rng = np.random.default_rng(derive_seed(SEED, "board", number))
    n_examples = float(rng.integers(50, 500))
    rank = RANKS[number % len(RANKS)]
    strands, start, sketches = {}, {}, {}
    for weight in weights:
        shared = sent.get(weight.name)
        if shared is not None and shared.b.size:
            start[weight.name] = Factors(shared.b[:, :rank], shared.a[:rank])
            strands[weight.name] = _changed(start[weight.name], rng)
        else:
            strands[weight.name] = _drawn(weight, rank, None if shared is None else shared.a[:rank], rng)
        if sketch:
            sketches[weight.name] = rng.standard_normal((RANK, weight.columns), np.float32)
    return Contribution(weight=n_examples, strands=strands, start=start, sketches=sketches)


def _drawn(weight: Weight, rank: int, rows: F32 | None, rng: np.random.Generator) -> Factors:
    """Random B, each strand shorter than the one before, and A: the rows that were sent, else random."""
    b = rng.standard_normal((weight.rows, rank), np.float32) * (DECAY ** np.arange(rank)).astype(np.float32)
    if rows is None:
        rows = rng.standard_normal((rank, weight.columns), np.float32) / np.float32(weight.columns**0.5)
    return Factors(b, rows)


def _changed(start: Factors, rng: np.random.Generator) -> Factors:
    """The start with a random change, as large in every strand."""
    size_b, size_a = (np.float32(CHANGE * np.sqrt(np.mean(first**2))) for first in (start.b[:, 0], start.a[0]))
    b = start.b + size_b * rng.standard_normal(start.b.shape, np.float32)
    return Factors(b, start.a + size_a * rng.standard_normal(start.a.shape, np.float32))


def start(weights: Sequence[Weight]) -> AdapterState:
    """A run under way: a shared basis of 32 rows, and a global adapter of rank 32."""
    state = random_basis(initial_state(weights), max_rank=RANK, seed=SEED)
    rng = np.random.default_rng(derive_seed(SEED, "context"))
    learned = {}
    for name, weight in state.weights.items():
        m, n = weight.shape
        a = np.linalg.qr(rng.standard_normal((n, RANK)))[0].T.astype(np.float32)
        b = (rng.standard_normal((m, RANK)) * DECAY ** np.arange(RANK)).astype(np.float32)
        learned[name] = replace(weight, frozen_b=b, frozen_a=a)
    return AdapterState(version=2, weights=learned)


def sent(rule: str, state: AdapterState) -> Mapping[str, Factors]:
    """Factors that boards of a rule share: their start, as it is sent in bf16, or the basis, as the server keeps it."""
    traits = RULES[rule].TRAITS
    if traits.space == "basis":
        return {name: Factors(weight.frozen_b[:, :0], weight.basis) for name, weight in state.weights.items()}
    if traits.has_start:
        parts = RULES[rule].cut(state, [RANK] * len(state.weights), "bf16")
        return {part.name: Factors(unpack(part.start_b), unpack(part.basis)) for part in parts if part.start_b}
    return {}


class Ours:
    """A rule of aggregator.merge, as the server calls it."""

    def __init__(self, rule: str, weights: Sequence[Weight]) -> None:
        self._rule, self._state = RULES[rule], start(weights)
        self._total: Any = None
        self.sent = sent(rule, self._state)

    def fold(self, board: Contribution) -> None:
        self._total = self._rule.fold(self._total, board)
        while True:
            after = self._total.compacted()
            if after is self._total:
                return
            self._total = after

    def merge(self) -> None:
        settings = MergeSettings(server_rank=RANK, max_rank=RANK)
        self._state, self._total = self._rule.merge(self._state, self._total, settings), None

    def result(self, name: str) -> tuple[F32, F32]:
        weight = self._state.weights[name]
        return weight.frozen_b, weight.frozen_a


class DenseSum:
    """FlexLoRA's way (arXiv 2402.11505): ΔW of every weight summed densely as boards arrive, an SVD of each."""

    sent: Mapping[str, Factors] = MappingProxyType({})

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._results: dict[str, tuple[F32, F32]] = {}
        self._weight = 0.0

    def fold(self, board: Contribution) -> None:
        import torch

        self._weight += board.weight
        for name, strands in board.strands.items():
            b, a = torch.from_numpy(strands.b), torch.from_numpy(strands.a)
            if name not in self._sums:
                self._sums[name] = torch.zeros(len(b), a.shape[1])
            self._sums[name].addmm_(b, a, alpha=board.weight)

    def merge(self) -> None:
        for name in list(self._sums):
            self._results[name] = _cut_by_svd(self._sums.pop(name) / self._weight)

    def result(self, name: str) -> tuple[F32, F32]:
        return self._results[name]


class Stack:
    """The naive stack: every board's factors kept to the end, multiplied out, an SVD of each weight."""

    sent: Mapping[str, Factors] = MappingProxyType({})

    def __init__(self) -> None:
        self._boards: list[Contribution] = []
        self._results: dict[str, tuple[F32, F32]] = {}

    def fold(self, board: Contribution) -> None:
        self._boards.append(board)

    def merge(self) -> None:
        import torch

        total = sum(board.weight for board in self._boards)
        for name in self._boards[0].strands:
            parts = [(torch.from_numpy(board.strands[name].b), board.weight / total) for board in self._boards]
            b = torch.cat([part * share for part, share in parts], dim=1)
            a = torch.cat([torch.from_numpy(board.strands[name].a) for board in self._boards])
            self._results[name] = _cut_by_svd(b @ a)

    def result(self, name: str) -> tuple[F32, F32]:
        return self._results[name]


def _cut_by_svd(w: Any) -> tuple[F32, F32]:
    import torch

    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    return (u[:, :RANK] * s[:RANK]).numpy(), vh[:RANK].clone().numpy()


CONTESTANTS: Mapping[str, Callable[[Sequence[Weight]], Contestant]] = {
    "dense SVD": lambda weights: DenseSum(),
    "naive stack": lambda weights: Stack(),
    "braid": lambda weights: Ours("braid", weights),
    "braid, new basis": lambda weights: Ours("braid", weights),
    "weave": lambda weights: Ours("weave", weights),
    "fresh": lambda weights: Ours("fresh", weights),
    "flexlora": lambda weights: Ours("flexlora", weights),
}
"""Contestants by name, ours by their rule; "braid, new basis" is a round in which boards sent sketches too."""

PEERS = ("dense SVD", "naive stack")

WITH_SKETCHES = ("braid, new basis",)

ADDS_TO_GLOBAL = ("braid", "braid, new basis", "weave", "fresh")
"""Rules that add to the global adapter; the others make it anew of what boards say that it should be."""


def relative_error(name: str, contestant: Contestant, weights: Sequence[Weight], n_boards: int) -> float:
    """How far the first weight is from the dense float64 sum cut by its SVD, over that one's norm."""
    first = weights[0]
    w, weight = np.zeros((first.rows, first.columns)), 0.0
    for number in range(n_boards):
        added = board([first], number, contestant.sent, name in WITH_SKETCHES)
        w += added.weight * _product(added.strands[first.name])
        if added.start and name in ADDS_TO_GLOBAL:
            w -= added.weight * _product(added.start[first.name])  # what training changed, not where it began
        weight += added.weight
    w /= weight
    if name in ADDS_TO_GLOBAL:
        before = start([first]).weights[first.name]
        w += _product(Factors(before.frozen_b, before.frozen_a))
    u, s, vh = np.linalg.svd(w, full_matrices=False)
    best = (u[:, :RANK] * s[:RANK]) @ vh[:RANK]
    b, a = contestant.result(first.name)
    return float(np.linalg.norm(b.astype(np.float64) @ a - best) / np.linalg.norm(best))


def _product(factors: Factors) -> F64:
    return factors.b.astype(np.float64) @ factors.a
