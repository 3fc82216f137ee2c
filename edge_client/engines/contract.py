"""The contract between the worker process and a training engine. No tensor library is loaded here.

The worker owns the process: pipes, signals, errors, and the memory that jobs give back. An engine owns the model: how a
base is held in memory, trained, evaluated and written. It reads the files that a job names and writes the job's result
with `braid_common.atomic_file`; what it learnt beside that, it returns as numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge_client.jobs.messages import EngineJob, Progress


@dataclass(frozen=True, slots=True)
class Host:
    """The process that an engine runs in, as far as the engine may ask of it.

    Attributes:
        emit: takes a Progress, about once a second.
        clock: seconds, monotonic; those of a pause do not count.
        wants_stop: whether the process was asked to end; to be asked between steps.
        wants_pause: whether it was asked to wait; to be asked where there is a place to save.
        wait: waits as long as that is asked for, or until the process is to end; to be called between steps.
    """

    emit: Callable[[Progress], None] = lambda progress: None
    clock: Callable[[], float] = time.monotonic
    wants_stop: Callable[[], bool] = lambda: False
    wants_pause: Callable[[], bool] = lambda: False
    wait: Callable[[], None] = lambda: None


class Engine(Protocol):
    """Carries out one job after another, and keeps from one to the next what both need."""

    def run(self, job: EngineJob) -> dict[str, float]:
        """Carry out a job; its numbers, as `edge_client.jobs.messages.Done` names them.

        An adapter that the job names is whole. Raises ClientError for what a person can mend, and Stopped, once the
        training is saved, where the host wants to stop.
        """


class Stopped(BaseException):
    """The worker was asked to stop, and the training is saved. No error: nothing may catch it on the way out."""
