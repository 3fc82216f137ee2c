"""Advantages: how much better an answer is than others to the same source. Pure, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt

from wire.run import Advantage

DEVIATION_FLOOR = 1e-4
"""Added to a group's deviation, so that answers that are all but equally good have advantages near zero; the number
that Hugging Face's TRL takes."""


def advantages(rewards: Sequence[float], samples: int, kind: Advantage) -> list[float]:
    """The advantage of each answer within its group.

    Args:
        rewards: finite, of consecutive groups of `samples` answers each.
        samples: at least 2.
        kind: "group" gives (r - mean) / (deviation + DEVIATION_FLOOR), with the deviation of the group as it is
            (arXiv 2402.03300, equation 4 with outcome supervision). "baseline" gives r less the mean of the other
            answers, REINFORCE with a baseline that does not depend on the answer (arXiv 2402.14740).

    Returns:
        As many numbers, which sum to zero in each group.
    """
    each: list[float] = []
    for first in range(0, len(rewards), samples):
        group = rewards[first : first + samples]
        mean = fsum(group) / len(group)
        if kind == "group":
            deviation = sqrt(fsum((reward - mean) ** 2 for reward in group) / len(group))
            each += [(reward - mean) / (deviation + DEVIATION_FLOOR) for reward in group]
        else:  # r - (sum - r) / (G - 1) = (r - mean) · G / (G - 1)
            each += [(reward - mean) * len(group) / (len(group) - 1) for reward in group]
    return each
