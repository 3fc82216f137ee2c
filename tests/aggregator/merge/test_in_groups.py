"""Merging a group of weights after the other: the same bits as all at once, whatever the rule and the groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from aggregator.merge.in_groups import groups_of, merged_in_groups, restricted
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.rules import RULES, Rule, folded
from aggregator.merge.state import encode_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from tests.reference.board import work
from tests.reference.rounds import MAX_RANK, begun, fleet
from wire.run import Weight

pytestmark = pytest.mark.slow  # every pair of rules and defences


@pytest.mark.parametrize("most_values", [1, 400, 1 << 40])
@pytest.mark.parametrize("name", RULES)
def test_groups_change_no_bit(name: str, weights: tuple[Weight, ...], most_values: int) -> None:
    """Unequal ranks, boards that leave out weights, late updates where the rule takes them, and so many that sums are
    multiplied out; three rounds, each on the one before."""
    rule: Rule[Any] = RULES[name]
    settings = MergeSettings(server_rank=10, max_rank=MAX_RANK, optimiser=OPTIMISERS["momentum"])
    state = older = begun(rule, weights)
    for round_id in range(3):
        boards = [
            work(rule, state, board).contribution for seed in range(4) for board in fleet(rule, 10 * round_id + seed)
        ]
        if rule.TRAITS.is_change and older is not state and rule.TRAITS.cycle != ("b", "a"):
            boards += [work(rule, older, board, staleness=1).contribution for board in fleet(rule, 99)]
        total = folded(rule, boards)
        whole = rule.merge(state, total, settings)

        def chosen(names: Sequence[str], boards: Sequence[Contribution] = boards) -> Iterator[Contribution]:
            return (restricted(board, names) for board in boards)

        assert encode_state(merged_in_groups(rule, state, chosen, settings, most_values)) == encode_state(whole)
        older, state = state, whole


def test_groups_hold_every_weight_once_in_order(weights: tuple[Weight, ...]) -> None:
    """As many together as the limit allows, and one that is larger alone."""
    state = begun(RULES["weave"], weights)
    names = [weight.name for weight in weights]
    sizes = [weight.rows * weight.columns for weight in weights]

    assert [name for group in groups_of(state, 1) for name in group] == names
    assert [len(group) for group in groups_of(state, 1)] == [1] * len(names)
    assert list(groups_of(state, sum(sizes))) == [tuple(names)]
    assert next(iter(groups_of(state, sizes[0] + sizes[1]))) == tuple(names[:2])


def test_a_round_of_nobody_cannot_be_merged(weights: tuple[Weight, ...]) -> None:
    """There is no mean of nothing."""
    rule = RULES["weave"]
    with pytest.raises(ValueError, match="without updates"):
        merged_in_groups(rule, begun(rule, weights), lambda _: [], MergeSettings(server_rank=4, max_rank=4))
