"""Memory of a board by method: the planner's prediction beside the peak of fresh worker processes."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
from msgspec import UNSET

import builtin_base
from benchmarks.memory.jobs import round_peak, write_adapter
from benchmarks.personal.methods import Condition
from benchmarks.personal.runs import Settings
from benchmarks.simulation.jobs import BOARD_ID, CACHE_LIMIT_BYTES, JobFiles, plan_of, train_job
from benchmarks.simulation.strands import equal_ranks, weights
from braid_common.base.files import read_t5_config
from edge_client.agent.personal.own_settings import unshared_ranks
from edge_client.jobs.messages import PersonalJob, TrainingMode, TrainJob
from edge_client.plan.peak_memory import predict_peak
from edge_client.plan.pruning import limited
from wire.default_run import run_info
from wire.messages import RoundSpec
from wire.run import RunInfo, TrainSettings

DATA = "builtin:docstrings/networkx"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a method: the planner's prediction of a board's peak, and the worker's peak (VmHWM) in a round and in
    the steps that local strands have to themselves, 0 where there are none."""

    condition: str
    predicted_bytes: int
    round_bytes: int
    own_bytes: int

    @property
    def measured_bytes(self) -> int:
        """The larger of the two peaks."""
        return max(self.round_bytes, self.own_bytes)


def measure(name: str, condition: Condition, settings: Settings) -> Memory:
    """One round of a board on docstrings, and its own steps after it, each in a worker of its own."""
    run = _run(condition, settings)
    ranks = limited(equal_ranks(run, settings.n_shared), run.weights, unshared_ranks(run))
    mode = TrainingMode(format="bf16", compute="bf16", micro_batch=settings.batch, cache="bf16")
    predicted = predict_peak(read_t5_config(builtin_base.folder()), run, mode, ranks).total_bytes
    with tempfile.TemporaryDirectory() as folder:
        files = JobFiles(
            base_folder=builtin_base.folder(),
            folder=Path(folder),
            data=DATA,
            threads=1,
            cache_limit_bytes=CACHE_LIMIT_BYTES,
            n_evaluated=settings.n_test,
            saves_state=True,
        )
        write_adapter(files.folder / "adapter", run, ranks, "both")
        spec = RoundSpec(round=run.round, version=run.version, seed=1, trains="both")
        job = train_job(files, run, spec, plan_of(mode, ranks, predicted))
        job = msgspec.structs.replace(job, personal_path=str(files.folder / "own") if condition.method else "")
        round_bytes = asyncio.run(round_peak(job))
        own_bytes = asyncio.run(round_peak(_own_steps(job))) if run.own_steps else 0
    return Memory(condition=name, predicted_bytes=predicted, round_bytes=round_bytes, own_bytes=own_bytes)


def _own_steps(job: TrainJob) -> PersonalJob:
    """The job that follows a round where local strands have steps of their own."""
    fields = {name: getattr(job, name) for name in PersonalJob.__struct_fields__ if name != "ranks"}
    return PersonalJob(**fields | {"board_id": BOARD_ID}, ranks=job.plan.ranks)


def _run(condition: Condition, settings: Settings) -> RunInfo:
    asked = TrainSettings(
        scope="decoder",
        learning_rate=settings.learning_rate,
        batch=settings.batch,
        micro_batch=settings.batch,
        local_steps=settings.local_steps,
        max_source_tokens=settings.max_source_tokens,
        max_target_tokens=settings.max_target_tokens,
        sketch_batches=settings.local_steps,
        trains_a=True,
        personal=condition.personal(rank=settings.n_own, fleet_steps=settings.local_steps) or UNSET,
        keep=condition.penalty or UNSET,
    )
    return run_info(weights("decoder"), asked, max_rank=16, server_rank=32)
