"""Cross-entropy of the output head, a few vocabulary rows at a time.

FLAN-T5 has 32,128 pieces: the fp32 logits of 4 × 64 target tokens are 33 MB, autograd would hold them three times, and
an unpacked head is another 33 MB. Here the vocabulary is walked once. Of a chunk the weight is unpacked, its logits are
taken, and they give their share of the normaliser and of the gradient before the next chunk is looked at. Shares are
relative to the largest logit so far and are rescaled when a larger one comes: the online softmax of Milakov and
Gimelshein 2018 (arXiv 1805.02867), carried on to the gradient as FlashAttention does (arXiv 2205.14135).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edge_client.engines.lean.model.batches import IGNORED
from edge_client.jobs.sizes import LOGITS_BYTES, VOCABULARY_ROWS
from quantize.base import FrozenWeight
from quantize.weight import Scratch


@dataclass(frozen=True, slots=True)
class _Sums:
    """Running sums per token over the chunks so far, relative to exp(largest). All fp32, changed in place.

    Attributes:
        largest: the largest logit (tokens, 1).
        total: the sum of exponentials (tokens, 1).
        pull: the exponentials times head rows (tokens, d); None where no gradient is wanted.
    """

    largest: Tensor
    total: Tensor
    pull: Tensor | None

    def losses(self, hidden: Tensor, own: Tensor) -> Tensor:
        """Negative log-likelihood (tokens, 1) of each token, whose label's head row is in `own` (tokens, d)."""
        return self.total.log() + self.largest - (hidden.float() * own).sum(-1, keepdim=True)


class _TokenLosses(torch.autograd.Function):
    """Cross-entropy of each token for autograd, (tokens, 1). The forward pass makes the gradient too, while it has the
    logits: the loss of a token depends on its own hidden state alone, so that any weights can be put on it later."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, labels: Tensor, head: FrozenWeight, scratch: Scratch | None) -> Tensor:
        own = head.rows_of(labels, hidden.dtype)  # (tokens, d)
        sums = _sums(hidden, head, scratch, wants_grad=ctx.needs_input_grad[0])
        losses = sums.losses(hidden, own)
        # The gradient of a token is the softmax-weighted mean of all head rows, less the label's own row.
        grad = None if sums.pull is None else sums.pull.div_(sums.total).sub_(own).to(hidden.dtype)
        ctx.save_for_backward(grad)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0].to(grad.dtype), None, None, None


def _sums(hidden: Tensor, head: FrozenWeight, scratch: Scratch | None, *, wants_grad: bool) -> _Sums:
    """Walk the vocabulary once, for all tokens of `hidden` (tokens, d)."""
    n_tokens, vocabulary = hidden.shape[0], head.shape[0]
    sums = _Sums(
        largest=torch.full((n_tokens, 1), -torch.inf, device=hidden.device),
        total=torch.zeros(n_tokens, 1, device=hidden.device),
        pull=torch.zeros(hidden.shape, device=hidden.device) if wants_grad else None,
    )
    tokens = LOGITS_BYTES // (4 * VOCABULARY_ROWS)
    for start in range(0, vocabulary, VOCABULARY_ROWS):
        rows = head.dense_rows(slice(start, min(start + VOCABULARY_ROWS, vocabulary)), hidden.dtype, scratch)
        for first in range(0, n_tokens, tokens):
            _add_chunk(sums, slice(first, first + tokens), hidden, rows)
    return sums


def _add_chunk(sums: _Sums, tokens: slice, hidden: Tensor, rows: Tensor) -> None:
    """Add the share of `rows` (chunk, d) of the head to the sums of some of the tokens."""
    largest, total = sums.largest[tokens], sums.total[tokens]
    logits = (hidden[tokens] @ rows.t()).float()
    new_largest = torch.maximum(largest, logits.amax(-1, keepdim=True))
    shrink = (largest - new_largest).exp_()  # what was summed is relative to the former largest
    exponentials = logits.sub_(new_largest).exp_()
    total.mul_(shrink).add_(exponentials.sum(-1, keepdim=True))
    if sums.pull is not None:
        sums.pull[tokens].mul_(shrink).add_(exponentials.to(rows.dtype) @ rows)
    largest.copy_(new_largest)


def head_loss(hidden: Tensor, labels: Tensor, head: FrozenWeight, scratch: Scratch | None = None) -> Tensor:
    """Sum of the negative log-likelihoods of the labels that are not IGNORED.

    Args:
        hidden: (batch, tokens, d) in the compute dtype, after the decoder's last norm.
        labels: (batch, tokens) int64 on the CPU.
        head: the frozen output head (vocabulary, d).
        scratch: memory that its rows are unpacked into, if given.

    Returns:
        An fp32 scalar in nats; divide by the number of labels for the mean.
    """
    kept, targets, _ = _labelled(hidden, labels)
    losses: Tensor = _TokenLosses.apply(kept, targets, head, scratch)  # type: ignore[no-untyped-call]
    return losses.sum(dtype=torch.float64).float()


def head_token_losses(hidden: Tensor, labels: Tensor, head: FrozenWeight, scratch: Scratch | None = None) -> Tensor:
    """Negative log-likelihoods as `head_loss` sums them, of each label that is not IGNORED, in the batch's order.

    Args:
        hidden, labels, head, scratch: as there.

    Returns:
        (labels,) fp32 in nats, with their gradient.
    """
    kept, targets, _ = _labelled(hidden, labels)
    losses: Tensor = _TokenLosses.apply(kept, targets, head, scratch)  # type: ignore[no-untyped-call]
    return losses[:, 0]


@torch.no_grad()
def head_losses(hidden: Tensor, labels: Tensor, head: FrozenWeight, scratch: Scratch | None = None) -> Tensor:
    """Sums of negative log-likelihoods as `head_loss` has them, for each example of the batch by itself.

    Args:
        hidden, labels, head, scratch: as there.

    Returns:
        (batch,) float64 in nats, on the CPU.
    """
    kept, targets, places = _labelled(hidden, labels)
    losses = _sums(kept, head, scratch, wants_grad=False).losses(kept, head.rows_of(targets, hidden.dtype))
    examples = places.div(labels.shape[1], rounding_mode="floor")
    return torch.zeros(labels.shape[0], dtype=torch.float64).index_add_(0, examples, losses[:, 0].double().cpu())


def _labelled(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (tokens, d) and labels of what is not IGNORED, and their places in the batch, (tokens,) each."""
    # Found on the processor, where a batch is made: a GPU need not be waited for.
    places = (labels.flatten() != IGNORED).nonzero()[:, 0]
    kept = hidden.flatten(0, 1).index_select(0, places.to(hidden.device))
    return kept, labels.flatten()[places].to(hidden.device), places
