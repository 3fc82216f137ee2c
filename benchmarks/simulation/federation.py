"""A federation of ten boards in one process: production's jobs on one side, production's merge on the other.

Nothing is replaced but the network, which is left out, and memory planning: each board trains every weight at its own
rank. Base, tokeniser and encoder outputs are shared by the boards; what a job reads and writes are files.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from aggregator.merge.contribution import contribution, profile_contribution
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.rules import RULES, Rule, folded
from aggregator.merge.state import initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from benchmarks.simulation.downloads import Downloads
from benchmarks.simulation.jobs import RUN_ID, WEIGHTS, Jobs, board_name, digest
from benchmarks.simulation.joint_training import train_together
from benchmarks.simulation.noise import with_sketch_noise
from benchmarks.simulation.session import FleetSession
from benchmarks.simulation.setting import History, Point, Setting
from benchmarks.simulation.texts import BoardText
from braid_common.example import Example
from braid_common.seeds import derive_seed
from edge_client.data.readers import Data
from edge_client.engines.lean.encoder_cache.reader import EncoderOutputs
from edge_client.engines.lean.engine import LeanEngine
from edge_client.engines.lean.evaluate import held_out_loss
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_adapter
from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.model.tokeniser import Pair
from edge_client.errors import ClientError
from edge_client.jobs.messages import AdapterJob, Job, TrainJob
from edge_client.worker.main import run_job
from wire.codec import decode
from wire.dtypes import download_dtype
from wire.messages import Profile, RoundSpec, Task, Update

_ALL = "all boards"


class Fleet:
    """One run: `begin`, then rounds of `updates` and `merge`, and `point` whenever wanted.

    Args: setting; texts, one per board; folder, for files, best in memory: encoder outputs and profiles that are left
    in it serve later fleets of the same texts; session, which may have served others and serves one at a time.
    """

    def __init__(self, setting: Setting, texts: Sequence[BoardText], folder: Path, session: FleetSession) -> None:
        self.setting = setting
        self.rule: Rule[Any] = RULES[setting.rule]
        self.state = initial_state(WEIGHTS)
        self.round = 0
        self.up_bytes = self.down_bytes = 0
        self.train_s = self.merge_s = 0.0
        optimiser = OPTIMISERS[setting.optimiser]
        self.merge_settings = MergeSettings(
            setting.server_rank, setting.max_rank, setting.eta or optimiser.eta, optimiser
        )
        self.download = download_dtype(setting.upload)
        self._downloads = Downloads(self.rule, self.download)
        self._held_out = [list(text.held_out) for text in texts]
        files = folder / digest(setting.seed, *texts)
        files.mkdir(parents=True, exist_ok=True)
        self._jobs = Jobs(setting, self.rule.TRAITS, files)
        self._jobs.forget_rounds()
        self._session = session
        session.texts = {board_name(board): Data(list(text.train), []) for board, text in enumerate(texts)}
        session.texts[_ALL] = Data([], [example for part in self._held_out for example in part[: setting.n_written]])

    @property
    def ranks(self) -> tuple[int, ...]:
        """Of the boards."""
        return self._jobs.ranks

    # --- a run -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The first basis, of all boards' profiles."""
        total = None
        for board in range(len(self.ranks)):
            self._encode_all(board)
            total = self.rule.fold(total, profile_contribution(self._profile(board)))
        self.state = self.rule.first_basis(self.state, total, max_rank=self.setting.max_rank, seed=self.setting.seed)

    def update(self, board: int) -> Update:
        """What one board sends for the round that is open. Ten boards at once take half the time of one by one."""
        return self.updates([board])[0]

    def updates(self, boards: Sequence[int] | None = None, *, together: bool = True) -> list[Update]:
        """What these boards (all, unless given) send for the round that is open. Not `together`: job after job, as on
        real boards."""
        task, wanted = self._task(), range(len(self.ranks)) if boards is None else boards
        jobs = [self._jobs.train(task, board, self.state) for board in wanted]
        for job in jobs:
            self.down_bytes += self._send(job)
        start_s = time.process_time()
        if together:
            train_together(jobs, self._session)
        else:
            for job in jobs:
                run_job(job, LeanEngine(self._session))
        self.train_s += time.process_time() - start_s
        self._downloads.keep(jobs, self.state)
        return [self._received(job) for job in jobs]

    def _received(self, job: TrainJob) -> Update:
        data = Path(job.result_path).read_bytes()
        self.up_bytes += len(data)
        noise_seed = derive_seed(job.spec.seed, "sketch noise", job.board_id)
        return with_sketch_noise(decode(data, Update), self.setting.sketch_noise, noise_seed)

    def contribution(self, update: Update) -> Contribution:
        """What the server reads of an update of this round."""
        return contribution(update, self.rule, self.state, self.download)

    def merge(self, contributions: Iterable[Contribution]) -> None:
        """Close the round."""
        start_s = time.process_time()
        self.state = self.rule.merge(self.state, folded(self.rule, contributions), self.merge_settings)
        self.round += 1
        self.merge_s += time.process_time() - start_s

    # --- what it gives ---------------------------------------------------------------------------------------------

    def point(self) -> Point:
        """The whole global adapter, on each board's held-out text."""
        job = self._jobs.evaluate(self._evaluation(), 0, self.state)
        pairs = [[self._pair(job, example) for example in part] for part in self._held_out]
        outputs = EncoderOutputs(job, self._session)
        outputs.prepare(pair.source for part in pairs for pair in part)
        adapter = AdapterTensors()
        if self.state.version:
            self._send(job)
            adapter = read_adapter(Path(job.adapter_path), job.run, job.spec.version, None)
        model = Model(self._session.base(job), adapter, job.plan.mode.compute)
        losses = tuple(held_out_loss(model, outputs, job, self._session, part)[0] for part in pairs)
        return Point(round=self.round, up_bytes=self.up_bytes, down_bytes=self.down_bytes, losses=losses)

    def rouge_l(self) -> float:
        """F1 (0…1) of `n_written` greedily written texts of each board, their mean."""
        job = self._jobs.evaluate(self._evaluation(), 0, self.state)
        self._send(job)
        return run_job(msgspec.structs.replace(job, data=_ALL, rouge=True), LeanEngine(self._session))["rougeL"]

    # --- jobs ------------------------------------------------------------------------------------------------------

    def _task(self) -> Task:
        number = self.round + 1
        return Task(
            kind="train",
            run_id=RUN_ID,
            spec=RoundSpec(
                round=number,
                version=self.state.version,
                seed=derive_seed(self.setting.seed, "round", number),
                sketch=self._sketches(number),
                trains=self.rule.TRAITS.trains(self.state.version),
            ),
        )

    def _sketches(self, number: int) -> bool:
        """Whether the server would ask for sketches in a round."""
        makes_basis = self.rule.TRAITS.sketches and number < self.setting.rounds
        return makes_basis and number % self.setting.sketch_every == 0

    def _evaluation(self) -> Task:
        return Task(kind="evaluate", run_id=RUN_ID, spec=RoundSpec(round=0, version=self.state.version))

    def _profile(self, board: int) -> Profile:
        """The board's profile. Neither rule nor mix matters for it, so it is made once."""
        job = self._jobs.profile(
            Task(kind="profile", run_id=RUN_ID, spec=RoundSpec(round=0, version=0, seed=self.setting.seed)),
            board,
            self.state,
        )
        if not Path(job.result_path).exists():
            run_job(job, LeanEngine(self._session))
        return decode(Path(job.result_path).read_bytes(), Profile)

    def _encode_all(self, board: int) -> None:
        """Fill the board's cache at once: in every round anew, the base would be loaded as often."""
        job = self._jobs.profile(
            Task(kind="profile", run_id=RUN_ID, spec=RoundSpec(round=0, version=0)), board, self.state
        )
        pairs = [self._pair(job, example) for example in self._session.data(job.data).train]
        EncoderOutputs(job, self._session).prepare(pair.source for pair in pairs)

    def _send(self, job: AdapterJob) -> int:
        start_s = time.process_time()
        size_bytes = self._downloads.send(job, self.state)
        self.merge_s += time.process_time() - start_s
        return size_bytes

    def _pair(self, job: Job, example: Example) -> Pair:
        settings = job.run.settings
        return self._session.tokeniser(job).pair(example, settings.max_source_tokens, settings.max_target_tokens)


def run_fleet(setting: Setting, texts: Sequence[BoardText], folder: Path, session: FleetSession) -> History:
    """The whole run, evaluated before the first round and after every `evaluate_every`.

    A run that diverges ends there, and says so.
    """
    start_s = time.process_time()
    fleet = Fleet(setting, texts, folder, session)
    points, failed = [fleet.point()], ""
    try:
        for point in _rounds(fleet):
            points.append(point)
        rouge_l = fleet.rouge_l() if setting.n_written else None
    except (ClientError, ValueError) as error:  # numpy's LinAlgError is a ValueError
        failed, rouge_l = str(error), None
    return History(
        setting=setting,
        points=tuple(points),
        rouge_l=rouge_l,
        failed=failed,
        train_s=fleet.train_s,
        merge_s=fleet.merge_s,
        cpu_s=time.process_time() - start_s,
    )


def _rounds(fleet: Fleet) -> Iterator[Point]:
    setting = fleet.setting
    fleet.begin()
    for number in range(1, setting.rounds + 1):
        fleet.merge(map(fleet.contribution, fleet.updates()))
        if number % setting.evaluate_every == 0 or number == setting.rounds:
            yield fleet.point()
