"""Contributions made of messages: tensors unpacked, once, and set beside what the board began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aggregator.merge.rules import Rule
from aggregator.merge.state import F32, AdapterState, Factors
from aggregator.merge.sums import Contribution
from wire.checks import part_rank
from wire.errors import WireError
from wire.fields import Dtype
from wire.messages import AdapterPart, Profile, Tensor, Update
from wire.tensors import unpack


class SentVersion:
    """A version of the adapter as boards were sent it, against which their updates are read.

    What boards begin a round with is worked out once per weight, at the largest rank so far, and kept: the start of a
    lower rank is its leading strands.

    Args:
        rule: the merge rule, which says what boards are sent.
        state: the version, unrounded.
        dtype: the number format in which it was sent.
    """

    def __init__(self, rule: Rule[Any], state: AdapterState, dtype: Dtype) -> None:
        self.rule, self.state, self._dtype = rule, state, dtype
        self._starts: dict[str, Factors] = {}

    def contribution(self, update: Update, staleness: int = 0) -> Contribution:
        """The arrays of a screened update of a board that trained on this version.

        A factor that the board did not train is the one it was sent. Raises WireError, which names the weight, where a
        value is not finite.
        """
        start = self._start(update)
        strands, sketches = {}, {}
        for part in update.parts:
            if rank := part_rank(part):
                b = _unpacked(part.name, part.b) if part.b.shape[1] else start[part.name].b
                a = self._sent_a(part.name, rank, start) if part.a is None else _unpacked(part.name, part.a)
                strands[part.name] = Factors(b, a)
            if part.sketch is not None:
                sketches[part.name] = _unpacked(part.name, part.sketch)
        return Contribution(
            weight=float(update.n_examples),
            strands=strands,
            start=start,
            sketches=sketches,
            trains=self.rule.TRAITS.trains(self.state.version),
            staleness=staleness,
        )

    def _start(self, update: Update) -> Mapping[str, Factors]:
        """The factors that the board began with, bit for bit as it received them: what it left is no change then."""
        if not self.rule.TRAITS.has_start:
            return {}
        ranks = {part.name: rank for part in update.parts if (rank := part_rank(part))}
        self._make_starts({name: rank for name, rank in ranks.items() if rank > self._known_rank(name)})
        return {name: _leading(self._starts[name], rank) for name, rank in ranks.items()}

    def _known_rank(self, name: str) -> int:
        return len(self._starts[name].a) if name in self._starts else 0

    def _make_starts(self, ranks: Mapping[str, int]) -> None:
        if ranks:
            # The parts of other weights would be made for nothing, and theirs that is frozen may be large.
            trained = replace(self.state, weights={name: self.state.weights[name] for name in ranks})
            for part in self.rule.cut(trained, list(ranks.values()), self._dtype):
                self._starts[part.name] = _factors(part)

    def _sent_a(self, name: str, rank: int, start: Mapping[str, Factors]) -> F32:
        """The rows that B was trained on. The server keeps its own, unrounded: boards' bf16 copies stand for them."""
        return start[name].a if name in start else self.state.weights[name].basis[:rank]


def contribution(update: Update, rule: Rule[Any], sent: AdapterState, dtype: Dtype, staleness: int = 0) -> Contribution:
    """The arrays of one screened update of a board that was sent the version `sent` in `dtype`.

    Raises WireError, which names the weight, where a value is not finite.
    """
    return SentVersion(rule, sent, dtype).contribution(update, staleness)


def profile_contribution(profile: Profile) -> Contribution:
    """The sketches of a screened profile, weighted as in a round, and its scores as shares of their sum.

    Raises WireError, which names the weight, where a value is not finite.
    """
    sketches = {named.name: _unpacked(named.name, named.tensor) for named in profile.sketches}
    return Contribution(weight=float(profile.n_examples), sketches=sketches, shares=_shares(profile))


def _unpacked(name: str, tensor: Tensor) -> F32:
    try:
        return unpack(tensor)
    except WireError as error:
        raise WireError(f"{name}: {error}") from error


def _shares(profile: Profile) -> dict[str, float]:
    """The share of each weight in a board's scores: whatever their scale, they cannot drown the other boards'."""
    if not profile.scores:
        return {}
    total = sum(profile.scores)
    names = (named.name for named in profile.sketches)
    return {name: score / total for name, score in zip(names, profile.scores, strict=True)}


def _factors(part: AdapterPart) -> Factors:
    if part.start_b is None:
        raise ValueError(f"{part.name} has no start_b, though its rule says that boards begin at one")
    return Factors(unpack(part.start_b), unpack(part.basis))


def _leading(factors: Factors, rank: int) -> Factors:
    return factors if rank == len(factors.a) else Factors(factors.b[:, :rank], factors.a[:rank])
