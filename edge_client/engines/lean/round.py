"""A training round as steps that can be driven from outside: the examples, factors and optimiser of one board.

    training = TrainingRound(job, session)
    for step in range(training.prepare(), training.n_steps):
        training.step(step, training.backward(step))
        training.save()
    numbers = training.finish(meter)

Whoever computes the gradients in a way of their own replaces `backward`: they read the step's `pairs`, run one backward
pass of the summed loss through `model.linears` between `start_pass` and `end_pass`, and hand its `StepLoss` to `step`.

The objective is the negative log-likelihood of the targets (`Model.loss_sum`), asked for in `_backward_pass` alone.
Another one has a `backward` of its own (`edge_client.engines.lean.reward.objective`), and may `add_up` numbers and save
tensors with the round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.encoder_cache.reader import EncoderOutputs
from edge_client.engines.lean.encoder_cache.store import Source
from edge_client.engines.lean.error_feedback import ErrorFeedback
from edge_client.engines.lean.evaluate import held_out_examples, held_out_loss
from edge_client.engines.lean.gradients.pruning import Pruning
from edge_client.engines.lean.gradients.sketches import RoundSketches
from edge_client.engines.lean.messages import update_message, write_result
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.adapter_tensors import read_adapter
from edge_client.engines.lean.model.batches import Batch
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.model.model import Model, start_training
from edge_client.engines.lean.optional_parts import keep_penalty, local_strands, nested_ranks
from edge_client.engines.lean.ordered_text import OrderedText
from edge_client.engines.lean.private_basis import private_basis
from edge_client.engines.lean.session import Meter, Session, peaks, run_as_reached, trains_encoder
from edge_client.engines.lean.training_state import TrainingStateFile, restore, training_state_key
from edge_client.errors import ConfigError, NoPlanError
from edge_client.jobs.messages import TrainJob
from edge_client.state.pruned_ranks import keep_pruned

TOLD = ("loss", "held_out_loss", "personal_loss")
"""Numbers of a saved training that a round tells."""


@dataclass(frozen=True, slots=True)
class StepLoss:
    """The loss of one optimiser step, summed over its target tokens in nats, and how many tokens it read."""

    loss_sum: float
    n_source_tokens: int
    n_target_tokens: int

    @property
    def mean(self) -> float:
        """Nats per target token."""
        return self.loss_sum / self.n_target_tokens

    @property
    def n_tokens(self) -> int:
        return self.n_source_tokens + self.n_target_tokens


class TrainingRound:
    """One board's part of a round, from the adapter that was received to the update that is written.

    Attributes:
        n_steps: optimiser steps of the round.
        text: the examples of each step.
        model: the base with the adapter; its linears hold the factors that are trained.
        encoder_outputs: what the decoder reads of each source.
    """

    def __init__(self, job: TrainJob, session: Session) -> None:
        settings = job.run.settings
        self.n_steps = settings.local_steps
        self._job, self._session = job, session
        self.text = OrderedText(job, session, batch=settings.batch, steps=_readings(job))
        self.encoder_outputs = EncoderOutputs(job, session)
        self.encoder_outputs.prepare(self._sources())  # before the base is loaded: there is memory for one of them
        self.model = _model(job, session)
        self._trained = start_training(self.model.linears)
        if not self._trained and not job.spec.sketch:
            raise NoPlanError("the plan trains no weight and no sketch is asked for", "give more memory with --memory")
        prunes = settings.pruning and job.spec.trains == "both"
        self._pruning = Pruning(self.model.linears) if prunes else None
        self._keep = keep_penalty(job, self._trained)
        self._nested = nested_ranks(job, self.model)
        self._adam = Adam(self._trained, job.run.learning_rate_in(job.spec.round))
        self._local = local_strands(job, self.model)
        self._sketches = self._new_sketches() if job.spec.sketch else None
        key = training_state_key(job, self.text.examples)
        self._file = TrainingStateFile(job.training_state_path, key, session.clock)
        self._numbers: dict[str, float] = {"step": 0.0}
        self._next_batches: list[Batch] = []
        self._is_begun_again = False
        self._saved_besides: Mapping[str, Tensor] = {}

    # --- before the first step -------------------------------------------------------------------------------------

    def prepare(self) -> int:
        """The first step that is to be taken: the next one of a saved training, else 0, once the received adapter has
        been evaluated."""
        if not self._resume():
            self._is_begun_again = self._file.exists
            self._evaluate_received()
        return int(self._numbers["step"])

    def _new_sketches(self) -> RoundSketches:
        reached = run_as_reached(self._job)
        return RoundSketches(reached, self._job.spec.seed, self.model.device)

    def _sources(self) -> Iterator[Source]:
        """The sources of every example of the round, and of those that the received adapter is evaluated on."""
        yield from self.text.distinct_sources()
        for example in held_out_examples(self._job, self._session):
            yield self.text.tokenised(example).source

    def save_with(self, tensors: Mapping[str, Tensor]) -> None:
        """Save these fp32 matrices with the training, and read them again when it is taken up: they are changed."""
        self._saved_besides = tensors

    def add_up(self, name: str, value: float) -> None:
        """Add to a sum that is saved with the training; `finish` gives its mean over the times that it was added to."""
        for key, more in ((f"sum.{name}", value), (f"times.{name}", 1.0)):
            self._numbers[key] = self._numbers.get(key, 0.0) + more

    def _evaluate_received(self) -> None:
        pairs = [self.text.tokenised(example) for example in held_out_examples(self._job, self._session)]
        if pairs and self._local is not None:
            self._numbers["personal_loss"] = self._held_out_loss(pairs)
            self._local.use(is_wanted=False)
        if pairs:
            self._numbers["held_out_loss"] = self._held_out_loss(pairs)
        if self._local is not None:
            self._local.use(is_wanted=True)
        self.save(now=True)

    def _held_out_loss(self, pairs: Sequence[Pair]) -> float:
        return held_out_loss(self.model, self.encoder_outputs, self._job, self._session, pairs)[0]

    # --- one step --------------------------------------------------------------------------------------------------

    def pairs(self, step: int) -> list[Pair]:
        """The tokenised examples of an optimiser step."""
        return self.text.pairs(step)

    def backward(self, step: int) -> StepLoss:
        """Add up the gradients of a step, micro-batch by micro-batch, in the factors and in the sketches."""
        batches = self._next_batches or self._batches(step)
        self._next_batches = self._batches(step + 1) if step + 1 < self.n_steps else []
        self.encoder_outputs.read_ahead(self._next_batches)
        batch, micro_batch = self._job.run.settings.batch, self._job.plan.mode.micro_batch
        firsts = range(step * batch, (step + 1) * batch, micro_batch)
        return StepLoss(
            sum(map(self._backward_pass, batches, firsts)),
            sum(part.n_source_tokens for part in batches),
            sum(part.n_target_tokens for part in batches),
        )

    def start_pass(self, first: int) -> None:
        """Make sketches and nested ranks ready for a pass, forward and backward; a penalty observes the first step with
        all strands. `first`: how many examples the round has seen before."""
        if self._nested is not None and (self._keep is None or self._numbers["step"]):
            self._nested.start_pass(first)
        if self._sketches is not None:
            self._sketches.start_pass(self.model.linears, first)

    def end_pass(self, n_target_tokens: int) -> None:
        """Count the backward pass since `start_pass`, and its target tokens, for the sketches that it fed."""
        if self._sketches is not None:
            self._sketches.end_pass(n_target_tokens)
        if self._nested is not None:
            self._nested.end_pass()
        if self._keep is not None and not self._numbers["step"]:
            self._keep.observe()

    def step(self, step: int, loss: StepLoss) -> None:
        """Apply the gradients of a step, summed over its target tokens: penalty, clipping and Adam.

        Raises ConfigError where loss or gradient is not finite.
        """
        n_targets = loss.n_target_tokens
        if self._pruning is not None:
            self._pruning.add_gradients(n_targets)
        if self._keep is not None:
            self._keep.gather()
            self._keep.add_gradients(n_targets)
        norm = self._adam.step(n_targets) if self._trained else 0.0
        if self._local is not None:
            norm += self._local.step(n_targets)  # clipped by itself: what is sent does not depend on its length
        if not (abs(loss.mean) < float("inf") and norm < float("inf")):
            raise ConfigError(
                f"training diverged at step {step + 1} of round {self._job.spec.round}: "
                f"loss {loss.mean}, gradient {norm}",
                "lower train.learning_rate in the server's run.toml",
            )
        self._numbers |= {"step": step + 1, "loss": loss.mean}

    def _backward_pass(self, batch: Batch, first: int) -> float:
        """The summed loss of a micro-batch; its gradients are added to what is there."""
        self.start_pass(first)
        loss = self.model.loss_sum(batch, self.encoder_outputs.encoded(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        self.end_pass(batch.n_target_tokens)
        return float(loss.detach())

    def _batches(self, step: int) -> list[Batch]:
        return self.text.batches(step, self.model.config.pad_id, self.model.config.start_id)

    # --- after the last step ---------------------------------------------------------------------------------------

    def finish(self, meter: Meter) -> dict[str, float]:
        """Write the update, and what the board keeps of it for later rounds; the round's numbers, as `train` names
        them. `meter` has counted the steps."""
        sketches = self._sketches.mean() if self._sketches is not None else {}
        feedback = ErrorFeedback(self._job)
        strands = feedback.added(self._strands())
        message = update_message(self._job, self.text.n_distinct, strands, sketches)
        feedback.keep(strands, message)
        if self._pruning is not None:
            keep_pruned(self._job, {name: len(factors.a) for name, factors in strands.items()})
        if self._local is not None:
            self._local.keep()
        write_result(Path(self._job.result_path), message)
        return (
            {name: value for name, value in self._numbers.items() if name in TOLD}
            | self._means()
            | {
                "n_examples": float(self.text.n_distinct),
                "tokens_per_s": meter.tokens_per_s,
                "seconds": meter.seconds,
                "encode_s": self.encoder_outputs.seconds,
                "encoded_tokens": float(self.encoder_outputs.n_tokens),
            }
            | ({"residual_lost": 1.0} if feedback.is_lost else {})
            | ({"training_lost": 1.0} if self._is_begun_again else {})
            | ({"personal_lost": 1.0} if self._local is not None and self._local.is_lost else {})
            | peaks(self.model.device)
        )

    def _means(self) -> dict[str, float]:
        """The mean of everything that was added up."""
        sums = {key.removeprefix("sum."): value for key, value in self._numbers.items() if key.startswith("sum.")}
        return {name: value / self._numbers[f"times.{name}"] for name, value in sums.items()}

    def _strands(self) -> dict[str, Factors]:
        """B and A of every weight that has strands, as they are to be sent, on the CPU."""
        trained = {name: linear.factors for name, linear in self.model.linears.items() if linear.rank}
        strands = {name: Factors(factors.b.cpu(), factors.a.cpu()) for name, factors in trained.items()}
        return self._pruning.without_tails(strands) if self._pruning is not None else strands

    # --- the training on disk --------------------------------------------------------------------------------------

    def save(self, *, now: bool = False) -> None:
        """Save the training, if it is due or has to be `now`. Raises DiskError where that is the round's first."""
        if not (now or self._file.is_due()):
            return
        if self._sketches is not None:
            self._numbers |= self._sketches.numbers
        self._file.save(self._tensors(), self._numbers)
        self._session.unsaved = self._file.unsaved

    def _tensors(self) -> dict[str, Tensor]:
        """The values themselves that a saved training holds, by name."""
        groups = {"mean": self._adam.means, "square": self._adam.squares}
        if self._sketches is not None and self._sketches.has_begun:
            groups["sketch"] = self._sketches.sums
        named = {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
        others = dict(self._saved_besides)
        others |= self._local.tensors() if self._local is not None else {}
        others |= self._keep.tensors() if self._keep is not None else {}
        return self._trained | named | others

    def _resume(self) -> bool:
        """Take up a saved training. False where there is none of this work; it then starts from the beginning."""
        saved = self._file.load()
        if saved is None:
            return False
        if self._sketches is not None:
            self._sketches.set_numbers(saved.numbers)  # first: sums are saved only if tokens were counted
        if not restore(saved, self._tensors()):
            if self._sketches is not None:
                self._sketches.set_numbers({})
            return False
        self._numbers = dict(saved.numbers)
        self._adam.n_steps = int(self._numbers["step"])
        if self._local is not None:
            self._local.continue_from(int(self._numbers["step"]))
        return True


def _readings(job: TrainJob) -> int:
    """How often the round reads as many examples as a step has: at every step, or where answers are used again, fewer
    times."""
    settings = job.run.settings
    learning = settings.rewards_in(job.spec.round)
    return -(-settings.local_steps // (1 if learning is None else learning.reuse))


def _model(job: TrainJob, session: Session) -> Model:
    """The base with the received adapter, and in a run whose boards draw their own rows with these."""
    adapter = read_adapter(Path(job.adapter_path), job.run, job.spec.version, job.plan.ranks)
    if job.run.settings.own_basis:
        adapter = replace(adapter, basis=private_basis(job))
    return Model(
        session.base(job),
        adapter,
        job.plan.mode.compute,
        trains_encoder=trains_encoder(job),
        checkpointing=job.plan.mode.checkpointing,
        trains=job.spec.trains,
    )
