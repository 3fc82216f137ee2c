"""Settings of the runs that compare merge rules, and the choice of every case's learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.merge_rules.cases import Case, case_of, settings_of
from benchmarks.simulation.histories import Fleets
from benchmarks.simulation.setting import History, Setting
from benchmarks.simulation.texts import FORMS

LEARNING_RATES = (0.004, 0.008, 0.016, 0.032)
MOST_EXTENSIONS = 3
"""How often the grid is extended at an edge, each time by a factor of two."""

TUNING_SEED = 0
"""Of the runs on which learning rates are chosen. No other run has it."""

SEEDS = (1, 2, 3)
N_WRITTEN = 6
"""Texts per board for ROUGE-L, after the last round."""

VARIED: Mapping[str, tuple[dict[str, Any], ...]] = {
    "weave": (
        *({"server_rank": rank} for rank in (8, 16, 64)),
        *({"eta": eta} for eta in (0.5, 1.5)),
    ),
    "braid": (
        *({"server_rank": rank} for rank in (8, 16, 64)),
        *({"sketch_every": every} for every in (1, 5, 100)),
        *({"local_steps": steps} for steps in (1, 2, 10)),
        *({"sketch_noise": noise} for noise in (0.3, 1.0, 3.0)),
        *({"eta": eta} for eta in (0.5, 1.5, 2.0)),
    ),
}
"""Changes of a rule's settings, one thing at a time. sketch_every 100: the profiles' basis stays."""

LONG = {"local_steps": 20, "n_train": 400}
"""Rounds as long as the server's default has them, on as much more text."""

Changes = Mapping[str, int]
"""Values of settings that all runs of a study have in place of the defaults."""


def tuning(case: Case, learning_rate: float, changes: Changes) -> Setting:
    """A run that tries a learning rate for a case, and is evaluated at its end."""
    setting = _setting(case, learning_rate, TUNING_SEED, changes)
    return msgspec.structs.replace(setting, evaluate_every=setting.rounds)


def _setting(case: Case, learning_rate: float, seed: int, changes: Changes) -> Setting:
    setting = Setting(
        **settings_of(case.contestant),
        learning_rate=learning_rate,
        seed=seed,
        mix=case.mix,
        partition=case.partition,
        **FORMS.get(case.partition, {}),
    )
    return msgspec.structs.replace(setting, **changes)


def traffic(of: Setting) -> Setting:
    """A fleet that sends what a compared one does, and learns next to nothing.

    Bytes follow from shapes, ranks and what changed, not from what was learned. Downloads are differences, as they are
    between real machines.
    """
    return Setting(
        rule=of.rule,
        learning_rate=0.004,
        seed=0,
        mix=of.mix,
        rank_factor=of.rank_factor,
        max_rank=of.max_rank,
        rounds=of.rounds,
        local_steps=1,
        n_train=8,
        n_held_out=1,
        differences=True,
    )


def with_traffic(history: History, measured: History) -> History:
    """The losses of `history` beside the bytes of `measured`."""
    by_round = {point.round: point for point in measured.points}
    points = tuple(
        msgspec.structs.replace(
            point, up_bytes=by_round[point.round].up_bytes, down_bytes=by_round[point.round].down_bytes
        )
        for point in history.points
    )
    return msgspec.structs.replace(history, points=points)


def with_measured_traffic(fleets: Fleets, histories: Sequence[History]) -> list[History]:
    """The histories with the bytes of differences, as real fleets send them; what these are is run once for each rule
    and mix."""
    senders = [traffic(run.setting) for run in histories]
    measured = {run.setting: run for run in fleets.run(dict.fromkeys(senders))}
    return [with_traffic(run, measured[sender]) for run, sender in zip(histories, senders, strict=True)]


def best_rate(histories: Iterable[History]) -> float:
    """The learning rate with the lowest mean loss after the last round; of equals the smaller one."""
    finished = [history for history in histories if not history.failed]
    return min(finished, key=lambda history: (history.last.mean, history.setting.learning_rate)).setting.learning_rate


def extension(rates: Sequence[float], best: float) -> float | None:
    """The next rate to try where the best is the largest or the smallest tried; None where it is neither."""
    if best == max(rates):
        return best * 2
    return best / 2 if best == min(rates) else None


def tune(
    fleets: Fleets, wanted: Sequence[Case], grid: Sequence[float], changes: Changes, most_extensions: int
) -> tuple[dict[Case, float], list[History]]:
    """Every case's learning rate, and the runs that decided."""
    tried = {case: list(grid) for case in wanted}
    for _ in range(1 + most_extensions):
        tuned = fleets.run(tuning(case, rate, changes) for case in wanted for rate in tried[case])
        best = {case: best_rate(run for run in tuned if case_of(run.setting) == case) for case in wanted}
        wider = {case: extension(tried[case], best[case]) for case in wanted}
        for case, rate in wider.items():
            tried[case] += [] if rate is None else [rate]
        if not any(wider.values()):
            break
    return best, tuned


def known_choice(fleets: Fleets, wanted: Sequence[Case], changes: Changes) -> tuple[dict[Case, float], list[History]]:
    """Every case's learning rate by the runs that were made, and these; a case of which there is none is left out."""
    by_case: dict[Case, list[History]] = {case: [] for case in wanted}
    for run in fleets.histories:
        case = case_of(run.setting)
        if case in by_case and run.setting == tuning(case, run.setting.learning_rate, changes):
            by_case[case].append(run)
    best = {case: best_rate(runs) for case, runs in by_case.items() if not all(run.failed for run in runs)}
    return best, [run for runs in by_case.values() for run in runs]


def main_settings(rates: Mapping[Case, float], changes: Changes) -> Iterator[Setting]:
    """Every case at its rate; a fleet's first seeds first, so that a study that is stopped has whole comparisons."""
    for mix, partition in dict.fromkeys((case.mix, case.partition) for case in rates):
        for seed in SEEDS:
            for case, rate in rates.items():
                if (case.mix, case.partition) == (mix, partition):
                    yield msgspec.structs.replace(_setting(case, rate, seed, changes), n_written=N_WRITTEN)


def varied_settings(case: Case, rate: float, changes: Changes) -> Iterator[Setting]:
    """The rule as it is, and with each of its variations, whose words come after those of `changes`."""
    for variation in ({}, *VARIED[case.contestant]):
        for seed in SEEDS:
            setting = _setting(case, rate, seed, changes)
            yield msgspec.structs.replace(setting, n_written=N_WRITTEN, **variation)
