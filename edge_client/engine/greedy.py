"""Greedy decoding with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edge_client.engine.batches import source_batch
from edge_client.engine.model import Model
from edge_client.engine.t5 import Cache


@torch.no_grad()
def write_greedily(model: Model, sources: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """The likeliest next token, again and again, for a batch of source ids.

    Returns the ids written per source, at most `max_tokens`, without start token and without eos.
    """
    source, mask = source_batch(sources, model.shape.pad_id)
    encoded = model.encode(source, mask)
    last = torch.full((len(sources), 1), model.shape.start_id)
    written: list[list[int]] = [[] for _ in sources]
    open_rows = set(range(len(sources)))
    cache = Cache()
    for _ in range(max_tokens):
        last = model.next_logits(last, encoded, mask, cache).argmax(-1, keepdim=True)
        for row, token in enumerate(last[:, 0].tolist()):
            if token == model.shape.eos_id:
                open_rows.discard(row)
            elif row in open_rows:
                written[row].append(token)
        if not open_rows:
            break
    return written
