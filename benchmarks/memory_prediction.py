"""Predicted over measured peak memory of the training worker, each setting in a fresh process.

    python -m benchmarks.memory_prediction                # some minutes on two cores
    python -m benchmarks.memory_prediction --base small   # only the settings of one base

`builtin` is the base that Braid brings, on this machine's networkx docstrings, whose lengths differ; the others have
FLAN-T5's true shapes with random values, on texts as long as the settings allow. Each setting is a round of few steps
with a sketch, the encoding pass included where there is a cache. Measured is the worker's VmHWM.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import builtin_base
from aggregator.merge.braid import cut, random_basis
from aggregator.merge.state import initial_state
from benchmarks.machine import MIB, describe_machine
from edge_client.allot import allot, basis_rows, strand_order
from edge_client.frames import read_frame, write_frame
from edge_client.jobs import CacheDtype, Compute, Done, Event, Failed, Format, Job, Plan
from edge_client.memory import Breakdown, predict_peak
from quantize.random_base import SPECIAL_PIECES, VOCABULARY, write_random_base
from wire.codec import encode
from wire.limits import PROTOCOL_VERSION
from wire.manifest import manifest_digest, t5_weights
from wire.messages import Adapter, Base, RunInfo, Scope, Task, TrainSettings
from wire.seeds import derive_seed

BUILTIN = "builtin"
BUILTIN_DATA = "builtin:docstrings/networkx"
CACHE_LIMIT_BYTES = 1 << 30
MAX_RANK = 32
SEED = 7


@dataclass(frozen=True, slots=True)
class Setting:
    """`share` of all strands is trained; lengths in tokens. `compute` bf16 unless the base is fp32."""

    base: str
    format: Format
    scope: Scope
    micro_batch: int
    source: int
    target: int
    share: float
    steps: int = 4
    cache: CacheDtype = "none"
    checkpointing: bool = False

    @property
    def compute(self) -> Compute:
        return "fp32" if self.format == "fp32" else "bf16"

    @property
    def extras(self) -> str:
        return ", ".join([f"{self.cache} cache"] * (self.cache != "none") + ["checkpointing"] * self.checkpointing)


SETTINGS = (
    Setting(BUILTIN, "bf16", "all", 16, 192, 32, 1.0, steps=24),
    Setting(BUILTIN, "fp32", "all", 32, 192, 32, 1.0, steps=12),
    Setting(BUILTIN, "nf4", "all", 32, 192, 32, 0.25, steps=12),
    Setting(BUILTIN, "int8", "all", 32, 192, 32, 1.0, steps=12, checkpointing=True),
    Setting(BUILTIN, "bf16", "decoder", 16, 192, 32, 0.5, steps=24),
    Setting(BUILTIN, "bf16", "decoder", 32, 192, 32, 1.0, steps=12, cache="bf16"),
    Setting(BUILTIN, "fp32", "decoder", 32, 192, 32, 1.0, steps=12, cache="int8"),
    Setting("small", "bf16", "all", 4, 512, 64, 0.5),
    Setting("small", "nf4", "all", 4, 512, 64, 0.5, checkpointing=True),
    Setting("small", "fp32", "all", 2, 512, 64, 0.25),
    Setting("small", "bf16", "decoder", 4, 512, 64, 0.5),
    Setting("small", "nf4", "decoder", 4, 512, 64, 0.5, cache="bf16"),
    Setting("small", "int8", "decoder", 4, 512, 64, 0.5, cache="int8", checkpointing=True),
    Setting("small", "fp32", "decoder", 4, 512, 64, 0.25, cache="bf16"),
    Setting("base", "int8", "all", 2, 512, 64, 0.25, steps=3),
    Setting("base", "nf4", "all", 4, 512, 64, 0.25, steps=3, checkpointing=True),
    Setting("base", "bf16", "decoder", 4, 512, 64, 0.5, steps=3, cache="bf16"),
    Setting("base", "nf4", "decoder", 4, 512, 64, 0.25, steps=3, cache="int8", checkpointing=True),
    Setting("base", "nf4", "decoder", 4, 512, 64, 0.25, steps=3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(dict.fromkeys(setting.base for setting in SETTINGS))
    parser.add_argument("--base", choices=names, help="only this base's settings")
    chosen = parser.parse_args().base
    print(f"{describe_machine('torch')}\n")
    columns = "base, format, scope, , micro-batch, lengths, strands, predicted MiB, measured MiB, ratio, tokens/s"
    print(f"| {columns.replace(', ', ' | ')} |")
    print("| --- " * (columns.count(",") + 1) + "|")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        bases = {name: _base(name, Path(folder) / name) for name in names if chosen in (None, name)}
        for setting in SETTINGS:
            if setting.base in bases:
                ratios.append(_compare(setting, bases[setting.base]))
    print(f"\npredicted/measured {min(ratios):.2f} to {max(ratios):.2f}")


def _base(name: str, folder: Path) -> Path:
    if name == BUILTIN:
        return builtin_base.folder()
    write_random_base(folder, name, seed=SEED)
    return folder


def _compare(setting: Setting, base_folder: Path) -> float:
    """Print a setting's row; predicted over measured."""
    run = run_info(setting, json.loads((base_folder / "config.json").read_text()))
    with tempfile.TemporaryDirectory() as folder:
        job, predicted = make_job(setting, run, base_folder, Path(folder))
        values = work(job)
    ratio = predicted.total_bytes / values["peak_bytes"]
    print(
        f"| {setting.base} | {setting.format} | {setting.scope} | {setting.extras} | {setting.micro_batch} "
        f"| {setting.source}/{setting.target} | {sum(job.plan.ranks)} | {predicted.total_bytes / MIB:.0f} "
        f"| {values['peak_bytes'] / MIB:.0f} | {ratio:.2f} | {values['tokens_per_s']:,.0f} |",
        flush=True,
    )
    return ratio


# --- the job ---------------------------------------------------------------------------------------------------------


def run_info(setting: Setting, config: Mapping[str, Any]) -> RunInfo:
    weights = t5_weights(dict(config), setting.scope)
    return RunInfo(
        protocol=PROTOCOL_VERSION,
        run_id="benchmark",
        state="training",
        base=Base(model=setting.base, digest="0" * 64),
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
        max_rank=MAX_RANK,
        server_rank=MAX_RANK,
        rounds=1,
        round=1,
        version=1,
    )


def make_job(setting: Setting, run: RunInfo, base_folder: Path, folder: Path) -> tuple[Job, Breakdown]:
    """A training job on a random basis and what is predicted for it; its files go into `folder`."""
    ranks = allot(strand_order(run), len(run.weights), int(setting.share * sum(basis_rows(run))))
    config = json.loads((base_folder / "config.json").read_text())
    chosen: dict[str, Any] = {"checkpointing": setting.checkpointing, "cache": setting.cache}
    predicted = predict_peak(config, run, setting.format, setting.compute, setting.micro_batch, ranks, **chosen)
    _write_adapter(folder / "adapter", run, ranks)
    plan = Plan(
        format=setting.format,
        compute=setting.compute,
        micro_batch=setting.micro_batch,
        ranks=ranks,
        predicted_peak_bytes=predicted.total_bytes,
        budget_bytes=predicted.total_bytes,
        **chosen,
    )
    job = Job(
        kind="train",
        base_folder=str(base_folder),
        data=BUILTIN_DATA if setting.base == BUILTIN else _write_text(folder / "text.jsonl", setting),
        device="benchmark",
        run=run,
        task=Task(kind="train", run_id=run.run_id, round=1, version=1, seed=SEED, sketch=True),
        plan=plan,
        adapter_path=str(folder / "adapter"),
        result_path=str(folder / "update"),
        cache_path=str(folder / "cache"),
        cache_limit_bytes=CACHE_LIMIT_BYTES,
        max_eval_examples=48 if setting.base == BUILTIN else setting.micro_batch,
        threads=1,
    )
    return job, predicted


def _write_adapter(path: Path, run: RunInfo, ranks: Sequence[int]) -> None:
    state = random_basis(initial_state(run.weights), max_rank=run.max_rank, seed=SEED)
    adapter = Adapter(
        protocol=PROTOCOL_VERSION, run_id=run.run_id, version=1, manifest=run.manifest, parts=cut(state, ranks, "bf16")
    )
    path.write_bytes(encode(adapter))


def _write_text(path: Path, setting: Setting) -> str:
    """Random words of the random base, more of them than the settings allow tokens; a tenth is held out."""
    words = random.Random(derive_seed(SEED, "text"))

    def text(count: int) -> str:
        return " ".join(f"w{words.randrange(VOCABULARY - len(SPECIAL_PIECES))}" for _ in range(count))

    rows = [{"source": text(setting.source), "target": text(setting.target)} for _ in range(80)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


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


if __name__ == "__main__":
    main()
