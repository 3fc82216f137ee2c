"""Server optimisers compared: each on the same simulated fleets, its step chosen on a small grid.

    python -m benchmarks.merge_rules.optimisers --json optimisers.json --learning-rate 0.008

Fleets of benchmarks.simulation.federation under the default rule, otherwise as in benchmarks.merge_rules. A server's
step is tried at its default, a tenth, a third and three times of it, with a seed that no other run uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from aggregator.merge.optimisers import OPTIMISERS
from benchmarks.merge_rules.tables import REFERENCE
from benchmarks.simulation.fleet_options import add_fleet_options, fleet_of
from benchmarks.simulation.histories import QUICK, difference, fleets, mean_loss, worst_loss
from benchmarks.simulation.setting import History, Setting
from benchmarks.study.cli import command, study_parser
from benchmarks.study.tables import spread, table

SEEDS = (1, 2, 3)
FACTORS = (0.1, 1 / 3, 1.0, 3.0)


def tuning(optimiser: str, base: Setting, factors: Sequence[float]) -> Iterator[Setting]:
    """Runs that try an optimiser's steps: its default times each of `factors`."""
    for factor in factors:
        eta = OPTIMISERS[optimiser].eta * factor
        yield msgspec.structs.replace(base, seed=0, optimiser=optimiser, eta=eta, evaluate_every=10)


def best_eta(histories: Sequence[History]) -> float:
    """The step with the lowest mean loss after the last round."""
    return min((run for run in histories if not run.failed), key=mean_loss).setting.eta


def row(name: str, tuned: Sequence[History], histories: Sequence[History], reference: Sequence[History]) -> list[str]:
    """An optimiser's cells: loss by step, the step chosen, loss with it, and differences from `reference`."""
    losses = ", ".join(
        f"{'diverged' if run.failed else f'{run.last.mean:.3f}'} at {run.setting.eta:.3g}" for run in tuned
    )
    deltas = [
        None if histories is reference else difference(histories, reference, of) for of in (mean_loss, worst_loss)
    ]
    return [
        name,
        losses,
        f"{histories[0].setting.eta:.3g}",
        spread([mean_loss(history) for history in histories]).text(3),
        *("" if delta is None else delta.text(3) for delta in deltas),
    ]


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--rule", default=REFERENCE)
    parser.add_argument(
        "--learning-rate", type=float, required=True, help="the rule's, as benchmarks.merge_rules found it"
    )
    add_fleet_options(parser)
    options = parser.parse_args()
    base = Setting(rule=options.rule, learning_rate=options.learning_rate, seed=0, **fleet_of(options))
    base = msgspec.structs.replace(base, **(QUICK if options.quick else {}))
    seeds, factors = (SEEDS[:2], (1.0,)) if options.quick else (SEEDS, FACTORS)
    with fleets(options) as study:
        study.run(setting for name in OPTIMISERS for setting in tuning(name, base, factors))
        tuned = {name: study.known(tuning(name, base, factors)) for name in OPTIMISERS}
        wanted = {
            name: [
                msgspec.structs.replace(base, seed=seed, optimiser=name, eta=best_eta(tuned[name])) for seed in seeds
            ]
            for name in OPTIMISERS
        }
        study.run(setting for settings in wanted.values() for setting in settings)
        runs = {name: study.known(settings) for name, settings in wanted.items()}
        ground = study.ground
    columns = ["", "loss by step", "step", "loss", "less none's", "in the worst tenth"]
    print(f"`{command('benchmarks.merge_rules.optimisers')}`, {ground}\n")
    print(table(columns, (row(name, tuned[name], runs[name], runs["none"]) for name in OPTIMISERS)))


if __name__ == "__main__":
    main()
