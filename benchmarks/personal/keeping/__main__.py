"""`train.keep`: its use and its cost, where every board has text of one kind: coffee orders, sections of notes.

    python -m benchmarks.personal.keeping --json keeping.json   # a quarter of an hour a set on one core
    python -m benchmarks.personal.keeping --quick               # a minute, to see that it works

Alone: behind a fleet's rounds one board trains on its own text; the loss on that and on all other boards' text. Stream:
the kinds come one after another, each for a few rounds; average forgetting. A smaller learning rate stands beside
the penalty, for it holds a board back too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import msgspec

from benchmarks.personal.keeping.runs import (
    RULES,
    Condition,
    KeepingRun,
    KeepingSettings,
    KeepingStudy,
    KeepingWork,
    run_one,
)
from benchmarks.personal.texts import SETS
from benchmarks.study.cli import command, study_parser, work_folder
from benchmarks.study.runner import Runner
from benchmarks.study.tables import paired, spread_text, table
from edge_client.host.machine import describe_machine

SETTINGS = KeepingSettings(
    n_boards=4,
    n_train=48,
    n_test=12,
    fleet_rounds=4,
    alone_steps=40,
    task_rounds=4,
    n_alone=1,
    local_steps=10,
    batch=4,
    learning_rate=0.004,
    rank=8,
    seeds=(1, 2, 3),
    conditions=(
        Condition(),
        Condition(learning_rate_share=0.5),
        Condition(weight=0.1),
        Condition(weight=0.3),
        Condition(importance="scores", weight=0.1),
    ),
    max_source_tokens=160,
    max_target_tokens=32,
)

QUICK = msgspec.structs.replace(
    SETTINGS,
    n_boards=3,
    n_train=16,
    n_test=4,
    fleet_rounds=1,
    alone_steps=2,
    task_rounds=1,
    n_alone=1,
    local_steps=2,
    batch=4,
    rank=2,
    seeds=(1,),
    conditions=(Condition(), Condition(weight=1.0)),
    max_source_tokens=48,
    max_target_tokens=16,
)


def main() -> None:
    options = _options()
    settings = QUICK if options.quick else SETTINGS
    study = KeepingStudy(machine=describe_machine("torch"), settings=settings)
    works = [
        KeepingWork(set=name, trained=trained, seed=seed)
        for name in options.sets
        for trained in RULES
        for seed in settings.seeds
    ]
    with work_folder(options) as folder, Runner(study, options.json, options.processes) as runner:
        make = partial(run_one, settings=settings, data_folder=options.data_folder, folder=folder)
        runs = runner.run(works, make)
    print(f"{command('benchmarks.personal.keeping')}\n{study.ground}\n")
    for name in options.sets:
        for trained in RULES:
            of_both = [run for run in runs if (run.set, run.trained) == (name, trained)]
            print(keeping_table(f"{name}, {trained}", settings, of_both), end="\n\n")


def keeping_table(title: str, settings: KeepingSettings, runs: Sequence[KeepingRun]) -> str:
    """Both experiments by condition: losses in nats per target token, mean ± standard deviation over seeds. "Less
    nothing" is by pairs of equal seeds, in bold where a 95 % interval leaves 0 out."""
    rows = []
    for index, condition in enumerate(settings.conditions):
        alone, streams = [run.alone[index] for run in runs], [run.streams[index] for run in runs]
        deltas = [run.streams[index].final - run.streams[0].final for run in runs]
        rows.append(
            [
                condition.title,
                spread_text([one.own_after - one.own_before for one in alone], 3, signed=True),
                spread_text([one.others_after - one.others_before for one in alone], 3, signed=True),
                spread_text([stream.just_learnt for stream in streams], 3),
                spread_text([stream.final for stream in streams], 3),
                paired(deltas).text(3) if index and len(deltas) > 1 else "",
                spread_text([stream.forgetting for stream in streams], 3, signed=True),
            ]
        )
    columns = ["alone: own text", "alone: others' text", "stream: just learnt", "at the end", "less nothing"]
    return table([title, *columns, "forgetting"], rows)


def _options() -> argparse.Namespace:
    parser = study_parser(__doc__, processes=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["coffee", "MTS-Dialog"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
