"""Where a training step's time goes, by kind of work, from torch's profiler.

    python -m benchmarks.training_speed.step_profile                       # FLAN-T5-small's shape, decoder scope,
    bf16, one thread python -m benchmarks.training_speed.step_profile --shape base --format nf4 python -m
    benchmarks.training_speed.step_profile --scope all --sketch  # with a gradient sketch of every weight python -m
    benchmarks.training_speed.step_profile --sketch-cost         # steps with and without sketches in turn, and their
    ratio

Random weights and tokens, batch 4 × 512/64, rank 8 on every weight, sketches of 16 rows (the server's default). One
thread, so that waiting for others does not count; shares of the time inside torch's operators, over a few steps after
warm-up. With --sketch-cost seconds of processor time, medians over pairs of steps, and no profiler.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from edge_client.host.worker_memory import prepare_for_training

prepare_for_training()  # before torch is imported

import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile, schedule  # noqa: E402

from benchmarks.study.machine import describe_machine  # noqa: E402
from edge_client.engines.lean.gradients.sketches import TURNS, Sketches  # noqa: E402
from edge_client.engines.lean.model.adam import Adam  # noqa: E402
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors  # noqa: E402
from edge_client.engines.lean.model.batches import Batch, collate  # noqa: E402
from edge_client.engines.lean.model.model import DTYPES, Model, start_training  # noqa: E402
from edge_client.engines.lean.model.tokeniser import Pair  # noqa: E402
from edge_client.jobs.sizes import VOCABULARY_ROWS  # noqa: E402
from quantize.base import FORMATS, load_base  # noqa: E402
from quantize.random_base import SHAPES, write_random_base  # noqa: E402
from wire.manifest import t5_weights  # noqa: E402

BATCH, SOURCE, TARGET, RANK, SKETCH_RANK = 4, 512, 64, 8, 16
WARM_UP, STEPS = 3, 4

PAIRS = 60
"""Steps with and without sketches: single ones differ by a third where others use the machine too."""

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
        trained = start_training(self._model.linears)
        self._sketches = Sketches(weights, SKETCH_RANK, 0, torch.device("cpu"), TURNS)
        self._next_turn = 0
        self._sketched = options.sketch
        self._adam = Adam(trained, 1e-4)
        self._batch = _batch(generator)
        shape = (BATCH, SOURCE, base.config.d_model)
        self._encoded = torch.randn(shape, generator=generator).to(DTYPES[options.compute]) if decoder_only else None

    def sketch(self, wanted: bool) -> None:
        """Take sketches in the following steps, turn by turn as a round does, or none."""
        self._sketched = wanted

    def run(self) -> dict[str, float]:
        """Seconds of processor time of the backward pass, and of the step."""
        turn = self._next_turn
        if self._sketched:
            self._sketches.attach(self._model.linears, turn)
            self._next_turn = (turn + 1) % TURNS
        else:
            for linear in self._model.linears.values():
                linear.sketch = None
        start_s = time.process_time()
        loss = self._model.loss_sum(self._batch, self._encoded)
        backward_s = time.process_time()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._sketched:
            self._sketches.count(self._batch.n_target_tokens, turn)
        end_s = time.process_time()
        self._adam.step(self._batch.n_target_tokens)
        return {"backward": end_s - backward_s, "step": time.process_time() - start_s}


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


def sketch_cost(step: Step) -> list[tuple[str, float, float, float]]:
    """Of the backward pass and of the step: seconds without and with sketches, and the share that they add.

    The seconds are medians; the share is the median over pairs of neighbouring steps, for the machine's speed drifts.
    """
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for _ in range(WARM_UP + PAIRS):
        for wanted, times in found.items():
            step.sketch(wanted)
            times.append(step.run())
    costs = []
    for part in found[False][0]:
        plain, sketched = ([times[part] for times in found[wanted][WARM_UP:]] for wanted in (False, True))
        share = statistics.median(b / a - 1 for a, b in zip(plain, sketched, strict=True))
        costs.append((part, statistics.median(plain), statistics.median(sketched), share))
    return costs


def _print_kinds(spent: dict[str, float], total: float) -> None:
    print(f"| work | ms a step | share |\n| --- | --- | --- |\n| all | {total:.0f} | 100 % |")
    for kind, ms in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {ms:.1f} | {ms / total:.0%} |")


def _print_cost(costs: list[tuple[str, float, float, float]]) -> None:
    print("| | ms without | ms with sketches | sketches add |\n| --- | --- | --- | --- |")
    for part, plain_s, sketched_s, share in costs:
        print(f"| {part} | {1e3 * plain_s:.0f} | {1e3 * sketched_s:.0f} | {share:+.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--format", choices=FORMATS, default="bf16")
    parser.add_argument("--compute", choices=DTYPES, default="bf16")
    parser.add_argument("--scope", choices=["decoder", "all"], default="decoder")
    parser.add_argument("--sketch", action="store_true", help="take a gradient sketch of every weight as well")
    parser.add_argument("--sketch-cost", action="store_true", help="compare steps with and without sketches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with_sketch = ", with sketches" if options.sketch else ""
    print(f"{describe_machine('torch')}\n")
    print(f"{options.shape}, {options.scope} scope, {options.format} base, {options.compute} arithmetic{with_sketch}\n")
    with tempfile.TemporaryDirectory() as folder:
        write_random_base(Path(folder) / "base", options.shape, seed=0)
        step = Step(options, Path(folder) / "base")
        if options.sketch_cost:
            _print_cost(sketch_cost(step))
        else:
            _print_kinds(*measure(step))


if __name__ == "__main__":
    main()
