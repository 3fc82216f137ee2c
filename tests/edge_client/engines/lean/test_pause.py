"""A round that the true worker pauses in, by a board's heat: the same to the last bit as one that never did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_client.agent.manners import pauses as pauses_module
from edge_client.agent.manners.leave_to_train import Rules
from edge_client.agent.manners.look import Look
from edge_client.agent.manners.pauses import Away, Pauses
from edge_client.data.load import load_data
from edge_client.engines.contract import Host, Stopped
from edge_client.engines.lean.evaluate import evaluate
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.tensor_file import load_tensors
from edge_client.engines.lean.train import train
from edge_client.engines.lean.training_state import training_state_key
from edge_client.jobs.messages import EvaluateJob, Job, Progress, TrainJob
from edge_client.worker.process import WorkerProcess
from tests.fakes.sysfs import RASPBERRY_PI_4, lay_out

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
N_STEPS = 100
TIME_LIMIT_S = 120.0

Jobs = Callable[..., Job]


class Quiet:
    """A listener that nobody asks."""

    def paused(self, why: str, *, aloud: bool) -> None: ...

    def unpaused(self, *, aloud: bool) -> None: ...


class HotBoard:
    """A board that gets too hot when its worker begins to train, and cools down when that has stopped.

    Attributes:
        parked: how often the worker stood still with its place saved and its round undone.
    """

    def __init__(self, root: Path, worker: WorkerProcess) -> None:
        self._zone = lay_out(root, RASPBERRY_PI_4) / "sys/class/thermal/thermal_zone0/temp"
        self.worker, self.parked, self._is_cooled = worker, 0, False
        rules = Rules(below_c=70.0)
        look = Look(rules, root=root)
        self.pauses = Pauses(rules, look, worker=worker, listener=Quiet(), look_every_s=0.005)

    async def train(self, job: TrainJob) -> bytes:
        """The update, of a round in which the board got hot once."""
        self._is_cooled = False
        running = asyncio.create_task(self.worker.run_job(job, self._heat_up))
        watching = asyncio.create_task(self.pauses.until_away())
        cooling = asyncio.create_task(self._cool_down(job))
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED, timeout=TIME_LIMIT_S)
            if watching.done():
                watching.result()
            await running
        finally:
            for task in (running, watching, cooling):
                task.cancel()
            await asyncio.gather(running, watching, cooling, return_exceptions=True)
        return Path(job.result_path).read_bytes()

    def _heat_up(self, progress: Progress) -> None:
        if progress.phase == "train" and not self._is_cooled:
            self._zone.write_text("90000\n")

    async def _cool_down(self, job: TrainJob) -> None:
        while not self.worker.is_parked:  # noqa: ASYNC110 (a flag of the worker's; nobody waits for it elsewhere)
            await asyncio.sleep(0.005)
        self.parked += Path(job.training_state_path).exists() and not Path(job.result_path).exists()
        self._is_cooled = True
        self._zone.write_text("50000\n")


@pytest.fixture
def job(make_job: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainJob:
    """A round that takes long enough to be paused in."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = make_job(training_state_path=str(tmp_path / "place"), settings={"local_steps": N_STEPS}, threads=1)
    assert isinstance(job, TrainJob)
    return job


async def test_a_pause_changes_no_bit_and_neither_does_a_long_one(
    job: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused in mid-round, and then paused for so long that the worker ends and another one goes on: each update is the
    one of a round without a pause."""
    worker = WorkerProcess()
    try:
        await worker.run_job(msgspec.structs.replace(job, training_state_path=""), lambda progress: None)
        whole = Path(job.result_path).read_bytes()
        Path(job.result_path).unlink()
        hot = HotBoard(tmp_path / "root", worker)
        assert await hot.train(job) == whole and hot.parked == 1, "it stood still, its place saved, and went on"

        Path(job.result_path).unlink()
        Path(job.training_state_path).unlink()
        monkeypatch.setattr(pauses_module, "KEEP_S", -1.0)  # every pause is a long one
        with pytest.raises(Away, match=r"90\.0 °C"):
            await hot.train(job)
        assert not worker.is_running, "the memory is given back"
        assert Path(job.training_state_path).exists() and not Path(job.result_path).exists()
        await worker.run_job(job, lambda progress: None)
        assert Path(job.result_path).read_bytes() == whole
    finally:
        await worker.close()


class Asked:
    """A host that wants a pause behind one step, on a clock that stands still: nothing is saved because it is time to.

    Attributes:
        n_asked: how often it was asked for a pause.
        saved: the steps that were saved when the pause began.
    """

    def __init__(self, job: TrainJob, step: int, *, stops: bool = False) -> None:
        self._job, self._step, self._stops = job, step, stops
        self.n_asked = 0
        self.saved: list[float] = []

    def session(self) -> Session:
        host = Host(lambda progress: None, lambda: 0.0, self._wants_stop, self._wants_pause, self._wait)
        return Session(host)

    def _wants_stop(self) -> bool:
        return self._stops and bool(self.saved)

    def _wants_pause(self) -> bool:
        self.n_asked += 1
        return self.n_asked == self._step

    def _wait(self) -> None:
        if self.n_asked == self._step:
            key = training_state_key(self._job, load_data(self._job.data).train)
            place = load_tensors(Path(self._job.training_state_path), key)
            assert place is not None
            self.saved.append(place.numbers["step"])


def test_the_place_is_saved_before_the_pause_and_the_last_step_is_not_held_up(make_job: Jobs, tmp_path: Path) -> None:
    """A board that loses its power while it pauses has lost nothing; and an update that is done can be sent."""
    job = make_job(training_state_path=str(tmp_path / "place"))
    assert isinstance(job, TrainJob)
    asked = Asked(job, 2)

    train(job, asked.session())

    assert asked.saved == [2.0]
    assert asked.n_asked == job.run.settings.local_steps - 1, "not behind the last step"


def test_a_stop_ends_a_pause(make_job: Jobs, tmp_path: Path) -> None:
    """A worker that waits and is told to leave takes no further step."""
    job = make_job(training_state_path=str(tmp_path / "place"))
    assert isinstance(job, TrainJob)
    asked = Asked(job, 2, stops=True)

    with pytest.raises(Stopped):
        train(job, asked.session())

    assert asked.saved == [2.0] and asked.n_asked == 2


def test_an_evaluation_pauses_between_its_batches(make_job: Jobs) -> None:
    """What has nothing to save waits all the same, and loses nothing by it."""
    waits: list[str] = []
    job = make_job("evaluate", ranks=(0,))
    assert isinstance(job, EvaluateJob)

    values = evaluate(job, Session(Host(wait=lambda: waits.append("waits"))))

    assert waits and values["loss"] == evaluate(job, Session())["loss"]
