"""Measured speed of this board's matrix products, and what the measurement depends on. Imports no torch.

It holds until the processor, the GPU, torch or the number of threads is another one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from edge_client.host.board import Board
from edge_client.host.processor_name import processor
from edge_client.host.system_files import read_text
from edge_client.jobs.messages import Compute, Device

BF16_GAIN = 1.2
"""bf16 is computed in where its products are faster by more than this. Below it the gain is eaten by what surrounds a
product in bf16: norms and the loss go to fp32 and back. Where bf16 is emulated it is several times slower, where the
processor has it several times faster: nothing near 1.2 was seen."""

MIN_GFLOPS = 1.0
"""The best of many samples is above this on any board with a 64-bit processor, unless other programs have it to
themselves: two threads that waited for processors were seen to reach 0.4. Such a measurement says nothing."""

_GPU_DEVICES = ("dev/nvidia0", "dev/nvhost-gpu", "dev/nvgpu/igpu0/ctrl")


class MatmulSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Measured speed of matrix products.

    Attributes:
        key: what the measurement holds for (`matmul_key`).
        device: where training runs.
        device_name: the GPU's or the processor's.
        device_memory_bytes: the GPU's memory, 0 for the processor.
        bf16_gflops, fp32_gflops: 10⁹ floating-point operations per second.
        threads: with which it was measured, 0 for torch's choice.
        torch: version.
    """

    key: str
    device: Device
    device_name: str
    device_memory_bytes: int
    bf16_gflops: float
    fp32_gflops: float
    threads: int
    torch: str

    @property
    def compute(self) -> Compute:
        """The faster dtype: bf16 only where it is faster by more than BF16_GAIN."""
        return "bf16" if self.bf16_gflops > BF16_GAIN * self.fp32_gflops else "fp32"

    @property
    def gflops(self) -> Mapping[Compute, float]:
        """10⁹ operations per second, by arithmetic."""
        return {"bf16": self.bf16_gflops, "fp32": self.fp32_gflops}

    @property
    def is_plausible(self) -> bool:
        """False where the processors were too busy to tell."""
        return max(self.bf16_gflops, self.fp32_gflops) >= MIN_GFLOPS


def matmul_key(threads: int, root: Path = Path("/")) -> str | None:
    """Description of all that a measurement depends on; None where torch is not installed. Imports nothing."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return None
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = [read_text(path) for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]
    gpu += [name for name in _GPU_DEVICES if (root / name).exists()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    models = " ".join(re.findall(r"^Model:\s*(.*?)\s*$", "\n".join(gpu), re.MULTILINE) or gpu)
    board = read_text(root / "proc/device-tree/model").rstrip("\0\n ")
    parts = (
        processor(root),
        board,
        f"{threads or 'default'} threads on {count} processors",
        f"GPU {models or 'none'} ({visible})",
        torch,
    )
    return "; ".join(part for part in parts if part)


def with_matmul_speed(board: Board, found: MatmulSpeed | None) -> Board:
    """`board` with what was measured in place of what its flags say.

    On CUDA the smaller of both memories counts: a Jetson's GPU has no memory of its own, and on a large card's host
    the base passes through both.
    """
    if found is None:
        return board
    board = replace(board, bf16_fast=found.compute == "bf16", device=found.device)
    if 0 < found.device_memory_bytes < board.memory_bytes:
        return replace(board, memory_bytes=found.device_memory_bytes, memory_source=f"memory of {found.device_name}")
    return board
