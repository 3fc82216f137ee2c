"""Lengths of a board's texts in tokens, and their names among the values of a `data` report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wire.errors import WireError
from wire.limits import MAX_EXAMPLES, MAX_TEXT_TOKENS

PERCENTS = (50, 90, 95, 99, 100)
"""Parts of a board's texts, in percent, of which the length that holds them is told."""

_COUNTS = ("n_examples", "n_measured", "max_source_tokens", "max_target_tokens")
_SHARES = ("sources_cut", "targets_cut")


@dataclass(frozen=True, slots=True)
class TextLengths:
    """How long a board's texts are.

    Attributes:
        n_examples: that the board has.
        n_measured: how many of them were looked at.
        source_tokens: for each of PERCENTS, the length that so many sources do not exceed, prefix and eos included;
            MAX_TEXT_TOKENS stands for all that is longer.
        target_tokens: the same of targets, eos included.
        max_source_tokens: to which sources are cut.
        max_target_tokens: to which targets are cut.
        sources_cut: part of the sources that is longer than that, 0 to 1.
        targets_cut: part of the targets that is longer than that, 0 to 1.
    """

    n_examples: int
    n_measured: int
    source_tokens: tuple[int, ...]
    target_tokens: tuple[int, ...]
    max_source_tokens: int
    max_target_tokens: int
    sources_cut: float
    targets_cut: float

    def values(self) -> dict[str, float]:
        """The values of a `data` report."""
        named = {name: float(getattr(self, name)) for name in (*_COUNTS, *_SHARES)}
        for side, tokens in (("source", self.source_tokens), ("target", self.target_tokens)):
            named |= {_key(side, percent): float(count) for percent, count in zip(PERCENTS, tokens, strict=True)}
        return named

    @classmethod
    def from_values(cls, values: Mapping[str, float]) -> TextLengths:
        """The lengths that a report tells. Raises WireError where a value is missing or cannot be true."""
        counts = {name: _whole(values, name, MAX_EXAMPLES) for name in _COUNTS}
        sides = {
            side: [_whole(values, _key(side, percent), MAX_TEXT_TOKENS) for percent in PERCENTS]
            for side in ("source", "target")
        }
        for side, tokens in sides.items():
            if any(first > second for first, second in pairwise(tokens)):
                raise WireError(f"the {side} lengths of a data report are not in rising order")
        return cls(
            source_tokens=tuple(sides["source"]),
            target_tokens=tuple(sides["target"]),
            sources_cut=_number(values, "sources_cut", 1.0),
            targets_cut=_number(values, "targets_cut", 1.0),
            **counts,
        )


def quantiles(lengths: Sequence[int]) -> tuple[int, ...]:
    """The smallest of `lengths`, one at least, that so many of them do not exceed, for each of PERCENTS."""
    rising = sorted(lengths)
    return tuple(rising[-(-percent * len(rising) // 100) - 1] for percent in PERCENTS)


def _key(side: str, percent: int) -> str:
    """The name of a quantile, such as "source_p95"."""
    return f"{side}_p{percent}"


def _whole(values: Mapping[str, float], name: str, most: int) -> int:
    number = _number(values, name, most)
    if number < 1 or number != int(number):
        raise WireError(f"{name} of a data report is {number}, a whole number from 1 to {most} is needed")
    return int(number)


def _number(values: Mapping[str, float], name: str, most: float) -> float:
    number = values.get(name)
    if number is None or not 0 <= number <= most:
        raise WireError(f"{name} of a data report is {number}, a number from 0 to {most} is needed")
    return number
