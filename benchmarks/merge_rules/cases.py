"""Cases of the comparison: merge rules, by themselves and with a setting beside, on the mixes of ranks that they can
merge and on partitions of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.simulation.setting import Mix, Setting
from benchmarks.simulation.texts import Partition


class Case(NamedTuple):
    """A contestant on a mix of ranks and a partition of text."""

    contestant: str
    mix: Mix
    partition: Partition


COMBINED: Mapping[str, Mapping[str, Any]] = {
    "fedsvd+cooldown": {"rule": "fedsvd", "cooldown": 0.5},
    "fedsvd+double": {"rule": "fedsvd", "rank_factor": 2, "max_rank": 32},
    "fedsvd+sketched": {"rule": "fedsvd", "basis": "sketched"},
    "fedhl": {"rule": "delta", "drift": 3.0},
    "prelort": {"rule": "rank-partitioned", "nested": 3},
    "weave+cooldown": {"rule": "weave", "cooldown": 0.5},
    "weave+drawn": {"rule": "weave", "basis": "drawn"},
    "weave+drift": {"rule": "weave", "drift": 3.0},
    "weave+nested": {"rule": "weave", "nested": 3},
}
"""Contestants that are a rule with something beside it: published methods that are made of two parts here, and the same
parts beside weave; two rules with a falling learning rate; the first basis of one in the place of the other's; and B
alone on twice the strands, which takes as many trained and sent values as A and B."""

_BESIDE = sorted({name for settings in COMBINED.values() for name in settings} - {"rule"})
_PLAIN = Setting(rule="", learning_rate=0, seed=0)

SAME = {"flora": "fresh"}
"""Without a server step they are one mathematics (aggregator/merge/rules/flora.py), to the last bit: run once."""


def settings_of(contestant: str) -> Mapping[str, Any]:
    """The settings that make a contestant: its rule, and what is beside it."""
    return COMBINED.get(contestant, {"rule": contestant})


def contestant_of(setting: Setting) -> str:
    """The contestant that a run belongs to."""
    beside = {name: getattr(setting, name) for name in _BESIDE}
    found = {"rule": setting.rule} | {name: it for name, it in beside.items() if it != getattr(_PLAIN, name)}
    return next((name for name, settings in COMBINED.items() if settings == found), setting.rule)


def rules_of(mix: Mix) -> list[str]:
    """The contestants that can merge such a fleet."""
    from aggregator.merge.rules import RULES

    fitting = [name for name, rule in RULES.items() if mix == "equal" or not rule.TRAITS.needs_equal_ranks]
    combined = [name for name, settings in COMBINED.items() if settings["rule"] in fitting]
    return [name for name in fitting if name not in SAME] + combined


def cases(rules: Sequence[str], mixes: Sequence[Mix], partitions: Sequence[Partition]) -> list[Case]:
    """Every one of these contestants on every partition, and on every one of these mixes that it can merge."""
    return [
        Case(rule, mix, partition)
        for partition in partitions
        for mix in mixes
        for rule in rules_of(mix)
        if rule in rules
    ]


def case_of(setting: Setting) -> Case:
    """The case that a run belongs to."""
    return Case(contestant_of(setting), setting.mix, setting.partition)
