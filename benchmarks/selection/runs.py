"""Runs of benchmarks.selection: one board trains the strands that one selection chooses, and is evaluated."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from benchmarks.selection.strands import Selection, chosen
from benchmarks.simulation.lone_board import VALIDATION_SEED, BoardSettings, LoneBoard, Part
from benchmarks.simulation.strands import trained
from benchmarks.study.runner import Runner, Study
from wire.codec import decode, encode
from wire.messages import Profile
from wire.run import Importance, Scope

if TYPE_CHECKING:
    from benchmarks.simulation.federation import Federation

SELECTIONS: tuple[Selection, ...] = get_args(Selection)
IMPORTANCES: tuple[Importance, ...] = ("sketch", "adalora", "magnitude_gradient")

RULE = "braid"
"""How the server merges: B alone is trained, so that parameters are rows of B."""

SCOPE: Scope = "all"
"""Every attention and feed-forward matrix is a candidate."""


class Settings(BoardSettings, frozen=True, kw_only=True):
    """Settings that all runs share. `max_rank`: strands of each weight; `qv_ranks`: the budgets, what every q and v of
    the model trains at that rank."""

    max_rank: int
    qv_ranks: tuple[int, ...]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a training run."""

    set: str
    part: Part
    qv_rank: int
    selection: Selection
    learning_rate: float
    seed: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one run.

    Attributes:
        loss: held-out, in nats per target token, after the last round.
        n_trained, encoder_share, n_weights: of that round's strands the values of B, the encoder's part of them (0…1),
            and how many weights they belong to.
        cpu_s: CPU seconds of training and evaluation.
    """

    work: Work
    loss: float
    n_trained: int
    encoder_share: float
    n_weights: int
    cpu_s: float

    @property
    def key(self) -> Work:
        """The run's name in the study."""
        return self.work

    @property
    def line(self) -> str:
        """The run in one line."""
        work = self.work
        name = f"{work.set}, {work.part}, budget of q,v at {work.qv_rank}: {work.selection}"
        return f"{name}, learning rate {work.learning_rate:g}, seed {work.seed}: loss {self.loss:.4f}"


class SelectionStudy(Study, frozen=True, kw_only=True):
    """All that is known. `base_losses`: of the bare base on each set's test part."""

    settings: Settings
    base_losses: dict[str, float] = msgspec.field(default_factory=dict)
    runs: tuple[Run, ...] = ()

    def of(self, name: str, part: Part, qv_rank: int, selection: Selection) -> list[Run]:
        """Runs of one set, budget and selection, in the order of seeds and learning rates."""
        key = (name, part, qv_rank, selection)
        runs = [run for run in self.runs if (run.work.set, run.work.part, run.work.qv_rank, run.work.selection) == key]
        return sorted(runs, key=lambda run: (run.work.seed, run.work.learning_rate))


# --- which runs -------------------------------------------------------------------------------------------------------


def run_study(runner: Runner[SelectionStudy], names: Sequence[str], data_folder: Path, folder: Path) -> None:
    """Make whatever the study lacks: the bases' losses, runs that choose learning rates, then the test runs."""
    settings = runner.study.settings
    fixed: dict[str, Any] = {"settings": settings, "data_folder": data_folder}
    missing = [name for name in names if name not in runner.study.base_losses]
    for name, loss in runner.each(partial(base_loss, **fixed), missing):
        runner.keep(base_losses=runner.study.base_losses | {name: loss})
    for works in (_tuning(settings, names), _tests(runner, names)):
        wanted = list(works)
        texts = dict.fromkeys((work.set, work.seed) for work in runner.missing(wanted))
        for name, seed in runner.each(partial(profile, profiles=folder, **fixed), list(texts)):
            print(f"{name}: profiled with seed {seed}", file=sys.stderr, flush=True)
        runner.run(wanted, partial(train, profiles=folder, **fixed))


def _tuning(settings: Settings, names: Sequence[str]) -> Iterator[Work]:
    for cell in _cells(settings, names):
        for rate in settings.learning_rates:
            yield _work(cell, "validation", rate, VALIDATION_SEED)


def _tests(runner: Runner[SelectionStudy], names: Sequence[str]) -> Iterator[Work]:
    """The test runs, each with the learning rate of the lowest loss on the validation part."""
    study = runner.study
    for cell in _cells(study.settings, names):
        name, qv_rank, selection = cell
        best = min(study.of(name, "validation", qv_rank, selection), key=lambda run: run.loss)
        for seed in study.settings.seeds:
            yield _work(cell, "test", best.work.learning_rate, seed)


def _cells(settings: Settings, names: Sequence[str]) -> list[tuple[str, int, Selection]]:
    return [(name, rank, selection) for name in names for rank in settings.qv_ranks for selection in SELECTIONS]


def _work(cell: tuple[str, int, Selection], part: Part, rate: float, seed: int) -> Work:
    name, qv_rank, selection = cell
    return Work(set=name, part=part, qv_rank=qv_rank, selection=selection, learning_rate=rate, seed=seed)


# --- one run, in a worker process -------------------------------------------------------------------------------------


def base_loss(name: str, *, settings: Settings, data_folder: Path) -> tuple[str, float]:
    """A set, and the bare base's loss on its test part in nats per target token."""
    board = LoneBoard(settings, name, data_folder)
    with tempfile.TemporaryDirectory() as folder:
        federation = _federation(board, settings, _any_work(name, seed=0), Path(folder))
        return name, board.evaluate(federation, "test")["loss"]


def profile(text: tuple[str, int], *, settings: Settings, data_folder: Path, profiles: Path) -> tuple[str, int]:
    """Profile a set's training subset of a seed by every importance, and keep the messages in `profiles`.

    All have the sketches of the plain profile, so that every selection trains on the same bases.
    """
    name, seed = text
    with tempfile.TemporaryDirectory() as folder:
        board = LoneBoard(settings, name, data_folder)
        federation = _federation(board, settings, _any_work(name, seed), Path(folder))
        plain = federation.profile(0)
        for importance in IMPORTANCES:
            scores = () if importance == "sketch" else federation.profile(0, importance).scores
            path = _profile_path(profiles, name, seed, importance)
            path.write_bytes(encode(msgspec.structs.replace(plain, scores=scores)))
    return text


def train(work: Work, *, settings: Settings, data_folder: Path, profiles: Path) -> Run:
    """Train all rounds with one selection, from a profile that is there, and evaluate."""
    start_s = time.process_time()
    importance = "sketch" if work.selection == "random" or work.selection == "q,v" else work.selection
    message = decode(_profile_path(profiles, work.set, work.seed, importance).read_bytes(), Profile)
    board = LoneBoard(settings, work.set, data_folder)
    with tempfile.TemporaryDirectory() as folder:
        federation = _federation(board, settings, work, Path(folder))
        federation.begin([message])
        for _ in range(settings.rounds):
            federation.run_round()
        loss = board.evaluate(federation, work.part)["loss"]
    strands = trained(federation.weights, federation.ranks[0], trains_a=False)
    return Run(
        work=work,
        loss=loss,
        n_trained=strands.n_values,
        encoder_share=strands.encoder_share,
        n_weights=strands.n_weights,
        cpu_s=time.process_time() - start_s,
    )


def _any_work(name: str, seed: int) -> Work:
    """A work for what comes before training: only its set and seed matter."""
    return Work(set=name, part="test", qv_rank=1, selection="q,v", learning_rate=1.0, seed=seed)


def _federation(board: LoneBoard, settings: Settings, work: Work, folder: Path) -> Federation:
    choose = partial(chosen, selection=work.selection, qv_rank=work.qv_rank, seed=work.seed)
    recipe = {"rule": RULE, "scope": SCOPE, "learning_rate": work.learning_rate, "max_rank": settings.max_rank}
    return board.federation(folder, choose, work.seed, **recipe)


def _profile_path(profiles: Path, name: str, seed: int, importance: Importance) -> Path:
    return profiles / f"{name.replace('/', '-')}.{seed}.{importance}"
