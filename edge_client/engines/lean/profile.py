"""The profiling pass on the bare base: gradient sketches and scores of every weight.

The server makes the first basis of the sketches, and ranks the run's weights by the scores
(edge_client/engines/lean/gradients/importance.py).
"""

from __future__ import annotations

from pathlib import Path

from edge_client.engines.lean.encoder_cache.reader import EncoderOutputs
from edge_client.engines.lean.gradients.importance import observe_scores
from edge_client.engines.lean.gradients.sketches import Sketches
from edge_client.engines.lean.messages import profile_message, write_result
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.ordered_text import OrderedText
from edge_client.engines.lean.session import Meter, Session, run_as_reached, trains_encoder
from edge_client.errors import ConfigError
from edge_client.host.worker_memory import peak_bytes
from edge_client.jobs.messages import ProfileJob


def profile(job: ProfileJob, session: Session) -> dict[str, float]:
    """Take sketches and scores of the bare base and write them as a `Profile`; the job's numbers.

    Backward passes go over `sketch_batches` of the run's micro-batches, in the smaller ones of the plan where the board
    needs them, so that every board profiles on as many examples. A board that leaves the encoder frozen profiles the
    decoder's weights alone. Nothing is saved on the way: a pass that is interrupted starts again.

    The numbers are loss (mean per target token of the base; with importance "adalora" of one that learns a little on
    the way), n_examples (distinct ones seen), tokens_per_s, seconds and peak_bytes. Raises DataError without training
    examples, ConfigError where the loss is not finite.
    """
    return _Window(job, session).run()


class _Window:
    """The examples that a board profiles on, in steps of the run's micro-batch, and what is gathered over them."""

    def __init__(self, job: ProfileJob, session: Session) -> None:
        self._job = job
        self._session = session
        self._steps = range(job.run.settings.sketch_batches)
        self._text = OrderedText(job, session, batch=job.run.settings.micro_batch, steps=len(self._steps))
        self._encoder_outputs = EncoderOutputs(job, session)
        self._encoder_outputs.prepare(pair.source for step in self._steps for pair in self._text.pairs(step))
        base = session.base(job)
        self._model = Model(
            base,
            AdapterTensors(),
            job.plan.mode.compute,
            trains_encoder=trains_encoder(job),
            checkpointing=job.plan.mode.checkpointing,
        )
        reached = run_as_reached(job)
        self._sketches = Sketches(reached.weights, reached.max_rank, job.spec.seed, self._model.device)
        self._sketches.attach(self._model.linears)
        self._scores = observe_scores(job, reached.weights, self._model, base)

    def run(self) -> dict[str, float]:
        meter = Meter(self._session, "profile", len(self._steps))
        total = sum(self._backward(step, meter) for step in self._steps)
        loss = total / sum(self._sketches.n_tokens)
        if not abs(loss) < float("inf"):
            raise ConfigError(f"the base's loss is {loss}", "fetch the base model again, or plan fp32 compute")
        scores = self._scores.scores() if self._scores is not None else {}
        message = profile_message(self._job, self._text.n_distinct, self._sketches.mean(), scores)
        write_result(Path(self._job.result_path), message)
        return {
            "loss": loss,
            "n_examples": float(self._text.n_distinct),
            "tokens_per_s": meter.tokens_per_s,
            "seconds": meter.seconds,
            "peak_bytes": float(peak_bytes()),
        }

    def _backward(self, step: int, meter: Meter) -> float:
        """Gather one step; its summed loss in nats."""
        shape, summed, n_targets, n_tokens = self._model.config, 0.0, 0, 0
        for batch in self._text.batches(step, shape.pad_id, shape.start_id):
            self._session.check_stop()
            loss = self._model.loss_sum(batch, self._encoder_outputs.encoded(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            self._sketches.count(batch.n_target_tokens)
            summed += float(loss.detach())
            n_targets += batch.n_target_tokens
            n_tokens += batch.n_target_tokens + batch.n_source_tokens
        if self._scores is not None:
            self._scores.count(n_targets)
        meter.count(step + 1, summed / n_targets, n_tokens)
        return summed
