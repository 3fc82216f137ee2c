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
from collections.abc import Sequence
from functools import partial

from benchmarks.personal.memory import Memory, measure
from benchmarks.personal.methods import CONDITIONS, FLEETS
from benchmarks.personal.runs import Run, Settings, Work, run_one
from benchmarks.personal.tables import costs_table, losses_table
from benchmarks.personal.texts import SETS, texts
from benchmarks.study.cli import command, study_parser, work_folder
from benchmarks.study.runner import Runner, Study
from edge_client.errors import DataError
from edge_client.host.machine import describe_machine

SETTINGS = Settings(
    rounds=4,
    local_steps=10,
    batch=4,
    learning_rate=0.004,
    n_boards=4,
    n_train=80,
    n_test=20,
    n_own=4,
    n_shared=8,
    seeds=(1, 2, 3),
    max_source_tokens=160,
    max_target_tokens=32,
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


class PersonalStudy(Study, frozen=True, kw_only=True):
    """All that is known."""

    settings: Settings
    runs: tuple[Run, ...] = ()
    memories: tuple[Memory, ...] = ()


def main() -> None:
    options = _options()
    settings = QUICK if options.quick else SETTINGS
    study = PersonalStudy(machine=describe_machine("torch"), settings=settings)
    names = [name for name in options.sets if _is_there(name, options, settings)]
    works = [
        Work(set=name, fleet=fleet, seed=seed) for fleet in options.fleets for seed in settings.seeds for name in names
    ]
    with work_folder(options) as folder, Runner(study, options.json, options.processes) as runner:
        make = partial(run_one, settings=settings, data_folder=options.data_folder, folder=folder)
        runs = runner.run(works, make)
        _measure_memories(runner, [name for fleet in options.fleets for name in FLEETS[fleet]])
    print(f"{command('benchmarks.personal')}\n{study.ground}\n")
    for name in names:
        print(losses_table(name, [run for run in runs if run.set == name]), end="\n\n")
    print(costs_table(runs, runner.study.memories, settings))


def _measure_memories(runner: Runner[PersonalStudy], names: Sequence[str]) -> None:
    """Keep what these methods take of a board's memory, where the study lacks it."""
    for name in names:
        study = runner.study
        if name not in {memory.condition for memory in study.memories}:
            print(f"memory of {name}", file=sys.stderr, flush=True)
            memory = measure(name, CONDITIONS[name], study.settings)
            runner.keep(memories=(*study.memories, memory))


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
    parser.add_argument("--fleets", nargs="+", choices=tuple(FLEETS), default=list(FLEETS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
