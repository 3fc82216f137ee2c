"""Merge rules under budgets and in trouble, by the protocols of EdgeFlowerTune (arXiv 2605.08636).

    python -m benchmarks.merge_rules.protocols --json rules.json     # beside the runs of benchmarks.merge_rules

Quality under a budget: the loss of a fleet when it has spent so many bytes, or so many CPU seconds of training (energy
is these times a board's watts), and of one whose boards may train so many values (each takes 16 bytes of memory with
its gradient and Adam's averages). Cost to a target: bytes and CPU seconds to a part of the best rule's gain.
Robustness: the same fleets where boards miss rounds or deliver a round late. Bad boards are benchmarks.attacks.

Fleets are those of benchmarks.merge_rules on one partition, with each rule's learning rate as found there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, get_args

import msgspec

from benchmarks.merge_rules.cases import Case, cases, contestant_of, rules_of
from benchmarks.merge_rules.settings import (
    LEARNING_RATES,
    MOST_EXTENSIONS,
    main_settings,
    tune,
    with_measured_traffic,
)
from benchmarks.merge_rules.tables import REFERENCE, cost_cell, spread_cell, target_loss
from benchmarks.simulation.histories import (
    QUICK,
    Cost,
    difference,
    fleets,
    loss_within,
    mean_loss,
    total_bytes,
    training_s,
)
from benchmarks.simulation.setting import History, Mix, Setting
from benchmarks.simulation.texts import Partition
from benchmarks.study.cli import command, study_parser
from benchmarks.study.tables import spread, table

MIX: Mix = "uniform"
VALUES = (60_000, 240_000)
"""Trained values of a board: 1 and 4 MB of memory."""

TROUBLES: Mapping[str, Mapping[str, float]] = {
    "30 % miss a round": {"missing": 0.3},
    "30 % a round late": {"late": 0.3},
}

SHARES = (0.5, 1.0)
"""Parts of what the cheapest rule spends in the whole run, at which losses are compared."""

COSTS: tuple[tuple[Cost, float], ...] = ((total_bytes, 1e6), (training_s, 1.0))
"""What a fleet spends, and the unit in which tables say it."""

Runs = Mapping[str, Sequence[History]]
"""By contestant, a history per seed."""


def main() -> None:
    options = _options()
    with fleets(options) as study:
        changes = QUICK if options.quick else {}
        wanted = cases(options.rules or rules_of(MIX), (MIX, "equal"), [options.partition])
        rates, _ = tune(study, wanted, LEARNING_RATES, changes, MOST_EXTENSIONS)
        plain = [setting for setting in main_settings(rates, changes) if setting.mix == MIX]
        print(f"`{command('benchmarks.merge_rules.protocols')}`, {study.ground}; {options.partition}, ranks {MIX}\n")
        runs = _by_contestant(with_measured_traffic(study, study.run(plain)))
        print(f"{budget_table(runs)}\n\n{target_table(runs)}\n")
        within = study.run(of_values(rates, changes))
        print(f"{values_table(within)}\n")
        print(trouble_table(runs, study.run(troubled(plain))))


def _by_contestant(histories: Sequence[History]) -> Runs:
    runs: dict[str, list[History]] = {}
    for history in histories:
        runs.setdefault(contestant_of(history.setting), []).append(history)
    return runs


def of_values(rates: Mapping[Case, float], changes: Mapping[str, int]) -> Iterator[Setting]:
    """Fleets whose boards train as many values, whatever their rule trains, at the rates of equal ranks."""
    equal = {case: rate for case, rate in rates.items() if case.mix == "equal"}
    for n_values in VALUES:
        for setting in main_settings(equal, changes):
            yield msgspec.structs.replace(setting, n_values=n_values, n_written=0)


def troubled(plain: Sequence[Setting]) -> Iterator[Setting]:
    """The same fleets in each trouble."""
    for changes in TROUBLES.values():
        for setting in plain:
            yield msgspec.structs.replace(setting, n_written=0, **changes)


# --- tables -----------------------------------------------------------------------------------------------------------


def budget_table(runs: Runs) -> str:
    """Losses at equal bytes and at equal CPU seconds."""
    columns: list[tuple[str, Cost, float]] = []
    for (cost, scale), unit in zip(COSTS, ("MB", "CPU s"), strict=True):
        whole = min(fmean(cost(history.last) for history in each) for each in runs.values())
        columns += [(f"at {share * whole / scale:.0f} {unit}", cost, share * whole) for share in SHARES]
    rows = [
        [rule, *(spread([loss_within(run, budget, cost) for run in each]).text(3) for _, cost, budget in columns)]
        for rule, each in runs.items()
    ]
    return table(["", *(title for title, _, _ in columns)], rows)


def target_table(runs: Runs) -> str:
    """Bytes and CPU seconds to the target."""
    target = target_loss([run for each in runs.values() for run in each], runs)
    rows = [[rule, *(cost_cell(each, target, cost, scale) for cost, scale in COSTS)] for rule, each in runs.items()]
    return table(["", f"MB to {target:.3f}", "CPU s to it"], rows)


def values_table(histories: Sequence[History]) -> str:
    """Losses of fleets whose boards train at most so many values."""
    rules = dict.fromkeys(contestant_of(run.setting) for run in histories)
    rows = []
    for rule in rules:
        cells = []
        for n_values in VALUES:
            own, reference = (_of(histories, name, n_values=n_values) for name in (rule, REFERENCE))
            cells += [_last_loss(own), "" if rule == REFERENCE else _difference(own, reference)]
        rows.append([rule, *cells])
    titles = [title for n in VALUES for title in (f"{16 * n / 1e6:.0f} MB a board", f"less {REFERENCE}'s")]
    return table(["", *titles], rows)


def trouble_table(runs: Runs, histories: Sequence[History]) -> str:
    """Losses in each trouble, and how much they are above those without."""
    rows = []
    for rule, plain in runs.items():
        cells = [_last_loss(plain)]
        for changes in TROUBLES.values():
            own = _of(histories, rule, **changes)
            cells += [_last_loss(own), _difference(own, plain)]
        rows.append([rule, *cells])
    return table(["", "as it is", *(title for name in TROUBLES for title in (name, "more"))], rows)


def _of(histories: Sequence[History], rule: str, **values: Any) -> list[History]:
    return [
        run
        for run in histories
        if contestant_of(run.setting) == rule and all(getattr(run.setting, n) == value for n, value in values.items())
    ]


def _last_loss(runs: Sequence[History]) -> str:
    return spread_cell(runs, mean_loss, 3) if runs else "–"


def _difference(own: Sequence[History], reference: Sequence[History]) -> str:
    delta = difference(own, reference, mean_loss)
    return "" if delta is None else delta.text(3)


def _options() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--partition", choices=get_args(Partition), default="library")
    parser.add_argument("--rules", nargs="+", help="these alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
