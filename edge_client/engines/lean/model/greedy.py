"""Writing with a key-value cache: the likeliest token each time, or one that is drawn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.model.t5 import Cache

Choose = Callable[[Tensor], Tensor]
"""Takes logits (b, vocabulary) in the compute dtype, and gives the next token of each row, (b, 1) int64."""


def write_greedily(
    model: Model, source: Tensor, mask: Tensor, max_tokens: int, encoded: Tensor | None = None
) -> list[list[int]]:
    """Write the likeliest next token, again and again, for a batch of sources.

    Args:
        model: base and adapter.
        source: ids (b, s) int64, as from `batches.source_batch`.
        mask: (b, s), True on tokens.
        max_tokens: where writing stops.
        encoded: the encoder's output (b, s, d), if it is known.

    Returns:
        The ids written for each source, at most `max_tokens`, without start token and eos.
    """
    written = write(model, source, mask, max_tokens, lambda logits: logits.argmax(-1, keepdim=True), encoded)
    return [ids[:-1] if ids[-1:] == [model.config.eos_id] else ids for ids in written]


def write_at_random(
    model: Model,
    source: Tensor,
    mask: Tensor,
    max_tokens: int,
    generator: torch.Generator,
    encoded: Tensor | None = None,
) -> list[list[int]]:
    """Draw each next token with the probability that the model gives it.

    As `write_greedily` otherwise, but with the eos that ends a text. `generator` is the processor's: the draws are the
    same on every device where the probabilities are.
    """

    def draw(logits: Tensor) -> Tensor:
        return drawn(torch.softmax(logits.float(), -1).cpu(), generator)

    return write(model, source, mask, max_tokens, draw, encoded, narrows=True)


def drawn(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """A place (b, 1) of each row of `probabilities` (b, n), which are used up: where a number, drawn from 0 to their
    sum, lies among their running sums; never where a probability is 0. `torch.multinomial`, which draws a number for
    every place, took a quarter of the time of writing."""
    sums = torch.cumsum(probabilities, -1, out=probabilities)
    heights = torch.rand(len(sums), 1, generator=generator) * sums[:, -1:]
    last_places = (sums < sums[:, -1:]).sum(1, keepdim=True)  # the product may be rounded up to the sum itself
    return torch.minimum(torch.searchsorted(sums, heights, right=True), last_places)


@torch.no_grad()
def write(
    model: Model,
    source: Tensor,
    mask: Tensor,
    max_tokens: int,
    choose: Choose,
    encoded: Tensor | None = None,
    *,
    narrows: bool = False,
) -> list[list[int]]:
    """Write the tokens that `choose` takes, each row up to its eos, which is the last of them, or to `max_tokens`.

    `narrows`: once half of the rows have ended, the others go on without them. That changes their logits by rounding.
    """
    mask = mask.to(model.device)
    encoded = model.encode(source, mask) if encoded is None else encoded
    last = torch.full((source.shape[0], 1), model.config.start_id)
    written: list[list[int]] = [[] for _ in range(source.shape[0])]
    rows, cache = list(range(len(written))), Cache()  # the texts that the batch's rows are
    for _ in range(max_tokens):
        last = choose(model.next_logits(last.to(model.device), encoded, mask, cache))
        for row, token in zip(rows, last[:, 0].tolist(), strict=True):
            if model.config.eos_id not in written[row][-1:]:
                written[row].append(token)
        still = [i for i, row in enumerate(rows) if written[row][-1] != model.config.eos_id]
        if not still:
            break
        if narrows and 2 * len(still) <= len(rows):
            rows = [rows[i] for i in still]
            last, mask, encoded = last[still], mask[still], encoded[still]
            _narrow(cache, still)
    return written


def _narrow(cache: Cache, rows: list[int]) -> None:
    """Keep these rows alone, block by block: no more than a block's are there twice."""
    for blocks in (cache.written, cache.read):
        for block, (keys, values) in blocks.items():
            blocks[block] = keys[rows], values[rows]
