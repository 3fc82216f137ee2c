"""Greedy decoding with a key-value cache."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.model.t5 import Cache


@torch.no_grad()
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
    mask = mask.to(model.device)
    encoded = model.encode(source, mask) if encoded is None else encoded
    last = torch.full((source.shape[0], 1), model.config.start_id)
    written: list[list[int]] = [[] for _ in range(source.shape[0])]
    open_rows = set(range(len(written)))
    cache = Cache()
    for _ in range(max_tokens):
        last = model.next_logits(last.to(model.device), encoded, mask, cache).argmax(-1, keepdim=True)
        for row, token in enumerate(last[:, 0].tolist()):
            if token == model.config.eos_id:
                open_rows.discard(row)
            elif row in open_rows:
                written[row].append(token)
        if not open_rows:
            break
    return written
