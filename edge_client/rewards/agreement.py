"""Agreement of a reward model with people: accuracy beside that of always saying what most say, and the area under the
ROC curve. Pure, in double precision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

N_RESAMPLES = 2000
"""Bootstrap samples behind an interval: its ends vary by less than a tenth of its width."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well probabilities tell good answers from bad.

    Attributes:
        n_good, n_bad: answers of each kind.
        accuracy: share that is on the right side of 1/2.
        majority: the accuracy of calling all of them what most are.
        auc: the probability that a good answer is put above a bad one (a tie counts half); 1/2 is chance.
        auc_low, auc_high: 95 % interval of the auc, by resampling answers of each kind.
    """

    n_good: int
    n_bad: int
    accuracy: float
    majority: float
    auc: float
    auc_low: float
    auc_high: float


def agreement(probabilities: F64, is_good: NDArray[np.bool_], seed: int = 0) -> Agreement:
    """Compare probabilities (n,) with what people said (n,); both kinds of answers are there."""
    good, bad = probabilities[is_good], probabilities[~is_good]
    rng = np.random.default_rng(seed)
    resampled = [area(rng.choice(good, len(good)), rng.choice(bad, len(bad))) for _ in range(N_RESAMPLES)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Agreement(
        n_good=len(good),
        n_bad=len(bad),
        accuracy=float(np.mean((probabilities >= 0.5) == is_good)),
        majority=max(len(good), len(bad)) / len(is_good),
        auc=area(good, bad),
        auc_low=float(low),
        auc_high=float(high),
    )


def area(good: F64, bad: F64) -> float:
    """P(good above bad) + P(equal)/2, over all pairs: the Mann-Whitney statistic."""
    order = np.sort(bad)
    below, up_to = np.searchsorted(order, good, "left"), np.searchsorted(order, good, "right")
    return float((below + up_to).sum() / 2 / (len(good) * len(bad)))


@dataclass(frozen=True, slots=True)
class Ranked:
    """Pairs of a good and a bad answer to the same source, and the part of them (a tie counts half) in which the good
    one is put first; 1/2 where there are none."""

    n_pairs: int
    right: float


def same_source(probabilities: F64, is_good: NDArray[np.bool_], sources: Sequence[str]) -> Ranked:
    """Compare probabilities (n,) with what people said (n,) of answers to the same of `sources`, of which there are as
    many."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, source in enumerate(sources):
        places[source].append(i)
    n_pairs, n_right = 0, 0.0
    for group in places.values():
        good, bad = (probabilities[[i for i in group if is_good[i] == kind]] for kind in (True, False))
        if len(good) and len(bad):
            n_pairs += len(good) * len(bad)
            n_right += len(good) * len(bad) * area(good, bad)
    return Ranked(n_pairs, n_right / n_pairs if n_pairs else 0.5)
