"""Our training as a board runs it: a job in the worker process, on a base of random values."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from aggregator.merge.bases import random_basis
from aggregator.merge.rules import braid, weave
from aggregator.merge.state import initial_state
from benchmarks.simulation.jobs import JobFiles, adapter_message, plan_of, train_job
from benchmarks.simulation.random_text import write_random_text
from benchmarks.training_speed.contest import Contestant, ContestantFailed, Measurement, Workload
from edge_client.errors import ClientError, ExitCode
from edge_client.jobs.messages import Plan, TrainingMode, TrainJob
from edge_client.plan.peak_memory import predict_peak
from edge_client.worker.process import WorkerLost, WorkerProcess
from quantize.random_base import SHAPES
from wire.codec import encode
from wire.default_run import run_info
from wire.manifest import t5_weights
from wire.messages import RoundSpec
from wire.run import RunInfo, TrainSettings

TRAINED = (".q", ".v")
"""Ends of the names of the weights that are trained."""

SPARE_EXAMPLES = 3
"""Examples beyond 1.25 times what the steps need: a tenth is held out, by a hash."""

CACHE_LIMIT_BYTES = 4 << 30
"""Enough for every example of a benchmark: xl takes 2 MiB for one of 512 tokens in bf16."""

_IMPORTS = """
from edge_client.host.worker_memory import prepare_for_training, resident_bytes
prepare_for_training()
import edge_client.engines.lean.engine
print(resident_bytes())
"""
"""A program that imports what the worker imports, after the worker's own preparations."""


def run_ours(contestant: Contestant, workload: Workload, base_folder: Path) -> Measurement:
    """Train the same round twice in one fresh worker. Raises ContestantFailed with the worker's own sentence.

    The first round loads the base, fills the cache and warms up; the second gives the steady state. The peak is of
    both, loading and encoding included.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = _job(contestant, workload, base_folder, Path(folder))
        try:
            first, second = asyncio.run(_rounds(job))
        except ClientError as error:
            lacked = error.exit_code == ExitCode.MEMORY or (isinstance(error, WorkerLost) and error.ran_short)
            raise ContestantFailed(f"{error.message} ({error.hint})", lacked_memory=lacked) from error
    return Measurement(
        tokens_per_s=second["tokens_per_s"],
        encode_s_per_token=_encode_s_per_token((first, second)),
        peak_bytes=second["peak_bytes"],
        imports_bytes=_imports_bytes(),
        predicted_bytes=job.plan.predicted_bytes,
        n_trained=sum(
            rank * (weight.rows + weight.columns * contestant.trains_a)
            for rank, weight in zip(job.plan.ranks, job.run.weights, strict=True)
        ),
    )


async def _rounds(job: TrainJob) -> tuple[dict[str, float], dict[str, float]]:
    worker = WorkerProcess()
    try:
        first = await worker.run_job(job, lambda progress: None)
        second = await worker.run_job(job, lambda progress: None)
    finally:
        await worker.close()
    return first.values, second.values


def _encode_s_per_token(rounds: Sequence[Mapping[str, float]]) -> float:
    tokens = sum(values.get("encoded_tokens", 0.0) for values in rounds)
    return sum(values.get("encode_s", 0.0) for values in rounds) / tokens if tokens else 0.0


def _imports_bytes() -> int:
    """Resident memory of a process that has imported what the worker imports, after the worker's own preparations."""
    done = subprocess.run([sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True)
    return int(done.stdout)


# --- the job ---------------------------------------------------------------------------------------------------------


def _job(contestant: Contestant, workload: Workload, base_folder: Path, folder: Path) -> TrainJob:
    run = _run(contestant, workload)
    plan = _plan(contestant, workload, run)
    _write_adapter(folder / "adapter", run, plan.ranks)
    n_examples = int(1.25 * workload.steps * workload.batch) + SPARE_EXAMPLES
    text = folder / "text.jsonl"
    files = JobFiles(
        base_folder=base_folder,
        folder=folder,
        data=write_random_text(text, n_examples, workload.source, workload.target, seed=workload.seed),
        threads=workload.threads,
        cache_limit_bytes=CACHE_LIMIT_BYTES,
        n_evaluated=1,  # a round evaluates first; its time is not in tokens_per_s
    )
    spec = RoundSpec(
        round=run.round,
        version=run.version,
        seed=workload.seed,
        sketch=contestant.sketch,
        trains="both" if contestant.trains_a else "b",
    )
    return train_job(files, run, spec, plan)


def _plan(contestant: Contestant, workload: Workload, run: RunInfo) -> Plan:
    """Every q and v at the workload's rank, on a board that has a quarter more memory than is predicted."""
    ranks = tuple(workload.rank if weight.name.endswith(TRAINED) else 0 for weight in run.weights)
    mode = TrainingMode(
        format=contestant.format,
        compute=contestant.compute,
        micro_batch=workload.micro_batch,
        checkpointing=contestant.checkpointing,
        cache=contestant.cache,
    )
    peak_bytes = predict_peak(SHAPES[workload.shape], run, mode, ranks).total_bytes
    return plan_of(mode, ranks, peak_bytes, int(1.25 * peak_bytes))


def _run(contestant: Contestant, workload: Workload) -> RunInfo:
    settings = TrainSettings(
        scope=contestant.scope,
        learning_rate=0.001,
        batch=workload.batch,
        micro_batch=workload.micro_batch,
        local_steps=workload.steps,
        max_source_tokens=workload.source,
        max_target_tokens=workload.target,
        sketch_batches=workload.steps * -(-workload.batch // workload.micro_batch),  # all, to show the full cost
        trains_a=contestant.trains_a,
        seed=workload.seed,
    )
    weights = t5_weights(SHAPES[workload.shape], contestant.scope)
    return run_info(weights, settings, max_rank=workload.rank, server_rank=workload.rank)


def _write_adapter(path: Path, run: RunInfo, ranks: Sequence[int]) -> None:
    """Write a version 1 of random bases without anything merged: a LoRA at its start, as the peers' is."""
    state = random_basis(initial_state(run.weights), max_rank=run.max_rank, seed=run.settings.seed)
    cut = weave.cut if run.settings.trains_a else braid.cut
    path.write_bytes(encode(adapter_message(run, cut(state, ranks, "bf16"))))
