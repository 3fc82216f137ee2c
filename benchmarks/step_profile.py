"""Where a training step's time goes, by kind of work, from torch's profiler.

    python -m benchmarks.step_profile                       # FLAN-T5-small's shape, decoder scope, bf16, one thread
    python -m benchmarks.step_profile --shape base --format nf4
    python -m benchmarks.step_profile --scope all --sketch  # with a gradient sketch of every weight

Random weights and tokens, batch 4 × 512/64, rank 8 on every weight. One thread, so that waiting for others does not
count; shares of the time inside torch's operators, over a few steps after warm-up.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

from edge_client.process import prepare_for_training

prepare_for_training()  # before torch is imported

import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile, schedule  # noqa: E402

from benchmarks.machine import describe_machine  # noqa: E402
from edge_client.engine.adam import Adam  # noqa: E402
from edge_client.engine.adapter_tensors import AdapterTensors  # noqa: E402
from edge_client.engine.batches import Batch, collate  # noqa: E402
from edge_client.engine.head_loss import VOCABULARY_ROWS  # noqa: E402
from edge_client.engine.lora import Sketch  # noqa: E402
from edge_client.engine.model import DTYPES, Model, strands  # noqa: E402
from edge_client.engine.tokeniser import Pair  # noqa: E402
from quantize.base import FORMATS, load_base  # noqa: E402
from quantize.random_base import SHAPES, write_random_base  # noqa: E402
from wire.manifest import t5_weights  # noqa: E402

BATCH, SOURCE, TARGET, RANK, SKETCH_RANK = 4, 512, 64, 8, 32
WARM_UP, STEPS = 3, 4

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_"),
    "attention products": ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    "softmax, its gradient": ("aten::_softmax", "aten::_softmax_backward_data"),
    "gelu, its gradient": ("aten::gelu", "aten::gelu_backward"),
    "copies and changes of dtype": ("aten::copy_", "aten::fill_", "aten::zero_", "aten::index_select"),
}
"""Operators by kind; what is not named here is element-wise work and small things."""


class Step:
    """One micro-batch, trained on again and again."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        decoder_only = options.scope == "decoder"
        base = load_base(folder, options.format, wanted=lambda name: not (decoder_only and name.startswith("encoder.")))
        generator = torch.Generator().manual_seed(0)
        weights = t5_weights(base.config, options.scope)
        basis = {
            weight.name: torch.randn(RANK, weight.columns, generator=generator) * weight.columns**-0.5
            for weight in weights
        }
        self._model = Model(base, AdapterTensors(basis=basis), options.compute, trains_encoder=not decoder_only)
        trained = strands(self._model.linears)
        for weight in weights:
            linear = self._model.linears[weight.name]
            linear.train()
            if options.sketch:
                linear.start_sketch(Sketch(0, weight, min(SKETCH_RANK, weight.rows, weight.columns)))
        self._adam = Adam(trained, 1e-4)
        self._batch = _batch(generator)
        shape = (BATCH, SOURCE, base.config["d_model"])
        self._encoded = torch.randn(shape, generator=generator).to(DTYPES[options.compute]) if decoder_only else None

    def run(self) -> None:
        loss = self._model.loss_sum(self._batch, self._encoded)
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step(self._batch.n_target_tokens)


def _batch(generator: torch.Generator) -> Batch:
    def ids(n_tokens: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 32_000, (n_tokens,), generator=generator).tolist())

    return collate([Pair(ids(SOURCE), ids(TARGET)) for _ in range(BATCH)], pad_id=0, start_id=0)


def _kind(operator: str) -> str:
    return next((kind for kind, names in KINDS.items() if operator in names), "element-wise and the rest")


def measure(step: Step) -> tuple[dict[str, float], float]:
    """Milliseconds per step by kind, the head's matrix products apart, and in all."""
    for _ in range(WARM_UP):
        step.run()
    timetable = schedule(wait=0, warmup=WARM_UP, active=STEPS, repeat=1)  # its own first steps are slow
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, schedule=timetable) as profiler:
        for _ in range(WARM_UP + STEPS):
            step.run()
            profiler.step()
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages(group_by_input_shape=True):
        of_head = event.key == "aten::mm" and any(VOCABULARY_ROWS in shape for shape in event.input_shapes)
        spent["products of the head" if of_head else _kind(event.key)] += event.self_cpu_time_total / 1e3 / STEPS
    return dict(spent), sum(spent.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--format", choices=FORMATS, default="bf16")
    parser.add_argument("--compute", choices=DTYPES, default="bf16")
    parser.add_argument("--scope", choices=["decoder", "all"], default="decoder")
    parser.add_argument("--sketch", action="store_true", help="take a gradient sketch of every weight as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_random_base(Path(folder) / "base", options.shape, seed=0)
        spent, total = measure(Step(options, Path(folder) / "base"))
    print(f"{describe_machine('torch')}\n")
    with_sketch = ", with sketches" if options.sketch else ""
    print(f"{options.shape}, {options.scope} scope, {options.format} base, {options.compute} arithmetic{with_sketch}\n")
    print(f"| work | ms a step | share |\n| --- | --- | --- |\n| all | {total:.0f} | 100 % |")
    for kind, ms in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {ms:.1f} | {ms / total:.0%} |")


if __name__ == "__main__":
    main()
