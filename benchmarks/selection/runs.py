"""One profile, or one training run, of benchmarks.selection. Called in worker processes."""

from __future__ import annotations

import tempfile
import time
from functools import cache, partial
from pathlib import Path

import msgspec
import torch

from benchmarks.selection.results import Run, Settings, Work
from benchmarks.selection.strands import budget, chosen
from benchmarks.simulation import text_sets
from benchmarks.simulation.solo import Recipe, Solo, TextSession, weights
from benchmarks.simulation.text_sets import TextSet
from edge_client.host.worker_memory import keep_malloc_small
from wire.codec import decode, encode
from wire.messages import Importance, Profile, Scope

IMPORTANCES: tuple[Importance, ...] = ("sketch", "adalora", "magnitude_gradient")

SCOPE: Scope = "all"
"""So that every attention and feed-forward matrix is a candidate."""


def begin_worker() -> None:
    """Call first in every worker process."""
    keep_malloc_small()
    torch.set_num_threads(1)


def base_loss(settings: Settings, data_folder: Path, name: str) -> float:
    """The bare base's loss on a set's test part."""
    with tempfile.TemporaryDirectory() as folder:
        text_set = _text_set(name, data_folder)
        solo = _solo(settings, text_set, _any_work(name, seed=0), Path(folder))
        judge = TextSession(held_out=text_set.test[: settings.n_test])
        return solo.score(judge, settings.n_test, rouge=False)["loss"]


def profile(settings: Settings, data_folder: Path, profiles: Path, name: str, seed: int) -> None:
    """Profile a set's training subset by every importance, and keep the messages in `profiles`.

    All have the sketches of the plain profile, so that every selection trains on the same bases.
    """
    with tempfile.TemporaryDirectory() as folder:
        solo = _solo(settings, _text_set(name, data_folder), _any_work(name, seed), Path(folder))
        plain = solo.profile()
        for importance in IMPORTANCES:
            scores = () if importance == "sketch" else solo.profile(importance).scores
            path = _profile_path(profiles, name, seed, importance)
            path.write_bytes(encode(msgspec.structs.replace(plain, scores=scores)))


def train(settings: Settings, data_folder: Path, profiles: Path, work: Work) -> Run:
    """Train all rounds with one selection, from a profile that is there, and evaluate."""
    start_s = time.process_time()
    text_set = _text_set(work.set, data_folder)
    held_out = text_set.test[: settings.n_test] if work.part == "test" else text_set.validation[: settings.n_validation]
    judge = TextSession(held_out=held_out)
    importance = "sketch" if work.selection == "random" or work.selection == "q,v" else work.selection
    message = decode(_profile_path(profiles, work.set, work.seed, importance).read_bytes(), Profile)
    with tempfile.TemporaryDirectory() as folder:
        solo = _solo(settings, text_set, work, Path(folder))
        solo.begin(message)
        for _ in range(settings.rounds):
            solo.round(settings.local_steps)
        loss = solo.score(judge, len(held_out), rouge=False)["loss"]
        return Run(
            work=work,
            loss=loss,
            n_trained=solo.n_trained,
            encoder_share=solo.encoder_share,
            n_weights=solo.n_weights,
            cpu_s=time.process_time() - start_s,
        )


def _any_work(name: str, seed: int) -> Work:
    """For what comes before training: only set and seed matter."""
    return Work(set=name, part="test", qv_rank=1, selection="q,v", learning_rate=1.0, seed=seed)


def _solo(settings: Settings, text_set: TextSet, work: Work, folder: Path) -> Solo:
    recipe = Recipe(
        scope=SCOPE,
        learning_rate=work.learning_rate,
        max_rank=settings.max_rank,
        n_parameters=budget(weights(SCOPE), work.qv_rank),
        seed=work.seed,
        batch=settings.batch,
        max_source_tokens=settings.max_source_tokens,
        max_target_tokens=settings.max_target_tokens,
    )
    choose = partial(chosen, selection=work.selection, qv_rank=work.qv_rank, seed=work.seed)
    return Solo(recipe, text_sets.subset(text_set.train, settings.n_train, work.seed), folder, choose)


@cache
def _text_set(name: str, data_folder: Path) -> TextSet:
    return text_sets.load(name, data_folder)


def _profile_path(profiles: Path, name: str, seed: int, importance: Importance) -> Path:
    return profiles / f"{name.replace('/', '-')}.{seed}.{importance}"
