"""Attention with an additive bias, keeping queries, keys and values alone for the backward pass.

On a GPU, and in fp32, this is torch's fused kernel. On a processor that kernel gains nothing from bf16 and keeps its
output besides; plain products in bf16 are two to four times as fast (decision 0010). Scores exist for a few
examples at a time and are computed again in the backward pass, as in FlashAttention (arXiv 2205.14135).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edge_client.jobs.sizes import SCORES_BYTES


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention softmax(q·kᵀ + bias)·v, unscaled as T5 wants it.

    Args:
        queries: (batch, heads, t, d_kv).
        keys: (batch, heads, s, d_kv), of the same dtype, as all others are.
        values: (batch, heads, s, d_kv).
        bias: (batch or 1, heads or 1, t or 1, s), frozen; None for none.

    Returns:
        (batch, heads, t, d_kv).
    """
    if queries.is_cuda or queries.dtype == torch.float32:
        return torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=1.0)
    mixed: Tensor = _Attention.apply(queries, keys, values, bias)  # type: ignore[no-untyped-call]
    return mixed


class _Attention(torch.autograd.Function):
    """Attention for autograd that keeps its three inputs, and computes the scores again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        # Laid out head by head once: a product of strided heads would copy them each time.
        queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
        ctx.save_for_backward(queries, keys, values, bias)
        mixed = torch.empty_like(queries)
        for part in _parts(queries, keys):
            shares = _shares(queries[part], keys[part], _of(bias, part))
            torch.bmm(shares, values[part].flatten(0, 1), out=mixed[part].view(-1, *mixed.shape[2:]))
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, bias = ctx.saved_tensors
        by_query, by_key, by_value = (torch.empty_like(tensor) for tensor in (queries, keys, values))
        for part in _parts(queries, keys):
            q, k, v = (tensor[part].flatten(0, 1) for tensor in (queries, keys, values))
            grad, shares = grads[0][part].flatten(0, 1), _shares(queries[part], keys[part], _of(bias, part))
            # With P = softmax(S) and Y = P·V:  ∂V = Pᵀ·∂Y,  ∂P = ∂Y·Vᵀ,  ∂S = P∘(∂P - Σ P∘∂P),  ∂Q = ∂S·K,  ∂K = ∂Sᵀ·Q.
            torch.bmm(shares.transpose(1, 2), grad, out=by_value[part].view(v.shape))
            by_share = torch.bmm(grad, v.transpose(1, 2))
            by_score = torch._softmax_backward_data(by_share, shares, -1, shares.dtype)
            torch.bmm(by_score, k, out=by_query[part].view(q.shape))
            torch.bmm(by_score.transpose(1, 2), q, out=by_key[part].view(k.shape))
        return by_query, by_key, by_value, None


def _parts(queries: Tensor, keys: Tensor) -> list[slice]:
    """Slices of the batch whose scores fit into SCORES_BYTES."""
    batch, heads, n_queries, _ = queries.shape
    step = max(1, SCORES_BYTES // (heads * n_queries * keys.shape[2] * queries.element_size()))
    return [slice(first, min(first + step, batch)) for first in range(0, batch, step)]


def _of(bias: Tensor | None, part: slice) -> Tensor | None:
    """The bias of some of the batch's examples; one for all stays as it is."""
    return bias if bias is None or bias.shape[0] == 1 else bias[part]


def _shares(queries: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax of the scores (batch·heads, t, s), from contiguous queries and keys (batch, heads, …, d_kv)."""
    scores = torch.bmm(queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2))
    if bias is not None:
        scores.view(*queries.shape[:3], -1).add_(bias)
    return torch.softmax(scores, -1)
