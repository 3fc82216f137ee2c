"""The measuring itself: the engine's own parts on random tokens of exact lengths, each phase timed on its own.

Nothing here is faster or slower than in training: the same loading, Model and Adam, without text, disk cache and
network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from braid_common.base.files import read_t5_config
from braid_common.base.t5_config import T5Config
from braid_common.seeds import derive_seed
from edge_client.bench.request import WARM_UP_STEPS, Measured, Request, Tell
from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.encoder_cache.encoder_pass import EncoderSpec, encode_sources
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.model.model import DTYPES, Model, start_training
from edge_client.errors import ConfigError, base_errors
from edge_client.host.energy import Energy, EnergyRecorder
from edge_client.host.matmul_probe import measure_peak_gflops
from edge_client.host.power_sensors import Sensor, find_sensor, why_none
from edge_client.host.processors import free_processors
from edge_client.host.worker_memory import peak_bytes, resident_bytes, return_free_memory, return_memory_near
from quantize.base import FrozenBase, load_base

_BASE_HINT = "check the folder, or name another base with --model"

LEARNING_RATE = 1e-4
"""Small, for the tokens are random: nothing is to be learnt, only measured."""

FIRST_ID = 3
"""Ids below are padding, end and unknown in every T5."""

ENCODE_PASSES = 2
"""Passes of the frozen encoder; the last one counts, those before it warm up."""

LENGTH = 0.1
"""Of every strand of the adapter: small beside the base's weights."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Seconds of one step's phases, and its loss in nats per target token."""

    forward_s: float
    backward_s: float
    optimiser_s: float
    loss: float

    @property
    def seconds(self) -> float:
        return self.forward_s + self.backward_s + self.optimiser_s


def measure(request: Request, tell: Tell) -> Measured:
    """Carry out a request in this process, which should do nothing else before or after.

    `tell` hears phase, steps done and steps in all. Raises BaseModelError for a damaged base, ConfigError where the
    loss is not finite.
    """
    imports_bytes = resident_bytes()
    torch.set_num_threads(request.threads or free_processors())
    batch = _batch(request, _config(request))
    encoded, encode_s = _encode(request, batch, tell) if request.settings.scope == "decoder" else (None, 0.0)
    tell("load", 0, 1)
    base, load_s = _load(request, lambda name: request.settings.scope == "all" or not name.startswith("encoder."))
    sensor = find_sensor(Path(request.root))
    steps, energy = _train(request, _Trainer(request, base, batch, encoded), sensor, tell)
    # Asked before the matrix peak, which is not a part of training.
    most_bytes = peak_bytes()
    most_device_bytes = torch.cuda.max_memory_allocated() if request.mode.device == "cuda" else 0
    tell("matrix peak", 0, 1)
    return Measured(
        load_s=load_s,
        encode_s=encode_s,
        forward_s=median(step.forward_s for step in steps),
        backward_s=median(step.backward_s for step in steps),
        optimiser_s=median(step.optimiser_s for step in steps),
        step_s=median(step.seconds for step in steps),
        loss=steps[-1].loss,
        imports_bytes=imports_bytes,
        peak_bytes=most_bytes,
        base_bytes=base.resident_bytes,
        device_peak_bytes=most_device_bytes,
        peak_gflops=measure_peak_gflops(DTYPES[request.mode.compute], torch.device(request.mode.device)),
        threads=torch.get_num_threads(),
        sensor=sensor.name if sensor and energy else "",
        no_sensor="" if sensor and energy else why_none(Path(request.root)),
        watts=energy.watts if energy else 0.0,
        n_samples=energy.n_samples if energy else 0,
    )


class _Trainer:
    """One micro-batch, trained on again and again."""

    def __init__(self, request: Request, base: FrozenBase, batch: Batch, encoded: Tensor | None) -> None:
        self._wait = _waiting(request)
        self._planned = (request.plan.expected_peak_bytes, request.plan.budget_bytes)
        self._batch, self._encoded = batch, encoded
        self._model = Model(
            base,
            _adapter(request),
            request.mode.compute,
            trains_encoder=request.settings.scope == "all",
            checkpointing=request.mode.checkpointing,
            trains="both" if request.settings.trains_a else "b",
        )
        self._adam = Adam(start_training(self._model.linears), LEARNING_RATE)

    def step(self) -> _Step:
        """A training step as edge_client.engines.lean.train makes it, with a clock between its phases."""
        n_labels = self._batch.n_target_tokens
        start_s = self._wait()
        loss = self._model.loss_sum(self._batch, self._encoded)
        forward_s = self._wait()
        loss.backward()  # type: ignore[no-untyped-call]
        backward_s = self._wait()
        norm = self._adam.step(n_labels)
        return_memory_near(*self._planned)
        optimiser_s = self._wait()
        mean = float(loss.detach()) / n_labels
        if not (abs(mean) < float("inf") and norm < float("inf")):
            raise ConfigError(f"the loss is {mean}, its gradient {norm}", "measure with another --model or --format")
        return _Step(forward_s - start_s, backward_s - forward_s, optimiser_s - backward_s, mean)


def _train(request: Request, trainer: _Trainer, sensor: Sensor | None, tell: Tell) -> tuple[list[_Step], Energy | None]:
    """The steps that count, and the energy that they took where the board can say."""
    in_all = WARM_UP_STEPS + request.steps
    for i in range(WARM_UP_STEPS):
        tell("train", i, in_all)
        trainer.step()
    steps = []
    recorder = EnergyRecorder(sensor) if sensor else None
    with recorder or nullcontext():
        for i in range(request.steps):
            tell("train", WARM_UP_STEPS + i, in_all)
            steps.append(trainer.step())
    tell("train", in_all, in_all)
    return steps, recorder.energy if recorder else None


def _encode(request: Request, batch: Batch, tell: Tell) -> tuple[Tensor, float]:
    """The encoder's output (b, s, d) for the micro-batch, and the seconds of a pass, which reads the encoder block by
    block as training does. Nothing of the encoder stays."""
    wait, outputs = _waiting(request), dict[tuple[int, ...], Tensor]()
    for i in range(ENCODE_PASSES):
        tell("encode", i, ENCODE_PASSES)
        start_s = wait()
        encode_sources(
            EncoderSpec(
                Path(request.base_folder),
                request.mode.format,
                DTYPES[request.mode.compute],
                torch.device(request.mode.device),
            ),
            batch.sources,
            lambda ids, hidden: outputs.update({ids: hidden.clone()}),
        )
        seconds = wait() - start_s
    tell("encode", ENCODE_PASSES, ENCODE_PASSES)
    encoded = torch.nn.utils.rnn.pad_sequence([outputs[ids] for ids in batch.sources], batch_first=True)
    missing = batch.source.shape[1] - encoded.shape[1]
    return torch.nn.functional.pad(encoded, (0, 0, 0, missing)).to(request.mode.device), seconds


def _load(request: Request, wanted: Callable[[str], bool]) -> tuple[FrozenBase, float]:
    """A part of the base, and the seconds that it took."""
    start_s = time.perf_counter()
    with base_errors(_BASE_HINT):
        base = load_base(
            Path(request.base_folder), request.mode.format, wanted=wanted, device=torch.device(request.mode.device)
        )
    return_free_memory()
    return base, time.perf_counter() - start_s


def _config(request: Request) -> T5Config:
    with base_errors(_BASE_HINT):
        return read_t5_config(Path(request.base_folder))


def _adapter(request: Request) -> AdapterTensors:
    """Strands on every weight of the scope beside the frozen part of a full adapter, as the run's rule has them: its
    own strands where A is trained, else some that begin at zero beside the whole. Rows of random normal values of
    length near one are nearly orthogonal."""
    frozen, basis, start_b = {}, {}, {}
    frozen_ranks = request.frozen_ranks()
    for weight, rank in zip(request.run.weights, request.plan.ranks, strict=True):
        generator = torch.Generator().manual_seed(derive_seed(0, "bench", "adapter", weight.name))
        rest = frozen_ranks[weight.name]
        b = LENGTH * weight.rows**-0.5 * torch.randn(weight.rows, rank + rest, generator=generator)
        a = weight.columns**-0.5 * torch.randn(rank + rest, weight.columns, generator=generator)
        basis[weight.name] = a[:rank]
        if request.settings.trains_a:
            start_b[weight.name] = b[:, :rank].contiguous()
        frozen[weight.name] = Factors(b[:, rank:].contiguous(), a[rank:])
    return AdapterTensors(frozen, basis, start_b)


def _batch(request: Request, config: T5Config) -> Batch:
    """Random tokens of exact lengths, collated as text is."""
    vocabulary = config.vocab_size
    generator = torch.Generator().manual_seed(derive_seed(0, "bench", "tokens"))

    def draw(n_tokens: int) -> list[tuple[int, ...]]:
        first = min(FIRST_ID, vocabulary - 1)
        drawn = torch.randint(first, vocabulary, (request.mode.micro_batch, n_tokens), generator=generator)
        return [tuple(ids) for ids in drawn.tolist()]

    pairs = zip(draw(request.settings.max_source_tokens), draw(request.settings.max_target_tokens), strict=True)
    return collate([Pair(source, target) for source, target in pairs], config.pad_id, config.start_id)


def _waiting(request: Request) -> Callable[[], float]:
    """A clock in seconds; on a GPU it first waits until all that was asked for is done."""

    def wait() -> float:
        if request.mode.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return wait
