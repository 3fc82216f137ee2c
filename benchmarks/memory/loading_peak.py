"""Peak memory of loading a base, over what the loaded base and its largest tensor take. Linux only.

    python -m benchmarks.memory.loading_peak                      # small and base, some minutes on one core
    python -m benchmarks.memory.loading_peak --shapes large xl    # 1.6 and 5.7 GB of disk, one after the other

Bases have FLAN-T5's true shapes with random values, stored in bf16. Each load happens in a fresh process that is set
up as the training worker is. The peak is its VmHWM less what it held before, once everything was imported; so the
pages of torch's own code that the first load touches are in it, some MiB. `all` and `decoder` are loaded at once;
`encoder` is loaded block by block, as the pass over a board's data does
(edge_client/engines/lean/encoder_cache/encoder_pass.py), and compared with the largest of its loads. The largest
tensor is as it is stored, in bf16. Status 1 where a ratio is above 1.10.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

from braid_common.base.t5_config import T5Config
from braid_common.units import MIB
from edge_client.host.machine import describe_machine
from edge_client.host.worker_memory import peak_bytes, prepare_for_training, resident_bytes, return_free_memory
from quantize.formats import FORMATS

PARTS: tuple[str, ...] = ("all", "decoder", "encoder")
MOST = 1.10
"""Largest ratio that passes."""

SEED = 7
BF16_BYTES = 2


def main() -> int:
    """Exit status 1 where a ratio is above MOST."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = ("small", "base", "large", "xl", "xxl")
    parser.add_argument("--shapes", nargs="+", choices=shapes, default=["small", "base"])
    parser.add_argument("--folder", type=Path, help="where a base is written for the time being")
    parser.add_argument("--quick", action="store_true", help="the small shape's decoder alone, to see that it works")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)  # what a fresh process does
    options = parser.parse_args()
    if options.step:
        name, *arguments = options.step
        print(json.dumps(_write(*arguments) if name == "write" else _load(*arguments)))
        return 0
    print(f"{describe_machine('torch', 'safetensors')}\n")
    print("| shape | part | format | loaded MiB | largest tensor MiB | peak MiB | ratio |")
    print("| --- " * 7 + "|")
    measured, parts = (["small"], ("decoder",)) if options.quick else (options.shapes, PARTS)
    ratios = [ratio for shape in measured for ratio in _measure_shape(shape, parts, options.folder)]
    print(f"\npeak over loaded + largest tensor: {min(ratios):.2f} to {max(ratios):.2f}")
    return int(max(ratios) > MOST)


def _measure_shape(shape: str, parts: Sequence[str], parent: Path | None) -> list[float]:
    """Print the rows of one shape; its base exists meanwhile only."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        _in_fresh_process("write", shape, folder)
        return [_measure_row(shape, folder, part, format) for part in parts for format in FORMATS]


def _measure_row(shape: str, folder: str, part: str, format: str) -> float:
    measured = _in_fresh_process("load", folder, part, format)
    ratio = measured["peak_bytes"] / (measured["loaded_bytes"] + measured["largest_bytes"])
    sizes = " | ".join(f"{measured[key] / MIB:.1f}" for key in ("loaded_bytes", "largest_bytes", "peak_bytes"))
    print(f"| {shape} | {part} | {format} | {sizes} | {ratio:.2f} |", flush=True)
    return ratio


def _in_fresh_process(*step: str) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.memory.loading_peak", "--step", *step]
    numbers: dict[str, int] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return numbers


def _write(shape: str, folder: str) -> dict[str, int]:
    """Write a bf16 base to folder/base."""
    from quantize.random_base import write_random_base
    from quantize.writer import convert

    with tempfile.TemporaryDirectory(dir=folder) as int8:
        write_random_base(Path(int8), shape, seed=SEED)
        convert(Path(int8), "bf16", Path(folder) / "base")
    return {}


def _load(folder: str, part: str, format: str) -> dict[str, int]:
    """Load a part of the base; bytes that were loaded, of the largest tensor among them, and at the peak."""
    prepare_for_training()
    import torch

    from quantize.base import load_base
    from quantize.checkpoint import open_checkpoint

    torch.set_num_threads(1)
    checkpoint = open_checkpoint(Path(folder) / "base")
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    sizes = []
    for wanted in _loads(part, checkpoint.config):
        base = load_base(Path(folder) / "base", format, wanted=wanted)
        # The largest tensors are matrices, asked for by module name; their norms and tables do not matter here.
        stored = [BF16_BYTES * prod(weight.shape) for weight in base.weights.values()]
        sizes.append((base.resident_bytes, max(stored)))
        del base
        return_free_memory()
    loaded, largest = max(sizes, key=sum)
    return {"loaded_bytes": loaded, "largest_bytes": largest, "peak_bytes": peak_bytes() - before}


def _loads(part: str, config: T5Config) -> list[Callable[[str], bool]]:
    """Filters by module name, one for each load of a part."""
    if part == "all":
        return [lambda name: True]
    if part == "decoder":
        return [lambda name: not name.startswith("encoder.")]
    blocks = [_begins(f"encoder.block.{i}.") for i in range(config.n_encoder_blocks)]
    return [lambda name: name == "shared", *blocks]


def _begins(prefix: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefix)


if __name__ == "__main__":
    sys.exit(main())
