"""Lengths of the board's texts: measured before the first plan, told to the server, which may choose the run's by them.

A run whose lengths are open cannot be planned for, so the board waits here until the server has chosen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from edge_client.agent.board_setup import BoardSetup
from edge_client.agent.events import Events
from edge_client.agent.watch import pause_s
from edge_client.errors import NoPlanError
from edge_client.network.api import Api
from edge_client.worker.process import WorkerError, WorkerLost, WorkerProcess
from wire.run import RunInfo
from wire.text_lengths import TextLengths

MAX_WORKER_LOSSES = 3
"""Times that the worker may be lost before the texts are measured. It takes less memory for that than for training."""


async def run_with_lengths(
    run: RunInfo,
    board: BoardSetup,
    *,
    api: Api,
    worker: WorkerProcess,
    events: Events,
    sleep: Callable[[float], Awaitable[None]],
) -> RunInfo:
    """The run once it has lengths, and its server knows those of this board's texts.

    Raises DataError, BaseModelError, ConfigError where the run's prefix leaves no room for text, NoPlanError where
    there is no memory to read the data.
    """
    await events.text_lengths(await _measured(run, board, worker, events), run)
    if run.settings.has_lengths:
        return run
    events.waiting_for_lengths(run)
    while not (run := await api.run()).settings.has_lengths:
        task = await api.work(after=-1)  # which answers as soon as there is work, and so lengths
        await sleep(pause_s(task))
    await events.text_lengths(await _measured(run, board, worker, events), run)  # what these lengths cut
    return run


async def _measured(run: RunInfo, board: BoardSetup, worker: WorkerProcess, events: Events) -> TextLengths:
    """The lengths, from a worker that is closed again: the first task has a fresh one, whose peak is its own."""
    events.measuring(run)
    losses = 0
    while True:
        try:
            done = await worker.run_job(board.measure_job(run), lambda progress: None)
        except (WorkerLost, WorkerError) as error:
            losses += 1
            if isinstance(error, WorkerLost) and not error.is_certain and losses < MAX_WORKER_LOSSES:
                continue
            if error.ran_short:
                raise NoPlanError(error.message, error.hint) from error
            raise
        await worker.close()
        return TextLengths.from_values(done.values)
