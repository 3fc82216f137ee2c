"""Evaluation of an adapter on the board's held-out text: loss per token, and ROUGE of what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from braid_common.example import Example
from braid_common.metrics import Subject, metric
from edge_client.data.tokeniser import Pair, Tokeniser
from edge_client.engines.lean.encoder_cache.reader import EncoderOutputs
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_adapter
from edge_client.engines.lean.model.batches import micro_batches, source_batch
from edge_client.engines.lean.model.greedy import write_greedily
from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.session import Meter, Session, peaks
from edge_client.errors import ConfigError
from edge_client.evaluation.metrics import exact_match, rouge
from edge_client.host.worker_memory import resident_bytes
from edge_client.jobs.messages import AdapterJob, EvaluateJob
from edge_client.state.personal_folder import strands_key

if TYPE_CHECKING:
    from edge_client.engines.lean.personal.local_strands import OwnStrands

SPARE_SHARE = 0.5
"""Part of the memory still free under the budget that unpacked weights may take while text is written."""


def evaluate(job: EvaluateJob, session: Session) -> dict[str, float]:
    """Score an adapter: loss and n_examples, and rouge1, rouge2, rougeL (F1, 0…1) and exact_match if the job asks for
    texts; by the names of `braid_common.metrics` also of the bare base, if it asks for that, and of what the board has
    learnt for itself, if it names that: over the adapter, or alone. personal_lost, 1, where that cannot be read.

    The loss is that of each example's first target; ROUGE takes the nearest of its targets. Raises ConfigError where
    the board holds no held-out example.
    """
    tokeniser = session.tokeniser(job)
    examples = held_out_examples(job, session)
    if not examples:
        raise ConfigError(f"{job.data} leaves no example to evaluate on", "give at least two examples with --data")
    start_s = session.clock()
    pairs = [_pair(tokeniser, example, job) for example in examples]
    encoder_outputs = EncoderOutputs(job, session)
    encoder_outputs.prepare(pair.source for pair in pairs)
    if job.rouge and job.plan.kept_bytes:
        session.release_encoder()  # unpacked weights make texts be written faster
    own, is_lost = _own_strands(job)
    answered: dict[Subject, _Answered] = {}
    for subject, adapter in _subjects(job, own):
        answered[subject] = _answered(adapter, encoder_outputs, pairs, job, session)
        del adapter
    del encoder_outputs, own
    values = {"n_examples": float(len(examples)), "tokens_per_s": answered["global"].tokens_per_s}
    values |= {"personal_lost": 1.0} if is_lost else {}
    if job.rouge:
        session.release_base()  # what scores the texts takes as much as a base, and comes at the end of a run
    targets = [example.targets for example in examples]
    for subject, its in answered.items():
        scores = {"loss": its.loss}
        if job.rouge:
            texts = [tokeniser.decode(ids) for ids in its.ids]
            scores |= rouge(targets, texts) | {"exact_match": exact_match(targets, texts)}
        values |= {metric(subject, name): value for name, value in scores.items()}
    return values | {"seconds": session.clock() - start_s} | peaks(session.torch_device(job))


def _own_strands(job: EvaluateJob) -> tuple[OwnStrands | None, bool]:
    """The board's own strands, where the job names some and they are there, and whether they cannot be used."""
    if not job.personal_path:
        return None, False
    from edge_client.engines.lean.personal.local_strands import look_for_own

    return look_for_own(Path(job.personal_path), strands_key(job.run))


def _subjects(job: EvaluateJob, own: OwnStrands | None) -> Iterator[tuple[Subject, AdapterTensors]]:
    """The models to score, one after another: the version comes last, so that what is shown last is its score."""
    adapter = AdapterTensors()  # version 0 is the bare base
    if job.adapter_path:
        adapter = read_adapter(Path(job.adapter_path), job.run, job.spec.version, None)
        if job.beside_base:
            yield "base", AdapterTensors()
    if own is not None:
        yield ("alone" if own.is_alone else "personal"), AdapterTensors(own.over(adapter.product_factors()))
    yield "global", adapter


@dataclass(frozen=True, slots=True)
class _Answered:
    """The held-out examples as a model met them: their loss, the speed of that, and the ids that it writes, if any."""

    loss: float
    tokens_per_s: float
    ids: list[list[int]]


def _answered(
    adapter: AdapterTensors,
    encoder_outputs: EncoderOutputs,
    pairs: Sequence[Pair],
    job: EvaluateJob,
    session: Session,
) -> _Answered:
    """The examples as the base with an adapter meets them. Its model is gone afterwards."""
    model = Model(session.base(job), adapter, job.plan.mode.compute)
    loss, tokens_per_s = held_out_loss(model, encoder_outputs, job, session, pairs)
    ids = _written(model, encoder_outputs, pairs, job, session) if job.rouge else []
    return _Answered(loss, tokens_per_s, ids)


def held_out_examples(job: AdapterJob, session: Session) -> list[Example]:
    """The same first `max_eval_examples` held-out examples in every round."""
    return session.data(job.data).held_out[: job.max_eval_examples]


@torch.no_grad()
def held_out_loss(
    model: Model, encoder_outputs: EncoderOutputs, job: AdapterJob, session: Session, pairs: Sequence[Pair]
) -> tuple[float, float]:
    """Mean loss in nats per target token over `pairs`, and tokens (source and target) per second."""
    meter = Meter(session, "evaluate", len(pairs))
    total, n_labels, n_done = 0.0, 0, 0
    for batch in micro_batches(
        sorted(pairs, key=_length), job.plan.mode.micro_batch, model.config.pad_id, model.config.start_id
    ):
        session.check_stop()
        loss = float(model.loss_sum(batch, encoder_outputs.encoded(batch)))
        total, n_labels, n_done = total + loss, n_labels + batch.n_target_tokens, n_done + batch.source.shape[0]
        # The mean so far, not the batch's: what is shown last is then the result.
        meter.count(n_done, total / n_labels, batch.n_source_tokens + batch.n_target_tokens)
    mean = total / n_labels
    if not -1e300 < mean < 1e300:
        raise ConfigError(
            f"the held-out loss is {mean}: the adapter or the base is broken", "lower train.learning_rate in run.toml"
        )
    return mean, meter.tokens_per_s


def _written(
    model: Model, encoder_outputs: EncoderOutputs, pairs: Sequence[Pair], job: EvaluateJob, session: Session
) -> list[list[int]]:
    """The ids that the model writes for each pair's source, in their order."""
    order = sorted(range(len(pairs)), key=lambda i: _length(pairs[i]))
    ids_by_pair: list[list[int]] = [[] for _ in pairs]
    meter = Meter(session, "evaluate", len(pairs))
    spare_bytes = int(SPARE_SHARE * max(0, job.plan.budget_bytes - resident_bytes()))
    with model.unpacked_decoder(spare_bytes):
        for first in range(0, len(order), job.plan.mode.micro_batch):
            session.check_stop()
            part = order[first : first + job.plan.mode.micro_batch]
            batch = source_batch([pairs[i].source for i in part], model.config.pad_id)
            encoded = encoder_outputs.encoded_sources([pairs[i].source for i in part], batch[0].shape[1])
            written = write_greedily(model, *batch, job.run.settings.max_target_tokens, encoded)
            for i, ids in zip(part, written, strict=True):
                ids_by_pair[i] = ids
            meter.count(first + len(part), 0.0, sum(len(ids) for ids in written))
    return ids_by_pair


def _pair(tokeniser: Tokeniser, example: Example, job: EvaluateJob) -> Pair:
    return tokeniser.pair(example, job.run.settings.text_form)


def _length(pair: Pair) -> int:
    return len(pair.source)
