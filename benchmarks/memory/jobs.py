"""Predict and measure the peak of one setting, in a worker of its own."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from aggregator.merge.bases import random_basis
from aggregator.merge.rules.braid import cut
from aggregator.merge.state import initial_state
from benchmarks.memory.settings import BUILTIN, SEED, Setting, ranks_of, run_info
from braid_common.seeds import derive_seed
from edge_client.jobs.messages import Plan, ProfileJob, Progress, TrainJob
from edge_client.plan.peak_memory import Breakdown, predict_encoding, predict_peak
from edge_client.worker.process import WorkerProcess
from quantize.random_base import SPECIAL_PIECES, VOCABULARY
from wire.codec import encode
from wire.limits import PROTOCOL_VERSION
from wire.messages import Adapter, RoundSpec, RunInfo, Tensor, Trains

BUILTIN_DATA = "builtin:docstrings/networkx"
CACHE_LIMIT_BYTES = 1 << 30
N_EXAMPLES = 80
"""Written for a base of random values; a tenth is held out, and most settings read fewer."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`measured_bytes` is the worker's VmHWM, at the end or, of an encoding pass, when that was through."""

    predicted: Breakdown
    measured_bytes: int
    n_strands: int

    @property
    def ratio(self) -> float:
        return self.predicted.total_bytes / self.measured_bytes


def compare(setting: Setting, base_folder: Path, threads: int) -> Comparison:
    """Run `setting` on a base. Raises ClientError where the worker fails or is killed."""
    config = json.loads((base_folder / "config.json").read_text())
    run = run_info(setting, config)
    ranks = ranks_of(setting, run)
    predicted = _predict(setting, config, run, ranks)
    with tempfile.TemporaryDirectory() as folder:
        job = _job(setting, run, ranks, predicted, base_folder, Path(folder), threads)
        for round_id in (2, 3) if setting.upload in ("int8", "int4") else ():  # each leaves residuals to the next two
            asyncio.run(_round_peak(job))
            job = msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, round=round_id))
        measured_bytes = asyncio.run(_encoding_peak(job) if setting.way == "encoding" else _round_peak(job))
    return Comparison(predicted, measured_bytes, sum(ranks))


def _predict(setting: Setting, config: Mapping[str, Any], run: RunInfo, ranks: Sequence[int]) -> Breakdown:
    if setting.way == "encoding":
        return predict_encoding(config, run, setting.format, setting.arithmetic)
    return predict_peak(
        config,
        run,
        setting.format,
        setting.arithmetic,
        setting.micro_batch,
        ranks,
        checkpointing=setting.checkpointing,
        cache=setting.cache,
        frozen_encoder=setting.frozen_encoder,
    )


async def _round_peak(job: TrainJob | ProfileJob) -> int:
    worker = WorkerProcess()
    try:
        done = await worker.run_job(job, lambda progress: None)
    finally:
        await worker.close()
    return int(done.values["peak_bytes"])


async def _encoding_peak(job: TrainJob | ProfileJob) -> int:
    """Of the encoding pass alone: the profile that comes after it is stopped."""
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


def _job(
    setting: Setting,
    run: RunInfo,
    ranks: tuple[int, ...],
    predicted: Breakdown,
    base_folder: Path,
    folder: Path,
    threads: int,
) -> TrainJob | ProfileJob:
    """A round on a random basis, or a profile after its encoding pass; its files go into `folder`."""
    encoding = setting.way == "encoding"
    _write_adapter(folder / "adapter", run, ranks, setting.trains)
    common: dict[str, Any] = {
        "base_folder": str(base_folder),
        "data": BUILTIN_DATA if setting.base == BUILTIN else _write_text(folder / "text.jsonl", setting),
        "board_id": "benchmark",
        "run": run,
        "spec": RoundSpec(round=1, version=1, seed=SEED, sketch=True, trains=setting.trains),
        "plan": _plan(setting, ranks, predicted),
        "result_path": str(folder / "result"),
        "cache_path": str(folder / "cache"),
        "cache_limit_bytes": CACHE_LIMIT_BYTES,
        "threads": threads,
    }
    if encoding:
        return ProfileJob(**common)
    return TrainJob(
        adapter_path=str(folder / "adapter"),
        training_state_path=str(folder / "training_state"),
        residual_path=str(folder / "residual"),
        max_eval_examples=48 if setting.base == BUILTIN else 1,
        **common,
    )


def _plan(setting: Setting, ranks: tuple[int, ...], predicted: Breakdown) -> Plan:
    """With no byte above what was predicted, as on the tightest board."""
    return Plan(
        format=setting.format,
        compute=setting.arithmetic,
        micro_batch=setting.micro_batch,
        ranks=ranks,
        predicted_peak_bytes=predicted.total_bytes,
        budget_bytes=predicted.total_bytes,
        checkpointing=setting.checkpointing,
        cache="bf16" if setting.way == "encoding" else setting.cache,
        frozen_encoder=setting.frozen_encoder,
    )


def _write_adapter(path: Path, run: RunInfo, ranks: Sequence[int], trains: Trains) -> None:
    """As late in a run: the context has all the rank that the server gives it. Its values are zero. Where A is trained,
    strands that begin somewhere come in its place."""
    parts = cut(random_basis(initial_state(run.weights), max_rank=run.max_rank, seed=SEED), ranks, "bf16")
    full = []
    for part, weight, rank in zip(parts, run.weights, ranks, strict=True):
        begins = trains != "b" and rank > 0
        held = 0 if begins else min(run.server_rank, weight.rows, weight.columns)
        context = {"frozen_b": _zeros(weight.rows, held), "frozen_a": _zeros(held, weight.columns)}
        start_b = _zeros(weight.rows, rank) if begins else None
        full.append(msgspec.structs.replace(part, **context, start_b=start_b))
    adapter = Adapter(protocol=PROTOCOL_VERSION, run_id=run.run_id, version=1, manifest=run.manifest, parts=tuple(full))
    path.write_bytes(encode(adapter))


def _zeros(rows: int, columns: int) -> Tensor:
    return Tensor(dtype="bf16", shape=(rows, columns), data=bytes(2 * rows * columns))


def _write_text(path: Path, setting: Setting) -> str:
    """Random words of the random base, more of them than the settings allow tokens."""
    words = random.Random(derive_seed(SEED, "text"))

    def text(count: int) -> str:
        return " ".join(f"w{words.randrange(VOCABULARY - len(SPECIAL_PIECES))}" for _ in range(count))

    rows = [{"source": text(setting.source), "target": text(setting.target)} for _ in range(N_EXAMPLES)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)
