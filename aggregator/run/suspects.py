"""Of whose updates a defence leaves little: for people to look at. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aggregator.merge.defences.defended import Defended
from aggregator.merge.rules import Rule
from aggregator.store.records import Answer

DOUBTED = 0.5
"""A board that keeps less of its influence on a round is named."""


def doubted(rule: Rule[Any], total: Any, answers: Iterable[Answer]) -> dict[str, float]:
    """What is left of the influence of each device that is doubted, 0 to DOUBTED; none without a defence.

    `answers`: those of the round in order of arrival, of which the accepted ones are in `total`. Costs what the defence
    costs.
    """
    if not isinstance(rule, Defended):
        return {}
    devices = [answer.device for answer in answers if answer.accepted]
    trust = rule.believed(total).trust
    return {device: left for device, left in zip(devices, trust, strict=True) if left < DOUBTED}
