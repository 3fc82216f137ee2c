"""The network side's end of the training worker: starts it when there is work, stops it when there is none.

The worker holds torch and the base, some hundred megabytes; this process must stay small and answer while it trains.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence

import msgspec

from braid_common import heap
from edge_client.errors import ClientError, ExitCode
from edge_client.host.deaths import Death, explain_death
from edge_client.host.priority import yield_to_others
from edge_client.jobs.frames import MAX_FRAME_BYTES
from edge_client.jobs.messages import Done, Event, Failed, Job, MeasureJob, Parked, Progress

IDLE_S = 60.0
"""How long a worker is kept without work: reloading the base costs seconds, and rounds often follow each other."""

STOP_S = 15.0
"""Time that a worker gets to finish its optimiser step and save the training after SIGTERM."""

_STDERR_TAIL_BYTES = 4096
_LENGTH = struct.Struct("<I")
_EVENTS: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


class WorkerLost(ClientError):
    """The worker ended without an answer.

    Attributes:
        ran_short: by SIGKILL, which on a board means that memory ran out.
        is_certain: it would do so again, as where torch uses an instruction that the processor lacks.
    """

    def __init__(self, message: str, hint: str, *, ran_short: bool = False) -> None:
        super().__init__(message, hint)
        self.ran_short, self.is_certain = ran_short, False

    @classmethod
    def of(cls, death: Death) -> WorkerLost:
        """The error that tells a death by a signal."""
        lost = cls(death.message, death.hint, ran_short=death.exit_code is ExitCode.MEMORY)
        if not lost.ran_short:
            lost.exit_code, lost.is_certain = death.exit_code, death.is_certain
        return lost


class WorkerError(ClientError):
    """A Failed event, as the error that the worker had. `ran_short`: an allocation failed, on a GPU most often."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message, failed.hint)
        self.exit_code = _exit_code(failed.exit_code)
        self.ran_short = self.exit_code is ExitCode.MEMORY
        self.is_certain = False


def _exit_code(number: int) -> ExitCode:
    return ExitCode(number) if number in list(ExitCode) else ExitCode.INTERNAL


def worker_command() -> list[str]:
    return [sys.executable, "-m", "edge_client.worker.main"]


class WorkerProcess:
    """The training worker as seen from the network side: one process at most, one job at a time.

    Call `close` at the end. `nice`: how far it makes way for others, 0 for not at all. `is_parked`: it waits between
    two steps, as it was asked to.
    """

    def __init__(self, command: Sequence[str] | None = None, *, idle_s: float = IDLE_S, nice: int = 0) -> None:
        self._command = list(command or worker_command())
        self._idle_s, self._nice = idle_s, nice
        self.is_parked = self._is_paused = False
        self._process: asyncio.subprocess.Process | None = None
        self._stderr_task: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.Task[None] | None = None
        self._stderr_tail = b""
        self._uses_torch = True

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def run_job(self, job: Job, on_event: Callable[[Progress], None]) -> Done:
        """The job's numbers. Raises WorkerError (the worker said why) or WorkerLost (it did not).

        Cancelled, it stops the worker within STOP_S; the training of a training job is then saved.
        """
        await self._cancel_idle_timer()
        self._uses_torch = not isinstance(job, MeasureJob)
        try:
            process = await self._started()
            await _send(process, msgspec.msgpack.encode(job))
            done = await self._answer(process, on_event)
        except BaseException:
            # Whatever happened, the next job must not read this one's answers.
            await self.close()
            raise
        self._idle_timer = asyncio.create_task(self._close_when_idle())
        return done

    async def close(self) -> None:
        """Stop the worker, by force after STOP_S. Safe to call again."""
        await self._cancel_idle_timer()
        await self._stop()

    def pause(self) -> None:
        """Ask the worker to wait between two steps; it says so when it does. One that has just started may not hear it:
        ask again."""
        self._is_paused = True
        self._signal(signal.SIGTSTP)

    def go_on(self) -> None:
        """Let a worker that pauses go on."""
        if self._is_paused:
            self._is_paused = self.is_parked = False
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _answer(self, process: asyncio.subprocess.Process, on_event: Callable[[Progress], None]) -> Done:
        while True:
            event = await self._next_event(process)
            if isinstance(event, Progress):
                on_event(event)
            elif isinstance(event, Parked):
                self.is_parked = self._is_paused
            elif isinstance(event, Failed):
                raise WorkerError(event)
            else:
                return event

    async def _next_event(self, process: asyncio.subprocess.Process) -> Event:
        assert process.stdout is not None
        try:
            (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
            if length > MAX_FRAME_BYTES:
                raise self._stray(f"a frame of {length} bytes")
            return _EVENTS.decode(await process.stdout.readexactly(length))
        except asyncio.IncompleteReadError as error:
            raise await self._lost(process) from error
        except ValueError as error:  # msgspec's errors, and UnicodeDecodeError
            raise self._stray(str(error)) from error

    def _stray(self, what: str) -> WorkerLost:
        return WorkerLost(f"the training worker wrote something that is no answer: {what}", self._said())

    async def _lost(self, process: asyncio.subprocess.Process) -> WorkerLost:
        status = await process.wait()
        if self._stderr_task is not None:
            await asyncio.wait([self._stderr_task], timeout=1.0)
        if status < 0:
            return WorkerLost.of(explain_death("the training worker", status, uses_torch=self._uses_torch))
        return WorkerLost(f"the training worker ended with status {status}", self._said())

    def _said(self) -> str:
        lines = self._stderr_tail.decode(errors="replace").strip().splitlines()
        return f"its last words: {lines[-1]}" if lines else "run with --debug to see what it says"

    # --- starting and stopping -------------------------------------------------------------------------------------

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._stop()
        self._stderr_tail = b""
        # A session of its own: Ctrl-C reaches this process alone, which then stops the worker in order.
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=MAX_FRAME_BYTES + _LENGTH.size,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        yield_to_others(self._process.pid, self._nice)
        self.is_parked = self._is_paused = False
        self._stderr_task = asyncio.create_task(self._keep_stderr(self._process))
        return self._process

    async def _keep_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while chunk := await process.stderr.read(_STDERR_TAIL_BYTES):
            self._stderr_tail = (self._stderr_tail + chunk)[-_STDERR_TAIL_BYTES:]
            if os.environ.get("BRAID_DEBUG"):
                sys.stderr.write(chunk.decode(errors="replace"))

    async def _close_when_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        await self._stop()
        heap.give_back()  # this process waits now, for hours perhaps

    async def _cancel_idle_timer(self) -> None:
        timer, self._idle_timer = self._idle_timer, None
        if timer is not None:
            timer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await timer

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await asyncio.shield(_end(process))
        task, self._stderr_task = self._stderr_task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _send(process: asyncio.subprocess.Process, body: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(_LENGTH.pack(len(body)) + body)
    # A worker that is already dead is told by its silent stdout, with its exit status.
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL after STOP_S; returns when the process has been reaped."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await process.wait()
    # asyncio's pipes otherwise close at garbage collection, after the loop.
    process._transport.close()  # type: ignore[attr-defined]
