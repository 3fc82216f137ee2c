"""A board's part of one round: evaluate what was received, train its strands, sketch what is left to learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from braid_common.example import Example
from braid_common.seeds import derive_seed
from edge_client.engines.lean.encoder_cache.reader import Prefix
from edge_client.engines.lean.encoder_cache.store import Source
from edge_client.engines.lean.error_feedback import Feedback
from edge_client.engines.lean.evaluate import held_out_examples, held_out_loss
from edge_client.engines.lean.gradients.pruning import Pruning
from edge_client.engines.lean.gradients.sketches import Sketches, SketchWindow
from edge_client.engines.lean.messages import update_message, write_result
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.adapter_tensors import read_adapter
from edge_client.engines.lean.model.batches import Batch, Order, micro_batches
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.model.model import Model, start_training
from edge_client.engines.lean.model.tokeniser import Pair
from edge_client.engines.lean.private_basis import own_basis
from edge_client.engines.lean.session import Meter, Session, Stopped, peaks, run_as_reached, trains_encoder
from edge_client.engines.lean.training_state import checkpoint_key, interval_s, load_place, restore, save_place
from edge_client.errors import ConfigError, DataError, NoPlanError
from edge_client.host.worker_memory import return_memory_near
from edge_client.jobs.messages import Job
from edge_client.state.pruned_ranks import keep_pruned


def train(job: Job, session: Session) -> dict[str, float]:
    """Run a "train" job and write its `Update`; the job's numbers.

    They are: loss (of the last step), held_out_loss (of the adapter as received; absent without held-out text),
    n_examples (distinct training examples seen this round, which weighs the update), tokens_per_s and seconds of the
    steps, encode_s and encoded_tokens of the encoder's pass over what the cache lacked, peak_bytes, and residual_lost,
    1, where what earlier uploads lacked could not be read.

    Resumes from `checkpoint_path` if that belongs to this very work; what was trained is then the same to the last bit
    as without the interruption, on the same machine with the same number of threads and the same plan. With another
    plan it goes on from the same step in that plan's way. Raises ConfigError where the loss is not finite.
    """
    return _Round(job, session).run()


class _Round:
    def __init__(self, job: Job, session: Session) -> None:
        self._job = job
        self._session = session
        self._settings = job.run.settings
        self._data = session.data(job.data)
        if not self._data.train:
            raise DataError(f"{job.data} leaves no example to train on", "give at least two examples with --data")
        self._tokeniser = session.tokeniser(job)
        self._order = self._round_order()
        self._prefix = Prefix(job, session)
        self._prefix.prepare(self._sources())
        adapter = read_adapter(Path(job.adapter_path), job.run, job.spec.version, job.plan.ranks)
        if self._settings.own_basis:
            adapter = replace(adapter, basis=own_basis(job))
        self._model = Model(
            session.base(job),
            adapter,
            job.plan.compute,
            trains_encoder=trains_encoder(job),
            checkpointing=job.plan.checkpointing,
            trains=job.spec.trains,
        )
        self._trained = start_training(self._model.linears)
        if not self._trained and not job.spec.sketch:
            raise NoPlanError("the plan trains no weight and no sketch is asked for", "give more memory with --memory")
        prunes = self._settings.pruning and job.spec.trains == "both"
        self._pruning = Pruning(self._model.linears) if prunes else None
        self._adam = Adam(self._trained, self._settings.learning_rate)
        self._window = SketchWindow.of(self._settings)
        self._sketches = self._new_sketches() if job.spec.sketch else None
        self._key = checkpoint_key(job, self._data.train)
        self._numbers: dict[str, float] = {"step": 0.0}
        self._due_s = 0.0
        self._ahead: list[Batch] = []

    def run(self) -> dict[str, float]:
        if not self._resume():
            self._evaluate_received()
        plan, first_step = self._job.plan, int(self._numbers["step"])
        meter = Meter(self._session, "train", self._settings.local_steps, done=first_step)
        for step in range(first_step, self._settings.local_steps):
            loss, n_tokens = self._step(step)
            self._numbers |= {"step": step + 1, "loss": loss}
            return_memory_near(plan.predicted_peak_bytes, plan.budget_bytes)
            meter.count(step + 1, loss, n_tokens)
            stops = self._session.wants_stop()
            self._save(now=stops or step + 1 == self._settings.local_steps)
            if stops:
                raise Stopped
        return self._finish(meter)

    def _new_sketches(self) -> Sketches:
        run = run_as_reached(self._job)
        return Sketches(run.weights, run.max_rank, self._job.spec.seed, self._model.device, self._window.n_turns)

    def _round_order(self) -> Order:
        lengths = [len(example.source) for example in self._data.train]
        seed = derive_seed(self._job.spec.seed, "order", self._job.spec.round, self._job.device)
        return Order(lengths, self._settings.batch, self._settings.local_steps, seed)

    def _sources(self) -> Iterator[Source]:
        """Of every example of the round, and of those that the received adapter is evaluated on."""
        for index in self._order.distinct():
            yield self._pair(index).source
        for example in held_out_examples(self._job, self._session):
            yield self._tokenised(example).source

    # --- one step --------------------------------------------------------------------------------------------------

    def _step(self, step: int) -> tuple[float, int]:
        """One optimiser step; its mean loss per target token, and its tokens."""
        batches = self._ahead or self._batches(step)
        self._ahead = self._batches(step + 1) if step + 1 < self._settings.local_steps else []
        self._prefix.read_ahead(self._ahead)
        n_labels = sum(batch.n_target_tokens for batch in batches)
        firsts = range(step * self._settings.batch, (step + 1) * self._settings.batch, self._job.plan.micro_batch)
        loss = sum(map(self._backward, batches, firsts)) / n_labels
        if self._pruning is not None:
            self._pruning.add_gradients(n_labels)
        norm = self._adam.step(n_labels) if self._trained else 0.0
        if not (abs(loss) < float("inf") and norm < float("inf")):
            raise ConfigError(
                f"training diverged at step {step + 1} of round {self._job.spec.round}: loss {loss}, gradient {norm}",
                "lower train.learning_rate in the server's run.toml",
            )
        return loss, n_labels + sum(batch.n_source_tokens for batch in batches)

    def _backward(self, batch: Batch, first: int) -> float:
        """Add the gradients of a micro-batch's summed loss, and to the sketches whose turn it is.
        `first`: how many examples the round has seen before."""
        turn = self._window.turn(first)
        if self._sketches is not None and turn is not None:
            self._sketches.attach(self._model.linears, turn)
        loss = self._model.loss_sum(batch, self._prefix.encoded(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        if self._sketches is not None and turn is not None:
            self._sketches.count(batch.n_target_tokens, turn)
        return float(loss.detach())

    def _batches(self, step: int) -> list[Batch]:
        pairs = [self._pair(i) for i in self._order.examples(step)]
        config = self._model.config
        return list(micro_batches(pairs, self._job.plan.micro_batch, config.pad_id, config.start_id))

    def _pair(self, index: int) -> Pair:
        return self._tokenised(self._data.train[index])

    def _tokenised(self, example: Example) -> Pair:
        return self._tokeniser.pair(example, self._settings.max_source_tokens, self._settings.max_target_tokens)

    # --- before and after ------------------------------------------------------------------------------------------

    def _evaluate_received(self) -> None:
        pairs = [self._tokenised(example) for example in held_out_examples(self._job, self._session)]
        if pairs:
            loss, _ = held_out_loss(self._model, self._prefix, self._job, self._session, pairs)
            self._numbers["held_out_loss"] = loss
        self._save(now=True)

    def _finish(self, meter: Meter) -> dict[str, float]:
        sketches = self._sketches.mean() if self._sketches is not None else {}
        n_examples = self._order.n_distinct
        feedback = Feedback(self._job)
        strands = feedback.added(self._strands())
        message = update_message(self._job, n_examples, strands, sketches)
        feedback.keep(strands, message)
        if self._pruning is not None:
            keep_pruned(self._job, {name: len(factors.a) for name, factors in strands.items()})
        write_result(Path(self._job.result_path), message)
        kept = {name: value for name, value in self._numbers.items() if name in ("loss", "held_out_loss")}
        return (
            kept
            | {
                "n_examples": float(n_examples),
                "tokens_per_s": meter.tokens_per_s,
                "seconds": meter.seconds,
                "encode_s": self._prefix.seconds,
                "encoded_tokens": float(self._prefix.n_tokens),
            }
            | ({"residual_lost": 1.0} if feedback.is_lost else {})
            | peaks(self._model.device)
        )

    def _strands(self) -> dict[str, Factors]:
        """B and A of every weight that has strands, as they are to be sent, on the CPU."""
        linears = self._model.linears.items()
        every = {name: linear.factors for name, linear in linears if linear.rank}
        strands = {name: Factors(one.b.cpu(), one.a.cpu()) for name, one in every.items()}
        return self._pruning.without_tails(strands) if self._pruning is not None else strands

    # --- the place in the round ------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, Tensor]:
        groups = {"mean": self._adam.means, "square": self._adam.squares}
        if self._sketches is not None and any(self._sketches.n_tokens):
            groups["sketch"] = self._sketches.sums
        named = {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
        return self._trained | named

    def _save(self, *, now: bool) -> None:
        if not self._job.checkpoint_path or not (now or self._session.clock() >= self._due_s):
            return
        if self._sketches is not None:
            self._numbers |= {_sketched(turn): float(n) for turn, n in enumerate(self._sketches.n_tokens)}
        size_bytes = save_place(Path(self._job.checkpoint_path), self._key, self._tensors(), self._numbers)
        self._due_s = self._session.clock() + interval_s(size_bytes)

    def _resume(self) -> bool:
        """Take up a saved place. False where there is none of this work; it then starts from the beginning."""
        place = load_place(Path(self._job.checkpoint_path), self._key) if self._job.checkpoint_path else None
        if place is None:
            return False
        if self._sketches is not None:
            turns = range(self._window.n_turns)
            self._sketches.n_tokens = [int(place.numbers[_sketched(turn)]) for turn in turns]  # are sums looked for?
        if not restore(place, self._tensors()):
            if self._sketches is not None:
                self._sketches.n_tokens = [0] * self._window.n_turns
            return False
        self._numbers = dict(place.numbers)
        self._adam.n_steps = int(self._numbers["step"])
        return True


def _sketched(turn: int) -> str:
    """The name of a place's number: target tokens that were sketched in the passes of a turn."""
    return f"sketch_tokens.{turn}"
