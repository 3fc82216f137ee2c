"""The whole of a chaos run: the fleet with faults, the same fleet without any, and what the two say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.federation import Chaos, Federation, Outcome, Plan
from chaos.ledger import Acknowledged
from chaos.verdict import Stored, first_difference, lost, read_store, twice

BUGS = (1, -6, -11)
"""Ends that are bugs: a program's own word for one, an abort, a segmentation fault."""

STAYS_DOWN: Mapping[str, Sequence[int]] = {"server": (2, 3, 4, 5, 8), "board": (2, 3, 4, 5, 6, 7, 9, 12)}
"""Ends after which the shipped units start nothing again (RestartPreventExitStatus in deploy/*.service)."""


@dataclass(frozen=True, slots=True)
class Result:
    """The findings of a chaos run.

    Attributes:
        outcome: of the fleet with faults.
        stored: by its server, at the end.
        lost: updates that were acknowledged and do not count.
        twice: updates that count more than once.
        missing: kinds of faults that have not fired.
        is_compared: whether the fleet without faults was run.
        difference: the first version that differs from that fleet's; None for none.
    """

    plan: Plan
    outcome: Outcome
    stored: Stored
    lost: tuple[Acknowledged, ...]
    twice: tuple[Acknowledged, ...]
    missing: frozenset[str]
    is_compared: bool
    difference: int | None

    @property
    def bugs(self) -> dict[str, int]:
        """How often each process ended by what only a bug ends it."""
        ends = self.outcome.ends.items()
        counts = {name: sum(count for status, count in each.items() if status in BUGS) for name, each in ends}
        return {name: count for name, count in counts.items() if count}

    @property
    def stayed_down(self) -> dict[str, int]:
        """How often each process ended so that it would have waited for a person."""
        counts = {}
        for name, ends in self.outcome.ends.items():
            final = STAYS_DOWN["server" if name == "server" else "board"]
            counts[name] = sum(count for status, count in ends.items() if status in final)
        return {name: count for name, count in counts.items() if count}

    @property
    def is_good(self) -> bool:
        """Whether the run ended, lost nothing, counted nothing twice, refused nothing and made the same model."""
        is_whole = not self.outcome.is_stuck and self.stored.rounds > 0
        is_same = self.is_compared and self.difference is None
        return is_whole and is_same and not (self.lost or self.twice or self.outcome.ledger.refused or self.bugs)


async def run_suite(
    folder: Path, plan: Plan, chaos: Chaos, on_round: Callable[[str, int, Federation], None] = lambda *_: None
) -> Result:
    """Run the fleet with faults and then without.

    The second one passes uploads on in the order in which the first one's counted: sums are rounded by their order.

    Args:
        folder: an empty one, for both.
        plan: how large the run is.
        chaos: the faults.
        on_round: hears which of the two is running, how many rounds every board has sent, and the fleet.
    """
    with_faults, without = folder / "faults", folder / "faultless"
    for each in (with_faults, without):
        each.mkdir()
    fleet = Federation(with_faults, plan, chaos)
    outcome = await fleet.run(lambda rounds: on_round("with faults", rounds, fleet))
    stored = read_store(outcome.folder)
    difference, is_compared = None, False
    if not outcome.is_stuck:
        same = Federation(without, replace(plan, rounds=stored.rounds), order=stored.order)
        faultless = await same.run(lambda rounds: on_round("without faults", rounds, same))
        difference, is_compared = first_difference(stored, read_store(faultless.folder)), not faultless.is_stuck
    acknowledged = outcome.ledger.acknowledged
    return Result(
        plan,
        outcome,
        stored,
        lost=tuple(lost(acknowledged, stored)),
        twice=tuple(twice(stored)),
        missing=fleet.missing(),
        is_compared=is_compared,
        difference=difference,
    )
