"""Rounds of a simulated fleet in which boards are missing, or deliver a round late."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from aggregator.merge.sums import Contribution
from aggregator.run.staleness import staleness_weight
from benchmarks.simulation.federation import Federation
from benchmarks.simulation.setting import Setting
from braid_common.seeds import derive_seed

STALENESS_POWER = 0.5
"""The server's default: a late update weighs 1/√2."""


def present(setting: Setting, n_boards: int, round_id: int) -> tuple[list[int], list[int]]:
    """The boards that train in a round and deliver in it, and those that deliver in the next; both in order. One board
    at least delivers: an empty round would be held open. Drawn by the run's seed and the round."""
    draw = random.Random(derive_seed(setting.seed, "deliveries", round_id))
    chances = [(draw.random(), draw.random()) for _ in range(n_boards)]
    here = [board for board, (missing, _) in enumerate(chances) if missing >= setting.missing]
    here = here or [draw.randrange(n_boards)]
    late = [board for board in here if chances[board][1] < setting.late]
    late = late[1:] if len(late) == len(here) else late
    return [board for board in here if board not in late], late


class Deliveries:
    """Runs the rounds of a fleet that has begun.

    A late update says what to add to the model where the rule's updates do (`Traits.is_change`), and counts in the next
    round for less, as on a server with `staleness_limit = 1`; under another rule it is lost, as there.
    """

    def __init__(self, setting: Setting, fleet: Federation) -> None:
        self._setting, self._fleet = setting, fleet
        self._late: list[Contribution] = []

    def run_round(self) -> None:
        """One round of the boards that take part in it."""
        fleet, setting = self._fleet, self._setting
        if not (setting.missing or setting.late):
            fleet.run_round()
            return
        on_time, late = present(setting, len(fleet.boards), fleet.round + 1)
        boards = sorted([*on_time, *late])
        added = dict(zip(boards, map(fleet.contribution, fleet.updates(boards)), strict=True))
        arrived = [*self._late, *(added[board] for board in on_time)]
        self._late = list(_stale(added[board] for board in late)) if fleet.rule.TRAITS.is_change else []
        fleet.merge(arrived)


def _stale(contributions: Iterable[Contribution]) -> Iterable[Contribution]:
    weight = staleness_weight(1, STALENESS_POWER)
    return (replace(one, weight=one.weight * weight, staleness=1) for one in contributions)
