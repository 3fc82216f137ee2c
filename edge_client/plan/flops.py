"""How many floating-point operations a training step asks for, counted from the model's shapes alone.

Only matrix products are counted, a multiply-add as two operations; norms, softmax, activations, table look-ups and the
optimiser are not (PaLM, arXiv 2204.02311, appendix B, whose model FLOPs utilisation this feeds). What is counted is
what the mathematics needs: a block that is computed twice to save memory, or a score matrix that an attention kernel
computes again in its backward pass, counts once, and rows of zeros that pad a rank do not count. Attention counts
whole score matrices, causal or not, as PaLM does.

A weight W (m, n) over N tokens, with strands of rank r and a frozen part of rank s, takes

    forward                2·N·(m·n + (r + s)·(m + n))
    input's gradient       the same, where a gradient is wanted there
    B's gradient           2·N·m·r            gᵀ·(A·x); A·x is kept from the forward pass
    A's gradient           2·N·n·r            (g·B)ᵀ·x; g·B is a part of the input's gradient, and 2·N·m·r without one

and no gradient by W, so LoRA costs about 4 operations per parameter and token where full fine-tuning costs 6. Attention
of S queries over K keys, with inner width i = heads·d_kv, takes 2·S·K·i for each of its products: two forward (scores,
mixture), and backward one each for the values, the scores, the queries and the keys, as far as gradients are wanted.
The head takes 2·T·V·d for the logits of T target tokens and as much for their gradient.

Gradients are wanted where autograd goes: a tensor needs one if anything before it is trained. So the encoder has no
backward pass in decoder scope, keys and values of cross-attention need no input gradient there, and the first block's
queries, keys and values never do, because the embeddings are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from braid_common.base.t5_config import T5Config
from wire.manifest import t5_weights
from wire.run import Scope

MULTIPLY_ADD = 2
"""Floating-point operations of one multiply-add."""

NO_RANKS: Mapping[str, int] = MappingProxyType({})
"""Strands on no weight."""


@dataclass(frozen=True, slots=True)
class StepFlops:
    """Operations of one micro-batch.

    Attributes:
        encode: the encoder's forward pass; in "all" scope it is a part of the step.
        forward: the decoder's forward pass, the head's logits, and in "all" scope the encoder.
        head_gradient: the head's gradient by the hidden states. The engine takes it in the forward pass, while a
            chunk of logits exists, so it belongs to that phase's time.
        backward: everything else that the backward pass does.
    """

    encode: int
    forward: int
    head_gradient: int
    backward: int

    @property
    def step(self) -> int:
        """One training step. In decoder scope the encoder's outputs are known already."""
        return self.forward + self.head_gradient + self.backward


@dataclass(frozen=True, slots=True)
class Lengths:
    """Size of a micro-batch: its examples, each of exactly so many source and target tokens."""

    micro_batch: int
    source_tokens: int
    target_tokens: int


def step_flops(
    base: T5Config,
    scope: Scope,
    lengths: Lengths,
    ranks: Mapping[str, int],
    frozen_ranks: Mapping[str, int] = NO_RANKS,
    *,
    trains_a: bool = False,
) -> StepFlops:
    """Count one training step.

    Args:
        base: sizes of the model.
        scope: which side is trained. In decoder scope strands of the encoder's weights cost their forward products but
            are not trained.
        lengths: of the micro-batch.
        ranks: strands that are trained, by weight name; 0 where a weight is missing.
        frozen_ranks: strands that lie frozen beside them, in the same way.
        trains_a: whether A is trained beside B.

    Returns:
        Floating-point operations of the step's parts.
    """
    model = _Model(base, lengths, ranks, frozen_ranks, trains_a)
    encoder, decoder = _Tally(model), _Tally(model)
    trains_encoder = scope == "all"
    reaches = _encoder(encoder) and trains_encoder
    reaches = _decoder(decoder, reaches)
    head = MULTIPLY_ADD * model.n_target * base.vocab_size * base.d_model
    return StepFlops(
        encode=encoder.forward,
        forward=decoder.forward + head + (encoder.forward if trains_encoder else 0),
        head_gradient=head if reaches else 0,
        backward=decoder.backward + (encoder.backward if trains_encoder else 0),
    )


class _Model:
    """The numbers that the walk below needs."""

    def __init__(
        self,
        base: T5Config,
        lengths: Lengths,
        ranks: Mapping[str, int],
        frozen_ranks: Mapping[str, int],
        trains_a: bool,
    ) -> None:
        self.base, self.weights = base, {weight.name: weight for weight in t5_weights(base, "all")}
        self.ranks, self.frozen_ranks, self.trains_a = ranks, frozen_ranks, trains_a
        self.micro_batch, self.source, self.target = lengths.micro_batch, lengths.source_tokens, lengths.target_tokens
        self.n_source, self.n_target = self.micro_batch * self.source, self.micro_batch * self.target


class _Tally:
    """Adds up one side of the model. The methods take whether a gradient is wanted at their input and return whether
    one is wanted at their output."""

    def __init__(self, model: _Model) -> None:
        self.model = model
        self.forward = self.backward = 0

    def linear(self, name: str, n_tokens: int, reaches: bool) -> bool:
        weight, rank = self.model.weights[name], self.model.ranks.get(name, 0)
        low_rank = (rank + self.model.frozen_ranks.get(name, 0)) * (weight.rows + weight.columns)
        once = MULTIPLY_ADD * n_tokens * (weight.rows * weight.columns + low_rank)
        self.forward += once
        self.backward += once if reaches else 0  # the input's gradient, by the same products transposed
        self.backward += MULTIPLY_ADD * n_tokens * weight.rows * rank  # B's
        if self.model.trains_a:  # A's; g·B is at hand where the input's gradient was taken
            self.backward += MULTIPLY_ADD * n_tokens * rank * (weight.columns + (0 if reaches else weight.rows))
        return reaches or rank > 0

    def attention(self, name: str, queries: int, keys: int, reaches: bool, keys_reach: bool) -> bool:
        """The four weights of an attention and its products; `queries` and `keys` are tokens of one example."""
        batch = self.model.micro_batch
        q = self.linear(f"{name}.q", batch * queries, reaches)
        k = self.linear(f"{name}.k", batch * keys, keys_reach)
        v = self.linear(f"{name}.v", batch * keys, keys_reach)
        product = MULTIPLY_ADD * batch * queries * keys * self.model.base.inner
        self.forward += 2 * product
        # Values, scores, queries and keys: each gradient is one product, taken where something before it is trained.
        self.backward += product * (v + (q or k) + q + k)
        return self.linear(f"{name}.o", batch * queries, q or k or v) or reaches

    def feed_forward(self, name: str, n_tokens: int, reaches: bool) -> bool:
        gate = self.linear(f"{name}.wi_0", n_tokens, reaches)
        value = self.linear(f"{name}.wi_1", n_tokens, reaches)
        return self.linear(f"{name}.wo", n_tokens, gate or value) or reaches


def _encoder(tally: _Tally) -> bool:
    model, reaches = tally.model, False
    for i in range(model.base.n_encoder_blocks):
        block = f"encoder.block.{i}.layer"
        reaches = tally.attention(f"{block}.0.SelfAttention", model.source, model.source, reaches, reaches)
        reaches = tally.feed_forward(f"{block}.1.DenseReluDense", model.n_source, reaches)
    return reaches


def _decoder(tally: _Tally, encoded_reaches: bool) -> bool:
    model, reaches = tally.model, False
    for i in range(model.base.n_decoder_blocks):
        block = f"decoder.block.{i}.layer"
        reaches = tally.attention(f"{block}.0.SelfAttention", model.target, model.target, reaches, reaches)
        reaches = tally.attention(f"{block}.1.EncDecAttention", model.target, model.source, reaches, encoded_reaches)
        reaches = tally.feed_forward(f"{block}.2.DenseReluDense", model.n_target, reaches)
    return reaches
