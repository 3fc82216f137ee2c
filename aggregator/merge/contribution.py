"""From a screened message to what it adds: arrays, with what the board's strands mean beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aggregator.merge.rules import Rule
from aggregator.merge.state import F32, AdapterState, Factors
from aggregator.merge.sums import Contribution
from wire.checks import part_rank
from wire.messages import AdapterPart, Dtype, Profile, Update
from wire.tensors import unpack


def contribution(update: Update, rule: Rule[Any], sent: AdapterState, dtype: Dtype, staleness: int = 0) -> Contribution:
    """The arrays of a screened update of a board that was sent the version `sent` in `dtype`.

    A factor that the board did not train is the one it was sent. Raises WireError where a value is not finite.
    """
    start = _start(update, rule, sent, dtype)
    sketches = {part.name: unpack(part.sketch) for part in update.parts if part.sketch is not None}
    strands = {}
    for part in update.parts:
        if rank := part_rank(part):
            a = unpack(part.a) if part.a is not None else _sent_a(part.name, rank, start, sent)
            b = unpack(part.b) if part.b.shape[1] else start[part.name].b
            strands[part.name] = Factors(b, a)
    return Contribution(
        weight=float(update.n_examples),
        strands=strands,
        start=start,
        sketches=sketches,
        trains=rule.TRAITS.trains(sent.version),
        staleness=staleness,
    )


def profile_contribution(profile: Profile) -> Contribution:
    """The sketches of a screened profile, weighted as in a round, and its scores as shares of their sum.

    Raises WireError where a value is not finite.
    """
    sketches = {named.name: unpack(named.tensor) for named in profile.sketches}
    return Contribution(weight=float(profile.n_examples), sketches=sketches, shares=_shares(profile))


def _shares(profile: Profile) -> dict[str, float]:
    """A board says what part each weight has: whatever the scale of its scores, it cannot drown the other boards."""
    if not profile.scores:
        return {}
    total = sum(profile.scores)
    names = (named.name for named in profile.sketches)
    return {name: score / total for name, score in zip(names, profile.scores, strict=True)}


def _start(update: Update, rule: Rule[Any], sent: AdapterState, dtype: Dtype) -> Mapping[str, Factors]:
    """What the board began with, bit for bit as it received it: what it did not change is no change then."""
    if not rule.TRAITS.has_start:
        return {}
    ranks = {part.name: rank for part in update.parts if (rank := part_rank(part))}
    trained = replace(sent, weights={name: sent.weights[name] for name in ranks})  # the others' contexts may be large
    return {part.name: _factors(part) for part in rule.cut(trained, list(ranks.values()), dtype)}


def _factors(part: AdapterPart) -> Factors:
    if part.start_b is None:
        raise ValueError(f"{part.name} has no start_b, though its rule says that boards begin at one")
    return Factors(unpack(part.start_b), unpack(part.basis))


def _sent_a(name: str, rank: int, start: Mapping[str, Factors], sent: AdapterState) -> F32:
    """The rows that B was trained on. The server keeps its own, unrounded: boards' bf16 copies stand for them."""
    return start[name].a if name in start else sent.weights[name].basis[:rank]
