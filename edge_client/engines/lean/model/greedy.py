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
        return torch.multinomial(torch.softmax(logits.float(), -1).cpu(), 1, generator=generator)

    return write(model, source, mask, max_tokens, draw, encoded)


@torch.no_grad()
def write(
    model: Model, source: Tensor, mask: Tensor, max_tokens: int, choose: Choose, encoded: Tensor | None = None
) -> list[list[int]]:
    """Write the tokens that `choose` takes, each row up to its eos, which is the last of them, or to `max_tokens`."""
    mask = mask.to(model.device)
    encoded = model.encode(source, mask) if encoded is None else encoded
    last = torch.full((source.shape[0], 1), model.config.start_id)
    written: list[list[int]] = [[] for _ in range(source.shape[0])]
    open_rows = set(range(len(written)))
    cache = Cache()
    for _ in range(max_tokens):
        last = choose(model.next_logits(last.to(model.device), encoded, mask, cache))
        for row, token in enumerate(last[:, 0].tolist()):
            if row in open_rows:
                written[row].append(token)
                if token == model.config.eos_id:
                    open_rows.discard(row)
        if not open_rows:
            break
    return written
