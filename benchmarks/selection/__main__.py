"""Scores that choose strands: each, random strands and "q,v everywhere", at the same number of parameters.

    python -m benchmarks.selection --json selection.json   # on two cores; goes on where it was interrupted
    python -m benchmarks.selection --quick                 # to see that it works; its numbers mean nothing

A federation of one board trains the builtin base in bf16, scope "all". A budget is a number of trained values of B,
Σ rank·rows over all weights: what q and v of every attention train at one rank. Each score takes its most valuable
strands per value of B, as far as the budget goes: a strand's value is σ² with "sketch", else the weight's score divided
among its strands in proportion to σ², as the server does; σ² follows the sketches of later rounds. All selections train
on the same bases, which come from the sketches of one profiling pass; only which strands are trained differs. Learning
rates are chosen per set, budget and selection on a validation part; seeds change the training subset, its order, the
bases and the random strands.
"""

from __future__ import annotations

import argparse

import msgspec

from benchmarks.selection.runs import SelectionStudy, Settings, run_study
from benchmarks.selection.tables import print_study
from benchmarks.simulation import text_sets
from benchmarks.study.cli import command, study_parser, work_folder
from benchmarks.study.runner import Runner
from edge_client.host.machine import describe_machine

SETTINGS = Settings(
    rounds=4,
    local_steps=8,
    batch=8,
    max_source_tokens=192,  # what the builtin base was trained with
    max_target_tokens=48,
    learning_rates=(0.004, 0.01, 0.025),
    seeds=(1, 2, 3),
    n_train=600,
    n_validation=100,
    n_test=200,
    max_rank=16,
    qv_ranks=(1, 8),
)

QUICK = msgspec.structs.replace(
    SETTINGS,
    rounds=2,
    local_steps=2,
    max_source_tokens=64,
    max_target_tokens=16,
    learning_rates=(0.01,),
    seeds=(1,),
    n_train=40,
    n_validation=8,
    n_test=8,
)


def main() -> None:
    options = _options()
    study = SelectionStudy(machine=describe_machine("torch"), settings=_settings(options))
    names = [text_set.name for text_set in text_sets.load_those_there(options.data_folder, options.sets)]
    with work_folder(options) as folder, Runner(study, options.json, options.processes) as runner:
        run_study(runner, names, options.data_folder, folder)
        print_study(runner.study, names, command("benchmarks.selection"))


def _settings(options: argparse.Namespace) -> Settings:
    settings = QUICK if options.quick else SETTINGS
    changes = {
        "rounds": options.rounds,
        "batch": options.batch,
        "seeds": options.seeds and tuple(options.seeds),
        "learning_rates": options.learning_rates and tuple(options.learning_rates),
        "qv_ranks": options.qv_ranks and tuple(options.qv_ranks),
    }
    return msgspec.structs.replace(settings, **{key: value for key, value in changes.items() if value})


def _options() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=text_sets.names(), default=list(text_sets.names()))
    parser.add_argument("--rounds", type=int, help=f"rounds of {SETTINGS.local_steps} steps")
    parser.add_argument("--batch", type=int, help="examples per step")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the test runs")
    parser.add_argument("--learning-rates", type=float, nargs="+")
    parser.add_argument("--qv-ranks", type=int, nargs="+", help="budgets: what q,v everywhere train at these ranks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
