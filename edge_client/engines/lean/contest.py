"""A contest: the bare base and adapters on top of it answer the same examples, in one pass over the text.

The base is in memory once, and what an adapter adds is put on it in turn, batch by batch. The encoder runs once per
batch for all contestants whose adapter leaves it alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from braid_common.base.t5_config import T5Config
from braid_common.example import Example
from braid_common.text_form import TextForm
from braid_common.units import show_size
from edge_client.data.tokeniser import Pair, Tokeniser
from edge_client.engines.lean.evaluate import SPARE_SHARE
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_any_adapter
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.greedy import write_greedily
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.model.model import Model
from edge_client.errors import ConfigError, NoPlanError, base_errors
from edge_client.evaluation.answers import Answer, Answered
from edge_client.host.board import probe_board
from edge_client.host.processors import free_processors
from edge_client.host.worker_memory import resident_bytes
from edge_client.jobs.messages import Format
from edge_client.jobs.sizes import LENGTH_STEP
from edge_client.state.personal_folder import StrandsFile
from quantize.base import load_base
from quantize.checkpoint import open_checkpoint
from quantize.writer import written_bytes

NO_STRANDS: Mapping[str, StrandsFile] = MappingProxyType({})
"""No contestant has local strands."""

MAX_BATCH = 32
"""Examples side by side. On a processor more of them gain nothing, and all are written until the last one ends."""


class Contest:
    """A base, loaded once, and its contestants.

    Args:
        base_folder: the base.
        adapters: by the contestant's name a PEFT LoRA folder or an adapter file, None for the bare base.
        own: by the contestant's name the local strands that are put on top of its adapter, where there are some.
        format: of the base in memory, as in a plan. It computes in fp32.
        form: how texts are cut, and the words put before them.
        spare_bytes: memory for batches, and as much again for unpacked weights. None measures what the board can spare
            once everything is loaded.

    Raises:
        BaseModelError: the base cannot be used.
        ConfigError: an adapter cannot, or is another base's; the message names the contestant.
        NoPlanError: the base has no room in memory.
    """

    def __init__(
        self,
        base_folder: Path,
        adapters: Mapping[str, Path | None],
        *,
        own: Mapping[str, StrandsFile] = NO_STRANDS,
        format: Format = "fp32",
        form: TextForm,
        spare_bytes: int | None = None,
    ) -> None:
        with base_errors("name another folder with --model"):
            require_room(base_folder, format)
            base = load_base(base_folder, format)
        self._model = Model(base, AdapterTensors(), "fp32")
        self._contestants = {
            name: self._factors(name, path, own.get(name), base.weights) for name, path in adapters.items()
        }
        self._tokeniser = Tokeniser(base_folder, base.config.eos_id, base.config.vocab_size)
        self._form = form
        if spare_bytes is None:
            spare_bytes = int(SPARE_SHARE * max(0, probe_board().memory_bytes - resident_bytes()))
        self._spare_bytes = spare_bytes

    def answers(
        self, examples: Sequence[Example], tell: Callable[[int], object] = lambda n_done: None
    ) -> list[Answered]:
        """Let every contestant answer.

        Args:
            examples: what they are asked.
            tell: hears how many answers there are so far, of all contestants together.

        Returns:
            The answers, in the order of `examples`. Raises ConfigError where a loss is not finite.
        """
        answered: list[Answered | None] = [None] * len(examples)
        n_done = 0
        tell(n_done)
        with self._model.unpacked_decoder(self._spare_bytes):
            for places in _side_by_side(examples):
                pairs = [self._tokeniser.pair(examples[place], self._form) for place in places]
                for part in self._parts(pairs):
                    chosen = [examples[place] for place in places[part]]
                    for place, one in zip(places[part], self._answer(chosen, pairs[part]), strict=True):
                        answered[place] = one
                    n_done += len(chosen) * len(self._contestants)
                    tell(n_done)
        return [one for one in answered if one is not None]

    # --- one batch -------------------------------------------------------------------------------------------------

    def _answer(self, examples: Sequence[Example], pairs: Sequence[Pair]) -> list[Answered]:
        """The answers to one batch of examples."""
        batch = collate(pairs, self._model.config.pad_id, self._model.config.start_id)
        by_contestant: list[list[Answer]] = []
        base_encoded: Tensor | None = None
        for name, factors in self._contestants.items():
            self._model.put_on(factors)
            if _changes_encoder(factors):
                encoded = self._model.encode(batch.source, batch.padding)
            else:
                base_encoded = self._model.encode(batch.source, batch.padding) if base_encoded is None else base_encoded
                encoded = base_encoded
            by_contestant.append(self._answer_as(name, batch, encoded))
        return [
            self._answered(example, pair, tuple(answers[i] for answers in by_contestant))
            for i, (example, pair) in enumerate(zip(examples, pairs, strict=True))
        ]

    def _answer_as(self, name: str, batch: Batch, encoded: Tensor) -> list[Answer]:
        """The answers of the contestant whose adapter is on the base."""
        losses = self._model.losses(batch, encoded).tolist()
        if not all(map(math.isfinite, losses)):
            raise ConfigError(f"the loss of {name} is not finite: its adapter or the base is broken", "export it again")
        texts = write_greedily(
            self._model, batch.source, batch.source_mask, self._form.max_target_tokens, encoded=encoded
        )
        return [Answer(loss, self._tokeniser.decode(ids)) for loss, ids in zip(losses, texts, strict=True)]

    def _answered(self, example: Example, pair: Pair, answers: tuple[Answer, ...]) -> Answered:
        longer = replace(
            self._form,
            max_source_tokens=self._form.max_source_tokens + 1,
            max_target_tokens=self._form.max_target_tokens + 1,
        )
        whole = self._tokeniser.pair(example, longer)
        return Answered(
            example=example,
            n_target_tokens=len(pair.target),
            writable_targets=tuple(map(self._tokeniser.writable, example.targets)),
            source_is_cut=len(whole.source) > self._form.max_source_tokens,
            target_is_cut=len(whole.target) > self._form.max_target_tokens,
            answers=answers,
        )

    # --- what is prepared ------------------------------------------------------------------------------------------

    def _factors(
        self, name: str, path: Path | None, own: StrandsFile | None, weights: Mapping[str, object]
    ) -> dict[str, Factors]:
        """A contestant's factors, checked against the base. Raises ConfigError that names the contestant."""
        try:
            factors = {} if path is None else read_any_adapter(path, list(weights)).product_factors()
            if own is not None:
                from edge_client.engines.lean.personal.on_top import on_top

                factors = on_top(factors, own)
            self._model.put_on(factors)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error.message}", error.hint) from error
        return factors

    def _parts(self, pairs: Sequence[Pair]) -> Iterator[slice]:
        """Slices of pairs, longest first, that memory has room for side by side; of one pair at least."""
        first = 0
        while first < len(pairs):
            longest = max(len(pair.source) for pair in pairs[first:])
            one_bytes = example_bytes(self._model.config, longest, self._form.max_target_tokens)
            size = max(1, self._spare_bytes // one_bytes)
            yield slice(first, first + size)
            first += size


def example_bytes(config: T5Config, n_source: int, n_target: int) -> int:
    """Memory that each example of a batch takes at its worst moment, in fp32, without gradients.

    The moments: an encoder block, with the biases of all positions and of the padding, x, its norm's copies, and
    queries, keys and values or the feed-forward's three tensors; or a token that is written, with the keys and values
    of all decoder blocks, and the logits as they come and as they are joined. The encoder's output is there all the
    time.

    Args:
        config: the base's numbers.
        n_source, n_target: tokens of the longest source, and that are written at most.

    Returns:
        Bytes, rather too many: with FLAN-T5-small's shape and sources of 512 tokens 28 MiB, where 16 were measured. The
        source counts as it is padded.
    """
    n_source = -(-n_source // LENGTH_STEP) * LENGTH_STEP
    widest = max(4 * config.inner, 3 * config.d_ff)
    encoder = n_source * (4 * config.d_model + widest) + 2 * config.n_heads * n_source**2
    cache = 2 * config.inner * config.n_decoder_blocks * (n_source + n_target)
    decoder = 2 * cache + 2 * config.vocab_size + 4 * config.d_model + widest  # the cache is joined to each new token
    return 4 * (n_source * config.d_model + max(encoder, decoder))


def use_threads(threads: int) -> None:
    """Compute with so many threads in this process; 0 is as many as there are free processors now."""
    torch.set_num_threads(threads or free_processors())


def require_room(base_folder: Path, format: Format) -> None:
    """Raise NoPlanError where the base in `format` is more than this board has memory for."""
    needs_bytes, has_bytes = written_bytes(open_checkpoint(base_folder), format), probe_board().memory_bytes
    if needs_bytes > has_bytes:
        raise NoPlanError(
            f"in {format} the base takes {show_size(needs_bytes)}, free are {show_size(has_bytes)}",
            "hold it in fewer bits with --format int8 or nf4, or free some memory",
            needed_bytes=needs_bytes,
        )


def _side_by_side(examples: Sequence[Example]) -> list[list[int]]:
    """Places of examples of like length, at most MAX_BATCH together, longest first among them.

    The longest come first of all, so that memory that does not suffice is known at once; the rest in any order, so that
    the time that is left can be told from the time that was taken.
    """
    order = sorted(range(len(examples)), key=lambda place: -len(examples[place].source))
    first, *rest = [order[i : i + MAX_BATCH] for i in range(0, len(order), MAX_BATCH)] or [[]]
    random.Random(0).shuffle(rest)
    return [first, *rest]


def _changes_encoder(factors: Mapping[str, Factors]) -> bool:
    return any(name.startswith("encoder.") and pair.a.shape[0] for name, pair in factors.items())
