"""Cases of the comparison: merge rules, each on the mixes of ranks that it can merge."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.simulation.setting import History, Mix

Case = tuple[str, Mix]
"""A rule on a mix of ranks."""

SAME = {"flora": "fresh"}
"""Without a server step they are one mathematics (aggregator/merge/rules/flora.py), to the last bit: run once."""


def rules_of(mix: Mix) -> list[str]:
    """The rules that can merge such a fleet."""
    from aggregator.merge.rules import RULES

    fitting = [name for name, rule in RULES.items() if mix == "equal" or not rule.TRAITS.needs_equal_ranks]
    return [name for name in fitting if name not in SAME]


def cases(rules: Sequence[str], mixes: Sequence[Mix]) -> list[Case]:
    """Every one of these rules on every one of these mixes that it can merge."""
    return [(rule, mix) for mix in mixes for rule in rules_of(mix) if rule in rules]


def case_of(history: History) -> Case:
    """The case that a run belongs to."""
    return history.setting.rule, history.setting.mix
