"""The predicted and the measured peak of one setting, each measurement in a worker of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from aggregator.merge.bases import random_basis
from aggregator.merge.rules.braid import cut
from aggregator.merge.state import initial_state
from benchmarks.memory.settings import BUILTIN, SEED, Setting, ranks_of, run_of
from benchmarks.simulation.jobs import JobFiles, adapter_message, plan_of, profile_job, train_job
from benchmarks.simulation.random_text import write_random_text
from braid_common.base.files import read_t5_config
from edge_client.jobs.messages import Job, ProfileJob, Progress, TrainJob
from edge_client.plan.peak_memory import Breakdown, predict_encoding, predict_peak
from edge_client.worker.process import WorkerProcess
from wire.codec import encode
from wire.messages import RoundSpec, Tensor, Trains
from wire.run import RunInfo

BUILTIN_DATA = "builtin:docstrings/networkx"
CACHE_LIMIT_BYTES = 1 << 30
N_EXAMPLES = 80
"""Written for a base of random values; a tenth is held out, and most settings read fewer."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prediction beside its measurement.

    Attributes:
        predicted: the planner's, part by part.
        measured_bytes: the worker's VmHWM, at the end or, of an encoding pass, when that was through.
        n_strands: strands that the round trains.
    """

    predicted: Breakdown
    measured_bytes: int
    n_strands: int

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted.total_bytes / self.measured_bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A setting's job with its files, its prediction, and the strands that it trains."""

    job: TrainJob | ProfileJob
    predicted: Breakdown
    n_strands: int


def prepare(setting: Setting, base_folder: Path, folder: Path, threads: int) -> Prepared:
    """Write the files of a setting's job into an empty folder."""
    base = read_t5_config(base_folder)
    run = run_of(setting, base)
    ranks = ranks_of(setting, run)
    encodes = setting.work == "encoding"
    mode = setting.mode
    prediction = predict_encoding(base, run, mode) if encodes else predict_peak(base, run, mode, ranks)
    files = _files(setting, base_folder, folder, threads)
    write_adapter(files.folder / "adapter", run, ranks, setting.trains)
    spec = RoundSpec(round=run.round, version=run.version, seed=SEED, sketch=True, trains=setting.trains)
    plan = plan_of(mode, ranks, prediction.total_bytes)  # no byte to spare, as on the tightest board
    job = (profile_job if encodes else train_job)(files, run, spec, plan)
    return Prepared(job, prediction, sum(ranks))


def compare(setting: Setting, base_folder: Path, threads: int) -> Comparison:
    """Run `setting` on a base. Raises ClientError where the worker fails or is killed."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(setting, base_folder, Path(folder), threads)
        job, spec = prepared.job, prepared.job.spec
        for round_id in (2, 3) if setting.upload in ("int8", "int4") else ():  # each leaves residuals to the next two
            asyncio.run(round_peak(job))
            job = msgspec.structs.replace(job, spec=msgspec.structs.replace(spec, round=round_id))
        measured_bytes = asyncio.run(_encoding_peak(job) if setting.work == "encoding" else round_peak(job))
    return Comparison(prepared.predicted, measured_bytes, prepared.n_strands)


async def round_peak(job: Job) -> int:
    """The worker's peak over a whole job, in bytes."""
    worker = WorkerProcess()
    try:
        done = await worker.run_job(job, lambda progress: None)
    finally:
        await worker.close()
    return int(done.values["peak_bytes"])


async def _encoding_peak(job: Job) -> int:
    """The peak of the encoding pass alone, in bytes: the profile that comes after it is stopped."""
    worker, peaks, is_over = WorkerProcess(), [0], asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.phase == "encode":
            peaks.append(progress.peak_bytes)
        else:
            is_over.set()

    work, end = asyncio.create_task(worker.run_job(job, note)), asyncio.create_task(is_over.wait())
    try:
        await asyncio.wait((work, end), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()  # what the worker has to complain of
    finally:
        work.cancel()
        end.cancel()
        await asyncio.gather(work, end, return_exceptions=True)
        await worker.close()
    return max(peaks)


def _files(setting: Setting, base_folder: Path, folder: Path, threads: int) -> JobFiles:
    """The files of a board whose text fits the setting."""
    is_builtin = setting.base == BUILTIN
    return JobFiles(
        base_folder=base_folder,
        folder=folder,
        data=BUILTIN_DATA
        if is_builtin
        else write_random_text(folder / "text.jsonl", N_EXAMPLES, setting.source, setting.target, seed=SEED),
        threads=threads,
        cache_limit_bytes=CACHE_LIMIT_BYTES,
        n_evaluated=48 if is_builtin else 1,
        saves_state=True,
    )


def write_adapter(path: Path, run: RunInfo, ranks: Sequence[int], trains: Trains) -> None:
    """Write an adapter as it is late in a run: the frozen part has all the rank that the server gives it.

    Its values are zero. Where A is trained, strands that begin somewhere come in the frozen part's place.
    """
    parts = cut(random_basis(initial_state(run.weights), max_rank=run.max_rank, seed=SEED), ranks, "bf16")
    full = []
    for part, weight, rank in zip(parts, run.weights, ranks, strict=True):
        has_start = trains != "b" and rank > 0
        frozen_rank = 0 if has_start else min(run.server_rank, weight.rows, weight.columns)
        frozen = {"frozen_b": _zeros(weight.rows, frozen_rank), "frozen_a": _zeros(frozen_rank, weight.columns)}
        start_b = _zeros(weight.rows, rank) if has_start else None
        full.append(msgspec.structs.replace(part, **frozen, start_b=start_b))
    path.write_bytes(encode(adapter_message(run, full)))


def _zeros(rows: int, columns: int) -> Tensor:
    return Tensor(dtype="bf16", shape=(rows, columns), data=bytes(2 * rows * columns))
