"""The training process: reads jobs from stdin, writes events to stdout, one job after another, until stdin ends.

    python -m edge_client.worker.main          started by edge_client.worker.process; of no use by hand

Frames are those of edge_client.jobs.frames, bodies msgpack of edge_client.jobs.messages. SIGTERM asks it to save the
training and leave, SIGTSTP to pause and SIGCONT to go on. Which engine trains is the job's to say
(edge_client.engines).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge_client.engines import open_engine
from edge_client.engines.contract import Engine, Host, Stopped
from edge_client.errors import ClientError, ExitCode
from edge_client.host.worker_memory import (
    die_with_parent,
    is_out_of_memory,
    offer_to_oom_killer,
    prepare_for_training,
    return_free_memory,
)
from edge_client.jobs.frames import FrameError, read_frame, write_frame
from edge_client.jobs.messages import (
    AdapterJob,
    Done,
    EngineJob,
    EvaluateJob,
    Event,
    Failed,
    Job,
    MeasureJob,
    Parked,
    TrainJob,
)
from edge_client.worker.pause import Pause


def main() -> int:
    """Exit status 0 when stdin ends or a stop was asked for, 1 when the pipe is broken."""
    die_with_parent(os.getppid())
    offer_to_oom_killer()
    prepare_for_training()
    stop_signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop_signals.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the network side's to handle
    jobs, events = sys.stdin.buffer, _take_stdout()
    try:
        return _serve(jobs, events, stop_signals)
    except (FrameError, BrokenPipeError) as error:
        sys.stderr.write(f"training worker: {error}\n")
        return 1


def _take_stdout() -> BinaryIO:
    """The pipe to the parent. From now on, whatever a library prints goes to stderr and cannot damage a frame."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return events


class _Engines:
    """The engine that carried out the last job. When a job names another, that one replaces it: there is memory for
    one."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._name = ""
        self._engine: Engine | None = None

    def get(self, name: str) -> Engine:
        """Raises ConfigError where there is no engine of that name.

        An engine is imported here, when a job has come: torch's threads and heap must come after malloc and OpenMP were
        told how to behave.
        """
        if self._engine is None or self._name != name:
            self._engine = None  # before the next one loads a base
            return_free_memory()
            self._engine, self._name = open_engine(name, self._host), name
            # Each base that goes is followed by a full collection: 85 ms, nearly all of it for torch's modules, which
            # never go.
            gc.freeze()
        return self._engine


def _serve(jobs: BinaryIO, events: BinaryIO, stop_signals: list[int]) -> int:
    def emit(event: Event) -> None:
        write_frame(events, msgspec.msgpack.encode(event))

    def wants_stop() -> bool:
        return bool(stop_signals)

    pause = Pause(lambda: emit(Parked()), wants_stop)
    pause.listen()
    engines = _Engines(Host(emit, pause.clock, wants_stop, pause.is_wanted, pause.wait))
    while not stop_signals and (frame := read_frame(jobs)) is not None:
        try:
            emit(_answer(frame, engines))
        except Stopped:
            break
        return_free_memory()
    return 0


def _answer(frame: bytes, engines: _Engines) -> Done | Failed:
    """Run one job. Every error becomes an event, for the worker to go on; only a broken pipe ends it."""
    try:
        job = msgspec.msgpack.decode(frame, type=Job)
        return Done(values=measure(job) if isinstance(job, MeasureJob) else run_job(job, engines.get(job.engine)))
    except ClientError as error:
        return Failed(exit_code=int(error.exit_code), message=error.message, hint=error.hint)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 (top loop)
        return _failed(error)


def measure(job: MeasureJob) -> dict[str, float]:
    """The lengths of the board's texts, as a report names them. Raises ClientError for what a person can mend."""
    from edge_client.data.lengths import lengths_on_board  # the tokenizer's library; an engine would bring torch

    return lengths_on_board(Path(job.base_folder), job.data, job.form).values()


def run_job(job: EngineJob, engine: Engine) -> dict[str, float]:
    """The job's numbers, its result written. Raises ClientError for what a person can mend."""
    if isinstance(job, AdapterJob) and job.held_path:
        from edge_client.engines.adapter_patch import (
            make_whole,  # numpy, which needs the process prepared as torch does
        )

        make_whole(Path(job.adapter_path), Path(job.held_path), job.run, job.spec.version, _adapter_ranks(job))
    return engine.run(job)


def _adapter_ranks(job: AdapterJob) -> Sequence[int]:
    """The ranks that a job's adapter was cut to."""
    if isinstance(job, EvaluateJob):
        return [0] * len(job.run.weights)
    return job.plan.ranks if isinstance(job, TrainJob) else job.ranks


def _failed(error: Exception) -> Failed:
    if os.environ.get("BRAID_DEBUG") == "1":
        traceback.print_exc()
    text = str(error)
    if is_out_of_memory(error):
        return Failed(
            exit_code=int(ExitCode.MEMORY),
            message="memory ran out while training",
            hint="give a smaller --memory, or stop other programs on this board",
        )
    first_line = text.splitlines()[0] if text else "no message"
    return Failed(
        exit_code=int(ExitCode.INTERNAL),
        message=f"the training worker failed: {type(error).__name__}: {first_line}",
        hint="this is a bug of ours; run again with --debug and report what it says",
    )


if __name__ == "__main__":
    sys.exit(main())
