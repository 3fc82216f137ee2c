"""What the worker keeps from job to job, and how a job reaches the outside: progress, clock, the request to stop."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edge_client.data import Data, load_data
from edge_client.engine.tokeniser import Tokeniser
from edge_client.errors import BaseModelError
from edge_client.jobs import Job, Progress
from edge_client.process import peak_bytes, return_free_memory
from quantize.base import BaseFormatError, FrozenBase, load_base

Phase = Literal["load", "profile", "train", "evaluate"]

PROGRESS_EVERY_S = 1.0


class Stopped(BaseException):
    """The worker was asked to stop; the job's place has been saved. No error: nothing may catch it on the way out."""


class Session:
    """The base and the examples stay loaded while jobs ask for the same ones.

    Args: emit takes Progress events; clock gives seconds, monotonic; wants_stop is asked between steps.
    """

    def __init__(
        self,
        emit: Callable[[Progress], None] = lambda progress: None,
        clock: Callable[[], float] = time.monotonic,
        wants_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.emit = emit
        self.clock = clock
        self.wants_stop = wants_stop
        self._base: FrozenBase | None = None
        self._base_key = ("", "")
        self._data: Data | None = None
        self._data_key = ""

    def base(self, folder: str, format: str) -> FrozenBase:
        """The frozen base. Raises BaseModelError where it is missing or damaged."""
        if self._base is None or self._base_key != (folder, format):
            self._base = None  # before the next one is loaded: there is room for one
            gc.collect()
            return_free_memory()
            try:
                self._base = load_base(Path(folder), format)
            except BaseFormatError as error:
                raise BaseModelError(str(error), "fetch the base model again, or check its folder") from error
            self._base_key = (folder, format)
            return_free_memory()
        return self._base

    def data(self, spec: str) -> Data:
        """The board's examples, read once: a run's data stays what it was when the worker first saw it."""
        if self._data is None or self._data_key != spec:
            self._data, self._data_key = load_data(spec), spec
        return self._data

    def tokeniser(self, job: Job) -> Tokeniser:
        config = self.base(job.base_folder, job.plan.format).config
        return Tokeniser(Path(job.base_folder), config.get("eos_token_id", 1), config["vocab_size"])

    def check_stop(self) -> None:
        """Raise Stopped if the worker was asked to stop. For work that is not worth saving."""
        if self.wants_stop():
            raise Stopped


class Meter:
    """Counts tokens of one phase and tells the session about once a second."""

    def __init__(self, session: Session, phase: Phase, steps: int) -> None:
        self._session = session
        self._phase: Phase = phase
        self._steps = steps
        self._start_s = session.clock()
        self._told_s = self._start_s
        self._n_tokens = 0
        session.emit(Progress(phase=phase, step=0, steps=steps, loss=0.0, tokens_per_s=0.0, peak_bytes=peak_bytes()))

    @property
    def seconds(self) -> float:
        return self._session.clock() - self._start_s

    @property
    def tokens_per_s(self) -> float:
        return self._n_tokens / max(self.seconds, 1e-9)

    def count(self, step: int, loss: float, n_tokens: int) -> None:
        """`step` steps are done, the last with `loss` (nats per token) on `n_tokens` source and target tokens."""
        self._n_tokens += n_tokens
        now_s = self._session.clock()
        if now_s - self._told_s < PROGRESS_EVERY_S and step < self._steps:
            return
        self._told_s = now_s
        self._session.emit(
            Progress(
                phase=self._phase,
                step=step,
                steps=self._steps,
                loss=loss,
                tokens_per_s=self.tokens_per_s,
                peak_bytes=peak_bytes(),
            )
        )
