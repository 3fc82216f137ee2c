"""Measuring the speed of matrix products in a child process: a few seconds, most of them to import torch."""

from __future__ import annotations

from edge_client.errors import ExitCode
from edge_client.host.forked import ForkedError, run_forked
from edge_client.host.matmul_speed import MatmulSpeed, matmul_key
from edge_client.host.torch_trial import ONE_THREAD, loading_torch
from edge_client.host.worker_memory import prepare_for_training

_WHILE_MEASURING = (
    "importing torch took more memory than this board has",
    "stop other programs, or give the client more memory",
)


def measure_matmul_speed(threads: int = 0) -> MatmulSpeed | None:
    """Measure in a child process; None where torch is not installed, or the board too busy for a measurement.

    Call it while this process has one thread. Raises ForkedError where torch is installed but cannot be loaded, or dies
    on this board, with what would serve it.
    """
    key = matmul_key(threads)
    if key is None:
        return None
    try:
        speed = _measured(key, threads)
    except ForkedError as error:
        if error.exit_code is not ExitCode.TORCH or not _works_on_one_thread(threads):
            raise
        raise ForkedError(error.exit_code, error.message, f"{error.hint}; {ONE_THREAD}") from error
    return speed if speed.is_plausible else None


def _measured(key: str, threads: int) -> MatmulSpeed:
    return run_forked(
        lambda: _probe(key, threads),
        MatmulSpeed,
        who="the measurement of this board's arithmetic",
        if_killed=_WHILE_MEASURING,
        uses_torch=True,
    )


def _works_on_one_thread(threads: int) -> bool:
    """Whether a torch that died, on as many threads, measures on one."""
    try:
        return threads != 1 and _measured("", 1) is not None
    except ForkedError:
        return False


def _probe(key: str, threads: int) -> MatmulSpeed:
    """Measure in this process, a child: torch's threads and heap come with it."""
    prepare_for_training()  # what is measured is what the training worker will have
    with loading_torch():
        from edge_client.host.matmul_probe import probe
    return probe(key, threads)
