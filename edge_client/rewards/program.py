"""A program of the board's owner that judges answers: JSON lines in, a number a line out, within a time limit.

It runs from its first question to the end of the round, in a process group of its own, so that what it starts ends with
it. It is asked without a shell, and sees none of the client's own settings in its environment.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.errors import RewardFailed

MAX_LINE_BYTES = 1024
"""Longest line that a program may write: a number needs 30, and a program that never ends its line must not fill
memory."""

KEPT_WORDS_BYTES = 2048
"""Of what a program writes on its standard error, the last so many bytes are kept, to say why it died."""

_CHUNK_BYTES = 64 * 1024
_OWN_SETTINGS = "BRAID_"  # settings of the client in its environment, a join token among them


class RewardProgram:
    """The program, started when it is first asked. `clock` is monotonic, in seconds."""

    def __init__(self, command: Sequence[str], timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._command, self._timeout_s, self._clock = tuple(command), timeout_s, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = b""

    def __call__(self, answers: Sequence[JudgedAnswer]) -> list[float]:
        """The program's number for each answer.

        Raises RewardFailed where it cannot be started, ends, takes too long, or writes anything but one finite number
        (or {"reward": number}) a line. It is then ended.
        """
        try:
            lines = self._exchange(b"".join(map(_question, answers)), len(answers))
            return [_number(line) for line in lines]
        except RewardFailed:
            self.close()
            raise

    def close(self) -> None:
        """End the program and all that it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env=_environment(os.environ),
            )
        except OSError as error:
            raise RewardFailed(f"{self._command[0]} cannot be started: {error.strerror or error}") from error
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        return self._process

    def _exchange(self, questions: bytes, n_lines: int) -> list[bytes]:
        """Write all questions and read as many lines, both as the pipes take and give."""
        process, deadline_s = self._started(), self._clock() + self._timeout_s
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        received, unsent = _left_over(process.stdout), memoryview(questions)
        if received:
            raise RewardFailed(f"{self._command[0]} writes more than a line for each answer")
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            while received.count(b"\n") < n_lines:
                ready = selector.select(max(0.0, deadline_s - self._clock()))
                if not ready:
                    raise RewardFailed(f"{self._command[0]} has not answered within {self._timeout_s:g} s")
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        unsent = self._write(selector, process.stdin, unsent)
                    elif key.fileobj is process.stdout:
                        received += self._read(selector, process.stdout)
                        _check_lines(received)
                    else:
                        self._stderr = (self._stderr + _chunk(selector, process.stderr))[-KEPT_WORDS_BYTES:]
        *lines, rest = received.split(b"\n")
        if len(lines) > n_lines or rest:
            raise RewardFailed(f"{self._command[0]} writes more than a line for each answer")
        return lines

    def _write(self, selector: selectors.BaseSelector, pipe: IO[bytes], unsent: memoryview) -> memoryview:
        try:
            unsent = unsent[os.write(pipe.fileno(), unsent[:_CHUNK_BYTES]) :]
        except BrokenPipeError:
            unsent = unsent[:0]  # it has ended, or reads no more: what it writes, or does not, says it
        except BlockingIOError:
            return unsent
        if not unsent:
            selector.unregister(pipe)
        return unsent

    def _read(self, selector: selectors.BaseSelector, pipe: IO[bytes]) -> bytes:
        chunk = _chunk(selector, pipe)
        if not chunk and pipe not in {key.fileobj for key in selector.get_map().values()}:
            raise RewardFailed(f"{self._command[0]} has ended{self._last_words()}")
        return chunk

    def _last_words(self) -> str:
        """The last line on its standard error, which may still lie in the pipe."""
        assert self._process is not None and self._process.stderr is not None
        with contextlib.suppress(OSError):
            self._stderr = self._stderr + (os.read(self._process.stderr.fileno(), _CHUNK_BYTES) or b"")
        words = self._stderr[-KEPT_WORDS_BYTES:].decode(errors="replace").split("\n")
        said = [line.strip() for line in words if line.strip()]
        return f": {said[-1][:200]}" if said else ""


def _left_over(pipe: IO[bytes]) -> bytes:
    """Lines that a program has written without being asked."""
    try:
        return os.read(pipe.fileno(), _CHUNK_BYTES)
    except BlockingIOError:
        return b""


def _chunk(selector: selectors.BaseSelector, pipe: IO[bytes]) -> bytes:
    """Bytes that lie in a pipe; at its end it is asked no more."""
    try:
        chunk = os.read(pipe.fileno(), _CHUNK_BYTES)
    except BlockingIOError:
        return b""
    if not chunk:
        selector.unregister(pipe)
    return chunk


def _check_lines(received: bytes) -> None:
    if len(received) - (received.rfind(b"\n") + 1) > MAX_LINE_BYTES:
        raise RewardFailed(f"a line of more than {MAX_LINE_BYTES} bytes is no number")


def _question(answer: JudgedAnswer) -> bytes:
    fields = {"source": answer.source, "targets": answer.targets, "answer": answer.text}
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"


def _number(line: bytes) -> float:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RewardFailed(f"{_shown(line)} is no JSON") from error
    if isinstance(value, dict):
        value = value.get("reward")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RewardFailed(f"{_shown(line)} is no number")
    try:
        number = float(value)
    except OverflowError as error:
        raise RewardFailed(f"{_shown(line)} is no finite number") from error
    if not math.isfinite(number):
        raise RewardFailed(f"{_shown(line)} is no finite number")
    return number


def _shown(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace"))


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_OWN_SETTINGS)}
