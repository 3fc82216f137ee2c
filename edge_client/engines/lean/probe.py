"""The probe: a training step on dummy text that measures what a plan really takes on this board, and how long.

It runs before any work is at stake. The worker that probes must be a fresh one, for its peak to be the probe's own,
loading the base included.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.encoder_cache.encoder_pass import EncoderSpec, encode_sources
from edge_client.engines.lean.gradients.sketches import Sketches
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import collate
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.model.model import DTYPES, Model, start_training
from edge_client.engines.lean.session import Session, peaks, run_as_reached, trains_encoder
from edge_client.host.worker_memory import peak_bytes, resident_bytes, return_free_memory
from edge_client.jobs.messages import ProbeJob
from edge_client.jobs.sizes import (
    CUDA_CONTEXT_BYTES,
    IMPORTS_BYTES,
    LEAST_HIDDEN_BYTES,
    TOKENS_PER_BATCH,
    ranks_of_own,
)


def probe(job: ProbeJob, session: Session) -> dict[str, float]:
    """Try a plan: peak_bytes, comparable to a plan's predicted_peak_bytes, imports_bytes of that, and step_s.

    imports_bytes is what the worker holds before it loads any model: interpreter, torch, tokenizer and data.

    The step is one micro-batch of texts as long as the run allows, forward and backward with a sketch, and one step of
    Adam, on strands of the plan's ranks; step_s are its seconds. One on a single text comes before it, and where the
    plan has a cache, a batch through the encoder. The base stays loaded for the job that follows. Raises BaseModelError
    where the base is missing or damaged.
    """
    session.data(job.data)  # held by every job that follows
    session.tokeniser(job)
    return_free_memory()
    imports_bytes = resident_bytes()
    encoding_bytes = _encode(job, session, imports_bytes) if job.plan.mode.cache != "none" else 0
    steps = _Steps(job, session)
    steps.take_one(1)  # kernels are loaded, Adam's moments and the sketches become resident
    start_s = session.clock()
    steps.take_one(job.plan.mode.micro_batch)
    seconds = session.clock() - start_s
    most_bytes = max(encoding_bytes, _peak(session.torch_device(job), imports_bytes))
    return {"peak_bytes": most_bytes, "imports_bytes": imports_bytes, "step_s": seconds}


class _Steps:
    """A model with strands and everything else that a round keeps beside it."""

    def __init__(self, job: ProbeJob, session: Session) -> None:
        settings, plan = job.run.settings, job.plan
        self._model = Model(
            session.base(job),
            _dummy_adapter(job),
            plan.mode.compute,
            trains_encoder=trains_encoder(job),
            checkpointing=plan.mode.checkpointing,
            trains="both" if settings.trains_a else "b",  # what the hungriest round takes
        )
        self._trained = start_training(self._model.linears)
        self._adam = Adam(self._trained | self._local_strands(job), settings.learning_rate)
        reached = run_as_reached(job)
        self._sketches = Sketches(reached.weights, reached.max_rank, job.spec.seed, self._model.device)
        self._sketches.attach(self._model.linears)
        self._job = job

    def _local_strands(self, job: ProbeJob) -> dict[str, Tensor]:
        """Zeros for the strands of this board alone, put where they lie in the steps of the global ones; those that are
        trained there."""
        trains, leaves = not job.run.own_steps, dict[str, Tensor]()
        ranks = ranks_of_own(job.run, "beside", trains_encoder=trains_encoder(job))
        for weight, rank in zip(job.run.weights, ranks, strict=True):
            if rank:
                zeros = Factors(torch.zeros(weight.rows, rank), torch.zeros(rank, weight.columns))
                linear = self._model.linears[weight.name]
                linear.put_beside(zeros, trains=trains)
                if trains:
                    leaves |= {f"local.{n}.{weight.name}": leaf for n, leaf in enumerate(linear.leaves[-2:])}
        return leaves

    def take_one(self, n_examples: int) -> None:
        settings, plan, config = self._job.run.settings, self._job.plan, self._model.config
        # All but the first are a token shorter than the run allows: a batch with padding takes more than one without.
        sources = [settings.max_source_tokens - (i > 0) for i in range(n_examples)]
        pairs = [_pair(source, settings.max_target_tokens) for source in sources]
        batch, encoded = collate(pairs, config.pad_id, config.start_id), None
        if plan.mode.cache != "none":
            dtype, device = DTYPES[plan.mode.compute], self._model.device
            encoded = torch.zeros(*batch.source.shape, config.d_model, dtype=dtype, device=device)
        loss = self._model.loss_sum(batch, encoded)
        loss.backward()  # type: ignore[no-untyped-call]
        self._sketches.count(batch.n_target_tokens)
        if self._adam.means:
            self._adam.step(batch.n_target_tokens)
        float(loss.detach())  # waits for a GPU


def _dummy_adapter(job: ProbeJob) -> AdapterTensors:
    """An adapter as large as any of the run's: frozen factors of the largest rank that the server makes, and bases of
    the plan's ranks. Its zeros are written, for pages that are only reserved are not resident."""
    frozen, basis = {}, {}
    for weight, rank in zip(job.run.weights, job.plan.ranks, strict=True):
        frozen_rank = min(job.run.server_rank, weight.rows, weight.columns)
        frozen[weight.name] = Factors(
            torch.full((weight.rows, frozen_rank), 0.0), torch.full((frozen_rank, weight.columns), 0.0)
        )
        basis[weight.name] = torch.full((rank, weight.columns), 0.0)
    return AdapterTensors(frozen, basis)


def _encode(job: ProbeJob, session: Session, imports_bytes: int) -> int:
    """Peak of an encoding pass: of one batch, and what a chunk of hidden states would take beside it."""
    length = job.run.settings.max_source_tokens
    encode_sources(
        EncoderSpec(
            Path(job.base_folder), job.plan.mode.format, DTYPES[job.plan.mode.compute], session.torch_device(job)
        ),
        [_pair(length, 2).source] * max(1, TOKENS_PER_BATCH // length),
        lambda ids, hidden: None,
        check_stop=session.check_stop,
    )
    return_free_memory()
    return _peak(session.torch_device(job), imports_bytes) + LEAST_HIDDEN_BYTES


def _pair(source_tokens: int, target_tokens: int) -> Pair:
    """Ids that every vocabulary has, ended as texts are."""
    return Pair((2,) * (source_tokens - 1) + (1,), (2,) * (target_tokens - 1) + (1,))


def _peak(device: torch.device, imports_bytes: int) -> int:
    """The peak so far as predictions count it: on a GPU what is held there, and the libraries."""
    if device.type == "cuda":
        return max(IMPORTS_BYTES, imports_bytes) + CUDA_CONTEXT_BYTES + int(peaks(device)["gpu_peak_bytes"])
    return peak_bytes()
