"""The profiling pass on the bare base: sketches of every weight's gradient, from which the first basis is made, and the
scores by which the run ranks its weights (edge_client/engines/lean/gradients/importance.py)."""

from __future__ import annotations

from pathlib import Path

from braid_common.seeds import derive_seed
from edge_client.engines.lean.encoder_cache.reader import Prefix
from edge_client.engines.lean.gradients.importance import observe_scores
from edge_client.engines.lean.gradients.sketches import Sketches
from edge_client.engines.lean.messages import profile_message, write_result
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import Order, micro_batches
from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.model.tokeniser import Pair
from edge_client.engines.lean.session import Meter, Session, run_as_reached, trains_encoder
from edge_client.errors import ConfigError, DataError
from edge_client.host.worker_memory import peak_bytes
from edge_client.jobs.messages import Job


def profile(job: Job, session: Session) -> dict[str, float]:
    """Run a "profile" job and write its `Profile`: backward passes over `sketch_batches` of the run's micro-batches,
    in the smaller ones of the plan where the board needs them, so that every board profiles on as many examples.

    A board that leaves the encoder frozen profiles the decoder's weights alone. Returns loss (mean per target token of
    the base; with importance "adalora" of one that learns a little on the way), n_examples (distinct ones seen),
    tokens_per_s, seconds and peak_bytes. Nothing is saved on the way: a pass that is interrupted starts again. Raises
    DataError without training examples, ConfigError where the loss is not finite.
    """
    return _Window(job, session).run()


class _Window:
    """The examples that a board profiles on, in steps of the run's micro-batch, and what is gathered over them."""

    def __init__(self, job: Job, session: Session) -> None:
        self._job = job
        self._session = session
        self._settings = job.run.settings
        self._train = session.data(job.data).train
        if not self._train:
            raise DataError(f"{job.data} leaves no example to train on", "give at least two examples with --data")
        self._tokeniser = session.tokeniser(job)
        lengths = [len(example.source) for example in self._train]
        seed = derive_seed(job.spec.seed, "order", job.spec.round, job.device)
        self._order = Order(lengths, self._settings.micro_batch, self._settings.sketch_batches, seed)
        self._prefix = Prefix(job, session)
        self._prefix.prepare(pair.source for step in range(self._settings.sketch_batches) for pair in self._pairs(step))
        base = session.base(job)
        self._model = Model(
            base,
            AdapterTensors(),
            job.plan.compute,
            trains_encoder=trains_encoder(job),
            checkpointing=job.plan.checkpointing,
        )
        reached = run_as_reached(job)
        self._sketches = Sketches(reached.weights, reached.max_rank, job.spec.seed, self._model.device)
        self._sketches.attach(self._model.linears)
        self._scores = observe_scores(job, reached.weights, self._model, base)

    def run(self) -> dict[str, float]:
        meter = Meter(self._session, "profile", self._settings.sketch_batches)
        total = sum(self._backward(step, meter) for step in range(self._settings.sketch_batches))
        loss = total / sum(self._sketches.n_tokens)
        if not abs(loss) < float("inf"):
            raise ConfigError(f"the base's loss is {loss}", "fetch the base model again, or plan fp32 compute")
        scores = self._scores.scores() if self._scores is not None else {}
        message = profile_message(self._job, self._order.n_distinct, self._sketches.mean(), scores)
        write_result(Path(self._job.result_path), message)
        return {
            "loss": loss,
            "n_examples": float(self._order.n_distinct),
            "tokens_per_s": meter.tokens_per_s,
            "seconds": meter.seconds,
            "peak_bytes": float(peak_bytes()),
        }

    def _backward(self, step: int, meter: Meter) -> float:
        """Gather one step; its summed loss in nats."""
        config, summed, n_targets, n_tokens = self._model.config, 0.0, 0, 0
        for batch in micro_batches(self._pairs(step), self._job.plan.micro_batch, config.pad_id, config.start_id):
            self._session.check_stop()
            loss = self._model.loss_sum(batch, self._prefix.encoded(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            self._sketches.count(batch.n_target_tokens)
            summed += float(loss.detach())
            n_targets += batch.n_target_tokens
            n_tokens += batch.n_target_tokens + batch.n_source_tokens
        if self._scores is not None:
            self._scores.count(n_targets)
        meter.count(step + 1, summed / n_targets, n_tokens)
        return summed

    def _pairs(self, step: int) -> list[Pair]:
        settings = self._settings
        return [
            self._tokeniser.pair(self._train[i], settings.max_source_tokens, settings.max_target_tokens)
            for i in self._order.examples(step)
        ]
