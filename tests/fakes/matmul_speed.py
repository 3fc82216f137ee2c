"""A measured speed of matrix products that nobody measured."""

from __future__ import annotations

from edge_client.host.matmul_speed import MatmulSpeed, matmul_key


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
