"""Runs of a study: each is made once, several at a time, and kept in a file so that an interruption loses few."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import msgspec

import builtin_base
from braid_common.atomic_file import write_atomically
from braid_common.base.files import base_digest
from edge_client.host.worker_memory import prepare_for_training


class Run(Protocol):
    """One finished run: the key that names it, and a line that says what came out."""

    @property
    def key(self) -> Hashable: ...
    @property
    def line(self) -> str: ...


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known: the machine, the settings that all runs share, and the runs. Each study types its own.

    Attributes:
        base: digest of the builtin base that all runs began with, which the runner writes in.
    """

    machine: str
    base: str = ""
    settings: Any = None
    runs: tuple[Any, ...] = ()

    @property
    def ground(self) -> str:
        """The machine and the base, to print above tables."""
        return f"{self.machine}; builtin base {self.base}"


N_DIGITS = 12
"""Of a base's digest, enough to tell bases apart."""

S = TypeVar("S", bound=Study)
R = TypeVar("R", bound=Run)
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Runner(Generic[S]):
    """Makes the runs that a study lacks, in processes of one thread each. A context manager: its end stops them.

    Args:
        study: as it is before the first run.
        path: the file that follows the study, and from which it goes on; None keeps nothing.
        processes: how many runs are made at once.

    Raises:
        SystemExit: the file holds another study, or one of other settings or of another base.
    """

    def __init__(self, study: S, path: Path | None, processes: int) -> None:
        base = base_digest(builtin_base.folder())[:N_DIGITS]
        self._study, self._path, self._processes = msgspec.structs.replace(study, base=base), path, processes
        self._pool: ProcessPoolExecutor | None = None
        if path is not None and path.exists():
            self._study = _read(path, type(study))
            if (self._study.settings, self._study.base) != (study.settings, base):
                raise SystemExit(f"{path} holds a study of {_other(self._study, base)}: remove it or name another file")
        self._runs: dict[Hashable, Any] = {run.key: run for run in self._study.runs}

    def __enter__(self) -> Runner[S]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)  # what would still run could not be kept

    @property
    def study(self) -> S:
        return self._study

    def known(self, keys: Iterable[Hashable]) -> list[Any]:
        """The runs of these keys that were made, in the keys' order."""
        return [self._runs[key] for key in keys if key in self._runs]

    def missing(self, keys: Iterable[K]) -> list[K]:
        """Those of these keys, each once, whose runs are still to be made."""
        return [key for key in dict.fromkeys(keys) if key not in self._runs]

    def run(self, keys: Iterable[K], make: Callable[[K], R]) -> list[R]:
        """The runs of all these keys, in their order; `make` makes those that are not known, in a worker process.

        `make` is a function of a module, or a `partial` of one: it is sent to the workers.
        """
        wanted = list(keys)
        missing = self.missing(wanted)
        start_s = time.monotonic()
        for n_done, run in enumerate(self.each(make, missing), 1):
            self._runs[run.key] = run
            self.keep(runs=tuple(self._runs.values()))
            left_s = (time.monotonic() - start_s) / n_done * (len(missing) - n_done)
            _tell(f"{run.line}; {n_done} of {len(missing)}, about {left_s / 60:.0f} min left of this part")
        return [self._runs[key] for key in wanted]

    def each(self, function: Callable[[K], T], items: Sequence[K]) -> Iterator[T]:
        """The results of `function` for each item, from worker processes and as they come. Nothing is kept."""
        if not items:
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._processes, context, begin_worker)
        for future in as_completed([self._pool.submit(function, item) for item in items]):
            yield future.result()

    def keep(self, **changes: Any) -> None:
        """Keep the study with other values of some fields."""
        self._study = msgspec.structs.replace(self._study, **changes)
        if self._path is not None:
            write_atomically(self._path, msgspec.json.format(msgspec.json.encode(self._study)))


def _read(path: Path, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise SystemExit(f"{path} is no {kind.__name__} ({error}): remove it or name another file") from error


def _other(study: Study, base: str) -> str:
    return "other settings" if study.base == base else f"another base ({study.base or 'not said'}; this one is {base})"


def begin_worker() -> None:
    """Settle threads and memory of a process that is going to train. Call it before torch is imported."""
    os.environ["OMP_NUM_THREADS"] = "1"  # numpy's merging as well
    prepare_for_training()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
