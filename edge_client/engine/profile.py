"""The profiling pass: sketches of every weight's gradient on the bare base, from which the first basis is made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_client.engine.adapter_tensors import AdapterTensors
from edge_client.engine.batches import Batch, Order, collate
from edge_client.engine.model import Model
from edge_client.engine.prefix import Prefix
from edge_client.engine.results import profile_message, write_result
from edge_client.engine.session import Meter, Session
from edge_client.engine.sketches import Sketches
from edge_client.engine.tokeniser import Pair
from edge_client.errors import ConfigError, DataError
from edge_client.jobs import Job
from edge_client.process import peak_bytes
from wire.seeds import derive_seed


def profile(job: Job, session: Session) -> dict[str, float]:
    """Run a "profile" job and write its `Profile`: one backward pass over each of `sketch_batches` micro-batches.

    Returns loss (mean of the base per target token), n_examples (distinct ones seen), tokens_per_s, seconds and
    peak_bytes. Nothing is saved on the way: a pass that is interrupted starts again. Raises DataError without training
    examples, ConfigError where the loss is not finite.
    """
    settings, train = job.run.settings, session.data(job.data).train
    if not train:
        raise DataError(f"{job.data} leaves no example to train on", "give at least two examples with --data")
    seed = derive_seed(job.task.seed, "order", job.task.round, job.device)
    order = Order([len(example.source) for example in train], job.plan.micro_batch, settings.sketch_batches, seed)
    prefix = Prefix(job, session)
    prefix.prepare(pair.source for step in range(settings.sketch_batches) for pair in _pairs(job, session, order, step))
    model = Model(
        session.base(job),
        AdapterTensors(),
        job.plan.compute,
        trains_encoder=settings.scope == "all",
        checkpointing=job.plan.checkpointing,
    )
    sketches = Sketches(job.run, job.task.seed, model.device)
    sketches.attach(model.linears)
    meter = Meter(session, "profile", settings.sketch_batches)
    loss = _pass(model, prefix, _batches(job, session, model, order), sketches, meter, session)
    if not abs(loss) < float("inf"):
        raise ConfigError(f"the base's loss is {loss}", "fetch the base model again, or plan fp32 compute")
    write_result(Path(job.result_path), profile_message(job, order.n_distinct, sketches.mean()))
    return {
        "loss": loss,
        "n_examples": float(order.n_distinct),
        "tokens_per_s": meter.tokens_per_s,
        "seconds": meter.seconds,
        "peak_bytes": float(peak_bytes()),
    }


def _batches(job: Job, session: Session, model: Model, order: Order) -> Iterator[Batch]:
    for step in range(job.run.settings.sketch_batches):
        yield collate(_pairs(job, session, order, step), model.shape.pad_id, model.shape.start_id)


def _pairs(job: Job, session: Session, order: Order, step: int) -> list[Pair]:
    settings, train, tokeniser = job.run.settings, session.data(job.data).train, session.tokeniser(job)
    return [
        tokeniser.pair(train[i], settings.max_source_tokens, settings.max_target_tokens) for i in order.examples(step)
    ]


def _pass(
    model: Model, prefix: Prefix, batches: Iterator[Batch], sketches: Sketches, meter: Meter, session: Session
) -> float:
    """Run the backward passes; the mean loss in nats per target token."""
    total = 0.0
    for step, batch in enumerate(batches):
        session.check_stop()
        loss = model.loss_sum(batch, prefix.encoded(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        sketches.count(batch.n_target_tokens)
        total += float(loss.detach())
        n_tokens = batch.n_source_tokens + batch.n_target_tokens
        meter.count(step + 1, float(loss.detach()) / batch.n_target_tokens, n_tokens)
    return total / sketches.n_tokens
