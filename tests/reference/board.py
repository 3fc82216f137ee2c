"""A board as the server sees it: it fetches an adapter, changes at random what the round trains, and sends a message.

Everything goes through the wire's own tensors, so that a rule is tried with what it will be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.contribution import contribution
from aggregator.merge.rules import Rule
from aggregator.merge.state import AdapterState
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits
from aggregator.settings.terms import Terms
from wire.checks import basis_rank, check_adapter, check_update
from wire.fields import Dtype
from wire.manifest import manifest_digest
from wire.messages import Adapter, AdapterPart, RoundSpec, Update, UpdatePart
from wire.run import Weight
from wire.tensors import pack, unpack

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Board:
    """`ranks`: in manifest order. `size`: how far it moves what it trains; 0 is a board that changes nothing."""

    ranks: Sequence[int]
    n_examples: int = 10
    seed: int = 0
    size: float = 0.1
    sketches: bool = False
    download: Dtype = "fp32"
    upload: Dtype = "fp32"


@dataclass(frozen=True)
class Trained:
    """What a board did in a round: `start` and `end` are its whole models' adapters (m, n) by weight, in float64."""

    contribution: Contribution
    start: dict[str, F64] = field(default_factory=dict)
    end: dict[str, F64] = field(default_factory=dict)


def manifest_of(state: AdapterState) -> tuple[Weight, ...]:
    return tuple(Weight(name=n, rows=w.shape[0], columns=w.shape[1]) for n, w in state.weights.items())


def work(rule: Rule[Any], state: AdapterState, board: Board, staleness: int = 0) -> Trained:
    """One round of a board on the version `state`. Raises WireError where a message is not what both sides agreed."""
    parts = _fetched(rule, state, board)
    trained = [_trained(part, rule.TRAITS, state, rank, board) for part, rank in zip(parts, board.ranks, strict=True)]
    update = _checked(rule, state, board, [part for part, _, _ in trained])
    return Trained(
        contribution=contribution(update, rule, state, board.download, staleness),
        start={part.name: start for part, start, _ in trained},
        end={part.name: end for part, _, end in trained},
    )


def _terms(rule: Rule[Any], state: AdapterState) -> Terms:
    weights = manifest_of(state)
    max_rank = max(len(weight.basis) for weight in state.weights.values())
    server_rank = max(1, *(weight.frozen_a.shape[0] for weight in state.weights.values()))
    return Terms("run", weights, manifest_digest(weights), max_rank, server_rank, "sketch", rule)


def _fetched(rule: Rule[Any], state: AdapterState, board: Board) -> tuple[AdapterPart, ...]:
    terms, traits = _terms(rule, state), rule.TRAITS
    parts = rule.cut(state, board.ranks, board.download)
    adapter = Adapter(protocol=1, run_id="run", version=state.version, manifest=terms.manifest, parts=parts)
    check_adapter(adapter, terms, board.ranks, version=state.version, own_basis=traits.own_basis)
    return parts


def _trained(
    part: AdapterPart, traits: Traits, state: AdapterState, rank: int, board: Board
) -> tuple[UpdatePart, F64, F64]:
    """What the board sends of a weight, and its adapter there before and after."""
    rng = np.random.default_rng([board.seed, state.version, *part.name.encode()])
    trains = traits.trains(state.version)
    context = unpack(part.frozen_b).astype(np.float64) @ unpack(part.frozen_a)
    m, n = context.shape
    a = np.linalg.qr(rng.standard_normal((n, rank)))[0].T if traits.own_basis else unpack(part.basis)
    b = np.zeros((m, rank)) if part.start_b is None else unpack(part.start_b)
    new_b = b + board.size * rng.standard_normal(b.shape) if trains != "a" else b
    new_a = a + board.size * rng.standard_normal(a.shape) if trains != "b" else a
    sketch = rng.standard_normal((basis_rank(Weight(name="w", rows=m, columns=n), _max_rank(state)), n))
    sent = UpdatePart(
        name=part.name,
        b=pack(new_b if trains != "a" else new_b[:, :0], board.upload),
        a=pack(new_a, board.upload) if trains != "b" and rank else None,
        sketch=pack(sketch, board.upload) if board.sketches else None,
    )
    end_b = unpack(sent.b) if trains != "a" else b
    end_a = a if sent.a is None else unpack(sent.a)
    return sent, context + b.astype(np.float64) @ a, context + end_b.astype(np.float64) @ end_a


def _max_rank(state: AdapterState) -> int:
    return max(len(weight.basis) for weight in state.weights.values())


def _checked(rule: Rule[Any], state: AdapterState, board: Board, parts: Sequence[UpdatePart]) -> Update:
    terms = _terms(rule, state)
    update = Update(
        protocol=1,
        run_id="run",
        round=state.version,
        version=state.version,
        manifest=terms.manifest,
        n_examples=board.n_examples,
        parts=tuple(part for part, rank in zip(parts, board.ranks, strict=True) if rank or board.sketches),
    )
    trains = rule.TRAITS.trains(state.version)
    spec = RoundSpec(round=state.version, version=state.version, sketch=board.sketches, trains=trains)
    check_update(update, terms, spec, ranks=board.ranks)
    return update
