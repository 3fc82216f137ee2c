"""Suspects: boards of whose update a defence left little, for people to look at. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aggregator.merge.defences.defended import Defended
from aggregator.merge.rules import Rule
from aggregator.store.records import Answer

SUSPECT_BELOW = 0.5
"""A board that keeps less of its influence on a round is named."""


def suspects(rule: Rule[Any], total: Any, answers: Iterable[Answer]) -> dict[str, float]:
    """The influence left to each device that a defence mistrusts, 0 to SUSPECT_BELOW; empty without a defence.

    Costs what the defence costs.

    Args:
        rule: the run's merge rule.
        total: its sums of the round.
        answers: those of the round in order of arrival, of which the accepted ones are in `total`.
    """
    if not isinstance(rule, Defended):
        return {}
    devices = [answer.device for answer in answers if answer.accepted]
    trust = rule.filtered(total).trust
    return {device: left for device, left in zip(devices, trust, strict=True) if left < SUSPECT_BELOW}
