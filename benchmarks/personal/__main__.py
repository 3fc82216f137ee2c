"""Strands of a board's own against one adapter for all: local only, global, fine-tuned, Ditto, FedRep, APFL, PFTT, and
PFTT with `train.keep`.

    python -m benchmarks.personal --json personal.json   # hours on two cores; goes on where it was interrupted
    python -m benchmarks.personal --quick                # minutes, to see that it works; its numbers mean nothing

A fleet trains the builtin base, each board on text of one kind: coffee orders by scenario, medical notes by section,
docstrings by library. Every board is judged on its own test text. Sets that are not there are left out with a word.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from benchmarks.personal.runs import (
    CONDITIONS,
    FILES,
    PersonalStudy,
    Run,
    Settings,
    Work,
    mean,
    run_one,
    texts,
    worst_tenth,
)
from benchmarks.study.cli import command, study_parser, work_folder
from benchmarks.study.runner import Runner
from edge_client.errors import DataError
from edge_client.host.machine import describe_machine

SETS = ("docstrings", *FILES)

SETTINGS = Settings(
    rounds=10,
    local_steps=10,
    batch=8,
    learning_rate=0.004,
    n_boards=8,
    n_train=200,
    n_test=25,
    n_own=4,
    n_shared=8,
    seeds=(1, 2, 3),
    max_source_tokens=192,
    max_target_tokens=48,
)

QUICK = Settings(
    rounds=2,
    local_steps=2,
    batch=4,
    learning_rate=0.004,
    n_boards=2,
    n_train=16,
    n_test=6,
    n_own=2,
    n_shared=2,
    seeds=(1,),
    max_source_tokens=48,
    max_target_tokens=16,
)


def main() -> None:
    options = _options()
    settings = QUICK if options.quick else SETTINGS
    study = PersonalStudy(machine=describe_machine("torch"), settings=settings)
    names = [name for name in options.sets if _is_there(name, options, settings)]
    works = [
        Work(set=name, condition=condition, seed=seed)
        for name in names
        for seed in settings.seeds
        for condition in options.conditions
    ]
    with work_folder(options) as folder, Runner(study, options.json, options.processes) as runner:
        make = partial(run_one, settings=settings, data_folder=options.data_folder, folder=folder)
        runs = runner.run(works, make)
    print(f"{command('benchmarks.personal')}\n{study.machine}\n")
    for name in names:
        print("\n".join(table(name, [run for run in runs if run.set == name])))


def table(name: str, runs: list[Run]) -> list[str]:
    """The methods on one set: losses in nats per target token, mean over seeds; and bytes of a board and round."""
    lines = [f"| {name} | global, mean | own, mean | own, worst tenth | less base | CPU s |", "| --- |" + " ---: |" * 5]
    for condition in dict.fromkeys(run.condition for run in runs):
        of_one = [run for run in runs if run.condition == condition]
        values = (
            mean([mean(run.global_) for run in of_one]),
            mean([mean(run.own) for run in of_one]),
            mean([worst_tenth(run.own) for run in of_one]),
            mean([mean(run.own) - mean(run.base) for run in of_one]),
        )
        cells = " | ".join(f"{value:.4f}" for value in values)
        lines.append(f"| {condition} | {cells} | {mean([run.cpu_s for run in of_one]):.0f} |")
    return [*lines, ""]


def _is_there(name: str, options: argparse.Namespace, settings: Settings) -> bool:
    try:
        texts(name, options.data_folder, settings)
    except DataError as error:
        print(f"{name} is left out: {error.message}", file=sys.stderr)
        return False
    return True


def _options() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--conditions", nargs="+", choices=tuple(CONDITIONS), default=list(CONDITIONS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
