"""A session: the base, the tokeniser and the examples that stay loaded from job to job, and progress to the outside."""

from __future__ import annotations

import gc
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import torch

from braid_common.base.files import read_t5_config
from braid_common.base.t5_config import T5Config
from edge_client.data.dataset import Data
from edge_client.data.load import load_data
from edge_client.data.stamp import Stamp, stamp_of
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.contract import Host, Stopped
from edge_client.errors import NoPlanError, base_errors
from edge_client.host.worker_memory import peak_bytes, return_free_memory
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import DATA_FACTS, BaseJob, Progress
from quantize.base import FrozenBase, load_base
from quantize.weight import CPU
from wire.run import RunInfo

Phase = Literal["load", "encode", "profile", "train", "evaluate"]

PROGRESS_EVERY_S = 1.0
"""Between two Progress events: what a person can follow."""

ALONE = Host()
"""The host of a session that nobody listens to."""


_IS_IN_PART: Mapping[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "decoder": lambda name: not name.startswith("encoder."),
    "encoder": lambda name: name.startswith("encoder."),
}
"""Whether a tensor belongs to a part of the base, by the part's name."""


class Session:
    """The base and the examples stay loaded while jobs ask for the same ones.

    `emit`, `clock`, `wants_stop`, `wants_pause` and `wait` are the host's. `unsaved`: why the disk takes nothing now
    that the work can do without; progress carries it, and `left_out`: which rewards the round does without, and why.
    """

    def __init__(self, host: Host = ALONE) -> None:
        self.emit, self.clock, self.wants_stop = host.emit, host.clock, host.wants_stop
        self.wants_pause, self.wait = host.wants_pause, host.wait
        self._base: FrozenBase | None = None
        self._base_key = ("", "", "", "")
        self._encoder: FrozenBase | None = None  # of the same base, where the plan keeps it beside the decoder
        self._tokeniser: Tokeniser | None = None
        self._tokeniser_key = ""
        self._data: Data | None = None
        self._data_key: DataSpec | None = None
        self._data_stamp: Stamp = ()
        self._data_facts: dict[str, float] = {}
        self.unsaved = ""
        self.left_out = ""

    def base(self, job: BaseJob) -> FrozenBase:
        """The frozen base, or its decoder alone where the job's plan has a cache.

        Raises BaseModelError where it is missing or damaged, NoPlanError where the plan's device is not there.
        """
        part = "decoder" if job.plan.mode.cache != "none" else "all"
        key = (job.base_folder, job.plan.mode.format, part, job.plan.mode.device)
        if self._base is None or self._base_key != key:
            self.release_base()  # before the next one is loaded: there is room for one
            self._base = self._loaded(job, part, self.torch_device(job))
            self._base_key = key
        if not job.plan.kept_bytes and self._encoder is not None:
            self.release_encoder()
        return self._base

    def whole_base(self, job: BaseJob) -> FrozenBase | None:
        """The base with its encoder, for a job whose plan keeps both loaded; None where it keeps none. The encoder is
        read when texts are new for the first time. Raises as `base`."""
        if not job.plan.kept_bytes:
            return None
        decoder = self.base(job)
        if self._encoder is None:
            self._encoder = self._loaded(job, "encoder", CPU)  # the pass moves each block to where it computes
        encoder = self._encoder
        return replace(
            decoder, weights={**decoder.weights, **encoder.weights}, plain={**decoder.plain, **encoder.plain}
        )

    def _loaded(self, job: BaseJob, part: str, device: torch.device) -> FrozenBase:
        with base_errors():
            base = load_base(Path(job.base_folder), job.plan.mode.format, wanted=_IS_IN_PART[part], device=device)
        return_free_memory()
        return base

    def release_base(self) -> None:
        """Make room: the base is loaded again when it is asked for."""
        self._base = None
        self.release_encoder()

    def release_encoder(self) -> None:
        """Make room beside the decoder: a kept encoder is read again when texts are new."""
        self._encoder = None
        gc.collect()
        return_free_memory()

    def config(self, job: BaseJob) -> T5Config:
        """The numbers of the base, which is not loaded for it. Raises BaseModelError."""
        with base_errors():
            return read_t5_config(Path(job.base_folder))

    def torch_device(self, job: BaseJob) -> torch.device:
        """The processor or GPU that the job computes on. Raises NoPlanError where the plan's device is not there."""
        if job.plan.mode.device == "cuda" and not torch.cuda.is_available():
            raise NoPlanError("the plan is for a GPU, and torch finds none", "restart edge-client, to plan again")
        return torch.device(job.plan.mode.device)

    def data(self, spec: DataSpec) -> Data:
        """The board's examples; within a job they stay what they were at its beginning. Raises DataError."""
        if self._data is None or self._data_key != spec:
            self._data_stamp = stamp_of(spec)
            self._data, self._data_key = load_data(spec), spec
            self._data_facts = _facts(self._data)
        return self._data

    def follow_data(self, spec: DataSpec) -> None:
        """Forget examples whose files have changed since they were read. For the beginning of a job."""
        if self._data is not None and self._data_key == spec and self._data_stamp != stamp_of(spec):
            self._data = None

    @property
    def data_facts(self) -> dict[str, float]:
        """The numbers DATA_FACTS of the examples, none before they were read."""
        return dict(self._data_facts)

    def tokeniser(self, job: BaseJob) -> Tokeniser:
        """The base's tokeniser. Raises BaseModelError."""
        if self._tokeniser is None or self._tokeniser_key != job.base_folder:
            config = self.config(job)
            self._tokeniser = Tokeniser(Path(job.base_folder), config.eos_id, config.vocab_size)
            self._tokeniser_key = job.base_folder
        return self._tokeniser

    def check_stop(self) -> None:
        """Wait while the worker is to pause, and raise Stopped if it was asked to stop. For work that is not worth
        saving."""
        self.wait()
        if self.wants_stop():
            raise Stopped


def _facts(data: Data) -> dict[str, float]:
    checksum = 0
    for part in (data.train, data.held_out):
        for example in part:
            text = "\0".join((example.source, *example.targets, ""))
            checksum = zlib.crc32(text.encode(), checksum)
    return dict(zip(DATA_FACTS, (float(checksum), float(len(data.train)), float(len(data.held_out))), strict=True))


def trains_encoder(job: BaseJob) -> bool:
    """Whether the job trains encoder weights: in scope "all", unless the plan leaves the encoder as it was received."""
    return job.run.settings.scope == "all" and not job.plan.mode.frozen_encoder


def run_as_reached(job: BaseJob) -> RunInfo:
    """The run with those of its weights alone that the job's backward passes reach, and so can sketch."""
    weights = job.run.weights
    if not trains_encoder(job):
        weights = tuple(weight for weight in weights if not weight.is_encoder)
    return msgspec.structs.replace(job.run, weights=weights)


def peaks(device: torch.device) -> dict[str, float]:
    """The process's peak memory, and on a GPU what torch held there at most, for a job's numbers."""
    values = {"peak_bytes": float(peak_bytes())}
    if device.type == "cuda":
        values["gpu_peak_bytes"] = float(torch.cuda.max_memory_allocated(device))
    return values


class Meter:
    """Counts tokens of one phase and tells the session about once a second. `done`: steps that were done before."""

    def __init__(self, session: Session, phase: Phase, steps: int, done: int = 0) -> None:
        self._session = session
        self._phase: Phase = phase
        self._steps = steps
        self._start_s = session.clock()
        self._told_s = self._start_s
        self._n_tokens = 0
        self._emit(done, 0.0, 0.0)

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
        self._emit(step, loss, self.tokens_per_s)

    def _emit(self, step: int, loss: float, tokens_per_s: float) -> None:
        self._session.emit(
            Progress(
                phase=self._phase,
                step=step,
                steps=self._steps,
                loss=loss,
                tokens_per_s=tokens_per_s,
                peak_bytes=peak_bytes(),
                unsaved=self._session.unsaved,
                left_out=self._session.left_out,
            )
        )
