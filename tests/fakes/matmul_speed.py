"""A measured speed of matrix products that nobody measured."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_client.host.matmul_speed import MatmulSpeed, matmul_key
from edge_client.state.matmul_speed_file import FILE


def matmul_speed(key: str | None = None, threads: int = 0, bf16: float = 40.0, fp32: float = 20.0) -> MatmulSpeed:
    """A measurement of this machine with so many threads, unless `key` says of another; speeds in GFLOP/s."""
    return MatmulSpeed(
        key=key or matmul_key(threads) or "",
        device="cpu",
        device_name="a processor",
        device_memory_bytes=0,
        bf16_gflops=bf16,
        fp32_gflops=fp32,
        threads=threads,
        torch="2.0",
    )


def measured_state(folder: Path, threads: int = 1) -> Path:
    """A state folder whose board has been measured, as after a first start: the next one does not import torch for it,
    which takes most of the time of a command that is refused early."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / FILE).write_bytes(msgspec.json.encode(matmul_speed(threads=threads, bf16=5.0, fp32=20.0)))
    return folder
