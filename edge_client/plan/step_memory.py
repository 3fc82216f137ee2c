"""Bytes of the tensors that training holds, from shapes alone; those of the adapter are in adapter_memory.py.

Letters as in the T5 paper's shapes: d model width, f feed-forward width, i the heads' common width, H heads; S and T
are source and target tokens of a micro-batch, each text as long as the run allows; c bytes of the compute dtype. What
is kept for the backward pass follows edge_client/engines/lean/model/t5.py, attention.py, lora.py and fused_ops.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import TrainingMode
from edge_client.jobs.sizes import (
    ANSWERS_BYTES,
    LEAST_HIDDEN_BYTES,
    LENGTH_STEP,
    LOGITS_BYTES,
    SCORES_BYTES,
    TOKENS_PER_BATCH,
    VOCABULARY_ROWS,
    answer_bytes,
)
from edge_client.plan.adapter_memory import AdapterSizes, padded
from wire.run import RunInfo, Weight

BACKWARD_COPIES = 4
"""Feed-forward gradients alive at once: of gate, value and product, and gelu(gate)."""

SCORE_COPIES = 4
"""Tensors of scores alive at once in the backward pass of bf16 attention: shares, their gradient, the scores' gradient
and its transpose."""

_VALUE_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.5 + 4 / 64}
_COMPUTE_BYTES = {"fp32": 4, "bf16": 2}


class TensorSizes:
    """Bytes of one board's tensors: of the base, of a step's activations, of buffers, of the encoding pass.

    Where the run's scope is "decoder", or the mode freezes the encoder, the encoder only runs forward and nothing of it
    is sketched. `adapter` counts what is trained.
    """

    def __init__(self, base: T5Config, run: RunInfo, mode: TrainingMode) -> None:
        self._base, self._run, self._format, self._checkpointing = base, run, mode.format, mode.checkpointing
        self._c = _COMPUTE_BYTES[mode.compute]
        self._unpacked = 0 if mode.format == mode.compute else self._c  # a base in the compute dtype is used as it lies
        self._d, self._f, self._inner, self._heads = base.d_model, base.d_ff, base.inner, base.n_heads
        self._trains_encoder = run.settings.scope == "all" and not mode.frozen_encoder
        self.adapter = AdapterSizes(run, self._c, trains_encoder=self._trains_encoder)
        self._micro_batch = mode.micro_batch
        self._source_length = _rounded(run.settings.max_source_tokens, LENGTH_STEP)
        self._target_length = _rounded(run.settings.max_target_tokens, LENGTH_STEP // 4)
        self._source = mode.micro_batch * self._source_length  # S
        self._target = mode.micro_batch * self._target_length  # T

    # --- what stays ------------------------------------------------------------------------------------------------

    def base(self, *, encoder: bool = True) -> int:
        """Matrices at the format's bits, with fp32 row scales in int8; embeddings are int8 in nf4 as well."""
        blocks = self._base.n_decoder_blocks * self._packed(attentions=2)
        if encoder:
            blocks += self._base.n_encoder_blocks * self._packed(attentions=1)
        # T5 scales the decoder's output just where its output layer is the embedding: then there is one table.
        return blocks + (1 if self._base.scales_output else 2) * self._table()

    # --- one training step -----------------------------------------------------------------------------------------

    def activations(self, ranks: Sequence[int]) -> int:
        """Tensors that are kept between the forward and the backward pass: of the blocks in scope, the attention
        biases, which all blocks share, and the ends: last norms' inputs, encoder output (the next batch's too), hidden,
        gradient."""
        kept = self._kept_of_decoder()
        if self._trains_encoder:
            kept += self._base.n_encoder_blocks * self._kept_of(self._source, self._encoder_block())
        ends = self._c * self._d * (2 * self._source + 3 * self._target)
        return kept + ends + self._biases() + self._projections(ranks)

    def working(self, *, encodes: bool) -> int:
        """Bytes that the worst moment of a step takes beyond `activations`, with the matrix that weights are unpacked
        into. `encodes`: the frozen encoder runs in the step.

        The moments: the loss; the last decoder block on its way back; the last encoder block's, when the decoder's
        activations are gone; a frozen encoder block's forward pass, before there are any.
        """
        source, target = self._source, self._target
        decoder = self._again(self._decoder_block()) + max(
            self._backward(target, source), self._backward(target, target)
        )
        moments = [self._loss(), decoder]
        # Moments without the decoder's activations are counted less by those.
        if self._trains_encoder:
            backward = self._again(self._encoder_block()) + self._backward(source, source)
            moments.append(backward - self._kept_of_decoder())
        elif encodes:
            step = self._forward(self._source)
            moments.append(step - self._kept_of_decoder())
        return self._unpacked * max(self._head_rows(), self._f) * self._d + max(moments)

    def strand(self, weight: Weight) -> int:
        """The most that one more strand of `weight` adds to all of the above together, whatever the ranks are: what
        stays of it, and what it adds to the moment that grows fastest with it."""
        stays, beyond = self.adapter.strand(weight)
        return stays + max(self._c * self._tokens(weight), beyond)

    def writing(self) -> int:
        """Bytes of answers while they are written, with the matrix that weights are unpacked into. There are no
        activations then."""
        answers = max(ANSWERS_BYTES, answer_bytes(self._base, self._source_length, self._target_length, self._c))
        return self._unpacked * max(self._head_rows(), self._f) * self._d + answers

    # --- the encoding pass -----------------------------------------------------------------------------------------

    def encoder_block(self) -> int:
        """Part of the base that the encoding pass holds: a block as it was read, and unpacked."""
        values = 4 * self._inner * self._d + 3 * self._f * self._d
        return self._packed(attentions=1) + self._unpacked * values

    def hidden_states(self) -> int:
        """Hidden states of one chunk of texts: LEAST_HIDDEN_BYTES, or the longest text where that is more."""
        return max(LEAST_HIDDEN_BYTES, self._c * self._source_length * self._d)

    def encoding(self) -> int:
        """Bytes that the worst moment of the pass takes beyond a block and the hidden states. A block's forward pass on
        TOKENS_PER_BATCH tokens, of shorter texts too where a longer one runs alone; or before the first block, in its
        place, the embedding."""
        forward = self._forward(max(TOKENS_PER_BATCH, self._source_length))
        return max(forward, self._table() - self.encoder_block())

    # --- parts -----------------------------------------------------------------------------------------------------

    def _head_rows(self) -> int:
        return min(VOCABULARY_ROWS, self._base.vocab_size)

    def _packed(self, attentions: int) -> int:
        """A block with 1 (encoder) or 2 attentions of q, k, v, o, and the feed-forward's three matrices."""
        values = attentions * 4 * self._inner * self._d + 3 * self._f * self._d
        rows = attentions * (3 * self._inner + self._d) + 2 * self._f + self._d
        return int(values * _VALUE_BYTES[self._format]) + (4 * rows if self._format == "int8" else 0)

    def _table(self) -> int:
        """Embedding or head; in int8 and nf4 int8 rows, each with its fp32 scale."""
        if self._format in ("int8", "nf4"):
            return self._base.vocab_size * (self._d + 4)
        return int(self._base.vocab_size * self._d * _VALUE_BYTES[self._format])

    def _loss(self) -> int:
        """The loss. Of a chunk of tokens and head rows the logits, in fp32, as the product gives them and as it takes
        them; per token the label's row, its product with the hidden state, and the gradient, in fp32 too."""
        rows = self._head_rows()
        tokens = min(self._target, LOGITS_BYTES // (4 * VOCABULARY_ROWS))
        copies = 4 + (2 * self._c if self._c < 4 else 0)  # bytes per logit: fp32, and in bf16 the product's two
        return copies * tokens * rows + self._target * self._d * (3 * 4 + 2 * self._c)

    def _backward(self, tokens: int, read: int) -> int:
        """The worst of a block's way back: the feed-forward's gradients of width f and its norm's three fp32 tensors
        of width d, or attention's scores of `tokens` on `read` tokens with the gradients of q, k and v."""
        feed_forward = tokens * (BACKWARD_COPIES * self._c * self._f + 3 * 4 * self._d)
        scores = self._scores(tokens, tokens // self._micro_batch, read // self._micro_batch)
        attention = SCORE_COPIES * scores + self._c * self._inner * (2 * tokens + 2 * read)
        return max(feed_forward, attention)

    def _forward(self, tokens: int) -> int:
        """The worst of an encoder block without gradients: x and normed, with the feed-forward's three tensors, or
        with q, k, v, mixed and the scores, or with the norm's two in fp32; and the position bias."""
        scores = self._scores(tokens, self._source_length, self._source_length)
        attention = self._c * 4 * self._inner * tokens + 2 * scores
        wide = max(3 * self._c * self._f * tokens, attention, 2 * 4 * self._d * tokens)
        return wide + 2 * self._c * self._d * tokens + self._bias(tokens)

    def _scores(self, tokens: int, length: int, read: int) -> int:
        """Scores of `tokens`, each on `read` others, that are alive at once in bf16: SCORES_BYTES of shorter texts, or
        one text of `length`; fp32 attention goes through torch's kernel, which keeps a few rows."""
        per_token = self._c * self._heads * read
        return 0 if self._c == 4 else max(length * per_token, min(tokens * per_token, SCORES_BYTES))

    def _kept_of_decoder(self) -> int:
        return self._base.n_decoder_blocks * self._kept_of(self._target, self._decoder_block())

    def _kept_of(self, tokens: int, block: int) -> int:
        """Bytes kept of a block that would keep `block`; with checkpointing its input alone."""
        return self._c * tokens * self._d if self._checkpointing else block

    def _again(self, block: int) -> int:
        """Bytes of a block that is computed again, until its backward pass is through."""
        return block if self._checkpointing else 0

    def _encoder_block(self) -> int:
        """Norm inputs 2d, q, k, v and mixed 4i, gate and value 2f; a sketch and the gradient of A need every linear's
        input and so keep both normed inputs 2d and f too (q, k and v read the same one).

        In fp32 one log-sum of scores per head and two inverse norms.
        """
        per_token = self._c * (4 * self._d + 4 * self._inner + 3 * self._f) + 4 * (self._heads + 2)
        return self._source * per_token

    def _decoder_block(self) -> int:
        """An encoder block and a third layer: norm input d, q and mixed 2i of the target, k and v 2i of the source."""
        per_target = self._c * (6 * self._d + 6 * self._inner + 3 * self._f) + 4 * (2 * self._heads + 3)
        return self._target * per_target + self._source * self._c * 2 * self._inner

    def _biases(self) -> int:
        """The decoder's position bias, and the encoder's if its blocks are kept."""
        own = self._c * self._heads * self._target_length**2
        return own + (self._bias(self._source) if self._trains_encoder else 0)

    def _bias(self, tokens: int) -> int:
        """Position bias (H, length, length) of the encoder, and its sum with the padding of each text."""
        return self._c * self._heads * self._source_length * (tokens + self._source_length)

    def _projections(self, ranks: Sequence[int]) -> int:
        """A·x, r numbers per token of every trained weight; with checkpointing of one block's weights at a time."""
        blocks: dict[str, int] = {}
        for weight, rank, local in zip(self._run.weights, ranks, self.adapter.local_ranks, strict=True):
            block = ".".join(weight.name.split(".")[:3])
            blocks[block] = blocks.get(block, 0) + self._c * padded(rank + local) * self._tokens(weight)
        return (max if self._checkpointing else sum)(blocks.values())

    def _tokens(self, weight: Weight) -> int:
        return self._source if weight.reads_source else self._target


def _rounded(length: int, step: int) -> int:
    return -(-length // step) * step
