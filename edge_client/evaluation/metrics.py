"""Metrics of answers, as sums over examples: loss, ROUGE, exact match, and for tool calls tool and arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_client.evaluation.answers import Answered
from edge_client.evaluation.tool_calls import judge_calls

F64 = NDArray[np.float64]

ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")
TOOL_KINDS = ("tool_name", "tool_arguments")

METRICS = ("loss", *ROUGE_KINDS, "exact_match", *TOOL_KINDS)
"""All metrics, in the order of columns. A lower loss is better, and a higher value of any other."""

_ROUGE_WORD = re.compile(r"[a-z0-9]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sums:
    """One contestant's metrics before they are divided: metric = Σ values / Σ weights over the examples.

    Attributes:
        values: (examples, METRICS) float64: loss in nats, F1 of ROUGE (0…1), and 0 or 1 for what is right or not.
        weights: the same shape: target tokens under the loss, 1 under what counts for every example, and under the tool
            metrics 1 where the right answer is a call. They are alike for all contestants.
    """

    values: F64
    weights: F64

    @property
    def means(self) -> F64:
        """(METRICS,) float64; NaN where no example counts."""
        total = self.weights.sum(0)
        means: F64 = np.divide(self.values.sum(0), total, out=np.full_like(total, np.nan), where=total > 0)
        return means


def score(answered: Sequence[Answered], contestant: int, tell: Callable[[int], object] = lambda n_done: None) -> Sums:
    """Score the answers of one contestant, given by its place among them. `tell` hears how many are done."""
    values, weights = np.zeros((len(answered), len(METRICS))), np.ones((len(answered), len(METRICS)))
    scorer = Rouge()
    for row, one in enumerate(answered):
        answer, targets = one.answers[contestant], one.example.targets
        calls = judge_calls(targets, one.writable_targets, answer.text)
        values[row] = (
            answer.loss,
            *scorer.f1(targets, answer.text),
            is_exact((*targets, *one.writable_targets), answer.text),
            *((calls.name, calls.arguments) if calls else (0, 0)),
        )
        weights[row, 0] = one.n_target_tokens
        weights[row, -len(TOOL_KINDS) :] = calls is not None
        tell(row + 1)
    return Sums(values, weights)


class Rouge:
    """F1 of ROUGE-1, -2 and -L (Lin 2004; Google's rouge_score with Porter's stemmer, as in the T5 papers).

    It reads a–z and 0–9 alone: words in other letters count for nothing.
    """

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer  # some 50 MB with nltk, needed at the end of a run only

        self._scorer = RougeScorer(list(ROUGE_KINDS), use_stemmer=True)

    def f1(self, targets: Sequence[str], written: str) -> tuple[float, ...]:
        """F1 (0…1) per kind of ROUGE_KINDS: against the target that it is highest for, each kind by itself."""
        best = self._scorer.score_multi(targets, written)
        return tuple(float(best[kind].fmeasure) for kind in ROUGE_KINDS)


def rouge(references: Sequence[tuple[str, ...]], written: Sequence[str]) -> dict[str, float]:
    """Mean F1 (0…1) by kind over written texts, each with its right answers, of which the nearest counts."""
    scorer = Rouge()
    scores = [scorer.f1(targets, text) for targets, text in zip(references, written, strict=True)]
    return {kind: sum(score[i] for score in scores) / len(scores) for i, kind in enumerate(ROUGE_KINDS)}


def exact_match(references: Sequence[tuple[str, ...]], written: Sequence[str]) -> float:
    """Share of the written texts that are one of their right answers."""
    return sum(is_exact(targets, text) for targets, text in zip(references, written, strict=True)) / len(written)


def has_rouge_words(text: str) -> bool:
    """Whether ROUGE finds anything to compare in the text."""
    return _ROUGE_WORD.search(text) is not None


def is_exact(targets: Sequence[str], written: str) -> bool:
    """Whether the text is one of the targets, up to spaces and line ends: they are stripped, and each run is one."""
    return squeezed(written) in map(squeezed, targets)


def squeezed(text: str) -> str:
    """The text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())
