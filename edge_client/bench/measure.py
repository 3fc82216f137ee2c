"""The measuring process: forked while this one is small and has no torch, prepared as the training worker is."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import msgspec

from braid_common.base.t5_config import T5Config
from edge_client.bench.request import Measured, Request, Tell
from edge_client.errors import ClientError, ConfigError, DiskError, NoPlanError
from edge_client.host.forked import run_forked
from edge_client.host.worker_memory import (
    die_with_parent,
    is_out_of_memory,
    offer_to_oom_killer,
    prepare_for_training,
)

T = TypeVar("T")

_MEMORY_HINT = "take a smaller --micro-batch, --shape or --format, or stop other programs on this board"


def _silence() -> AbstractContextManager[Tell]:
    return nullcontext(lambda phase, step, steps: None)


def run_request(request: Request, progress: Callable[[], AbstractContextManager[Tell]] = _silence) -> Measured:
    """Measure in a child process, which opens `progress`. Call it while this one has one thread and no torch.

    Raises ForkedError, with the exit code MEMORY where memory ran out, or of what edge_client.bench.phases.measure
    raises.
    """
    return _in_child(lambda: _measure(request, progress), Measured)


def write_base(folder: Path, shape: str, check: Callable[[T5Config], object]) -> None:
    """Write a base of FLAN-T5's true shape with random weights into the empty `folder`, in a child process of its own,
    so that what writing takes does not count.

    `check` hears the shape's numbers first, and raises NoPlanError to prevent the rest. Raises DiskError where
    there is no room.
    """
    refusal = _in_child(lambda: _write(folder, shape, check), _Refusal)
    if refusal.message:
        raise NoPlanError(refusal.message, refusal.hint)


def _in_child(call: Callable[[], T], kind: type[T]) -> T:
    if_killed = ("the measurement took more memory than this board has", _MEMORY_HINT)
    return run_forked(lambda: _guarded(call), kind, who="the measurement", if_killed=if_killed, uses_torch=True)


def _guarded(call: Callable[[], T]) -> T:
    """The child's own preparation, and torch's errors in words."""
    die_with_parent(os.getppid())
    offer_to_oom_killer()
    prepare_for_training()
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        raise _in_words(error) from error


def _in_words(error: Exception) -> ClientError:
    text = str(error)
    if is_out_of_memory(error):
        return NoPlanError("memory ran out while measuring", _MEMORY_HINT)
    line = text.splitlines()[0] if text else type(error).__name__
    return ClientError(f"measuring failed: {line}", "this is a bug of ours; run again with --debug and report it")


def _measure(request: Request, progress: Callable[[], AbstractContextManager[Tell]]) -> Measured:
    # Imported here: torch's threads and heap must come after malloc and OpenMP were told how to behave.
    from edge_client.bench.phases import measure

    with progress() as tell:
        return measure(request, tell)


class _Refusal(msgspec.Struct, frozen=True):
    """Reason against writing; "" where nothing does. It crosses the pipe as a result: a child that ends with
    MEMORY was killed, or met torch's own error."""

    message: str = ""
    hint: str = ""


def _write(folder: Path, shape: str, check: Callable[[T5Config], object]) -> _Refusal:
    from quantize.errors import BaseFormatError
    from quantize.random_base import shape_config, write_random_base

    try:
        base = T5Config.parse(shape_config(shape))
    except BaseFormatError as error:
        raise ConfigError(str(error), "name another --shape") from error
    try:
        check(base)
    except NoPlanError as error:
        return _Refusal(error.message, error.hint)
    try:
        write_random_base(folder, shape, seed=0)
    except BaseFormatError as error:
        raise DiskError(str(error), "name a folder with room in the environment variable TMPDIR") from error
    return _Refusal()
