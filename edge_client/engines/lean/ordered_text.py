"""A board's training text in the order in which one job reads it, tokenised step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from braid_common.example import Example
from braid_common.seeds import derive_seed
from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.encoder_cache.store import Source
from edge_client.engines.lean.model.batches import Batch, Order, micro_batches
from edge_client.engines.lean.session import Session
from edge_client.errors import DataError
from edge_client.jobs.messages import PersonalJob, ProfileJob, TrainJob


class OrderedText:
    """The examples of a job's steps: `batch` in each of `steps`.

    The order, and which of an example's targets is read, depend on the task's seed and round and on the board, so that
    a job that is repeated reads the same. Raises DataError where the board has no example to train on.
    """

    def __init__(self, job: ProfileJob | TrainJob | PersonalJob, session: Session, *, batch: int, steps: int) -> None:
        self.examples = session.data(job.data).train
        if not self.examples:
            raise DataError(f"{job.data} leaves no example to train on", "give at least two examples with --data")
        self._tokeniser = session.tokeniser(job)
        self._form = job.run.settings.text_form
        self._micro_batch = job.plan.mode.micro_batch
        lengths = [len(example.source) for example in self.examples]
        seed = derive_seed(job.spec.seed, "order", job.spec.round, job.board_id)
        self._order = Order(lengths, batch, steps, seed)
        self._target_seed = derive_seed(job.spec.seed, "target", job.spec.round, job.board_id)

    @property
    def n_distinct(self) -> int:
        """Examples that the steps read, each counted once."""
        return self._order.n_distinct

    def pairs(self, step: int) -> list[Pair]:
        """The tokenised examples of a step, longest first."""
        return [self.tokenised(example) for example in self.step_examples(step)]

    def step_examples(self, step: int) -> list[Example]:
        """The examples of a step, longest first, each with the one target that is read."""
        return [self._with_drawn_target(*read) for read in self._order.reads(step)]

    def batches(self, step: int, pad_id: int, start_id: int) -> list[Batch]:
        """The examples of a step in the plan's micro-batches."""
        return list(micro_batches(self.pairs(step), self._micro_batch, pad_id, start_id))

    def distinct_sources(self) -> Iterator[Source]:
        """The ids of every source that the steps read, each example once."""
        for index in self._order.distinct():
            yield self.tokenised(self.examples[index]).source

    def tokenised(self, example: Example) -> Pair:
        """An example of this board with its first target as ids, cut to the lengths of the run."""
        return self._tokeniser.pair(example, self._form)

    def _with_drawn_target(self, index: int, nth_pass: int) -> Example:
        """The example with the one of its targets that a pass reads: drawn for the round, and the next one in each
        further pass, so that all are read before one is read again."""
        example = self.examples[index]
        if not example.other_targets:
            return example
        drawn = derive_seed(self._target_seed, example.id) + nth_pass
        return replace(example, target=example.targets[drawn % len(example.targets)], other_targets=())
