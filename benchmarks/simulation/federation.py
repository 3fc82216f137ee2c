"""A federation of one board or more in one process: production's jobs on one side, production's merge on the other.

Nothing is replaced but the network, which is left out, and memory planning: whoever makes the federation says which
ranks a board trains. Base, tokeniser and encoder outputs are shared by the boards; what a job reads and writes are
files.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import builtin_base
from aggregator.downloads.encoder import AdapterEncoder, HeldState
from aggregator.merge.bases import first_basis, first_drawn_basis
from aggregator.merge.contribution import contribution, profile_contribution
from aggregator.merge.drift import drift, drift_weights
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.rules import RULES, Rule, folded
from aggregator.merge.state import AdapterState, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from aggregator.settings.terms import Terms
from benchmarks.simulation.jobs import RUN_ID, ChooseRanks, Jobs, board_name
from benchmarks.simulation.joint_training import train_together
from benchmarks.simulation.session import SharedSession
from benchmarks.simulation.setting import Basis, Recipe
from benchmarks.simulation.strands import weights
from braid_common.example import Example
from braid_common.seeds import derive_seed
from edge_client.data.dataset import Data
from edge_client.engines.lean.encoder_cache.reader import EncoderOutputs
from edge_client.engines.lean.engine import LeanEngine
from edge_client.jobs.messages import AdapterJob, EvaluateJob, TrainJob
from edge_client.jobs.reward_spec import Reward
from edge_client.worker.main import run_job
from wire.codec import decode
from wire.dtypes import download_dtype
from wire.manifest import manifest_digest
from wire.messages import Profile, Update
from wire.run import Importance
from wire.tensors import pack, unpack

FIRST_BASES: Mapping[Basis, Callable[..., AdapterState]] = {"drawn": first_drawn_basis, "sketched": first_basis}
"""What makes a run's first basis, by where it comes from."""

_EVALUATED = "evaluated"
"""The name under which a session has the text of an evaluation."""


@dataclass(frozen=True, slots=True)
class Board:
    """One board: its text, the ranks that it trains, and in a run that learns from rewards what it judges by."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    ranks: ChooseRanks
    rewards: tuple[Reward, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Time of the boards' training jobs; profiling, evaluation and the server's merging are left out.

    Attributes:
        n_steps, n_tokens, step_s, encode_s: optimiser steps, their source and target tokens, their CPU time, and that
            of filling the encoder cache for them; boards that train together report none of these.
        job_s, wall_s: CPU time and wall time of the whole jobs, which also load the base and tokenise.
    """

    n_steps: int = 0
    n_tokens: float = 0.0
    step_s: float = 0.0
    encode_s: float = 0.0
    job_s: float = 0.0
    wall_s: float = 0.0

    @property
    def training_s(self) -> float:
        """CPU seconds of steps and encoding."""
        return self.step_s + self.encode_s


class Federation:
    """One run: `begin`, then rounds of `updates` and `merge`, and `evaluate` whenever wanted.

    Args:
        recipe: how it trains.
        boards: who takes part.
        folder: for files, best in memory. Encoder outputs and profiles that are left in it serve later federations of
            the same boards.
        session: may have served others of the same base, and serves one federation at a time.
        base_folder: the base; the builtin one where None.
    """

    def __init__(
        self,
        recipe: Recipe,
        boards: Sequence[Board],
        folder: Path,
        session: SharedSession,
        base_folder: Path | None = None,
    ) -> None:
        self.recipe, self.boards = recipe, tuple(boards)
        self.rule: Rule[Any] = RULES[recipe.rule]
        self.weights = weights(recipe.scope, base_folder)
        self.state = initial_state(self.weights)
        self.round = 0
        self.ranks: tuple[tuple[int, ...], ...] = tuple((0,) * len(self.weights) for _ in self.boards)
        self.up_bytes = self.down_bytes = 0
        self.spent, self.merge_s = Spent(), 0.0
        optimiser = OPTIMISERS[recipe.optimiser]
        self._merge_settings = MergeSettings(
            recipe.server_rank, recipe.max_rank, recipe.eta or optimiser.eta, optimiser
        )
        self._terms = _terms(self)
        self._encoder = AdapterEncoder(self._terms)
        self._held: dict[str, HeldState] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._jobs = Jobs(recipe, self.rule.TRAITS, self.weights, folder, base_folder or builtin_base.folder())
        self._jobs.forget_rounds()
        self._session, self._engine = session, LeanEngine(session)
        session.texts = {board_name(index): Data(list(board.train), []) for index, board in enumerate(self.boards)}

    # --- a run -----------------------------------------------------------------------------------------------------

    def encode_texts(self) -> None:
        """Fill the boards' encoder caches at once: if rounds did it, the base would be loaded anew for each."""
        for index, board in enumerate(self.boards):
            job = self._jobs.profile(self.state, index)
            tokeniser, form = self._session.tokeniser(job), job.run.settings.text_form
            outputs = EncoderOutputs(job, self._session)
            outputs.prepare(tokeniser.pair(example, form).source for example in board.train)

    def forget_encodings(self) -> None:
        """Empty the boards' encoder caches, so that training has to encode all that it reads."""
        for path in self._folder.glob("cache-*"):
            shutil.rmtree(path)

    def profile(self, board: int, importance: Importance = "sketch") -> Profile:
        """A board's profile: gradient sketches on its text, and scores where the importance is one."""
        job = self._jobs.profile(self.state, board, importance)
        if not Path(job.result_path).exists():
            run_job(job, self._engine)
        return decode(Path(job.result_path).read_bytes(), Profile)

    def begin(self, profiles: Iterable[Profile] | None = None) -> None:
        """Make the first basis, of these profiles or of all boards'."""
        if profiles is None:
            profiles = map(self.profile, range(len(self.boards)))
        total = None
        for profile in profiles:
            total = self.rule.fold(total, profile_contribution(profile))
        make = FIRST_BASES[self.recipe.basis] if self.recipe.basis else self.rule.first_basis
        self.state = make(self.state, total, max_rank=self.recipe.max_rank, seed=self.recipe.seed)

    def updates(
        self, boards: Sequence[int] | None = None, *, n_steps: int | None = None, together: bool = True
    ) -> list[Update]:
        """The updates of these boards (all, unless given) for the round that is open.

        Args:
            boards: indices, in the order in which updates are wanted.
            n_steps: optimiser steps, if not the recipe's number.
            together: several boards share forward and backward passes, which halves the time; else job after job, as on
                real boards. Boards of scope "all" never share, nor do those that learn from rewards, have strands
                of their own or are held near the received model.
        """
        recipe = self.recipe
        is_plain = recipe.reward is None and recipe.personal is None and recipe.keep is None
        wanted = range(len(self.boards)) if boards is None else boards
        jobs = [self._train_job(board, n_steps) for board in wanted]
        self.down_bytes += sum(map(self._send, jobs))
        if together and is_plain and len(jobs) > 1 and recipe.scope == "decoder":
            self._train_together(jobs)
        else:
            for job in jobs:
                self._train(job)
        for job in jobs:
            self._keep_sent(job)
        return [self._received(job) for job in jobs]

    def train_own(self) -> None:
        """Let the boards' own strands take the steps that they have to themselves, over the adapter as it is now."""
        for board in range(len(self.boards)):
            job = self._jobs.own_steps(self.state, board, max(1, self.round))
            self._send(job)
            run_job(job, self._engine)

    def contribution(self, update: Update) -> Contribution:
        """The contribution that the server reads from an update of this round, with the weight that `merge.drift`
        gives it: by what the board left out of the version that it was sent."""
        added = contribution(update, self.rule, self.state, self._terms.download)
        if not self.recipe.drift:
            return added
        left_out = {"board": drift(self.state, added, self.rule.TRAITS)}
        return replace(added, weight=drift_weights({"board": added.weight}, left_out, self.recipe.drift)["board"])

    def merge(self, contributions: Iterable[Contribution]) -> None:
        """Close the round."""
        start_s = time.process_time()
        self.state = self.rule.merge(self.state, folded(self.rule, contributions), self._merge_settings)
        self.round += 1
        self.merge_s += time.process_time() - start_s

    def run_round(self, n_steps: int | None = None) -> None:
        """One round of all boards."""
        self.merge(map(self.contribution, self.updates(n_steps=n_steps)))

    def evaluate(
        self,
        examples: Sequence[Example],
        *,
        session: SharedSession | None = None,
        rouge: bool = False,
        cached: bool = False,
        own: int | None = None,
    ) -> Mapping[str, float]:
        """Evaluate the global adapter, or the bare base before `begin`.

        Args:
            examples: the text.
            session: one that keeps its own base, if not the boards'.
            rouge: texts are written as well and scored.
            cached: encoder outputs are kept for the next evaluation of the same text.
            own: the board whose own strands are judged beside it (`braid_common.metrics`); None for none.

        Returns:
            An evaluate job's numbers: loss in nats per target token, ROUGE F1 (0…1).
        """
        session = session or self._session
        return run_job(self.evaluation(examples, session, rouge=rouge, cached=cached, own=own), LeanEngine(session))

    def evaluation(
        self,
        examples: Sequence[Example],
        session: SharedSession,
        *,
        rouge: bool = False,
        cached: bool = True,
        own: int | None = None,
    ) -> EvaluateJob:
        """An evaluation as a job, also for a benchmark that looks at the model itself: `session` has the text, and the
        adapter is in its file. The other arguments are those of `evaluate`."""
        session.texts = {**session.texts, _EVALUATED: Data([], list(examples))}
        own_path = "" if own is None else self._jobs.own_path(own)
        job = self._jobs.evaluate(self.state, _EVALUATED, rouge=rouge, cached=cached, own_path=own_path)
        if job.adapter_path:
            self._send(job)
        return job

    # --- boards ----------------------------------------------------------------------------------------------------

    def planned_ranks(self, board: int) -> tuple[int, ...]:
        """The ranks at which a board begins the round that is open."""
        return self._jobs.train(self.state, board, self.round + 1, self.boards[board].ranks).plan.ranks

    def _train_job(self, board: int, n_steps: int | None) -> TrainJob:
        own = self.boards[board]
        job = self._jobs.train(self.state, board, self.round + 1, own.ranks, n_steps=n_steps, rewards=own.rewards)
        self.ranks = (*self.ranks[:board], job.plan.ranks, *self.ranks[board + 1 :])
        return job

    def _train(self, job: TrainJob) -> None:
        job_s, wall_s, before = time.process_time(), time.monotonic(), self.spent
        values = run_job(job, self._engine)
        self.spent = Spent(
            n_steps=before.n_steps + job.run.settings.local_steps,
            n_tokens=before.n_tokens + values["tokens_per_s"] * values["seconds"],
            step_s=before.step_s + values["seconds"],
            encode_s=before.encode_s + values["encode_s"],
            job_s=before.job_s + time.process_time() - job_s,
            wall_s=before.wall_s + time.monotonic() - wall_s,
        )

    def _train_together(self, jobs: Sequence[TrainJob]) -> None:
        job_s, wall_s, before = time.process_time(), time.monotonic(), self.spent
        train_together(jobs, self._session)
        self.spent = Spent(
            job_s=before.job_s + time.process_time() - job_s, wall_s=before.wall_s + time.monotonic() - wall_s
        )

    def _received(self, job: TrainJob) -> Update:
        data = Path(job.result_path).read_bytes()
        self.up_bytes += len(data)
        noise_seed = derive_seed(job.spec.seed, "sketch noise", job.board_id)
        return with_sketch_noise(decode(data, Update), self.recipe.sketch_noise, noise_seed)

    # --- downloads -------------------------------------------------------------------------------------------------

    def _send(self, job: AdapterJob) -> int:
        """Write the job's adapter as the server would send it; bytes of the message."""
        start_s = time.process_time()
        data = self._encoder.encode(self.state, job.plan.ranks, self._held.get(job.held_path))
        self.merge_s += time.process_time() - start_s
        return Path(job.adapter_path).write_bytes(data)

    def _keep_sent(self, job: TrainJob) -> None:
        """The board keeps what it was sent, where it keeps files."""
        if job.held_path:
            self._held[job.held_path] = HeldState(self.state, job.plan.ranks)
            Path(job.adapter_path).replace(job.held_path)


def _terms(federation: Federation) -> Terms:
    """The settings that the server holds fixed for this run."""
    recipe = federation.recipe
    return Terms(
        run_id=RUN_ID,
        weights=federation.weights,
        manifest=manifest_digest(federation.weights),
        max_rank=recipe.max_rank,
        server_rank=recipe.server_rank,
        importance="sketch",
        rule=federation.rule,
        download=download_dtype(recipe.upload),
    )


def with_sketch_noise(update: Update, noise: float, seed: int) -> Update:
    """The update with Gaussian noise on its sketches, of `noise` times each sketch's root mean square."""
    if not noise:
        return update
    draw = np.random.default_rng(seed)
    parts = []
    for part in update.parts:
        if part.sketch is not None:
            sketch = unpack(part.sketch)
            deviation = noise * float(np.sqrt(np.square(sketch, dtype=np.float64).mean()))
            noisy = (sketch + deviation * draw.standard_normal(sketch.shape)).astype(np.float32)
            part = msgspec.structs.replace(part, sketch=pack(noisy, part.sketch.dtype))
        parts.append(part)
    return msgspec.structs.replace(update, parts=tuple(parts))
