"""A round of training as a board runs it: through the worker process, with a Job, on a random base."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from aggregator.merge.bases import random_basis
from aggregator.merge.rules import braid, weave
from aggregator.merge.state import initial_state
from benchmarks.training_speed.contest import Contestant, ContestantFailed, Measurement, Workload
from braid_common.seeds import derive_seed
from edge_client.errors import ClientError, ExitCode
from edge_client.jobs.messages import Plan, TrainJob
from edge_client.plan.peak_memory import predict_peak
from edge_client.worker.process import WorkerLost, WorkerProcess
from quantize.random_base import SHAPES, SPECIAL_PIECES, VOCABULARY, shape_config
from wire.codec import encode
from wire.limits import PROTOCOL_VERSION
from wire.manifest import manifest_digest, t5_weights
from wire.messages import Adapter, Base, RoundSpec, RunInfo, TrainSettings

TRAINED = (".q", ".v")
SPARE_EXAMPLES = 3
"""Written beyond what the steps need, as a factor of 1.25 plus this: a tenth is held out, by a hash."""

CACHE_LIMIT_BYTES = 4 << 30
"""Enough for every example of a benchmark: xl takes 2 MiB for one of 512 tokens in bf16."""

_IMPORTS = """
from edge_client.host.worker_memory import prepare_for_training, resident_bytes
prepare_for_training()
import edge_client.engines.lean.engine
print(resident_bytes())
"""


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
        predicted_bytes=job.plan.expected_peak_bytes,
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
    _write_text(folder / "text.jsonl", workload)
    return TrainJob(
        base_folder=str(base_folder),
        data=str(folder / "text.jsonl"),
        board_id="benchmark",
        run=run,
        spec=RoundSpec(
            round=1,
            version=1,
            seed=workload.seed,
            sketch=contestant.sketch,
            trains="both" if contestant.trains_a else "b",
        ),
        plan=plan,
        adapter_path=str(folder / "adapter"),
        result_path=str(folder / "update"),
        cache_path=str(folder / "cache") if contestant.cache != "none" else "",
        cache_limit_bytes=CACHE_LIMIT_BYTES if contestant.cache != "none" else 0,
        max_eval_examples=1,  # a round evaluates first; its time is not in tokens_per_s
        threads=workload.threads,
    )


def _plan(contestant: Contestant, workload: Workload, run: RunInfo) -> Plan:
    """Every q and v at the workload's rank, on a board that has a quarter more memory than is predicted."""
    ranks = tuple(workload.rank if weight.name.endswith(TRAINED) else 0 for weight in run.weights)
    predicted = predict_peak(
        shape_config(workload.shape),
        run,
        contestant.format,
        contestant.compute,
        workload.micro_batch,
        ranks,
        checkpointing=contestant.checkpointing,
        cache=contestant.cache,
    )
    return Plan(
        format=contestant.format,
        compute=contestant.compute,
        micro_batch=workload.micro_batch,
        ranks=ranks,
        predicted_peak_bytes=predicted.total_bytes,
        budget_bytes=int(1.25 * predicted.total_bytes),
        checkpointing=contestant.checkpointing,
        cache=contestant.cache,
    )


def _run(contestant: Contestant, workload: Workload) -> RunInfo:
    weights = t5_weights(SHAPES[workload.shape], contestant.scope)
    return RunInfo(
        protocol=PROTOCOL_VERSION,
        run_id="benchmark",
        state="training",
        base=Base(model=f"random-{workload.shape}", digest="0" * 64),
        weights=weights,
        manifest=manifest_digest(weights),
        settings=TrainSettings(
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
        ),
        max_rank=workload.rank,
        server_rank=workload.rank,
        rounds=1,
        round=1,
        version=1,
    )


def _write_adapter(path: Path, run: RunInfo, ranks: Sequence[int]) -> None:
    """Version 1 with random bases and empty contexts: a LoRA at its start, as the peers' is."""
    state = random_basis(initial_state(run.weights), max_rank=run.max_rank, seed=run.settings.seed)
    cut = weave.cut if run.settings.trains_a else braid.cut
    adapter = Adapter(
        protocol=PROTOCOL_VERSION, run_id=run.run_id, version=1, manifest=run.manifest, parts=cut(state, ranks, "bf16")
    )
    path.write_bytes(encode(adapter))


def _write_text(path: Path, workload: Workload) -> None:
    """Pairs of so many random words that every source and target is cut to exactly its number of tokens."""
    words = random.Random(derive_seed(workload.seed, "text"))

    def text(count: int) -> str:
        return " ".join(f"w{words.randrange(VOCABULARY - len(SPECIAL_PIECES))}" for _ in range(count))

    n_examples = int(1.25 * workload.steps * workload.batch) + SPARE_EXAMPLES
    lines = [json.dumps({"source": text(workload.source), "target": text(workload.target)}) for _ in range(n_examples)]
    path.write_text("\n".join(lines))
