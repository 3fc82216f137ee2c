"""One run: a fleet that learns from right answers first, and then in one of several ways."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import msgspec

from aggregator.merge.state import AdapterState
from benchmarks.rewards.runs import CONDITIONS, JUDGED, Condition, Judged, Run, Settings, Work, texts
from benchmarks.rewards.written import Examiner
from benchmarks.simulation.federation import Board, Federation
from benchmarks.simulation.session import judge_session, process_session
from benchmarks.simulation.setting import Recipe
from benchmarks.simulation.strands import equal_ranks
from braid_common.example import Example
from wire.run import RewardLearning


def run_one(work: Work, *, settings: Settings, data_folder: Path, folder: Path) -> Run:
    """The warm start (once for all runs of a seed in this process), the rounds after it, and what came out."""
    condition = CONDITIONS[work.condition]
    train, contexts = texts(data_folder, settings)
    files = folder / f"seed-{work.seed}"
    warm, state = _warm(work.seed, settings, data_folder, files)
    boards = [
        Board(tuple(text), (), partial(equal_ranks, rank=settings.n_strands), rewards)
        for text, rewards in zip(train, condition.rewards, strict=False)
    ]
    fleet = Federation(_recipe(settings, work.seed, condition), boards, files, process_session())
    fleet.state, fleet.round = state, settings.warm_rounds
    examine = _examiner(contexts, settings)
    for _ in range(settings.rounds):
        fleet.run_round()
    merged = examine(fleet, state)
    differ = len(condition.rewards) > 1
    ends = [_alone(fleet, board, settings.own_steps) for board in range(len(boards))] if differ else []
    own = []
    for end in ends:
        fleet.state = end
        own.append(examine(fleet, state))
    return Run(**msgspec.structs.asdict(work), warm=warm, merged=merged, own=tuple(own), cpu_s=fleet.spent.job_s)


def _alone(fleet: Federation, board: int, n_steps: int) -> AdapterState:
    """The state that a board comes to by itself in so many steps; the fleet stays where it is."""
    before = fleet.state, fleet.round
    fleet.merge(map(fleet.contribution, fleet.updates([board], n_steps=n_steps)))
    end = fleet.state
    fleet.state, fleet.round = before
    return end


@cache
def _warm(seed: int, settings: Settings, data_folder: Path, files: Path) -> tuple[Judged, AdapterState]:
    """The fleet's adapter after the rounds that learn from right answers, and how it is judged."""
    train, contexts = texts(data_folder, settings)
    boards = [Board(tuple(text), (), partial(equal_ranks, rank=settings.n_strands)) for text in train]
    recipe = _recipe(settings, seed, Condition(learns=False))
    warm = msgspec.structs.replace(recipe, local_steps=settings.warm_steps, batch=settings.warm_batch)
    fleet = Federation(warm, boards, files, process_session())
    fleet.encode_texts()
    fleet.begin()
    for _ in range(settings.warm_rounds):
        fleet.run_round()
    return _examiner(contexts, settings)(fleet), fleet.state


def _examiner(contexts: Sequence[Example], settings: Settings) -> Examiner:
    return Examiner(contexts, JUDGED, settings.samples, judge_session(), seed=0)


def _recipe(settings: Settings, seed: int, condition: Condition) -> Recipe:
    reward = RewardLearning(
        samples=settings.samples,
        advantage=condition.advantage,
        kl=condition.kl,
        warm_rounds=settings.warm_rounds,
    )
    return Recipe(
        rule="weave",
        learning_rate=settings.learning_rate if condition.learns else settings.warm_learning_rate,
        seed=seed,
        rounds=settings.warm_rounds + settings.rounds + 1,
        local_steps=settings.local_steps,
        batch=settings.batch,
        feedback=False,
        max_source_tokens=settings.max_source_tokens,
        max_target_tokens=settings.max_target_tokens,
        reward=reward if condition.learns else None,
    )
