"""A training step's time by kind of work, from torch's profiler.

    python -m benchmarks.training_speed.step_profile                  # FLAN-T5-small's shape, decoder scope, bf16
    python -m benchmarks.training_speed.step_profile --shape base --format nf4
    python -m benchmarks.training_speed.step_profile --scope all --sketch  # with a gradient sketch of every weight
    python -m benchmarks.training_speed.step_profile --sketch-cost    # steps with and without sketches, and their ratio

Random weights and tokens, batch 4 × 512/64, rank 8 on every weight, sketches of 16 rows (the server's default). One
thread, so that waiting for others does not count; shares of the time inside torch's operators, over a few steps after
warm-up. With --sketch-cost seconds of processor time, medians over pairs of steps, and no profiler.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import get_args

from benchmarks.training_speed.contest import SHAPES
from edge_client.host.machine import describe_machine
from edge_client.host.worker_memory import prepare_for_training
from edge_client.jobs.messages import Compute
from quantize.formats import FORMATS

PAIRS, QUICK_PAIRS = 60, 2
"""Steps with and without sketches: single ones differ by a third where others use the machine too."""


def main() -> None:
    options = _options()
    prepare_for_training()  # before torch is imported
    import torch

    from benchmarks.training_speed.profiled_step import Step, measure, sketch_cost
    from quantize.random_base import write_random_base

    torch.set_num_threads(1)
    with_sketch = ", with sketches" if options.sketch else ""
    print(f"{describe_machine('torch')}\n")
    print(f"{options.shape}, {options.scope} scope, {options.format} base, {options.compute} arithmetic{with_sketch}\n")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        write_random_base(base, options.shape, seed=0)
        step = Step(base, options.format, options.compute, options.scope)
        if options.sketch_cost:
            _print_cost(sketch_cost(step, QUICK_PAIRS if options.quick else PAIRS))
        else:
            step.sketch(options.sketch)
            _print_kinds(*measure(step))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--format", choices=FORMATS, default="bf16")
    parser.add_argument("--compute", choices=get_args(Compute), default="bf16")
    parser.add_argument("--scope", choices=["decoder", "all"], default="decoder")
    parser.add_argument("--sketch", action="store_true", help="take a gradient sketch of every weight as well")
    parser.add_argument("--sketch-cost", action="store_true", help="compare steps with and without sketches")
    parser.add_argument("--quick", action="store_true", help="two pairs of steps for --sketch-cost: no result")
    return parser.parse_args()


def _print_kinds(spent: dict[str, float], total: float) -> None:
    print(f"| work | ms a step | share |\n| --- | --- | --- |\n| all | {total:.0f} | 100 % |")
    for kind, ms in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {ms:.1f} | {ms / total:.0%} |")


def _print_cost(costs: list[tuple[str, float, float, float]]) -> None:
    print("| | ms without | ms with sketches | sketches add |\n| --- | --- | --- | --- |")
    for part, plain_s, sketched_s, share in costs:
        print(f"| {part} | {1e3 * plain_s:.0f} | {1e3 * sketched_s:.0f} | {share:+.1%} |")


if __name__ == "__main__":
    main()
