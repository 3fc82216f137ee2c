"""Mixtures of batches: how many of each kind a step takes, which tasks from text, and how long their sources are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of the kinds of batches; one more batch of a step is programmatic.

    Attributes:
        n_span: batches of a step in which spans are restored, two at most.
        n_text: batches of tasks made from text, two at most.
        tasks: how often each task made from text is drawn.
        source_lengths: longest sources of a batch of those, in tokens, and how often.
    """

    n_span: int
    n_text: int
    tasks: Mapping[str, float]
    source_lengths: tuple[tuple[int, float], ...]


STABLE = Mixture(
    n_span=2,
    n_text=1,
    tasks={
        "summary": 0.46,
        "next_sentence": 0.06,
        "first_sentence": 0.06,
        "title": 0.06,
        "keywords": 0.05,
        "parameter": 0.07,
        "returns": 0.06,
        "raises": 0.03,
        "body": 0.05,
        "code": 0.06,
        "answer": 0.04,
    },
    source_lengths=((96, 0.5), (144, 0.3), (224, 0.1), (320, 0.1)),
)
"""Of the main line: half language, half tasks. First sentences say the most and cost the least."""

DECAY = Mixture(
    n_span=1,
    n_text=2,
    tasks={**{task: share / 2 for task, share in STABLE.tasks.items()}, "summary": 0.73},
    source_lengths=((96, 0.25), (144, 0.3), (192, 0.3), (320, 0.15)),
)
"""Of a branch that is to be shipped: three quarters tasks, and most of them what boards ask, at the lengths of their
texts. What is learnt while the rate falls stays best (arXiv 2404.06395, section 5)."""
