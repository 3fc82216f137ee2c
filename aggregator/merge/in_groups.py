"""A round's merge, a group of weights after the other: its sums never take more memory than one group's.

Rules treat every weight by itself, so that a version made in groups is, bit for bit, the one made at once: the boards
are folded in the same order, and each is added at the same weight, also where it trained nothing of a group. A defence
compares whole boards, and gets one group of everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aggregator.merge.rules import Rule, folded
from aggregator.merge.state import AdapterState, WeightState
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution

GROUP_VALUES = 8 << 20
"""Entries of a group's weights. Their sums take 4.5 bytes for each, while one is multiplied out 4 more: 72 MB."""

Boards = Callable[[Sequence[str]], Iterable[Contribution]]
"""Gives the boards of a round, in the order in which they are summed, with what they did to these weights alone."""


def groups_of(state: AdapterState, most_values: int = GROUP_VALUES) -> Iterator[tuple[str, ...]]:
    """The names of the weights in groups, in the state's order, of so many entries at most; a larger one is alone."""
    return grouped({name: weight.shape for name, weight in state.weights.items()}, most_values)


def grouped(shapes: Mapping[str, tuple[int, int]], most_values: int = GROUP_VALUES) -> Iterator[tuple[str, ...]]:
    """The same of weights of which nothing but their shapes is known."""
    group: list[str] = []
    n_values = 0
    for name, (rows, columns) in shapes.items():
        if group and n_values + rows * columns > most_values:
            yield tuple(group)
            group, n_values = [], 0
        group.append(name)
        n_values += rows * columns
    if group:
        yield tuple(group)


def merged_in_groups(
    rule: Rule[Any], state: AdapterState, boards: Boards, settings: MergeSettings, most_values: int = GROUP_VALUES
) -> AdapterState:
    """The next version of a round of these boards.

    Args:
        rule: the merge rule, without a defence.
        state: the newest version.
        boards: those of the round; asked once for each group.
        settings: of the merge.
        most_values: entries of a group's weights.

    Raises:
        ValueError, LinAlgError: there is no next version: no board came, or what they sent cannot be merged.
    """
    weights: dict[str, WeightState] = {}
    ranked_at = state.ranked_at
    for names in groups_of(state, most_values):
        part = replace(state, weights=_chosen(state.weights, names))
        total = folded(rule, boards(names))
        if total is None:
            raise ValueError("a round without updates cannot be merged")
        after = rule.merge(part, total, settings)
        weights.update(after.weights)
        ranked_at = max(ranked_at, after.ranked_at)
        del total, after, part  # or they live until the next group's are made
    return AdapterState(version=state.version + 1, weights=weights, ranked_at=ranked_at)


def restricted(board: Contribution, names: Sequence[str]) -> Contribution:
    """The contribution of a board to these weights alone; it counts as much as before."""
    return replace(
        board,
        strands=_chosen(board.strands, names),
        start=_chosen(board.start, names),
        sketches=_chosen(board.sketches, names),
        shares=_chosen(board.shares, names),
    )


def _chosen(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}
