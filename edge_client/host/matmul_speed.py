"""What was measured of this board's arithmetic, kept in the state folder. torch is loaded in a child process only.

The measurement (edge_client/host/matmul_probe.py) takes a few seconds, most of them to import torch, and holds until
the processor, the GPU, torch or the number of threads is another one.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from braid_common.json_file import read_small
from edge_client.errors import ClientError, ConfigError
from edge_client.host.cgroups import read_text
from edge_client.host.forked import run_isolated
from edge_client.jobs.messages import Compute, Device

if TYPE_CHECKING:
    from edge_client.host.board import Board
    from edge_client.state.folder import StateFolder

FILE = "matmul_speed.json"

BF16_GAIN = 1.2
"""bf16 is computed in where its products are faster by more than this. Below it the gain is eaten by what surrounds a
product in bf16: norms and the loss go to fp32 and back. Where bf16 is emulated it is several times slower, where the
processor has it several times faster: nothing near 1.2 was seen."""

MIN_GFLOPS = 1.0
"""The best of many samples is above this on any board with a 64-bit processor, unless other programs have it to
themselves: two threads that waited for processors were seen to reach 0.4. Such a measurement says nothing."""

_WHILE_MEASURING = (
    "importing torch took more memory than this board has",
    "stop other programs, or give the client more memory",
)
_CPU_FIELDS = ("model name", "cpu model", "hardware", "cpu implementer", "cpu part", "cpu variant", "cpu revision")
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
    """What a measurement depends on, in words; None where torch is not installed. Imports nothing."""
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


def processor(root: Path = Path("/")) -> str:
    """The processor's model: the names that /proc/cpuinfo gives its first core, else the architecture."""
    found: dict[str, str] = {}
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in _CPU_FIELDS:
            found.setdefault(name.strip().lower(), value.strip())
    return found.get("model name") or " ".join([platform.machine(), *found.values()])


def read_matmul_speed(folder: Path, threads: int | None = None, root: Path = Path("/")) -> MatmulSpeed | None:
    """What was measured on this very board, None where nothing fits. `threads` None takes any number."""
    found = read_small(folder / FILE, MatmulSpeed)
    return (
        found
        if found is not None and found.key == matmul_key(found.threads if threads is None else threads, root)
        else None
    )


def measure_matmul_speed(threads: int = 0) -> MatmulSpeed | None:
    """Measure in a child process; None where torch is not installed, or the board too busy for a measurement.

    Call it while this process has one thread. Raises ConfigError where torch is installed but cannot be loaded.
    """
    key = matmul_key(threads)
    if key is None:
        return None
    found = run_isolated(lambda: _probe(key, threads), MatmulSpeed, if_killed=_WHILE_MEASURING)
    return found if found.is_plausible else None


def settle_matmul_speed(folder: StateFolder, threads: int, tell: Callable[[str], None]) -> MatmulSpeed | None:
    """What is kept in `folder`, which is locked, or a new measurement that is kept there. None where there is neither:
    the processor's flags then decide, until the next start."""
    found = read_matmul_speed(folder.path, threads)
    if found is None and matmul_key(threads) is not None:
        tell("measuring this board's arithmetic (a few seconds, once)…")
        found = measure_matmul_speed(threads)
        if found is None:
            tell("the board is too busy to measure its arithmetic: the processor's flags decide until the next start")
        else:
            folder.write(FILE, msgspec.json.encode(found))
    return found


def known_matmul_speed(folder: Path) -> MatmulSpeed | None:
    """For commands that look only: what is kept in `folder`, else a measurement that is not kept. None where neither
    can be had: whoever only looks gets flags instead of an error."""
    try:
        return read_matmul_speed(folder) or measure_matmul_speed()
    except ClientError:
        return None


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


def _probe(key: str, threads: int) -> MatmulSpeed:
    """In the child."""
    from edge_client.host.worker_memory import prepare_for_training

    prepare_for_training()  # what is measured is what the training worker will have
    try:
        from edge_client.host.matmul_probe import probe
    except (ImportError, OSError) as error:
        raise ConfigError(f"torch is installed but cannot be loaded: {error}", "install it anew") from error
    return probe(key, threads)
