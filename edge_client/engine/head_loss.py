"""Cross-entropy of the output head, a few tokens at a time.

FLAN-T5 has 32,128 pieces: the fp32 logits of 4 × 64 target tokens are 33 MB, and autograd would hold them three times.
Here the gradient of a chunk is taken while its logits exist, so that one chunk's logits are ever alive and none is
computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantize.base import FrozenWeight

LOGITS_BYTES = 16 << 20
"""fp32 logits alive at once; with fewer than some 50 tokens a chunk, reading the head would take longer than its
products."""

IGNORED = -100
"""Label of a padded position, as in transformers."""


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, labels: Tensor, head: FrozenWeight) -> Tensor:
        weight = head.dense(hidden.dtype)  # (vocabulary, d)
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        size = max(1, LOGITS_BYTES // (4 * weight.shape[0]))
        for start in range(0, hidden.shape[0], size):
            part = slice(start, start + size)
            loss, part_grad = _chunk(hidden[part], labels[part], weight, wants_grad=grad is not None)
            total += loss
            if grad is not None and part_grad is not None:
                grad[part] = part_grad
        ctx.save_for_backward(grad)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0].to(grad.dtype), None, None


def _chunk(hidden: Tensor, labels: Tensor, weight: Tensor, *, wants_grad: bool) -> tuple[Tensor, Tensor | None]:
    """Summed loss of a chunk (fp64 scalar) and its gradient by `hidden` (tokens, d), or None."""
    logits = (hidden @ weight.t()).float()  # (tokens, vocabulary)
    normaliser = logits.logsumexp(-1, keepdim=True)
    loss = (normaliser - logits.gather(1, labels[:, None])).sum(dtype=torch.float64)
    if not wants_grad:
        return loss, None
    surprise = logits.sub_(normaliser).exp_()
    surprise.scatter_add_(1, labels[:, None], torch.full_like(normaliser, -1.0))  # softmax − one-hot
    return loss, surprise.to(hidden.dtype) @ weight


def head_loss(hidden: Tensor, labels: Tensor, head: FrozenWeight) -> Tensor:
    """Sum of the negative log-likelihoods of the labels that are not IGNORED, in nats.

    Args: hidden (batch, tokens, d) in the compute dtype, after the decoder's last norm; labels (batch, tokens) int64;
    head (vocabulary, d), frozen. Returns an fp32 scalar; divide by the number of labels for the mean.
    """
    kept = labels != IGNORED
    total: Tensor = _HeadLoss.apply(hidden[kept], labels[kept], head)  # type: ignore[no-untyped-call]
    return total
