"""LoRA training with transformers, PEFT and bitsandbytes as their documentation has it, in a process of its own.

    python -m benchmarks.training_speed.peers JSON        started by benchmarks.training_speed; JSON is a PeerJob

The last line it prints is a Measurement. Sources: PEFT's sequence-to-sequence example (rank 8, alpha 32, dropout 0.1,
AdamW at 1e-3) and its quantization guide (`prepare_model_for_kbit_training`, NF4 with bf16 arithmetic). The model has a
FLAN-T5's shape and random values: no hub is needed, and neither time nor memory depends on the values.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from benchmarks.training_speed.contest import Contestant, ContestantFailed, Measurement, Workload
from edge_client.host.worker_memory import offer_to_oom_killer, peak_bytes, resident_bytes

if TYPE_CHECKING:
    from torch import Tensor

WARM_UP_STEPS = 2
"""Not counted: kernels are chosen and memory is taken for the first time."""

LIMIT_S = 3600.0
"""A child that takes longer has met a machine that swaps."""

DECODER_MODULES = r"decoder\.block\..*\.[qv]"
"""PEFT matches a string against whole module names."""

SIGKILL_STATUS = -9


class PeerJob(msgspec.Struct, frozen=True, kw_only=True):
    """`model_folder` is where "save" writes the random model, and from where bitsandbytes loads it."""

    action: Literal["save", "train"]
    contestant: Contestant
    workload: Workload
    model_folder: str


def run_peer(job: PeerJob) -> Measurement:
    """Train in a fresh process. Raises ContestantFailed with what the process said last."""
    command = [sys.executable, "-m", "benchmarks.training_speed.peers", msgspec.json.encode(job).decode()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ContestantFailed(f"took longer than {LIMIT_S:.0f} s") from error
    if done.returncode == SIGKILL_STATUS:
        raise ContestantFailed("killed by the kernel: memory ran out", lacked_memory=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ContestantFailed(said[:200], lacked_memory="allocate memory" in said)
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Measurement)


def main() -> None:
    offer_to_oom_killer()
    job = msgspec.json.decode(sys.argv[1], type=PeerJob)
    _import_libraries(job.contestant)
    imports_bytes = resident_bytes()
    import torch

    if job.workload.threads:
        torch.set_num_threads(job.workload.threads)
    torch.manual_seed(job.workload.seed)  # theirs: their initialisation and dropout draw from it
    if job.action == "save":
        _random_model(job.workload).save_pretrained(job.model_folder)
        measured = Measurement(tokens_per_s=0.0, peak_bytes=peak_bytes(), imports_bytes=imports_bytes, n_trained=0)
    else:
        measured = _measure(job, imports_bytes)
    print(msgspec.json.encode(measured).decode())


def _import_libraries(contestant: Contestant) -> None:
    """Everything that is imported anyway, so that it does not count as memory of training."""
    import peft  # noqa: F401
    import torch._dynamo  # noqa: F401 (the optimiser's first step imports it)
    from transformers import T5ForConditionalGeneration  # noqa: F401

    if contestant.kind == "bitsandbytes":
        import accelerate  # type: ignore[import-untyped]  # noqa: F401
        import bitsandbytes  # noqa: F401


def _measure(job: PeerJob, imports_bytes: int) -> Measurement:
    model = _with_lora(_quantised(job) if job.contestant.kind == "bitsandbytes" else _random_model(job.workload), job)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    _forget_peak()
    seconds = list(_steps(model, trained, job.workload))
    workload = job.workload
    return Measurement(
        tokens_per_s=workload.batch * (workload.source + workload.target) / statistics.median(seconds[WARM_UP_STEPS:]),
        peak_bytes=peak_bytes(),
        imports_bytes=imports_bytes,
        n_trained=sum(parameter.numel() for parameter in trained),
    )


def _random_model(workload: Workload) -> Any:
    """fp32. transformers 5 ties the output layer to the embedding whatever the config says: a matrix less than ours."""
    from transformers import T5Config, T5ForConditionalGeneration

    from quantize.random_base import shape_config

    return T5ForConditionalGeneration(T5Config(**shape_config(workload.shape)))


def _quantised(job: PeerJob) -> Any:
    """The saved model with NF4 linears. transformers itself keeps T5's `wo` and the output layer in full precision."""
    import torch
    from peft import prepare_model_for_kbit_training
    from transformers import BitsAndBytesConfig, T5ForConditionalGeneration

    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = T5ForConditionalGeneration.from_pretrained(
        job.model_folder, quantization_config=config, dtype=torch.bfloat16, device_map="cpu"
    )
    return prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
        model, use_gradient_checkpointing=job.contestant.checkpointing
    )


def _with_lora(model: Any, job: PeerJob) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    every = job.contestant.scope == "all"
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=job.workload.rank,
        lora_alpha=32,
        lora_dropout=0.1,
        target_modules=["q", "v"] if every else DECODER_MODULES,
    )
    return get_peft_model(model, config)


def _forget_peak() -> None:
    """Start VmHWM anew: what loading took for a moment is not held against them."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # an older kernel: loading then counts, as it does for ours


def _steps(model: Any, trained: list[Any], workload: Workload) -> Iterator[float]:
    """Seconds of each optimiser step."""
    import torch

    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    model.train()
    for _ in range(WARM_UP_STEPS + workload.steps):
        batches = _micro_batches(workload, torch)
        start_s = time.perf_counter()
        for batch in batches:
            loss = model(**batch).loss / len(batches)
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        yield time.perf_counter() - start_s


def _micro_batches(workload: Workload, torch: Any) -> list[dict[str, Tensor]]:
    """Ids of random words without padding, `micro_batch` pairs at a time."""
    from quantize.random_base import SPECIAL_PIECES, VOCABULARY

    def ids(length: int, count: int) -> Tensor:
        drawn: Tensor = torch.randint(len(SPECIAL_PIECES), VOCABULARY, (count, length))
        return drawn

    counts = [min(workload.micro_batch, workload.batch - i) for i in range(0, workload.batch, workload.micro_batch)]
    return [
        {
            "input_ids": ids(workload.source, count),
            "attention_mask": torch.ones((count, workload.source), dtype=torch.int64),
            "labels": ids(workload.target, count),
        }
        for count in counts
    ]


if __name__ == "__main__":
    main()
