"""Judging an upload once, with what it decoded kept, says the same as judging it slowly in dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aggregator.merge.bases import random_basis
from aggregator.merge.contribution import SentVersion, contribution
from aggregator.merge.rules import RULES
from aggregator.merge.state import AdapterState, initial_state
from aggregator.run.admit import contribution_of, judge
from aggregator.run.open_round import OpenRound
from aggregator.run.screen import (
    FARTHER,
    LIMITS,
    MIN_COHORT,
    ROUNDED,
    Size,
    Sizes,
    decode_sizes,
    encode_sizes,
    sizes,
)
from aggregator.settings.terms import Terms
from wire.codec import decode, encode
from wire.fields import Dtype
from wire.manifest import manifest_digest
from wire.messages import RoundSpec, Tensor, Update, UpdatePart
from wire.run import Weight
from wire.tensors import pack, unpack

F64 = NDArray[np.float64]

WEIGHTS = tuple(Weight(name=name, rows=m, columns=n) for name, m, n in (("q", 24, 16), ("wi", 32, 16), ("wo", 16, 32)))
FARTHEST = 0.5
CLOSE = 1e-3
"""Sizes this near to a limit, as a part of it, may fall on either side of it by rounding."""


@dataclass(frozen=True)
class Sent:
    """How a board's update is made: `size` of what it moved, and whether one value is not a number."""

    rule: str
    upload: Dtype
    ranks: tuple[int, ...]
    size: float
    seed: int
    with_nan: bool


sent_updates = st.builds(
    Sent,
    rule=st.sampled_from(["weave", "braid", "flexlora", "rolora"]),
    upload=st.sampled_from(["fp32", "bf16", "int8"]),
    ranks=st.tuples(*[st.integers(0, 6)] * len(WEIGHTS)).filter(any),
    size=st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
    with_nan=st.sampled_from([False] * 7 + [True]),
)
cohorts = st.lists(st.floats(0.0, 0.2), max_size=5)


def state_of(rule: str) -> AdapterState:
    """Version 1 with a global adapter of rank 4 in every weight."""
    rng = np.random.default_rng(3)
    begun = random_basis(initial_state(WEIGHTS), max_rank=8, seed=1)
    weights = {}
    for name, weight in begun.weights.items():
        m, n = weight.shape
        b, a = (rng.standard_normal(shape).astype(np.float32) / 4 for shape in ((m, 4), (4, n)))
        weights[name] = type(weight)(frozen_b=b, frozen_a=a, basis=weight.basis, values=weight.values)
    return AdapterState(version=1, weights=weights)


def terms_of(sent: Sent) -> Terms:
    return Terms(
        "run",
        WEIGHTS,
        manifest_digest(WEIGHTS),
        max_rank=8,
        server_rank=8,
        importance="sketch",
        rule=RULES[sent.rule],
        download="bf16",
        upload=sent.upload,
        farthest=FARTHEST,
    )


def update_of(sent: Sent, state: AdapterState) -> Update:
    rng = np.random.default_rng(sent.seed)
    rule = RULES[sent.rule]
    trains = rule.TRAITS.trains(1)
    parts = []
    for part, rank, weight in zip(rule.cut(state, sent.ranks, "bf16"), sent.ranks, WEIGHTS, strict=True):
        if rank:
            start_b = np.zeros((weight.rows, rank)) if part.start_b is None else unpack(part.start_b)
            b = pack(start_b + sent.size * rng.standard_normal(start_b.shape), sent.upload)
            start_a = unpack(part.basis)
            a = (
                pack(start_a + sent.size * rng.standard_normal(start_a.shape), sent.upload)
                if trains == "both"
                else None
            )
            parts.append(UpdatePart(name=part.name, b=b, a=a))
    if sent.with_nan:
        parts[-1] = msgspec.structs.replace(parts[-1], b=_with_nan(parts[-1].b))
    fields = {"protocol": 1, "run_id": "run", "round": 1, "version": 1, "manifest": manifest_digest(WEIGHTS)}
    return Update(**fields, n_examples=10, parts=tuple(parts))  # type: ignore[arg-type]


def _with_nan(tensor: Tensor) -> Tensor:
    nan = pack(np.zeros(tensor.shape), "fp32")
    return msgspec.structs.replace(nan, data=nan.data[:-4] + np.float32(np.nan).tobytes())


def slowly_refused(update: Update, sent: Sent, state: AdapterState, cohort: list[float]) -> bool:
    """The same judgement on dense float64 matrices, every tensor unpacked anew. Discards what is close to a limit."""
    rule, trains = RULES[sent.rule], RULES[sent.rule].TRAITS.trains(1)
    starts = {part.name: part for part in rule.cut(state, sent.ranks, "bf16")}
    squares: dict[str, list[tuple[float, int]]] = {"change": [], "B": [], "A": []}
    for part in update.parts:
        start = starts[part.name]
        if part.b.dtype == "fp32" and np.isnan(np.frombuffer(part.b.data, "<f4")).any():
            return True
        b, a_0 = unpack(part.b).astype(np.float64), unpack(start.basis).astype(np.float64)
        b_0 = np.zeros_like(b) if start.start_b is None else unpack(start.start_b).astype(np.float64)
        if part.a is None and not rule.TRAITS.has_start:
            a_0 = state.weights[part.name].basis[: b.shape[1]].astype(np.float64)  # the server keeps its own, unrounded
        a = a_0 if part.a is None else unpack(part.a).astype(np.float64)
        moved = [(b, b_0)] if part.a is None else [(b, b_0), (a, a_0)]
        for after, before in moved:
            if _is_beyond(
                np.abs(after - before).max(), FARTHER * FARTHEST + ROUNDED[sent.upload] * np.abs(after).max()
            ):
                return True
        squares["change"].append((float(np.sum((b @ a - b_0 @ a_0) ** 2)), b.size))
        squares["B"].append((float(np.sum(b**2)), b.size))
        squares["A"].append((float(np.sum(a**2)), a.size))
    kinds = ("change",) if trains == "b" else ("change", "B", "A")
    too_large = [_is_too_large(squares[kind], cohort, LIMITS[kind]) for kind in kinds]
    return any(too_large)


def _is_too_large(squares: list[tuple[float, int]], cohort: list[float], limit: Any) -> bool:
    typical = median(cohort) if len(cohort) >= MIN_COHORT else 0.0
    most = min(limit.most, limit.factor * typical) if typical else limit.most
    whole = (sum(total for total, _ in squares) / sum(count for _, count in squares)) ** 0.5
    peak = max((total / count) ** 0.5 for total, count in squares)
    return _is_beyond(whole, most) | _is_beyond(peak, most)


def _is_beyond(size: float, limit: float) -> bool:
    assume(abs(size - limit) > CLOSE * limit)
    return bool(size > limit)


@pytest.mark.slow
@given(sent_updates, cohorts)
@settings(max_examples=150, deadline=None)
def test_verdicts_are_those_of_a_slow_reference(sent: Sent, cohort: list[float]) -> None:
    """Whatever the rule, format, ranks, size and cohort; what is kept of an accepted one is what it decodes to."""
    state, terms = state_of(sent.rule), terms_of(sent)
    update = update_of(sent, state)
    spec = RoundSpec(round=1, version=1, trains=terms.rule.TRAITS.trains(1))
    known: tuple[Sizes, ...] = tuple({kind: Size(size, size) for kind in LIMITS} for size in cohort)
    open_round = OpenRound(spec, quorum=1, since_s=0.0, cohort=known)

    verdict = judge(encode(update), terms, spec, SentVersion(terms.rule, state, "bf16"), open_round)

    assert (verdict.contribution is None) == slowly_refused(update, sent, state, cohort)
    assert bool(verdict.reason) == (verdict.contribution is None)
    if verdict.contribution is not None:
        anew = contribution(update, terms.rule, state, "bf16")
        assert verdict.sizes == sizes(anew)
        for name, strand in anew.strands.items():
            assert np.array_equal(strand.b, verdict.contribution.strands[name].b)
            assert np.array_equal(strand.a, verdict.contribution.strands[name].a)


@pytest.mark.parametrize("rule", ["weave", "flexlora", "rolora"])
def test_a_start_that_is_kept_is_the_one_that_is_made_anew(rule: str) -> None:
    """Boards of any ranks, one after the other: the leading strands of the largest so far are what each was sent."""
    state = state_of(rule)
    kept = SentVersion(RULES[rule], state, "bf16")

    for ranks in ((2, 0, 6), (8, 3, 1), (1, 8, 8), (5, 5, 5)):
        update = update_of(Sent(rule, "bf16", ranks, 0.1, 0, with_nan=False), state)
        start, anew = kept.contribution(update).start, contribution(update, RULES[rule], state, "bf16").start
        assert start.keys() == anew.keys()
        for name, factors in anew.items():
            assert np.array_equal(start[name].b, factors.b) and np.array_equal(start[name].a, factors.a)


def test_what_was_accepted_is_the_same_contribution_again() -> None:
    """When the round closes, possibly after a restart, what is summed is what was judged."""
    sent = Sent("weave", "int8", (2, 3, 4), 0.1, 7, with_nan=False)
    state, terms = state_of("weave"), terms_of(sent)
    spec = RoundSpec(round=1, version=1, trains="both")
    data, open_round = encode(update_of(sent, state)), OpenRound(spec, quorum=1, since_s=0.0)

    first = judge(data, terms, spec, SentVersion(terms.rule, state, "bf16"), open_round)
    again = contribution_of(decode(data, Update), SentVersion(terms.rule, state, "bf16"), open_round)

    assert first.contribution is not None and again.weight == first.contribution.weight
    assert sizes(again) == first.sizes == decode_sizes(encode_sizes(first.sizes))
    for name, strand in first.contribution.strands.items():
        assert np.array_equal(strand.b, again.strands[name].b)
