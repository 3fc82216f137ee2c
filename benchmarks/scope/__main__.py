"""The cost of training the decoder alone: decoder scope against all scope at equal parameters and equal time.

    python -m benchmarks.scope --json scope.json   # half an hour on one core; goes on where it was interrupted
    python -m benchmarks.scope --rule weave        # A and B are trained, not B alone as by default
    python -m benchmarks.scope --quick             # two minutes, to see that it works; its numbers mean nothing

A federation of one board trains the builtin base, in bf16 and on one thread. All scope trains every weight at the
server's default rank; decoder scope gets more strands per weight, as many as make its trained parameters equal, and
reads its encoder outputs from a cache that is empty at first. It is evaluated after equally many steps, and
again once its steps and its encoding have taken the CPU time that all scope's steps took: CPU time, as the wall time of
a shared machine tells of its other users. Learning rates are chosen per set and scope on a validation part; seeds
change the training subset, its order and the bases. Beside these, all scope is tried with as many strands, chosen by
value as on a board with little memory, and decoder scope at the server's default rank.
"""

from __future__ import annotations

import argparse

import msgspec

from aggregator.merge.rules import RULES
from benchmarks.scope.runs import ScopeStudy, Settings, run_study
from benchmarks.scope.tables import print_study
from benchmarks.simulation import text_sets
from benchmarks.study.cli import study_parser, work_folder
from benchmarks.study.runner import Runner
from edge_client.host.machine import describe_machine

SETTINGS = Settings(
    rounds=6,
    local_steps=10,
    batch=16,
    max_source_tokens=192,  # what the builtin base was trained with
    max_target_tokens=48,
    learning_rates=(0.001, 0.002, 0.004, 0.008),
    seeds=(1, 2, 3),
    n_train=600,
    n_validation=100,
    n_test=200,
    n_written=60,
    max_ranks={"all": 16, "all, by value": 32, "decoder": 32, "decoder, same ranks": 16},
)

QUICK = Settings(
    rounds=2,
    local_steps=3,
    batch=8,
    max_source_tokens=64,
    max_target_tokens=16,
    learning_rates=(0.004,),
    seeds=(1, 2),
    n_train=40,
    n_validation=16,
    n_test=16,
    n_written=4,
    max_ranks=SETTINGS.max_ranks,
)


def main() -> None:
    options = _options()
    settings = msgspec.structs.replace(QUICK if options.quick else SETTINGS, rule=options.rule)
    study = ScopeStudy(machine=describe_machine("torch"), settings=settings)
    names = [text_set.name for text_set in text_sets.load_those_there(options.data_folder, options.sets)]
    with work_folder(options) as folder, Runner(study, options.json, options.processes) as runner:
        run_study(runner, names, options.data_folder, folder)
        print_study(runner.study, names)


def _options() -> argparse.Namespace:
    parser = study_parser(__doc__, processes=1)
    parser.add_argument("--sets", nargs="+", choices=text_sets.names(), default=list(text_sets.names()))
    parser.add_argument("--rule", choices=tuple(RULES), default="fedsvd", help="how the server merges")
    return parser.parse_args()


if __name__ == "__main__":
    main()
