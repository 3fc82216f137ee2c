"""Learning from rewards on coffee orders: what two rewards gain on contexts that no board has seen, and what they cost.

    python -m benchmarks.rewards --json rewards.json   # a quarter of an hour on one core; goes on where it was
    python -m benchmarks.rewards --quick               # two minutes, to see that it works; its numbers mean nothing

Two boards, each with the dialogues of scenarios of its own, teach the builtin base the right answers. From there the
first of them goes on by itself: with more right answers, or with answers of its own that it judges by overlap and as
tool calls, in GRPO's form, without its distance to the received adapter, and by REINFORCE with a baseline. In another
run both go on and judge by these two rewards and by one more, that is long answers on one board and short ones on the
other.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.rewards.runs import CONDITIONS, RewardStudy, Settings, Work, texts
from benchmarks.rewards.tables import print_study
from benchmarks.study.cli import command, study_parser, work_folder
from benchmarks.study.runner import Runner
from edge_client.errors import DataError
from edge_client.host.machine import describe_machine

SETTINGS = Settings(
    warm_rounds=3,
    warm_steps=12,
    warm_batch=16,
    warm_learning_rate=0.004,
    rounds=2,
    local_steps=10,
    own_steps=5,
    batch=8,
    learning_rate=0.002,
    samples=4,
    n_boards=2,
    n_train=400,
    n_test=64,
    n_strands=8,
    seeds=(1, 2, 3),
    max_source_tokens=128,
    max_target_tokens=24,
)

QUICK = Settings(
    warm_rounds=1,
    warm_steps=4,
    warm_batch=8,
    warm_learning_rate=0.004,
    rounds=1,
    local_steps=1,
    own_steps=1,
    batch=2,
    learning_rate=0.002,
    samples=2,
    n_boards=2,
    n_train=16,
    n_test=6,
    n_strands=4,
    seeds=(1,),
    max_source_tokens=96,
    max_target_tokens=24,
)


def main() -> None:
    options = _options()
    settings = QUICK if options.quick else SETTINGS
    try:
        texts(options.data_folder, settings)
    except DataError as error:
        raise SystemExit(f"{error.message}: {error.hint}") from error
    study = RewardStudy(machine=describe_machine("torch"), settings=settings)
    from benchmarks.rewards.one_run import run_one  # torch

    works = [Work(condition=name, seed=seed) for seed in settings.seeds for name in options.conditions]
    with work_folder(options) as folder, Runner(study, options.json, options.processes) as runner:
        runner.run(works, partial(run_one, settings=settings, data_folder=options.data_folder, folder=folder))
        print(f"{command('benchmarks.rewards')}\n")
        print_study(runner.study)


def _options() -> argparse.Namespace:
    parser = study_parser(__doc__, processes=1)
    parser.add_argument("--conditions", nargs="+", choices=tuple(CONDITIONS), default=list(CONDITIONS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
