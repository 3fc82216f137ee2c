"""Do server optimisers help? Each on the same simulated fleets, its step chosen on a small grid.

    python -m benchmarks.merge_rules.optimisers --json optimisers.json --learning-rate 0.008

Fleets of benchmarks.simulation.federation under the default rule, otherwise as in benchmarks.merge_rules. A server's
step is tried at its default, a tenth, a third and three times of it, with a seed that no other run uses."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from aggregator.merge.optimisers import OPTIMISERS
from benchmarks.simulation.setting import History, Setting
from benchmarks.study.cli import add_options, begin, command
from benchmarks.study.tables import difference, mean_loss, spread, table, worst_loss

SEEDS = (1, 2, 3)
FACTORS = (0.1, 1 / 3, 1.0, 3.0)


def tuning(optimiser: str, rule: str, learning_rate: float) -> Iterator[Setting]:
    for factor in FACTORS:
        eta = OPTIMISERS[optimiser].eta * factor
        yield Setting(rule=rule, learning_rate=learning_rate, seed=0, optimiser=optimiser, eta=eta, evaluate_every=10)


def best_eta(histories: Sequence[History]) -> float:
    """The step with the lowest mean loss after the last round."""
    return min((h for h in histories if not h.failed), key=mean_loss).setting.eta


def row(name: str, tuned: Sequence[History], histories: Sequence[History], reference: Sequence[History]) -> list[str]:
    losses = ", ".join(f"{'diverged' if h.failed else f'{h.last.mean:.3f}'} at {h.setting.eta:.3g}" for h in tuned)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--rule", default="weave")
    parser.add_argument(
        "--learning-rate", type=float, required=True, help="the rule's, as benchmarks.merge_rules found it"
    )
    options = parser.parse_args()
    runs = begin(options)
    runs.run(setting for name in OPTIMISERS for setting in tuning(name, options.rule, options.learning_rate))
    tuned = {name: runs.known(tuning(name, options.rule, options.learning_rate)) for name in OPTIMISERS}
    wanted = {
        name: [
            Setting(
                rule=options.rule,
                learning_rate=options.learning_rate,
                seed=seed,
                optimiser=name,
                eta=best_eta(tuned[name]),
            )
            for seed in SEEDS
        ]
        for name in OPTIMISERS
    }
    runs.run(setting for one in wanted.values() for setting in one)
    found = {name: runs.known(one) for name, one in wanted.items()}
    columns = ["", "loss by step", "step", "loss", "less none's", "in the worst tenth"]
    print(f"`{command('benchmarks.merge_rules.optimisers')}`, {runs.machine}\n")
    print(table(columns, (row(name, tuned[name], found[name], found["none"]) for name in OPTIMISERS)))


if __name__ == "__main__":
    main()
