"""The report of an evaluation: each contestant's metrics with their intervals, and its differences to the base.

It is what `edge-client evaluate --json` prints, field by field; `from_json` reads it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import msgspec
import numpy as np

from braid_common.seeds import derive_seed
from braid_common.text_form import TextForm
from edge_client.evaluation.answers import Answered
from edge_client.evaluation.bootstrap import CONFIDENCE, F64, RESAMPLES, intervals
from edge_client.evaluation.metrics import METRICS, Sums, has_rouge_words, score, squeezed

Interval = tuple[float, float]
"""Low and high end of a 95 % bootstrap interval."""

_BY_GAIN = METRICS.index("rougeL")


class Difference(msgspec.Struct, frozen=True):
    """A contestant's metric less the base's. `interval` is None where there are too few examples for one."""

    value: float
    interval: Interval | None


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant's metrics.

    Attributes:
        adapter: where its adapter came from; "" for the base.
        loss: nats per target token, of the first target, by teacher forcing. Lower is better.
        rouge1, rouge2, rougeL: mean F1 (0…1), each example against its best target.
        exact_match: share of texts that are a target, up to white space.
        tool_name: share of the calls with the right tool; None where no right answer is a call.
        tool_arguments: share of the calls with the right tool and the right arguments; None likewise.
        intervals: of these metrics; None where there are too few examples.
        difference: to the base, by metric; None for the base itself. Metrics without a value are left out.
    """

    adapter: str
    loss: float
    rouge1: float
    rouge2: float
    rougeL: float
    exact_match: float
    tool_name: float | None
    tool_arguments: float | None
    intervals: dict[str, Interval | None]
    difference: dict[str, Difference] | None = None

    def value(self, metric: str) -> float | None:
        """The metric of that name."""
        value: float | None = getattr(self, metric)
        return value


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An example with what each contestant wrote; `rougeL` is the F1 (0…1) of each text."""

    id: str
    source: str
    targets: tuple[str, ...]
    written: dict[str, str]
    rougeL: dict[str, float]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """The question that was asked.

    Attributes:
        data: where the examples are from.
        part: all usable examples, or those alone that training holds out.
        n_available: examples of that part; fewer are scored where a limit was given.
        model: the base.
        format: of the base in memory.
        form: how texts were cut, and the words put before them.
    """

    data: str
    part: Literal["all", "held_out"]
    n_available: int
    model: str
    format: str
    form: TextForm


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report.

    Attributes:
        setting: what was asked.
        n_examples: scored.
        n_calls: of these, whose right answer is a tool call.
        n_target_tokens: that the loss is a mean over.
        n_sources_cut, n_targets_cut: texts longer than the limits.
        contestants: by name, the base first.
        seed: of the bootstrap and of a --limit's draw.
        resamples: of the bootstrap.
        confidence: of the intervals.
        examples: those asked for, in the order of `spread_by_gain`.
        notes: sentences about what the numbers do not say by themselves.
    """

    setting: Setting
    n_examples: int
    n_calls: int
    n_target_tokens: int
    n_sources_cut: int
    n_targets_cut: int
    contestants: dict[str, Contestant]
    seed: int
    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE
    examples: tuple[Shown, ...] = ()
    notes: tuple[str, ...] = ()


def make_report(
    answered: Sequence[Answered],
    adapters: Mapping[str, str],
    setting: Setting,
    *,
    seed: int,
    n_shown: int = 0,
    tell: Callable[[int], object] = lambda n_done: None,
) -> Report:
    """Score all answers.

    Args:
        answered: examples with the answers of every contestant, one example at least.
        adapters: where each contestant's adapter came from, by the contestant's name, in the order of the answers; the
            first is the base.
        setting: what was asked.
        seed: of the bootstrap.
        n_shown: examples to show.
        tell: hears how many answers, of all contestants together, are scored.

    Returns:
        The report, without notes that are not about the answers themselves.
    """
    names = list(adapters)
    sums: list[Sums] = []
    for place in range(len(names)):
        before = place * len(answered)
        sums.append(score(answered, place, lambda n_done, before=before: tell(before + n_done)))  # type: ignore[misc]
    ends = _intervals(sums, seed)
    return Report(
        setting=setting,
        n_examples=len(answered),
        n_calls=int(sums[0].weights[:, -1].sum()),
        n_target_tokens=sum(one.n_target_tokens for one in answered),
        n_sources_cut=sum(one.source_is_cut for one in answered),
        n_targets_cut=sum(one.target_is_cut for one in answered),
        contestants={
            name: _contestant(adapters[name], sums[place], sums[0] if place else None, ends[place])
            for place, name in enumerate(names)
        },
        seed=seed,
        examples=_shown(answered, names, sums, n_shown),
        notes=tuple(_notes(answered)),
    )


def to_json(report: Report) -> bytes:
    """The report as one JSON object on one line."""
    return msgspec.json.encode(report)


def from_json(data: bytes | str) -> Report:
    """A report that `to_json` wrote. Raises msgspec's ValidationError, a ValueError, for anything else."""
    return msgspec.json.decode(data, type=Report)


def spread_by_gain(gains: F64, n: int) -> list[int]:
    """Places of n examples, evenly spread over their gains: the largest first, the smallest last, for one the median.

    Ties go by place. So the choice flatters nobody.
    """
    order = sorted(range(len(gains)), key=lambda place: (-gains[place], place))
    n = min(n, len(order))
    if n == 1:
        return [order[len(order) // 2]]
    return [order[round(i * (len(order) - 1) / (n - 1))] for i in range(n)]


def _intervals(sums: Sequence[Sums], seed: int) -> list[tuple[F64, F64]]:
    """The ends (METRICS, 2) of each contestant's intervals: of its metrics, and of its differences to the base.

    All come from the same draws, for the seed is the same. A difference is taken example by example, as all contestants
    have the same weights; so two with the same answers differ by exactly 0.
    """
    drawn = partial(intervals, weights=sums[0].weights, seed=derive_seed(seed, "bootstrap"))
    return [(drawn(one.values), drawn(one.values - sums[0].values)) for one in sums]


def _contestant(adapter: str, own: Sums, base: Sums | None, ends: tuple[F64, F64]) -> Contestant:
    means = {name: _known(mean) for name, mean in zip(METRICS, own.means, strict=True)}
    difference = None
    if base is not None:
        gains = Sums(own.values - base.values, own.weights).means
        differences = (Difference(float(gain), _interval(ends[1][i])) for i, gain in enumerate(gains))
        difference = {name: one for name, one in zip(METRICS, differences, strict=True) if not np.isnan(one.value)}
    return Contestant(
        adapter=adapter,
        intervals={name: _interval(ends[0][i]) for i, name in enumerate(METRICS)},
        difference=difference,
        **means,  # type: ignore[arg-type]
    )


def _known(value: float) -> float | None:
    """A mean; None where it is NaN, for no example counts."""
    return None if np.isnan(value) else float(value)


def _interval(ends: F64) -> Interval | None:
    return (float(ends[0]), float(ends[1])) if not np.isnan(ends[0]) else None


def _shown(answered: Sequence[Answered], names: Sequence[str], sums: Sequence[Sums], n: int) -> tuple[Shown, ...]:
    """The examples to show: spread over what the last contestant gains on the first in ROUGE-L, or over its ROUGE-L
    where it is alone."""
    if not n:
        return ()
    scores = [one.values[:, _BY_GAIN] for one in sums]
    gains = scores[-1] - scores[0] if len(sums) > 1 else scores[0]
    return tuple(
        Shown(
            id=answered[place].example.id,
            source=answered[place].example.source,
            targets=answered[place].example.targets,
            written={name: answer.text for name, answer in zip(names, answered[place].answers, strict=True)},
            rougeL={name: float(score[place]) for name, score in zip(names, scores, strict=True)},
        )
        for place in spread_by_gain(gains, n)
    )


def _notes(answered: Sequence[Answered]) -> list[str]:
    """Sentences about targets that metrics cannot do justice."""
    notes = []
    n_lossy = sum(any(map(_differ, one.example.targets, one.writable_targets)) for one in answered)
    if n_lossy:
        notes.append(
            f"{n_lossy} of {len(answered)} targets hold characters that the base's tokenizer cannot write"
            f"{_lost(answered)}: for exact match and tool calls, what can be written of them counts as right"
        )
    if n_foreign := sum(not any(map(has_rouge_words, one.example.targets)) for one in answered):
        notes.append(f"{n_foreign} of {len(answered)} targets have no word of a–z and 0–9, and ROUGE reads no other")
    return notes


def _differ(target: str, writable: str) -> bool:
    return squeezed(target) != squeezed(writable)


def _lost(answered: Sequence[Answered]) -> str:
    """The commonest of the characters that are lost, in brackets."""
    counts: dict[str, int] = {}
    for one in answered:
        for target, writable in zip(one.example.targets, one.writable_targets, strict=True):
            for character in set(target) - set(writable):
                if not character.isspace():
                    counts[character] = counts.get(character, 0) + 1
    commonest = sorted(counts, key=lambda character: (-counts[character], character))[:5]
    return f" ({' '.join(commonest)})" if commonest else ""
