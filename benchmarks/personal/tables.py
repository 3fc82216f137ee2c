"""The tables of benchmarks.personal, in markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from benchmarks.personal.memory import Memory
from benchmarks.personal.methods import CONDITIONS, FLEETS
from benchmarks.personal.runs import Outcome, Run, Settings, mean, worst_tenth
from benchmarks.study.tables import paired, spread_text, table
from braid_common.units import MIB

MB = 1_000_000

Made = tuple[Run, Outcome]
"""A run, and one method's outcome in it."""


def losses_table(name: str, runs: Sequence[Run]) -> str:
    """The methods on one set: losses in nats per target token on the boards' own test text, mean ± standard deviation
    over seeds; the difference to "global" is by pairs of equal seeds, in bold where its 95 % interval leaves 0 out."""
    return table(
        [name, "global adapter", "board's own model", "its worst tenth", "own less global"], _losses_rows(runs)
    )


def _losses_rows(runs: Sequence[Run]) -> Iterator[list[str]]:
    of_global = {run.seed: mean(outcome.own) for run, outcome in _made(runs, "global")}
    if of_global:
        bases = [run.base for run, _ in _made(runs, "global")]
        yield ["base", "", spread_text(list(map(mean, bases)), 3), spread_text(list(map(worst_tenth, bases)), 3), ""]
    for condition in CONDITIONS:
        made = _made(runs, condition)
        if made:
            deltas = [mean(outcome.own) - of_global[run.seed] for run, outcome in made if run.seed in of_global]
            yield [
                condition,
                _over_seeds(made, lambda outcome: mean(outcome.global_)),
                _over_seeds(made, lambda outcome: mean(outcome.own)),
                _over_seeds(made, lambda outcome: worst_tenth(outcome.own)),
                paired(deltas).text(3) if condition != "global" and len(deltas) > 1 else "",
            ]


def costs_table(runs: Sequence[Run], memories: Sequence[Memory], settings: Settings) -> str:
    """The costs of a board in the whole run, mean over seeds and sets: steps, bytes, and memory as predicted by the
    planner and as measured."""
    columns = ["", "steps with the fleet", "own steps", "MB up", "MB down", "predicted MiB", "measured MiB", "ratio"]
    return table(columns, _costs_rows(runs, {memory.condition: memory for memory in memories}, settings))


def _costs_rows(runs: Sequence[Run], memories: dict[str, Memory], settings: Settings) -> Iterator[list[str]]:
    n_steps = settings.rounds * settings.local_steps
    for name, condition in CONDITIONS.items():
        made, memory = [run for run, _ in _made(runs, name)], memories.get(name)
        if made and memory:
            yield [
                name,
                str(n_steps),
                str(n_steps) if condition.has_own_steps else "0",
                f"{fmean(run.up_bytes / len(run.base) for run in made) / MB:.2f}",
                f"{fmean(run.down_bytes / len(run.base) for run in made) / MB:.2f}",
                f"{memory.predicted_bytes / MIB:.0f}",
                f"{memory.measured_bytes / MIB:.0f}",
                f"{memory.predicted_bytes / memory.measured_bytes:.2f}",
            ]


def _made(runs: Sequence[Run], condition: str) -> list[Made]:
    """The runs that have a method's outcome."""
    fleets = [fleet for fleet, conditions in FLEETS.items() if condition in conditions]
    return [
        (run, outcome)
        for run in runs
        if run.fleet in fleets
        for outcome in run.outcomes
        if outcome.condition == condition
    ]


def _over_seeds(made: Sequence[Made], value: Callable[[Outcome], float]) -> str:
    return spread_text([value(outcome) for _, outcome in made], 3)
