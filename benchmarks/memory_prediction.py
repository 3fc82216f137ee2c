"""Predicted over measured peak memory of the training worker, each setting in a fresh process on the builtin base.

    python -m benchmarks.memory_prediction          # about four minutes on two cores

A run trains a whole round with a sketch on this machine's networkx docstrings, so that batches of many lengths occur.
Measured is the worker's VmHWM.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

import builtin_base
from aggregator.merge.braid import cut, random_basis
from aggregator.merge.state import initial_state
from edge_client.allot import allot, strand_order
from edge_client.frames import read_frame, write_frame
from edge_client.jobs import Compute, Done, Event, Failed, Format, Job, Plan
from edge_client.memory import predict_peak
from wire.codec import encode
from wire.limits import PROTOCOL_VERSION
from wire.manifest import manifest_digest, t5_weights
from wire.messages import Adapter, Base, RunInfo, Scope, Task, TrainSettings

DATA = "builtin:docstrings/networkx"
SEED = 7
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Setting:
    """`share` of all strands is trained; lengths in tokens."""

    format: Format
    scope: Scope
    micro_batch: int
    source: int
    target: int
    share: float
    max_rank: int
    steps: int

    @property
    def compute(self) -> Compute:
        return "fp32" if self.format == "fp32" else "bf16"


SETTINGS = (
    Setting("bf16", "all", 16, 192, 32, 1.0, 32, 24),
    Setting("fp32", "all", 16, 192, 32, 1.0, 32, 16),
    Setting("nf4", "all", 16, 192, 32, 0.25, 32, 16),
    Setting("int8", "all", 8, 192, 32, 0.25, 32, 24),
    Setting("bf16", "decoder", 16, 192, 32, 0.5, 32, 24),
    Setting("fp32", "all", 32, 192, 32, 1.0, 32, 12),
    Setting("bf16", "all", 32, 192, 32, 1.0, 32, 12),
    Setting("nf4", "all", 32, 192, 32, 0.1, 32, 12),
)


def run_info(setting: Setting) -> RunInfo:
    config = json.loads((builtin_base.folder() / "config.json").read_text())
    weights = t5_weights(config, setting.scope)
    return RunInfo(
        protocol=PROTOCOL_VERSION,
        run_id="benchmark",
        state="training",
        base=Base(model="builtin", digest="0" * 64),
        weights=weights,
        manifest=manifest_digest(weights),
        settings=TrainSettings(
            scope=setting.scope,
            learning_rate=0.002,
            batch=setting.micro_batch,
            micro_batch=setting.micro_batch,
            local_steps=setting.steps,
            max_source_tokens=setting.source,
            max_target_tokens=setting.target,
            sketch_batches=2,
            seed=SEED,
        ),
        max_rank=setting.max_rank,
        server_rank=setting.max_rank,
        rounds=1,
        round=1,
        version=1,
    )


def job(setting: Setting, run: RunInfo, predicted_bytes: int, folder: Path) -> Job:
    """A training job on a random basis, its adapter written into `folder`."""
    ranks = allot(strand_order(run), len(run.weights), int(setting.share * sum(full_ranks(run))))
    state = random_basis(initial_state(run.weights), max_rank=run.max_rank, seed=SEED)
    adapter = Adapter(
        protocol=PROTOCOL_VERSION, run_id=run.run_id, version=1, manifest=run.manifest, parts=cut(state, ranks, "bf16")
    )
    (folder / "adapter").write_bytes(encode(adapter))
    return Job(
        kind="train",
        base_folder=str(builtin_base.folder()),
        data=DATA,
        device="benchmark",
        run=run,
        task=Task(kind="train", run_id=run.run_id, round=1, version=1, seed=SEED, sketch=True),
        plan=Plan(
            format=setting.format,
            compute=setting.compute,
            micro_batch=setting.micro_batch,
            ranks=ranks,
            predicted_peak_bytes=predicted_bytes,
            budget_bytes=predicted_bytes,
        ),
        adapter_path=str(folder / "adapter"),
        result_path=str(folder / "update"),
        max_eval_examples=48,
        threads=1,
    )


def full_ranks(run: RunInfo) -> list[int]:
    return [min(run.max_rank, weight.rows, weight.columns) for weight in run.weights]


def work(job: Job) -> dict[str, float]:
    """Run `job` in a fresh worker and return its numbers."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "edge_client.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    write_frame(worker.stdin, msgspec.msgpack.encode(job))
    while (frame := read_frame(worker.stdout)) is not None:
        event = msgspec.msgpack.decode(frame, type=Event)
        if isinstance(event, Failed):
            raise SystemExit(event.message)
        if isinstance(event, Done):
            worker.stdin.close()
            worker.wait()
            return event.values
    raise SystemExit("the worker ended without an answer")


def main() -> None:
    config = json.loads((builtin_base.folder() / "config.json").read_text())
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, builtin base\n")
    print("| format | scope | micro-batch | lengths | strands | predicted MiB | measured MiB | ratio | tokens/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    ratios = []
    for setting in SETTINGS:
        run = run_info(setting)
        ranks = allot(strand_order(run), len(run.weights), int(setting.share * sum(full_ranks(run))))
        predicted = predict_peak(config, run, setting.format, setting.compute, setting.micro_batch, ranks)
        with tempfile.TemporaryDirectory() as folder:
            values = work(job(setting, run, predicted.total_bytes, Path(folder)))
        ratio = predicted.total_bytes / values["peak_bytes"]
        ratios.append(ratio)
        print(
            f"| {setting.format} | {setting.scope} | {setting.micro_batch} | {setting.source}/{setting.target} "
            f"| {sum(ranks)} | {predicted.total_bytes / MIB:.0f} | {values['peak_bytes'] / MIB:.0f} | {ratio:.2f} "
            f"| {values['tokens_per_s']:,.0f} |",
            flush=True,
        )
    print(f"\npredicted/measured {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
