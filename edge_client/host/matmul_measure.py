"""Measuring the speed of matrix products in a child process: a few seconds, most of them to import torch."""

from __future__ import annotations

from edge_client.errors import ConfigError
from edge_client.host.forked import run_forked
from edge_client.host.matmul_speed import MatmulSpeed, matmul_key
from edge_client.host.worker_memory import prepare_for_training

_WHILE_MEASURING = (
    "importing torch took more memory than this board has",
    "stop other programs, or give the client more memory",
)


def measure_matmul_speed(threads: int = 0) -> MatmulSpeed | None:
    """Measure in a child process; None where torch is not installed, or the board too busy for a measurement.

    Call it while this process has one thread. Raises ConfigError where torch is installed but cannot be loaded.
    """
    key = matmul_key(threads)
    if key is None:
        return None
    speed = run_forked(lambda: _probe(key, threads), MatmulSpeed, if_killed=_WHILE_MEASURING)
    return speed if speed.is_plausible else None


def _probe(key: str, threads: int) -> MatmulSpeed:
    """Measure in this process, a child: torch's threads and heap come with it."""
    prepare_for_training()  # what is measured is what the training worker will have
    try:
        from edge_client.host.matmul_probe import probe
    except (ImportError, OSError) as error:
        raise ConfigError(f"torch is installed but cannot be loaded: {error}", "install it anew") from error
    return probe(key, threads)
